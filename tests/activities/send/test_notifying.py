"""Notifications over real sockets, as the phones show them, and through stops and crashes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select, update

from apns_live.activities import Audience, Notify, TokenRecord
from apns_live.activities.send import fan_out
from apns_live.activities.store import reached, schema
from tests.activities.plans import every_query_indexed
from tests.activities.send.world import World, a_start, an_update

EVERYONE = Audience(everyone=True)


async def add_device_tokens(world: World, phones: list[Any]) -> None:
    await world.service.devices.register(
        world.app,
        [
            TokenRecord(device=phone.id, kind="device", token=token.text, registered_at=world.now())
            for phone in phones
            for token in phone.tokens
            if token.kind == "device"
        ],
    )


async def with_phones(world: World, count: int, **told: Any) -> list[Any]:
    phones = await world.add_phones(count, **told)
    await add_device_tokens(world, phones)
    return phones


async def send(world: World, **values: Any) -> str:
    request = Notify(**{"audience": EVERYONE, **values})
    answer = await world.service.notifications.send(world.app, request)
    return answer.answer.operation


def pushes(phone: Any) -> list[Any]:
    """The ordinary pushes that a phone got, the oldest first."""
    return [record.push for record in phone.notifications or ()]


def got(phone: Any) -> list[dict[str, Any]]:
    """Their payloads."""
    return [json.loads(push.body) for push in pushes(phone)]


async def operation(world: World, name: str) -> dict[str, Any]:
    return await world.service.operations.get(world.app, name)


async def test_everyone_gets_it_in_their_language(world: World) -> None:
    phones = await with_phones(world, 5, user="ada")
    await world.service.devices.tell(
        world.app, [device(phones[1], language="de-AT"), device(phones[2], push_enabled=False)]
    )
    name = await send(world, title={"en": "Goal", "de": "Tor"}, body="1:0", custom={"match": 17})
    await world.settled()
    english = {"aps": {"alert": {"title": "Goal", "body": "1:0"}}, "match": 17}
    german = {"aps": {"alert": {"title": "Tor", "body": "1:0"}}, "match": 17}
    assert [got(phone) for phone in phones] == [[english], [german], [], [english], [english]]
    known = await operation(world, name)
    assert (known["status"], known["targeted"], known["accepted"]) == ("done", 4, 4)
    assert known["users"] == 1
    assert known["finished_at"]
    push = pushes(phones[0])[0]
    assert (push.push_type, push.priority, push.collapse_id) == ("alert", 10, name)
    assert await world.count(schema.intended_pages) == 0


def device(phone: Any, **told: Any) -> Any:
    from apns_live.activities import DeviceRecord

    return DeviceRecord(id=phone.id, **told)


async def test_a_badge_and_a_background_push(world: World) -> None:
    [phone] = await with_phones(world, 1)
    await send(world, badge=3)
    await send(world, background=True, custom={"refresh": 1})
    await world.settled()
    by_type = {push.push_type: json.loads(push.body) for push in pushes(phone)}
    assert by_type == {
        "alert": {"aps": {"badge": 3}},
        "background": {"aps": {"content-available": 1}, "refresh": 1},
    }


@pytest.mark.parametrize("least", [1, 3])
async def test_a_replacement_goes_where_the_first_went(
    world: World, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr(reached, "LEAST", least)  # whether devices share a row of outcomes
    phones = await with_phones(world, 3)
    first = await send(world, title="1:0", audience=Audience(devices=(phones[1].id, phones[2].id)))
    await world.settled()
    await send(world, title="Offside", audience=Audience(), replaces=first)
    await world.settled()
    titles = [[body["aps"]["alert"]["title"] for body in got(phone)] for phone in phones]
    assert titles == [[], ["1:0", "Offside"], ["1:0", "Offside"]]
    assert {push.collapse_id for push in pushes(phones[1])} == {first}


async def test_a_dead_token_is_retired(world: World) -> None:
    phones = await with_phones(world, 3)
    for token in phones[0].tokens:
        if token.kind == "device":
            world.fake.devices.kill(token, "unregistered")
    name = await send(world, title="Goal")
    await world.settled()
    known = await operation(world, name)
    assert (known["accepted"], known["failed"], known["status"]) == (2, 1, "done")
    async with world.database.read() as connection:
        table = schema.device_tokens
        rows = (await connection.execute(select(table).order_by(table.c.id))).all()
    assert [row.retired_reason for row in rows] == ["Unregistered", None, None]
    again = await send(world, title="Goal")
    await world.settled()
    assert (await operation(world, again))["targeted"] == 2


async def test_nobody_is_no_error_once_accepted(world: World) -> None:
    name = await send(world, title="Goal")
    await world.settled()
    known = await operation(world, name)
    assert (known["status"], known["targeted"], known["users"]) == ("done", 0, 0)


async def test_a_segment_that_is_gone_by_then_fails_it(world: World) -> None:
    await with_phones(world, 1)
    rule = {"field": "language", "relation": "=", "value": "en"}
    await world.service.segments.save(world.app, "Fans", rule)
    # Accepted by a process that ended before it sent anything.
    name = await accept_only(world, audience=Audience(segments=("Fans",)), title="Goal")
    await world.service.segments.delete(world.app, "Fans")
    await world.close()
    await world.open()
    await world.settled()
    known = await operation(world, name)
    assert known["status"] == "failed"
    assert "'Fans' is not a segment" in known["reason"]


async def accept_only(world: World, **values: Any) -> str:
    """Accept and tell nobody, as if the process had died then."""
    core = world.service
    core.hooks.accepted, kept = lambda app, row: None, core.hooks.accepted
    try:
        return await send(world, **values)
    finally:
        core.hooks.accepted = kept


async def test_a_missing_key_fails_it_until_one_is_added(world: World) -> None:
    world.app = await world.add_app("keyless", with_key=False)
    [phone] = await with_phones(world, 1)
    name = await send(world, title="Goal")
    await world.settled()
    known = await operation(world, name)
    assert (known["status"], known["finished_at"]) == ("failed", None)
    assert "key" in known["reason"]
    await world.add_key(world.app)
    await world.settled()
    known = await operation(world, name)
    assert (known["status"], known["reason"], known["accepted"]) == ("done", None, 1)
    assert len(pushes(phone)) == 1


async def test_a_close_with_unanswered_pushes_sends_none_again(world: World) -> None:
    phones = await with_phones(world, 4)
    world.fake.fault("withhold")
    name = await send(world, title="Goal")
    await world.until(lambda: all(pushes(phone) for phone in phones))
    await world.close()
    world.fake.faults.clear()
    await world.open()
    await world.settled()
    assert [len(pushes(phone)) for phone in phones] == [1] * 4
    known = await operation(world, name)
    assert (known["status"], known["accepted"], known["failed"]) == ("done", 0, 4)
    outcomes = await world.service.operations.outcomes(world.app, name)
    assert [entry["verdict"] for entry in outcomes] == ["unknown"] * 4


@pytest.mark.one_process("another process continues at once")
async def test_after_a_restart_it_goes_on_and_those_without_an_outcome_are_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 4)
    phones = await in_order_of_tokens(world, await with_phones(world, 14))
    name = await accept_only(world, title="Goal")
    await world.close()
    # An earlier process had sent to d0 and d1 and stored it, and had intended d2 and d3.
    rows = await device_rows(world, phones)
    operations, pages = schema.operations, schema.intended_pages
    async with world.database.write() as connection:
        row = (
            await connection.execute(select(operations).where(operations.c.public_id == name))
        ).one()
        await connection.execute(
            pages.insert().values(operation_id=row.id, devices=json.dumps(rows[:4]))
        )
        await connection.execute(
            schema.outcomes.insert(),
            [
                {"app_id": row.app_id, "operation_id": row.id, "device_id": rows[n],
                 "verdict": "accepted", "status": 200, "reason": "", "apns_id": "x",
                 "priority": 10, "created_at": world.now()}
                for n in (0, 1)
            ],
        )  # fmt: skip
        # And two more of the next page.
        await connection.execute(
            pages.insert().values(operation_id=row.id, devices=json.dumps(rows[4:6]))
        )
        cursor = (
            await connection.execute(
                select(schema.device_tokens.c.id).where(schema.device_tokens.c.device_id == rows[5])
            )
        ).scalar_one()
        await connection.execute(
            update(operations)
            .where(operations.c.id == row.id)
            .values(status="running", cursor=cursor, targeted=6, accepted=2)
        )
    await world.open()
    await world.settled()
    assert [len(pushes(phone)) for phone in phones] == [0] * 6 + [1] * 8
    known = await operation(world, name)
    assert (known["status"], known["targeted"]) == ("done", 14)
    assert (known["accepted"], known["failed"]) == (10, 4)
    outcomes = await world.service.operations.outcomes(world.app, name)
    assert sorted(entry["device"] for entry in outcomes) == sorted(phone.id for phone in phones)
    assert await world.count(pages) == 0


async def device_rows(world: World, phones: list[Any]) -> list[int]:
    async with world.database.write() as connection:
        rows = await world.service.devices.rows(
            connection, world.app, [phone.id for phone in phones]
        )
    return [rows[phone.id] for phone in phones]


async def in_order_of_tokens(world: World, phones: list[Any]) -> list[Any]:
    """Return phones as a notification reads them: by the rows of their tokens."""
    tokens = schema.device_tokens
    async with world.database.read() as connection:
        query = select(tokens.c.device_id).order_by(tokens.c.id)
        order = (await connection.execute(query)).scalars().all()
    by_row = dict(zip(await device_rows(world, phones), phones, strict=True))
    return [by_row[row] for row in order]


async def test_closing_half_way_loses_and_doubles_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 10)
    monkeypatch.setattr(fan_out, "AHEAD", 30)
    phones = await with_phones(world, 100)
    name = await send(world, title="Goal")
    arrived = lambda: sum(len(pushes(phone)) for phone in phones)  # noqa: E731
    for stop in (5, 30, 60):
        await world.until(lambda stop=stop: arrived() >= stop)
        await world.close()
        await world.open()
    await world.settled()
    counts = [len(pushes(phone)) for phone in phones]
    assert max(counts) == 1
    known = await operation(world, name)
    assert (known["status"], known["targeted"]) == ("done", 100)
    assert known["accepted"] + known["failed"] == 100
    outcomes = await world.service.operations.outcomes(world.app, name, limit=1_000)
    assert sorted(entry["device"] for entry in outcomes) == sorted(phone.id for phone in phones)
    # Who has no push has an outcome that says that it is not known.
    unknown = {entry["device"] for entry in outcomes if entry["verdict"] != "accepted"}
    assert {phone.id for phone in phones if not pushes(phone)} <= unknown
    assert await world.count(schema.intended_pages) == 0


async def test_many_at_once_are_all_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apns_live.activities.send.backlog.PAGE", 3)
    [phone] = await with_phones(world, 1)
    names = [await send(world, title=f"n{number}") for number in range(12)]
    await world.settled()
    assert {body["aps"]["alert"]["title"] for body in got(phone)} == {f"n{n}" for n in range(12)}
    for name in names:
        assert (await operation(world, name))["status"] == "done"


async def test_it_is_followed_as_it_happens(world: World) -> None:
    await with_phones(world, 3)
    name = await send(world, title="Goal")
    seen = []

    async def follow() -> None:
        seen.extend([step async for step in world.service.watch(world.app, operation=name)])

    await world.result_of(follow())
    assert seen[-1]["status"] == "done"
    assert seen[-1]["accepted"] == 3


async def test_it_runs_beside_activities(world: World) -> None:
    phones = await with_phones(world, 3)
    await world.service.activities.start(world.app, a_start())
    await send(world, title="Goal")
    await world.until(lambda: world.shown(phones) == [("active", 0)] * 3)
    await world.settled()
    await world.service.activities.update(world.app, an_update(1))
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 3)
    assert [len(pushes(phone)) for phone in phones] == [1, 1, 1]


async def test_a_start_counts_persons_too(world: World) -> None:
    await with_phones(world, 3, user="ada")
    await world.add_phones(2, first=3)
    answer = await world.service.activities.start(world.app, a_start())
    await world.settled()
    known = await operation(world, answer.answer.operation)
    assert (known["accepted"], known["users"]) == (5, 3)


@pytest.mark.one_process("looks at the queries of one process")
async def test_no_query_scans_a_table(world: World) -> None:
    phones = await with_phones(world, 3)
    async with every_query_indexed(world.database, small={"apps", "credentials"}):
        first = await send(world, title="Goal")
        await world.settled()
        await send(world, title="No goal", audience=Audience(), replaces=first)
        await world.settled()
    assert len(pushes(phones[0])) == 2
