"""Pushes a second on a bare loopback against one nginx worker, beside h2load, aioapns and httpx.

The server has a core of its own and so has the sender. Rounds alternate the senders, and a ratio is
the median of the ratios of the rounds, so that a slow minute of the machine hits all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.conditions import conditions, program_version
from benchmarks.contenders import BODY_BYTES, CONTENDERS, Plan, Result, h2load_command, write_body
from benchmarks.report import Bar, Report
from tests.programs import program
from tests.servers import Server, nginx

SERVER_CORE, SENDER_CORE = 0, 1
RUN_TIMEOUT = 300
# Enough for about a second and a half each; the slow ones would only make the run longer.
COUNTS = {"h2load": 150_000, "fan_out": 150_000, "send": 50_000, "aioapns": 5_000, "httpx": 1_500}
STREAMS = 500


def _pinned(command: list[str]) -> list[str]:
    return [program("taskset"), "-c", str(SENDER_CORE), *command]


def run_python(name: str, plan: Plan) -> Result:
    """Run one of `CONTENDERS` in its own pinned process."""
    command = [sys.executable, "-m", "benchmarks.contenders", name]
    command += ["--port", str(plan.port), "--ca", plan.ca_file, "--count", str(plan.count)]
    command += ["--body-bytes", str(plan.body_bytes), "--connections", str(plan.connections)]
    run = subprocess.run(
        _pinned(command), capture_output=True, text=True, timeout=RUN_TIMEOUT, check=False
    )
    if run.returncode != 0:
        raise RuntimeError(f"{name} failed: {run.stderr[-2000:]}")
    return Result(**json.loads(run.stdout.splitlines()[-1]))


def run_h2load(plan: Plan, body_file: Path, streams: int = STREAMS) -> Result:
    """Run h2load in its own pinned process."""
    command = h2load_command(program("h2load"), plan, body_file, streams)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        _pinned(command), capture_output=True, text=True, timeout=RUN_TIMEOUT, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rate = re.search(r"finished in [^,]+, ([0-9.]+) req/s", run.stdout)
    succeeded = re.search(r"(\d+) succeeded", run.stdout)
    if rate is None or succeeded is None:
        raise RuntimeError(f"h2load printed something else: {run.stdout[-2000:]}")
    return Result(
        plan.count, plan.count / float(rate[1]), cpu, failed=plan.count - int(succeeded[1])
    )


@contextlib.contextmanager
def _servers() -> Iterator[tuple[Server, Server]]:
    """Run the nginx that answers a bare 200, and one that echoes the apns-id, both on one core."""
    unlimited = {"keepalive_requests": 100_000_000, "streams": 1_000, "core": SERVER_CORE}
    with nginx(**unlimited) as plain, nginx(**unlimited, echo=True) as echoing:  # type: ignore[arg-type]
        yield plain, echoing


def _measure(
    names: list[str], rounds: int, scale: float, echo: bool, body_bytes: int
) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {name: [] for name in names}
    body_file = write_body(body_bytes)
    try:
        with _servers() as (plain, echoing):
            for turn in range(rounds):
                # Every other round goes backwards: nobody always runs after the same one.
                for name in names if turn % 2 == 0 else reversed(names):
                    server = echoing if echo or name == "aioapns" else plain
                    count = max(200, int(COUNTS[name] * scale))
                    plan = Plan(server.port, server.ca_file, count, body_bytes)
                    result = (
                        run_h2load(plan, body_file) if name == "h2load" else run_python(name, plan)
                    )
                    results[name].append(result)
                print(f"round {turn + 1} of {rounds} done", file=sys.stderr, flush=True)
    finally:
        body_file.unlink()
    return results


def _rate(result: Result) -> float:
    return result.count / result.wall


def _ratio(results: dict[str, list[Result]], ours: str, theirs: str) -> float:
    pairs = zip(results[ours], results[theirs], strict=True)
    return statistics.median(_rate(a) / _rate(b) for a, b in pairs)


def _bars(results: dict[str, list[Result]]) -> list[Bar]:
    def has(*names: str) -> bool:
        return all(name in results for name in names)

    bars = []
    if has("fan_out", "h2load"):
        bars.append(Bar("fan_out / h2load", _ratio(results, "fan_out", "h2load"), 0.5))
    if has("fan_out", "aioapns"):
        bars.append(Bar("fan_out / aioapns", _ratio(results, "fan_out", "aioapns"), 15))
    if has("fan_out", "httpx"):
        bars.append(Bar("fan_out / httpx", _ratio(results, "fan_out", "httpx"), 40))
    if has("fan_out"):
        cpu = statistics.median(r.cpu / r.count * 1e6 for r in results["fan_out"])
        bars.append(Bar("fan_out, CPU a push", cpu, 18, at_least=False, unit="us"))
    if has("send", "aioapns"):
        bars.append(Bar("1,000 concurrent send() / aioapns", _ratio(results, "send", "aioapns"), 8))
    return bars


def _row(name: str, runs: list[Result]) -> tuple[str, ...]:
    rates = [_rate(run) for run in runs]
    cpu = statistics.median(run.cpu / run.count * 1e6 for run in runs)
    return (
        name,
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f} - {max(rates):,.0f}",
        f"{cpu:,.1f}",
        f"{runs[0].count:,}",
        str(sum(run.failed for run in runs)),
    )


LABELS = {
    "h2load": f"h2load -c1 -m{STREAMS} (C)",
    "fan_out": "apns_live fan_out, one connection",
    "send": "apns_live, 1,000 concurrent send()",
    "aioapns": "aioapns, one connection",
    "httpx": "httpx[http2], one connection",
}


def main(arguments: list[str]) -> int:
    """Run the comparison; return 1 when a bar is missed and ``--enforce`` is given."""
    parser = argparse.ArgumentParser(prog="benchmarks throughput", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=list(COUNTS), default=list(COUNTS))
    parser.add_argument("--scale", type=float, default=1.0, help="multiply all counts")
    parser.add_argument("--body-bytes", type=int, default=BODY_BYTES)
    parser.add_argument(
        "--echo", action="store_true", help="all get their apns-id back, as APNs does"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--enforce", action="store_true")
    given = parser.parse_args(arguments)
    assert set(CONTENDERS) | {"h2load"} == set(COUNTS)
    report = Report("throughput", "Throughput on a bare loopback", conditions())
    results = _measure(given.only, given.rounds, given.scale, given.echo, given.body_bytes)
    report.settings = {
        "server": f"{program_version(program('nginx'), '-v')}, one worker on core {SERVER_CORE}, "
        "1,000 streams, keepalive_requests 100,000,000, answers 200",
        "answers": "all echo the apns-id"
        if given.echo
        else "bare, but for aioapns, which cannot work without its apns-id echoed",
        "senders": f"one process on core {SENDER_CORE}, one TLS connection, bodies of {given.body_bytes} bytes",
        "h2load": program_version(program("h2load"), "--version"),
        "rounds": f"{given.rounds}, alternating; figures are medians, ratios medians of each round's ratio",
    }
    report.columns = ("sender", "pushes/s", "range", "CPU us/push", "pushes a round", "failed")
    report.rows = [_row(LABELS[name], results[name]) for name in given.only]
    report.bars = _bars(results)
    report.raw = {
        name: [{"wall": r.wall, "cpu": r.cpu, "count": r.count} for r in runs]
        for name, runs in results.items()
    }
    print(report.json() if given.json else report.text())
    if given.record:
        report.record()
    failed = any(run.failed for runs in results.values() for run in runs)
    return 1 if failed or (given.enforce and not report.met) else 0
