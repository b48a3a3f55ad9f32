"""Start, update and end over real sockets, as the phones show them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from apns_live.activities import AlertText, Audience, Presentation
from apns_live.activities.send import fan_out, lives, starting
from apns_live.activities.send.kind import Allowance
from apns_live.delivery import lanes
from tests.activities.send.world import TYPE, World, a_start, an_end, an_update


async def test_a_life_from_start_to_end(world: World) -> None:
    phones = await world.add_phones(30)
    activities = world.service.activities
    await activities.start(world.app, a_start())
    await world.until(lambda: world.shown(phones) == [("active", 0)] * 30)
    await world.until(lambda: all(phone.activities[-1].token for phone in phones))
    await world.settled()
    await activities.update(world.app, an_update(1))
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 30)
    await activities.end(world.app, an_end(2))
    await world.until(lambda: world.shown(phones) == [("ended", 2)] * 30)
    await world.settled()
    operations = await world.operations()
    assert [(row.kind, row.status, row.accepted, row.failed) for row in operations] == [
        ("start", "done", 30, 0),
        ("update", "done", 30, 0),
        ("end", "done", 30, 0),
    ]
    assert {row.retired_reason for row in await world.members()} == {"ended"}
    outcomes = await world.outcomes()
    assert len(outcomes) == 90
    assert {(row.verdict, row.status) for row in outcomes} == {("accepted", 200)}
    assert len({row.apns_id for row in outcomes}) == 90
    assert world.service.statistics().living == 0


async def test_a_token_that_comes_late_gets_the_newest_state(world: World) -> None:
    phones = await world.add_phones(3)
    activities = world.service.activities
    world.registering = False
    await activities.start(world.app, a_start())
    await world.until(lambda: len(world.handed_in) == 3)
    for n in (1, 2):
        answer = (await activities.update(world.app, an_update(n))).answer
        assert (answer.devices, answer.queued) == (0, 3)
        await world.settled()
    assert world.shown(phones) == [("active", 0)] * 3
    assert [row.status for row in await world.operations()] == ["done", "done", "done"]
    await world.hand_in()
    await world.until(lambda: world.shown(phones) == [("active", 2)] * 3)
    await world.settled()
    newest = (await world.operations())[-1]
    assert newest.accepted == 3
    assert {row.acknowledged_version for row in await world.members()} == {3}


async def test_a_start_with_the_newest_state_is_not_sent_again(world: World) -> None:
    phones = await world.add_phones(3)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: all(world.shown(phones)) and len(world.handed_in) == 0)
    await world.until(lambda: all(phone.activities[-1].token for phone in phones))
    await world.settled()
    assert len(world.fake.pushes) == 3


async def test_a_token_that_comes_after_the_end_gets_the_end_once(world: World) -> None:
    phones = await world.add_phones(2)
    world.registering = False
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: len(world.handed_in) == 2)
    await world.service.activities.end(world.app, an_end(9))
    await world.settled()
    assert world.shown(phones) == [("active", 0)] * 2
    handed_in = list(world.handed_in)
    await world.hand_in()
    await world.until(lambda: world.shown(phones) == [("ended", 9)] * 2)
    await world.settled()
    sent = len(world.fake.pushes)
    await world.service.tokens.register_activity_tokens(world.app, handed_in)
    await world.settled()
    assert len(world.fake.pushes) == sent
    assert {row.retired_reason for row in await world.members()} == {"ended"}
    assert world.service.statistics().living == 0


async def test_an_app_that_registers_a_card_again_that_was_ended_gets_the_end_again(
    world: World,
) -> None:
    """APNs keeps one push for an app on a phone that is away: that of another activity took the end's place."""
    [phone] = await world.add_phones(1)
    for name in ("match", "other"):
        await world.service.activities.start(world.app, a_start(name))
    await world.until(lambda: len(world.records_of(phone)) == 2)
    await world.settled()
    world.fake.devices.go_offline(phone)
    await world.service.activities.end(world.app, an_end(9))
    await world.settled()
    await world.service.activities.update(world.app, an_update(1, "other"))
    await world.settled()
    world.fake.devices.configure(phone, {"online": True})
    [card] = [one for one in phone.activities if b'"match"' in one.attributes]
    assert (card.state, World.state_of(phone, "other")) == ("active", 1)
    await world.pass_time(60)
    again = world.records_of(phone)
    await world.service.tokens.register_activity_tokens(world.app, again)
    await world.until(lambda: card.state == "ended")
    await world.settled()
    pushes = len(world.fake.pushes)
    await world.service.tokens.register_activity_tokens(world.app, again)
    await world.settled()
    assert len(world.fake.pushes) == pushes


