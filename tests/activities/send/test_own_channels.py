"""Broadcast channels that the service makes for large audiences, and deletes when they are over."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from apns_live import payload
from apns_live.activities import AlertText, Audience, Presentation
from apns_live.activities.accept import own_channels
from apns_live.activities.accept.broadcast_channels import Channels
from apns_live.activities.due import scheduler
from apns_live.activities.store import schema
from apns_live.delivery import lanes
from apns_live.errors import Conflict, InvalidInput
from tests.activities.plans import every_query_indexed
from tests.activities.send.test_recovery import kill
from tests.activities.send.world import TYPE, World, a_start, an_end, an_update

HOURS = 3600.0


@pytest.fixture(autouse=True)
async def from_three(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an activity get a channel from three devices on, and the looks for those that are over be ours."""
    monkeypatch.setattr(scheduler, "LONGEST", 600.0)
    monkeypatch.setattr(lanes, "HOUSEKEEPING", 600.0)
    monkeypatch.setattr(own_channels, "EVERY", 1e6)
    world.settings = replace(world.settings, channel_from=3)
    await world.close()
    await world.open()


on_sqlite = pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)


async def after(world: World, seconds: float) -> None:
    """Let time pass, and two processes look for channels that are lost or over at the same moment."""
    world.clock.advance_sync(seconds)
    own = world.service.courier.starts.give_channel.__self__  # type: ignore[attr-defined]
    await world.result_of(asyncio.gather(own.find_lost(), own.find_lost()))
    await world.result_of(asyncio.gather(own.delete_unused(), own.delete_unused()))


def at_apple(world: World) -> list[str]:
    return [channel.channel_id for channel in world.fake.state.channels.of(world.app.bundle_id)]


async def channel_of(world: World, name: str = "match") -> str | None:
    return (await world.service.activities.get(world.app, name))["channel"]


async def begin(world: World, phones: list[Any], name: str = "match", **changes: Any) -> Any:
    await world.service.activities.start(world.app, a_start(name, **changes))
    await world.until(lambda: None not in world.shown(phones))
    await world.pass_time(1)
    await world.settled()
    return (await world.operations())[-1]


async def test_a_large_audience_gets_a_channel_and_it_is_deleted_when_all_is_over(
    world: World,
) -> None:
    modern = await world.add_phones(3, os_version="18.1")
    old = await world.add_phones(1, first=3, os_version="17.5")
    start = await begin(world, modern + old)
    assert (start.status, start.reason) == ("done", None)
    assert at_apple(world) == [await channel_of(world)]
    [made] = await world.service.channels.list(world.app)
    assert (made.storage_policy, made.name) == (1, "match")
    await world.service.activities.update(world.app, an_update(1))
    await world.until(lambda: world.shown(modern + old) == [("active", 1)] * 4)
    await world.settled()
    assert len([push for push in world.fake.pushes if push.channel_id]) == 1
    assert (await world.operations())[-1].accepted == 2
    await world.service.activities.end(world.app, an_end(2))
    await world.settled()
    assert world.shown(modern + old) == [("ended", 2)] * 4
    # Apple may bring the end to a phone that was away for eight hours.
    await after(world, 7.9 * HOURS)
    assert len(at_apple(world)) == 1
    await after(world, 0.2 * HOURS)
    assert at_apple(world) == []
    assert await world.service.channels.list(world.app) == []


@on_sqlite
@pytest.mark.parametrize(
    ("settings", "channel"),
    [
        ({}, True),
        ({"channel_from": 4}, False),
        ({"channel_from": 0}, False),
        ({"channel_from": {TYPE: 0}}, False),
        ({"channel_from": {"Other": 0}}, True),
        ({"device_limit": 1}, False),
    ],
)
async def test_who_gets_one_can_be_set(
    world: World, settings: dict[str, Any], channel: bool
) -> None:
    world.app = await world.service.apps.configure(world.app, settings)
    await begin(world, await world.add_phones(3, os_version="18.1"))
    assert (await channel_of(world) is not None) is channel


