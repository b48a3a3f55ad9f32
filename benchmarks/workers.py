"""What a push costs in CPU where two processes share a fan-out, beside one process.

Each run has a process of its own, which counts the CPU time of itself and of its workers. A small and a large
run are subtracted from each other, so that starting the processes does not count.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import time

from apns_live import Client, Endpoint, ProviderKey, Update
from apns_live.bench.processes import SinkOptions, sink
from apns_live.bench.senders import BUNDLE_ID, KEY_ID, TEAM_ID, provider_key
from benchmarks.pages import Bar, figures, finish, options, result

SMALL = 30_000
KINDS = {"1": "one process", "2": "two workers"}
ENDS = {"wait": "report only", "read": "every outcome read"}


async def _send(port: str, ca_file: str, workers: str, end: str, count: str) -> float:
    """Send, and return the seconds of CPU time of this process."""
    key = ProviderKey.from_pem(provider_key(), key_id=KEY_ID, team_id=TEAM_ID)
    update = Update(content_state={"score": "x" * 250})
    tokens = [f"{number:064x}" for number in range(int(count))]
    endpoint = Endpoint("localhost", int(port), ca_file)
    begun = time.process_time()
    async with Client(
        key, bundle_id=BUNDLE_ID, environment=endpoint, max_connections=int(workers)
    ) as client:
        run = client.fan_out(update, tokens, workers=int(workers))
        async with run:
            if end == "read":
                accepted = sum([outcome.accepted async for outcome in run])
            else:
                accepted = (await run.wait()).accepted
    if accepted != len(tokens):
        raise SystemExit(f"{accepted:,} of {count} were accepted")
    return time.process_time() - begun


def _used(*words: str) -> float:
    """Return the seconds of CPU time of one run, its workers included."""
    command = [sys.executable, "-m", "benchmarks.workers", "send", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def measure(rounds: int, count: int) -> tuple[dict[tuple[str, str], list[float]], str, float]:
    """Return microseconds of CPU a push by workers and end, the sink, and its busy share."""
    found: dict[tuple[str, str], list[float]] = {}
    with sink(SinkOptions()) as running:
        begun, used = time.monotonic(), running.cpu()
        for _ in range(rounds):
            for workers in KINDS:
                for end in ENDS:
                    given = (str(running.port), running.ca_file, workers, end)
                    small, large = (_used(*given, str(size)) for size in (SMALL, count + SMALL))
                    found.setdefault((workers, end), []).append((large - small) / count * 1e6)
        busy = (running.cpu() - used) / (time.monotonic() - begun)
    return found, running.name, busy


def main(arguments: list[str]) -> int:
    """Measure and print the report."""
    if arguments[:1] == ["send"]:
        own = asyncio.run(_send(*arguments[1:]))
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(own + children.ru_utime + children.ru_stime)
        return 0
    parser = options("workers", __doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=400_000)
    given = parser.parse_args(arguments)
    found, name, busy = measure(given.rounds, given.count)
    settings = {
        "sink": f"{name}, busy for {busy:.0%} of one core on average",
        "pushes": f"{given.count:,} more in the large run than in the small one; bodies of about 350 bytes",
        "rounds": f"{given.rounds}, alternating; CPU time of the process and its workers",
    }
    page = result("workers", "A fan-out that two processes share", settings)
    for (workers, end), values in found.items():
        for turn, value in enumerate(values):
            run = figures(f"{KINDS[workers]}, {ENDS[end]}", CPU_us_a_push=value)
            run.round, run.count = turn, given.count
            page.runs.append(run)
    bars = [
        Bar(
            f"CPU a push beside one process, {ENDS[end]}, median of the ratios",
            statistics.median(
                two / one for one, two in zip(found["1", end], found["2", end], strict=True)
            ),
            bound,
            at_least=False,
        )
        for end, bound in (("wait", 1.1), ("read", 1.3))
    ]
    return finish(page, bars, given)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
