"""What the app reports: kept once, the newest time counts, and a card that is gone gets no pushes."""

from typing import Any

import pytest

from apns_live.activities.accept.notifications import Notifications
from apns_live.activities.accept.receipts import MAX_RECORDS, ReceiptRecord, Receipts
from apns_live.activities.requests import Audience
from apns_live.activities.requests.notify import Notify
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.errors import InvalidInput, NotFound
from tests.activities.plans import every_query_indexed
from tests.activities.world import Rooms, a_start


class World(Rooms):
    async def open(self) -> None:
        await self.fill(3)
        self.left: list[tuple[int, str]] = []
        self.core.hooks.left = lambda activity, token: self.left.append((activity, token))
        self.receipts = Receipts(self.core)
        await self.activities.start(self.app, a_start())
        notifications = Notifications(self.core)
        answer = await notifications.send(
            self.app, Notify(audience=Audience(everyone=True), title="Hello")
        )
        self.notification = answer.answer.operation

    async def told(self, event: str, device: str = "d0", **about: Any) -> int:
        about = about or {"activity": "match-17"}
        return await self.receipts.record(
            self.app, [ReceiptRecord(device=device, event=event, **about)]
        )


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database)
    await world.open()
    return world


async def test_a_receipt_is_kept_once_with_its_newest_time(world: World) -> None:
    now = world.now
    for at in (now - 500, now - 100, now - 900, now + 60_000):
        assert await world.told("received", activity="match-17", at=at) == 1
    await world.told("clicked")
    await world.told("received", device="d1")
    rows = await world.receipts.page(world.app, activity="match-17")
    assert [(row["device"], row["event"], row["happened_at"]) for row in rows] == [
        ("d0", "received", now),  # a time of the future is cut
        ("d0", "clicked", now),
        ("d1", "received", now),
    ]
    assert await world.receipts.counters(world.app, activity="match-17") == {
        "received": 2,
        "clicked": 1,
        "dismissed": 0,
        "ended": 0,
        "confirmed": 0,
    }


async def test_an_older_report_changes_nothing(world: World) -> None:
    await world.told("received", activity="match-17", at=world.now - 100)
    await world.told("received", activity="match-17", at=world.now - 500)
    [row] = await world.receipts.page(world.app)
    assert row["happened_at"] == world.now - 100


async def test_repeats_within_one_batch_are_one(world: World) -> None:
    now = world.now
    records = [
        ReceiptRecord(device="d0", event="received", operation=world.notification, at=now - n)
        for n in (5, 2, 9)
    ]
    assert await world.receipts.record(world.app, records) == 3
    [row] = await world.receipts.page(world.app, operation=world.notification)
    assert row == {
        "row": row["row"],
        "device": "d0",
        "event": "received",
        "activity": None,
        "operation": world.notification,
        "happened_at": now - 2,
        "created_at": now,
    }
    assert (await world.receipts.counters(world.app, operation=world.notification))["received"] == 1


async def test_pages_belong_to_an_app_and_a_subject(world: World) -> None:
    await world.told("received")
    await world.told("received", operation=world.notification)
    await world.told("clicked", device="d2")
    first = await world.receipts.page(world.app, limit=2)
    rest = await world.receipts.page(world.app, after=first[-1]["row"], limit=2)
    assert [(row["event"], row["activity"]) for row in first + rest] == [
        ("received", "match-17"),
        ("received", None),
        ("clicked", "match-17"),
    ]
    assert await world.receipts.page(world.other) == []
    for about in ({"activity": "match-17"}, {"operation": world.notification}):
        with pytest.raises(NotFound):
            await world.receipts.page(world.other, **about)
    with pytest.raises(InvalidInput, match="an activity or an operation"):
        await world.receipts.page(world.app, activity="match-17", operation=world.notification)
    with pytest.raises(InvalidInput, match="Name an activity or an operation"):
        await world.receipts.counters(world.app)


@pytest.mark.parametrize("event", ["dismissed", "ended"])
async def test_a_card_that_is_gone_gets_no_more_pushes(world: World, event: str) -> None:
    await world.put_on("match-17", "d0", token="aa")
    await world.put_on("match-17", "d1", token="bb")
    await world.put_on("match-17", "d2")
    await world.told("clicked")
    assert world.left == []
    await world.told(event)
    await world.told(event, device="d2")
    rows = await world.rows(schema.activity_devices)
    assert [(row.retired_at, row.retired_reason) for row in rows] == [
        (world.now, event),
        (None, None),
        (world.now, event),
    ]
    assert world.left == [(world.written[0], "aa")]  # d2 had handed in no token
    await world.told(event)
    assert len(world.left) == 1


async def test_a_receipt_of_a_notification_retires_nothing(world: World) -> None:
    await world.put_on("match-17", "d0", token="aa")
    await world.told("dismissed", operation=world.notification)
    [row] = await world.rows(schema.activity_devices)
    assert row.retired_at is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"event": "seen"}, "receipts[1].event"),
        ({"event": 5}, "receipts[1].event"),
        ({"device": ""}, "receipts[1].device"),
        ({"device": "nobody"}, "receipts[1].device"),
        ({"device": 7}, "receipts[1].device"),
        ({"activity": None}, "receipts[1].activity"),
        ({"operation": "id-2"}, "receipts[1].activity"),
        ({"activity": "no-match"}, "receipts[1].activity"),
        ({"activity": "a\nb"}, "receipts[1].activity"),
        ({"activity": None, "operation": "none"}, "receipts[1].operation"),
        ({"at": 1_800_000_000}, "receipts[1].at"),
        ({"at": "now"}, "receipts[1].at"),
        ({"at": True}, "receipts[1].at"),
    ],
)
async def test_a_bad_receipt_is_refused_with_all_of_its_batch(
    world: World, changes: dict[str, Any], field: str
) -> None:
    good = {"device": "d0", "event": "received", "activity": "match-17"}
    records = [ReceiptRecord(**good), ReceiptRecord(**{**good, **changes})]
    with pytest.raises(InvalidInput) as caught:
        await world.receipts.record(world.app, records)
    assert caught.value.field == field
    assert caught.value.problem
    assert caught.value.remedy
    assert await world.count(schema.receipts) == 0


async def test_another_apps_devices_are_unknown(world: World) -> None:
    with pytest.raises(InvalidInput, match="the app has no device"):
        await world.receipts.record(
            world.other, [ReceiptRecord(device="d0", event="received", activity="match-17")]
        )


async def test_a_batch_is_bounded(world: World) -> None:
    record = ReceiptRecord(device="d0", event="received", activity="match-17")
    with pytest.raises(InvalidInput, match="at most 1,000 at once"):
        await world.receipts.record(world.app, [record] * (MAX_RECORDS + 1))


async def test_no_query_scans_a_table(world: World) -> None:
    await world.put_on("match-17", "d0", token="aa")
    async with every_query_indexed(world.database):
        await world.told("dismissed")
        await world.told("received", operation=world.notification)
        await world.receipts.page(world.app)
        await world.receipts.page(world.app, activity="match-17")
        await world.receipts.page(world.app, operation=world.notification)
        await world.receipts.counters(world.app, activity="match-17")
