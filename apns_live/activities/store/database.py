"""Connections to the one database, the same to use on SQLite and PostgreSQL.

SQLite takes one writer at a time. So its writes go through one connection that begins with
``BEGIN IMMEDIATE`` (a transaction that reads first and writes later can then never fail half-way
with "database is locked"), and its reads through others, which WAL lets run beside the writer.
PostgreSQL uses one pool for both.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ...errors import InvalidSetting, StoreError
from .one_hop import connect

Synchronous = Literal["NORMAL", "FULL"]
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_BUSY_MILLISECONDS = 30_000
_WRITER_CACHE_KIB, _READER_CACHE_KIB = 8_192, 2_048
"""Pages that a connection to SQLite keeps. There are several, and the system keeps the file's too."""


class Database:
    """The database of the service. Open it with `Database.open`, close it with `aclose`."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine, url: URL) -> None:
        self._writer = writer
        self._reader = reader
        self._url = url
        self._one_writer = asyncio.Lock() if self.is_sqlite else None

    @classmethod
    def open(
        cls, url: str | Path, *, synchronous: Synchronous = "NORMAL", pool_size: int = 8
    ) -> Database:
        """Return a database for a file's path or an URL; connects when it is first used.

        ``synchronous`` is SQLite's: NORMAL survives kill -9, FULL survives a loss of power too.
        Raises `InvalidSetting` for an URL of another kind of database, and `StoreError` for a file
        in a folder that is not there.
        """
        parsed = _parse(url)
        if parsed.get_backend_name() == "postgresql":
            engine = create_async_engine(
                parsed, pool_size=pool_size, pool_pre_ping=True, hide_parameters=True
            )
            return cls(engine, engine, parsed)
        folder = Path(parsed.database or "").resolve().parent
        if not folder.is_dir():
            raise StoreError(f"{folder} is no folder: create it, or give another path")
        writer = _sqlite_engine(parsed, synchronous, "BEGIN IMMEDIATE", 1, _WRITER_CACHE_KIB)
        reader = _sqlite_engine(parsed, synchronous, "BEGIN", pool_size, _READER_CACHE_KIB)
        return cls(writer, reader, parsed)

    def __repr__(self) -> str:
        return f"Database({self._url.render_as_string(hide_password=True)!r})"

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite; PostgreSQL otherwise."""
        return self._url.get_backend_name() == "sqlite"

    @property
    def url(self) -> URL:
        """The address, with its password: not for logs."""
        return self._url

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that may write; committed at the end, rolled back on an error."""
        if self._one_writer is None:
            async with _explained(self), self._writer.begin() as connection:
                yield connection
            return
        # The lock queues writers in order; the pool of one connection would time out instead.
        async with self._one_writer, _explained(self), self._writer.begin() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads, on a snapshot of its own."""
        async with _explained(self), self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection without transactions, for what lives as long as it; then close it."""
        async with _explained(self), self._writer.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            try:
                yield connection
            finally:
                await connection.invalidate()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _parse(url: str | Path) -> URL:
    text = str(url)
    if "://" not in text:
        text = f"sqlite:///{text}"
    try:
        parsed = make_url(text)
    except ArgumentError:
        raise InvalidSetting(
            "is no address of a database",
            field="store",
            remedy="Give a file's path, sqlite:///PATH or postgresql://USER@HOST/NAME.",
        ) from None
    name = parsed.get_backend_name()
    if name == "postgres":
        name = "postgresql"
    if name not in _DRIVERS:
        raise InvalidSetting(
            f"{name} is not supported",
            field="store",
            remedy="Give a file's path, sqlite:///PATH or postgresql://USER@HOST/NAME.",
        )
    if name == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise InvalidSetting(
            "names no file",
            field="store",
            remedy="Give a path: a database in memory would be lost, and each connection has its own.",
        )
    return parsed.set(drivername=_DRIVERS[name])


def _sqlite_engine(
    url: URL, synchronous: Synchronous, begin: str, size: int, cache_kib: int
) -> AsyncEngine:
    place, options = url.get_dialect()().create_connect_args(url)
    engine = create_async_engine(
        url,
        async_creator=functools.partial(connect, *place, **options),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=60,
        pool_use_lifo=True,  # few are busy at once; the others need not fill their caches
        hide_parameters=True,  # they are tokens, and errors go into logs
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: object) -> None:
        # The driver's own BEGIN comes too late; transactions are begun below instead.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA synchronous = {synchronous}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA cache_size = -{cache_kib}")
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin_explicitly(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


@asynccontextmanager
async def _explained(database: Database) -> AsyncIterator[None]:
    """Turn "cannot connect" into an error of ours; errors of single statements pass as they are."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{database!r} cannot be reached ({error}): check the address") from error
