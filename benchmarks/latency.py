"""How long one push takes at a given load, from the moment it was due to its outcome.

Pushes are due at a steady rate, whether or not earlier ones were answered, and time counts from when
each was due: a sender that falls behind cannot hide it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from typing import Any

from benchmarks.conditions import conditions, program_version
from benchmarks.contenders import BODY_BYTES, Plan, our_client, our_update, token_of
from benchmarks.report import Report
from tests.programs import find_program, program
from tests.servers import Server, nginx

RATES = (100, 1_000, 5_000, 10_000)
SECONDS = 5.0
TICK = 0.001
SERVER_CORE, SENDER_CORE = 0, 1
SHARES = (0.5, 0.95, 0.99, 0.999)


async def paced(plan: Plan, rate: float, seconds: float) -> dict[str, Any]:
    """Send at a steady rate with ``client.send``; return sorted latencies in seconds and CPU."""
    update = our_update(plan.body_bytes)
    latencies: list[float] = []
    failed = 0
    async with our_client(plan) as client:
        await client.send(update, token_of(0))

        async def one(number: int, due: float) -> None:
            nonlocal failed
            outcome = await client.send(update, token_of(number))
            latencies.append(time.perf_counter() - due)
            failed += not outcome.accepted

        total, sent = int(rate * seconds), 0
        cpu, begin = time.process_time(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            while sent < total:
                due_by_now = min(total, int((time.perf_counter() - begin) * rate) + 1)
                for number in range(sent, due_by_now):
                    group.create_task(one(number + 1, begin + number / rate))
                sent = due_by_now
                await asyncio.sleep(TICK)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {"latencies": sorted(latencies), "failed": failed, "wall": wall, "cpu": cpu}


def _run(server: Server, rate: float, body_bytes: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.latency", "--sender", str(server.port)]
    command += [server.ca_file, "--rates", str(rate), "--body-bytes", str(body_bytes)]
    command += ["--seconds", str(seconds)]
    if taskset := find_program("taskset"):
        command = [taskset, "-c", str(SENDER_CORE), *command]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if run.returncode:
        raise RuntimeError(f"the sender failed: {run.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return answer


def main(arguments: list[str]) -> int:
    """Measure each load in a process of its own."""
    parser = argparse.ArgumentParser(prog="benchmarks latency", description=__doc__)
    parser.add_argument("--sender", nargs=2, metavar=("PORT", "CA"), help=argparse.SUPPRESS)
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--body-bytes", type=int, default=BODY_BYTES)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--enforce", action="store_true")
    given = parser.parse_args(arguments)
    if given.sender:
        port, ca_file = given.sender
        plan = Plan(int(port), ca_file, 0, given.body_bytes)
        print(json.dumps(asyncio.run(paced(plan, given.rates[0], given.seconds))))
        return 0
    report = Report("latency", "Latency of one push at a given load", conditions())
    report.settings = {
        "server": f"{program_version(program('nginx'), '-v')} on core {SERVER_CORE}, answers 200",
        "sender": f"client.send on core {SENDER_CORE}, one connection, bodies of "
        f"{given.body_bytes} bytes, {given.seconds:g} s at each rate, due every {TICK * 1e3:g} ms",
    }
    report.columns = (
        "pushes/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "p99.9 ms",
        "worst ms",
        "CPU",
        "failed",
    )
    with nginx(keepalive_requests=100_000_000, streams=1_000, core=SERVER_CORE) as server:
        for rate in given.rates:
            seen = _run(server, rate, given.body_bytes, given.seconds)
            times = seen.pop("latencies")
            cells = [f"{times[int(len(times) * share)] * 1e3:.2f}" for share in SHARES]
            report.rows.append(
                (f"{rate:,.0f}", *cells, f"{times[-1] * 1e3:.2f}",
                 f"{seen['cpu'] / seen['wall']:.0%}", str(seen["failed"]))
            )  # fmt: skip
    print(report.json() if given.json else report.text())
    if given.record:
        report.record()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
