"""What order and durability cost: CPU and wall time of the same pushes, with and without.

One process, one connection to the sink on the other core. The contenders take turns in every
round; a ratio is the median of the ratios of the rounds. CPU is that of the whole process, so the
journal's own thread counts.

- ``bare``: the client's fan_out, outcomes iterated
- ``run``: delivery's fan-out without a journal, outcomes iterated
- ``journal``: the same with the SQLite journal (synchronous NORMAL)
- ``full``: the same with synchronous FULL
- ``live``: one update of a live activity with that many tokens
- ``live, journal``: the same with the journal
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from apns_live.bench.processes import SinkOptions, cores, sink
from apns_live.bench.runner import message_of
from apns_live.bench.senders import Plan, our_client
from apns_live.clock import SteadyTime, SystemClock
from apns_live.delivery import Budget, Delivery, SqliteJournal, Urgency
from apns_live.delivery.lanes import Lanes
from apns_live.delivery.state import State
from apns_live.payload import Update, encode
from benchmarks.pages import Bar, figures, finish, options, result

NAMES = ("bare", "run", "journal", "full", "live", "live, journal")
WARM_UP = 5_000
OFFERS = 10_000


class Watch:
    """Wall and CPU time of this process between ``with`` and its end."""

    wall = cpu = 0.0

    def __enter__(self) -> Watch:
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


def tokens(begin: int, count: int) -> Iterator[str]:
    """Yield ``count`` tokens that are made as they are asked for."""
    return (f"{number:064x}" for number in range(begin, begin + count))


async def _bare(client: Any, update: Update, count: int) -> Watch:
    accepted = 0
    with Watch() as watch:
        async with client.fan_out(update, tokens(0, count)) as run:
            async for outcome in run:
                accepted += outcome.accepted
    _check(accepted, count)
    return watch


async def _run(client: Any, update: Update, count: int, journal: SqliteJournal | None) -> Watch:
    accepted = 0
    async with Delivery(client, journal=journal) as delivery:
        with Watch() as watch:
            async with delivery.fan_out(update, tokens(0, count), name="measured") as run:
                async for outcome in run:
                    accepted += outcome.accepted
    _check(accepted, count)
    return watch


async def _live(client: Any, update: Update, count: int, journal: SqliteJournal | None) -> Watch:
    async with Delivery(client, journal=journal) as delivery:
        match = delivery.activity("measured", tokens=tokens(0, count))
        await delivery.flush()
        # Not the first update: that one also records who is there.
        await match.put(update)
        before = match.report.counts
        with Watch() as watch:
            report = await match.put(update)
        await match.end()
    _check(sum(report.counts.values()) - sum(before.values()), count)
    return watch


def _check(accepted: int, count: int) -> None:
    if accepted != count:
        raise RuntimeError(f"{accepted} of {count} accepted")


async def measure(plan: Plan, rounds: int) -> dict[str, list[list[float]]]:
    """Return (CPU, wall) seconds of each contender in each round."""
    update, count = cast("Update", plan.message), plan.count or 0
    seen: dict[str, list[list[float]]] = {name: [] for name in NAMES}
    async with our_client(plan) as client:
        await _bare(client, update, WARM_UP)
        for _ in range(rounds):
            for name in NAMES:
                with tempfile.TemporaryDirectory() as directory:
                    how = "full" if name == "full" else "normal"
                    journal = SqliteJournal(Path(directory) / "journal.db", synchronous=how)
                    if name == "bare":
                        watch = await _bare(client, update, count)
                    elif name.startswith("live"):
                        kept = journal if "journal" in name else None
                        watch = await _live(client, update, count, kept)
                    else:
                        kept = None if name == "run" else journal
                        watch = await _run(client, update, count, kept)
                seen[name].append([watch.cpu, watch.wall])
    return seen


def lane_bytes(count: int) -> tuple[float, float, float]:
    """Return bytes of an idle lane (its token included), microseconds to open one, and to submit to one."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    nothing: Any = SimpleNamespace(time=SteadyTime(SystemClock()), journal=None, counts=Counter())
    lanes = Lanes(nothing, Budget(per_hour=15))
    with Watch() as watch:
        for number in range(count):
            lanes.open(f"{number:064x}").last_timestamp = 1_800_000_000 + number
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    encoded = encode(Update(content_state={"home": 71}), now=1_800_000_000)
    with Watch() as offering:
        for number in range(0, count, max(1, count // OFFERS)):
            state = State(encoded, urgency=Urgency.NORMAL)
            lanes.offer(f"{number:064x}", state)
    offered = len(range(0, count, max(1, count // OFFERS)))
    return grown * 1024 / count, watch.cpu / count * 1e6, offering.cpu / offered * 1e6


def _median_ratio(seen: dict[str, list[list[float]]], name: str, to: str, what: int) -> float:
    pairs = zip(seen[name], seen[to], strict=True)
    return statistics.median(ours[what] / theirs[what] for ours, theirs in pairs)


def main(arguments: list[str]) -> int:
    """Measure in a process of its own, next to its server."""
    parser = options("journal", __doc__)
    parser.add_argument("--lanes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    if given.lanes:
        print(json.dumps(lane_bytes(given.lanes)))
        return 0
    size, opening, many = _lanes(1_000_000)
    _, _, few = _lanes(10_000)
    server_core, sender_core = cores()
    with sink(SinkOptions(), server_core) as server:
        if sender_core is not None:
            os.sched_setaffinity(0, {sender_core})
        busy, begin = server.cpu(), time.perf_counter()
        plan = Plan(message=message_of(350), count=given.count).at(server)
        seen = asyncio.run(measure(plan, given.rounds))
        busy = (server.cpu() - busy) / (time.perf_counter() - begin)
    settings = {
        "sink": f"{server.name}, {busy:.0%} of its core busy",
        "sender": f"one process, one connection, {given.count:,} tokens, bodies of 350 bytes, "
        f"{given.rounds} rounds that alternate; ratios are medians of rounds",
    }
    found = result("journal", "What order and durability cost", settings)
    for name in NAMES:
        cpu, wall = (statistics.median(one[what] for one in seen[name]) for what in (0, 1))
        found.runs.append(
            figures(
                name,
                CPU_us_each=cpu / given.count * 1e6,
                wall_us_each=wall / given.count * 1e6,
                CPU_to_bare=_median_ratio(seen, name, "bare", 0),
                wall_to_bare=_median_ratio(seen, name, "bare", 1),
            )
        )
    found.notes = [
        f"1,000,000 idle lanes: {size:.0f} bytes each, token included; {opening:.2f} us to open one",
        f"to hand a state to a lane: {few:.2f} us among 10,000 lanes, {many:.2f} us among 1,000,000",
    ]
    bars = [
        Bar("journal to no journal, CPU", _median_ratio(seen, "journal", "run", 0), 1.3, False),
        Bar("journal to no journal, wall", _median_ratio(seen, "journal", "run", 1), 1.3, False),
        Bar("live update to bare fan-out, CPU", _median_ratio(seen, "live", "bare", 0), 1.5, False),
        Bar("bytes of an idle lane", size, 1024, False),
    ]
    return finish(found, bars, given)


def _lanes(count: int) -> list[float]:
    command = [sys.executable, "-m", "benchmarks", "journal", "--lanes", str(count)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    return list(json.loads(run.stdout.splitlines()[-1]))
