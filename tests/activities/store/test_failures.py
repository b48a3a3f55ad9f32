"""A database that is silent, slow, full, locked or gone: the caller is told, and told nothing false."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError

from apns_live.activities.send.results import left_open
from apns_live.activities.store import database, schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.failures import QUIET, Outage
from apns_live.activities.store.upgrade import upgrade
from apns_live.errors import Busy, StoreError

APP = {
    "public_id": "a",
    "name": "a",
    "bundle_id": "com.example.a",
    "environment": "sandbox",
    "created_at": 1,
}


async def add(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(insert(schema.apps), APP)


async def read(database: Database, statement: str = "SELECT 1") -> None:
    async with database.read() as connection:
        await connection.execute(text(statement))


async def test_a_lock_that_is_not_given_in_time_is_busy(store_address: str) -> None:
    async with (
        Database.open(store_address) as one,
        Database.open(store_address, timeout=0.2) as two,
    ):
        async with one.write() as connection:
            await connection.execute(insert(schema.apps), APP)
            with pytest.raises(Busy, match="nothing was stored"):
                await add(two)
        with pytest.raises(IntegrityError):
            await add(two)


async def test_a_process_that_is_stopped_in_a_transaction_holds_nobody_up(
    postgres_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IDLE_TIMEOUT", 0.1)
    async with Database.open(postgres_store) as stopped, Database.open(postgres_store) as other:
        with pytest.raises(StoreError, match="did not confirm the commit"):  # noqa: PT012
            async with stopped.write() as connection:
                await connection.execute(insert(schema.apps), APP)
                await add(other)  # it waits for the same name
        await read(stopped)


async def test_when_every_connection_is_in_use_it_is_busy(postgres_address: str) -> None:
    async with Database.open(postgres_address, pool_size=1, timeout=0.2) as database:
        engine = database._writer
        held = [await engine.connect() for _ in range(11)]  # SQLAlchemy adds ten beyond the size
        with pytest.raises(Busy):
            await read(database)
        for connection in held:
            await connection.close()


@asynccontextmanager
async def relayed(address: str) -> AsyncIterator[tuple[Database, asyncio.Event]]:
    """Give a database behind a relay, and an event: while it is clear nothing passes."""
    url = make_url(address)
    passing = asyncio.Event()
    passing.set()
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await passing.wait()
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = url.query.get("host") or url.host
        if str(host).startswith("/"):
            far = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{url.port or 5432}")
        else:
            far = await asyncio.open_connection(str(host), url.port or 5432)
        writers.extend((writer, far[1]))
        for one, other in ((reader, far[1]), (far[0], writer)):
            tasks.add(asyncio.create_task(pump(one, other)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    near = url.difference_update_query(["host"]).set(host="127.0.0.1", port=port)
    try:
        async with Database.open(
            near.render_as_string(hide_password=False), timeout=0.2
        ) as database:
            yield database, passing
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        for writer in writers:
            writer.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_silent_database_does_not_hold_its_callers(postgres_address: str) -> None:
    async with relayed(postgres_address) as (database, passing):

        async def silenced() -> None:
            async with database.write() as connection:
                await connection.execute(text("SELECT 1"))
                passing.clear()
                await connection.execute(text("SELECT 2"))

        with pytest.raises((Busy, StoreError)):
            await silenced()
        passing.set()
        async with database.read() as connection:
            assert await connection.scalar(text("SELECT 3")) == 3


async def test_what_a_lost_commit_means_is_not_guessed(postgres_address: str) -> None:
    async with relayed(postgres_address) as (database, passing):

        async def unanswered() -> None:
            async with database.write() as connection:
                await connection.execute(text("SELECT 1"))
                passing.clear()

        with pytest.raises(StoreError, match="may be stored or not"):
            await unanswered()


async def test_a_connection_that_is_cut_is_a_store_error(postgres_address: str) -> None:
    async with (
        Database.open(postgres_address) as database,
        Database.open(postgres_address) as other,
    ):

        async def cut() -> None:
            async with database.write() as connection:
                pid = await connection.scalar(text("SELECT pg_backend_pid()"))
                async with other.write() as killer:
                    await killer.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
                await connection.execute(text("SELECT 1"))

        with pytest.raises(StoreError, match="cannot be reached or used"):
            await cut()
        async with database.read() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1


async def test_a_deadlock_is_busy_for_one_of_the_two(postgres_address: str) -> None:
    async with Database.open(postgres_address) as database:
        both = asyncio.Barrier(2)

        async def lock(first: int, second: int) -> None:
            async with database.write() as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": first})
                await both.wait()
                await connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": second})

        results = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)
        assert [type(result) for result in results if result is not None] == [Busy]


async def test_a_file_that_may_not_be_written_is_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is no database, but long enough to be taken for one" * 20)
    async with Database.open(path) as database:
        with pytest.raises(StoreError, match="cannot be reached or used"):
            await add(database)


async def test_an_error_of_a_statement_passes_as_it_is(postgres_address: str) -> None:
    async with Database.open(postgres_address) as database:
        with pytest.raises(ProgrammingError):
            await read(database, "SELECT * FROM nowhere")


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
async def test_resuming_a_large_start_asks_once_and_not_once_a_device(
    empty_database: Database,
) -> None:
    """NOT IN over a list that is larger than work_mem is run once a row; SQLite has an index."""
    await upgrade(empty_database)
    seen: list[str] = []
    async with empty_database.write() as connection:
        event.listen(
            connection.sync_connection,
            "before_cursor_execute",
            lambda *arguments: seen.append(arguments[2]),
        )
        await left_open(connection, activity=1, since=0)
        await connection.exec_driver_sql("SET LOCAL work_mem = '64kB'")
        plan = await connection.exec_driver_sql(f"EXPLAIN {seen[0]}", (1, 0))
        assert "SubPlan" not in "\n".join(row[0] for row in plan)


def test_an_outage_is_a_line_for_each_kind_of_work_and_one_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    outage, away = Outage(lambda: now[0]), StoreError("cannot be reached")
    for _ in range(1_000):
        outage.failed("results could not be stored", away)
        now[0] += 0.01
        outage.failed("activities could not be read", away)
        outage.works()  # another transaction gets through now and then
    assert len(caplog.records) == 2
    now[0] += QUIET
    outage.works()
    outage.works()
    [*_, end] = caplog.records
    assert len(caplog.records) == 3
    assert end.getMessage() == (
        "the database works again; for 10.0 s it did not: "
        "results could not be stored (1000 times), activities could not be read (1000 times)"
    )
    outage.failed("results could not be stored", away)
    assert len(caplog.records) == 4
    assert "Traceback" not in caplog.text


def test_a_defect_is_logged_each_time_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage()
    for _ in range(2):
        outage.failed("results could not be stored", LookupError("a bug"))
    assert [record.exc_info is not None for record in caplog.records] == [True, True]
