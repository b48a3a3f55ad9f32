"""What a release says to PostgreSQL, recorded, so that the next release can be tried beside it.

``python -m tests.activities.store.recording FILE.jsonl.gz`` runs one of each call with the code at hand, and
writes down its statements. `said` reads such a file, `repeat` says it again.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Engine, event

from apns_live import Endpoint
from apns_live.activities import (
    AlertText,
    Audience,
    DeviceRecord,
    End,
    Key,
    Notify,
    Presentation,
    Sealer,
    Service,
    ServiceSettings,
    Start,
    TokenRecord,
    Update,
)
from apns_live.activities.store.database import Database
from apns_live.activities.store.upgrade import upgrade
from apns_live.testing import FakeApns
from apns_live.testing.phones import PhoneSettings
from tests.postgres import postgres

KEY = base64.b64encode(bytes(32)).decode()
_READS = 2
"""How often the same reading statement is kept: pollers say it again and again."""

Said = tuple[str, list[list[Any]]]
"""A statement and its rows of parameters."""


def said(file: Path) -> Iterator[Said]:
    """Read a recording."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            statement, parameters = json.loads(line, object_hook=_bytes)
            yield statement, parameters


def _bytes(found: dict[str, str]) -> Any:
    return base64.b64decode(found["base64"])


async def repeat(connection: asyncpg.Connection[Any], one: Said) -> list[tuple[Any, ...]]:
    """Say a recorded statement; return the rows that it answers."""
    statement, parameters = one
    return [tuple(row) for each in parameters for row in await connection.fetch(statement, *each)]


def is_fixed(statement: str) -> bool:
    """Whether a statement answers the same whenever it is said."""
    varies = ("clock_timestamp", "random()", "leases", "alembic_version")
    return not any(word in statement for word in varies)


async def _record(address: str, file: Path) -> None:
    kept: list[Said] = []
    times: Counter[str] = Counter()

    def after(_: Any, __: Any, statement: str, parameters: Any, ___: Any, many: bool) -> None:
        times[statement] += 1
        if times[statement] <= _READS or not statement.lstrip().startswith(("SELECT", "WITH")):
            kept.append((statement, [list(one) for one in (parameters if many else [parameters])]))

    async with Database.open(address) as database:
        await upgrade(database)
    event.listen(Engine, "after_cursor_execute", after)
    await one_of_each(address)
    event.remove(Engine, "after_cursor_execute", after)
    with gzip.GzipFile(file, "wb", mtime=0) as out:
        for one in kept:
            encoded = json.dumps(
                one, default=lambda raw: {"base64": base64.b64encode(raw).decode()}
            )
            out.write(encoded.encode() + b"\n")
    print(f"{file}: {len(kept)} statements, {len(times)} different ones")


async def one_of_each(address: str, name: str = "recorded") -> None:
    """Make an app of this name, and everything that a service writes for one."""
    laws = PhoneSettings(token_delay=(0.01, 0.02), budget=None, start_budget=None)
    async with FakeApns(devices="strict", phone_settings=laws) as fake:
        endpoint = Endpoint(**fake.endpoint._asdict())
        async with Service.open(
            address,
            sealing=Sealer(KEY),
            endpoints={"production": endpoint, "sandbox": endpoint},
            settings=ServiceSettings(client={"max_connections": 2}),
        ) as service:
            await _calls(service, fake, name)


async def _calls(service: Service, fake: FakeApns, name: str) -> None:
    app = await service.apps.create(
        name=name, id=name, bundle_id=fake.bundle_id, environment="sandbox"
    )
    key = fake.key_file.read_text()
    await service.apps.add_key(
        app, key, key_id=fake.key_id, team_id=fake.team_id, environment="any"
    )
    phones = [fake.devices.add_device(f"{name}-{n}", attributes_types=["Match"]) for n in range(4)]
    tokens: asyncio.Queue[TokenRecord] = asyncio.Queue()
    now = int(fake.clock.time() * 1000)

    def on_token(device: Any, activity: Any, token: str) -> None:
        scope = json.loads(activity.attributes)["name"]
        given = {"device": device.id, "token": token, "registered_at": now, "scope": scope}
        tokens.put_nowait(TokenRecord(kind="activity", **given))

    fake.devices.on_token.append(on_token)
    people = [DeviceRecord(id=phone.id, user=f"user-{phone.id}", language="en") for phone in phones]
    await service.devices.tell(app, people)
    await service.devices.register(
        app,
        [
            TokenRecord(
                device=phone.id,
                kind=token.kind,
                token=token.text,
                registered_at=now,
                scope="Match" if token.kind == "start" else "",
            )
            for phone in phones
            for token in phone.tokens
            if token.kind in {"start", "device"}
        ],
    )
    alert = AlertText(title="Kick-off", body="It begins")
    for number in range(2):
        match = f"{name}-match-{number}"
        start = Start(
            id=match,
            attributes_type="Match",
            attributes={"name": match},
            content_state={"n": 0},
            presentation=Presentation(alert=alert),
            audience=Audience(everyone=True),
        )
        await service.activities.start(app, start, key=Key(caller="test", key=match))
        for _ in phones:
            await service.tokens.register_activity_tokens(app, [await tokens.get()])
        await service.activities.update(app, Update(id=match, content_state={"n": 1}))
        await service.settled()
    await service.activities.end(app, End(id=f"{name}-match-0", content_state={"n": 2}))
    goal = Notify(title="Goal", body="1:0", audience=Audience(everyone=True))
    await service.notifications.send(app, goal)
    await service.settled()
    await service.scheduler.catch_up()
    await service.pruning.round()


def _main(file: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        postgres(Path(folder) / "data", runtime=Path(folder)) as address,
    ):
        asyncio.run(_record(address, file))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
