"""Connections to the database, with one interface for SQLite and PostgreSQL.

SQLite allows one writer at a time. Writes use one connection that begins with ``BEGIN IMMEDIATE``, so
that a transaction that reads first cannot fail later with "database is locked". Reads use other
connections, which WAL allows in parallel. PostgreSQL uses one pool for both.

Only this module and `store.failures` raise `StoreError` (the database cannot be used) and `Busy` (try
again later). Other errors of a statement are passed on.
"""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Executable, Row, event, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from ...errors import InvalidSetting, StoreError
from .failures import Outage, explained
from .one_hop import connect

Synchronous = Literal["NORMAL", "FULL"]
_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
TIMEOUT = 10.0
"""Maximum seconds for a statement, a lock, or a free connection."""
IDLE_TIMEOUT = 3.0
"""Seconds for which a process may keep an idle transaction. After that a stopped process no longer holds rows and leases.
"""
_CONNECT_TIMEOUT = 5.0
_FOR_EVER = 3_600.0
_GRACE = 1.0
"""Seconds after which the client gives up on a server that ignores its own timeout."""
_LOG_PAGES = 10_000
"""Pages of SQLite's write-ahead log (40 MB) at which a commit copies the rest of it and restarts it."""
_WRITER_CACHE_KIB, _READER_CACHE_KIB = 8_192, 2_048
"""Pages in an SQLite connection's cache. There are several, and the system caches the file too."""


