"""Results of measurements: runs and conditions, their comparison, and the plan for an audience."""

import contextlib
import csv
import datetime
import importlib.metadata
import io
import math
import os
import platform
import re
import ssl
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec

from ..errors import InvalidInput
from ..misfits import misfit
from .processes import SinkOptions, carries, cores

SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
"""The quantiles that a run keeps."""


class Run(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One turn of one contender. Times are seconds."""

    name: str
    round: int = 0
    count: int = 0
    """The answered pushes or calls."""
    failed: int = 0
    """Those of them that were not accepted."""
    wall: float = 0.0
    cpu: float = 0.0
    """User and system time of the sending process; 0 if it was not measured."""
    sink_busy: float = 0.0
    """The share of one core that the sink used. Near 1, the sink was the bottleneck."""
    at: float = 0.0
    """The start, seconds since 1970."""
    timeline: list[tuple[float, int]] = []
    """(seconds since the beginning, answered so far)"""
    quantiles: dict[str, float] = {}
    """Share of the answers -> the seconds within which they arrived."""
    figures: dict[str, float] = {}
    """Figures of this measurement only; each name has its unit."""

    @property
    def rate(self) -> float:
        """Answers a second; 0 if none was counted."""
        return self.count / self.wall if self.wall else 0.0


@contextlib.contextmanager
def taken(run: Run) -> Iterator[None]:
    """Measure the start, wall time and CPU time of the block."""
    run.at, cpu, begin = time.time(), time.process_time(), time.perf_counter()
    try:
        yield
    finally:
        run.wall, run.cpu = time.perf_counter() - begin, time.process_time() - cpu


class Result(msgspec.Struct, kw_only=True):
    """A measurement. Tables and plots are made from its ``runs``."""

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
        """Return columns and rows. Each contender has one row with the medians of its rounds."""
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
    """Read a result that ``--output`` wrote. Raises InvalidInput for another file."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Result)
    except msgspec.DecodeError as error:
        problem = f"{path} holds no result of apns-live bench: {misfit(error)}"
        raise InvalidInput(problem, "file", "Give a file that --output wrote.") from None


def quantiles(times: Iterable[float]) -> dict[str, float]:
    """Return the quantiles of `SHARES`; empty for no times."""
    ordered = sorted(times)
    last = len(ordered) - 1
    return {str(share): ordered[round(share * last)] for share in SHARES} if ordered else {}


def median(values: Iterable[float]) -> float:
    """Return the median; 0 for nothing."""
    return statistics.median(list(values) or [0.0])


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
    for key in dict.fromkeys(key for run in runs for key in run.figures):
        value = median(run.figures[key] for run in runs if key in run.figures)
        row[key] = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    if any(run.sink_busy for run in runs):
        row["sink busy"] = f"{median(run.sink_busy for run in runs):.0%}"
    if any(run.count for run in runs):
        row["count"] = f"{sum(run.count for run in runs):,}"
        row["failed"] = f"{sum(run.failed for run in runs):,}"
    return row


# --- conditions

LIBRARIES = ("apns-live", "hpack", "msgspec", "cryptography", "httpx", "h2", "aioapns", "uvloop")


def calibrate(turns: int = 2_000_000, rounds: int = 5) -> float:
    """Return how many million turns a second one core makes of a fixed loop in pure Python.

    The best of the rounds, so that a busy neighbour does not make the core look slower than it is.
    Compare figures between machines by this number.
    """
    best = float("inf")
    for _ in range(rounds):
        value, table = 1, {}
        begin = time.perf_counter()
        for turn in range(turns):
            value = (value * 31 + turn) & 0xFFFF
            table[value & 63] = turn
        best = min(best, time.perf_counter() - begin)
    return turns / best / 1e6


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        if named := re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M):
            return named[1].strip()
    return platform.processor() or platform.machine()


def conditions() -> dict[str, str]:
    """Return the conditions as printable pairs. Takes a second: it calibrates."""
    pinned = cores() != (None, None)
    there = {one.name: one.version for one in importlib.metadata.distributions()}
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": cpu_model(),
        "cores": f"{os.cpu_count()}, "
        + ("servers and sender on one each" if pinned else "servers and sender not pinned"),
        "one core": f"{calibrate():.1f} million calibration turns a second",
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "TLS": ssl.OPENSSL_VERSION,
        "libraries": ", ".join(f"{name} {there.get(name, 'absent')}" for name in LIBRARIES),
    }


# --- comparison

T_95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160)
"""Student's t for 1 to 13 degrees of freedom, two-sided 95 %."""
SHARE_OF_NORMAL = 1.96


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second's rate divided by the first's; ``low`` and ``high`` are infinite for one round."""

    name: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    rounds: int
    alternating: bool

    @property
    def verdict(self) -> str:
        """Say whether the result shows a difference."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no difference shown"


def compare(first: Result, second: Result) -> list[Comparison]:
    """Compare the contenders of two results. Raises InvalidInput if they have none in common."""
    ours, theirs = first.named(), second.named()
    found = [
        _compared(name, ours[name], theirs[name])
        for name in ours
        if name in theirs and all(run.rate for run in ours[name] + theirs[name])
    ]
    if not found or first.measure != second.measure:
        problem = f"{first.measure} and {second.measure} share no contender with a rate"
        raise InvalidInput(problem, "files", "Give two results of one measure.")
    return found


