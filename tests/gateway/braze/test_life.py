"""Braze's example requests, with our own values, as the phones show them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from apns_live.activities.accept.receipts import ReceiptRecord
from tests.gateway.braze.world import TYPE, VendorWorld

PLAYERS = ["user-0", "user-1"]


def start_body(**changes: Any) -> dict[str, Any]:
    """The fields and shapes of the example of a start."""
    body = {
        "app_id": "scores",
        "activity_id": "match-17",
        "external_user_ids": PLAYERS,
        "activity_attributes_type": TYPE,
        "activity_attributes": {"gameType": "Boccia", "gameNumber": "12"},
        "content_state": {"teamOneScore": 0, "teamTwoScore": 0},
        "dismissal_date": "2040-01-22T00:00:00+0000",
        "stale_date": "2040-01-22T16:55:49+0000",
        "notification": {
            "alert": {"body": "It's game time!", "title": "Live Activity"},
            "sound": "default",
        },
    }
    return {**body, **changes}


def update_body(one: int, two: int, **changes: Any) -> dict[str, Any]:
    body = {
        "app_id": "scores",
        "activity_id": "match-17",
        "content_state": {"teamOneScore": one, "teamTwoScore": two},
    }
    return {**body, **changes}


class Caller:
    """A server that was written for Braze."""

    def __init__(self, world: VendorWorld, secret: str) -> None:
        self.world = world
        self.headers = {"authorization": f"Bearer {secret}"}

    async def call(self, what: str, body: Any) -> Any:
        return await self.world.http.post(
            f"/messages/live_activity/{what}", json=body, headers=self.headers
        )

    async def start(self, **changes: Any) -> Any:
        return await self.call("start", start_body(**changes))

    async def update(self, one: int, two: int, **changes: Any) -> Any:
        return await self.call("update", update_body(one, two, **changes))


@pytest.fixture
async def caller(world: VendorWorld) -> Caller:
    return Caller(world, await world.key("braze"))


async def test_from_start_to_end(world: VendorWorld, caller: Caller) -> None:
    *players, other = await world.add_users(3)
    answer = await caller.start()
    assert (answer.status_code, answer.json()) == (201, {"message": "success"})
    await world.shows(players, "active", teamOneScore=0)
    await world.have_tokens(players)
    answer = await caller.update(1, 0, stale_date="2040-01-22T17:00:00Z")
    assert (answer.status_code, answer.json()) == (201, {"message": "success"})
    await world.shows(players, "active", teamOneScore=1, teamTwoScore=0)
    answer = await caller.update(2, 1, end_activity=True)
    assert (answer.status_code, answer.json()) == (201, {"message": "success"})
    await world.shows(players, "ended", teamOneScore=2, teamTwoScore=1)
    assert not other.activities


async def test_the_id_travels_in_the_attributes(world: VendorWorld, caller: Caller) -> None:
    [phone] = await world.add_users(1)
    await caller.start(external_user_ids=["user-0"])
    await world.shows([phone], "active", teamOneScore=0)
    assert b'"brazeActivityId":"match-17"' in phone.activities[-1].attributes


async def test_the_phone_translates_what_it_has_keys_for(
    world: VendorWorld, caller: Caller
) -> None:
    [phone] = await world.add_users(1)
    alert = {"title_loc_key": "KICK_OFF", "loc_key": "TEAMS", "loc_args": ["Reds", "Blues"]}
    await caller.start(external_user_ids=["user-0"], notification={"alert": alert})
    await world.shows([phone], "active", teamOneScore=0)
    assert json.loads(phone.activities[-1].alert) == {
        "title": {"loc-key": "KICK_OFF"},
        "body": {"loc-key": "TEAMS", "loc-args": ["Reds", "Blues"]},
    }


async def test_dates_that_have_passed(world: VendorWorld, caller: Caller) -> None:
    """Braze's own example: its dates are of 2024. The card comes, outdated, and goes at once."""
    phones = await world.add_users(2)
    past = {"stale_date": "2024-01-22T16:55:49+0000", "dismissal_date": "2024-01-22T00:00:00+0000"}
    answer = await caller.start(**past)
    assert (answer.status_code, answer.json()) == (201, {"message": "success"})
    await world.until(lambda: all(phone.activities for phone in phones))
    assert all(phone.activities[-1].stale for phone in phones)
    await world.have_tokens(phones)
    await world.until(
        lambda: all(phone.activities[-1].state == "dismissed" for phone in phones), at_most=30
    )


