"""The two databases that every store test runs on: a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from apns_live.activities.store.database import Database
from apns_live.activities.store.upgrade import newest_version, upgrade
from tests.postgres import postgres

Result = TypeVar("Result")
_TEMPLATE = "template_store"
_EMPTY = """
DO $$
DECLARE one record; filled boolean;
BEGIN
    IF EXISTS (SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid())
    OR EXISTS (SELECT FROM pg_statistic WHERE starelid >= 16384)
    OR pg_database_size(current_database()) > 20000000
    OR (SELECT version_num FROM alembic_version) <> 'NEWEST'
    THEN RAISE EXCEPTION 'not as new'; END IF;
    SET LOCAL session_replication_role = replica;
    FOR one IN SELECT tablename AS name FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', one.name) INTO filled;
        -- A few rows are quicker deleted; a table of several pages would stay that large.
        IF pg_relation_size(one.name::regclass) > 8192 THEN
            EXECUTE format('TRUNCATE %I CASCADE', one.name);
        ELSIF filled THEN
            EXECUTE format('DELETE FROM %I', one.name);
        END IF;
    END LOOP;
    FOR one IN SELECT sequencename AS name FROM pg_sequences WHERE last_value IS NOT NULL
    LOOP PERFORM setval(format('%I', one.name)::regclass, 1, false); END LOOP;
END $$
"""
"""Empties a small database; refuses one that somebody is still connected to, that has statistics, or
that a test has made older or newer."""


class Server:
    """A PostgreSQL server of our own, and the databases in it.

    To each database that tests share, one connection stays open: its first statements would cost
    several times what they cost later.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._numbers = itertools.count(1)
        self._spare: list[str] = []
        self._kept: dict[str, asyncpg.Connection[Any]] = {}
        self._migrated = False
        self._run(self._configure())

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Close what is open. The server goes on."""

        async def close() -> None:
            for connection in self._kept.values():
                await connection.close()

        self._run(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _connected(self, address: str) -> asyncpg.Connection[Any]:
        connection = self._kept.get(address)
        if connection is None or connection.is_closed():
            connection = self._kept[address] = await asyncpg.connect(address)
        return connection

    async def _configure(self) -> None:
        """Do not wait for the disk: a test's data need not outlive the machine."""
        connection = await self._connected(self.address)
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            await connection.execute(f"ALTER SYSTEM SET {name} = off")
        # Else what a test reads would depend on when it last looked at its tables.
        await connection.execute("ALTER SYSTEM SET autovacuum = off")
        await connection.execute("SELECT pg_reload_conf()")

    def create(self, name: str, *, newest: bool = False) -> str:
        """Make a database, of the newest version or empty; return its address."""
        if newest and not self._migrated:
            self._run(_upgraded(self.create(_TEMPLATE)))
            self._migrated = True

        async def make() -> None:
            connection = await self._connected(self.address)
            template = _TEMPLATE if newest else "template0"
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

        self._run(make())
        return urlunsplit(urlsplit(self.address)._replace(path=f"/{name}"))

    def configure(self, address: str, statement: str) -> None:
        """Run a statement in a database."""

        async def run() -> None:
            await (await self._connected(address)).execute(statement)

        self._run(run())

    def borrow(self) -> str:
        """Return a database of the newest version without rows: copying one takes a tenth of a second."""
        if self._spare:
            return self._spare.pop()
        return self.create(f"test_{next(self._numbers)}", newest=True)

    def give_back(self, address: str) -> None:
        """Empty a test's database for the next one, or remove it."""

        async def empty() -> None:
            connection = await self._connected(address)
            await connection.execute(_EMPTY.replace("NEWEST", newest_version()))

        try:
            self._run(empty())
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            self.drop(address)
        else:
            self._spare.append(address)

    def drop(self, address: str) -> None:
        """Remove a test's database: some thousand copies would fill a small disk."""

        async def drop() -> None:
            if kept := self._kept.pop(address, None):
                await kept.close()
            name = urlsplit(address).path.removeprefix("/")
            connection = await self._connected(self.address)
            await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

        self._run(drop())


async def _upgraded(place: str | Path) -> None:
    async with Database.open(place) as database:
        await upgrade(database)


# The session's fixtures stand in tests/conftest.py, so that there is one of each for all rooms.


@contextlib.contextmanager
def one_server(factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with its data below pytest's folder."""
    base = factory.getbasetemp()
    # Workers of pytest-xdist have their folders side by side.
    runtime = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with postgres(factory.mktemp("postgres") / "data", runtime=runtime) as address:
        server = Server(address)
        yield server
        server.close()


def one_file(factory: pytest.TempPathFactory) -> Path:
    """Make a SQLite database of the newest version, to be copied."""
    path = factory.mktemp("sqlite") / "template.db"
    with ThreadPoolExecutor(1) as executor:  # the test's loop may be running already
        executor.submit(asyncio.run, _upgraded(path)).result()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database that nobody has set up yet."""
    if request.param == "sqlite":
        async with Database.open(tmp_path / "empty.db") as database:
            yield database
        return
    server: Server = request.getfixturevalue("postgres_server")
    address = server.create("empty")
    async with Database.open(address) as database:
        yield database
    server.drop(address)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Which of the two databases."""
    return request.param


@pytest.fixture
def store_address(store_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database of the newest version, for this test alone."""
    if store_kind == "sqlite":
        path = tmp_path / "store.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: Server = request.getfixturevalue("postgres_server")
    address = server.borrow()
    yield address
    server.give_back(address)


@pytest.fixture
def postgres_store(postgres_server: Server) -> Iterator[str]:
    """The address of a PostgreSQL database of the newest version, for this test alone."""
    address = postgres_server.borrow()
    yield address
    postgres_server.give_back(address)


@pytest.fixture
async def database(store_address: str) -> AsyncIterator[Database]:
    """A database of the newest version, for this test alone."""
    async with Database.open(store_address) as database:
        yield database
