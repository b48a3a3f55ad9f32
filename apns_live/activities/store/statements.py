"""The few statements that SQLite and PostgreSQL spell through different constructs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Executable, Row, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

Item = TypeVar("Item")
# SQLite takes 32,766 parameters a statement, PostgreSQL's driver 32,767.
CHUNK = 500

Insert = sqlite.Insert | postgresql.Insert


def insert_into(connection: AsyncConnection, table: Table) -> Insert:
    """Return an INSERT that knows ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


async def fetch(connection: AsyncConnection, query: Executable) -> Sequence[Row[Any]]:
    """Return all rows of a query."""
    return (await connection.execute(query)).all()


async def fetch_row(connection: AsyncConnection, query: Executable) -> Row[Any] | None:
    """Return the one row of a query, or None."""
    return (await connection.execute(query)).one_or_none()


async def hold(connection: AsyncConnection, table: Table, rows: Iterable[int]) -> None:
    """Lock rows until the transaction ends, in the order in which everybody does.

    Activities come before operations, operations before devices and tokens: otherwise two transactions
    wait for each other in a circle. SQLite has one writer at a time anyway.
    """
    wanted = set(rows)
    if wanted and connection.dialect.name == "postgresql":
        query = select(table.c.id).where(table.c.id.in_(wanted)).order_by(table.c.id)
        await connection.execute(query.with_for_update(key_share=True))


def chunks(items: Iterable[Item], size: int = CHUNK) -> Iterator[list[Item]]:
    """Cut a sequence into lists of at most ``size`` items."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
