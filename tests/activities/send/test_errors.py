"""Keys that are missing, wrong, refused or replaced; several apps, teams and environments."""

from __future__ import annotations

import asyncio
import itertools
from datetime import datetime
from typing import Any

import pytest

from apns_live import Endpoint
from apns_live.activities import Audience, Sealer
from apns_live.activities.apps import App
from apns_live.activities.send import refusals
from apns_live.activities.send.backlog import Backlog
from apns_live.activities.store.sealing import new_key
from apns_live.errors import Busy
from apns_live.testing import FakeApns
from tests.activities.send.test_recovery import follow, kill
from tests.activities.send.world import World, a_start, an_end, an_update, phone_settings


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "FIRST", 2.0)


async def test_a_start_without_a_key_fails_and_goes_on_when_the_key_comes(world: World) -> None:
    app = await world.add_app("keyless", with_key=False)
    phones = await world.add_phones(3, app)
    await world.service.activities.start(app, a_start())
    await world.settled()
    [start] = await world.operations()
    assert start.status == "failed"
    assert start.finished_at is None
    assert "no provider key for sandbox" in start.reason
    # Others are not disturbed.
    others = await follow(world, 2)
    assert world.shown(others) == [("active", 0)] * 2
    await world.add_key(app)
    await world.until(lambda: world.shown(phones) == [("active", 0)] * 3)
    await world.settled()
    start = (await world.operations())[0]
    assert (start.status, start.reason, start.accepted) == ("done", None, 3)


async def test_a_key_that_comes_while_the_store_fails_is_used_once_it_works(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await world.add_app("keyless", with_key=False)
    phones = await world.add_phones(1, app)
    await world.service.activities.start(app, a_start())
    await world.settled()
    try_again, failures = Backlog.try_again, [Busy("the store is busy")]

    async def failing(backlog: Backlog, app: App) -> None:
        if failures:
            raise failures.pop()
        await try_again(backlog, app)

    monkeypatch.setattr(Backlog, "try_again", failing)
    await world.add_key(app)
    await world.until(lambda: world.shown(phones) == [("active", 0)], at_most=10.0)


async def test_a_key_that_does_not_open_is_a_clear_failure(world: World) -> None:
    phones = await world.add_phones(2)
    await world.close()
    # Accepted by a process that could open it, and sent by one that cannot.
    await world.service.activities.start(world.app, a_start())
    await world.open(sealing=Sealer(new_key()))
    await world.settled()
    [start] = await world.operations()
    assert start.status == "failed"
    assert "does not open with this store key" in start.reason
    await world.close()
    await world.open()
    await world.until(lambda: world.shown(phones) == [("active", 0)] * 2)


async def test_updates_without_a_key_wait_for_it_too(world: World) -> None:
    phones = await follow(world, 2)
    await kill(world)
    await world.open(sealing=Sealer(new_key()))
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    assert [row.status for row in await world.operations()] == ["done", "failed"]
    await world.close()
    await world.open()
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 2)
    await world.settled()
    assert [row.status for row in await world.operations()] == ["done", "done"]


async def test_a_refused_key_stops_a_start_and_a_new_one_resumes_it(world: World) -> None:
    phones = await world.add_phones(120)
    world.fake.revoke_key(world.fake.key_id)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: len(world.fake.refusals) > 0)
    await world.settled()
    [start] = await world.operations()
    assert (start.status, start.finished_at) == ("sharded", None)
    shown = await world.service.operations.get(world.app, start.public_id)
    assert shown["status"] == "running"
    assert "refuses the credentials: InvalidProviderToken (status 403)" in start.reason
    assert "tried again at" in start.reason
    path = world.fake.add_key("NEWKEY1234")
    await world.service.apps.add_key(
        world.app,
        path.read_text(),
        key_id="NEWKEY1234",
        team_id=world.fake.team_id,
        environment="any",
    )
    await world.until(lambda: world.shown(phones) == [("active", 0)] * 120, at_most=1200.0)
    await world.settled()
    [start] = await world.operations()
    assert (start.status, start.reason) == ("done", None)
    assert (start.targeted, start.accepted, start.failed) == (120, 120, 0)


