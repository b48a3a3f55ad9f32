"""Facts of many lines into the database, in one transaction a batch and a few statements a table.

Every statement changes a row only where the value differs, so that a batch that is written twice
changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Table, bindparam, delete, or_
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
from ..people import rows_of_users
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
        devices = sorted((one for facts in batch for one in facts.devices), key=_device_id)
        tokens = sorted(
            (token for facts in batch for token in facts.tokens), key=lambda token: token.device
        )
        users = sorted((one for facts in batch for one in facts.users), key=lambda one: one[0])
        async with self._database.write() as connection:
            for records in _apart([record for record, _ in devices]):
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
        await self._aliases(connection, of_users)
        await self._values(connection, "user_id", of_users, now)
        await self._values(connection, "device_id", of_devices, now)
        await self._groups(connection, of_users, of_devices, now)

    async def _aliases(
        self, connection: AsyncConnection, users: Iterable[tuple[int, Belongings]]
    ) -> None:
        table = schema.user_aliases
        values = {(label, value): row for row, has in users for label, value in has.aliases.items()}
        statement = insert_into(connection, table)
        statement = statement.on_conflict_do_update(
            index_elements=["app_id", "label", "value"],
            set_={"user_id": statement.excluded.user_id},
            where=table.c.user_id != statement.excluded.user_id,
        )
        for part in chunks(values.items()):
            await connection.execute(
                statement,
                [
                    {"app_id": self._app.row, "user_id": row, "label": label, "value": value}
                    for (label, value), row in part
                ],
            )

    async def _values(
        self,
        connection: AsyncConnection,
        owner: str,
        having: Iterable[tuple[int, Belongings]],
        now: int,
    ) -> None:
        table = schema.attributes
        kept: dict[tuple[int, str, str], list[Any]] = {}
        for row, has in having:
            for name, tag in has.tags.items():
                kept[row, "tag", name] = [] if tag is None else [tag]
            for name, entries in has.attributes.items():
                kept[row, "custom", name] = list(entries)
        upsert = _upsert_value(connection, table, owner)
        for some in chunks(kept.items()):
            values = [
                {
                    "app_id": self._app.row,
                    owner: row,
                    "namespace": namespace,
                    "name": name,
                    "position": position,
                    "kind": entry.kind,
                    "text": entry.text,
                    "number": entry.number,
                    "updated_at": now,
                }
                for (row, namespace, name), entries in some
                for position, entry in enumerate(entries)
            ]
            for part in chunks(values):
                await connection.execute(upsert, part)
            # What was a longer list, or is taken away. A tag is never a list.
            shorter = [
                {"the_owner": row, "the_space": namespace, "the_name": name, "length": len(entries)}
                for (row, namespace, name), entries in some
                if namespace == "custom" or not entries
            ]
            if shorter:
                await connection.execute(
                    delete(table).where(
                        table.c[owner] == bindparam("the_owner"),
                        table.c.namespace == bindparam("the_space"),
                        table.c.name == bindparam("the_name"),
                        table.c.position >= bindparam("length"),
                    ),
                    shorter,
                )

    async def _groups(
        self,
        connection: AsyncConnection,
        users: Iterable[tuple[int, Belongings]],
        devices: Iterable[tuple[int, Belongings]],
        now: int,
    ) -> None:
        members = [
            (slug, owner, row)
            for owner, having in (("user_id", users), ("device_id", devices))
            for row, has in having
            for slug in has.groups
        ]
        if not members:
            return
        rows = await row_ids(
            connection,
            self._app,
            schema.groups,
            [slug for slug, _, _ in members],
            lambda slug: {"name": slug, "created_at": now},
        )
        for owner in ("user_id", "device_id"):
            values = [
                {"group_id": rows[slug], owner: row} for slug, of, row in members if of == owner
            ]
            for some in chunks(values):
                await connection.execute(
                    insert_into(connection, schema.group_members).on_conflict_do_nothing(), some
                )


def _device_id(one: tuple[DeviceRecord, Belongings]) -> str:
    return one[0].id


def _apart(records: Sequence[DeviceRecord]) -> Iterable[list[DeviceRecord]]:
    """Cut records, sorted by id, so that the second word on a device comes after its first."""
    turns: list[list[DeviceRecord]] = []
    turn, last = 0, ""
    for record in records:
        turn = turn + 1 if record.id == last else 0
        last = record.id
        if turn == len(turns):
            turns.append([])
        turns[turn].append(record)
    return turns


def _upsert_value(connection: AsyncConnection, table: Table, owner: str) -> Any:
    statement = insert_into(connection, table)
    new = statement.excluded
    changed = ("kind", "text", "number")
    return statement.on_conflict_do_update(
        index_elements=[owner, "namespace", "name", "position"],
        set_={name: new[name] for name in (*changed, "updated_at")},
        where=or_(*(table.c[name].is_distinct_from(new[name]) for name in changed)),
    )
