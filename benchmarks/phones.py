"""What the simulated phones cost: memory of 100,000 phones, and microseconds per push.

No network and no HTTP/2: pushes are handed to the phones as the rules hand them over.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
from pathlib import Path
from time import process_time

from apns_live.testing.clock import SimulatedClock
from apns_live.testing.phones import PhoneSettings, SimulatedPhones
from apns_live.testing.state import Push
from benchmarks.pages import Bar, figures, finish, options, result

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


def populate(count: int) -> tuple[SimulatedPhones, SimulatedClock, list[str], float, float]:
    """Start one activity on each of ``count`` phones; return microseconds a start and a token."""
    clock = SimulatedClock()
    phones = SimulatedPhones(PhoneSettings(), clock=clock)
    tokens: list[str] = []
    phones.on_token.append(lambda _device, _activity, token: tokens.append(token))
    now = clock.time()
    data = body("start", int(now), 0)
    began = process_time()
    for index in range(count):
        phones.receive(push(index + 1, f"{index:064x}", data, now))
    started = (process_time() - began) / count * 1e6
    began = process_time()
    clock.advance_sync(10)
    issued = (process_time() - began) / count * 1e6
    if not len(phones.activities) == len(tokens) == count:
        raise RuntimeError(f"{len(phones.activities)} activities, {len(tokens)} tokens")
    return phones, clock, tokens, started, issued


def updates(
    phones: SimulatedPhones, clock: SimulatedClock, tokens: list[str], priority: int
) -> float:
    """Send one update to each token; return microseconds of CPU a push."""
    clock.advance_sync(1)
    now = clock.time()
    data = body("update", int(now), 1)
    made = [
        push(index, token, data, now, priority=priority) for index, token in enumerate(tokens, 1)
    ]
    receive = phones.receive
    began = process_time()
    for each in made:
        receive(each)
    return (process_time() - began) / len(made) * 1e6


def main(arguments: list[str]) -> int:
    """Measure memory first, then updates at both priorities."""
    parser = options("phones", __doc__)
    parser.add_argument("--phones", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    gc.collect()
    empty = resident_megabytes()
    phones, clock, tokens, started, issued = populate(given.phones)
    gc.collect()
    full = resident_megabytes()
    free = statistics.median(updates(phones, clock, tokens, 5) for _ in range(given.rounds))
    counted = statistics.median(updates(phones, clock, tokens, 10) for _ in range(given.rounds))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    settings = {
        "phones": f"{given.phones:,} automatic phones, one activity and its token each",
        "bodies": f"{len(body('update', 1_800_000_000, 1))} bytes an update, "
        f"{len(body('start', 1_800_000_000, 1))} a start; every push with strings of its own",
        "log": "on: the last 10,000 pushes and 20,000 changes of state",
        "rounds": f"{given.rounds}, medians",
    }
    found = result("phones", "Simulated phones: memory and cost", settings)
    found.runs = [
        figures("start: a phone and its activity", us_of_CPU_each=started),
        figures("an activity token issued", us_of_CPU_each=issued),
        figures("update, priority 5", us_of_CPU_each=free),
        figures("update, priority 10", us_of_CPU_each=counted),
    ]
    found.notes = [
        f"{(full - empty) * 1e6 / given.phones:,.0f} bytes a phone; the process holds {full:.0f} MB, "
        f"at its peak {peak:.0f} MB with the benchmark's own pushes.",
        f"The log counts {dict(phones.log.by_state)}.",
    ]
    bars = [
        Bar("memory of the phones", full - empty, 500, at_least=False, unit="MB"),
        Bar("CPU of an update, priority 5", free, 10, at_least=False, unit="us"),
    ]
    return finish(found, bars, given)