@pytest.mark.usefixtures("short_pauses")
async def test_what_the_key_is_refused_for_is_tried_again_with_growing_pauses(world: World) -> None:
    """Whoever was refused has no outcome for it, and is reached when APNs takes the key again."""
    phones = await world.add_phones(3)
    begun = world.clock.time()
    refused = world.fake.fault("answer", status=403, reason="InvalidProviderToken", lasting=13.0)
    assert refused
    await world.service.activities.start(world.app, a_start())
    watched: list[dict[str, Any]] = []

    async def watch(name: str) -> None:
        watched.extend([step async for step in world.service.watch(world.app, operation=name)])

    [start] = await world.operations()
    watching = asyncio.ensure_future(watch(start.public_id))
    await world.until(watching.done, at_most=600.0)
    assert world.shown(phones) == [("active", 0)] * 3
    reasons = list(dict.fromkeys(step["reason"] for step in watched if step["reason"]))
    assert len(reasons) >= 3
    moments = [datetime.fromisoformat(one.split(" again at ")[1].split(",")[0]) for one in reasons]
    waits = [(later - former).total_seconds() for former, later in itertools.pairwise(moments)]
    assert waits == sorted(waits)
    assert waits[-1] >= 2 * waits[0]
    assert moments[-1].timestamp() > begun + 13
    assert (watched[-1]["status"], watched[-1]["accepted"], watched[-1]["failed"]) == ("done", 3, 0)
    assert watched[-1]["targeted"] == 3
    assert len(await world.outcomes()) == 3


@pytest.mark.usefixtures("short_pauses")
async def test_updates_and_ends_wait_for_the_credentials_too(world: World) -> None:
    phones = await follow(world, 3)
    world.fake.fault("answer", status=403, reason="Forbidden", lasting=3.0)
    for change in (an_update(1), an_update(2)):
        await world.service.activities.update(world.app, change)
    await world.settled()
    waiting = (await world.operations())[-1]
    assert (waiting.status, waiting.finished_at) == ("running", None)
    assert "Forbidden" in waiting.reason
    await world.service.activities.end(world.app, an_end(3))
    await world.settled()
    assert world.shown(phones) == [("active", 0)] * 3
    await world.until(lambda: world.shown(phones) == [("ended", 3)] * 3, at_most=300.0)
    await world.settled()
    start, *changes = await world.operations()
    assert (start.status, start.accepted) == ("done", 3)
    assert {row.status for row in changes} <= {"done", "superseded"}
    assert {row.reason for row in changes} == {None}
    assert (changes[-1].accepted, changes[-1].failed) == (3, 0)


@pytest.mark.usefixtures("short_pauses")
async def test_one_who_joins_while_the_credentials_are_refused_gets_the_state_then(
    world: World,
) -> None:
    [phone] = await world.add_phones(1)
    world.registering = False
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: world.handed_in)
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    world.fake.fault("answer", status=403, reason="Forbidden", lasting=3.0)
    await world.hand_in()
    await world.settled()
    assert world.showing(phone) == ("active", 0)
    await world.until(lambda: world.showing(phone) == ("active", 1), at_most=300.0)


@pytest.mark.usefixtures("short_pauses")
async def test_a_start_that_is_refused_until_its_activity_is_over_has_failed(world: World) -> None:
    await world.add_phones(2)
    world.fake.revoke_key(world.fake.key_id)
    await world.service.activities.start(world.app, a_start())
    await world.settled()
    await world.service.activities.end(world.app, an_end(1))
    await world.pass_time(60.0)
    await world.settled()
    start = (await world.operations())[0]
    assert start.status == "failed"
    assert start.finished_at is not None
    assert "InvalidProviderToken" in start.reason


@pytest.mark.usefixtures("short_pauses")
async def test_a_broadcast_waits_for_the_credentials(world: World) -> None:
    channel = world.fake.add_channel(1)
    [phone] = await world.add_phones(1, os_version="18.0")
    await world.service.activities.start(world.app, a_start(channel=channel.channel_id))
    await world.until(lambda: world.showing(phone) is not None)
    await world.settled()
    world.fake.fault("answer", status=403, reason="Forbidden", lasting=3.0)
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    waiting = (await world.operations())[-1]
    assert (waiting.status, waiting.failed) == ("running", 0)
    await world.until(lambda: world.showing(phone) == ("active", 1), at_most=120.0)
    await world.settled()
    assert ((await world.operations())[-1]).status == "done"


async def test_a_new_key_is_used_from_then_on(world: World) -> None:
    phones = await follow(world, 2)
    path = world.fake.add_key("NEWKEY1234")
    await world.service.apps.add_key(
        world.app,
        path.read_text(),
        key_id="NEWKEY1234",
        team_id=world.fake.team_id,
        environment="any",
    )
    await world.settled()
    world.fake.revoke_key(world.fake.key_id)
    await world.service.activities.update(world.app, an_update(1))
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 2)
    await world.settled()
    assert (await world.operations())[-1].accepted == 2


