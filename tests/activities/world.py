"""Two apps over one database with a simulated clock: what most tests of the service begin with."""

from __future__ import annotations

import itertools
from typing import Any

from sqlalchemy import func, insert, select

from apns_live.activities.accept.activities import Activities
from apns_live.activities.accept.idempotency import Key
from apns_live.activities.accept.streams import Streams
from apns_live.activities.apps import App, Apps
from apns_live.activities.core import Core
from apns_live.activities.people.audience import Audiences, Segments
from apns_live.activities.people.devices import Devices
from apns_live.activities.people.people import People
from apns_live.activities.people.records import DeviceRecord, TokenRecord
from apns_live.activities.requests import AlertText, Audience, Presentation, Start
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import Sealer, new_key
from apns_live.testing.clock import SimulatedClock

ALERT = Presentation(alert=AlertText(title="Kick-off", body="It begins"))


def a_start(**changes: Any) -> Start:
    """A start of match-17 for everyone."""
    values: dict[str, Any] = {
        "id": "match-17",
        "attributes_type": "Match",
        "content_state": {"home": 0, "away": 0},
        "presentation": ALERT,
        "audience": Audience(everyone=True),
    }
    return Start(**{**values, **changes})


def a_key(text: str, caller: str = "server") -> Key:
    """An idempotency key."""
    return Key(caller=caller, key=text)


class Rooms:
    """The rooms of the service that write, over one database, without anything that sends."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = SimulatedClock()
        numbers = itertools.count(1)
        self.new_id = lambda: f"id-{next(numbers)}"
        self.apps = Apps(database, Sealer(new_key()), self.clock, self.new_id)
        self.core = Core(database, self.clock, self.new_id)
        self.devices = Devices(self.core)
        self.people = People(self.core)
        self.segments = Segments(self.core)
        self.audiences = Audiences(self.core)
        self.written: list[int] = []
        self.core.hooks.written = lambda app, row: self.written.append(row)
        self.activities = Activities(self.core)
        self.streams = Streams(self.core, self.activities)
        self.app: App
        self.other: App

    @property
    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self.clock.time() * 1000)

    async def fill(self, devices: int = 0) -> None:
        """Make the apps, and devices d0 to d<n> of the first with a device token each."""
        self.app = await self.apps.create(
            name="A", bundle_id="com.example.a", environment="sandbox"
        )
        self.other = await self.apps.create(name="B", bundle_id="com.example.b")
        if devices:
            await self.devices.tell(self.app, [DeviceRecord(id=f"d{n}") for n in range(devices)])
            await self.devices.register(
                self.app,
                [
                    TokenRecord(
                        device=f"d{n}", kind="device", token=f"{n:08x}", registered_at=self.now
                    )
                    for n in range(devices)
                ],
            )

    async def device_rows(self, *names: str) -> list[int]:
        """Row ids of devices of the first app."""
        async with self.database.write() as connection:
            rows = await self.devices.rows(connection, self.app, names)
        return [rows[name] for name in names]

    async def put_on(self, activity: str, device: str, **values: Any) -> int:
        """Say that an activity runs on a device; return the row id."""
        [row] = await self.device_rows(device)
        async with self.database.write() as connection:
            found = (
                await connection.execute(
                    select(schema.activities.c.id).where(
                        schema.activities.c.app_id == self.app.row,
                        schema.activities.c.public_id == activity,
                    )
                )
            ).scalar_one()
            result = await connection.execute(
                insert(schema.activity_devices)
                .values(
                    app_id=self.app.row,
                    activity_id=found,
                    device_id=row,
                    environment="sandbox",
                    **{"started_at": self.now, **values},
                )
                .returning(schema.activity_devices.c.id)
            )
            return result.scalar_one()

    async def count(self, table: Any, *conditions: Any) -> int:
        """How many rows a table has."""
        async with self.database.read() as connection:
            return (
                await connection.execute(select(func.count()).select_from(table).where(*conditions))
            ).scalar_one()

    async def rows(self, table: Any, *conditions: Any) -> list[Any]:
        """The rows of a table, by id."""
        async with self.database.read() as connection:
            query = select(table).where(*conditions).order_by(table.c.id)
            return list((await connection.execute(query)).all())
