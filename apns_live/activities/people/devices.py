"""Devices and their tokens: stores batches; the newest registration of a token wins.

A token is kept with the time at which the phone registered it. A registration replaces what is
stored only if it is not older (compare-and-set in the statement itself), so the order of calls does
not matter. A 410 from APNs retires a token only if it was registered before the time that the 410
carries (Apple, "Handling notification responses from APNs").
"""

from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Boolean, Float, Select, String, and_, delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import ApnsLiveError, InvalidInput, NotFound
from .. import checks
from ..apps import App
from ..core import Core, Part
from ..decodes import has_contract
from ..finding import find, id_named, named, row_ids
from ..store import schema
from ..store.commit import Batch
from ..store.database import Growth
from ..store.statements import chunks, in_turns, rows_of, view_of, with_rows
from .people import rows_of_users
from .records import (
    DeviceRecord,
    DeviceView,
    StartTokenView,
    TokenRecord,
    check_device,
    check_token,
)
from .suspects import SUSPECT, note_switched_off

TOLD = tuple(name for name in DeviceRecord.__struct_fields__ if name not in {"id", "user"})
"""The fields of a device except its id and its user."""

KEPT = 10.0
"""Seconds after which the devices' app versions are read again."""
_APPS = 10_000

Guard = Callable[[AsyncConnection], Awaitable[None]]
"""Runs first in a write's transaction. It stops the write by raising an error."""


class Registration(msgspec.Struct, frozen=True, gc=False):
    """The checked tokens of one call. ``attributes_type`` is the type of new activities."""

    app: App
    records: Sequence[TokenRecord]
    guard: Guard | None
    attributes_type: str = ""


async def admitted(
    connection: AsyncConnection, items: Sequence[Registration]
) -> tuple[list[Exception | None], list[list[Registration]]]:
    """Run the guards; return the error of each refused item, and the admitted items by app."""
    refusals: list[Exception | None] = []
    by_app: dict[int, list[Registration]] = {}
    for item in items:
        refusal = None
        try:
            if item.guard is not None:
                await item.guard(connection)
            by_app.setdefault(item.app.row, []).append(item)
        except ApnsLiveError as error:
            refusal = error
        refusals.append(refusal)
    return refusals, [some for _, some in sorted(by_app.items())]


def checked_tokens(
    records: Iterable[TokenRecord], now: int, *, of_activities: bool = False
) -> list[TokenRecord]:
    """Return records in stored form. Raises `InvalidInput`, also for tokens of another kind."""
    checked = []
    for index, record in enumerate(records):
        field = f"tokens[{index}]"
        if (record.kind == "activity") is not of_activities:
            others = "start and device tokens with the devices"
            right = others if of_activities else "activity tokens with the activities"
            raise InvalidInput(f"is {record.kind!r}", f"{field}.kind", f"Register {right}.")
        checked.append(check_token(record, now=now, field=field))
    return checked


def newest(
    records: Iterable[TokenRecord], place: Callable[[TokenRecord], Hashable]
) -> list[TokenRecord]:
    """Keep the newest of several registrations of a place: a statement may touch a row once."""
    kept: dict[Hashable, TokenRecord] = {}
    for record in records:
        known = kept.get(place(record))
        if known is None or record.registered_at >= known.registered_at:
            kept[place(record)] = record
    return list(kept.values())


def devices_with_user() -> Select[Any]:
    """Return the query for devices, each with its user's external id as ``user``."""
    devices, users = schema.devices, schema.users
    return select(devices, users.c.external_id.label("user")).outerjoin(
        users, users.c.id == devices.c.user_id
    )