@pytest.mark.one_process("minutes pass before another process is notified")
async def test_a_phone_that_was_away_for_long_gets_the_newest_state(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "HOUSEKEEPING", 600.0)
    world.stride = 600.0
    [phone] = await world.add_phones(1)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: phone.activities and not world.handed_in)
    await world.settled()
    world.fake.devices.go_offline(phone)
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    await world.pass_time(1200)
    assert phone.stored[world.app.bundle_id].record.push.expiration == pytest.approx(
        world.clock.time() - 1200 + 8 * 3600, abs=2
    )
    world.fake.devices.configure(phone, {"online": True})
    assert world.showing(phone) == ("active", 1)


async def test_a_device_that_started_the_activity_itself_joins(world: World) -> None:
    [phone] = await world.add_phones(1)
    world.fake.devices.start_activity(phone, TYPE, {"activity": "own"}, {"n": -1})
    await world.hand_in()
    known = await world.service.activities.get(world.app, "own")
    assert (known["status"], known["version"], known["devices"]) == ("active", 0, 1)
    await world.settled()
    assert len(world.fake.pushes) == 0
    await world.service.activities.update(world.app, an_update(5, "own"))
    await world.until(lambda: world.showing(phone) == ("active", 5))
    await world.service.activities.end(world.app, an_end(6, "own"))
    await world.until(lambda: world.showing(phone) == ("ended", 6))


@pytest.mark.one_process("another process reads the device while the update is open")
async def test_a_device_that_joins_a_running_activity_gets_its_state_without_its_alert(
    world: World,
) -> None:
    [first] = await world.add_phones(1)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: first.activities and first.activities[-1].token)
    await world.settled()
    ringing = Presentation(alert=AlertText(title="Goal", body="1:0"))
    await world.service.activities.update(world.app, an_update(1, presentation=ringing))
    await world.until(lambda: world.showing(first) == ("active", 1))
    [second] = await world.add_phones(1, first=1)
    world.fake.devices.start_activity(second, TYPE, {"activity": "match"}, {"n": -1})
    await world.hand_in()
    await world.until(lambda: world.showing(second) == ("active", 1))
    assert b"Goal" in first.activities[-1].alert
    assert not second.activities[-1].alert


async def test_only_the_newest_of_many_updates_need_arrive(world: World) -> None:
    phones = await world.add_phones(5)
    await world.service.activities.start(world.app, a_start())
    await world.until(
        lambda: all(phone.activities and phone.activities[-1].token for phone in phones)
    )
    await world.settled()
    for n in range(1, 30):
        await world.service.activities.update(world.app, an_update(n))
    await world.until(lambda: world.shown(phones) == [("active", 29)] * 5)
    await world.settled()
    updates = [row for row in await world.operations() if row.kind == "update"]
    assert updates[-1].status == "done"
    assert updates[-1].accepted == 5
    assert {row.status for row in updates} == {"done", "superseded"}
    assert all(row.finished_at for row in updates)


async def test_an_alert_rings_although_a_newer_state_took_its_place(world: World) -> None:
    [phone] = await world.add_phones(1)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: phone.activities and phone.activities[-1].token)
    await world.settled()
    ringing = Presentation(alert=AlertText(title="Goal", body="1:0"))
    await world.service.activities.update(world.app, an_update(1, presentation=ringing))
    await world.service.activities.update(world.app, an_update(2))
    await world.until(lambda: world.showing(phone) == ("active", 2))
    await world.settled()
    assert b"Goal" in phone.activities[-1].alert


async def test_an_update_while_the_start_runs_is_what_later_pages_carry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 10)
    monkeypatch.setattr(fan_out, "AHEAD", 10)
    phones = await world.add_phones(60)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: any(world.shown(phones)))
    await world.service.activities.update(world.app, an_update(1))
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 60)
    await world.settled()
    starts = [json.loads(push.body)["aps"] for push in world.fake.pushes if b'"start"' in push.body]
    assert len(starts) == 60
    assert {aps["content-state"]["n"] for aps in starts} == {0, 1}
    start, update = await world.operations()
    assert (start.status, start.accepted) == ("done", 60)
    assert update.status == "done"
    assert {row.acknowledged_version for row in await world.members()} == {2}


