"""Start tokens whose starts no phone answers, on the simulated clock: counted, marked, cleared."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, update

from apns_live.activities.accept.receipts import ReceiptRecord, Receipts
from apns_live.activities.accept.tokens import Joining
from apns_live.activities.due.missing import UnansweredStarts
from apns_live.activities.due.scheduler import Scheduler
from apns_live.activities.people.directory import Directory
from apns_live.activities.people.records import DeviceRecord, TokenRecord
from apns_live.activities.read.diagnosis import diagnose
from apns_live.activities.send.results import Batch, write
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from tests.activities.plans import every_query_indexed
from tests.activities.world import Rooms, a_start

WAIT = 600.0


class World(Rooms):
    """The rooms, and a scheduler that looks when it is told to."""

    async def open(self) -> None:
        await self.fill()
        self.joining = Joining(self.core)
        self.receipts = Receipts(self.core)
        self.directory = Directory(self.core)
        self.scheduler = self.a_scheduler()
        self.started = 0
        await self.told("aa")
        self.clock.advance_sync(1)

    def a_scheduler(self) -> Scheduler:
        return Scheduler(self.core, self.activities)

    async def told(self, token: str, device: str = "d0") -> None:
        """Register a push-to-start token of now."""
        record = TokenRecord(
            device=device, kind="start", token=token, registered_at=self.now, scope="Match"
        )
        await self.devices.register(self.app, [record])

    async def card(self, device: str = "d0", **changes: Any) -> str:
        """Start a card that APNs accepted; return its activity's id."""
        self.started += 1
        name = f"card-{self.started}"
        await self.activities.start(self.app, a_start(id=name, **changes))
        await self.put_on(name, device, by_channel="channel" in changes)
        return name

    async def passes(self, seconds: float = WAIT + 1) -> None:
        """Let time pass, then let the scheduler look."""
        self.clock.advance_sync(seconds)
        await self.scheduler.catch_up()

    async def hand_in(self, activity: str, token: str = "cc", device: str = "d0") -> None:
        record = TokenRecord(
            device=device, kind="activity", token=token, registered_at=self.now, scope=activity
        )
        await self.joining.register_activity_tokens(self.app, [record], attributes_type="Match")

    async def silent(self, device: str = "d0") -> tuple[int, bool]:
        """Return the unanswered starts in a row, and whether the token is suspect."""
        [token] = (await self.devices.get(self.app, device))["start_tokens"]
        [listed] = [
            one
            for one in await self.directory.tokens(self.app, device)
            if one["kind"] == "start" and one["retired_at"] is None
        ]
        assert listed["suspect"] == token["suspect"]
        return token["unanswered_starts"], token["suspect"]


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database)
    await world.open()
    return world