class Devices(Part):
    """The devices of each app, and their tokens."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._registrations: Batch[Registration, None] = Batch(self._together)
        self._growth = Growth(self.database)

    async def tell(self, app: App, records: Iterable[DeviceRecord]) -> int:
        """Add or change devices; return how many. Fields that are None stay unchanged.

        Raises `InvalidInput`, and stores nothing, if one of them is wrong.
        """
        checked = [check_device(one, f"devices[{index}]") for index, one in enumerate(records)]
        async with self.database.write() as connection:
            await self.tell_within(connection, app, checked)
        await self._growth.stored(len(checked))
        return len(checked)

    async def tell_within(
        self, connection: AsyncConnection, app: App, records: Sequence[DeviceRecord]
    ) -> None:
        """Store checked records inside a transaction of the caller.

        Unchanged values are not written again, so importing a file twice changes nothing.
        """
        now = self.now
        names = [record.user for record in records if record.user]
        users = await rows_of_users(connection, app, names, now)
        rows = [
            [
                one.id,
                *(getattr(one, name) for name in TOLD),
                None if one.app_version is None else checks.version_order(one.app_version),
                None if one.user is None else users[one.user],
            ]
            for one in records
        ]
        rows.sort(key=lambda row: row[0])  # all writers lock in this order
        for turn in in_turns(rows, lambda row: row[0]):
            await with_rows(connection, _ADD, turn, app=app.row, now=now)
            await with_rows(connection, _TELL, turn, app=app.row, now=now)
        off = {one.id for one in records if one.push_enabled is False}
        await note_switched_off(connection, app.row, list(off), now)

    async def register(
        self, app: App, records: Iterable[TokenRecord], *, guard: Guard | None = None
    ) -> int:
        """Store start and device tokens; return how many were given. Unknown devices are added.

        A token of another device moves to the newer registration. Register activity tokens by
        `register_activity_tokens` instead. Raises `InvalidInput`.
        """
        checked = checked_tokens(records, self.now)
        await self.core.commits.run_with(self._registrations, Registration(app, checked, guard))
        await self._growth.stored(len(checked))
        return len(checked)

    async def _together(
        self, connection: AsyncConnection, items: Sequence[Registration]
    ) -> Sequence[Exception | None]:
        """Store the registrations of many calls with a few statements for each app. See `GroupCommit`."""
        refusals, by_app = await admitted(connection, items)
        for some in by_app:
            records = [record for item in some for record in item.records]
            await self.register_within(connection, some[0].app, records)
        return refusals

    async def register_within(
        self, connection: AsyncConnection, app: App, records: Sequence[TokenRecord]
    ) -> None:
        """Store checked start and device tokens inside a transaction of the caller."""
        rows = await self.rows(connection, app, [record.device for record in records])
        now = self.now

        def place(one: TokenRecord) -> tuple[int, str, str]:
            return rows[one.device], one.scope, one.environment or app.environment

        for kind, (register, moved) in _STATEMENTS.items():
            named = {"now": now} if ":now" in register else {}
            of_kind = newest((one for one in records if one.kind == kind), place)
            for part in chunks(of_kind, _TOGETHER):
                # All writers lock in this order.
                given = sorted([app.row, *place(one), one.token, one.registered_at] for one in part)
                await with_rows(connection, register, given, **named)
                await with_rows(connection, moved, given)

    async def rows(
        self, connection: AsyncConnection, app: App, public_ids: Iterable[str]
    ) -> dict[str, int]:
        """Return the row ids of devices; new devices are added."""
        now = self.now
        new = {"created_at": now, "updated_at": now}
        return await row_ids(connection, app, schema.devices, public_ids, lambda _: new)

    async def get(self, app: App, public_id: str) -> DeviceView:
        """Return a device with its active start tokens by type.

        Tokens are shortened to their first eight digits; see `people.suspects` for suspect ones.
        Raises `NotFound`.
        """
        start = schema.start_tokens
        async with self.database.read() as connection:
            row = await find(connection, app, schema.devices, public_id, devices_with_user())
            living = select(start).where(start.c.device_id == row.id, start.c.retired_at.is_(None))
            shown = [
                view_of(StartTokenView, one, unanswered_starts=count, suspect=count >= SUSPECT)
                for one in await connection.execute(living)
                for count in [one.unanswered]
            ]
        return view_of(DeviceView, row, start_tokens=shown)

    async def forget(self, app: App, public_id: str) -> None:
        """Delete a device and all of its tokens. Raises `NotFound`."""
        table, members = schema.devices, schema.activity_devices
        place = named(app, table, public_id)
        query = select(members.c.activity_id, members.c.token).join(table)
        async with self.database.write() as connection:
            followed = await rows_of(connection, query.where(place, members.c.token.is_not(None)))
            gone = await connection.execute(delete(table).where(place))
        if not gone.rowcount:
            raise NotFound(f"the app {app.id!r} has no device {public_id!r}")
        for row in followed:
            self.core.hooks.left(row.activity_id, row.token)

    async def withdraw(
        self, app: App, device: str, attributes_type: str, *, guard: Guard | None = None
    ) -> bool:
        """Retire a device's start token at the app's request; return whether there was one."""
        table = schema.start_tokens
        owner = id_named(app, schema.devices, device)
        place = (table.c.device_id == owner, table.c.attributes_type == attributes_type)
        async with self.database.write() as connection:
            if guard is not None:
                await guard(connection)
            retiring = update(table).where(*place, table.c.retired_at.is_(None))
            retired = retiring.values(retired_at=self.now, retired_reason="withdrawn")
            return bool((await connection.execute(retired)).rowcount)


class AppVersions(Part):
    """Which app versions the devices use, so that states are checked against their contracts.

    A device uses the newest contract that is not newer than its version: 2.4.1 and 2.5 use the
    contract of 2.4 until there is one for 2.5. A device older than all contracts uses the oldest. If
    no device of the app reports a version, all contracts may be in use. Answers from memory for `KEPT`
    seconds.
    """

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._kept: dict[tuple[int, frozenset[str]], tuple[float, Collection[str]]] = {}

    async def in_use(self, app: App) -> App:
        """Return the app with only the contracts that its devices use. Raises as `Database.read`."""
        setting: dict[str, Any] = app.settings.get("contract") or {}
        if not has_contract(app.settings) or len(setting["versions"]) < 2:
            return app
        place, now = (app.row, frozenset(setting["versions"])), self.clock.monotonic()
        until, names = self._kept.get(place, (now, ()))
        if until <= now:
            names = await self._told(app.row, setting["versions"])
            if len(self._kept) >= _APPS:
                self._kept.clear()
            self._kept[place] = now + KEPT, names
        versions = {name: setting["versions"][name] for name in names}
        return replace(
            app, settings={**app.settings, "contract": {**setting, "versions": versions}}
        )

    async def _told(self, app: int, configured: Collection[str]) -> Collection[str]:
        """Return the contract versions that count. Queries the devices once per contract."""
        table = schema.devices
        told = table.c.app_version_order
        orders = sorted({checks.version_order(name) for name in configured})
        asked = []
        for least, next_one in pairwise([None, *orders[1:], None]):
            within = [table.c.app_id == app, told.is_not(None)]
            within += [told >= least] if least is not None else []
            within += [told < next_one] if next_one is not None else []
            asked.append(exists().where(and_(*within)))
        row = await self.database.row(select(*asked))
        used = {order for order, found in zip(orders, row or (), strict=True) if found}
        return [name for name in configured if not used or checks.version_order(name) in used]


_KINDS = {Float: "DOUBLE PRECISION", Boolean: "BOOLEAN", String: "TEXT"}
_COLUMNS = [schema.devices.c[name] for name in (*TOLD, "app_version_order", "user_id")]
_RECORD = ", ".join(
    ("id TEXT", *(f"{one.name} {_KINDS.get(type(one.type), 'BIGINT')}" for one in _COLUMNS))
)
_CHANGES = ", ".join(
    f"{one.name} = COALESCE(given.{one.name}, devices.{one.name})" for one in _COLUMNS
)
_NEWS = " OR ".join(
    f"given.{one.name} <> devices.{one.name} OR (given.{one.name} IS NOT NULL AND devices.{one.name} IS NULL)"
    for one in _COLUMNS
)
_ADD = f"""
INSERT INTO devices (app_id, public_id, created_at, updated_at)
SELECT :app, given.id, :now, :now FROM {{{_RECORD}}} WHERE true ON CONFLICT DO NOTHING
"""  # noqa: S608 - names of columns
_TELL = f"""
UPDATE devices SET {_CHANGES}, updated_at = :now FROM {{{_RECORD}}}
WHERE devices.app_id = :app AND devices.public_id = given.id AND ({_NEWS})
"""  # noqa: S608 - names of columns
_TOGETHER = 1_000
_GIVEN = "{app, device, scope TEXT, environment TEXT, token TEXT, registered}"
# The newest registration wins. A repeated one is not written again.
_REGISTER = """
INSERT INTO {table} AS known (app_id, {place}, token, registered_at)
SELECT app, {given_place}, token, registered FROM {given} WHERE true
ON CONFLICT ({place}) DO UPDATE SET
    token = excluded.token,
    registered_at = excluded.registered_at,
    retired_at = CASE WHEN {alive} THEN NULL ELSE known.retired_at END,
    retired_reason = CASE WHEN {alive} THEN NULL ELSE known.retired_reason END{more}
