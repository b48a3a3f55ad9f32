"""One owner of a SQLite file; shares of a PostgreSQL database that move between workers, with a fence."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from apns_live.activities.store.database import Database
from apns_live.activities.store.ownership import (
    PARTITIONS,
    DatabaseClock,
    Leases,
    NotOwner,
    Onlooker,
    owning,
    partition_of,
)
from apns_live.activities.store.upgrade import upgrade
from apns_live.errors import Conflict

HOLDER = """
import asyncio, sys
from apns_live.activities.store.database import Database
from apns_live.activities.store.ownership import owning

async def main():
    async with Database.open(sys.argv[1]) as database, owning(database, "one"):
        print("held", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def file(tmp_path: Path) -> Database:
    return Database.open(tmp_path / "store.db")


async def _hold(database: Database) -> str:
    async with owning(database, "two", patience=60.0):
        return "held"


async def test_a_file_has_one_owner_who_owns_all(file: Database) -> None:
    async with owning(file, "one") as ownership:
        assert ownership.whole
        assert not ownership.fenced
        with pytest.raises(Conflict, match="another service sends"):
            async with owning(file, "two", patience=0.0):
                raise AssertionError("two at once")


async def test_the_next_one_follows_when_the_first_is_done(file: Database) -> None:
    async with owning(file, "one"):
        waiting = asyncio.ensure_future(_hold(file))
        await asyncio.sleep(0)
        assert not waiting.done()
    assert await waiting == "held"


async def test_an_error_within_lets_go(file: Database) -> None:
    with pytest.raises(LookupError):
        async with owning(file, "one"):
            raise LookupError
    assert await _hold(file) == "held"


async def test_a_killed_process_lets_go(file: Database) -> None:
    url = file.url.render_as_string(hide_password=False)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Conflict):
            async with owning(file, "two", patience=0.0):
                raise AssertionError("two at once")
        process.send_signal(signal.SIGKILL)
        assert await _hold(file) == "held"


# Leases.


class Worker:
    """Leases on a monotonic clock of its own, that note what was gained and lost."""

    def __init__(self, database: Database, name: str) -> None:
        self.now = 0.0
        self.gained: set[int] = set()
        self.lost: set[int] = set()
        self.stores = True
        self.leases = Leases(database, name, lease=60.0, monotonic=lambda: self.now)
        self.leases.gained = self._gain
        self.leases.lost = self._lose

    async def _gain(self, partitions: frozenset[int]) -> None:
        self.gained |= partitions

    async def _lose(self, partitions: frozenset[int]) -> bool:
        self.lost |= partitions
        return self.stores

    @property
    def held(self) -> frozenset[int]:
        return self.leases.partitions

    async def renew(self) -> None:
        await self.leases._renew()


@pytest.fixture
async def postgres(postgres_store: str) -> AsyncIterator[Database]:
    async with Database.open(postgres_store) as database:
        yield database


@asynccontextmanager
async def workers(database: Database, count: int) -> AsyncIterator[list[Worker]]:
    made = [Worker(database, f"worker-{number}") for number in range(count)]
    for worker in made:
        await worker.leases.open()
    yield made


async def expire(database: Database, owner: str) -> None:
    """Let a worker's leases run out, as if it had been silent for a minute."""
    async with database.write() as connection:
        for statement in (
            "UPDATE leases SET expires_at = 0 WHERE owner = :owner",
            "UPDATE workers SET expires_at = 0 WHERE id = :owner",
        ):
            await connection.execute(text(statement), {"owner": owner})


def test_partitions_are_even_and_do_not_change() -> None:
    assert partition_of(1, "match-17") == 125
    counts = [0] * PARTITIONS
    for number in range(25_600):
        counts[partition_of(1, f"activity-{number}")] += 1
    assert 50 < min(counts) <= max(counts) < 170


