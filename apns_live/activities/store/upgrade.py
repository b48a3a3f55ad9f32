"""Bring a database to this version's schema, and refuse to work on any other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from ...errors import StoreError
from .database import Database

_KEY = 0x61706E736C757067  # "apnslupg"; advisory locks are of one database


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def newest_version() -> str:
    """Return the version that this code works with."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


async def current_version(database: Database) -> str:
    """Return the version of a database; empty for a new one."""
    async with database.read() as connection:
        return await connection.run_sync(_revision)


def _revision(connection: Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or ""


async def upgrade(database: Database) -> str:
    """Run the migrations that are missing, in one transaction; return the version reached.

    Of several that do it at the same moment one does it, and the others wait for that. Raises `StoreError` when the database is newer than this code.
    """
    async with _patient(database) as patient, patient.write() as connection:
        if not database.is_sqlite:  # there a transaction that writes is alone anyway
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _KEY})
        before = await connection.run_sync(_revision)
        _check_known(database, before)
        await connection.run_sync(lambda sync: command.upgrade(_config(sync), "head"))
    return newest_version()


def _check_known(database: Database, version: str) -> None:
    """Raise `StoreError` for a version of a newer release."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    if version and version not in {script.revision for script in scripts}:
        raise StoreError(
            f"{database!r} is of version {version}, which this release does not know: "
            "it was upgraded by a newer one; install that release"
        )


@asynccontextmanager
async def _patient(database: Database) -> AsyncIterator[Database]:
    """Give a database for work that may take minutes, such as an index over many rows."""
    if database.is_sqlite:  # it has one writer, and no timeout of a statement
        yield database
        return
    async with Database.open(
        database.url.render_as_string(hide_password=False), pool_size=1, timeout=None
    ) as patient:
        yield patient


async def check(database: Database) -> None:
    """Raise `StoreError` unless the database is of exactly this code's version."""
    version = await current_version(database)
    if version != newest_version():
        _check_known(database, version)
        found = f"of version {version}" if version else "not set up"
        raise StoreError(
            f"{database!r} is {found}, and this release needs {newest_version()}: "
            "run `apns-live store upgrade`"
        )
