"""Tokens that die, move, are replaced, are slow, or speak another language."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy import select

from apns_live.activities import AlertText, Presentation, TokenRecord
from apns_live.activities.store import schema
from apns_live.errors import InvalidInput, NotFound
from tests.activities.send.test_recovery import follow
from tests.activities.send.world import TYPE, World, a_start, an_end, an_update


def living_token(phone: Any) -> Any:
    return phone.activities[-1].token


async def test_a_410_retires_the_token_that_was_registered_before(world: World) -> None:
    phones = await follow(world, 3)
    world.fake.devices.kill(living_token(phones[0]), "unregistered")
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    assert world.shown(phones)[1:] == [("active", 1)] * 2
    reasons = sorted(str(row.retired_reason) for row in await world.members())
    assert reasons == ["None", "None", "Unregistered"]
    update = (await world.operations())[-1]
    assert (update.status, update.accepted, update.failed) == ("done", 2, 1)
    sent = len(world.fake.pushes)
    answer = (await world.service.activities.update(world.app, an_update(2))).answer
    assert answer.devices == 2
    await world.settled()
    assert len(world.fake.pushes) == sent + 2


async def test_a_token_registered_after_the_410_lives_on(world: World) -> None:
    [phone] = await follow(world, 1)
    token = living_token(phone)
    # The refusal is about a time before the phone registered it.
    since = int((world.clock.time() - 3600) * 1000)
    world.fake.fault(
        "answer", token=token.text, status=410, reason="Unregistered", timestamp=since, times=1
    )
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    [member] = await world.members()
    assert member.retired_at is None
    await world.service.activities.update(world.app, an_update(2))
    await world.until(lambda: world.showing(phone) == ("active", 2))


async def test_dead_start_tokens_are_retired(world: World) -> None:
    phones = await world.add_phones(4)
    start = next(token for token in phones[0].tokens if token.kind == "start")
    world.fake.devices.kill(start, "unregistered")
    await world.pass_time(1.0)
    await world.service.activities.start(world.app, a_start())
    await world.settled()
    [operation] = await world.operations()
    assert (operation.accepted, operation.failed, operation.status) == (3, 1, "done")
    assert len(await world.members()) == 3, "who was not started is no member"
    assert (await world.service.devices.get(world.app, phones[0].id))["start_tokens"] == []


async def test_a_replaced_token_is_sent_to_alone(world: World) -> None:
    [phone] = await follow(world, 1)
    old = living_token(phone)
    await world.service.activities.update(world.app, an_update(1))
    await world.until(lambda: world.showing(phone) == ("active", 1))
    await world.pass_time(1.0)
    new = world.fake.devices.rotate(old)
    world.handed_in.clear()
    record = TokenRecord(
        device=phone.id, kind="activity", token=new.text, registered_at=world.now(), scope="match"
    )
    await world.service.tokens.register_activity_tokens(world.app, [record])
    await world.settled()
    sent = [push.token for push in world.fake.pushes]
    assert sent.count(new.text) == 1, "a new token gets the newest state"
    await world.service.activities.update(world.app, an_update(2))
    await world.until(lambda: world.showing(phone) == ("active", 2))
    await world.settled()
    assert [push.token for push in world.fake.pushes].count(old.text) == 1
    late = TokenRecord(
        device=phone.id,
        kind="activity",
        token=old.text,
        registered_at=record.registered_at - 500,
        scope="match",
    )
    await world.service.tokens.register_activity_tokens(world.app, [late])
    [member] = await world.members()
    assert member.token == new.text


async def test_a_token_that_moves_to_another_device_is_sent_to_once(world: World) -> None:
    [phone] = await follow(world, 1)
    token = living_token(phone)
    await world.pass_time(1.0)
    moved = TokenRecord(
        device="reinstalled",
        kind="activity",
        token=token.text,
        registered_at=world.now(),
        scope="match",
    )
    await world.service.tokens.register_activity_tokens(world.app, [moved])
    await world.settled()
    before = len(world.fake.pushes)
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    assert len(world.fake.pushes) == before + 1
    assert sorted(str(row.retired_reason) for row in await world.members()) == ["None", "moved"]


async def test_who_leaves_or_is_forgotten_gets_nothing_more(world: World) -> None:
    phones = await follow(world, 3)
    tokens = world.service.tokens
    assert await tokens.leave(world.app, "match", phones[0].id)
    assert not await tokens.leave(world.app, "match", phones[0].id)
    with pytest.raises(NotFound):
        await tokens.leave(world.app, "other", phones[0].id)
    await world.service.devices.forget(world.app, phones[1].id)
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    assert world.shown(phones) == [("active", 0), ("active", 0), ("active", 1)]
    await world.service.activities.end(world.app, an_end(2))
    await world.settled()
    assert world.shown(phones) == [("active", 0), ("active", 0), ("ended", 2)]


async def test_a_slow_token_gets_the_newest_state_in_the_end(world: World) -> None:
    phones = await follow(world, 5)
    slow = living_token(phones[0])
    world.fake.fault("answer", token=slow.text, status=429, reason="TooManyRequests", lasting=8.0)
    for n in range(1, 4):
        await world.service.activities.update(world.app, an_update(n))
        await world.pass_time(1.5)
    assert world.shown(phones[1:]) == [("active", 3)] * 4
    assert world.showing(phones[0]) == ("active", 0)
    await world.settled()
    assert world.showing(phones[0]) == ("active", 3)
    assert [row.accepted for row in await world.operations()] == [5, 4, 4, 5]


async def test_everybody_reads_their_own_language(world: World) -> None:
    english = await world.add_phones(1, first=0)
    german = await world.add_phones(1, first=1, language="de-AT")
    french = await world.add_phones(1, first=2, language="fr")
    phones = english + german + french
    words = {"en": "Kick-off", "de": "Anpfiff"}
    alert = AlertText(title=words, body={"en": "It begins", "de": "Es geht los"})
    await world.service.activities.start(world.app, a_start(presentation=Presentation(alert=alert)))
    await world.until(
        lambda: all(phone.activities and phone.activities[-1].token for phone in phones)
    )
    await world.settled()
    goal = AlertText(title={"en": "Goal", "de": "Tor", "fr": "But"}, body="1:0")
    await world.service.activities.update(
        world.app, an_update(1, presentation=Presentation(alert=goal))
    )
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 3)
    titles: dict[str, list[str]] = {}
    for push in world.fake.pushes:
        aps = json.loads(push.body)["aps"]
        titles.setdefault(aps["event"], []).append(aps["alert"]["title"])
    assert sorted(titles["start"]) == ["Anpfiff", "Kick-off", "Kick-off"]
    assert sorted(titles["update"]) == ["But", "Goal", "Tor"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "start"}, "tokens[1].kind"),
        ({"token": "xyz"}, "tokens[1].token"),
        ({"scope": ""}, "tokens[1].scope"),
        ({"registered_at": 17}, "tokens[1].registered_at"),
        ({"environment": "staging"}, "tokens[1].environment"),
        ({"device": ""}, "tokens[1].device"),
    ],
)
async def test_one_wrong_token_stores_none(world: World, change: Any, field: str) -> None:
    good = {
        "device": "d1",
        "kind": "activity",
        "token": "aa" * 32,
        "registered_at": world.now(),
        "scope": "match",
    }
    with pytest.raises(InvalidInput) as caught:
        await world.service.tokens.register_activity_tokens(
            world.app, [TokenRecord(**good), TokenRecord(**{**good, **change})]
        )
    assert caught.value.field == field
    assert caught.value.remedy
    assert await world.members() == []


async def test_frequent_updates_switched_off_keep_a_device_to_the_small_budget(
    world: World,
) -> None:
    await world.service.apps.configure(world.app, {"budget": "frequent"})
    world.app = await world.service.apps.get(world.app.id)
    [usual] = await world.add_phones(1)
    [slow] = await world.add_phones(1, first=1, frequent_updates=False)
    await world.service.activities.start(world.app, a_start())
    await world.until(
        lambda: all(one.activities and one.activities[-1].token for one in (usual, slow))
    )
    await world.settled()
    for n in range(1, 9):
        await world.service.activities.update(world.app, an_update(n))
        await world.settled()
        await world.pass_time(1.2)
    priorities: dict[str, list[int]] = {}
    for push in world.fake.pushes:
        priorities.setdefault(push.token, []).append(push.priority)
    assert priorities[living_token(usual).text].count(10) > priorities[
        living_token(slow).text
    ].count(10)
    assert TYPE


def a_registration(world: World, device: str, token: str) -> TokenRecord:
    return TokenRecord(
        device=device, kind="activity", token=token, registered_at=world.now(), scope="match"
    )


async def test_registrations_of_many_calls_share_a_transaction(world: World) -> None:
    phones = await follow(world, 1)
    tokens, commits = world.service.tokens, world.service.commits
    before = commits.commits, commits.requests

    async def refuse(_: Any) -> None:
        raise NotFound("it is somebody else's")

    records = [a_registration(world, f"new-{n}", f"{n:064x}") for n in range(30)]
    results = await asyncio.gather(
        *(tokens.register_activity_tokens(world.app, [record]) for record in records),
        tokens.register_activity_tokens(
            world.app, [a_registration(world, "refused", "ab" * 32)], guard=refuse
        ),
        return_exceptions=True,
    )
    assert results[:-1] == [1] * 30
    assert isinstance(results[-1], NotFound), "it alone, and it has stored nothing"
    assert len(await world.members()) == 30 + len(phones)
    assert commits.requests - before[1] == 31
    assert commits.commits - before[0] < 5
    await world.settled()
    reasons = [row.retired_reason for row in await world.members()]
    assert reasons.count("BadDeviceToken") == 30, "each was sent the state; APNs does not know them"


async def test_a_token_that_two_devices_have_at_the_same_moment_stays_with_the_last(
    world: World,
) -> None:
    await follow(world, 1)
    both = [a_registration(world, name, "ab" * 32) for name in ("first", "second")]
    await world.service.tokens.register_activity_tokens(world.app, both)
    living = [
        row.device_id
        for row in await world.members()
        if row.token == "ab" * 32 and row.retired_at is None
    ]
    async with world.service.database.read() as connection:
        names = await connection.execute(
            select(schema.devices.c.public_id).where(schema.devices.c.id.in_(living))
        )
    assert names.scalars().all() == ["second"]
