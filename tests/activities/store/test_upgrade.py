"""Upgrading: which versions a release works on, several at once, beside others' work, and killed half-way."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import text

from apns_live.activities.store import upgrade as upgrading
from apns_live.activities.store.database import Database
from apns_live.activities.store.upgrade import (
    OLDEST,
    check,
    current_version,
    missing,
    newest_version,
    upgrade,
)
from apns_live.errors import StoreError

NO_IDLE_LIMIT = text("SET LOCAL idle_in_transaction_session_timeout = 0")
"""Lets an idle transaction hold the lock: on a busy machine the other one may take seconds to look for it."""
UPGRADER = """
import asyncio, sys
from apns_live.activities.store.database import Database
from apns_live.activities.store.upgrade import upgrade

async def main():
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    async with Database.open(sys.argv[1]) as database:
        print(await upgrade(database), flush=True)

asyncio.run(main())
"""
BEFORE = "0006_0005"
INDEX = "ix_outcomes_device_id_id"
AN_OUTCOME = text(
    "INSERT INTO outcomes (app_id, operation_id, device_id, verdict, status, reason, apns_id, "
    "priority, created_at) VALUES (1, 1, 1, 'accepted', 200, '', '', 5, 1)"
)


async def upgrader(address: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", UPGRADER, address, stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


def address_of(database: Database) -> str:
    return database.url.render_as_string(hide_password=False)


async def at(database: Database, version: str) -> None:
    async with database.write() as connection:
        await connection.run_sync(upgrading._migrate, version)


async def running(database: Database, query: str) -> list[int]:
    """Return the processes of the server that run a query of this kind, once there are any."""
    asked = text(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND query LIKE :query"
    )
    while True:
        async with database.read() as connection:
            if found := list(await connection.scalars(asked, {"query": query})):
                return found


async def is_valid(database: Database) -> bool | None:
    async with database.read() as connection:
        return await connection.scalar(upgrading._IS_VALID, {"name": INDEX})


@pytest.fixture
async def before(empty_database: Database) -> Database:
    """A database of the schema that the index was not in yet."""
    await at(empty_database, BEFORE)
    return empty_database


on_postgresql = pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)


@pytest.mark.parametrize(
    ("empty_database", "version"),
    [("sqlite", ""), ("postgresql", "0005")],
    indirect=["empty_database"],
)
async def test_processes_that_upgrade_at_once_all_succeed(
    empty_database: Database, version: str
) -> None:
    if version:
        await at(empty_database, version)
    processes = [await upgrader(address_of(empty_database)) for _ in range(2)]
    said = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [
        (process.returncode, err) for process, (_, err) in zip(processes, said, strict=True)
    ] == [(0, b"")] * 2
    assert {out.decode().strip() for out, _ in said} == {newest_version()}
    await check(empty_database)


@on_postgresql
async def test_whoever_comes_second_waits_for_the_first(empty_database: Database) -> None:
    async with empty_database.write() as holder:
        assert await holder.scalar(upgrading._TRY_LOCK)
        await holder.execute(NO_IDLE_LIMIT)  # what is looked for below is the other one's
        waiting = asyncio.ensure_future(upgrade(empty_database))
        await running(empty_database, "%pg_try_advisory_xact_lock%")
        assert not waiting.done()
    assert await waiting == newest_version()


@on_postgresql
async def test_whoever_waits_ends_its_transaction_between_two_looks(
    empty_database: Database,
) -> None:
    """An index that the first builds concurrently may wait for it: then each would wait for the other."""
    transactions = text(
        "SELECT l.virtualtransaction FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
        "WHERE l.locktype = 'virtualxid' AND a.query LIKE '%pg_try_advisory_xact_lock%' "
        "AND pid <> pg_backend_pid()"
    )
    async with empty_database.write() as holder:
        assert await holder.scalar(upgrading._TRY_LOCK)
        await holder.execute(NO_IDLE_LIMIT)  # what is looked for below is the other one's
        waiting = asyncio.ensure_future(upgrade(empty_database))
        seen: set[str] = set()
        async with asyncio.timeout(60):
            while len(seen) < 2:
                async with empty_database.read() as connection:
                    seen |= set(await connection.scalars(transactions))
        assert not waiting.done()
    assert await waiting == newest_version()


@on_postgresql
async def test_others_write_while_an_index_is_built_and_a_kill_only_delays_it(
    before: Database,
) -> None:
    async with before.write() as long:
        await long.execute(AN_OUTCOME)  # the index waits for this transaction
        process = await upgrader(address_of(before))
        assert process.stdin is not None
        process.stdin.write(b"\n")
        builders = await running(before, "CREATE INDEX CONCURRENTLY%")
        assert await before.change(AN_OUTCOME) == 1
        process.kill()
        await process.wait()
        for each in builders:  # the server would go on by itself
            await before.scalar(text("SELECT pg_terminate_backend(:pid)").bindparams(pid=each))
        while await before.scalar(
            text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid").bindparams(
                pid=builders[0]
            )
        ):
            pass
    assert (await current_version(before), await is_valid(before)) == (BEFORE, False)
    assert await upgrade(before) == newest_version()
    assert await is_valid(before)


@on_postgresql
async def test_a_migration_waits_for_locks_in_short_turns(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await at(empty_database, "0003")  # the next one changes activities
    monkeypatch.setattr(upgrading, "LOCK_TIMEOUT", 0.01)
    look = text("SELECT count(*) FROM activities")
    async with empty_database.write() as reader:
        await reader.execute(look)
        with monkeypatch.context() as impatient:
            impatient.setattr(upgrading, "PATIENCE", 0.0)
            with pytest.raises(StoreError) as refused:
                await upgrade(empty_database)
        assert "version 0004 needs a lock" in str(refused.value)
        assert "pg_stat_activity" in str(refused.value)
        waiting = asyncio.ensure_future(upgrade(empty_database))
        await running(empty_database, "ALTER TABLE activities%")
        # It gives way: others would wait for ever behind one that waits for the reader.
        assert await empty_database.scalar(look) == 0
        assert not waiting.done()
    assert await waiting == newest_version()


async def test_what_is_missing_is_said_beforehand(before: Database) -> None:
    step = (await missing(before))[0]
    assert step.version > BEFORE
    assert step.does.startswith("Indexes: outcomes by device")
    beside = "" if before.is_sqlite else "CONCURRENTLY "
    made = f"CREATE INDEX {beside}IF NOT EXISTS {INDEX} ON outcomes (device_id, id)"
    assert made in step.statements
    assert await current_version(before) == BEFORE
    await upgrade(before)
    assert await missing(before) == []


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
async def test_which_versions_a_release_works_on(empty_database: Database) -> None:
    await upgrade(empty_database)
    own = newest_version()[:4]
    following, far = f"{int(own) + 1:04}", f"{int(own) + 2:04}"
    for version, usable, known in (
        (f"{int(OLDEST) - 1:04}", False, True),
        (OLDEST, True, True),
        (newest_version(), True, True),
        (f"{following}_{own}", True, True),  # the next release's, beside this one
        (f"{far}_{OLDEST}", True, True),
        (f"{far}_{following}", False, False),
        (following, False, False),
    ):
        renamed = text("UPDATE alembic_version SET version_num = :name").bindparams(name=version)
        await empty_database.change(renamed)
        if usable:
            await check(empty_database)
        else:
            remedy = "run `apns-live store upgrade`" if known else "install that release"
            with pytest.raises(StoreError, match=remedy):
                await check(empty_database)
        if version > newest_version():
            if usable:
                assert await upgrade(empty_database) == version
            else:
                with pytest.raises(StoreError, match="install that release"):
                    await upgrade(empty_database)


ADDS = (
    r"CREATE TABLE \w+ \(.*\)",
    r"CREATE (UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS \w+ ON .*",
    r"ALTER TABLE \w+ ADD COLUMN \w+ (?!.*(REFERENCES|CHECK|UNIQUE))(.* DEFAULT .* NOT NULL|(?!.*NOT NULL).*)",
    r"ALTER TABLE \w+ ADD CONSTRAINT .* NOT VALID",
    r"ALTER TABLE \w+ VALIDATE CONSTRAINT \w+",
)
"""What a release that knows nothing of it does not notice, and what locks nothing for long."""


def only_adds(statements: list[str]) -> list[str]:
    """Return the statements that do more than add, or that lock a table in use for long."""
    made = set(re.findall(r"CREATE TABLE (\w+)", " ".join(statements)))
    found = []
    for statement in statements:
        words = " ".join(statement.split())
        on_new = re.fullmatch(r"CREATE (?:UNIQUE )?INDEX \w+ ON (\w+) .*", words)
        if not (on_new and on_new[1] in made) and not any(re.fullmatch(one, words) for one in ADDS):
            found.append(words)
    return found


def test_migrations_only_add() -> None:
    directory = ScriptDirectory.from_config(upgrading._config())
    after = [one for one in directory.walk_revisions() if one.revision > "0005"]
    steps = [upgrading._step(one, is_sqlite=False, new=False) for one in after]
    assert {step.version: only_adds([*step.statements]) for step in steps} == {
        step.version: [] for step in steps
    }


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE apps DROP COLUMN name",
        "ALTER TABLE apps ADD COLUMN x INTEGER NOT NULL",
        "ALTER TABLE apps ALTER COLUMN name TYPE TEXT",
        "ALTER TABLE apps ADD CONSTRAINT c CHECK (id > 0)",
        "CREATE INDEX i ON apps (id)",
        "UPDATE apps SET name = ''",
    ],
)
def test_what_is_more_than_adding(statement: str) -> None:
    assert only_adds([statement]) == [statement]