@on_sqlite
async def test_some_starts_stay_with_tokens(world: World) -> None:
    phones = await world.add_phones(3, os_version="18.1")
    await world.add_phones(3, first=3, os_version="17.1")
    two = Audience(devices=tuple(phone.id for phone in phones[:2]))
    spoken = AlertText(title={"en": "Kick-off", "de": "Anpfiff"}, body=".")
    starts = {
        "few": a_start("few", audience=two),
        "spoken": a_start("spoken", presentation=Presentation(alert=spoken)),
        "vendor": a_start("vendor", dialect="braze"),
    }
    for name, start in starts.items():
        await world.service.activities.start(world.app, start)
        await world.settled()
        assert await channel_of(world, name) is None
    assert at_apple(world) == []
    with pytest.raises(InvalidInput, match="not a number of devices"):
        await world.service.apps.configure(world.app, {"channel_from": {TYPE: -1}})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The activities that Apple is asked for a channel for."""
    names: list[str] = []
    make = Channels.make

    async def noting(self: Channels, app: Any, environment: str, name: Any, *more: Any) -> Any:
        names.append(name)
        return await make(self, app, environment, name, *more)

    monkeypatch.setattr(Channels, "make", noting)
    return names


@on_sqlite
async def test_a_start_without_room_for_a_channel_goes_by_tokens(
    world: World, asked: list[str]
) -> None:
    phones = await world.add_phones(3, os_version="18.1")
    small = payload.Start(
        content_state={"n": 0},
        attributes_type=TYPE,
        attributes={"activity": "match", "pad": ""},
        alert=payload.Alert(title="Kick-off", body="It begins"),
    )
    size = len(payload.encode(small, now=world.clock.time()).body)
    large = {"activity": "match", "pad": "x" * (4090 - size)}
    start = await begin(world, phones, attributes=large)
    assert (start.status, start.accepted, asked) == ("done", 3, [])
    assert "no room" in start.reason


@on_sqlite
async def test_an_activity_that_ended_at_once_gets_none(world: World, asked: list[str]) -> None:
    await world.add_phones(3, os_version="18.1")
    await world.close()
    await world.open(send=False)
    await world.service.activities.start(world.app, a_start())
    await world.service.activities.end(world.app, an_end(1))
    await world.close()
    await world.open()
    await world.settled()
    assert asked == []


@on_sqlite
async def test_without_the_capability_it_goes_by_tokens_and_asks_once(
    world: World, asked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    refused = {"status": 400, "reason": "BroadcastFeatureNotEnabled"}
    world.fake.fault("answer", face="manage", skip=1, times=1, **refused)
    phones = await world.add_phones(3, os_version="18.1")
    for name in ("match", "other"):
        start = await begin(world, phones, name)
        assert (start.status, start.accepted) == ("done", 3)
        assert "no broadcast channel" in start.reason
        assert "BroadcastFeatureNotEnabled" in start.reason
    assert asked == ["match"]
    told = [one for one in caplog.records if "gets no broadcast channels" in one.getMessage()]
    assert len(told) == 1
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    assert [world.state_of(phone, "match") for phone in phones] == [1] * 3
    world.clock.advance_sync(HOURS)
    await begin(world, phones, "third")
    assert await channel_of(world, "third") is not None


@on_sqlite
@pytest.mark.parametrize("fault", ["withhold", "disconnect", "list"])
async def test_a_start_waits_for_no_answer_and_what_was_made_is_named(
    world: World, asked: list[str], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"action": "withhold", "skip": 0} if fault == "list" else {"action": fault, "skip": 1}
    world.fake.fault(face="manage", times=1, processed=True, **given)
    phones = await world.add_phones(3, os_version="18.1")
    before = world.clock.monotonic()
    start = await begin(world, phones)
    assert world.clock.monotonic() - before < own_channels.PATIENCE + 5
    assert (start.status, start.accepted) == ("done", 3)
    assert "no broadcast channel" in start.reason
    lost = [] if fault == "list" else ["match"]
    assert asked == lost
    assert len(at_apple(world)) == len(lost)
    # It may be somebody else's, so it is named and not deleted; one that a start names is not even named.
    made = at_apple(world)
    used = world.fake.add_channel(1).channel_id
    await begin(world, phones, "other", channel=used)
    await after(world, 0.5 * HOURS)
    [row] = await world.rows_of_activity()
    assert (row.channel_id, row.channel_asked_at) == (None, None)
    await after(world, 9 * HOURS)
    assert at_apple(world) == [*made, used]
    told = [one.getMessage() for one in caplog.records if "were lost" in one.getMessage()]
    assert bool(told) == bool(lost)
    assert all(line.endswith(f"uses: {', '.join(made)}") for line in told)


async def test_a_channel_made_before_a_crash_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.fake.fault("withhold", face="manage", skip=1, times=1, processed=True)
    phones = await world.add_phones(3, os_version="18.1")
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: at_apple(world))
    await kill(world)
    await world.open()
    await world.until(lambda: None not in world.shown(phones))
    await world.settled()
    start = (await world.operations())[0]
    assert (start.status, start.accepted) == ("done", 3)
    assert "was lost" in start.reason
    assert len(at_apple(world)) == 1
    await after(world, HOURS)
    async with every_query_indexed(world.database, small={"apps", "credentials", "token_changes"}):
        await after(world, 8 * HOURS)
    assert len(at_apple(world)) == 1
    assert "1 new broadcast channels in sandbox" in caplog.text


async def test_a_channel_that_is_used_is_not_deleted_and_one_that_is_deleted_not_used(
    world: World,
) -> None:
    phones = await world.add_phones(3, os_version="18.1")
    await begin(world, phones)
    channel = await channel_of(world)
    await world.service.activities.start(world.app, a_start("guest", channel=channel))
    await world.service.activities.end(world.app, an_end(1))
    await world.settled()
    await after(world, 7 * HOURS)
    await world.service.activities.end(world.app, an_end(1, "guest"))
    await world.settled()
    # Its end may have left long after it was accepted.
    await world.database.change(schema.activities.update().values(ended_at=1))
    await after(world, 4 * HOURS)
    assert at_apple(world) == [channel]
    # The first tries to delete it fail.
    fault = world.fake.fault("answer", face="manage", status=400, reason="BadPath")
    await after(world, 4.1 * HOURS)
    assert at_apple(world) == [channel]
    world.fake.faults.remove(fault)
    await after(world, 600)
    assert at_apple(world) == []
    with pytest.raises(Conflict, match="was deleted"):
        await world.service.activities.start(world.app, a_start("late", channel=channel))


async def test_two_that_are_made_at_once_are_both_deleted(world: World) -> None:
    phones = await world.add_phones(3, os_version="18.1")
    world.fake.fault("delay", face="manage", skip=1, times=1, delay=5.0)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: at_apple(world))
    # Apple's list has the first one before its answer came.
    await begin(world, phones, "other")
    await world.settled()
    assert {await channel_of(world), await channel_of(world, "other")} == set(at_apple(world))
    for name in ("match", "other"):
        await world.service.activities.end(world.app, an_end(1, name))
    await world.settled()
    await after(world, 8.1 * HOURS)
    assert at_apple(world) == []


@on_sqlite
async def test_a_stream_keeps_its_activity_when_it_gets_a_channel(world: World) -> None:
    phones = await world.add_phones(3, os_version="18.1")
    for n in range(3):
        request = a_start(None, stream_key="goals", id_attribute="activity", content_state={"n": n})
        await world.service.streams.put(world.app, msgspec.structs.replace(request, attributes={}))
        await world.until(lambda n=n: world.shown(phones) == [("active", n)] * 3)
        await world.settled()
    assert [len(phone.activities) for phone in phones] == [1] * 3
    assert len(at_apple(world)) == 1