async def test_shares_move_as_workers_come_and_go(postgres: Database) -> None:
    async with workers(postgres, 3) as (one, two, three):
        assert len(one.held) == PARTITIONS
        for _ in range(3):
            for worker in (one, two, three):
                await worker.renew()
        assert {len(worker.held) for worker in (one, two, three)} <= {84, 85, 86}
        assert one.held | two.held | three.held == set(range(PARTITIONS))
        assert sum(len(worker.held) for worker in (one, two, three)) == PARTITIONS
        # A clean end releases at once.
        await three.leases.aclose()
        for _ in range(2):
            for worker in (one, two):
                await worker.renew()
        assert len(one.held) == len(two.held) == PARTITIONS // 2
        # A crash ends with the lease.
        await expire(postgres, "worker-1")
        await one.renew()
        assert len(one.held) == PARTITIONS


async def test_what_was_stored_before_it_was_released_is_not_in_doubt(postgres: Database) -> None:
    async with workers(postgres, 2) as (one, two):
        await one.renew()  # it gives half of them away
        await two.renew()
        assert len(two.held) == PARTITIONS // 2
        assert two.leases.handed_over == two.held
        assert one.leases.handed_over == frozenset()  # nobody had them before
        two.stores = False
        await two.leases.leave()
        await one.renew()
        assert one.leases.whole
        assert one.leases.handed_over == frozenset()


async def test_the_leases_of_a_process_that_is_gone_are_looked_at_when_they_end(
    postgres: Database,
) -> None:
    async with workers(postgres, 2) as (one, two):
        await one.renew()
        await two.renew()
        await one.renew()
        assert one.leases._next_look == 15.0
        end = text("UPDATE leases SET expires_at = expires_at - 55000 WHERE owner = 'worker-1'")
        await postgres.change(end)
        await one.renew()
        assert 3.0 <= one.leases._next_look <= 5.0
        assert two.held.isdisjoint(one.held)


async def test_a_late_writer_changes_nothing(postgres: Database) -> None:
    async with workers(postgres, 2) as (one, two):
        terms = {each: one.leases.terms[each] for each in (3, 7)}
        async with postgres.write() as connection:
            await one.leases.guard(connection, terms)
        await expire(postgres, "worker-0")
        await two.renew()
        assert 3 in two.held
        with pytest.raises(NotOwner) as caught:
            async with postgres.write() as connection:
                await one.leases.guard(connection, terms)
        assert caught.value.partitions <= {3, 7}
        await one.renew()
        assert two.held.isdisjoint(one.held)
        assert one.lost >= two.held


async def test_who_was_away_and_back_has_another_epoch(postgres: Database) -> None:
    """The same process: what it wrote down before belongs to a life that is over."""
    async with workers(postgres, 1) as (one,):
        before = dict(one.leases.terms)
        await expire(postgres, "worker-0")
        two = Worker(postgres, "other")
        await two.leases.open()
        await two.leases.aclose()
        one.gained.clear()
        await one.renew()
        assert one.lost == one.gained == set(range(PARTITIONS))
        assert all(one.leases.terms[each] == before[each] + 2 for each in one.held)


async def test_a_partition_is_not_taken_from_under_a_transaction(postgres: Database) -> None:
    async with workers(postgres, 2) as (one, two):
        async with postgres.write() as connection:
            await one.leases.guard(connection, {3: one.leases.terms[3]})
            await expire(postgres, "worker-0")
            await two.renew()
            assert two.held == set(range(PARTITIONS)) - {3}
        await two.renew()
        assert 3 in two.held


async def test_nothing_leaves_with_a_lease_that_is_about_to_end(postgres: Database) -> None:
    async with workers(postgres, 1) as (one,):
        assert one.leases.holds(3)
        one.now = 47.0
        assert one.leases.holds(3)
        one.now = 49.0  # stopped for so long: a renewal may have come too late
        assert one.leases.fenced
        assert not one.leases.holds(3)
        one.gained.clear()
        await one.renew()
        assert one.leases.holds(3)


async def test_a_new_database_has_no_leases_until_somebody_opens(empty_database: Database) -> None:
    await upgrade(empty_database)
    async with empty_database.read() as connection:
        assert await connection.scalar(text("SELECT count(*) FROM leases")) == 0


