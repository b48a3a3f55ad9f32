"""Activities that follow a broadcast channel: one push for everybody."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apns_live.activities import (
    AlertText,
    CatalogText,
    CreateChannel,
    Key,
    Presentation,
    TokenRecord,
)
from apns_live.errors import InvalidInput
from tests.activities.send.test_recovery import kill
from tests.activities.send.world import World, a_start, an_end, an_update


def broadcasts(world: World) -> list[Any]:
    return [json.loads(push.body)["aps"] for push in world.fake.pushes if push.channel_id]


async def follow_channel(world: World, count: int) -> list[Any]:
    channel = world.fake.add_channel(1)
    phones = await world.add_phones(count, os_version="18.1")
    await world.service.activities.start(world.app, a_start(channel=channel.channel_id))
    await world.until(lambda: None not in world.shown(phones))
    await world.settled()
    return phones


async def test_a_life_on_a_channel(world: World) -> None:
    phones = await follow_channel(world, 6)
    assert len(world.fake.pushes) == 6
    ringing = AlertText(title={"en": "Goal", "de": "Tor"}, body="1:0")
    await world.service.activities.update(
        world.app, an_update(1, presentation=Presentation(alert=ringing))
    )
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 6)
    await world.service.activities.end(world.app, an_end(2))
    await world.until(lambda: world.shown(phones) == [("ended", 2)] * 6)
    await world.settled()
    assert [(aps["event"], aps["content-state"]["n"]) for aps in broadcasts(world)] == [
        ("update", 1),
        ("end", 2),
    ]
    assert broadcasts(world)[0]["alert"]["title"] == "Goal"
    operations = await world.operations()
    assert [(row.kind, row.status, row.accepted) for row in operations] == [
        ("start", "done", 6),
        ("update", "done", 1),
        ("end", "done", 1),
    ]
    assert [row.device_id for row in await world.outcomes(operations[1].id)] == [0]


async def test_an_alert_by_language_rings_in_one_and_the_caller_is_told(world: World) -> None:
    phones = await follow_channel(world, 2)
    update = world.service.activities.update
    words = {"en": "Goal", "de": "Tor", "fr": "But"}
    ringing = Presentation(alert=AlertText(title=words, body="1:0"))
    done = await update(world.app, an_update(1, presentation=ringing))
    assert "rings in en on every device" in done.answer.warning
    assert "title_key" in done.answer.warning
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 2)
    await world.settled()
    world.app = await world.service.apps.configure(world.app, {"language": "de-AT"})
    again = await update(
        world.app, an_update(2, presentation=ringing), key=Key(caller="a", key="b")
    )
    assert "rings in de on every device" in again.answer.warning
    await world.until(lambda: world.shown(phones) == [("active", 2)] * 2)
    await world.settled()
    assert [aps["alert"]["title"] for aps in broadcasts(world)] == ["Goal", "Tor"]
    # A text from the app's catalogue is every phone's own; so is one for all. Nothing to warn of.
    key = CatalogText(key="goal", args=("1:0",))
    catalogued = Presentation(alert=AlertText(title=words, title_key=key, body="1:0"))
    for presentation in (catalogued, Presentation(alert=AlertText(title="Goal", body="2:0"))):
        quiet = await update(world.app, an_update(3, presentation=presentation))
        assert quiet.answer.warning == ""
        await world.settled()
    assert broadcasts(world)[2]["alert"]["title"] == {"loc-key": "goal", "loc-args": ["1:0"]}
    without = Presentation(alert=AlertText(title={"de": "Tor"}, body="1:0"))
    with pytest.raises(InvalidInput, match="no entry for en"):
        await update(world.app, an_update(4, presentation=without))


async def test_devices_of_a_channel_wait_for_no_token(world: World) -> None:
    await follow_channel(world, 3)
    done = await world.service.activities.update(world.app, an_update(1))
    keyed = await world.service.activities.update(
        world.app, an_update(2), key=Key(caller="a", key="b")
    )
    for answer in (done.answer, keyed.answer):
        assert (answer.devices, answer.queued) == (3, 0)
    await world.settled()
    known = await world.service.activities.get(world.app, "match")
    assert (known["devices"], known["queued"], known["missing"]) == (3, 0, 0)
    update = await world.service.operations.get(world.app, keyed.answer.operation)
    assert (update["targeted"], update["accepted"], update["queued"]) == (1, 1, 0)


async def test_the_end_that_is_set_for_later_warns_at_the_start(world: World) -> None:
    channel = world.fake.add_channel(1)
    final = Presentation(alert=AlertText(title={"en": "Over", "de": "Aus"}, body="."))
    at = world.clock.time() + 600
    start = a_start(channel=channel.channel_id, end_at=at, end_presentation=final)
    done = await world.service.activities.start(world.app, start)
    assert "rings in en" in done.answer.warning
    followed = a_start("other", end_at=at, end_presentation=final)
    assert (await world.service.activities.start(world.app, followed)).answer.warning == ""


async def test_urgency_sets_the_priority_of_a_broadcast(world: World) -> None:
    phones = await follow_channel(world, 1)
    for n, urgency in enumerate(("urgent", "quiet", None), start=1):
        shown = Presentation(urgency=urgency)
        await world.service.activities.update(world.app, an_update(n, presentation=shown))
        await world.until(lambda n=n: world.shown(phones) == [("active", n)])
        await world.settled()
    await world.service.activities.end(world.app, an_end(4))
    await world.settled()
    sent = [push.priority for push in world.fake.pushes if push.channel_id]
    assert sent == [10, 5, 5, 10]


@pytest.mark.parametrize(("policy", "kept"), [(0, 0), (1, 8 * 3600)])
async def test_a_channel_is_served_by_its_storage_policy_after_a_restart_too(
    world: World, policy: int, kept: int
) -> None:
    made = await world.result_of(
        world.service.channels.create(world.app, CreateChannel(storage_policy=policy))
    )
    phones = await world.add_phones(2, os_version="18.1")
    await world.service.activities.start(world.app, a_start(channel=made.answer.id))
    await world.until(lambda: None not in world.shown(phones))
    await world.settled()
    await world.close()
    await world.open()
    await world.service.activities.update(world.app, an_update(1))
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 2)
    await world.settled()
    [push] = [push for push in world.fake.pushes if push.channel_id]
    assert push.expiration == pytest.approx(push.received_at + kept if kept else 0, abs=2)


async def test_timestamps_of_a_burst_do_not_run_ahead_of_the_clock(world: World) -> None:
    phones = await follow_channel(world, 1)
    for n in range(1, 13):
        await world.service.activities.update(world.app, an_update(n))
        if n % 3 == 0:
            await world.until(lambda n=n: world.shown(phones) == [("active", n)])
    await world.settled()
    last = [push for push in world.fake.pushes if push.channel_id][-1]
    assert json.loads(last.body)["aps"]["timestamp"] <= world.clock.time() + 2


async def test_many_updates_are_broadcast_one_at_a_time_and_the_newest_last(world: World) -> None:
    phones = await follow_channel(world, 2)
    for n in range(1, 25):
        await world.service.activities.update(world.app, an_update(n))
    await world.until(lambda: world.shown(phones) == [("active", 24)] * 2)
    await world.settled()
    stamps = [aps["timestamp"] for aps in broadcasts(world)]
    assert stamps == sorted(set(stamps))
    assert {row.status for row in await world.operations()} <= {"done", "superseded"}
    assert all(row.finished_at for row in await world.operations())


async def test_a_broadcast_survives_a_crash(world: World) -> None:
    phones = await follow_channel(world, 2)
    await world.service.activities.update(world.app, an_update(1))
    await kill(world)
    await world.open()
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 2)
    await world.settled()
    assert (await world.operations())[-1].status == "done"


async def test_a_channel_that_is_gone_fails_the_update(world: World) -> None:
    await follow_channel(world, 1)
    world.fake.fault("answer", status=404, reason="ChannelNotRegistered", times=1)
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    update = (await world.operations())[-1]
    assert (update.status, update.failed) == ("failed", 1)
    assert "ChannelNotRegistered" in update.reason


async def test_a_broadcast_that_cannot_be_served_now_is_tried_again(world: World) -> None:
    phones = await follow_channel(world, 2)
    world.fake.fault("answer", status=503, reason="ServiceUnavailable", times=2)
    await world.service.activities.update(world.app, an_update(1))
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 2)
    await world.settled()
    assert (await world.operations())[-1].status == "done"


# Devices that follow the channel beside devices that have tokens.


async def mixed(world: World) -> tuple[list[Any], list[Any]]:
    """Start a match on a channel, on two phones of iOS 18, one of iOS 17 and one that said nothing."""
    channel = world.fake.add_channel(1)
    on_channel = await world.add_phones(2, os_version="18.0")
    by_token = await world.add_phones(1, first=2, os_version="17.6.1")
    by_token += await world.add_phones(1, first=3)
    await world.service.activities.start(world.app, a_start(channel=channel.channel_id))
    await world.until(lambda: None not in world.shown(on_channel + by_token))
    await world.pass_time(2)
    await world.settled()
    return on_channel, by_token


async def test_each_device_gets_updates_its_own_way_and_once(world: World) -> None:
    on_channel, by_token = await mixed(world)
    phones = on_channel + by_token
    starts = [json.loads(push.body)["aps"] for push in world.fake.pushes]
    assert [("input-push-channel" in aps, "input-push-token" in aps) for aps in starts] == [
        (True, False)
    ] * 2 + [(False, True)] * 2
    done = await world.service.activities.update(world.app, an_update(1))
    assert (done.answer.devices, done.answer.queued) == (4, 0)
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 4)
    await world.settled()
    await world.service.activities.end(world.app, an_end(2))
    await world.until(lambda: world.shown(phones) == [("ended", 2)] * 4)
    await world.settled()
    after = [
        (json.loads(push.body)["aps"]["event"], bool(push.channel_id))
        for push in list(world.fake.pushes)[4:]
    ]
    assert sorted(after) == [("end", False)] * 2 + [("end", True)] + [("update", False)] * 2 + [
        ("update", True)
    ]
    operations = await world.operations()
    assert [(row.kind, row.status, row.targeted, row.accepted) for row in operations] == [
        ("start", "done", 4, 4),
        ("update", "done", 3, 3),
        ("end", "done", 3, 3),
    ]
    # Device 0 is the channel; the others have outcomes of their own.
    devices = {row.device_id for row in await world.outcomes(operations[1].id)}
    assert len(devices) == 3
    assert 0 in devices


async def test_only_devices_without_channel_wait_for_a_token(world: World) -> None:
    world.registering = False
    on_channel, by_token = await mixed(world)
    done = await world.service.activities.update(world.app, an_update(1))
    assert (done.answer.devices, done.answer.queued) == (2, 2)
    await world.settled()
    known = await world.service.activities.get(world.app, "match")
    counts = [known[name] for name in ("devices", "queued", "missing", "by_channel")]
    assert counts == [2, 2, 0, 2]
    assert world.shown(on_channel) == [("active", 1)] * 2
    assert world.shown(by_token) == [("active", 0)] * 2
    await world.pass_time(61)
    assert (await world.service.activities.get(world.app, "match"))["missing"] == 2
    world.registering = True
    await world.hand_in()
    await world.settled()
    assert world.shown(by_token) == [("active", 1)] * 2
    assert len(broadcasts(world)) == 1


async def test_a_token_of_a_device_on_the_channel_is_not_sent_to(world: World) -> None:
    on_channel, _ = await mixed(world)
    told = TokenRecord(
        device=on_channel[0].id, kind="activity", token="ab" * 32, registered_at=world.now(),
        scope="match",
    )  # fmt: skip
    await world.service.tokens.register_activity_tokens(world.app, [told])
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    await kill(world)
    await world.open()
    await world.settled()
    assert "ab" * 32 not in [push.token for push in world.fake.pushes]
    assert (await world.operations())[-1].accepted == 3


@pytest.mark.parametrize("moment", ["before", "between", "after"])
async def test_both_ways_survive_a_crash(world: World, moment: str) -> None:
    on_channel, by_token = await mixed(world)
    await world.service.activities.update(world.app, an_update(1))
    if moment == "between":
        await world.until(lambda: broadcasts(world))
    if moment == "after":
        await world.settled()
    await kill(world)
    await world.open()
    await world.until(lambda: world.shown(on_channel + by_token) == [("active", 1)] * 4)
    await world.settled()
    assert (await world.operations())[-1].status == "done"
    if moment == "after":
        assert len(broadcasts(world)) == 1


async def test_what_the_channel_refuses_fails_and_tokens_are_served(world: World) -> None:
    _, by_token = await mixed(world)
    channels = world.fake.state.channels
    for each in channels.of(world.app.bundle_id):
        channels.delete(world.app.bundle_id, each.channel_id)
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    update = (await world.operations())[-1]
    assert (update.status, update.accepted, update.failed) == ("failed", 2, 1)
    assert "ChannelNotRegistered" in update.reason
    assert world.shown(by_token) == [("active", 1)] * 2


async def test_an_app_may_put_every_device_on_the_channel(world: World) -> None:
    world.app = await world.service.apps.configure(world.app, {"channel_devices": "all"})
    await mixed(world)
    known = await world.service.activities.get(world.app, "match")
    assert (known["devices"], known["by_channel"]) == (4, 4)


async def test_a_hand_over_keeps_the_way_of_each_device(world: World) -> None:
    channel = world.fake.add_channel(1)
    [modern] = await world.add_phones(1, os_version="18.0")
    [old] = await world.add_phones(1, first=1, os_version="17.4")
    start = a_start(channel=channel.channel_id, hand_over_after=300)
    await world.service.activities.start(world.app, start)
    await world.pass_time(150)
    await world.service.activities.update(world.app, an_update(1))
    await world.pass_time(170)
    await world.service.activities.update(world.app, an_update(2))
    await world.settled()
    said = [
        [(card.state, json.loads(card.content)["n"]) for card in phone.activities]
        for phone in (modern, old)
    ]
    # On the channel no push ends one card of two: the app does.
    assert said == [[("active", 2), ("active", 2)], [("dismissed", 1), ("active", 2)]]
