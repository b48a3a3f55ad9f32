"""What the simulated phones cost: memory of 100,000 phones, and microseconds per push.

``python -m benchmarks.phones [--phones 100000] [--pushes 300000] [--log]``. No network and no
HTTP/2: pushes are handed to the phones as the rules hand them over.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import sys
from pathlib import Path
from time import perf_counter, process_time

from apns_live.testing.clock import SimulatedClock
from apns_live.testing.phones import PhoneSettings, SimulatedPhones
from apns_live.testing.state import Push

TOPIC = "com.example.scores.push-type.liveactivity"


def resident_megabytes() -> float:
    """Return the resident set size of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def body(event: str, timestamp: int, score: int) -> bytes:
    """Return a payload of about 350 bytes (start: 550)."""
    aps: dict[str, object] = {
        "timestamp": timestamp,
        "event": event,
        "content-state": {
            "home": score,
            "away": 68,
            "period": "Q3",
            "clock": 412.5,
            "lastPlay": "Free throw by number 23, second of two, good. " * 3,
            "possession": "home",
        },
        "stale-date": timestamp + 600,
    }
    if event == "start":
        aps["attributes-type"] = "GameAttributes"
        aps["attributes"] = {"home": "Lions", "away": "Bears", "venue": "North Hall"}
        aps["alert"] = {"title": "Tip-off", "body": "Lions against Bears"}
        aps["input-push-token"] = 1
    return json.dumps({"aps": aps}, separators=(",", ":")).encode()


def push(number: int, token: str, data: bytes, now: float, priority: int = 10) -> Push:
    """Return an accepted push as the rules make it: every string of its own."""
    return Push(
        number,
        f"{number:08x}-0000-4000-8000-000000000000",
        f"{number:08x}-0000-4000-a000-000000000000",
        token,
        TOPIC,
        "liveactivity",
        priority,
        int(now) + 600,
        None,
        bytes(bytearray(data)),
        now,
        1,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--phones", type=int, default=100_000)
    parser.add_argument("--pushes", type=int, default=300_000)
    options = parser.parse_args()
    print(f"python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores")

    clock = SimulatedClock()
    gc.collect()
    empty = resident_megabytes()
    phones = SimulatedPhones(PhoneSettings(), clock=clock)
    tokens: list[str] = []
    phones.on_token.append(lambda device, activity, token: tokens.append(token))
    began = process_time()
    for index in range(options.phones):
        phones.receive(
            push(index + 1, f"{index:064x}", body("start", int(clock.time()), 0), clock.time())
        )
    started = process_time() - began
    began = process_time()
    clock.advance_sync(10)
    issued = process_time() - began
    gc.collect()
    full = resident_megabytes()
    assert len(phones.activities) == len(tokens) == options.phones, len(tokens)
    print(f"start, automatic phones: {started / options.phones * 1e6:.1f} us each")
    print(f"activity tokens issued:  {issued / options.phones * 1e6:.1f} us each")
    print(
        f"memory of {options.phones} phones with one activity and its token each: "
        f"{full - empty:.0f} MB ({(full - empty) * 1e6 / options.phones:.0f} bytes each), "
        f"log of the last 10,000 pushes included; process {full:.0f} MB"
    )

    for label, priority, step in (("priority 5", 5, 1), ("priority 10", 10, 1)):
        clock.advance_sync(step)
        now = clock.time()
        made = [
            push(index, tokens[index % len(tokens)], body("update", int(now), 1), now, priority)
            for index in range(min(options.pushes, len(tokens)))
        ]
        receive = phones.receive
        began, wall = process_time(), perf_counter()
        for each in made:
            receive(each)
        spent, took = process_time() - began, perf_counter() - wall
        count = len(made)
        print(
            f"update, {label}: {spent / count * 1e6:.2f} us of CPU, "
            f"{took / count * 1e6:.2f} us of wall time, {count} pushes"
        )
        del made
    shown = phones.log.by_state
    print(f"log: {dict(shown)}")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
