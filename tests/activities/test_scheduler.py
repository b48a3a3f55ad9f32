"""What happens by the clock, on the simulated clock: due starts and ends, the system's end, lost tokens."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import ScalarSelect, literal, select, update

from apns_live.activities.due import due as steps
from apns_live.activities.due.due import MISSED, Step
from apns_live.activities.due.missing import MissingTokens
from apns_live.activities.due.scheduler import LONGEST, Scheduler
from apns_live.activities.due.steady_time import CONFIRMED
from apns_live.activities.read.operations import Operations
from apns_live.activities.requests import End, Presentation, Update
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.errors import ActivityEnded, InvalidInput
from tests.activities.plans import every_query_indexed
from tests.activities.world import Rooms, a_start

HOUR = 3600.0


class World(Rooms):
    """The rooms with a scheduler beside them."""

    async def open(self) -> None:
        await self.fill(3)
        self.told: list[tuple[str, int]] = []
        self.left: list[tuple[int, str]] = []
        self.changed: list[tuple[list[int], list[int]]] = []
        self.core.hooks.due = lambda app, row: self.told.append((app.id, row))
        self.core.hooks.left = lambda activity, token: self.left.append((activity, token))
        self.core.hooks.changed = lambda *, activities=(), operations=(): self.changed.append(
            (list(activities), list(operations))
        )
        self.scheduler = Scheduler(self.core, self.activities)
        self.operations = Operations(self.core)

    async def settle(self) -> None:
        await self.clock.settle(until=lambda: self.scheduler.idle)

    async def advance(self, seconds: float) -> None:
        """Let time pass from timer to timer; at each the scheduler does what is due."""
        target = self.clock.monotonic() + seconds
        # Over hours it looks every ten minutes.
        self.scheduler._longest = 600.0 if seconds >= HOUR else LONGEST
        await self.settle()
        while (now := self.clock.monotonic()) < target:
            self.clock.advance_sync(min(self.clock.next_due or target, target) - now)
            await self.clock.settle(6)
            await self.settle()

    async def status(self, name: str = "match-17") -> str:
        return str((await self.activities.get(self.app, name))["status"])

    async def kinds(self, name: str = "match-17") -> list[tuple[str, str]]:
        found = await self.operations.page(self.app, activity=name)
        return [(entry["kind"], entry["status"]) for entry in found]


@pytest.fixture
async def still(database: Database) -> World:
    """A world whose scheduler does not run by itself."""
    world = World(database)
    await world.open()
    return world


@pytest.fixture
async def world(still: World) -> AsyncIterator[World]:
    task = asyncio.create_task(still.scheduler.run())
    await still.settle()
    yield still
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_start_and_its_end_come_when_they_are_due(world: World) -> None:
    now = world.clock.time()
    request = a_start(
        start_at=now + 600, end_at=now + 1200, end_presentation=Presentation(dismiss_after=30)
    )
    await world.activities.start(world.app, request)
    world.scheduler.wake()
    await world.advance(599)
    assert await world.status() == "scheduled"
    assert world.told == []
    await world.advance(2)
    assert await world.status() == "active"
    known = await world.activities.get(world.app, "match-17")
    assert (known["started_at"] / 1000, known["version"]) == (now + 600, 1)
    assert await world.kinds() == [("start", "accepted")]
    [row] = await world.rows(schema.activities)
    assert row.expires_at == row.started_at + 8 * 3_600_000
    await world.advance(598)
    assert await world.status() == "active"
    await world.advance(2)
    assert world.told == [(world.app.id, 1), (world.app.id, 1)]
    known = await world.activities.get(world.app, "match-17")
    assert (known["status"], known["end_reason"], known["version"]) == ("ended", "scheduled", 2)
    assert known["ended_at"] / 1000 == now + 1200
    [row] = await world.rows(schema.activities)
    assert row.message == '{"dismiss_after":30.0}'
    assert await world.kinds() == [("start", "accepted"), ("end", "accepted")]


async def test_it_is_woken_by_a_write_and_sleeps_otherwise(world: World) -> None:
    await world.advance(10 * LONGEST)
    looks = world.scheduler.looks
    await world.advance(10 * LONGEST)
    assert world.scheduler.looks == looks + 10
    now = world.clock.time()
    await world.activities.start(world.app, a_start(start_at=now + 5))
    for _ in range(50):
        world.scheduler.wake()
    await world.advance(1)
    assert world.scheduler.looks <= looks + 12  # however often it was woken
    await world.advance(4.5)
    assert await world.status() == "active"


async def test_one_statement_tells_that_nothing_is_due_yet(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(still.clock.time() * 1000)
    await still.activities.start(still.app, a_start(start_at=now / 1000 + 60))
    asked: list[object] = []
    lent = still.database._lent
    monkeypatch.setattr(
        still.database, "_lent", lambda engine: (asked.append(engine), lent(engine))[1]
    )
    assert await still.scheduler.catch_up() == now + 60_000
    assert len(asked) == 1


async def test_calls_that_come_while_it_looks_wait_for_the_next_look(still: World) -> None:
    runs = 0

    class Busy:
        def first(self) -> ScalarSelect[int]:
            return select(literal(0)).scalar_subquery()

        async def run(self, done: object, now: int) -> None:
            nonlocal runs
            runs += 1
            if runs < 50:
                still.scheduler.wake()  # as each call does, and under load there is always one

    still.scheduler._steps = (Busy(), Busy())
    await still.scheduler.catch_up()
    assert runs == 2


async def test_a_state_put_before_the_start_goes_with_it(world: World) -> None:
    now = world.clock.time()
    await world.activities.start(world.app, a_start(start_at=now + 60))
    await world.activities.update(world.app, Update(id="match-17", content_state={"home": 1}))
    assert await world.kinds() == [("start", "scheduled"), ("update", "scheduled")]
    world.scheduler.wake()
    await world.advance(61)
    assert await world.kinds() == [("start", "accepted"), ("update", "superseded")]
    known = await world.activities.get(world.app, "match-17")
    assert (known["version"], known["content_state"]) == (2, {"home": 1})


async def test_an_end_before_the_start_calls_it_off(world: World) -> None:
    now = world.clock.time()
    await world.activities.start(world.app, a_start(start_at=now + 60))
    await world.activities.end(world.app, End(id="match-17"))
    world.scheduler.wake()
    await world.advance(120)
    assert await world.status() == "ended"
    assert await world.kinds() == [("start", "superseded"), ("end", "accepted")]
    assert world.told == []


async def test_after_a_pause_it_catches_up(still: World, caplog: pytest.LogCaptureFixture) -> None:
    now = still.clock.time()
    await still.activities.start(still.app, a_start(id="late", start_at=now + 60))
    await still.activities.start(
        still.app, a_start(id="past", start_at=now + 60, end_at=now + 3600)
    )
    await still.activities.start(still.app, a_start(id="over", end_at=now + 3600))
    still.clock.advance_sync(2 * HOUR)
    assert await still.scheduler.catch_up() is not None
    assert [await still.status(name) for name in ("late", "past", "over")] == [
        "active",
        "ended",
        "ended",
    ]
    assert sorted(row for _, row in still.told) == [1, 2, 3]
    # The start whose end had passed too is not sent, and says why.
    [operation] = await still.operations.page(still.app, activity="past")
    assert (operation["status"], operation["reason"]) == ("failed", MISSED)
    assert operation["finished_at"] == still.now
    known = await still.activities.get(still.app, "past")
    assert (known["end_reason"], known["started_at"], known["version"]) == ("missed", None, 1)
    assert "'past' was not started" in caplog.text
    assert await still.kinds("over") == [("start", "accepted"), ("end", "accepted")]
    still.told.clear()
    await still.scheduler.catch_up()
    assert still.told == []


async def test_the_wall_clock_may_jump(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers do not see a jump; once it has lasted, things are due by the new time."""
    now = world.clock.time()
    await world.activities.start(world.app, a_start(start_at=now + 7200))
    world.scheduler.wake()
    await world.advance(1)
    monkeypatch.setattr(world.clock, "_start", world.clock._start + 2 * HOUR)
    await world.advance(CONFIRMED + LONGEST)
    assert await world.status() == "active"


