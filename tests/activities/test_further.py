"""A start under an id that is there already, on both databases."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from apns_live.activities.requests import AlertText, Audience, End, Presentation, Start, Update
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.errors import Conflict
from tests.activities.world import Rooms, a_key, a_start


@pytest.fixture
async def rooms(database: Database) -> Rooms:
    rooms = Rooms(database)
    await rooms.fill(devices=2)
    return rooms


async def start(rooms: Rooms, **changes: Any) -> Any:
    request: Start = a_start(**changes)
    return await rooms.activities.start(rooms.app, request, again=True)


def audience_of(row: Any) -> Any:
    return json.loads(row.audience)


async def test_the_same_state_is_told_to_nobody_again(rooms: Rooms) -> None:
    await start(rooms, audience=Audience(users=("a",)))
    done = await start(rooms, audience=Audience(users=("b",)))
    assert (done.answer.version, done.answer.activity) == (1, "match-17")
    [activity] = await rooms.rows(schema.activities)
    assert audience_of(activity) == {"everyone": True}
    first, second = await rooms.rows(schema.operations)
    # What a start reads does not change when the activity's audience grows.
    assert json.loads(first.request) == {"audience": {"users": ["a"]}}
    assert json.loads(second.request)["audience"] == {"users": ["b"]}


async def test_a_newer_state_is_a_new_version(rooms: Rooms) -> None:
    await start(rooms)
    louder = Presentation(alert=AlertText(title="Late", body="Join"), stale_date=2e9)
    done = await start(rooms, content_state={"home": 1}, presentation=louder)
    assert done.answer.version == 2
    operations = await rooms.rows(schema.operations)
    assert [(row.kind, row.version) for row in operations] == [
        ("start", 1),
        ("update", 2),
        ("start", 2),
    ]
    # The alert is for those who are started; the others see the state change in silence.
    assert "alert" not in json.loads(operations[1].request)
    assert json.loads(operations[2].request)["alert"]["title"] == "Late"
    [activity] = await rooms.rows(schema.activities)
    assert json.loads(activity.message) == {"stale_date": 2e9, "urgency": "quiet"}


async def test_groups_stay_groups(rooms: Rooms) -> None:
    for slug in ("a", "b"):
        await rooms.people.add_group(rooms.app, slug)
    await start(rooms, audience=Audience(groups=("a",)))
    await start(rooms, audience=Audience(groups=("b",)))
    [activity] = await rooms.rows(schema.activities)
    assert audience_of(activity) == {"groups": ["a", "b"]}
    await start(rooms, audience=Audience(groups=("b",), users=("c",)))
    [activity] = await rooms.rows(schema.activities)
    assert audience_of(activity) == {"everyone": True}


@pytest.mark.parametrize("length", [8, 255])
async def test_an_ended_activity_gives_its_id_up(rooms: Rooms, length: int) -> None:
    name = "m" * length
    for _ in range(3):
        await start(rooms, id=name)
        await rooms.activities.update(rooms.app, Update(id=name, content_state={"home": 1}))
        await rooms.activities.end(rooms.app, End(id=name))
    rows = await rooms.rows(schema.activities)
    assert [row.public_id == name for row in rows] == [False, False, True]
    assert len({row.public_id for row in rows}) == 3
    assert all(len(row.public_id) <= 255 for row in rows)


async def test_what_does_not_fit_is_refused(rooms: Rooms) -> None:
    await start(rooms)
    with pytest.raises(Conflict, match="Match"):
        await start(rooms, attributes_type="Race")
    with pytest.raises(Conflict):
        await start(rooms, start_at=rooms.clock.time() + 60)
    await start(rooms, id="later", start_at=rooms.clock.time() + 60)
    with pytest.raises(Conflict, match="scheduled"):
        await start(rooms, id="later")
    with pytest.raises(Conflict, match="already"):
        await rooms.activities.start(rooms.app, a_start())


async def test_a_key_is_good_once(rooms: Rooms) -> None:
    answers = [
        await rooms.activities.start(rooms.app, a_start(), key=a_key("k"), again=True)
        for _ in range(2)
    ]
    assert [done.replayed for done in answers] == [False, True]
    assert await rooms.count(schema.operations) == 1


async def test_two_first_starts_at_the_same_moment(rooms: Rooms) -> None:
    await asyncio.gather(*(start(rooms, audience=Audience(users=(f"u{n}",))) for n in range(5)))
    assert await rooms.count(schema.activities) == 1
    assert await rooms.count(schema.operations) == 5


async def test_second_cards_say_what_the_newest_start_for_the_same_people_says(
    rooms: Rooms,
) -> None:
    async def stored(**changes: Any) -> tuple[Any, bool]:
        await start(rooms, **changes)
        [row] = await rooms.rows(schema.activities)
        return json.loads(row.attributes), row.hand_over_after is None

    ours = Audience(users=("a",))
    assert await stored(audience=ours, attributes={"side": "away"}) == ({"side": "away"}, False)
    assert await stored(audience=ours, attributes={"side": "home"}) == ({"side": "home"}, False)
    others = Audience(users=("b",))
    assert await stored(audience=others, attributes={"side": "home"}) == ({"side": "home"}, False)
    # Nobody's second card may say what another person's does.
    assert await stored(audience=others, attributes={"side": "away"}) == ({"side": "home"}, True)
