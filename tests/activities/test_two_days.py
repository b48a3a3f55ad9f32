"""Forty-eight hours on the simulated clock, over real sockets and databases, against the phones.

A stream that is put every few minutes, matches that begin and end by the clock, a device that hands
in its tokens late, a limit for each device, and tables that are pruned. Time passes from timer to
timer; at each the test waits until sockets, threads and the database are at rest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs

from apns_live.activities import App, Audience, Presentation, ServiceSettings, Start, Update
from apns_live.activities.due import scheduler as scheduling
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.delivery import lanes
from apns_live.testing import FakeApns, SimulatedClock
from tests.activities.send.world import ALERT, TYPE, World, phone_settings
from tests.counts import count

HOUR = 3600.0
EVERY = count(900, soak=450)
"""Seconds between two puts."""
DAYS = 2
PHONES = 3
LATE = 2
"""The phone that hands in its tokens late, for some hours of the first day."""
MATCHES = ("morning", "first", "second", "long")
TABLES = (
    schema.outcomes,
    schema.operations,
    schema.activities,
    schema.activity_devices,
    schema.intended_pages,
)


class TwoDays(World):
    """A world whose days pass from timer to timer."""

    stride = HOUR

    def __init__(self, fake: FakeApns, clock: SimulatedClock, database: Database) -> None:
        super().__init__(fake, clock, database)
        self.settings = ServiceSettings(
            drain=0.0,
            client={"max_connections": 2, "response_timeout": 30.0},
            device_limit=2,
            device_limit_ends="least relevant",
            outcome_days=0.25,
            activity_days=0.25,
            token_wait=600.0,
            key_check=6 * HOUR,
        )
        self.late: list[Any] = []
        self.hold_late = False

    async def hand_in(self, app: App | None = None) -> int:
        late = [record for record in self.handed_in if record.device.endswith(f"-{LATE}")]
        if self.hold_late:
            self.late += late
            self.handed_in = [record for record in self.handed_in if record not in late]
        return await super().hand_in(app) if self.handed_in else 0

    @property
    def sent(self) -> int:
        """How many pushes APNs has taken."""
        return self.fake.pushes[-1].number if len(self.fake.pushes) else 0

    async def counts(self) -> dict[str, int]:
        return {table.name: await self.count(table) for table in TABLES}


def up_on(phone: Any) -> list[tuple[str, Any]]:
    """The active cards of a phone with their names; those of the stream are called so."""
    return [
        (name if name in MATCHES else "stream", activity)
        for activity in phone.activities
        if activity.state == "active"
        for name in [json.loads(activity.attributes)["activity"]]
    ]


def cards(phone: Any) -> dict[str, Any]:
    """What they say."""
    return {name: json.loads(activity.content)["n"] for name, activity in up_on(phone)}


def a_put(n: float) -> Start:
    return Start(
        attributes_type=TYPE,
        id_attribute="activity",
        content_state={"n": n},
        presentation=Presentation(alert=ALERT, relevance_score=100.0),
        audience=Audience(everyone=True),
        stream_key="backup",
    )


def a_match(name: str, begin: float, end: float, score: float) -> Start:
    return Start(
        id=name,
        attributes_type=TYPE,
        attributes={"activity": name},
        content_state={"n": 0},
        presentation=Presentation(alert=ALERT, relevance_score=score),
        audience=Audience(everyone=True),
        start_at=begin,
        end_at=end,
        end_presentation=Presentation(dismiss_after=60.0),
    )


@pytest.fixture
async def world(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TwoDays]:
    monkeypatch.setattr(scheduling, "LONGEST", 600.0)
    monkeypatch.setattr(lanes, "HOUSEKEEPING", 60.0)
    clock = SimulatedClock()
    async with FakeApns(clock=clock, devices="strict", phone_settings=phone_settings()) as fake:
        world = TwoDays(fake, clock, database)
        await world.open()
        world.app = await world.add_app()
        yield world
        await world.close()


async def test_two_days(world: TwoDays) -> None:
    phones = await world.add_phones(PHONES)
    activities, streams = world.service.activities, world.service.streams
    begin = world.clock.time()
    hours = lambda after: begin + after * HOUR  # noqa: E731
    await activities.start(world.app, a_match("morning", hours(10), hours(12), 50.0))
    await activities.start(world.app, a_match("first", hours(20), hours(23), 10.0))
    await activities.start(world.app, a_match("second", hours(21), hours(23), 20.0))
    did: Counter[str] = Counter()
    largest = [dict.fromkeys((table.name for table in TABLES), 0) for _ in range(DAYS)]
    up = {phone.id: Counter[str]() for phone in phones}
    stream_ids: dict[str, str] = {}
    stream_cards: dict[str, set[str]] = {phone.id: set() for phone in phones}
    n = 0
    for step in range(int(DAYS * 24 * HOUR / EVERY)):
        await world.pass_to(step * EVERY)
        hour = step * EVERY / HOUR
        world.hold_late = 7 <= hour < 9  # the first renewal comes in these hours
        if not world.hold_late and world.late:
            world.handed_in += world.late
            world.late = []
        if step % 2 == 0:
            n += 1
        pushes = world.sent
        put = (await streams.put(world.app, a_put(n if step % 4 else float(n)))).answer
        did[put.operation] += 1
        if put.operation == "noop":
            await world.pass_to(step * EVERY + 5)
            assert world.sent == pushes, "a noop sent something"
        else:
            await world.pass_to(step * EVERY + 30)
        for phone in phones:
            shown = cards(phone)
            assert len(shown) <= 2, f"{phone.id} is over its limit at hour {hour}"
            behind = phone is phones[LATE] and (world.hold_late or world.late)
            assert "stream" in shown, f"no card of the stream on {phone.id} at hour {hour}"
            if not behind:
                assert shown["stream"] == n, f"{phone.id} shows an old state at hour {hour}"
            of_stream = [activity for name, activity in up_on(phone) if name == "stream"]
            # Without the new card's token the old one stays, until iOS ends it.
            assert len(of_stream) == 1 or (behind and 7.5 <= hour <= 8)
            assert world.clock.time() - of_stream[0].started_at < 8 * HOUR
            stream_cards[phone.id].update(card.id for card in of_stream)
            up[phone.id].update(name for name in shown if name != "stream")
        if put.activity is not None:
            stream_ids.setdefault(put.activity, put.operation)
        if hour == 8.5:
            known = await activities.get(world.app, str(put.activity))
            assert (known["devices"], known["queued"], known["missing"]) == (2, 1, 1)
        if step % 8 == 0:
            day = largest[int(hour // 24)]
            for name, rows in (await world.counts()).items():
                day[name] = max(day[name], rows)

    assert did["started"] == 1
    assert did["noop"] == did["updated"] + did["started"]
    assert list(stream_ids.values()) == ["started"]
    # Six more cards for each phone: every seven and a half hours.
    assert [len(seen) for seen in stream_cards.values()] == [7] * PHONES
    # No card of the stream was left to the system, but the one whose successor's token came late.
    for phone in phones:
        ended_by = [activity.ended_by for activity in phone.activities]
        assert ended_by.count("system") <= (phone is phones[LATE])
        assert set(ended_by) <= {"push", "system", None}
    # The matches came and went by the clock; at hour 21 the less relevant one gave way.
    for seen in up.values():
        assert seen["morning"] == 2 * HOUR / EVERY
        assert seen["first"] == 1 * HOUR / EVERY
        assert seen["second"] == 2 * HOUR / EVERY
    # What is past its time was pruned: the second day needs no more than the first.
    first, second = largest
    for name, most in first.items():
        assert second[name] <= most * 1.1 + 10, (name, first, second)
    assert world.service.pruning.rounds >= 40
    assert world.service.pruning.deleted > 225_000 / EVERY
    statistics = world.service.statistics()
    assert statistics.living <= 3
    assert statistics.unwritten == 0


async def test_an_activity_that_nobody_ends_is_over_after_eight_hours(world: TwoDays) -> None:
    phones = await world.add_phones(PHONES)
    activities = world.service.activities
    start = a_match("long", world.clock.time() + 60, world.clock.time() + 40 * HOUR, 1.0)
    start = structs.replace(start, hand_over_after=0)
    await activities.start(world.app, start)
    for hour in range(1, 8):
        await world.pass_to(hour * HOUR)
        await activities.update(world.app, Update(id="long", content_state={"n": hour}))
        await world.pass_to(hour * HOUR + 30)
        assert [cards(phone) for phone in phones] == [{"long": hour}] * PHONES
    await world.pass_to(8 * HOUR + 120)
    assert [cards(phone) for phone in phones] == [{}] * PHONES
    known = await activities.get(world.app, "long")
    assert (known["status"], known["end_reason"]) == ("ended", "expired")
    pushes = world.sent
    await world.pass_to(11 * HOUR)
    assert [phone.activities[-1].state for phone in phones] == ["ended"] * PHONES
    await world.pass_to(13 * HOUR)
    assert [phone.activities[-1].state for phone in phones] == ["dismissed"] * PHONES
    assert {row.retired_reason for row in await world.members()} == {"expired"}
    assert world.sent == pushes  # nothing was sent to cards that were over
    assert world.service.statistics().tokens == 0
    await world.pass_to(20 * HOUR)
    assert await world.count(schema.activities) == 0
    assert world.service.statistics().living == 0
