"""Suspect start tokens in a start: tried as others, after them, or left out, by setting."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from sqlalchemy import update

from apns_live.activities.send import fan_out, starting
from apns_live.activities.store import schema
from tests.activities.send.world import World, a_start

SUSPECTS = ["scores-0", "scores-3"]


async def suspect(world: World, *names: str) -> None:
    """Mark the tokens of devices, as two unanswered starts would."""
    tokens, devices = schema.start_tokens, schema.devices
    owners = schema.devices.select().where(devices.c.public_id.in_(names))
    values = {"unanswered": 2, "suspect_at": world.now() - 1}
    async with world.database.write() as connection:
        rows = [row.id for row in await connection.execute(owners)]
        place = tokens.c.device_id.in_(rows)
        await connection.execute(update(tokens).where(place).values(values))


async def with_suspects(world: World, count: int = 6) -> list[Any]:
    phones = await world.add_phones(count)
    await world.pass_time(1.0)
    await suspect(world, *SUSPECTS)
    await world.pass_time(1.0)
    return phones


async def started(world: World, **changes: Any) -> Any:
    """Start the match for everyone; return its operation in full."""
    answer = (await world.service.activities.start(world.app, a_start(**changes))).answer
    await world.settled()
    return await world.service.operations.get(world.app, answer.operation)


def order(world: World, phones: list[Any]) -> list[str]:
    """The devices in the order in which starts reached APNs."""
    owners = {token.text: phone.id for phone in phones for token in phone.tokens}
    return [owners[push.token] for push in world.fake.pushes if push.token in owners]


@pytest.mark.parametrize("page", [1, 2, 2_000])
async def test_they_come_after_all_others_by_default(
    world: World, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", page)
    monkeypatch.setattr(fan_out, "AHEAD", page)
    phones = await with_suspects(world)
    operation = await started(world)
    assert (operation["targeted"], operation["accepted"], operation["failed"]) == (6, 6, 0)
    sent = order(world, phones)
    assert sorted(sent) == sorted(phone.id for phone in phones)
    assert set(sent[-2:]) == set(SUSPECTS)
    assert world.shown(phones) == [("active", 0)] * 6


async def test_they_are_used_as_others_where_the_app_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 1)
    monkeypatch.setattr(fan_out, "AHEAD", 1)
    world.app = await world.service.apps.configure(world.app, {"suspect_tokens": "use"})
    phones = await with_suspects(world)
    await started(world)
    assert order(world, phones) == [phone.id for phone in phones]


async def test_they_are_left_out_and_the_start_says_so(world: World) -> None:
    world.app = await world.service.apps.configure(world.app, {"suspect_tokens": "skip"})
    phones = await with_suspects(world)
    operation = await started(world)
    assert (operation["targeted"], operation["accepted"], operation["failed"]) == (6, 4, 2)
    assert (operation["status"], operation["reason"]) == ("done", None)
    assert set(order(world, phones)).isdisjoint(SUSPECTS)
    outcomes = await world.service.operations.outcomes(world.app, operation["id"])
    left_out = {
        one["device"]: (one["verdict"], one["reason"])
        for one in outcomes
        if one["verdict"] != "accepted"
    }
    assert left_out == dict.fromkeys(SUSPECTS, ("not_sent", starting.SUSPECT_TOKEN))
    assert len(outcomes) == 6
    assert len(await world.members()) == 4, "who was left out is no member"


async def test_a_start_for_suspects_alone_says_that_it_reached_nobody(world: World) -> None:
    world.app = await world.service.apps.configure(world.app, {"suspect_tokens": "skip"})
    await world.add_phones(1)
    await world.pass_time(1.0)
    await suspect(world, "scores-0")
    await world.pass_time(1.0)
    operation = await started(world)
    assert operation["reason"] == starting.LEFT_OUT.format(count=1)
    assert (operation["targeted"], operation["failed"]) == (1, 1)


async def test_the_service_has_a_setting_for_apps_that_have_none(world: World) -> None:
    await world.close()
    await world.open(settings=dataclasses.replace(world.settings, suspect_tokens="skip"))
    phones = await with_suspects(world)
    operation = await started(world)
    assert (operation["accepted"], operation["failed"]) == (4, 2)
    assert set(order(world, phones)).isdisjoint(SUSPECTS)


@pytest.mark.parametrize("mode", ["last", "skip"])
async def test_a_start_goes_on_where_a_crash_left_it(world: World, mode: str) -> None:
    """Between the others and the suspects: each device has one outcome all the same."""
    world.app = await world.service.apps.configure(world.app, {"suspect_tokens": mode})
    phones = await with_suspects(world)

    async def stuck(*_: Any) -> Any:
        await asyncio.Event().wait()  # the process dies here

    class Stuck:
        """Reads the trusted ones, and then no more."""

        read = fan_out.FanOut._recipients

        async def recipients(self: Any, each: Any, *place: Any) -> Any:
            return await (stuck if each.behind else Stuck.read)(self, each, *place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fan_out.FanOut, "_recipients", Stuck.recipients)
        patch.setattr(starting.StartKind, "leave_out", stuck)
        await world.service.activities.start(world.app, a_start())
        await world.until(lambda: len(order(world, phones)) == 4)
        await world.pass_time(1.0)
        await world.close()
    await world.open()
    await world.settled()
    [operation] = await world.operations()
    accepted = 6 if mode == "last" else 4
    assert (operation.targeted, operation.accepted, operation.failed) == (6, accepted, 6 - accepted)
    assert sorted(row.device_id for row in await world.outcomes()) == sorted(
        {row.device_id for row in await world.outcomes()}
    )


async def test_who_answers_or_falls_silent_meanwhile_is_started_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 1)
    monkeypatch.setattr(fan_out, "AHEAD", 1)
    phones = await with_suspects(world)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: len(world.fake.pushes) >= 2)
    tokens = schema.start_tokens
    async with world.database.write() as connection:
        cleared = {"unanswered": 0, "cleared_at": world.now()}
        await connection.execute(update(tokens).where(tokens.c.unanswered == 2).values(cleared))
        fallen = {"unanswered": 2, "suspect_at": world.now()}
        await connection.execute(update(tokens).where(tokens.c.suspect_at.is_(None)).values(fallen))
    await world.settled()
    assert sorted(order(world, phones)) == sorted(phone.id for phone in phones)


async def test_a_silent_phone_becomes_suspect_and_an_answer_clears_it(world: World) -> None:
    """The whole way: a token that the phone replaced without a word, until the app tells the new one."""
    [phone] = await world.add_phones(1)
    [token] = [one for one in phone.tokens if one.kind == "start"]
    world.fake.devices.rotate(token, quietly=True)
    for number in range(2):
        await world.pass_time(1.0)
        operation = await started(world, id=f"card-{number}")
        assert operation["accepted"] == 1
        world.clock.advance_sync(world.settings.suspect_wait + 1)
        await world.until(lambda n=number: world.service.scheduler.suspected == n)
    known = await world.service.devices.get(world.app, phone.id)
    assert known["start_tokens"][0]["suspect"]
    await world.service.devices.register(world.app, world.start_records(phone))
    known = await world.service.devices.get(world.app, phone.id)
    assert not known["start_tokens"][0]["suspect"]
    await started(world, id="card-3")
    assert world.showing(phone) == ("active", 0)
