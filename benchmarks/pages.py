"""Pages of docs/measurements: a result of the bench, and how it stands against what is promised."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from apns_live.bench.results import Result, Run, conditions

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
        value = f"{self.value:,.3g} {self.unit}".rstrip()
        verdict = "met" if self.met else "MISSED"
        return f"{self.name}: {value} ({side} {self.bound:,g}): {verdict}"


def options(name: str, about: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(prog=f"benchmarks {name}", description=about)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write the page of docs/measurements")
    parser.add_argument("--enforce", action="store_true", help="fail when a bar is missed")
    return parser


def result(name: str, title: str, settings: Mapping[str, str]) -> Result:
    """Return a result without runs, with its conditions."""
    return Result(
        measure=name, title=title, conditions=conditions(), settings=dict(settings), runs=[]
    )


def figures(name: str, **values: float) -> Run:
    """Return a row of figures; an underscore in a name stands for a space."""
    return Run(name=name, figures={key.replace("_", " "): value for key, value in values.items()})


def markdown(found: Result) -> str:
    """Return a result as a page for docs/measurements."""
    lines = [f"# {found.title}", ""]
    lines += [f"- {key}: {value}" for key, value in (found.conditions | found.settings).items()]
    columns, rows = found.table()
    if columns:
        lines += ["", f"| {' | '.join(columns)} |", f"|---|{'---:|' * (len(columns) - 1)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"{note}\n" for note in found.notes)] if found.notes else []
    return "\n".join(lines).rstrip() + "\n"


def finish(found: Result, bars: Sequence[Bar], given: argparse.Namespace) -> int:
    """Print, record what is to be recorded, and return the exit code."""
    page = markdown(found)
    if bars:
        page += "\nAgainst what is promised:\n\n"
        page += "".join(f"- {bar.sentence()}\n" for bar in bars)
    if given.json:
        sys.stdout.buffer.write(found.json() + b"\n")
    else:
        print(page)
    if given.record:
        MEASUREMENTS.mkdir(parents=True, exist_ok=True)
        (MEASUREMENTS / f"{found.measure}.md").write_text(page)
    failed = any(run.failed for run in found.runs)
    return int(failed or (given.enforce and not all(bar.met for bar in bars)))
