"""What ``Client(contracts=...)`` costs a ``send()`` with a new state in each call.

Two clients on one sink, one with the app's contract and one without, take turns in one process. Each turn
sends the same states. The figures are CPU time of the sender, which is what bounds its rate; a ratio is that of
two neighbouring turns.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from apns_live import Client, Endpoint, ProviderKey, Update
from apns_live.bench.processes import Sink, SinkOptions, sink
from apns_live.bench.senders import BUNDLE_ID, KEY_ID, TEAM_ID, provider_key
from apns_live.contracts import Contract
from benchmarks.pages import Bar, figures, finish, options, result

AT_ONCE = 500
"""Calls that wait for their answer at the same time."""
LOSS = 0.15
TOKEN = "8f" * 32
MATCH = """
struct MatchAttributes: ActivityAttributes {
    struct ContentState: Codable, Hashable {
        struct Scorer: Codable, Hashable { var name: String; var minute: Int }
        enum Period: String, Codable { case first, halfTime, second, over }
        var home: Int
        var away: Int
        var minute: Int
        var period: Period
        var headline: String
        var scorers: [Scorer]
        var possession: Double
        var startedAt: Date
        var isLive: Bool
        var venue: String?
    }
    var title: String
}
"""
OTHERS = """
struct ParcelAttributes: ActivityAttributes {
    struct ContentState: Codable, Hashable { var stops: Int; var eta: Date }
}
struct RideAttributes: ActivityAttributes {
    struct ContentState: Codable, Hashable { var driver: String; var minutes: Double }
}
"""
SOURCES = {
    "one type": {"Match.swift": MATCH},
    "the last of three types": {"A.swift": OTHERS, "Match.swift": MATCH},
}


def states(count: int, words: str) -> Iterator[dict[str, Any]]:
    """Make states of about 350 bytes, each another one."""
    names = ("Anna Keller", "Maria Okafor", "Lena Brandt")
    for number in range(count):
        yield {
            "home": number % 7,
            "away": number // 7 % 5,
            "minute": number % 90,
            "period": "second",
            "headline": f"Goal {number}: {words}",
            "scorers": [
                {"name": name, "minute": at} for name, at in zip(names, (12, 44, 61), strict=True)
            ],
            "possession": number % 100 / 100,
            "startedAt": 812_345_678.0,
            "isLive": True,
            "venue": "National Stadium, East",
        }


WORDS = {
    "plain words": "a header from the far post after a short corner, unmarked at last",
    "other letters and hyphens": "Kopfball über den ›Fünfer‹, one-two, re-start, five-a-side: 10e3",  # noqa: RUF001
}


async def _turn(client: Client, values: list[dict[str, Any]]) -> float:
    """Send every state; return microseconds of CPU a push."""
    waiting = iter(values)

    async def call_after_call() -> None:
        for state in waiting:
            outcome = await client.send(Update(content_state=state), TOKEN)
            if not outcome.accepted:
                raise SystemExit(f"a push was not accepted: {outcome}")

    gc.collect()
    begun = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(call_after_call())
    return (time.process_time() - begun) / len(values) * 1e6


async def measure(
    running: Sink, sources: Mapping[str, str], values: list[dict[str, Any]], rounds: int
) -> list[tuple[float, float]]:
    """Return what a push costs without and with a contract, for each round."""
    key = ProviderKey.from_pem(provider_key(), key_id=KEY_ID, team_id=TEAM_ID)
    given: dict[str, Any] = {
        "bundle_id": BUNDLE_ID,
        "environment": Endpoint("localhost", running.port, running.ca_file),
        "max_connections": 1,
    }
    found = []
    async with Client(key, **given) as plain, Client(key, **given, contracts=Contract(sources)) as held:  # fmt: skip
        clients = (plain, held)
        for client in clients:
            await _turn(client, values[: len(values) // 4])
        for number in range(rounds):
            turns = clients if number % 2 else clients[::-1]
            spent = {client: await _turn(client, values) for client in turns}
            found.append((spent[plain], spent[held]))
    return found


def main(arguments: list[str]) -> int:
    """Measure and print the report."""
    parser = options("contracts", __doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--count", type=int, default=20_000)
    given = parser.parse_args(arguments)
    sizes = {
        name: len(msgspec.json.encode(next(states(1, words)))) for name, words in WORDS.items()
    }
    bars: list[Bar] = []
    with sink(SinkOptions()) as running:
        settings = {
            "sink": running.name,
            "states": " and ".join(f"{size} bytes ({name})" for name, size in sizes.items()),
            "calls": f"{given.count:,} a turn, {AT_ONCE} at once, one connection",
            "rounds": f"{given.rounds}; in each, both clients take a turn, every other time in the other order",
        }
        page = result(
            "contracts", "send() with a new state in each call, held to a contract", settings
        )
        for source, files in SOURCES.items():
            for words, text in WORDS.items():
                values = list(states(given.count, text))
                found = asyncio.run(measure(running, files, values, given.rounds))
                for turn, (plain, held) in enumerate(found):
                    run = figures(
                        f"{source}, {words}",
                        without_us=plain,
                        with_us=held,
                        more_us=held - plain,
                        rate_lost=1 - plain / held,
                    )
                    run.round, run.count = turn, given.count
                    page.runs.append(run)
                lost = statistics.median(1 - plain / held for plain, held in found)
                name = f"rate lost, {source}, {words}"
                bars.append(Bar(name, lost, LOSS, at_least=False))
    return finish(page, bars, given)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
