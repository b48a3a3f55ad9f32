"""Braze's example requests, with our own values, as the phones show them."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
