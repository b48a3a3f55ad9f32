"""Opening, upgrading and sealing: what the store promises before it holds a row."""

import asyncio
import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, select, text

from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.one_hop import OneHopConnection, connect
from apns_live.activities.store.sealing import FILE_VARIABLE, VARIABLE, Sealer, new_key
from apns_live.activities.store.upgrade import (
    _config,
    check,
    current_version,
    newest_version,
    upgrade,
)
from apns_live.errors import InvalidSetting, StoreError


def an_app(name: str) -> dict[str, object]:
    return {
        "public_id": name,
        "name": name,
        "bundle_id": "com.example.app",
        "environment": "sandbox",
        "created_at": 1,
    }


async def test_a_new_database_is_refused_until_it_is_upgraded(empty_database: Database) -> None:
    with pytest.raises(StoreError, match=r"not set up.*apns-live store upgrade"):
        await check(empty_database)
    assert (
        await upgrade(empty_database) == newest_version() == await current_version(empty_database)
    )
    await check(empty_database)
    assert await upgrade(empty_database) == newest_version()  # a second time changes nothing


async def test_the_migrations_make_exactly_the_schema(database: Database) -> None:
    def differences(sync):
        context = MigrationContext.configure(sync, opts={"compare_type": True})
        return compare_metadata(context, schema.apps.metadata)

    async with database.read() as connection:
        found = await connection.run_sync(differences)
    leaving = [(kind, table, column.name) for kind, _, table, column in found]
    assert leaving == [("remove_column", *one) for one in LEAVING]


LEAVING = [("intended_pages", "unsent")]
"""Columns that only the release before still names: a migration of the next release drops them."""


async def test_what_the_schema_before_holds_lives_on(empty_database: Database) -> None:
    """The newest migration only adds: rows stay, and what the release before wrote still fits."""

    def to(version: str):
        return lambda sync: command.upgrade(_config(sync), version)

    async def tell(device: str) -> None:
        async with empty_database.write() as connection:
            for statement in _BEFORE:
                await connection.execute(text(statement), {"device": device})

    async with empty_database.write() as connection:
        await connection.run_sync(to("0002"))
        await connection.execute(insert(schema.apps), an_app("a"))
        await connection.execute(text(_ON_A_CHANNEL))
    await tell("old")
    assert await upgrade(empty_database) == newest_version()
    await tell("new")
    tokens = schema.start_tokens
    columns = tokens.c.token, tokens.c.unanswered, tokens.c.suspect_at, tokens.c.cleared_at
    found = await empty_database.rows(select(*columns).order_by(tokens.c.id))
    assert [tuple(row) for row in found] == [(name, 0, None, None) for name in ("old", "new")]
    members = schema.activity_devices
    columns = members.c.start_settled_at, members.c.handed_over_at, members.c.by_channel
    found = await empty_database.rows(select(*columns).order_by(members.c.id))
    # Every device followed its activity's channel before; the release before does not say so.
    assert [tuple(row) for row in found] == [(None, None, True), (None, None, False)]


_ON_A_CHANNEL = """
INSERT INTO activities (app_id, public_id, attributes_type, attributes, content_state, status,
    environment, channel_id, created_at, updated_at)
VALUES (1, 'match', 'Match', '{}', '{}', 'active', 'sandbox', 'Y2hhbm5lbA==', 1, 1)
"""
_BEFORE = (
    "INSERT INTO devices (app_id, public_id, created_at, updated_at) VALUES (1, :device, 1, 1)",
    "INSERT INTO start_tokens "
    "(app_id, device_id, attributes_type, environment, token, registered_at) "
    "SELECT 1, id, 'Match', 'sandbox', public_id, 1 FROM devices WHERE public_id = :device",
    "INSERT INTO activity_devices (app_id, activity_id, device_id, started_at, environment) "
    "SELECT 1, 1, id, 1, 'sandbox' FROM devices WHERE public_id = :device",
)
"""How the release of version 0002 wrote a device that was started."""