async def test_more_than_a_batch_is_due(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Step, "batch", 3)
    now = still.clock.time()
    for number in range(10):
        await still.activities.start(
            still.app, a_start(id=f"m{number}", start_at=now + 60 + number, end_at=now + 600)
        )
    still.clock.advance_sync(65.5)
    due = await still.scheduler.catch_up()
    assert due == int((now + 66) * 1000)
    assert sorted(row for _, row in still.told) == [1, 2, 3, 4, 5, 6]
    still.clock.advance_sync(HOUR)
    await still.scheduler.catch_up()
    ended = [row.end_reason for row in await still.rows(schema.activities)]
    assert ended == ["scheduled"] * 6 + ["missed"] * 4


async def test_two_schedulers_do_everything_once(still: World) -> None:
    """As two processes on one database would."""
    now = still.clock.time()
    for number in range(5):
        await still.activities.start(
            still.app, a_start(id=f"m{number}", start_at=now + 60, end_at=now + HOUR)
        )
    other = World(still.database)
    other.clock, other.app = still.clock, still.app
    other.scheduler = Scheduler(still.core, still.activities)
    for passed in (61.0, HOUR):
        still.told.clear()
        still.clock.advance_sync(passed)
        await asyncio.gather(still.scheduler.catch_up(), other.scheduler.catch_up())
        assert sorted(row for _, row in still.told) == [1, 2, 3, 4, 5]
    assert await still.count(schema.operations, schema.operations.c.kind == "end") == 5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"end_presentation": Presentation(dismiss_after=5)}, "end_presentation"),
        (
            {"end_at": 1_800_001_000.0, "end_presentation": Presentation(dismiss_after=-5)},
            "end_presentation.dismiss_after",
        ),
    ],
)
async def test_what_goes_with_an_end_is_checked(
    still: World, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await still.activities.start(still.app, a_start(**changes))
    assert caught.value.field == field
    assert caught.value.remedy


async def test_the_system_ends_a_card_after_eight_hours(world: World) -> None:
    began = world.now
    await world.activities.start(world.app, a_start())
    await world.put_on("match-17", "d0", token="aa")
    await world.put_on("match-17", "d1", token="bb")
    await world.put_on("match-17", "d2")
    await world.activities.update(world.app, Update(id="match-17", content_state={"home": 1}))
    world.scheduler.wake()
    await world.advance(8 * HOUR - 1)
    assert await world.status() == "active"
    await world.advance(2)
    known = await world.activities.get(world.app, "match-17")
    assert (known["status"], known["end_reason"]) == ("ended", "expired")
    assert known["ended_at"] == began + 8 * 3_600_000
    assert known["version"] == 2  # nothing is sent: the phone has ended it already
    assert await world.kinds() == [("start", "accepted"), ("update", "superseded")]
    with pytest.raises(ActivityEnded, match="expired"):
        await world.activities.update(world.app, Update(id="match-17", content_state={}))
    assert world.left == []
    await world.advance(4 * HOUR - 2)
    assert [row.retired_at for row in await world.rows(schema.activity_devices)] == [None] * 3
    await world.advance(2)
    rows = await world.rows(schema.activity_devices)
    assert {row.retired_reason for row in rows} == {"expired"}
    assert sorted(world.left) == [(1, "aa"), (1, "bb")]
    [row] = await world.rows(schema.activities)
    assert row.retired_at is not None
    looks = world.scheduler.looks
    await world.advance(10 * LONGEST)
    assert world.scheduler.looks == looks + 10  # and nothing is due any more


async def test_an_activity_that_was_ended_keeps_its_tokens_until_no_card_can_be_left(
    world: World,
) -> None:
    """A device that has not handed in its token yet must still be ended when it does."""
    await world.activities.start(world.app, a_start())
    await world.put_on("match-17", "d0")
    await world.advance(HOUR)
    await world.activities.end(world.app, End(id="match-17"))
    world.scheduler.wake()
    await world.advance(10 * HOUR)
    assert [row.retired_at for row in await world.rows(schema.activity_devices)] == [None]
    await world.advance(HOUR + 1)
    [row] = await world.rows(schema.activity_devices)
    assert row.retired_reason == "expired"
    known = await world.activities.get(world.app, "match-17")
    assert known["end_reason"] == "requested"


async def test_each_device_counts_from_its_own_start(world: World) -> None:
    """Who joined at the seventh hour is still followed at the fourteenth."""
    began = world.now
    await world.activities.start(world.app, a_start())
    await world.put_on("match-17", "d0", token="aa")
    await world.advance(7 * HOUR)
    await world.put_on(
        "match-17", "d1", token="bb", started_at=None, joined_at=world.now, registered_at=world.now
    )
    await world.advance(2 * HOUR)
    assert await world.status() == "active"
    await world.advance(3 * HOUR + 301)
    first, second = await world.rows(schema.activity_devices)
    assert (first.retired_reason, second.retired_at) == ("expired", None)
    assert world.left == [(1, "aa")]
    assert await world.status() == "active"
    await world.advance(3 * HOUR)
    known = await world.activities.get(world.app, "match-17")
    assert (known["end_reason"], known["ended_at"]) == ("expired", began + 15 * 3_600_000)
    await world.advance(4 * HOUR)
    assert world.left == [(1, "aa"), (1, "bb")]


async def test_an_activity_of_unknown_expiry_is_looked_at(still: World) -> None:
    """One that a device began has no time set: it is worked out, and nothing is ended early."""
    await still.activities.start(still.app, a_start(id="a"))
    await still.activities.start(still.app, a_start(id="b"))
    await still.activities.end(still.app, End(id="b"))
    await still.put_on("b", "d0")
    async with still.database.write() as connection:
        await connection.execute(update(schema.activities).values(expires_at=0))
    await still.scheduler.catch_up()
    rows = await still.rows(schema.activities)
    assert [row.expires_at for row in rows] == [still.now + 8 * 3_600_000] * 2
    assert [row.retired_at for row in rows] == [None, None]
    assert still.left == []


async def test_many_tokens_are_retired_in_batches(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "TOKENS", 2)
    await still.activities.start(still.app, a_start())
    for number in range(5):
        await still.put_on("match-17", f"x{number}", token=f"{number:02x}")
    still.clock.advance_sync(12 * HOUR + 1)
    await still.scheduler.catch_up()
    assert sorted(token for _, token in still.left) == ["00", "01", "02", "03", "04"]
    [row] = await still.rows(schema.activities)
    assert (row.status, row.end_reason) == ("ended", "expired")
    assert row.retired_at is not None


async def test_a_token_that_does_not_come_is_reported_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.activities.start(world.app, a_start())
    await world.put_on("match-17", "d0", token="aa")
    await world.put_on("match-17", "d1")
    await world.put_on("match-17", "d2")
    world.scheduler.wake()
    caplog.set_level(logging.INFO)
    await world.advance(59)
    assert "no token" not in caplog.text
    await world.advance(2)
    assert "'match-17' of the app" in caplog.text
    assert "on 2 devices that sent no token within 60 s" in caplog.text
    known = await world.activities.get(world.app, "match-17")
    assert (known["devices"], known["queued"], known["missing"]) == (1, 2, 2)
    [operation] = await world.operations.page(world.app)
    assert operation["missing"] == 2
    assert world.changed == [([1], [operation["row"]])]
    caplog.clear()
    await world.advance(HOUR)
    assert "no token" not in caplog.text
    # One comes after all: it is no longer missing, though it was.
    async with world.database.write() as connection:
        table = schema.activity_devices
        await connection.execute(update(table).where(table.c.id == 2).values(token="bb"))
    known = await world.activities.get(world.app, "match-17")
    assert (known["devices"], known["queued"], known["missing"]) == (2, 1, 1)
    assert (await world.operations.page(world.app))[0]["missing"] == 2


async def test_no_token_is_expected_of_an_activity_that_follows_a_channel(
    still: World, caplog: pytest.LogCaptureFixture
) -> None:
    channel = "dHN0LXNyY2gtY2hubA=="
    await still.activities.start(still.app, a_start(channel=channel, hand_over_after=0))
    await still.put_on("match-17", "d0", by_channel=True)
    still.clock.advance_sync(61)
    began = still.now - 61_000
    assert await still.scheduler.catch_up() == began + 600_000  # no answer is expected either
    assert "no token" not in caplog.text
    assert (await still.operations.page(still.app))[0]["missing"] == 0
    still.clock.advance_sync(600)
    assert await still.scheduler.catch_up() == began + 8 * 3_600_000


async def test_late_tokens_are_found_in_batches_and_by_their_own_start(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MissingTokens, "batch", 2)
    await still.activities.start(still.app, a_start())
    for number in range(7):
        await still.put_on("match-17", f"x{number}")
        still.clock.advance_sync(2)
    still.clock.advance_sync(56)  # the first started 70 seconds ago, the last 58
    due = await still.scheduler.catch_up()
    assert (await still.operations.page(still.app))[0]["missing"] == 6
    assert due == still.now + 2_000


async def test_it_goes_on_after_the_store_failed(still: World) -> None:
    """The service starts it again; what was due is still due."""
    now = still.clock.time()
    await still.activities.start(still.app, a_start(end_at=now + 60))
    still.clock.advance_sync(61)
    original = still.activities.change_within

    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the disk is full")

    still.activities.change_within = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="disk"):
        await still.scheduler.catch_up()
    assert await still.status() == "active"
    still.activities.change_within = original  # type: ignore[method-assign]
    await still.scheduler.catch_up()
    assert await still.status() == "ended"


async def test_no_look_scans_a_table(still: World) -> None:
    now = still.clock.time()
    await still.activities.start(still.app, a_start(id="due", start_at=now + 60))
    await still.activities.start(
        still.app, a_start(id="missed", start_at=now + 60, end_at=now + 70)
    )
    await still.activities.start(still.app, a_start(id="over", end_at=now + 60))
    await still.activities.start(still.app, a_start(id="old"))
    await still.put_on("old", "d0", token="aa")
    await still.put_on("old", "d1")
    async with every_query_indexed(still.database, small={"apps"}):
        for passed in (61, 8 * HOUR, 4 * HOUR):
            still.clock.advance_sync(passed)
            await still.scheduler.catch_up()
    assert await still.status("old") == "ended"
