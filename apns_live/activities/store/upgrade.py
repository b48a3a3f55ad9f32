"""Migrates a database to this release's schema, and refuses an unsupported schema.

A version is a number, and behind it the oldest version whose release works on that schema: the
schema of ``0007_0005`` also serves the release of version 0005. So two releases may run side by
side on one database. A version without the second number serves its own release alone.

Migrations only add columns and tables. A later release drops what this one no longer uses. On
PostgreSQL other processes continue to work during an upgrade. Each migration is a transaction of
its own that waits for locks for two seconds and is tried again, and indexes are built concurrently,
outside of it. An upgrade that was killed continues where it stopped.
"""

import asyncio
import functools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import Script, ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection

from ...errors import Busy, StoreError
from .database import Database

OLDEST = "0010"
"""The number of the oldest version that this code supports. A migration that only builds indexes keeps it."""
PATIENCE = 120.0
"""Seconds for which a migration is retried while other processes hold its locks."""
LOCK_TIMEOUT = 2.0
"""Seconds that a migration waits for a lock: later requests for the lock wait behind it."""
_BETWEEN = 0.2
# "apnslupg"; advisory locks belong to one database.
_TRY_LOCK = text(f"SELECT pg_try_advisory_xact_lock({0x61706E736C757067})")
_NO_SNAPSHOT = text("SET LOCAL lock_timeout = 0")
_IS_VALID = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")


class Step(NamedTuple):
    """A missing migration."""

    version: str
    does: str
    statements: tuple[str, ...]
    indexes: tuple[str, ...]
    """Indexes to build without blocking writers, as ``NAME ON TABLE (COLUMNS)``; then it does nothing else.
    """


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


@functools.cache
def newest_version() -> str:
    """Return the version that this code upgrades to."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


async def current_version(database: Database) -> str:
    """Return the version of a database; empty for a new one."""
    if database.is_sqlite and not os.path.exists(database.url.database or ""):  # noqa: ASYNC240, PTH110
        return ""  # connecting would create the file
    async with database.read() as connection:
        return await connection.run_sync(_revision)


def _revision(connection: Connection) -> str:
    return MigrationContext.configure(connection).get_current_revision() or ""


async def check(database: Database) -> None:
    """Raise `StoreError` unless this code supports the database's version."""
    version = await current_version(database)
    _check_known(database, version)
    if version < OLDEST:
        found = f"of version {version}" if version else "not set up"
        raise StoreError(
            f"{database!r} is {found}, and this release works from {OLDEST} on: "
            "run `apns-live store upgrade`"
        )


def _check_known(database: Database, version: str) -> None:
    """Raise `StoreError` for a newer release's version that does not support this one."""
    newest, (_, _, oldest) = newest_version(), version.rpartition("_")
    if version[:4] > newest[:4] and oldest > newest[:4]:
        raise StoreError(
            f"{database!r} is of version {version}, which this release does not know: "
            "it was upgraded by a newer one; install that release"
        )


async def missing(database: Database) -> list[Step]:
    """Return the migrations that `upgrade` would run; none on a newer version. Raises as `upgrade`."""
    before = await current_version(database)
    _check_known(database, before)
    directory = ScriptDirectory.from_config(_config())
    scripts = [one for one in directory.walk_revisions() if one.revision > before]
    return [_step(script, database.is_sqlite, new=not before) for script in reversed(scripts)]


def _step(script: Script, is_sqlite: bool, *, new: bool) -> Step:
    indexes: tuple[str, ...] = getattr(script.module, "indexes", ())
    if is_sqlite or new:
        indexes = ()
    said = StringIO()
    context = MigrationContext.configure(
        dialect_name="sqlite" if is_sqlite else "postgresql",
        opts={"as_sql": True, "literal_binds": True, "output_buffer": said},
    )
    with Operations.context(context):
        script.module.upgrade()
    statements = [one.strip() for one in said.getvalue().split(";\n")]
    if indexes:
        statements = [_CONCURRENTLY + one for one in indexes]
    return Step(script.revision, script.doc, tuple(filter(None, statements)), indexes)


_CONCURRENTLY = "CREATE INDEX CONCURRENTLY IF NOT EXISTS "


async def upgrade(database: Database) -> str:
    """Run the missing migrations; return the version reached.

    Of several concurrent callers one runs them, and the others wait. Raises `StoreError` if the
    database is newer than this code and does not support it, or if others held a lock for
    `PATIENCE` seconds.
    """
    async with _alone(database) as patient:
        if patient.is_sqlite or not await current_version(patient):
            async with patient.write() as connection:  # all or nothing: no other process uses it
                version = await connection.run_sync(_revision)
                _check_known(database, version)
                if version < newest_version():
                    await connection.run_sync(_migrate, "head")
        else:
            for step in await missing(patient):
                await _take(patient, step)
        return await current_version(patient)


def _migrate(connection: Connection, version: str) -> None:
    command.upgrade(_config(connection), version)


def _stamp(connection: Connection, version: str) -> None:
    command.stamp(_config(connection), version)


async def _take(patient: Database, step: Step) -> None:
    """Run one migration while others work; continue one that was killed."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + PATIENCE
    while True:
        try:
            for index in step.indexes:
                await _build(patient, index)
            async with patient.write() as connection:
                await connection.execute(
                    text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT * 1000:.0f}")
                )
                # Its indexes exist: running it would lock their table again.
                await connection.run_sync(_stamp if step.indexes else _migrate, step.version)
        except Busy as error:
            if loop.time() >= give_up:
                raise StoreError(
                    f"version {step.version} needs a lock that others have held for {PATIENCE:.0f} s ({error}): "
                    "end the long transactions (pg_stat_activity names them) and run it again"
                ) from error
            await asyncio.sleep(_BETWEEN)
        else:
            return


async def _build(patient: Database, index: str) -> None:
    """Build an index without blocking writers. A half-built one is dropped first."""
    name = index.split(maxsplit=1)[0]
    async with patient.own_connection() as connection:
        if (valid := await connection.scalar(_IS_VALID, {"name": name})) is False:
            await connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))
        if not valid:
            await connection.execute(text(_CONCURRENTLY + index))


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[Database]:
    """Yield a database for work that may take minutes, once no other process upgrades it."""
    if database.is_sqlite:  # it has one writer, and no statement timeout
        yield database
        return
    address = database.url.render_as_string(hide_password=False)
    async with Database.open(address, pool_size=2, timeout=None) as patient:
        while True:
            async with patient.write() as holder:
                if await holder.scalar(_TRY_LOCK):
                    # A concurrent index build waits for every older snapshot. The answered SELECT
                    # releases its own at the next statement.
                    await holder.execute(_NO_SNAPSHOT)
                    yield patient
                    return
            # Outside the transaction: an index build waits for the end of a transaction that had a
            # snapshot.
            await asyncio.sleep(_BETWEEN)