async def test_a_database_of_a_newer_release_is_refused(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for refuses in (check, upgrade):
        with pytest.raises(StoreError, match=r"9999.*install that release"):
            await refuses(database)


async def test_an_error_rolls_the_whole_transaction_back(database: Database) -> None:
    async def fail_half_way() -> None:
        async with database.write() as connection:
            await connection.execute(insert(schema.apps), an_app("a"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_half_way()
    async with database.read() as connection:
        assert (await connection.execute(select(schema.apps.c.id))).all() == []


async def test_writers_queue_and_readers_do_not_wait(database: Database) -> None:
    async def write(number: int) -> None:
        async with database.write() as connection:
            await connection.execute(select(schema.apps.c.id))
            await connection.execute(insert(schema.apps), an_app(f"app-{number}"))

    async with database.write() as connection:
        await connection.execute(insert(schema.apps), an_app("held"))
        writers = [asyncio.create_task(write(number)) for number in range(20)]
        async with database.read() as reader:
            names = (await reader.execute(select(schema.apps.c.name))).scalars().all()
            assert "held" not in names  # not committed yet, and not waited for
    await asyncio.gather(*writers)
    async with database.read() as reader:
        assert len((await reader.execute(select(schema.apps.c.id))).all()) == 21


async def test_a_read_visits_the_thread_once_and_keeps_its_snapshot(tmp_path: Path) -> None:
    visits = 0

    async def counted(connection: OneHopConnection, work: Callable[..., Any], *given: Any) -> Any:
        nonlocal visits
        visits += 1
        return await execute(connection, work, *given)

    execute = OneHopConnection._execute
    names = select(schema.apps.c.name)
    async with Database.open(tmp_path / "live.db") as database:
        await upgrade(database)
        await database.rows(names)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OneHopConnection, "_execute", counted)
            assert await database.rows(names) == []
            assert visits == 1
        async with database.read() as connection:
            assert (await connection.execute(names)).all() == []
            await database.change(insert(schema.apps).values(an_app("a")))
            assert (await connection.execute(names)).all() == []
        assert await database.rows(names) == [("a",)]


async def test_foreign_keys_hold(database: Database) -> None:
    device = {"app_id": 77, "public_id": "d", "created_at": 1, "updated_at": 1}
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        async with database.write() as connection:
            await connection.execute(insert(schema.devices), device)


@pytest.mark.parametrize(("setting", "expected"), [("NORMAL", 1), ("FULL", 2)])
async def test_sqlite_is_set_up_to_survive(tmp_path: Path, setting: str, expected: int) -> None:
    async with (
        Database.open(tmp_path / "s.db", synchronous=setting) as database,
        database.write() as connection,
    ):
        assert (await connection.exec_driver_sql("PRAGMA synchronous")).scalar() == expected
        assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() == "wal"
        assert (await connection.exec_driver_sql("PRAGMA foreign_keys")).scalar() == 1


async def test_a_writer_that_has_only_read_keeps_other_processes_from_writing(
    tmp_path: Path, sqlite_template: Path
) -> None:
    """BEGIN IMMEDIATE: else its own write would be refused, because what it read is old."""
    path = shutil.copy(sqlite_template, tmp_path / "s.db")
    async with Database.open(path) as database:
        with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            async with database.write() as connection:
                await connection.execute(select(schema.apps.c.id))
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("BEGIN IMMEDIATE")
                await connection.execute(insert(schema.apps), an_app("a"))
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")


async def test_a_cancelled_opening_leaves_no_file_open(tmp_path: Path) -> None:
    closed = threading.Event()

    class Watched(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            closed.set()

    opening = asyncio.create_task(connect(tmp_path / "s.db", factory=Watched))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert await asyncio.to_thread(closed.wait, 10)


def test_a_loop_that_closes_while_a_statement_runs_leaves_no_file_open(tmp_path: Path) -> None:
    """The thread answers a loop that is gone. It must go on and close the file."""
    running, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    class Watched(sqlite3.Connection):
        def close(self) -> None:
            super().close()
            closed.set()

    def slow(_: sqlite3.Connection) -> None:
        running.set()
        assert go_on.wait(10)

    async def leave() -> None:
        connection = await connect(tmp_path / "s.db", factory=Watched, check_same_thread=False)
        statement = asyncio.create_task(connection.visit(slow))
        assert await asyncio.to_thread(running.wait, 10)
        statement.cancel()
        connection.stop()

    asyncio.run(leave())
    go_on.set()
    assert closed.wait(10)


async def test_what_is_in_use_when_the_database_closes_is_closed_later(database: Database) -> None:
    async with database.read() as reading, database.write() as writing:
        connections = [
            (await each.get_raw_connection()).driver_connection for each in (reading, writing)
        ]
        await database.aclose()
        assert await reading.scalar(text("SELECT 1")) == 1
        await writing.execute(insert(schema.apps).values(an_app("late")))
    if database.is_sqlite:
        assert [each._connection for each in connections] == [None, None]
    else:
        assert [each.is_closed() for each in connections] == [True, True]
    async with database.read() as connection:
        assert await connection.scalar(select(schema.apps.c.name)) == "late"


async def test_a_writer_waits_for_another_process(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Database.open(path) as database:
        await upgrade(database)
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")

        async def write() -> None:
            async with database.write() as connection:
                await connection.execute(select(schema.apps.c.id))
                await connection.execute(insert(schema.apps), an_app("a"))

        task = asyncio.create_task(write())
        await asyncio.to_thread(other.execute, "COMMIT")
        other.close()
        await task


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("mysql://localhost/x", "not supported"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("://", "not the address"),
    ],
)
def test_a_bad_address_is_refused(address: str, problem: str) -> None:
    with pytest.raises(InvalidSetting, match=problem) as caught:
        Database.open(address)
    assert caught.value.field == "store"
    assert caught.value.remedy


def test_a_missing_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a folder: create it"):
        Database.open(tmp_path / "no" / "s.db")


async def test_a_server_that_is_not_there_is_explained() -> None:
    address = "postgresql://user:hush@127.0.0.1:1/none"
    async with Database.open(address) as database:
        assert "hush" not in repr(database)
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            await check(database)
        assert "hush" not in str(caught.value)


def test_a_sealed_key_opens_only_in_its_place() -> None:
    sealer = Sealer(new_key())
    sealed = sealer.seal("-----PEM-----", app="scores", key_id="ABC123DEFG")
    assert b"PEM" not in sealed
    assert sealed != sealer.seal("-----PEM-----", app="scores", key_id="ABC123DEFG")
    assert sealer.open(sealed, app="scores", key_id="ABC123DEFG") == "-----PEM-----"
    for wrong in (
        {"app": "other", "key_id": "ABC123DEFG"},
        {"app": "scores", "key_id": "ZZZ123DEFG"},
    ):
        with pytest.raises(StoreError, match="does not open"):
            sealer.open(sealed, **wrong)
    with pytest.raises(StoreError, match=VARIABLE):
        Sealer(new_key()).open(sealed, app="scores", key_id="ABC123DEFG")
    for damaged in (b"", b"\x02" + sealed[1:], sealed[:10]):
        with pytest.raises(StoreError, match="damaged"):
            sealer.open(damaged, app="scores", key_id="ABC123DEFG")


def test_the_sealing_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    key, path = new_key(), tmp_path / "key"
    path.write_text(key + "\n")
    sealed = Sealer.from_environment({VARIABLE: key}).seal("pem", app="a", key_id="k")
    assert (
        Sealer.from_environment({FILE_VARIABLE: str(path)}).open(sealed, app="a", key_id="k")
        == "pem"
    )
    assert key not in repr(Sealer(key))


@pytest.mark.parametrize(
    ("environment", "field"),
    [
        ({}, "store key"),
        ({VARIABLE: "not base64!"}, "store key"),
        ({VARIABLE: "c2hvcnQ="}, "store key"),
        ({FILE_VARIABLE: "no/such/file"}, FILE_VARIABLE),
    ],
)
def test_a_missing_or_bad_sealing_key_is_explained(environment: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Sealer.from_environment(environment)
    assert caught.value.field == field
    assert "store new-key" in caught.value.remedy


async def test_a_read_of_one_statement_asks_postgresql_for_nothing_else(
    postgres_store: str,
) -> None:
    asked: list[str] = []  # what is not a statement of ours
    async with Database.open(postgres_store) as database:
        async with database.read() as connection:
            raw = await connection.get_raw_connection()
            raw.driver_connection.add_query_logger(lambda record: asked.append(record.query))
            await connection.execute(select(schema.apps.c.id))
        assert asked == ["BEGIN;", "ROLLBACK;"]
        assert await database.rows(select(schema.apps.c.id)) == []
        assert asked == ["BEGIN;", "ROLLBACK;"]


async def test_a_connection_that_its_server_closed_is_replaced(postgres_store: str) -> None:
    async with Database.open(postgres_store) as database, Database.open(postgres_store) as other:
        async with database.read() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            raw = await connection.get_raw_connection()
            closed = raw.driver_connection
        await other.scalar(text(f"SELECT pg_terminate_backend({pid})"))
        async with asyncio.timeout(10):
            while not closed.is_closed():
                await asyncio.sleep(0)
        assert await database.scalar(text("SELECT pg_backend_pid()")) != pid


async def test_no_commit_copies_the_log_into_the_file(tmp_path: Path) -> None:
    """A commit that does waits for the disk, and so do all who share it."""
    file = tmp_path / "live.db"
    async with Database.open(file) as database:
        async with database.write() as connection:
            await connection.execute(text("CREATE TABLE large (it BLOB)"))
        for _ in range(3):
            async with database.write() as connection:
                await connection.execute(text("INSERT INTO large VALUES (zeroblob(2000000))"))
        assert file.stat().st_size < 100_000
        await database.checkpoint()
        assert file.stat().st_size > 6_000_000
        async with database.write() as connection:
            await connection.execute(text("INSERT INTO large VALUES (zeroblob(10))"))
        assert await database.scalar(text("SELECT count(*) FROM large")) == 4
