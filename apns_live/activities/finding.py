"""Finds a row of an app by its public name, or the row ids of many."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, Table, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ..errors import NotFound
from . import checks
from .apps import App
from .store import schema
from .store.statements import chunks, hold, insert_into

_KINDS: Mapping[Table, tuple[str, str, str]] = {
    schema.activities: ("activity", "public_id", "start it first"),
    schema.operations: ("operation", "public_id", "it was never accepted, or was pruned"),
    schema.devices: ("device", "public_id", "register it first"),
    schema.users: ("user", "external_id", "add it first"),
    schema.groups: ("group", "slug", "add it first"),
    schema.streams: ("stream", "key", "put a state first"),
}
"""By table: the noun for a row, the column of its public name, and the remedy if there is none."""


def named(app: App, table: Table, name: str) -> ColumnElement[bool]:
    """Return the condition that a row is the app's row of this name."""
    return and_(table.c.app_id == app.row, table.c[_KINDS[table][1]] == name)


def id_named(app: App, table: Table, name: str) -> ScalarSelect[int]:
    """Return the query for the row id of the app's row of this name."""
    return select(table.c.id).where(named(app, table, name)).scalar_subquery()


async def find(
    connection: AsyncConnection,
    app: App,
    table: Table,
    name: str,
    query: Select[Any] | None = None,
    *,
    lock: bool = False,
) -> Row[Any]:
    """Return a row of an app; ``query`` selects more than the table. Raises `NotFound`."""
    noun, _, remedy = _KINDS[table]
    checks.encodable(name, noun)
    query = select(table) if query is None else query
    query = query.where(named(app, table, name))
    # SQLite has one writer at a time anyway, and ignores the lock.
    found = await connection.execute(query.with_for_update() if lock else query)
    row: Row[Any] | None = found.one_or_none()
    if row is None:
        raise NotFound(f"the app {app.id!r} has no {noun} {name!r}: {remedy}")
    return row


async def find_id(connection: AsyncConnection, app: App, table: Table, name: str) -> int:
    """Return the row id of an app's row. Raises `NotFound`."""
    return int((await find(connection, app, table, name, select(table.c.id))).id)


async def hold_activities(connection: AsyncConnection, names: Mapping[int, Iterable[str]]) -> None:
    """Lock activities, by app's row and id, in the order of their rows, as all writers do.

    Locks in the order of apps could deadlock with locks in the order of rows. SQLite has one writer at a
    time anyway.
    """
    if connection.dialect.name == "sqlite":
        return
    table = schema.activities
    rows: list[int] = []
    for app, ids in names.items():
        query = select(table.c.id).where(table.c.app_id == app, table.c.public_id.in_(list(ids)))
        rows += await connection.scalars(query)
    await hold(connection, table, rows)


async def row_ids(
    connection: AsyncConnection,
    app: App,
    table: Table,
    names: Iterable[str],
    new: Callable[[str], Mapping[str, object]] | None = None,
) -> dict[str, int]:
    """Return the row ids of existing names; with ``new`` add the missing ones with its columns."""
    column = table.c[_KINDS[table][1]]

    async def known(some: Iterable[str]) -> dict[str, int]:
        query = select(column, table.c.id).where(table.c.app_id == app.row, column.in_(some))
        return {row[0]: row[1] for row in await connection.execute(query)}

    found: dict[str, int] = {}
    for part in chunks(sorted(set(names))):  # all writers lock in this order
        found |= await known(part)
        missing = [name for name in part if name not in found]
        if missing and new is not None:
            await connection.execute(
                insert_into(connection, table).on_conflict_do_nothing(),
                [{"app_id": app.row, column.name: name, **new(name)} for name in missing],
            )
            found |= await known(missing)
    return found
