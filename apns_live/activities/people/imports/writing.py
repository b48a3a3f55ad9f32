"""Writes the facts of many lines to the database, in one transaction per batch.

Every statement changes a row only where the value differs, so that a batch that is written twice
changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from ....clock import Clock
from ...apps import App
from ...finding import row_ids
from ...store import schema
from ...store.database import Database
from ...store.growth import Growth
from ...store.statements import chunks, insert_into
from ...times import milliseconds
from ..devices import Devices
from ..people import Values, rows_of_users, set_aliases, set_values
from ..records import DeviceRecord
from .fields import Belongings, Facts


class Writer:
    """Writes batches of facts for one app."""

    def __init__(self, database: Database, clock: Clock, app: App) -> None:
        self._database = database
        self._clock = clock
        self._app = app
        self._devices = Devices(database, clock)
        self._growth = Growth(database)

    async def write(self, batch: Sequence[Facts]) -> None:
        """Store a batch in one transaction."""
        # In the order of ids, so that two imports at once do not wait for each other in a circle.
        devices = sorted(
            (one for facts in batch for one in facts.devices), key=lambda one: one[0].id
        )
        tokens = sorted(
            (token for facts in batch for token in facts.tokens), key=lambda token: token.device
        )
        users = sorted((one for facts in batch for one in facts.users), key=lambda one: one[0])
        async with self._database.write() as connection:
            records = [record for record, _ in devices]
            await self._devices.tell_within(connection, self._app, records)
            if tokens:
                await self._devices.register_within(connection, self._app, tokens)
            await self._belongings(connection, devices, users)
        await self._growth.stored(len(devices) + len(tokens) + len(users))

    async def _belongings(
        self,
        connection: AsyncConnection,
        devices: Sequence[tuple[DeviceRecord, Belongings]],
        users: Sequence[tuple[str, Belongings]],
    ) -> None:
        now = milliseconds(self._clock)
        people = await rows_of_users(connection, self._app, [name for name, _ in users], now)
        of_users = [(people[name], has) for name, has in users]
        rich = [
            (record.id, has) for record, has in devices if has.tags or has.attributes or has.groups
        ]
        rows = await self._devices.rows(connection, self._app, [name for name, _ in rich])
        of_devices = [(rows[name], has) for name, has in rich]
        aliases = {pair: row for row, has in of_users for pair in has.aliases.items()}
        await set_aliases(connection, self._app, aliases)
        await set_values(connection, self._app, "user", _values(of_users), now)
        await set_values(connection, self._app, "device", _values(of_devices), now)
        await self._groups(connection, of_users, of_devices, now)

    async def _groups(
        self,
        connection: AsyncConnection,
        users: Sequence[tuple[int, Belongings]],
        devices: Sequence[tuple[int, Belongings]],
        now: int,
    ) -> None:
        named = {slug for _, has in (*users, *devices) for slug in has.groups}
        if not named:
            return
        new = {"created_at": now}
        rows = await row_ids(
            connection, self._app, schema.groups, named, lambda slug: {"name": slug, **new}
        )
        statement = insert_into(connection, schema.group_members).on_conflict_do_nothing()
        for owner, having in (("user_id", users), ("device_id", devices)):
            values = [
                {"group_id": rows[slug], owner: row} for row, has in having for slug in has.groups
            ]
            for some in chunks(values):
                await connection.execute(statement, some)


def _values(having: Iterable[tuple[int, Belongings]]) -> Values:
    values: Values = {}
    for row, has in having:
        for name, tag in has.tags.items():
            values[row, "tag", name] = [] if tag is None else [tag]
        for name, entries in has.attributes.items():
            values[row, "custom", name] = entries
    return values
