"""A device over its limit: the oldest or least relevant activity ends there, and only there."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from apns_live.activities import Audience, Presentation, TokenRecord
from apns_live.activities.accept.receipts import ReceiptRecord
from apns_live.activities.send import limits
from apns_live.activities.store import schema
from tests.activities.plans import every_query_indexed
from tests.activities.send.world import ALERT, World, a_start, an_update


async def limited(world: World, most: int | None, **changes: Any) -> None:
    await world.close()
    world.settings = replace(world.settings, device_limit=most, **changes)
    await world.open()


def states(phone: Any) -> dict[str, str]:
    """What became of each activity on a phone, by its id."""
    return {
        json.loads(activity.attributes)["activity"]: activity.state for activity in phone.activities
    }


async def start(world: World, name: str, *phones: Any, score: float | None = None) -> None:
    """Start an activity on some phones and see it there, with its token handed in."""
    await world.service.activities.start(
        world.app,
        a_start(
            name,
            audience=Audience(devices=tuple(phone.id for phone in phones)),
            presentation=Presentation(alert=ALERT, relevance_score=score),
        ),
    )
    await world.until(lambda: all(states(phone).get(name) == "active" for phone in phones))
    await world.until(
        lambda: all(
            activity.token is not None for phone in phones for activity in phone.activities[-1:]
        )
    )
    await world.settled()


async def ended(world: World, phone: Any, name: str) -> None:
    sender = world.service.courier.limits
    await world.until(lambda: states(phone).get(name) == "dismissed" and not sender.busy)


async def test_the_oldest_gives_way_on_the_crowded_device_alone(world: World) -> None:
    await limited(world, 2)
    first, second = await world.add_phones(2)
    for name in ("a", "b"):
        await start(world, name, first, second)
        await world.pass_time(1)
    await start(world, "c", first)
    await ended(world, first, "a")
    assert states(first) == {"a": "dismissed", "b": "active", "c": "active"}
    assert states(second) == {"a": "active", "b": "active"}
    # It lives on where there is room, and nothing more is sent to the device that it left.
    pushes = len(world.fake.pushes)
    await world.service.activities.update(world.app, an_update(7, "a"))
    await world.until(lambda: world.state_of(second, "a") == 7)
    await world.settled()
    assert len(world.fake.pushes) == pushes + 1
    assert world.service.courier.limits.ended == 1
    known = await world.service.activities.get(world.app, "a")
    assert (known["status"], known["devices"], known["queued"]) == ("active", 1, 0)
    row = next(row for row in await world.members() if row.retired_reason)
    assert (row.retired_reason, row.ending_at) == ("limit", None)
    # It stands in the history of the activity that gave way, with the device's outcome.
    history = [
        entry async for page in world.service.activities.history(world.app, "a") for entry in page
    ]
    assert [entry["kind"] for entry in history] == ["start", "limit", "update"]
    limit = history[1]
    assert (limit["status"], limit["targeted"], limit["accepted"]) == ("done", 1, 1)
    [outcome] = await world.service.operations.outcomes(world.app, limit["operation"])
    assert (outcome["device"], outcome["verdict"], outcome["status"]) == (first.id, "accepted", 200)
    # What comes next is still counted where it belongs.
    assert (await world.service.operations.get(world.app, history[2]["operation"]))["accepted"] == 1


async def test_the_least_relevant_gives_way_if_so_set(world: World) -> None:
    await limited(world, 2, device_limit_ends="least relevant")
    [phone] = await world.add_phones(1)
    await start(world, "a", phone, score=80.0)
    await start(world, "b", phone, score=10.0)
    await start(world, "c", phone, score=1.0)
    await ended(world, phone, "b")
    assert states(phone) == {"a": "active", "b": "dismissed", "c": "active"}


async def test_a_swiped_away_card_frees_its_slot_when_the_app_says_so(world: World) -> None:
    await limited(world, 2)
    [phone] = await world.add_phones(1)
    for name in ("a", "b"):
        await start(world, name, phone)
        await world.pass_time(1)
    card = phone.activities[-1]
    world.fake.devices.dismiss(card)
    swiped = ReceiptRecord(device=phone.id, event="dismissed", activity="b")
    await world.service.receipts.record(world.app, [swiped])
    await start(world, "c", phone)
    assert states(phone) == {"a": "active", "b": "dismissed", "c": "active"}
    assert world.service.courier.limits.ended == 0
    await start(world, "d", phone)
    await ended(world, phone, "a")
    assert states(phone)["c"] == "active"


async def test_an_app_may_have_a_limit_of_its_own(world: World) -> None:
    world.app = await world.service.apps.configure(world.app, {"device_limit": 1})
    [phone] = await world.add_phones(1)
    for name in ("a", "b", "c"):
        await start(world, name, phone)
    await ended(world, phone, "b")
    assert states(phone) == {"a": "dismissed", "b": "dismissed", "c": "active"}


async def test_without_a_limit_all_stay(world: World) -> None:
    [phone] = await world.add_phones(1)
    for name in ("a", "b", "c", "d"):
        await start(world, name, phone)
    assert set(states(phone).values()) == {"active"}


@pytest.mark.one_process("asks one process whether it is busy")
async def test_one_without_a_token_is_ended_when_it_hands_it_in(world: World) -> None:
    await limited(world, 1)
    world.registering = False
    [phone] = await world.add_phones(1)
    await world.service.activities.start(world.app, a_start("a"))
    await world.until(lambda: len(world.handed_in) == 1)
    await world.service.activities.start(world.app, a_start("b"))
    await world.until(lambda: len(world.handed_in) == 2)
    await world.pass_time(2)
    assert states(phone) == {"a": "active", "b": "active"}
    world.registering = True
    await ended(world, phone, "a")
    assert states(phone)["b"] == "active"
    # A token that it gets later changes nothing: it has been ended.
    again = TokenRecord(
        device=phone.id, kind="activity", token="ab" * 32, registered_at=world.now(), scope="a"
    )
    await world.service.tokens.register_activity_tokens(world.app, [again])
    await world.settled()
    row = next(row for row in await world.members() if row.token == "ab" * 32)
    assert (row.retired_reason, row.ending_at) == ("limit", None)


async def test_a_device_that_starts_one_by_itself_makes_room_too(world: World) -> None:
    await limited(world, 1)
    [phone] = await world.add_phones(1)
    await start(world, "a", phone)
    own = TokenRecord(
        device=phone.id, kind="activity", token="cd" * 32, registered_at=world.now(), scope="own"
    )
    await world.service.tokens.register_activity_tokens(world.app, [own])
    await ended(world, phone, "a")
    rows = {row.token: row for row in await world.members()}
    assert rows["cd" * 32].retired_at is None
    assert rows["cd" * 32].joined_at is not None


async def test_what_follows_a_channel_counts_and_stays(world: World) -> None:
    await limited(world, 1)
    made = await world.result_of(world.service.channels.create(world.app))
    channel = made.answer.id
    [phone] = await world.add_phones(1, os_version="18.0")
    await world.service.activities.start(world.app, a_start("a", channel=channel))
    await world.until(lambda: states(phone) == {"a": "active"})
    await world.service.activities.start(world.app, a_start("b"))
    await world.until(lambda: states(phone).get("b") == "active")
    await world.settled()
    await world.pass_time(1)
    assert states(phone) == {"a": "active", "b": "active"}


@pytest.mark.one_process("another process continues at once")
async def test_an_end_that_is_owed_survives_a_restart(world: World) -> None:
    await limited(world, 1)
    [phone] = await world.add_phones(1)
    await start(world, "a", phone)
    limits = world.service.courier.limits
    limits.tell = lambda evicted: None  # type: ignore[method-assign]
    limits.wake = lambda: None  # type: ignore[method-assign] - else a slow machine sends it now
    await start(world, "b", phone)
    await world.close()
    assert states(phone) == {"a": "active", "b": "active"}
    await world.open()
    await ended(world, phone, "a")
    async with world.database.read() as connection:
        rows = (await connection.execute(select(schema.activity_devices.c.ending_at))).scalars()
        assert list(rows) == [None, None]


async def test_an_end_that_does_not_arrive_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "AGAIN", 6.0)
    await limited(world, 1)
    [phone] = await world.add_phones(1)
    await start(world, "a", phone)
    token = phone.activities[-1].token.text
    world.fake.fault("answer", token=token, status=403, reason="Forbidden", times=1)
    await start(world, "b", phone)
    await world.pass_time(3)
    assert states(phone)["a"] == "active"
    await world.pass_time(6)
    await ended(world, phone, "a")
    assert world.service.courier.limits.ended == 1


async def test_a_dead_token_is_not_tried_again(world: World) -> None:
    await limited(world, 1)
    [phone] = await world.add_phones(1)
    await start(world, "a", phone)
    world.fake.devices.kill(phone.activities[-1].token, "unregistered")
    await start(world, "b", phone)
    sender = world.service.courier.limits
    await world.until(lambda: sender.ended == 1 and not sender.busy)
    rows = await world.members()
    assert [row.ending_at for row in rows] == [None, None]
    [outcome] = await world.service.operations.outcomes(world.app, "limit-1")
    assert (outcome["verdict"], outcome["reason"]) == ("drop_token", "Unregistered")


@pytest.mark.parametrize("count", [3, 50])
async def test_many_devices_at_once(world: World, count: int) -> None:
    await limited(world, 1)
    phones = await world.add_phones(count)
    await start(world, "a", *phones)
    await start(world, "b", *phones)
    for phone in phones:
        await ended(world, phone, "a")
    assert world.service.courier.limits.ended == count
    known = await world.service.activities.get(world.app, "a")
    assert (known["status"], known["devices"]) == ("active", 0)
    limit = await world.service.operations.get(world.app, "limit-1")
    assert (limit["targeted"], limit["accepted"]) == (count, count)


async def test_a_late_joiner_of_one_that_gave_way_elsewhere_is_counted(world: World) -> None:
    """The operation of the end on one device takes no other's outcomes."""
    await limited(world, 1)
    first, second = await world.add_phones(2)
    await start(world, "a", first, second)
    await start(world, "b", first)
    await ended(world, first, "a")
    own = TokenRecord(
        device="late", kind="activity", token="ef" * 32, registered_at=world.now(), scope="a"
    )
    world.fake.fault("answer", token="ef" * 32, status=200)
    await world.service.tokens.register_activity_tokens(world.app, [own])
    await world.settled()
    limit = await world.service.operations.get(world.app, "limit-1")
    assert (limit["targeted"], limit["accepted"]) == (1, 1)
    begun = (await world.operations())[0]
    assert (begun.accepted, begun.failed) in {(3, 0), (2, 1)}


@pytest.mark.one_process("looks at the queries of one process")
async def test_no_query_scans_a_table(world: World) -> None:
    await limited(world, 1)
    [phone] = await world.add_phones(1)
    # The rows of token_changes are heard by every sender, and pruned soon.
    small = {"apps", "credentials", "token_changes"}
    async with every_query_indexed(world.database, small=small):
        await start(world, "a", phone)
        await start(world, "b", phone)
        await ended(world, phone, "a")
