"""What order and durability cost: CPU and wall time of the same pushes, with and without.

One process, one connection to one nginx worker on the other core. The contenders take turns in every
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
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from apns_live.clock import SteadyTime, SystemClock
from apns_live.delivery import Budget, Delivery, SqliteJournal, Urgency
from apns_live.delivery.lanes import Lanes
from apns_live.delivery.state import State
from apns_live.payload import Update, encode
from benchmarks.conditions import conditions, program_version
from benchmarks.contenders import Plan, Watch, our_client, our_update, token_of, tokens
from benchmarks.report import Bar, Report
from tests.programs import find_program, program
from tests.servers import nginx

SERVER_CORE, SENDER_CORE = 0, 1
NAMES = ("bare", "run", "journal", "full", "live", "live, journal")
WARM_UP = 5_000
OFFERS = 10_000


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


async def measure(port: int, ca_file: str, count: int, rounds: int) -> dict[str, list[list[float]]]:
    """Return (CPU, wall) seconds of each contender in each round."""
    seen: dict[str, list[list[float]]] = {name: [] for name in NAMES}
    update = our_update(350)
    async with our_client(Plan(port, ca_file, count, 350)) as client:
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
    lanes = Lanes(Budget(per_hour=15), SteadyTime(SystemClock()), lambda *_: None)
    with Watch() as watch:
        for number in range(count):
            lanes.open(token_of(number)).last_timestamp = 1_800_000_000 + number
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    encoded = encode(Update(content_state={"home": 71}), now=1_800_000_000)
    with Watch() as offering:
        for number in range(0, count, max(1, count // OFFERS)):
            state = State(
                encoded, urgency=Urgency.NORMAL, ticket=None, submitted_at=1_800_000_000.0
            )
            lanes.offer(token_of(number), state)
    offered = len(range(0, count, max(1, count // OFFERS)))
    return grown * 1024 / count, watch.cpu / count * 1e6, offering.cpu / offered * 1e6


def _median_ratio(seen: dict[str, list[list[float]]], name: str, to: str, what: int) -> float:
    pairs = zip(seen[name], seen[to], strict=True)
    return statistics.median(ours[what] / theirs[what] for ours, theirs in pairs)


def main(arguments: list[str]) -> int:
    """Measure in a process of its own, next to its server."""
    parser = argparse.ArgumentParser(prog="benchmarks journal", description=__doc__)
    parser.add_argument("--sender", nargs=2, metavar=("PORT", "CA"), help=argparse.SUPPRESS)
    parser.add_argument("--lanes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args(arguments)
    if given.sender:
        port, ca_file = given.sender
        print(json.dumps(asyncio.run(measure(int(port), ca_file, given.count, given.rounds))))
        return 0
    if given.lanes:
        print(json.dumps(lane_bytes(given.lanes)))
        return 0
    report = Report("journal", "What order and durability cost", conditions())
    report.settings = {
        "server": f"{program_version(program('nginx'), '-v')} on core {SERVER_CORE}, answers 200",
        "sender": f"one process on core {SENDER_CORE}, one connection, {given.count:,} tokens, bodies of "
        f"350 bytes, {given.rounds} rounds that alternate; ratios are medians of rounds",
    }
    pinned = [taskset, "-c", str(SENDER_CORE)] if (taskset := find_program("taskset")) else []
    python = [*pinned, sys.executable, "-m", "benchmarks.journal"]
    with nginx(keepalive_requests=100_000_000, streams=1_000, core=SERVER_CORE) as server:
        command = [*python, "--sender", str(server.port), server.ca_file]
        command += ["--count", str(given.count), "--rounds", str(given.rounds)]
        seen = json.loads(_output(command))
    size, opening, many = json.loads(_output([*python, "--lanes", "1000000"]))
    _, _, few = json.loads(_output([*python, "--lanes", "10000"]))
    report.columns = ("sender", "CPU us/push", "wall us/push", "CPU to bare", "wall to bare")
    for name in NAMES:
        cpu, wall = (statistics.median(figures[what] for figures in seen[name]) for what in (0, 1))
        report.rows.append(
            (name, f"{cpu / given.count * 1e6:.2f}", f"{wall / given.count * 1e6:.2f}",
             f"{_median_ratio(seen, name, 'bare', 0):.2f}",
             f"{_median_ratio(seen, name, 'bare', 1):.2f}")
        )  # fmt: skip
    report.bars = [
        Bar("journal to no journal, CPU", _median_ratio(seen, "journal", "run", 0), 1.3, False),
        Bar("journal to no journal, wall", _median_ratio(seen, "journal", "run", 1), 1.3, False),
        Bar("live update to bare fan-out, CPU", _median_ratio(seen, "live", "bare", 0), 1.5, False),
        Bar("bytes of an idle lane", size, 1024, False),
    ]
    report.notes = [
        f"1,000,000 idle lanes: {size:.0f} bytes each, token included; {opening:.2f} us to open one",
        f"to hand a state to a lane: {few:.2f} us among 10,000 lanes, {many:.2f} us among 1,000,000",
    ]
    report.raw = seen
    print(report.json() if given.json else report.text())
    if given.record:
        report.record()
    return 0 if report.met else 1


def _output(command: list[str]) -> str:
    run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if run.returncode:
        raise RuntimeError(f"the sender failed: {run.stderr[-2000:]}")
    return run.stdout.splitlines()[-1]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
