"""The two databases that every store test runs on: a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
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
_numbers = itertools.count(1)
_spare: dict[str, list[str]] = {}
"""Databases of a server that a test has used and that are empty again."""
_EMPTY = """
DO $$
DECLARE one record; filled boolean;
BEGIN
    IF EXISTS (SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid())
    OR EXISTS (SELECT FROM pg_stats WHERE schemaname = 'public')
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


@pytest.fixture(scope="session")
def postgres_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own, with its data below pytest's folder."""
    base = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist have their folders side by side.
    runtime = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with postgres(tmp_path_factory.mktemp("postgres") / "data", runtime=runtime) as address:
        _run(_configure(address))
        yield address


async def _configure(server: str) -> None:
    """Do not wait for the disk: a test's data need not outlive the machine."""
    connection = await asyncpg.connect(server)
    try:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            await connection.execute(f"ALTER SYSTEM SET {name} = off")
        # Else what a test reads would depend on when it last looked at its tables.
        await connection.execute("ALTER SYSTEM SET autovacuum = off")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgres_template(postgres_address: str) -> str:
    """The name of a database of the newest version, to be copied: quicker than to migrate each."""

    async def make() -> None:
        async with Database.open(await _create(postgres_address, "template_store")) as database:
            await upgrade(database)

    _run(make())
    return "template_store"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of the newest version, to be copied."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"

    async def make() -> None:
        async with Database.open(path) as database:
            await upgrade(database)

    _run(make())
    return path


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run on a loop of its own in a thread: the test's loop may be running already."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, work).result()


async def _create(server: str, name: str, template: str = "template0") -> str:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    finally:
        await connection.close()
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


async def _borrow(server: str, template: str) -> str:
    """Return a database of the newest version without rows: copying one takes a tenth of a second."""
    spare = _spare.setdefault(server, [])
    return spare.pop() if spare else await _create(server, f"test_{next(_numbers)}", template)


async def _give_back(server: str, address: str) -> None:
    """Empty a test's database for the next one, or remove it."""
    try:
        connection = await asyncpg.connect(address)
        try:
            await connection.execute(_EMPTY.replace("NEWEST", newest_version()))
        finally:
            await connection.close()
    except asyncpg.PostgresError:
        await _drop(server, address)
    else:
        _spare[server].append(address)


async def _drop(server: str, address: str) -> None:
    """Remove a test's database: some thousand copies would fill a small disk."""
    name = urlsplit(address).path.removeprefix("/")
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await connection.close()


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database that nobody has set up yet."""
    address = f"sqlite:///{tmp_path}/empty.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_address")
        address = _run(_create(server, f"empty_{next(_numbers)}"))
    async with Database.open(address) as database:
        yield database
    if request.param == "postgresql":
        _run(_drop(server, address))


@pytest.fixture(params=["sqlite", "postgresql"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Which of the two databases."""
    return request.param


@pytest.fixture
async def store_address(
    store_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[str]:
    """The address of a database of the newest version, for this test alone."""
    if store_kind == "sqlite":
        path = tmp_path / "store.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    template = request.getfixturevalue("postgres_template")
    server = request.getfixturevalue("postgres_address")
    address = _run(_borrow(server, template))
    yield address
    _run(_give_back(server, address))


@pytest.fixture
async def postgres_store(postgres_address: str, postgres_template: str) -> AsyncIterator[str]:
    """The address of a PostgreSQL database of the newest version, for this test alone."""
    address = _run(_borrow(postgres_address, postgres_template))
    yield address
    _run(_give_back(postgres_address, address))


@pytest.fixture
async def database(store_address: str) -> AsyncIterator[Database]:
    """A database of the newest version, for this test alone."""
    async with Database.open(store_address) as database:
        yield database
