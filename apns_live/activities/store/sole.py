"""One courier at a time: two over one database would both send what is unfinished.

The lock ends with its process, however that ends. On SQLite it is a lock of the operating system on
a file beside the database (so the file system must have such locks: not every network share does);
on PostgreSQL an advisory lock of a connection that is held open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import Conflict
from .database import Database

try:
    import fcntl
except ImportError:  # Windows; there the database is served without this guard
    fcntl = None  # type: ignore[assignment]

PATIENCE = 5.0
"""Seconds that a process which was just killed may take to be gone."""
_BETWEEN = 0.05
_KEY = 0x61706E736C697665  # "apnslive"; advisory locks are of one database


@asynccontextmanager
async def sole(database: Database, *, patience: float = PATIENCE) -> AsyncIterator[None]:
    """Be the only one that sends for a database, within the block.

    Waits up to ``patience`` seconds, of the machine's time, for an earlier one to go. Raises
    `Conflict` if it stays, and `StoreError` when the database cannot be reached.
    """
    if not database.is_sqlite:
        async with database.own_connection() as connection:
            await _try(database, lambda: _take_advisory(connection), patience)
            yield
        return
    if fcntl is None:
        yield
        return
    with _lock_file(database).open("a") as file:
        await _try(database, lambda: _take_file(file), patience)
        yield


def _lock_file(database: Database) -> Path:
    path = Path(database.url.database or "").resolve()
    return path.with_name(path.name + "-serving")


async def _take_file(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _take_advisory(connection: AsyncConnection) -> bool:
    taken = await connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _KEY})
    return bool(taken)


async def _try(database: Database, take: Callable[[], Awaitable[bool]], patience: float) -> None:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    while not await take():
        if loop.time() >= give_up:
            raise Conflict(
                f"another service sends for {database!r} already: end it first, or let all callers "
                "share one. Two would send everything twice"
            )
        await asyncio.sleep(_BETWEEN)
