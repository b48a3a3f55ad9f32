"""A process that stops half-way, politely or not, and what the next one makes of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from apns_live.activities.send import fan_out, lives, recorder
from apns_live.activities.send.backlog import PACE
from apns_live.activities.store import schema
from tests.activities.send.world import World, a_start, an_end, an_update


async def kill(world: World) -> None:
    """Let the service be gone at once: no drain, nothing written down."""
    service = world.service

    async def gone() -> None:
        for task in service.background:
            task.cancel()
        await asyncio.gather(*service.background, return_exceptions=True)
        if (writing := service.courier._recorder._under_way) is not None:
            writing.cancel()
            await asyncio.wait([writing])
        service.courier._recorder._parts.clear()
        await service.courier.carriers.aclose()

    service._close = gone  # type: ignore[method-assign]
    await world.close()


async def follow(world: World, count: int) -> list[Any]:
    """Start an activity on phones and wait for all of their tokens."""
    phones = await world.add_phones(count)
    await world.service.activities.start(world.app, a_start())
    await world.until(
        lambda: all(phone.activities and phone.activities[-1].token for phone in phones)
    )
    await world.settled()
    return phones


def starts_of(world: World) -> list[str]:
    return [push.token for push in world.fake.pushes if b'"start"' in push.body]


async def test_what_was_accepted_and_not_sent_is_sent_by_the_next_process(world: World) -> None:
    phones = await follow(world, 10)
    world.fake.stop_listening()
    world.fake.disconnect()
    await world.service.activities.update(world.app, an_update(1))
    await kill(world)
    world.fake.listen_again()
    await world.open()
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 10)
    await world.settled()
    assert [row.status for row in await world.operations()] == ["done", "done"]


async def test_an_accepted_start_survives_a_stop_before_anything_was_done(world: World) -> None:
    phones = await world.add_phones(10)
    await kill(world)
    # Accepted by a process that dies before its courier looks.
    await world.service.activities.start(world.app, a_start())
    await world.open()
    await world.until(lambda: world.shown(phones) == [("active", 0)] * 10)


async def test_an_update_that_may_have_arrived_is_sent_again_with_a_newer_timestamp(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = await follow(world, 5)
    monkeypatch.setattr(recorder, "INTERVAL", 3600.0)
    await world.service.activities.update(world.app, an_update(1))
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 5)
    await kill(world)
    monkeypatch.undo()
    await world.open()
    await world.service.activities.update(world.app, an_update(2))
    await world.until(lambda: world.shown(phones) == [("active", 2)] * 5)
    await world.settled()
    assert {row.status for row in await world.operations()} <= {"done", "superseded"}
    for phone in phones:
        token = phone.activities[-1].token
        sent = [
            json.loads(push.body)["aps"] for push in world.fake.pushes if push.token == token.text
        ]
        stamps = {
            n: [aps["timestamp"] for aps in sent if aps["content-state"]["n"] == n] for n in (1, 2)
        }
        assert max(stamps[1]) < min(stamps[2])


async def test_the_first_push_after_a_crash_does_not_wait(world: World) -> None:
    """A restart is no reason to be late: only what follows at once keeps clear of older timestamps."""
    phones = await follow(world, 4)
    await world.pass_time(12.0)
    world.fake.stop_listening()
    world.fake.disconnect()
    await world.service.activities.update(world.app, an_update(1))
    await kill(world)
    world.fake.listen_again()
    begun = world.clock.monotonic()
    await world.open()
    await world.until(lambda: world.shown(phones) == [("active", 1)] * 4)
    assert world.clock.monotonic() - begun < 0.9
    for n in (2, 3):
        await world.service.activities.update(world.app, an_update(n))
    await world.until(lambda: world.shown(phones) == [("active", 3)] * 4)
    await world.settled()
    for phone in phones:
        token = phone.activities[-1].token.text
        sent = [json.loads(push.body)["aps"] for push in world.fake.pushes if push.token == token]
        stamps = [aps["timestamp"] for aps in sent]
        assert stamps == sorted(set(stamps))
        assert stamps[-1] <= world.clock.time() + 2


async def test_a_start_killed_half_way_loses_nobody_and_doubles_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 10)
    monkeypatch.setattr(fan_out, "AHEAD", 20)
    phones = await world.add_phones(200)
    await world.service.activities.start(world.app, a_start())
    for share in (10, 60, 120):
        await world.until(lambda share=share: len(starts_of(world)) >= share)
        await kill(world)
        await world.open()
    await world.settled()
    sent = starts_of(world)
    assert len(sent) == len(set(sent)), "a start was sent twice"
    [start] = await world.operations()
    assert start.status == "done"
    outcomes = await world.outcomes()
    assert len({row.device_id for row in outcomes}) == len(outcomes) == 200
    unknown = [row for row in outcomes if row.verdict == "unknown"]
    assert {row.reason for row in unknown} <= {"restart"}
    assert len(unknown) <= 3 * 20
    assert (start.accepted, start.failed, start.targeted) == (200 - len(unknown), len(unknown), 200)
    assert sum(shown is None for shown in world.shown(phones)) <= len(unknown)


async def test_a_second_start_killed_half_way_says_nothing_of_the_devices_of_the_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 10)
    monkeypatch.setattr(fan_out, "AHEAD", 20)
    await world.add_phones(40)
    await world.service.activities.start(world.app, a_start())
    await world.settled()
    await world.add_phones(60, first=40)
    await world.service.activities.start(world.app, a_start(), again=True)
    await world.until(lambda: len(starts_of(world)) >= 60)
    await kill(world)
    await world.open()
    await world.settled()
    first, second = await world.operations()
    assert (first.targeted, first.accepted, first.failed) == (40, 40, 0)
    assert second.targeted == second.accepted + second.failed == 60
    outcomes = await world.outcomes()
    assert len({row.device_id for row in outcomes}) == len(outcomes) == 100


async def test_a_start_that_is_closed_half_way_goes_on_where_it_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 10)
    monkeypatch.setattr(fan_out, "AHEAD", 40)
    phones = await world.add_phones(200)
    # What is taken and cannot leave yet is what a polite end gives back.
    world.fake.fault("withhold", every=7, times=20)
    await world.service.activities.start(world.app, a_start())
    await world.until(lambda: len(starts_of(world)) >= 30)
    await world.close()
    world.fake.faults.clear()
    await world.open()
    await world.settled()
    sent = starts_of(world)
    assert len(sent) == len(set(sent))
    [start] = await world.operations()
    assert (start.status, start.targeted) == ("done", 200)
    outcomes = await world.outcomes()
    assert len({row.device_id for row in outcomes}) == len(outcomes) == 200
    verdicts = {row.verdict for row in outcomes}
    assert "not_sent" not in verdicts
    unknown = sum(row.verdict == "unknown" for row in outcomes)
    assert start.accepted == 200 - unknown
    assert sum(shown is None for shown in world.shown(phones)) <= unknown


async def test_an_end_is_not_lost(world: World) -> None:
    phones = await follow(world, 10)
    await world.service.activities.end(world.app, an_end(4))
    await kill(world)
    await world.open()
    await world.until(lambda: world.shown(phones) == [("ended", 4)] * 10)
    await world.settled()
    assert {row.retired_reason for row in await world.members()} == {"ended"}


async def test_only_those_behind_are_sent_to_after_a_crash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = await follow(world, 10)
    slow = phones[0].activities[-1].token.text
    world.fake.fault("answer", token=slow, status=429, reason="TooManyRequests", lasting=30.0)
    await world.service.activities.update(world.app, an_update(1))
    await world.until(lambda: world.shown(phones[1:]) == [("active", 1)] * 9)
    await world.pass_time(1.0)  # the results are written down
    await kill(world)
    sent = len(world.fake.pushes)
    world.fake.faults.clear()
    await world.open()
    await world.until(lambda: world.showing(phones[0]) == ("active", 1))
    await world.settled()
    assert [push.token for push in list(world.fake.pushes)[sent:]] == [slow]


async def test_closing_waits_for_what_is_under_way(world: World) -> None:
    phones = await world.add_phones(50)
    await world.service.activities.start(world.app, a_start())
    drained = asyncio.ensure_future(world.service._drain(60.0))
    await world.until(drained.done)
    assert None not in world.shown(phones)
    assert (await world.operations())[0].status == "done"
    await world.close()
    await world.open()
    assert not (await world.outcomes())[50:]


@pytest.mark.parametrize("change", ["update", "end"])
async def test_what_comes_while_those_behind_are_read_reaches_everybody(
    world: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    # After a crash only those are read who are behind the state of then: here nobody is.
    phones = await follow(world, 5)
    await world.service.activities.update(world.app, an_update(1))
    await world.settled()
    await world.close()
    table = schema.operations
    async with world.database.write() as connection:
        await connection.execute(
            update(table).where(table.c.kind == "update").values(status="running", finished_at=None)
        )
    reading, go = asyncio.Event(), asyncio.Event()
    with_rows = lives.with_rows

    async def slow(*args: Any, **named: Any) -> Any:
        rows = await with_rows(*args, **named)
        reading.set()
        await go.wait()
        return rows

    monkeypatch.setattr(lives, "with_rows", slow)
    await world.open()
    await world.until(reading.is_set)
    if change == "end":
        await world.service.activities.end(world.app, an_end(2))
    else:
        await world.service.activities.update(world.app, an_update(2))
    [live] = world.service.courier._lives._lives.values()
    world.clock.advance_sync(PACE)  # time stands still while somebody reads
    await world.until(lambda: live.version == 3)
    go.set()
    await world.settled()
    state = "ended" if change == "end" else "active"
    assert world.shown(phones) == [(state, 2)] * 5


async def test_pushes_that_were_not_stored_exceed_the_budget_by_one_at_most(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.service.apps.configure(world.app, {"budget": "observed"})
    [phone] = await follow(world, 1)
    seen = len(world.fake.pushes)
    for n in range(1, 14):
        await world.pass_time(2.0)
        if n == 10:  # From here on nothing is stored.
            monkeypatch.setattr(world.service.courier._recorder, "_due", asyncio.Event())
        if n == 12:
            await kill(world)
            await world.open()
        await world.service.activities.update(world.app, an_update(n))
        await world.until(lambda n=n: world.shown([phone]) == [("active", n)])
    assert [push.priority for push in [*world.fake.pushes][seen:]].count(10) <= 12


async def test_a_budget_that_was_spent_stays_spent(world: World) -> None:
    """By the process that was killed, and by one that let go of the idle activity."""
    await world.service.apps.configure(world.app, {"budget": "observed"})
    [phone] = await follow(world, 1)

    async def priorities(states: range) -> list[int]:
        seen = len(world.fake.pushes)
        for n in states:
            await world.pass_time(2.0)
            await world.service.activities.update(world.app, an_update(n))
            await world.until(lambda n=n: world.shown([phone]) == [("active", n)])
            await world.settled()
        return [push.priority for push in [*world.fake.pushes][seen:]]

    assert await priorities(range(1, 13)) == [10] * 11 + [5]
    await kill(world)
    await world.open()
    assert await priorities(range(13, 15)) == [5, 5]
    await kill(world)
    await world.open(settings=replace(world.settings, tokens_in_memory=0))
    assert await priorities(range(15, 17)) == [5, 5]
    await world.pass_time(3_600.0)
    assert await priorities(range(17, 19)) == [10, 10]
