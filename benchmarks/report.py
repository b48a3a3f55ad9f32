"""One measurement's result: conditions, a table, and how it stands against its bars."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEASUREMENTS = Path(__file__).resolve().parents[1] / "docs" / "measurements"


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise: ``value`` must be at least, or at most, ``bound``."""

    name: str
    value: float
    bound: float
    at_least: bool = True
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the promise holds."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def sentence(self) -> str:
        """Return the bar as one line for a person."""
        side = "at least" if self.at_least else "at most"
        unit = f" {self.unit}" if self.unit else ""
        verdict = "met" if self.met else "MISSED"
        return f"{self.name}: {self.value:,.3g}{unit} ({side} {self.bound:,g}): {verdict}"


@dataclass(slots=True)
class Report:
    """What a benchmark found. ``rows`` are printed as a table under ``columns``."""

    name: str
    title: str
    conditions: dict[str, str]
    settings: dict[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether every bar is met."""
        return all(bar.met for bar in self.bars)

    def text(self) -> str:
        """Return the report for a terminal."""
        lines = [self.title, ""]
        lines += [f"  {key}: {value}" for key, value in (self.conditions | self.settings).items()]
        lines.append("")
        widths = [
            max(len(row[column]) for row in (self.columns, *self.rows))
            for column in range(len(self.columns))
        ]
        for row in (self.columns, *self.rows):
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            lines.append("  " + "  ".join(cells))
        if self.bars:
            lines += ["", *(f"  {bar.sentence()}" for bar in self.bars)]
        lines += ["", *(f"  {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return the report as a page for docs/measurements."""
        lines = [f"# {self.title}", ""]
        lines += [f"- {key}: {value}" for key, value in (self.conditions | self.settings).items()]
        if self.columns:
            lines += ["", f"| {' | '.join(self.columns)} |"]
            lines.append(f"|---|{'---:|' * (len(self.columns) - 1)}")
            lines += [f"| {' | '.join(row)} |" for row in self.rows]
        if self.bars:
            lines += ["", "Against what is promised:", ""]
            lines += [f"- {bar.sentence()}" for bar in self.bars]
        if self.notes:
            lines += [""] + [f"{note}\n" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"

    def json(self) -> str:
        """Return everything, machine-readable."""
        bars = [
            {
                "name": bar.name,
                "value": bar.value,
                "bound": bar.bound,
                "at_least": bar.at_least,
                "met": bar.met,
            }
            for bar in self.bars
        ]
        return json.dumps(
            {
                "benchmark": self.name,
                "conditions": self.conditions,
                "settings": self.settings,
                "columns": self.columns,
                "rows": self.rows,
                "bars": bars,
                "notes": self.notes,
                "raw": self.raw,
            },
            indent=2,
        )

    def record(self) -> Path:
        """Write the page into docs/measurements and return where it is."""
        MEASUREMENTS.mkdir(parents=True, exist_ok=True)
        path = MEASUREMENTS / f"{self.name}.md"
        path.write_text(self.markdown())
        return path