async def test_a_wrong_clock_is_set_by_the_databases(postgres: Database) -> None:
    wrong = 20.0
    leases = Leases(postgres, "late", wall=lambda: time.time() - wrong)
    await leases.open()
    while not leases.offset:  # a slow answer does not say what time it is
        await leases._renew()
    assert abs(leases.offset - wrong) < 0.2
    onlooker = Onlooker(postgres, wall=lambda: time.time() + wrong)
    while not onlooker.offset:
        await onlooker.open()
    assert abs(onlooker.offset + wrong) < 0.2
    clock = DatabaseClock()
    assert abs(clock.time() - time.time()) < 0.2
    clock.ownership = leases
    assert abs(clock.time() - time.time() - wrong) < 0.4


async def test_what_was_anothers_meanwhile_is_left_before_it_is_taken_up(
    postgres: Database,
) -> None:
    async with workers(postgres, 1) as (one,):
        held_then: list[frozenset[int]] = []

        async def lose(partitions: frozenset[int]) -> None:
            held_then.append(one.held & partitions)

        one.leases.lost = lose
        await expire(postgres, "worker-0")
        two = Worker(postgres, "other")
        await two.leases.open()
        await expire(postgres, "other")
        await one.renew()
        assert len(one.held) == PARTITIONS
        assert held_then == [frozenset()]


async def test_a_term_that_began_unseen_ends_the_one_before(postgres: Database) -> None:
    """The answer of a renewal was lost: it had taken partitions back that another had in between."""
    async with workers(postgres, 1) as (one,):
        one.gained.clear()
        async with postgres.write() as connection:
            await connection.execute(
                text("UPDATE leases SET epoch = epoch + 2 WHERE partition < 3")
            )
        await one.renew()
        assert one.lost == one.gained == {0, 1, 2}


async def test_a_clean_end_releases_what_it_did_not_know_of(postgres: Database) -> None:
    async with workers(postgres, 1) as (one,):
        one.leases._own({})
        await one.leases.aclose()
        async with postgres.read() as connection:
            left = "SELECT count(*) FROM leases WHERE owner NOT IN ('', 'stored')"
            assert await connection.scalar(text(left)) == 0


async def test_leases_that_ran_out_are_told(postgres: Database) -> None:
    async with workers(postgres, 1) as (one,):
        assert not one.leases.lapsed
        one.now = 61.0
        assert one.leases.lapsed
        await one.renew()
        assert not one.leases.lapsed


async def test_a_worker_that_was_stopped_while_it_renewed_holds_nobody_up(
    postgres: Database,
) -> None:
    async with workers(postgres, 2) as (_, two):
        await expire(postgres, "worker-0")
        async with postgres.write() as connection:
            mine = "UPDATE workers SET expires_at = 1 WHERE id = 'worker-0'"
            await connection.execute(text(mine))
            async with asyncio.timeout(5.0):
                await two.renew()
            assert len(two.held) == PARTITIONS


class Turns:
    """Ends a loop of another thread after one turn."""

    def __init__(self) -> None:
        self.left = 1

    def wait(self, _: float) -> bool:
        self.left -= 1
        return self.left < 0


async def test_another_thread_renews_while_the_event_loop_is_busy(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = postgres.url.render_as_string(hide_password=False)
    async with workers(postgres, 1) as (one,):

        def keep() -> None:
            # The event loop of the test does nothing meanwhile.
            monkeypatch.setattr(one.leases, "_closing", Turns())
            thread = threading.Thread(target=one.leases.keep, args=(address,))
            thread.start()
            thread.join()

        await expire(postgres, "worker-0")  # nobody has taken them yet
        one.now = 20.0
        keep()
        one.now = 61.0
        assert one.leases.fenced, "the last renewal was not late"
        keep()
        assert one.leases.holds(3)
        two = Worker(postgres, "worker-1")
        await two.leases.open()
        assert not two.held
        # Who has lost one of them sends nothing until it has seen that.
        await postgres.change(text("UPDATE leases SET epoch = epoch + 1 WHERE partition = 3"))
        one.now = 120.0
        keep()
        assert one.leases.fenced
        await postgres.change(text("UPDATE leases SET epoch = epoch - 1 WHERE partition = 3"))
        keep()
        assert not one.leases.fenced
        one.now = 301.0  # It hangs: others must take over.
        keep()
        assert one.leases.fenced
