"""Measures the service: registering devices, and a start for all of them with every outcome stored.

Each part runs in a process of its own, so that its CPU and memory are the service's: the sink, and a
database's server, are other processes.
"""

import asyncio
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from multiprocessing.connection import Connection
from typing import Any

from .. import Alert, Endpoint
from .. import Start as StartMessage
from ..activities import AlertText, Audience, Presentation, Service, ServiceSettings, Start
from ..activities.people.records import TokenRecord
from ..activities.store.database import Database
from ..activities.store.sealing import Sealer, new_key
from ..activities.store.upgrade import upgrade
from .processes import peak_bytes, say, worker
from .results import Result, Run, taken
from .runner import Contender, Setup, stand
from .senders import BUNDLE_ID, KEY_ID, TEAM_ID, Plan, provider_key

BATCH = 1_000
"""Devices registered in one call: 2,000 tokens."""
CONNECTIONS = 8
TYPE = "MatchAttributes"
Place = tuple[str, str, int, str]
"""Database, key of the store, port and authority of the sink."""
STATE = {"home": 0, "away": 0, "pad": "x" * 100}


@asynccontextmanager
async def opened(address: str, store_key: str, port: int, ca_file: str) -> AsyncIterator[Service]:
    """Open the service with the sink in Apple's place."""
    endpoint = Endpoint("localhost", port, ca_file=ca_file)
    async with Database.open(address) as database:
        await upgrade(database)
    async with Service.open(
        address,
        sealing=Sealer(store_key),
        endpoints={"production": endpoint, "sandbox": endpoint},
        settings=ServiceSettings(client={"max_connections": CONNECTIONS}),
    ) as service:
        yield service


async def new_app(service: Service, name: str, key: str) -> Any:
    """Return a new app of this name, with a key for both environments."""
    app = await service.apps.create(id=name, name=name, bundle_id=BUNDLE_ID)
    await service.apps.add_key(app, key, key_id=KEY_ID, team_id=TEAM_ID, environment="any")
    return app


def _tokens(number: int) -> Iterator[TokenRecord]:
    for kind, scope in (("start", TYPE), ("device", "")):
        token = blake2b(f"{kind}{number}".encode(), digest_size=32).hexdigest()
        facts: dict[str, Any] = {"kind": kind, "scope": scope, "token": token}
        at = 1_700_000_000_000 + number
        yield TokenRecord(device=f"device-{number}", registered_at=at, **facts)


async def _register(connection: Connection, place: Place, name: str, devices: int) -> None:
    async with opened(*place) as service:
        app = await new_app(service, name, provider_key())
        calls: list[float] = []
        run = Run(name="", count=2 * devices)
        with taken(run):
            for first in range(0, devices, BATCH):
                numbers = range(first, min(first + BATCH, devices))
                records = [token for number in numbers for token in _tokens(number)]
                called = time.perf_counter()
                await service.devices.register(app, records)
                calls.append(time.perf_counter() - called)
    run.figures = {"slowest call ms": max(calls) * 1e3, "peak MB": peak_bytes() / 1e6}
    say(connection, run)


async def _start(connection: Connection, place: Place, name: str, _: int) -> None:
    async with opened(*place) as service:
        app = await service.apps.get(name)
        request = Start(
            attributes_type=TYPE,
            attributes={"match": "final"},
            content_state=STATE,
            presentation=Presentation(alert=AlertText(title="Kick-off", body="The final begins.")),
            audience=Audience(everyone=True),
        )
        run, begin = Run(name=""), time.perf_counter()
        with taken(run):
            answer = (await service.activities.start(app, request)).answer
            answered = time.perf_counter()
            # Wait until a push is on the wire or answered.
            while not any(  # noqa: ASYNC110 - nothing else is to be woken by it
                each.client.in_flight or each.client.accepted
                for each in service.statistics().carriers
            ):
                await asyncio.sleep(0.001)
            first = time.perf_counter()
            await service.settled()
        stored = await service.operations.get(app, answer.operation)
    run.failed = stored["failed"]
    run.count = stored["accepted"] + run.failed
    times = {"answered ms": (answered - begin) * 1e3, "first push ms": (first - begin) * 1e3}
    run.figures = times | {"peak MB": peak_bytes() / 1e6}
    say(connection, run)


_PARTS = {"register": _register, "start": _start}


def service(devices: int, setup: Setup | None = None, database: str | None = None) -> Result:
    """Measure registering and starting on ``database``, else on SQLite in a temporary folder.

    Each round leaves a new app in the database, so use one that can be deleted.
    """
    bare = StartMessage(
        content_state=STATE,
        attributes_type=TYPE,
        attributes={"match": "final"},
        alert=Alert(title="Kick-off", body="The final begins."),
    )
    plan = Plan(message=bare, count=devices, connections=CONNECTIONS)
    with (
        stand("service", f"The service: {devices:,} devices", plan, setup) as stands,
        tempfile.TemporaryDirectory(prefix="apns-live-bench-") as folder,
    ):
        address = database or f"sqlite:///{folder}/service.db"
        stands.result.settings |= {
            "database": address.partition(":")[0],
            "registered": f"two tokens a device, {BATCH:,} devices a call",
            "start": "for everyone, from the call until every outcome is stored",
            "fan_out": "the bare client with the same message",
        }
        sink, place = stands.sink, (address, new_key(), stands.sink.port, stands.sink.ca_file)
        for turn in range(stands.setup.rounds):
            name = f"bench-{secrets.token_hex(4)}"
            for part, work in _PARTS.items():
                before = sink.cpu()
                with worker(part, work, place, name, devices, core=stands.core) as working:
                    run: Run = working.receive(3_600)
                run.name, run.sink_busy = part, (sink.cpu() - before) / run.wall
                stands.result.runs.append(run)
            stands.run([Contender("fan_out", sender="fan_out")], plan)
            for run in stands.result.runs[-3:]:
                run.round = turn
    return stands.result