WHERE excluded.registered_at > known.registered_at
    OR (excluded.registered_at = known.registered_at AND excluded.token <> known.token)
"""
_ALIVE = """known.token <> excluded.token OR known.retired_at IS NULL
        OR excluded.registered_at > known.retired_at"""
# A new start token has no unanswered starts, whatever the count of the previous token.
_UNTRIED = """,
    unanswered = CASE WHEN known.token <> excluded.token THEN 0 ELSE known.unanswered END,
    cleared_at = CASE WHEN known.token <> excluded.token AND known.unanswered > 0
        THEN CAST(:now AS BIGINT) ELSE known.cleared_at END"""
# A token stays with the device that registered it last, so that one phone gets one push. A
# reinstalled app is a new device to us and may hold the token of the old one. The query finds rows
# by the token (see `_statements`): otherwise SQLite would read all start tokens of the type for
# each token.
_MOVED = """
UPDATE {table} SET retired_at = newer.registered_at, retired_reason = 'moved'
FROM {given} JOIN {table} AS newer ON newer.app_id = given.app AND newer.token = given.token
WHERE {table}.app_id = given.app AND {table}.token = given.token {same}
    AND {table}.retired_at IS NULL AND newer.retired_at IS NULL
    AND (newer.registered_at, newer.id) > ({table}.registered_at, {table}.id)
"""


def _statements(table: str, scope: str) -> tuple[str, str]:
    """Return the statements that register tokens of a table and retire them on other devices."""
    place, given_place, same, more = "device_id, environment", "device, environment", "", ""
    if scope:
        place, given_place = f"{place}, {scope}", f"{given_place}, scope"
        same, more = f"AND newer.{scope} || '' = {table}.{scope}", _UNTRIED
    return (
        _REGISTER.format(
            table=table, place=place, given=_GIVEN, given_place=given_place, alive=_ALIVE, more=more
        ),
        _MOVED.format(table=table, given=_GIVEN, same=same),
    )


_STATEMENTS = {
    "start": _statements("start_tokens", "attributes_type"),
    "device": _statements("device_tokens", ""),
}