async def test_two_starts_in_a_row_without_an_answer_make_a_token_suspect(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.card()
    await world.passes(WAIT - 1)
    assert await world.silent() == (0, False)
    await world.passes(2)
    assert await world.silent() == (1, False)
    await world.passes()
    assert await world.silent() == (1, False), "one start counts once"
    await world.card()
    await world.passes()
    assert await world.silent() == (2, True)
    assert world.scheduler.suspected == 1
    assert "1 push-to-start tokens are suspect" in caplog.text
    found = await diagnose(world.database, world.devices, world.app, "d0", world.now)
    [failed] = [one for one in found if one.state == "fail" and one.check == "start token"]
    assert "its last 2 starts brought neither" in failed.said
    assert failed.remedy
    await world.card()
    await world.passes()
    assert await world.silent() == (3, True)
    assert world.scheduler.suspected == 1, "it became suspect once"


async def answers_with_a_token(world: World, card: str) -> None:
    await world.hand_in(card)


async def answers_with_a_receipt(world: World, card: str) -> None:
    await world.receipts.record(
        world.app, [ReceiptRecord(device="d0", activity=card, event="received")]
    )


async def answers_with_a_new_token(world: World, card: str) -> None:
    await world.told("bb")


async def says_that_pushes_are_off(world: World, card: str) -> None:
    await world.devices.tell(world.app, [DeviceRecord(id="d0", push_enabled=False)])


@pytest.mark.parametrize(
    "answers",
    [
        answers_with_a_token,
        answers_with_a_receipt,
        answers_with_a_new_token,
        says_that_pushes_are_off,
    ],
)
@pytest.mark.parametrize("starts", [1, 2])
async def test_an_answer_clears_the_count(world: World, answers: Any, starts: int) -> None:
    cards = []
    for _ in range(starts):
        cards.append(await world.card())
        await world.passes()
    assert await world.silent() == (starts, starts == 2)
    await answers(world, cards[-1])
    assert await world.silent() == (0, False)
    await world.passes()
    assert await world.silent() == (0, False)


async def test_the_same_token_told_again_clears_nothing(world: World) -> None:
    for _ in range(2):
        await world.card()
        await world.passes()
    await world.told("aa")
    assert await world.silent() == (2, True)


async def test_a_start_that_is_answered_in_time_is_never_counted(world: World) -> None:
    await world.card()
    await world.passes()
    card = await world.card()
    await world.hand_in(card)
    await world.passes()
    await world.card()
    await world.passes()
    assert await world.silent() == (1, False), "they were not in a row"


async def test_an_answer_to_a_later_start_outweighs_an_earlier_silence(world: World) -> None:
    await world.card()
    world.clock.advance_sync(300)
    answered = await world.card()
    await world.hand_in(answered)
    await world.passes(301)
    assert await world.silent() == (0, False)
    await world.card()
    await world.passes()
    assert await world.silent() == (1, False)


async def test_a_card_that_the_app_began_by_itself_answers_no_start(world: World) -> None:
    for _ in range(2):
        await world.card()
        await world.passes()
    await world.hand_in("by-itself")
    assert await world.silent() == (2, True)


async def on_a_channel(world: World) -> None:
    await world.card(channel="dHN0LXNyY2gtY2hubA==")


async def with_pushes_off(world: World) -> None:
    await world.devices.tell(world.app, [DeviceRecord(id="d0", push_enabled=False)])
    await world.card()


async def before_a_new_token(world: World) -> None:
    await world.card()
    world.clock.advance_sync(1)
    await world.told("bb")


async def with_an_unknown_outcome(world: World) -> None:
    await world.card()
    [*_, member] = await world.rows(schema.activity_devices)
    async with world.database.write() as connection:
        batch = Batch(doubtful=[(member.activity_id, member.device_id)])
        await write(connection, batch, now=world.now)


async def swiped_away(world: World) -> None:
    card = await world.card()
    await world.receipts.record(
        world.app, [ReceiptRecord(device="d0", activity=card, event="dismissed")]
    )


@pytest.mark.parametrize(
    "silence",
    [on_a_channel, with_pushes_off, before_a_new_token, with_an_unknown_outcome, swiped_away],
)
async def test_a_silence_with_another_cause_counts_for_nothing(world: World, silence: Any) -> None:
    for _ in range(2):
        await silence(world)
        await world.passes()
        await world.passes()
    assert await world.silent() == (0, False)


@pytest.mark.parametrize("silences", [1, 2])
async def test_a_token_that_apns_refused_is_retired_and_not_suspect(
    world: World, silences: int
) -> None:
    for _ in range(silences):
        await world.card()
        await world.passes()
    await world.card()
    async with world.database.write() as connection:
        refused = [(world.app.row, "aa", world.now, "Unregistered")]
        await write(connection, Batch(refused_starts=refused), now=world.now)
    await world.passes()
    [token] = await world.directory.tokens(world.app, "d0")
    assert (token["retired_reason"], token["suspect"]) == ("Unregistered", False)
    assert world.scheduler.suspected == silences - 1


async def test_a_start_counts_when_it_is_through(world: World) -> None:
    """Until then some devices are intended, and APNs has not accepted their starts."""
    await world.card()
    table = schema.operations
    for status, counted in (("running", 0), ("done", 1)):
        async with world.database.write() as connection:
            await connection.execute(update(table).values(status=status))
        await world.passes()
        assert (await world.silent())[0] == counted


async def test_each_device_and_type_counts_by_itself(world: World) -> None:
    await world.told("bb", "d1")
    world.clock.advance_sync(1)
    other = TokenRecord(
        device="d0", kind="start", token="ee", registered_at=world.now, scope="Score"
    )
    await world.devices.register(world.app, [other])
    for _ in range(2):
        card = await world.card()
        await world.put_on(card, "d1", token="dd")
        await world.passes()
    known = (await world.devices.get(world.app, "d0"))["start_tokens"]
    assert {one["attributes_type"]: one["unanswered_starts"] for one in known} == {
        "Match": 2,
        "Score": 0,
    }
    assert await world.silent("d1") == (0, False)


async def test_two_starts_that_are_overdue_together_both_count(world: World) -> None:
    await world.card()
    await world.card()
    await world.passes()
    assert await world.silent() == (2, True)
    assert world.scheduler.suspected == 1


async def test_two_schedulers_count_a_start_once(world: World) -> None:
    other = world.a_scheduler()
    await world.card()
    world.clock.advance_sync(WAIT + 1)
    await asyncio.gather(world.scheduler.catch_up(), other.catch_up())
    assert await world.silent() == (1, False)


async def test_many_are_counted_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnansweredStarts, "batch", 2)
    names = [f"x{number}" for number in range(5)]
    for number, name in enumerate(names):
        await world.told(f"{number:04x}", name)
    world.clock.advance_sync(1)
    card = await world.card()
    for name in names:
        await world.put_on(card, name)
    await world.passes()
    assert [await world.silent(name) for name in names] == [(1, False)] * 5


async def test_nothing_of_it_scans_a_table(world: World) -> None:
    first = await world.card()
    await world.passes()
    await world.card()
    async with every_query_indexed(world.database, small={"apps"}):
        await world.passes()
        await world.hand_in(first)
        await answers_with_a_receipt(world, first)
        await says_that_pushes_are_off(world, first)
    assert await world.silent() == (0, False)


async def test_the_next_look_is_when_the_next_start_is_overdue(world: World) -> None:
    await world.card()
    world.clock.advance_sync(100)
    await world.scheduler.catch_up()
    row = await world.database.row(select(schema.activity_devices.c.started_at))
    assert row is not None
    assert await world.scheduler.catch_up() == row.started_at + WAIT * 1000
