"""Bodies as ActivitySmith's GitHub Action, CLI and n8n node make them, and cards that are swiped away."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from apns_live.activities.accept.receipts import ReceiptRecord
from tests.gateway.activitysmith.live import Live
from tests.gateway.activitysmith.world import SmithWorld

START = "/api/live-activity/start"
UPDATE = "/api/live-activity/update"
STREAM = "/api/live-activity/stream/deploy"
LOOKS = {
    "subtitle": "api",
    "color": "cyan",
    "icon": {"symbol": "hammer", "color": "lime"},
    "badge": {"title": "main"},
    "step_color": "red",
}
STEPS = {
    "title": "Deploy",
    "type": "segmented_progress",
    "number_of_steps": 4,
    "current_step": 1,
    **LOOKS,
}
VALUE = {"title": "Queue", "type": "value", "value": "12"}


async def dismissed(world: SmithWorld, *phones: Any) -> None:
    """Swipe the newest card of each phone away; its app reports it."""
    await world.service.receipts.record(
        world.app,
        [
            ReceiptRecord(
                device=phone.id, event="dismissed", activity=world.attributes(phone)["activity_id"]
            )
            for phone in phones
        ],
    )
    for phone in phones:
        world.fake.devices.dismiss(phone.activities[-1])


async def test_the_action_puts_an_activity_id_into_every_body(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1, group="ci")
    empty = {"activity_id": ""}
    target = {"target": {"channels": ["ci"]}}
    started = await world.ok("POST", START, {"content_state": STEPS, **empty, **target})
    await world.tokens()
    assert world.card(phone) == STEPS
    put = await world.ok("PUT", STREAM, {"content_state": VALUE, "activity_id": "", **target})
    assert put["operation"] == "started"
    await world.ok("DELETE", STREAM, {"content_state": VALUE, "activity_id": ""})
    pushed = await world.ok("POST", "/api/push-notification", {"title": "Done", **empty, **target})
    assert pushed["devices_notified"] == 1
    change = {"title": "Deploy", "type": "segmented_progress", "current_step": 2}
    body = {"content_state": change, "activity_id": started["activity_id"]}
    assert (await world.ok("POST", UPDATE, body))["devices_notified"] == 1
    assert (await world.ok("POST", "/api/live-activity/end", body))["devices_notified"] == 1
    # An update still has to name its activity.
    await world.refused(400, "POST", UPDATE, {"content_state": change, **empty})


async def test_other_unknown_fields_are_refused_unless_a_setting_says_otherwise(
    world: SmithWorld,
) -> None:
    [phone] = await world.add_smith_phones(1)
    body = {
        "content_state": {**VALUE, "font": "serif"},
        "colour": "red",
        "action": {"title": "Look", "type": "open_url", "url": "https://example.com", "icon": "x"},
    }
    said = await world.refused(400, "POST", START, body)
    assert "content_state.font: is unknown" in said["message"]
    await world.configure(unknown_fields="ignore")
    await world.ok("POST", START, body)
    shown = world.card(phone)
    assert shown.pop("action") == {k: v for k, v in body["action"].items() if k != "icon"}
    assert shown == VALUE


async def test_an_update_keeps_the_looks_that_it_does_not_say(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    started = await world.ok("POST", START, {"content_state": STEPS})
    await world.tokens()
    change = {"title": "Deploy", "type": "segmented_progress", "current_step": 2}
    body = {"activity_id": started["activity_id"], "content_state": change}
    await world.ok("POST", UPDATE, body)
    assert world.card(phone) == {**STEPS, "current_step": 2}
    body["content_state"] = {**change, "color": "lime", "badge": None, "icon": {"symbol": "gear"}}
    await world.ok("POST", UPDATE, body)
    shown = world.card(phone)
    assert (shown["color"], shown["icon"]) == ("lime", {"symbol": "gear"})
    assert "badge" not in shown
    body["content_state"] = {"title": "Live", "current_step": 4}
    await world.ok("POST", "/api/live-activity/end", body)
    shown = world.card(phone)
    assert (shown["title"], shown["subtitle"], shown["color"]) == ("Live", "api", "lime")


async def test_a_put_is_the_whole_state(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    await world.ok("PUT", STREAM, {"content_state": STEPS})
    await world.tokens()
    plain = {name: value for name, value in STEPS.items() if name not in LOOKS}
    assert (await world.ok("PUT", STREAM, {"content_state": plain}))["operation"] == "updated"
    assert world.card(phone) == plain


@pytest.mark.parametrize("counted", ["device", "account"])
async def test_a_card_that_everyone_swiped_away_holds_no_place(
    world: SmithWorld, counted: str
) -> None:
    await world.configure(counted=counted, live_activities=2)
    phones = await world.add_smith_phones(2)
    for _ in range(2):
        await world.ok("POST", START, {"content_state": VALUE})
        await world.tokens()
        await dismissed(world, phones[0])
    said = await world.refused(429, "POST", START, {"content_state": VALUE})
    assert (said["limit"], said["active"]) == (2, 2)
    for card in list(phones[1].activities):
        await world.service.receipts.record(
            world.app,
            [
                ReceiptRecord(
                    device=phones[1].id, event="dismissed", activity=SmithWorld.id_of(card)
                )
            ],
        )
    assert (await world.ok("POST", START, {"content_state": VALUE}))["devices_notified"] == 2


async def test_a_stream_that_everyone_swiped_away_starts_again(world: SmithWorld) -> None:
    phones = await world.add_smith_phones(2)
    first = await world.ok("PUT", STREAM, {"content_state": VALUE})
    await world.tokens()
    await dismissed(world, phones[0])
    body = {"content_state": {**VALUE, "value": "13"}}
    put = await world.ok("PUT", STREAM, body)
    assert (put["operation"], put["devices_notified"]) == ("updated", 1)
    await dismissed(world, phones[1])
    put = await world.ok("PUT", STREAM, {"content_state": {**VALUE, "value": "14"}})
    assert (put["operation"], put["devices_notified"]) == ("started", 2)
    assert put["activity_id"] != first["activity_id"]
    for phone in phones:
        assert world.card(phone)["value"] == "14"
    known = await world.service.activities.get(world.app, first["activity_id"])
    assert (known["status"], known["end_reason"]) == ("ended", "dismissed")


async def test_the_demo_phones_report_what_is_swiped_away(live: Live) -> None:
    headers = {"authorization": f"Bearer {live.secret}"}
    async with httpx.AsyncClient(base_url=live.url, headers=headers, timeout=30.0) as caller:
        for _ in range(5):  # four cards may be on a phone at the same time
            async with asyncio.timeout(30.0):
                while True:
                    answer = await caller.post(START, json={"content_state": VALUE})
                    if answer.status_code == 200:
                        break
                    assert answer.status_code == 429
                    await asyncio.sleep(1.0)  # 60 calls a minute
            for card in await live.cards(answer.json()["activity_id"]):
                path = f"/v1/activities/{card['id']}/dismiss"
                (await live.fake.post(path, json={})).raise_for_status()
