"""Every API on one activity: none disturbs another."""

from __future__ import annotations

import json

from apns_live.activities import Update
from tests.gateway.braze.test_life import Caller as BrazeCaller
from tests.gateway.braze.world import VendorWorld
from tests.gateway.onesignal.caller import Caller


async def test_three_servers_on_one_activity(world: VendorWorld, caller: Caller) -> None:
    braze = BrazeCaller(world, await world.key("braze"))
    phones = await world.add_users(3)
    await caller.start(activity_id="match-17", include_aliases={"external_id": ["user-0"]})
    await world.shows(phones[:1], "active", home=0)
    await braze.start(external_user_ids=["user-1", "user-2"], content_state={"home": 0, "away": 0})
    await world.shows(phones, "active", home=0)
    await world.have_tokens(phones)
    for n in range(1, 6):
        await caller.change(activity="match-17", event_updates={"home": n})
        await braze.update(0, 0, content_state={"home": n, "by": "braze"})
        await world.service.activities.update(
            world.app, Update(id="match-17", content_state={"home": n, "by": "native"})
        )
    await world.shows(phones, "active", home=5, by="native")
    await braze.update(0, 0, content_state={"home": 9}, end_activity=True)
    await world.shows(phones, "ended", home=9)
    await world.settled()
    assert [len(phone.activities) for phone in phones] == [1, 1, 1]
    attributes = [json.loads(phone.activities[0].attributes) for phone in phones]
    assert [sorted(given) for given in attributes] == [
        ["ground", "onesignal"],
        ["brazeActivityId", "gameNumber", "gameType"],
        ["brazeActivityId", "gameNumber", "gameType"],
    ]
    assert (await caller.change(activity="match-17")).status_code == 404