class Database:
    """The database of the service. Open it with `Database.open`, close it with `aclose`."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine, url: URL) -> None:
        self._writer = writer
        self._reader = reader
        self._url = url
        self._one_writer = asyncio.Lock() if self.is_sqlite else None
        once = {} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        self._once = reader.execution_options(**once)
        self._closed = False
        self.outage = Outage()

    @classmethod
    def open(
        cls,
        url: str | Path,
        *,
        synchronous: Synchronous = "NORMAL",
        pool_size: int = 8,
        timeout: float | None = TIMEOUT,
    ) -> Database:
        """Return a database for a file's path or a URL. It connects on first use.

        ``synchronous`` is SQLite's: NORMAL survives a killed process, FULL also a power cut.
        ``timeout`` is the limit in seconds for a statement, a lock or a free connection; None for
        no limit. Add ``transaction_pooling=1`` to the URL for PgBouncer in transaction mode; the
        server then cannot enforce the limits, only this process does. Raises `InvalidSetting` for
        a URL of another kind of database, and `StoreError` if the file's folder does not exist.
        """
        parsed = _parse(url)
        if parsed.get_backend_name() == "postgresql":
            engine = _postgres_engine(parsed, pool_size, timeout)
            return cls(engine, engine, parsed)
        folder = Path(parsed.database or "").resolve().parent
        if not folder.is_dir():
            raise StoreError(f"{folder} is not a folder: create it, or give another path")
        writer = _sqlite_engine(parsed, synchronous, "BEGIN IMMEDIATE", 1, timeout)
        return cls(writer, _sqlite_engine(parsed, synchronous, "BEGIN", pool_size, timeout), parsed)

    def __repr__(self) -> str:
        return f"Database({self._url.render_as_string(hide_password=True)!r})"

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite; PostgreSQL otherwise."""
        return self._url.get_backend_name() == "sqlite"

    @property
    def transaction_pooling(self) -> bool:
        """Whether connections use a pooler in transaction mode, where LISTEN fails."""
        return self._url.query.get("transaction_pooling") == "1"

    @property
    def url(self) -> URL:
        """The address with its password; do not log it."""
        return self._url

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction; commit it at the end, or roll it back on an error.

        Raises `Busy` if nothing was stored and a repetition may succeed, and `StoreError`.
        """
        committing = False
        try:
            # The lock queues writers in order; the pool of one connection would time out instead.
            async with self._one_writer or nullcontext(), self._lent(self._writer) as connection:
                await connection.begin()
                yield connection
                committing = True
                await connection.commit()
                self.outage.works()
        except (SQLAlchemyError, OSError) as error:
            raise explained(error, self, committing=committing) from error

    @asynccontextmanager
    async def read(self, *, once: bool = False) -> AsyncIterator[AsyncConnection]:
        """Open a read-only transaction on a snapshot. Raises as `write`.

        ``once`` means that you run only one statement, which needs no transaction on PostgreSQL.
        """
        try:
            async with self._lent(self._once if once else self._reader) as connection:
                yield connection
                self.outage.works()
        except (SQLAlchemyError, OSError) as error:
            raise explained(error, self) from error

    async def rows(self, query: Executable) -> Sequence[Row[Any]]:
        """Read rows by one statement. Raises as `write`."""
        async with self.read(once=True) as connection:
            return (await connection.execute(query)).all()

    async def row(self, query: Executable, values: Any = None) -> Row[Any] | None:
        """Read one row, or None. Raises as `write`."""
        async with self.read(once=True) as connection:
            return (await connection.execute(query, values)).one_or_none()

    async def scalar(self, query: Executable) -> Any:
        """Read the first column of the first row, or None. Raises as `write`."""
        async with self.read(once=True) as connection:
            return (await connection.execute(query)).scalar()

    async def change(self, statement: Executable, values: Any = None) -> int:
        """Run one statement in its own transaction; return how many rows it changed.

        ``values`` is the row, or a list of rows, to bind.
        """
        async with self.write() as connection:
            return (await connection.execute(statement, values)).rowcount

    async def checkpoint(self) -> None:
        """Copy SQLite's write-ahead log into the file, in parallel with readers and writers.

        Otherwise one commit in forty would wait for the disk, with all writes that share it. Raises
        as `read`.
        """
        async with self.read(once=True) as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.visit(
                lambda file: file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            )

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in autocommit mode, and close it at the end."""
        try:
            async with self._writer.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                try:
                    yield connection
                finally:
                    await connection.invalidate()
        except (SQLAlchemyError, OSError) as error:
            raise explained(error, self) from error

    @asynccontextmanager
    async def _lent(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        async with engine.connect() as connection:
            try:
                yield connection
            except TimeoutError:
                await connection.invalidate()  # a rollback would wait for the same answer
                raise
            finally:
                if self._closed:
                    await connection.invalidate()  # it came from a pool that no longer exists

    async def aclose(self) -> None:
        """Close all connections; one in use is closed when its transaction ends."""
        self._closed = True
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _parse(url: str | Path) -> URL:
    address = str(url)
    if "://" not in address:
        address = f"sqlite:///{address}"
    try:
        parsed = make_url(address)
    except ArgumentError:
        raise InvalidSetting(
            "is not the address of a database",
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


def _postgres_engine(url: URL, size: int, timeout: float | None) -> AsyncEngine:
    pooled = url.query.get("transaction_pooling") == "1"
    url = url.difference_update_query(["transaction_pooling"])
    options: dict[str, Any] = {"timeout": _CONNECT_TIMEOUT}
    if pooled:
        # Another client's connection may serve the next transaction, so names must be unique.
        options["statement_cache_size"] = 0
        options["prepared_statement_name_func"] = lambda: f"__apns_live_{uuid.uuid4()}__"
    if timeout is not None:
        options["command_timeout"] = timeout + _GRACE
        if not pooled:
            milliseconds = str(int(timeout * 1000))
            options["server_settings"] = {
                # Every process has a few cores' worth of statements. For one of some milliseconds,
                # starting parallel workers or a compiler costs more than the statement.
                "max_parallel_workers_per_gather": "0",
                "jit": "off",
                "statement_timeout": milliseconds,
                "lock_timeout": milliseconds,
                "idle_in_transaction_session_timeout": str(int(min(timeout, IDLE_TIMEOUT) * 1000)),
            }
    engine = create_async_engine(
        url,
        connect_args=options,
        pool_size=size,
        pool_timeout=timeout or _FOR_EVER,
        pool_use_lifo=True,  # a connection prepares each statement once: few shall be in use
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "checkout")
    def replace_closed(connection: Any, *_: object) -> None:
        # A server that stops or restarts reports it; asking it each time would cost three round
        # trips.
        if connection.driver_connection.is_closed():
            raise DisconnectionError

    return engine


def _sqlite_engine(
    url: URL, synchronous: Synchronous, begin: str, size: int, timeout: float | None
) -> AsyncEngine:
    cache_kib = _WRITER_CACHE_KIB if begin == "BEGIN IMMEDIATE" else _READER_CACHE_KIB
    settings = (
        f"busy_timeout = {int((timeout or _FOR_EVER) * 1000)}",
        "journal_mode = WAL",
        f"synchronous = {synchronous}",
        f"wal_autocheckpoint = {_LOG_PAGES}",
        "foreign_keys = ON",
        f"cache_size = -{cache_kib}",
        "temp_store = MEMORY",
    )
    place, options = url.get_dialect()().create_connect_args(url)
    # The driver's own BEGIN comes too late; transactions are started below instead.
    options = {**options, "isolation_level": None, "settings": settings}
    engine = create_async_engine(
        url,
        async_creator=functools.partial(connect, *place, **options),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=timeout or _FOR_EVER,
        pool_use_lifo=True,  # few are busy at once; idle ones need no full cache
        hide_parameters=True,  # they include tokens, and errors are logged
    )

    @event.listens_for(engine.sync_engine, "begin")
    def begin_explicitly(connection: Connection) -> None:
        if begin == "BEGIN":
            driver: Any = connection.connection.driver_connection
            driver.begin_with_next(begin)
        else:  # at once, so that a writer waits for another process before its work
            connection.exec_driver_sql(begin)

    return engine


FIRST_LOOK = 1_000
"""Rows after which a writer checks for the first time; then at twice as many, and so on."""
TABLES = ("devices", "start_tokens", "device_tokens", "activity_devices", "users", "attributes")
# relpages is the planner's last known size; a fresh table has 0 there.
_OUTGROWN = text(
    "SELECT relname FROM pg_class "
    "WHERE oid = to_regclass(relname) AND relname = ANY(:names) "
    "AND pg_relation_size(oid) > 2 * 8192 * relpages + 8192"
)


class Growth:
    """Counts rows that a writer stored, and runs ANALYZE on tables that have doubled.

    Autovacuum updates PostgreSQL's statistics once a minute. Until then the planner takes a table
    that has just grown to 100,000 rows for empty, and every batch of registrations scans it all.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stored = 0
        self._next = FIRST_LOOK

    async def stored(self, rows: int) -> None:
        """Report stored rows. Call it outside a transaction."""
        self._stored += rows
        if self._database.is_sqlite or self._stored < self._next:
            return
        while self._next <= self._stored:
            self._next *= 2
        await analyse_outgrown(self._database)


async def analyse_outgrown(database: Database) -> list[str]:
    """Run ANALYZE on tables that have doubled since the last ANALYZE; return their names."""
    async with database.read() as connection:
        found = (await connection.execute(_OUTGROWN, {"names": list(TABLES)})).scalars().all()
    names = sorted(found)
    for name in names:
        async with database.write() as connection:
            await connection.exec_driver_sql(f"ANALYZE {name}")
    return names