async def test_two_apps_of_different_teams(world: World) -> None:
    world.fake.add_app("org.example.rides", team_id="OTHERTEAM1")
    path = world.fake.add_key("OTHERKEY12", team_id="OTHERTEAM1")
    rides = await world.add_app("rides", with_key=False, bundle_id="org.example.rides")
    await world.service.apps.add_key(
        rides, path.read_text(), key_id="OTHERKEY12", team_id="OTHERTEAM1", environment="sandbox"
    )
    scores = await world.add_phones(5)
    riders = await world.add_phones(4, rides)
    await world.service.activities.start(world.app, a_start())
    await world.service.activities.start(rides, a_start(content_state={"n": 50}))
    await world.until(lambda: None not in world.shown(scores + riders))
    assert world.shown(scores) == [("active", 0)] * 5
    assert world.shown(riders) == [("active", 50)] * 4
    await world.settled()
    assert {(row.app_id, row.accepted) for row in await world.operations()} == {
        (world.app.row, 5),
        (rides.row, 4),
    }
    assert len(world.service.statistics().carriers) == 2


async def test_both_environments(world: World) -> None:
    async with FakeApns(
        clock=world.clock, devices="strict", phone_settings=phone_settings()
    ) as other:
        await world.close()
        pem = other.key_file.read_text()
        await world.open(
            endpoints={
                "sandbox": world.endpoint,
                "production": Endpoint(**other.endpoint._asdict()),
            }
        )
        await world.service.apps.add_key(
            world.app, pem, key_id=other.key_id, team_id=other.team_id, environment="production"
        )
        sandbox = await world.add_phones(3)
        first, world.fake = world.fake, other
        other.devices.on_token.append(world._on_token)
        production = []
        for number in range(2):
            phone = other.devices.add_device(f"store-{number}", attributes_types=["Match"])
            production.append(phone)
        records = [
            record
            for phone in production
            for record in world.start_records(phone, environment="production")
        ]
        await world.service.devices.register(world.app, records)
        await world.service.activities.start(world.app, a_start("one"))
        await world.service.activities.start(
            world.app, a_start("two", environment="production", content_state={"n": 1})
        )
        await world.until(lambda: None not in world.shown(sandbox + production))
        await world.until(lambda: all(one.activities[-1].token for one in sandbox + production))
        await world.settled()
        await world.service.activities.end(world.app, an_end(8, "one"))
        await world.service.activities.update(world.app, an_update(9, "two"))
        await world.until(lambda: world.shown(production) == [("active", 9)] * 2)
        await world.until(lambda: world.shown(sandbox) == [("ended", 8)] * 3)
        world.fake = first
        await world.close()


async def test_tokens_of_the_wrong_environment_stop_a_start(world: World) -> None:
    phones = await world.add_phones(150)
    for phone in phones:
        for token in phone.tokens:
            world.fake.fault(
                "answer", token=token.text, status=400, reason="BadDeviceToken", times=1
            )
    await world.service.activities.start(world.app, a_start())
    await world.settled()
    [start] = await world.operations()
    assert start.status == "failed"
    assert "environment" in start.reason


async def test_an_audience_that_is_gone_fails_the_start(world: World) -> None:
    rule = {"field": "push_enabled", "relation": "=", "value": True}
    await world.service.segments.save(world.app, "fans", rule)
    await kill(world)
    await world.service.activities.start(world.app, a_start(audience=Audience(segments=("fans",))))
    await world.service.segments.delete(world.app, "fans")
    await world.open()
    await world.settled()
    [start] = await world.operations()
    assert start.status == "failed"
    assert start.finished_at is not None
    assert "fans" in start.reason


@pytest.mark.parametrize("seconds", [1.0, 20.0])
async def test_a_store_that_fails_for_a_while_delays_and_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    phones = await follow(world, 5)
    database = world.service.database
    write = database.write

    def broken() -> object:
        raise OSError("the disk is away")

    await world.service.activities.update(world.app, an_update(1))
    monkeypatch.setattr(database, "write", broken)
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 5)
    world.registering = False
    await world.pass_time(seconds)
    monkeypatch.setattr(database, "write", write)
    world.registering = True
    await world.settled()
    assert [(row.status, row.accepted) for row in await world.operations()] == [
        ("done", 5),
        ("done", 5),
    ]
    # An outage is one line for each kind of work, without tracebacks.
    said = [record.getMessage() for record in caplog.records]
    assert len(set(said)) == len(said) < 5
    assert any(line.startswith("results could not be stored") for line in said)
    assert "Traceback" not in caplog.text
