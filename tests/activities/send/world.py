"""A service over the fake's phones: real sockets and databases, simulated time."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from sqlalchemy import func, select

from apns_live import Endpoint
from apns_live.activities import (
    AlertText,
    App,
    Audience,
    DeviceRecord,
    End,
    Presentation,
    Sealer,
    Service,
    ServiceSettings,
    Start,
    TokenRecord,
    Update,
)
from apns_live.activities.store import schema
from apns_live.activities.store.sealing import new_key
from apns_live.activities.store.shards import decode_devices
from apns_live.testing import FakeApns, SimulatedClock
from apns_live.testing.phones import PhoneSettings

ALERT = AlertText(title="Kick-off", body="It begins")
TYPE = "Match"
KEY = new_key()


def a_start(activity: str = "match", **changes: Any) -> Start:
    values: dict[str, Any] = {
        "id": activity,
        "attributes_type": TYPE,
        "attributes": {"activity": activity},
        "content_state": {"n": 0},
        "presentation": Presentation(alert=ALERT),
        "audience": Audience(everyone=True),
    }
    return Start(**{**values, **changes})


def an_update(n: Any, activity: str = "match", **changes: Any) -> Update:
    return Update(id=activity, content_state={"n": n}, **changes)


def an_end(n: Any = None, activity: str = "match", **changes: Any) -> End:
    return End(id=activity, content_state=None if n is None else {"n": n}, **changes)


def phone_settings(**changes: Any) -> PhoneSettings:
    values: dict[str, Any] = {"token_delay": (0.1, 0.3), "budget": None, "start_budget": None}
    return PhoneSettings(**{**values, **changes})


def each_device(row: Any) -> list[Any]:
    """Return an outcome for each device of a row of outcomes."""
    if row.devices is None:
        return [row]
    return [
        SimpleNamespace(
            **{**row._asdict(), "device_id": device, "apns_id": f"{row.apns_id}{device:012x}"}
        )
        for device in decode_devices(row.devices)
    ]


class World:
    """A fake APNs with phones, and the service that pushes to them."""

    stride = 1.0
    """Seconds that time passes by at most before conditions are looked at again."""

    def __init__(self, fake: FakeApns, clock: SimulatedClock, database: Any) -> None:
        self.fake = fake
        self.clock = clock
        self.database = database
        self._using = 0
        database._lent = self._counted(database._lent)
        self.sealing = Sealer(KEY)
        self.settings = ServiceSettings(
            drain=0.0, lease=60.0, client={"max_connections": 2, "response_timeout": 30.0}
        )
        self.endpoint = Endpoint(**fake.endpoint._asdict())
        self.handed_in: list[TokenRecord] = []
        self.registering = True
        self.tells_cards = False
        """Whether the app tells which card a token is of."""
        self.app: App
        self.service: Service
        self._open: Any = None
        numbers = itertools.count(1)
        self.new_id = lambda: f"id-{next(numbers)}"
        fake.devices.on_token.append(self._on_token)

    def _on_token(self, device: Any, activity: Any, token: str) -> None:
        self.handed_in.append(self._record(device, activity, token))

    def _record(self, device: Any, activity: Any, token: str) -> TokenRecord:
        return TokenRecord(
            device=device.id,
            kind="activity",
            token=token,
            registered_at=self.now(),
            scope=json.loads(activity.attributes)["activity"],
            card=activity.id if self.tells_cards else None,
        )

    def records_of(self, phone: Any) -> list[TokenRecord]:
        """Return what an app registers when it is opened: the tokens of its running cards."""
        return [
            self._record(phone, activity, activity.token.text)
            for activity in phone.activities
            if activity.state == "active" and activity.token is not None
        ]

    def now(self) -> int:
        return int(self.clock.time() * 1000)

    async def open(self, **changes: Any) -> Service:
        values: dict[str, Any] = {
            "sealing": self.sealing,
            "clock": self.clock,
            "new_id": self.new_id,
            "settings": self.settings,
            "endpoints": {"production": self.endpoint, "sandbox": self.endpoint},
        }
        self._open = Service.open(self.database, **{**values, **changes})
        self.service = await self._open.__aenter__()
        return self.service

    async def close(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            await opened.__aexit__(None, None, None)

    async def add_app(self, name: str = "scores", *, with_key: bool = True, **changes: Any) -> App:
        values: dict[str, Any] = {
            "name": name,
            "id": name,
            "bundle_id": self.fake.bundle_id,
            "environment": "sandbox",
        }
        app = await self.service.apps.create(**{**values, **changes})
        if with_key:
            await self.add_key(app)
        return app

    async def add_key(self, app: App, **changes: Any) -> None:
        values: dict[str, Any] = {
            "key_id": self.fake.key_id,
            "team_id": self.fake.team_id,
            "environment": "any",
        }
        pem = self.fake.key_file.read_text()
        await self.service.apps.add_key(app, pem, **{**values, **changes})

    async def add_phones(
        self, count: int, app: App | None = None, first: int = 0, **told: Any
    ) -> list[Any]:
        """Add phones and register their start tokens."""
        app = app or self.app
        phones = [
            self.fake.devices.add_device(
                f"{app.id}-{number}", bundle_id=app.bundle_id, attributes_types=[TYPE]
            )
            for number in range(first, first + count)
        ]
        records = [record for phone in phones for record in self.start_records(phone)]
        if told:
            await self.service.devices.tell(
                app, [DeviceRecord(id=phone.id, **told) for phone in phones]
            )
        await self.service.devices.register(app, records)
        return phones

    def start_records(self, phone: Any, environment: str | None = None) -> list[TokenRecord]:
        """Return the records of a phone's start tokens."""
        return [
            TokenRecord(
                device=phone.id,
                kind="start",
                token=token.text,
                registered_at=self.now(),
                scope=TYPE,
                environment=environment,
            )
            for token in phone.tokens
            if token.kind == "start"
        ]

    async def hand_in(self, app: App | None = None) -> int:
        """Let phones hand in the tokens that they got."""
        handed_in, self.handed_in = self.handed_in, []
        return await self.service.tokens.register_activity_tokens(app or self.app, handed_in)

    def _counted(self, lend: Callable[[Any], Any]) -> Callable[[Any], Any]:
        @asynccontextmanager
        async def counted(engine: Any) -> AsyncIterator[Any]:
            self._using += 1
            try:
                async with lend(engine) as connection:
                    yield connection
            finally:
                self._using -= 1

        return counted

    async def rest(self, condition: Callable[[], object] = lambda: False) -> None:
        """Return when nothing happens any more unless time passes, or when a condition holds."""
        quiet = 0
        while quiet < 2 and not condition():
            await self.clock.settle(6)
            if self._using:
                quiet = 0
                await asyncio.sleep(0.0005)
            else:
                quiet += 1

    async def until(self, condition: Callable[[], object], *, at_most: float = 120.0) -> None:
        """Let time pass until a condition holds; phones hand in their tokens meanwhile.

        Time passes from timer to timer; at each, sockets, threads and the database come to rest.
        """
        give_up = self.clock.monotonic() + at_most
        while not condition():
            await self.rest(condition)
            if self.handed_in and self.registering:
                await self.hand_in()
            elif not condition():
                assert self.clock.monotonic() < give_up, "it did not come true in time"
                await self.step(give_up)

    async def step(self, at_most: float) -> None:
        """Let time pass up to the next timer, or to a moment of the clock that comes before it."""
        now = self.clock.monotonic()
        due = self.clock.next_due
        moment = min(at_most, now + self.stride, at_most if due is None else due)
        self.clock.advance_sync(max(moment - now, 0.0))

    async def result_of(self, work: Awaitable[Any]) -> Any:
        """Return what ``work`` gives, while time passes."""
        task = asyncio.ensure_future(work)
        await self.until(task.done)
        return await task

    async def settled(self) -> None:
        """Let time pass until everything accepted is sent, and handed in tokens too."""
        while True:
            await self.result_of(self.service.settled())
            if not (self.handed_in and self.registering):
                return
            await self.hand_in()

    async def pass_time(self, seconds: float) -> None:
        """Let time pass; phones hand in their tokens meanwhile."""
        await self.pass_to(self.clock.monotonic() + seconds)

    async def pass_to(self, moment: float) -> None:
        """Let time pass up to a moment of the clock."""
        while True:
            await self.rest()
            if self.handed_in and self.registering:
                await self.hand_in()
            elif self.clock.monotonic() < moment:
                await self.step(moment)
            else:
                return

    def shown(self, phones: list[Any]) -> list[Any]:
        """What each phone shows: its states, newest activity last; None for one without."""
        return [self.showing(phone) for phone in phones]

    @staticmethod
    def showing(phone: Any) -> Any:
        if not phone.activities:
            return None
        activity = phone.activities[-1]
        return (activity.state, json.loads(activity.content)["n"])

    @staticmethod
    def state_of(phone: Any, name: str) -> Any:
        """What the card of an activity says on a phone."""
        for activity in phone.activities:
            if json.loads(activity.attributes)["activity"] == name:
                return json.loads(activity.content)["n"]
        return None

    async def operations(self) -> list[Any]:
        table = schema.operations
        async with self.service.database.read() as connection:
            return list((await connection.execute(select(table).order_by(table.c.id))).all())

    async def outcomes(self, operation: int | None = None) -> list[Any]:
        table = schema.outcomes
        query = select(table).order_by(table.c.id)
        if operation is not None:
            query = query.where(table.c.operation_id == operation)
        async with self.service.database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [one for row in rows for one in each_device(row)]

    async def members(self) -> list[Any]:
        table = schema.activity_devices
        async with self.service.database.read() as connection:
            return list((await connection.execute(select(table).order_by(table.c.id))).all())

    async def rows_of_activity(self, name: str = "match") -> list[Any]:
        """The stored activity, as a list of one."""
        table = schema.activities
        return list(await self.database.rows(select(table).where(table.c.public_id == name)))

    async def count(self, table: Any) -> int:
        async with self.service.database.read() as connection:
            return int(
                (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            )