async def test_a_passed_stale_date_on_an_update(world: VendorWorld, caller: Caller) -> None:
    phones = await world.add_users(2)
    await caller.start(stale_date=None, dismissal_date=None)
    await world.until(lambda: all(phone.activities for phone in phones))
    await world.have_tokens(phones)
    answer = await caller.update(3, 0, stale_date="2024-01-22T16:55:49+0000")
    assert (answer.status_code, answer.json()) == (201, {"message": "success"})
    await world.shows(phones, "active", teamOneScore=3)
    assert all(phone.activities[-1].stale for phone in phones)


async def test_what_says_no_priority_goes_at_10_down_to_the_reserve(
    world: VendorWorld, caller: Caller
) -> None:
    [phone] = await world.add_users(1)
    await caller.start(external_user_ids=["user-0"], dismissal_date=None)
    await world.shows([phone], "active", teamOneScore=0)
    await world.have_tokens([phone])
    for score in range(1, 14):
        await world.clock.advance(5)
        assert (await caller.update(score, 0)).status_code == 201
        await world.shows([phone], "active", teamOneScore=score)
    token = phone.activities[-1].token.text
    sent = [push.priority for push in world.fake.pushes if push.token == token]
    assert sent == [10] * 11 + [5] * 2  # 15 an hour, and 4 of them are kept for alerts and the end


async def test_dates_to_come(world: VendorWorld, caller: Caller) -> None:
    [phone] = await world.add_users(1)
    begun = world.clock.time()
    dates = {"stale_date": iso(begun + 60), "dismissal_date": iso(begun + 300)}
    for _ in range(2):  # the second start is a further chunk of recipients
        assert (await caller.start(external_user_ids=["user-0"], **dates)).status_code == 201
    await world.shows([phone], "active", teamOneScore=0)
    await world.have_tokens([phone])
    card = phone.activities[-1]
    assert not card.stale
    await world.clock.advance(90)
    assert card.stale
    answer = await caller.update(1, 0, dismissal_date=iso(begun + 600))
    assert (answer.status_code, answer.json()) == (201, {"message": "success"})
    await world.shows([phone], "active", teamOneScore=1)
    await world.clock.advance(begun + 590 - world.clock.time())
    await world.settled()
    assert card.state == "active"
    await world.clock.advance(30)
    await world.shows([phone], "dismissed", teamOneScore=1)
    answer = await caller.update(2, 0)
    assert "has ended" in answer.json()["errors"][0]


async def test_a_dismissal_date_that_has_passed_ends_at_once(
    world: VendorWorld, caller: Caller
) -> None:
    [phone] = await world.add_users(1)
    await caller.start(external_user_ids=["user-0"], dismissal_date=None)
    await world.shows([phone], "active", teamOneScore=0)
    await world.have_tokens([phone])
    assert (await caller.update(1, 0, dismissal_date=iso(world.clock.time() - 5))).is_success
    await world.shows([phone], "dismissed", teamOneScore=1)


async def test_the_answer_says_when_nobody_has_the_card(world: VendorWorld, caller: Caller) -> None:
    [phone] = await world.add_users(1)
    await caller.start(external_user_ids=["user-0"], dismissal_date=None)
    await world.shows([phone], "active", teamOneScore=0)
    await world.have_tokens([phone])
    gone = ReceiptRecord(device=phone.id, event="dismissed", activity="match-17")
    await world.service.receipts.record(world.app, [gone])
    answer = await caller.update(1, 0)
    assert answer.status_code == 201
    assert answer.json()["message"] == "success"
    assert "No device has the activity" in answer.json()["errors"][0]


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