async def test_an_end_while_the_start_runs_reaches_everyone_who_was_started(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 10)
    monkeypatch.setattr(fan_out, "AHEAD", 10)
    phones = await world.add_phones(80)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: any(world.shown(phones)))
    await world.service.activities.end(world.app, an_end(7))
    await world.settled()
    await world.until(lambda: all(shown in (None, ("ended", 7)) for shown in world.shown(phones)))
    assert None in world.shown(phones)
    start, end = await world.operations()
    assert (start.status, end.status) == ("done", "done")


async def test_an_end_that_comes_at_once_does_not_take_the_starts_place(world: World) -> None:
    """Whoever starts and ends within milliseconds sees the card, and then that it ended."""
    phones = await world.add_phones(3)
    await world.service.activities.start(world.app, a_start())
    await world.service.activities.end(world.app, an_end(7))
    await world.until(lambda: world.shown(phones) == [("ended", 7)] * 3)
    await world.settled()
    start, end = await world.operations()
    assert (start.status, start.accepted, end.status) == ("done", 3, "done")


async def test_a_start_that_waited_is_not_sent_once_it_has_ended(world: World) -> None:
    world.app = await world.add_app("keyless", with_key=False)
    phones = await world.add_phones(2)
    await world.service.activities.start(world.app, a_start())
    await world.settled()
    await world.service.activities.end(world.app, an_end(7))
    await world.pass_time(starting.AT_ONCE)
    await world.add_key(world.app)
    await world.settled()
    assert world.shown(phones) == [None, None]


async def test_two_activities_do_not_wait_for_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 10)
    monkeypatch.setattr(fan_out, "AHEAD", 10)
    phones = await world.add_phones(100)
    [other] = await world.add_phones(1, first=500, user="alone")
    alone = Audience(users=("alone",))
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: any(world.shown(phones)))
    await world.service.activities.start(world.app, a_start("small", audience=alone))
    await world.until(lambda: world.showing(other) is not None)
    assert None in world.shown(phones), "the long start was over before the short one"
    await world.settled()
    assert None not in world.shown(phones)


async def test_idle_activities_leave_memory_and_come_back(world: World) -> None:
    await world.close()
    await world.open(settings=replace(world.settings, tokens_in_memory=0))
    phones = await world.add_phones(4)
    await world.service.activities.start(world.app, a_start())
    await world.until(
        lambda: all(phone.activities and phone.activities[-1].token for phone in phones)
    )
    for n in range(1, 4):
        await world.settled()
        await world.pass_time(1.0)
        figures = world.service.statistics()
        assert (figures.living, figures.tokens) == (0, 0)
        assert [one.delivery.activities for one in figures.carriers] == [0]
        await world.service.activities.update(world.app, an_update(n))
        await world.until(lambda n=n: world.shown(phones) == [("active", n)] * 4)
    await world.settled()
    assert [row.accepted for row in await world.operations()] == [4, 4, 4, 4]


async def test_an_alert_put_while_tokens_are_still_read_rings_for_those_read_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = await world.add_phones(12)
    await world.service.activities.start(world.app, a_start())
    await world.until(
        lambda: all(phone.activities and phone.activities[-1].token for phone in phones)
    )
    await world.settled()
    monkeypatch.setattr(lives, "PAGE", 2)
    await world.service.activities.update(world.app, an_update(1))
    await world.until(lambda: ("active", 1) in world.shown(phones))
    ringing = Presentation(alert=AlertText(title="Goal", body="1:0"))
    await world.service.activities.update(world.app, an_update(2, presentation=ringing))
    await world.service.activities.update(world.app, an_update(3))
    await world.until(lambda: world.shown(phones) == [("active", 3)] * 12)
    await world.settled()
    assert all(b"Goal" in phone.activities[-1].alert for phone in phones)


async def test_an_allowance_is_given_in_the_order_of_asking() -> None:
    allowance = Allowance(10)
    await allowance.take(8)
    order: list[int] = []

    async def take(count: int) -> None:
        await allowance.take(count)
        order.append(count)

    large, small = asyncio.create_task(take(6)), asyncio.create_task(take(1))
    gone = asyncio.create_task(take(10))
    await asyncio.sleep(0)
    assert order == []
    allowance.give(8)
    await asyncio.gather(large, small)
    assert order == [6, 1]
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    allowance.give(7)
    await allowance.take(10)
