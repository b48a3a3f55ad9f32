"""A million tokens from a generator: peak memory, and whether the last pushes cost more than the first.

The server is nginx on the other core, answering a bare 200. CPU a push is compared between two spans
of one run; the growth of Python's own memory is measured in a run of its own, because tracing slows
everything down.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
import tracemalloc
from dataclasses import asdict, dataclass, field

from benchmarks.conditions import conditions, program_version
from benchmarks.contenders import BODY_BYTES, Plan, our_client, our_update, tokens
from benchmarks.report import Bar, Report
from tests.programs import find_program, program
from tests.servers import Server, nginx

COUNT = 1_000_000
# The two spans, as shares of all pushes: 100,000-200,000 and 900,000-1,000,000 of a million.
EARLY, LATE = (0.1, 0.2), (0.9, 1.0)
SERVER_CORE, SENDER_CORE = 0, 1
TIMEOUT = 1_800


@dataclass(slots=True)
class Seen:
    """What one run showed. CPU figures are microseconds a push; memory is bytes."""

    wall: float = 0.0
    early: float = 0.0
    late: float = 0.0
    peak: int = 0
    before: int = 0
    failed: int = 0
    traced: list[int] = field(default_factory=list)


def _peak_bytes() -> int:
    """Return this process's highest resident memory so far; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


async def fan_out(plan: Plan, traced: bool) -> Seen:
    """Send ``plan.count`` pushes in one fan_out and take the marks on the way."""
    seen = Seen(before=_peak_bytes())
    marks = {int(plan.count * share): 0.0 for share in (*EARLY, *LATE)}
    traced_at = {int(plan.count * EARLY[1]), int(plan.count * LATE[1])} if traced else set()
    update, answered = our_update(plan.body_bytes), 0
    begin = time.perf_counter()
    async with our_client(plan) as client:
        if traced:
            tracemalloc.start()
        async with client.fan_out(update, tokens(0, plan.count)) as run:
            async for outcome in run:
                answered += 1
                if not outcome.accepted:
                    seen.failed += 1
                if answered in marks:
                    marks[answered] = time.process_time()
                    if answered in traced_at:
                        gc.collect()
                        seen.traced.append(tracemalloc.get_traced_memory()[0])
    seen.wall = time.perf_counter() - begin

    def a_push(span: tuple[float, float]) -> float:
        first, last = (int(plan.count * share) for share in span)
        return (marks[last] - marks[first]) / (last - first) * 1e6

    seen.early, seen.late, seen.peak = a_push(EARLY), a_push(LATE), _peak_bytes()
    return seen


def _run(server: Server, count: int, body_bytes: int, *, traced: bool) -> Seen:
    command = [sys.executable, "-m", "benchmarks.memory", "--sender", str(server.port)]
    command += [server.ca_file, "--count", str(count), "--body-bytes", str(body_bytes)]
    command += ["--traced"] if traced else []
    if taskset := find_program("taskset"):
        command = [taskset, "-c", str(SENDER_CORE), *command]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if run.returncode:
        raise RuntimeError(f"the sender failed: {run.stderr[-2000:]}")
    return Seen(**json.loads(run.stdout.splitlines()[-1]))


def main(arguments: list[str]) -> int:
    """Measure, in separate processes, memory and CPU, then traced growth."""
    parser = argparse.ArgumentParser(prog="benchmarks memory", description=__doc__)
    parser.add_argument("--sender", nargs=2, metavar=("PORT", "CA"), help=argparse.SUPPRESS)
    parser.add_argument("--traced", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--body-bytes", type=int, default=BODY_BYTES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--enforce", action="store_true")
    given = parser.parse_args(arguments)
    if given.sender:
        port, ca_file = given.sender
        plan = Plan(int(port), ca_file, given.count, given.body_bytes)
        print(json.dumps(asdict(asyncio.run(fan_out(plan, given.traced)))))
        return 0
    report = Report("memory", "A million tokens: memory and cost", conditions())
    with nginx(keepalive_requests=100_000_000, streams=1_000, core=SERVER_CORE) as server:
        runs = [
            _run(server, given.count, given.body_bytes, traced=False) for _ in range(given.rounds)
        ]
        traced = _run(server, given.count, given.body_bytes, traced=True)
    report.settings = {
        "server": f"{program_version(program('nginx'), '-v')} on core {SERVER_CORE}, answers 200",
        "sender": f"fan_out of {given.count:,} tokens from a generator on core {SENDER_CORE}, one "
        f"connection, bodies of {given.body_bytes} bytes, each outcome read",
    }
    report.columns = ("run", "wall s", "CPU us/push early", "late", "peak MB", "not accepted")
    report.rows = [
        (str(number), f"{run.wall:.1f}", f"{run.early:.1f}", f"{run.late:.1f}",
         f"{run.peak / 1e6:.1f}", str(run.failed))
        for number, run in enumerate(runs, 1)
    ]  # fmt: skip
    growth = (traced.traced[1] - traced.traced[0]) / 1e6
    report.bars = [
        Bar("peak memory", max(run.peak for run in runs) / 1e6, 150, at_least=False, unit="MB"),
        Bar(
            "CPU a push, last tenth to second tenth (median)",
            statistics.median(run.late / run.early for run in runs),
            1.15,
            at_least=False,
        ),
        Bar("growth of traced memory between the marks", growth, 2, at_least=False, unit="MB"),
    ]
    report.notes = [f"Before the first push the process holds {runs[0].before / 1e6:.1f} MB."]
    report.raw = {"runs": [asdict(run) for run in runs], "traced": asdict(traced)}
    print(report.json() if given.json else report.text())
    if given.record:
        report.record()
    return 1 if given.enforce and not report.met else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
