"""The process that registers, or starts, for ``benchmarks activities``; it prints one line of JSON.

It runs alone, so that its memory and CPU are those of the service: the database's server and the
sink are other processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any

from apns_live import Endpoint
from apns_live.activities.apps import App, Apps
from apns_live.activities.people.devices import Devices
from apns_live.activities.people.imports.fields import Belongings, Facts
from apns_live.activities.people.imports.writing import Writer
from apns_live.activities.people.records import DeviceRecord, TokenRecord, store_tags
from apns_live.activities.read.operations import Operations
from apns_live.activities.requests import AlertText, Presentation, Start
from apns_live.activities.requests.audience import Audience
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import Sealer
from apns_live.activities.store.upgrade import upgrade
from apns_live.clock import SystemClock
from benchmarks.contenders import BUNDLE_ID, KEY_ID, TEAM_ID, _key_pem

BATCH = 1_000
"""Devices registered in one call: 3,000 tokens."""
TYPE, OTHER_TYPE = "MatchAttributes", "DeliveryAttributes"
SEGMENT = "Followers"
FOLLOWERS = 3
"""Of ten devices, those that follow the match."""
STORE_KEY = "Y" * 43 + "="
REGISTERED_AT = 1_700_000_000_000
CONNECTIONS = 8


def peak_bytes() -> int:
    """Return this process's highest resident memory so far; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tokens_of(number: int) -> list[TokenRecord]:
    """Return the three tokens of a device: two to start by, one for alerts."""
    device, at = f"device-{number}", REGISTERED_AT + number
    kinds: tuple[tuple[Any, str], ...] = (("start", TYPE), ("start", OTHER_TYPE), ("device", ""))
    return [
        TokenRecord(
            device=device,
            kind=kind,
            scope=scope,
            token=blake2b(f"{number}.{index}".encode(), digest_size=32).hexdigest(),
            registered_at=at,
        )
        for index, (kind, scope) in enumerate(kinds)
    ]


def batches(count: int) -> Iterator[range]:
    """Cut the devices into batches."""
    return (range(begin, min(begin + BATCH, count)) for begin in range(0, count, BATCH))


def apps_of(database: Database) -> Apps:
    """Return the apps, with keys that open."""
    return Apps(database, Sealer(STORE_KEY), SystemClock(), lambda: "scores")


async def register(address: str, count: int) -> dict[str, float]:
    """Set up a database, register every token, then tag those who follow the match."""
    clock = SystemClock()
    async with Database.open(address) as database:
        await upgrade(database)
        app = await apps_of(database).create(name="Scores", bundle_id=BUNDLE_ID, id="scores")
        await apps_of(database).add_key(
            app, _key_pem().decode(), key_id=KEY_ID, team_id=TEAM_ID, environment="any"
        )
        devices = Devices(database, clock)
        wall, cpu = -time.perf_counter(), -time.process_time()
        slowest = 0.0
        for batch in batches(count):
            records = [token for number in batch for token in tokens_of(number)]
            begin = time.perf_counter()
            await devices.register(app, records)
            slowest = max(slowest, time.perf_counter() - begin)
        wall, cpu = wall + time.perf_counter(), cpu + time.process_time()
        await _tag(database, app, count)
    return {
        "tokens": 3 * count,
        "wall": wall,
        "cpu": cpu,
        "slowest": slowest,
        "peak": peak_bytes(),
    }


async def _tag(database: Database, app: App, count: int) -> None:
    from apns_live.activities.people.audience import Segments

    writer = Writer(database, SystemClock(), app)
    follows = Belongings(tags=store_tags({"follows": "final"}))
    for batch in batches(count):
        await writer.write(
            [
                Facts(devices=[(DeviceRecord(id=f"device-{number}"), follows)])
                for number in batch
                if number % 10 < FOLLOWERS
            ]
        )
    rule = {"field": "tag", "key": "follows", "relation": "=", "value": "final"}
    await Segments(database, SystemClock(), lambda: "segment").save(app, SEGMENT, rule)


@asynccontextmanager
async def opened(address: str, port: int, ca_file: str) -> AsyncIterator[Any]:
    """Open the service with the sink in Apple's place."""
    from apns_live.activities import Service, ServiceSettings

    async with Service.open(
        address,
        sealing=Sealer(STORE_KEY),
        endpoints={"production": Endpoint("localhost", port, ca_file=ca_file)},
        settings=ServiceSettings(client={"max_connections": CONNECTIONS}),
    ) as service:
        yield service


async def start(address: str, port: int, ca_file: str) -> dict[str, float]:
    """Start an activity for the segment, and wait until every outcome is stored."""
    async with opened(address, port, ca_file) as service:
        app = await service.apps.get("scores")
        request = Start(
            attributes_type=TYPE,
            attributes={"match": "final"},
            content_state={"home": 0, "away": 0, "pad": "x" * 100},
            presentation=Presentation(alert=AlertText(title="Kick-off", body="The final begins.")),
            audience=Audience(segments=(SEGMENT,)),
        )
        cpu = -time.process_time()
        called = time.perf_counter()
        answer = (await service.activities.start(app, request)).answer
        answered = time.perf_counter()
        while not _left(service):  # noqa: ASYNC110 - nothing else is to be woken by it
            await asyncio.sleep(0.001)
        first = time.perf_counter()
        await service.settled()
        done = time.perf_counter()
        cpu += time.process_time()
        operation = await Operations(service.database).get(app, answer.operation)
        return {
            "answered": answered - called,
            "first": first - called,
            "wall": done - called,
            "cpu": cpu,
            "accepted": operation["accepted"],
            "failed": operation["failed"],
            "targeted": operation["targeted"],
            "peak": peak_bytes(),
        }


def _left(service: Any) -> bool:
    """Whether a push is on the wire, or was answered already."""
    return any(client.in_flight or client.accepted for client in _clients(service.statistics()))


def _clients(statistics: Any) -> list[Any]:
    return [carrier.client for carrier in statistics.carriers]


async def bare(count: int, port: int, ca_file: str) -> dict[str, float]:
    """Fan the same start out by the client alone, to tokens from a generator."""
    from apns_live import Alert, Client, ProviderKey
    from apns_live import Start as Message

    key = ProviderKey.from_pem(_key_pem(), key_id=KEY_ID, team_id=TEAM_ID)
    endpoint = Endpoint("localhost", port, ca_file=ca_file)
    message = Message(
        content_state={"home": 0, "away": 0, "pad": "x" * 100},
        attributes_type=TYPE,
        attributes={"match": "final"},
        alert=Alert(title="Kick-off", body="The final begins."),
    )
    failed = 0
    async with Client(
        key, bundle_id=BUNDLE_ID, environment=endpoint, max_connections=CONNECTIONS
    ) as client:
        wall, cpu = -time.perf_counter(), -time.process_time()
        async with client.fan_out(message, (f"{number:064x}" for number in range(count))) as run:
            async for outcome in run:
                failed += not outcome.accepted
        wall, cpu = wall + time.perf_counter(), cpu + time.process_time()
    return {"wall": wall, "cpu": cpu, "accepted": count - failed, "failed": failed}


def main() -> None:
    """Do what the first argument says and print what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["register", "start", "bare"])
    parser.add_argument("--address", default="")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ca", default="")
    given = parser.parse_args()
    if given.what == "register":
        result = asyncio.run(register(given.address, given.count))
    elif given.what == "start":
        result = asyncio.run(start(given.address, given.port, given.ca))
    else:
        result = asyncio.run(bare(given.count, given.port, given.ca))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
