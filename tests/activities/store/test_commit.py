"""Group commit: who shares a transaction, and who is told what when something fails."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from apns_live.activities.store import schema
from apns_live.activities.store.commit import Batch, GroupCommit
from apns_live.activities.store.database import Database
from apns_live.errors import Busy, InvalidInput, StoreError


def a_row(name: str) -> dict[str, Any]:
    return {
        "public_id": name,
        "name": name,
        "bundle_id": "com.example",
        "environment": "production",
        "created_at": 0,
    }


async def names(database: Database) -> set[str]:
    async with database.read() as connection:
        return set((await connection.execute(select(schema.apps.c.public_id))).scalars())


def adding(name: str, then: Exception | None = None) -> Any:
    async def work(connection: AsyncConnection) -> str:
        await connection.execute(insert(schema.apps), a_row(name))
        if then is not None:
            raise then
        return name

    return work


async def test_each_is_answered_after_its_commit(database: Database) -> None:
    commits = GroupCommit(database)
    wanted = [f"app-{n}" for n in range(50)]

    async def one(name: str) -> None:
        assert await commits.run(adding(name)) == name
        assert name in await names(database)

    await asyncio.gather(*(one(name) for name in wanted))
    assert await names(database) == set(wanted)
    if database.is_sqlite:
        assert commits.requests == 50
        assert commits.commits < 10


async def test_one_that_fails_leaves_nothing_and_costs_the_others_nothing(
    database: Database,
) -> None:
    commits = GroupCommit(database)
    error = InvalidInput("is wrong", field="x")
    results = await asyncio.gather(
        commits.run(adding("a")),
        commits.run(adding("b", error)),
        commits.run(adding("a")),  # taken: the database's own error
        commits.run(adding("c")),
        return_exceptions=True,
    )
    assert results[1] is error
    assert [type(result) for result in results].count(str) == 2
    assert await names(database) == {"a", "c"}


class Adding:
    """A batch that adds all names with one statement."""

    def __init__(self) -> None:
        self.groups: list[int] = []

    async def together(
        self, connection: AsyncConnection, items: Sequence[str]
    ) -> Sequence[str | Exception]:
        self.groups.append(len(items))
        good = [name for name in items if not name.startswith("bad")]
        if good:
            await connection.execute(insert(schema.apps), [a_row(name) for name in good])
        return [name if name in good else InvalidInput("is bad", field=name) for name in items]


async def test_a_batch_is_handled_together(database: Database) -> None:
    commits, adding_all = GroupCommit(database), Adding()
    batch: Batch[str, str] = Batch(adding_all.together)
    items = ["a", "bad-1", "b", "c", "bad-2"]
    results = await asyncio.gather(
        *(commits.run_with(batch, item) for item in items), return_exceptions=True
    )
    for item, result in zip(items, results, strict=True):
        if item.startswith("bad"):
            assert isinstance(result, InvalidInput)
            assert result.field == item
        else:
            assert result == item
    assert adding_all.groups == [5]
    assert await names(database) == {"a", "b", "c"}


async def test_each_kind_in_a_group_is_handled_by_its_own(
    sqlite_template: Path, tmp_path: Path
) -> None:
    kinds = [Adding(), Adding()]
    told: list[Sequence[str]] = []
    batches: list[Batch[str, str]] = [Batch(one.together, told.append) for one in kinds]
    shutil.copy(sqlite_template, tmp_path / "s.db")
    async with Database.open(tmp_path / "s.db") as database:
        commits = GroupCommit(database)
        async with database.write():  # all of them wait for one turn
            waiting = [
                asyncio.create_task(work)
                for work in (
                    commits.run_with(batches[0], "a"),
                    commits.run_with(batches[1], "b"),
                    commits.run_with(batches[0], "c"),
                )
            ]
            await asyncio.sleep(0)
        assert await asyncio.gather(*waiting) == ["a", "b", "c"]
        assert ([one.groups for one in kinds], commits.commits) == ([[2], [1]], 1)
        assert sorted(map(sorted, told)) == [["a", "c"], ["b"]]


@pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
async def test_batches_of_two_kinds_share_no_transaction(database: Database) -> None:
    """Each locks rows in one order. One behind the other, they could wait for others in a circle."""
    commits = GroupCommit(database)
    seen: list[tuple[str, int, list[int]]] = []

    def kind(name: str) -> Batch[int, int]:
        async def together(connection: AsyncConnection, items: Sequence[int]) -> Sequence[int]:
            transaction = await connection.scalar(select(func.txid_current()))
            seen.append((name, transaction, list(items)))
            return items

        return Batch(together)

    tokens, updates = kind("tokens"), kind("updates")
    kinds = [tokens, updates, tokens, updates]
    assert await asyncio.gather(*(commits.run_with(each, n) for n, each in enumerate(kinds))) == [
        *range(4)
    ]
    assert [(name, items) for name, _, items in seen] == [("tokens", [0, 2]), ("updates", [1, 3])]
    assert len({transaction for _, transaction, _ in seen}) == 2


async def test_one_bad_row_in_a_batch_falls_to_itself_alone(database: Database) -> None:
    commits, adding_all = GroupCommit(database), Adding()
    batch: Batch[str, str] = Batch(adding_all.together)
    await commits.run_with(batch, "taken")
    results = await asyncio.gather(
        *(commits.run_with(batch, name) for name in ("a", "taken", "b")), return_exceptions=True
    )
    assert results[0] == "a"
    assert results[2] == "b"
    assert isinstance(results[1], Exception)
    assert adding_all.groups == [1, 3, 1, 1, 1]
    assert await names(database) == {"taken", "a", "b"}
    # And beside a write of another kind in the same transaction.
    given = (commits.run_with(batch, name) for name in ("c", "taken", "d"))
    results = await asyncio.gather(commits.run(adding("e")), *given, return_exceptions=True)
    assert [result for result in results if isinstance(result, str)] == ["e", "c", "d"]
    # And in a batch of two.
    pair = (commits.run_with(batch, name) for name in ("taken", "f"))
    assert (await asyncio.gather(*pair, return_exceptions=True))[1] == "f"
    assert await names(database) == {"taken", "a", "b", "c", "d", "e", "f"}


async def test_a_batch_that_forgets_an_item_is_told_so(database: Database) -> None:
    async def forgets(connection: AsyncConnection, items: Sequence[str]) -> Sequence[str]:
        return []

    batch: Batch[str, str] = Batch(forgets)
    with pytest.raises(ValueError, match="shorter"):
        await GroupCommit(database).run_with(batch, "one")


async def test_a_failed_commit_is_told_to_everyone_in_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, adding_all = GroupCommit(database), Adding()
    batch: Batch[str, str] = Batch(adding_all.together)
    write = database.write

    @asynccontextmanager
    async def broken() -> AsyncIterator[AsyncConnection]:
        async with write() as connection:
            yield connection
            raise OSError("the disk is full")

    monkeypatch.setattr(database, "write", broken)
    results = await asyncio.gather(
        *(commits.run_with(batch, f"app-{n}") for n in range(5)), return_exceptions=True
    )
    assert all(isinstance(result, StoreError) for result in results)
    assert await names(database) == set()
    monkeypatch.undo()
    assert await commits.run_with(batch, "later") == "later"


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
async def test_a_thousand_writes_may_wait_and_a_hundred_share_a_commit(database: Database) -> None:
    """1,024 and 128, unless others are set."""
    sizes: list[int] = []

    async def together(connection: AsyncConnection, items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        return items

    async def write(commits: GroupCommit, count: int) -> list[Any]:
        batch: Batch[int, int] = Batch(together)
        async with database.write():  # all of them wait for one turn
            waiting = [asyncio.create_task(commits.run_with(batch, n)) for n in range(count)]
            await asyncio.sleep(0)
        return await asyncio.gather(*waiting, return_exceptions=True)

    *written, refused = await write(GroupCommit(database=database), 1_025)
    assert written == list(range(1_024))
    assert isinstance(refused, Busy)
    assert refused.retry_after == 1.0
    assert sizes == [128] * 8
    sizes.clear()
    await write(GroupCommit(database, group=300), 301)
    assert sizes == [300, 1]


async def test_the_queue_is_bounded(database: Database) -> None:
    commits, adding_all = GroupCommit(database, waiting=3), Adding()
    batch: Batch[str, str] = Batch(adding_all.together)
    async with database.write():
        waiting = [asyncio.create_task(commits.run_with(batch, f"app-{n}")) for n in range(5)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(task.exception(), Busy) for task in done)
        if not database.is_sqlite:
            await asyncio.gather(*waiting, return_exceptions=True)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 2
    # A limit may be set below what waits already.
    waiting = [asyncio.create_task(commits.run_with(batch, f"more-{n}")) for n in range(3)]
    await asyncio.sleep(0)
    commits.limit(1)
    with pytest.raises(Busy, match="3 writes"):
        await commits.run_with(batch, "too many")
    assert await asyncio.gather(*waiting) == ["more-0", "more-1", "more-2"]


async def test_only_writes_that_share_a_transaction_have_savepoints(database: Database) -> None:
    commits, adding_all = GroupCommit(database), Adding()
    batch: Batch[str, str] = Batch(adding_all.together)
    made: list[str] = []
    engine = database._writer.sync_engine
    event.listen(engine, "savepoint", lambda connection, name: made.append(name))
    await commits.run(adding("alone"))
    await asyncio.gather(*(commits.run_with(batch, f"batch-{n}") for n in range(3)))
    assert made == []
    await asyncio.gather(commits.run(adding("one")), commits.run(adding("two")))
    assert len(made) == (2 if database.is_sqlite else 0)


async def test_who_goes_away_in_the_queue_is_not_written(database: Database) -> None:
    commits, adding_all = GroupCommit(database, group=1), Adding()
    batch: Batch[str, str] = Batch(adding_all.together)
    first = asyncio.create_task(commits.run_with(batch, "first"))
    gone = asyncio.create_task(commits.run_with(batch, "gone"))
    last = asyncio.create_task(commits.run_with(batch, "last"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await first == "first"
    assert await last == "last"
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await names(database) == {"first", "last"}
    assert len(commits) == 0
    assert commits.commits == 2


async def test_groups_are_bounded(database: Database) -> None:
    commits, adding_all = GroupCommit(database, group=8), Adding()
    batch: Batch[str, str] = Batch(adding_all.together)
    await asyncio.gather(*(commits.run_with(batch, f"app-{n}") for n in range(30)))
    assert max(adding_all.groups) <= 8
    async with database.read() as connection:
        count = (await connection.execute(select(func.count()).select_from(schema.apps))).scalar()
    assert count == 30


async def test_a_transaction_that_cannot_begin_is_told_to_all_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    async with Database.open(folder / "s.db") as database:
        folder.rmdir()
        write, tries = database.write, []

        def counted() -> Any:
            tries.append(1)
            return write()

        monkeypatch.setattr(database, "write", counted)
        commits = GroupCommit(database)
        results = await asyncio.gather(
            *(commits.run(adding(name)) for name in "abc"), return_exceptions=True
        )
        assert [type(result) for result in results] == [StoreError] * 3
        assert len(commits) == 0
        # A database that is away may take seconds for each try.
        assert len(tries) == 1


async def test_nobody_waits_for_ever_for_a_worker_that_is_cancelled(tmp_path: Path) -> None:
    async with Database.open(tmp_path / "s.db") as database:
        commits = GroupCommit(database)
        async with database.write():  # the worker has begun, and waits for its turn
            waiting = [asyncio.create_task(commits.run(adding(name))) for name in "ab"]
            for _ in range(2):
                await asyncio.sleep(0)
            assert commits._worker is not None
            commits._worker.cancel()  # as the end of an event loop does
        for task in waiting:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 10)


async def test_what_follows_a_commit_happens_although_the_caller_has_left(
    database: Database,
) -> None:
    """Else a caller that goes away would leave something stored that nobody sends."""
    commits, adding_all = GroupCommit(database), Adding()
    told: list[Any] = []
    leaving: asyncio.Task[str] | None = None

    async def together(connection: AsyncConnection, items: Sequence[str]) -> Any:
        results = await adding_all.together(connection, items)
        assert leaving is not None
        leaving.cancel()
        return results

    batch: Batch[str, str] = Batch(together, told.append)
    leaving = asyncio.create_task(commits.run_with(batch, "a"))
    results = await asyncio.gather(
        leaving,
        commits.run_with(batch, "bad"),
        commits.run_with(batch, "b"),
        return_exceptions=True,
    )
    assert isinstance(results[0], asyncio.CancelledError)
    assert isinstance(results[1], InvalidInput)
    assert results[2] == "b"
    assert told == [["a", "b"]]
    assert await commits.run(adding("c"), told.append) == "c"
    assert told[1:] == ["c"]
    assert await names(database) == {"a", "b", "c"}


async def test_a_task_after_a_commit_may_fail_alone(
    tmp_path: Path, sqlite_template: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On SQLite, where the writes of a group share a transaction."""
    shutil.copy(sqlite_template, tmp_path / "told.db")
    told: list[str] = []

    def fail(result: str) -> None:
        raise RuntimeError(result)

    async with Database.open(tmp_path / "told.db") as database:
        commits = GroupCommit(database)
        both = commits.run(adding("a"), fail), commits.run(adding("b"), told.append)
        assert await asyncio.gather(*both) == ["a", "b"]
    assert told == ["b"]
    assert "a task after a commit failed" in caplog.text


async def test_a_deadlock_in_a_group_is_busy_for_its_caller(database: Database) -> None:
    class Deadlock(Exception):
        sqlstate = "40P01"

    async def deadlocks(connection: AsyncConnection, items: Sequence[str]) -> list[str]:
        raise DBAPIError("SELECT 1", {}, Deadlock("deadlock detected"))

    batch: Batch[str, str] = Batch(deadlocks)
    with pytest.raises(Busy):
        await GroupCommit(database).run_with(batch, "one")
