"""An id that is used again: for more people, and after the end."""

from __future__ import annotations

import json

from apns_live.activities import Audience
from apns_live.activities.store import schema
from tests.activities.send.world import a_start
from tests.gateway.braze.test_life import Caller
from tests.gateway.braze.world import VendorWorld


async def test_people_by_the_fifty(world: VendorWorld) -> None:
    """Braze takes fifty external ids a call: a server starts in chunks, under one id."""
    caller = Caller(world, await world.key("braze"))
    phones = await world.add_users(5)
    for first in (0, 2, 4):
        answer = await caller.start(external_user_ids=[f"user-{first}", f"user-{first + 1}"])
        assert answer.status_code == 201
    await world.shows(phones, "active", teamOneScore=0)
    await world.have_tokens(phones)
    assert [(row.kind, row.status) for row in await world.operations()] == [("start", "done")] * 3
    assert await world.count(schema.activities) == 1
    await caller.update(1, 0)
    await world.shows(phones, "active", teamOneScore=1)
    await caller.update(2, 0, end_activity=True)
    await world.shows(phones, "ended", teamOneScore=2)
    assert [len(phone.activities) for phone in phones] == [1] * 5


async def test_who_was_started_is_not_started_twice(world: VendorWorld) -> None:
    caller = Caller(world, await world.key("braze"))
    phones = await world.add_users(2)
    await caller.start(external_user_ids=["user-0"])
    await world.shows(phones[:1], "active", teamOneScore=0)
    await world.have_tokens(phones[:1])
    newer = {"teamOneScore": 3, "teamTwoScore": 2}
    own = {"gameType": "Petanque"}
    alert = {"alert": {"title": "Joined late", "body": "3:2"}}
    await caller.start(content_state=newer, activity_attributes=own, notification=alert)
    await world.shows(phones, "active", **newer)
    await world.settled()
    assert [len(phone.activities) for phone in phones] == [1, 1]
    # Attributes never change on a card that is there.
    kinds = [json.loads(phone.activities[0].attributes)["gameType"] for phone in phones]
    assert kinds == ["Boccia", "Petanque"]
    assert json.loads(phones[1].activities[0].alert)["title"] == "Joined late"


async def test_an_id_is_free_again_after_the_end(world: VendorWorld) -> None:
    caller = Caller(world, await world.key("braze"))
    [phone] = await world.add_users(1)
    for number in range(3):
        assert (await caller.start(external_user_ids=["user-0"])).json() == {"message": "success"}
        await world.shows([phone], "active", teamOneScore=0)
        await world.have_tokens([phone])
        assert (await caller.update(number, 0, end_activity=True)).json() == {"message": "success"}
        await world.shows([phone], "ended", teamOneScore=number)
        await world.settled()
    assert len(phone.activities) == 3
    page = await world.service.activities.page(world.app)
    assert len({entry["id"] for entry in page}) == 3
    assert page[-1]["id"] == "match-17"


async def test_another_type_under_a_running_id_is_refused(world: VendorWorld) -> None:
    caller = Caller(world, await world.key("braze"))
    await world.add_users(1)
    await caller.start()
    answer = await caller.start(activity_attributes_type="Other")
    assert (answer.status_code, answer.json()["message"]) == (400, "Bad Request")
    assert "Match" in answer.json()["errors"][0]


async def test_a_key_for_groups_does_not_get_into_an_activity_of_others(world: VendorWorld) -> None:
    caller = Caller(world, await world.key("braze"))
    [phone, other] = await world.add_users(2)
    for slug in ("demo", "more"):
        await world.service.people.add_group(world.app, slug)
    await world.service.people.join_group(world.app, "demo", "user", "user-0")
    rule = {"field": "custom", "key": "x", "relation": "exists"}
    await world.service.segments.save(world.app, "S", rule)
    narrow = Caller(world, await world.key("braze", groups={"demo"}))
    # Of the groups alone: the key reaches it, until somebody starts it on others as well.
    own = {"brazeActivityId": "match-17"}
    await world.service.activities.start(
        world.app, a_start("match-17", attributes=own, audience=Audience(groups=("demo",)))
    )
    assert (await narrow.update(1, 0)).json() == {"message": "success"}
    await world.service.activities.start(
        world.app,
        a_start("match-17", attributes=own, audience=Audience(groups=("more",))),
        again=True,
    )
    assert "errors" in (await narrow.update(1, 0)).json()
    await caller.start(activity_id="other", external_user_ids=["user-1"])
    await world.settled()
    assert phone.activities
    assert other.activities
