"""Activities that follow a broadcast channel: one push for everybody."""

from __future__ import annotations

import json
from typing import Any

from apns_live.activities import AlertText, Presentation
from tests.activities.courier.test_recovery import kill
from tests.activities.courier.world import World, a_start, an_end, an_update


def broadcasts(world: World) -> list[Any]:
    return [json.loads(push.body)["aps"] for push in world.fake.pushes if push.channel_id]


async def follow_channel(world: World, count: int) -> list[Any]:
    channel = world.fake.add_channel(1)
    phones = await world.add_phones(count)
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