def compare_contenders(result: Result) -> list[Comparison]:
    """Compare the other contenders of one result with its first."""
    (name, runs), *others = result.named().items()
    return [_compared(f"{other} / {name}", runs, theirs) for other, theirs in others]


def _compared(name: str, first: Sequence[Run], second: Sequence[Run]) -> Comparison:
    first, second = (sorted(runs, key=lambda run: run.at) for runs in (first, second))
    before, after = ([math.log(run.rate) for run in runs] for runs in (first, second))
    # Whether both alternated: each pair of rounds ended before the next began.
    pairs = [sorted((a.at, b.at)) for a, b in zip(first, second, strict=False)]
    in_turn = all(earlier[1] <= later[0] for earlier, later in pairwise(pairs))
    alternating = len(first) == len(second) and in_turn
    if alternating:
        differences = [b - a for a, b in zip(before, after, strict=True)]
        middle = statistics.mean(differences)
        error, freedom = _error(differences), len(differences) - 1.0
    else:
        # Welch's test: the two groups may have different variances.
        middle = statistics.mean(after) - statistics.mean(before)
        parts = [(_error(group) ** 2, max(1, len(group) - 1)) for group in (before, after)]
        error = math.sqrt(sum(part for part, _ in parts))
        below = sum(part**2 / freedom for part, freedom in parts)
        freedom = error**4 / below if below else 1.0
    place = max(1, math.floor(freedom))
    student = T_95[place - 1] if place <= len(T_95) else SHARE_OF_NORMAL + 2.4 / freedom
    spread = student * error if min(len(before), len(after)) > 1 else math.inf
    return Comparison(
        name=name,
        before=math.exp(statistics.mean(before)),
        after=math.exp(statistics.mean(after)),
        ratio=math.exp(middle),
        low=math.exp(middle - spread),
        high=math.exp(min(middle + spread, 700.0)),
        rounds=min(len(before), len(after)),
        alternating=alternating,
    )


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


# --- plan

# One connection carries at most min(streams / RTT, window / (body x RTT)) pushes a second. The share of it
# that the pool reaches, and the CPU time of a push, are measured. A plan uses only a part of each core.

POOL_SHARE = 0.8
"""Of what windows can carry, what the pool is promised to use (docs/measurements/distance.md)."""
CORE_SHARE = 0.7
"""Of a core, what a process is planned to use: the rest is for bursts, retries and the collector."""
MOST_CONNECTIONS = 64
"""Connections of one process: so many are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The needs. ``round_trip`` is seconds, ``body`` bytes, ``within`` the seconds for a state."""

    audience: int
    updates_per_minute: float
    round_trip: float
    body: int
    within: float | None = None
    cores_a_machine: int = 8
    options: SinkOptions = field(default_factory=SinkOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Microseconds of CPU per push: of the client alone, and of the service with all outcomes."""

    client: float
    service: float


def costs_of(results: Sequence[Result]) -> Costs | None:
    """Return the costs from results of ``throughput`` and ``service``; None without a fan_out."""
    cpu: dict[str, list[float]] = {}
    for result in results:
        for run in result.runs:
            if run.count and run.cpu:
                name = "fan_out" if run.name.endswith("fan_out") else run.name
                cpu.setdefault(name, []).append(run.cpu / run.count * 1e6)
    if "fan_out" not in cpu:
        return None
    client = median(cpu["fan_out"])
    return Costs(client=client, service=median(cpu["start"]) if "start" in cpu else 0.0)


def plan(needs: Needs, costs: Costs) -> dict[str, float]:
    """Return the required resources; the keys name their units."""
    interval = 60.0 / needs.updates_per_minute
    window = interval if needs.within is None else min(needs.within, interval)
    rate = needs.audience / window
    one = carries(1, needs.body, needs.round_trip, needs.options)
    connections = math.ceil(rate / (one * POOL_SHARE))
    found = {"pushes a second": rate, "a connection carries, pushes a second": one}
    found["connections"] = connections
    for name, cost in (("client", costs.client), ("service", costs.service)):
        if not cost:
            continue
        able = 1e6 * CORE_SHARE / cost
        processes = max(math.ceil(rate / able), math.ceil(connections / MOST_CONNECTIONS))
        each = math.ceil(connections / processes)
        machines = math.ceil(processes / needs.cores_a_machine)
        reached = seconds_for(needs, processes * each, processes * able)
        found |= {
            f"{name}: CPU us a push": cost,
            f"{name}: processes": processes,
            f"{name}: connections a process": each,
            f"{name}: machines of {needs.cores_a_machine} cores": machines,
            f"{name}: a state reaches everyone in s": reached,
        }
    return found | {
        "database: rows read and outcomes written a second": rate,
        "database: states written a minute": needs.updates_per_minute,
        "network out, Mbit/s": rate * (needs.body + 130) * 8 / 1e6,
    }


def seconds_for(needs: Needs, connections: int, able: float) -> float:
    """Return the seconds until every token has a state, with these connections and this CPU."""
    carried = carries(connections, needs.body, needs.round_trip, needs.options) * POOL_SHARE
    return needs.audience / min(carried, able) + needs.round_trip
