"""Results of a measurement: runs and conditions; prints and saves them."""

from __future__ import annotations

import contextlib
import csv
import io
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from ..errors import InvalidInput
from ..misfits import misfit

SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
"""The quantiles that a run keeps."""


class Run(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One turn of one contender. Times are seconds."""

    name: str
    round: int = 0
    count: int = 0
    """Pushes, or calls, that were answered."""
    failed: int = 0
    """Of them: not accepted."""
    wall: float = 0.0
    cpu: float = 0.0
    """User and system time of the sending process; 0 where it was not taken."""
    sink_busy: float = 0.0
    """The share of one core that the sink used meanwhile. Near 1, the sink is what was measured."""
    at: float = 0.0
    """When it began, seconds since 1970."""
    timeline: list[tuple[float, int]] = []
    """(seconds since the beginning, answered so far)"""
    quantiles: dict[str, float] = {}
    """Share of the answers -> within how many seconds they came."""
    figures: dict[str, float] = {}
    """What only this measurement has; each name says its unit."""

    @property
    def rate(self) -> float:
        """Answers a second; 0 where nothing was counted."""
        return self.count / self.wall if self.wall else 0.0


@contextlib.contextmanager
def taken(run: Run) -> Iterator[None]:
    """Take wall and CPU time of the block, and when it began."""
    run.at, cpu, begin = time.time(), time.process_time(), time.perf_counter()
    try:
        yield
    finally:
        run.wall, run.cpu = time.perf_counter() - begin, time.process_time() - cpu


class Result(msgspec.Struct, kw_only=True):
    """A measurement. Every run stands in ``runs``; tables and plots are made from them."""

    measure: str
    title: str
    conditions: dict[str, str]
    settings: dict[str, str] = {}
    runs: list[Run] = []
    notes: list[str] = []
    format: int = 1

    def named(self) -> dict[str, list[Run]]:
        """Return the runs of each contender, in the order of their rounds."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.name, []).append(run)
        return found

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return columns and rows: one row a contender, medians of its rounds."""
        every = [_row(name, runs) for name, runs in self.named().items()]
        columns = list(dict.fromkeys(column for row in every for column in row))
        return columns, [[row.get(column, "") for column in columns] for row in every]

    def csv(self) -> str:
        """Return one line for each run, without timelines."""
        fixed = ("name", "round", "at", "count", "failed", "wall", "cpu", "sink_busy", "rate")
        lines = []
        for run in self.runs:
            times = {f"p{float(share) * 100:g}": took for share, took in run.quantiles.items()}
            facts = {name: getattr(run, name) for name in fixed}
            lines.append({"measure": self.measure, **facts, **times, **run.figures})
        out = io.StringIO()
        columns = list(dict.fromkeys(column for line in lines for column in line))
        writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return out.getvalue()

    def json(self) -> bytes:
        """Return everything, as `load` reads it."""
        return msgspec.json.format(msgspec.json.encode(self))


def load(path: str | Path) -> Result:
    """Read a result that ``--output`` wrote. Raises InvalidInput when it is none."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Result)
    except msgspec.DecodeError as error:
        said = misfit(error) if isinstance(error, msgspec.ValidationError) else error
        raise InvalidInput(
            f"{path} holds no result of apns-live bench: {said}",
            field="file",
            remedy="Give a file that --output wrote.",
        ) from None


def quantiles(times: Iterable[float]) -> dict[str, float]:
    """Return the quantiles of `SHARES`; empty for no times."""
    ordered = sorted(times)
    last = len(ordered) - 1
    return {str(share): ordered[round(share * last)] for share in SHARES} if ordered else {}


def median(values: Iterable[float]) -> float:
    """Return the median; 0 for nothing."""
    found = list(values)
    return statistics.median(found) if found else 0.0


def _keys(mappings: Iterable[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(key for one in mappings for key in one))


def _row(name: str, runs: list[Run]) -> dict[str, str]:
    row = {"": name}
    if any(run.rate for run in runs):
        rates = [run.rate for run in runs]
        row["per second"] = f"{median(rates):,.0f}"
        row["range"] = f"{min(rates):,.0f} - {max(rates):,.0f}"
    if any(run.cpu for run in runs):
        row["CPU us each"] = f"{median(run.cpu / max(1, run.count) * 1e6 for run in runs):,.1f}"
    for share in ("0.5", "0.99"):
        if times := [run.quantiles[share] for run in runs if share in run.quantiles]:
            row[f"p{float(share) * 100:g} ms"] = f"{median(times) * 1e3:,.2f}"
    for key in _keys(run.figures for run in runs):
        value = median(run.figures[key] for run in runs if key in run.figures)
        row[key] = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    if any(run.sink_busy for run in runs):
        row["sink busy"] = f"{median(run.sink_busy for run in runs):.0%}"
    if any(run.count for run in runs):
        row["count"] = f"{sum(run.count for run in runs):,}"
        row["failed"] = f"{sum(run.failed for run in runs):,}"
    return row
