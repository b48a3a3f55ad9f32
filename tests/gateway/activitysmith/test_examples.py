"""The requests that ActivitySmith's documentation shows, with the same fields and our own values:
each gets the documented answer, and the phones show what it says."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest

from apns_live.activities import End, Update
from tests.gateway.activitysmith.world import SmithWorld

STEPS = {
    "title": "Weekly mirror",
    "subtitle": "copy volumes",
    "number_of_steps": 4,
    "current_step": 1,
    "type": "segmented_progress",
    "color": "cyan",
}
PROGRESS = {
    "title": "Van 12",
    "subtitle": "Loaded 20 parcels",
    "percentage": 25,
    "type": "progress",
    "color": "green",
}
METRICS = {
    "title": "Database",
    "subtitle": "replica-2",
    "type": "metrics",
    "metrics": [
        {"label": "LAG", "value": 3, "unit": "s"},
        {"label": "DISK", "value": 71, "unit": "%"},
    ],
}
STATS = {
    "title": "Tickets",
    "type": "stats",
    "metrics": [
        {"label": "Sold", "value": 412, "color": "lime"},
        {"label": "Paid", "value": "€ 9k"},
    ],
}
ALERT = {
    "title": "Freezer 3",
    "message": "Door open for ten minutes",
    "type": "alert",
    "color": "red",
    "icon": {"symbol": "thermometer.snowflake", "color": "cyan"},
    "badge": {"title": "Store 9", "color": "orange"},
}
TIMER = {"title": "Soak test", "subtitle": "node 4", "type": "timer", "duration_seconds": 900}
ELAPSED = {"title": "Import", "type": "timer", "counts_down": False}
VALUE = {"title": "Queue", "subtitle": "mail", "type": "value", "value": "1,204 waiting"}
ALL = [STEPS, PROGRESS, METRICS, STATS, ALERT, TIMER, ELAPSED, VALUE]
OPEN = {"title": "Open run", "type": "open_url", "url": "https://ci.example.com/runs/77"}
HOOK = {
    "title": "Hold",
    "type": "webhook",
    "url": "https://ops.example.com/hooks/hold",
    "method": "POST",
    "body": {"job": "mirror-9", "why": "held_from_card"},
}
WRITTEN = ("duration_seconds", "counts_down")


def is_time(text: str) -> bool:
    return text.endswith("Z") and len(text) == 24 and bool(datetime.fromisoformat(text))


def shows(card: dict[str, Any], state: dict[str, Any]) -> bool:
    """Whether a card shows a state; the times of a timer are looked at elsewhere."""
    return {**card, **{k: v for k, v in state.items() if k not in WRITTEN}} == card


@pytest.mark.parametrize("state", ALL, ids=lambda state: f"{state['type']} {state['title']}")
async def test_start_of_each_kind(world: SmithWorld, state: dict[str, Any]) -> None:
    phones = await world.add_smith_phones(2)
    said = await world.ok("POST", "/live-activity/start", {"content_state": state})
    assert is_time(said.pop("timestamp"))
    assert said == {
        "success": True,
        "activity_id": world.attributes(phones[0])["activity_id"],
        "devices_notified": 2,
        "users_notified": 2,
        "effective_channel_slugs": None,
    }
    assert all(shows(world.card(phone), state) for phone in phones)
    assert all(phone.activities[-1].alerts == 1 for phone in phones)


async def test_start_with_an_action_and_channels(world: SmithWorld) -> None:
    [desk] = await world.add_smith_phones(1, group="desk")
    [yard] = await world.add_smith_phones(1, group="yard")
    [other] = await world.add_smith_phones(1)
    said = await world.ok(
        "POST",
        "/api/live-activity/start",
        {
            "content_state": STEPS,
            "action": OPEN,
            "alert": {"title": "Mirror", "body": "It runs"},
            "target": {"channels": ["yard", "desk"]},
            "tags": ["nightly"],
            "metadata": {"job": 9, "dry": False, "host": "a"},
        },
    )
    assert said["devices_notified"] == 2
    assert said["effective_channel_slugs"] == ["desk", "yard"]
    assert said["tags"] == ["nightly"]
    for phone in (desk, yard):
        assert world.card(phone)["action"] == OPEN
        assert json.loads(phone.activities[-1].alert) == {"title": "Mirror", "body": "It runs"}
        assert "job" not in json.dumps(world.attributes(phone)), "metadata stays here"
    assert not other.activities
    found = await world.service.activities.get(world.app, said["activity_id"])
    assert found["tags"] == ["nightly"]
    assert found["metadata"] == {"job": 9, "dry": False, "host": "a"}


async def test_update_of_each_kind_without_its_type(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    for state, change in (
        (STEPS, {"title": "Weekly mirror", "current_step": 3}),
        (PROGRESS, {"title": "Van 12", "percentage": 60}),
        (METRICS, {"title": "Database", "metrics": [{"label": "LAG", "value": 9}]}),
        (STATS, {"title": "Tickets", "metrics": [{"label": "Sold", "value": 500}]}),
        (ALERT, {"title": "Freezer 3", "message": "Closed again"}),
        (TIMER, {"title": "Soak test", "is_running": False}),
        (VALUE, {"title": "Queue", "value": 17}),
    ):
        said = await world.ok("POST", "/live-activity/start", {"content_state": state})
        activity = said["activity_id"]
        await world.tokens()
        said = await world.ok(
            "POST", "/live-activity/update", {"activity_id": activity, "content_state": change}
        )
        assert is_time(said.pop("timestamp"))
        assert said == {
            "success": True,
            "activity_id": activity,
            "devices_notified": 1,
            "devices_queued": 0,
            "users_notified": 1,
            "effective_channel_slugs": None,
        }
        assert shows(world.card(phone), {"type": state["type"], **change})
        # A phone shows five activities of an app at most.
        said = await world.ok(
            "POST",
            "/live-activity/end",
            {"activity_id": activity, "content_state": {**change, "auto_dismiss_minutes": 0}},
        )
        assert said["devices_notified"] == 1


async def test_another_api_changes_the_same_card(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    said = await world.ok("POST", "/live-activity/start", {"content_state": STEPS})
    activity = said["activity_id"]
    await world.tokens()
    native = world.service.activities
    free = Update(id=activity, content_state={"score": 3})
    await world.result_of(native.update(world.app, free))
    await world.until(lambda: world.card(phone) == {"score": 3})
    about = {"activity_id": activity, "content_state": {"title": "Mirror", "current_step": 2}}
    refused = await world.refused(400, "POST", "/live-activity/update", about)
    assert "content_state.type" in refused["message"], "nothing can be taken from such a card"
    await world.ok("POST", "/live-activity/update", {**about, "content_state": STEPS})
    assert world.card(phone) == STEPS
    await world.result_of(native.end(world.app, End(id=activity)))
    assert (await world.ok("POST", "/live-activity/end", about))["ignored"] is True


async def test_update_is_queued_until_the_token_comes(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    world.registering = False
    said = await world.ok("POST", "/live-activity/start", {"content_state": STEPS})
    for step in (2, 3):
        said = await world.ok(
            "POST",
            "/live-activity/update",
            {
                "activity_id": said["activity_id"],
                "content_state": {"title": "Weekly mirror", "current_step": step},
            },
        )
        assert (said["devices_notified"], said["devices_queued"]) == (0, 1)
    assert world.card(phone)["current_step"] == 1
    world.registering = True
    await world.until(lambda: world.card(phone)["current_step"] == 3)
    await world.settled()
    assert phone.activities[-1].updates == 1, "only the newest was sent"


async def test_update_with_a_webhook_and_without_mention(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    said = await world.ok("POST", "/live-activity/start", {"content_state": STEPS})
    await world.tokens()
    change = {"title": "Weekly mirror", "current_step": 2}
    about = {"activity_id": said["activity_id"], "content_state": change}
    await world.ok("POST", "/live-activity/update", {**about, "action": HOOK})
    button = world.card(phone)["action"]
    assert (button["title"], button["type"]) == ("Hold", "webhook")
    assert button["url"].startswith("http://gateway.example/live-activity/taps/")
    assert "ops.example.com" not in json.dumps(world.card(phone))
    await world.ok("POST", "/live-activity/update", about)
    assert world.card(phone)["action"] == button
    await world.ok("POST", "/live-activity/update", {**about, "action": None})
    assert "action" not in world.card(phone)


@pytest.mark.parametrize(
    ("minutes", "seconds"), [(None, 180), (2, 120), (0, 0), (10, 600)], ids=str
)
async def test_end(world: SmithWorld, minutes: int | None, seconds: int) -> None:
    [phone] = await world.add_smith_phones(1)
    said = await world.ok("POST", "/live-activity/start", {"content_state": STEPS})
    await world.tokens()
    state = {"title": "Weekly mirror", "subtitle": "verified", "current_step": 4}
    if minutes is not None:
        state["auto_dismiss_minutes"] = minutes
    activity = said["activity_id"]
    before = world.clock.time()
    said = await world.ok(
        "POST",
        "/live-activity/end",
        {"activity_id": activity, "content_state": state, "action": OPEN},
    )
    assert is_time(said.pop("timestamp"))
    assert said == {
        "success": True,
        "activity_id": activity,
        "devices_notified": 1,
        "devices_queued": 0,
    }
    card = phone.activities[-1]
    if seconds == 0:
        assert card.state == "dismissed"
    else:
        assert card.state == "ended"
        assert world.card(phone)["subtitle"] == "verified"
        assert world.card(phone)["action"] == OPEN
        assert before + seconds - 1 <= card.dismissal_date <= world.clock.time() + seconds


async def test_end_freezes_a_timer(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    said = await world.ok("POST", "/live-activity/start", {"content_state": TIMER})
    await world.tokens()
    await world.clock.advance(60)
    await world.ok(
        "POST",
        "/live-activity/end",
        {
            "activity_id": said["activity_id"],
            # As the Python client sends it, whatever the caller said.
            "content_state": {"title": "Soak test", "counts_down": True, "is_running": True},
        },
    )
    card = world.card(phone)
    assert card["is_running"] is False
    assert 830 < card["frozen_remaining"] < 841


async def test_stream_of_each_answer(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1, group="ops")
    path = "/live-activity/stream/replica-2"
    said = await world.ok("PUT", path, {"content_state": METRICS, "channels": ["ops"]})
    first = said["activity_id"]
    assert is_time(said.pop("timestamp"))
    assert said == {
        "success": True,
        "operation": "started",
        "stream_key": "replica-2",
        "activity_id": first,
        "devices_notified": 1,
        "users_notified": 1,
        "effective_channel_slugs": ["ops"],
    }
    assert world.attributes(phone) == {"activity_id": first, "stream_key": "replica-2"}
    await world.tokens()

    as_floats = {
        **METRICS,
        "metrics": [{**one, "value": float(one["value"])} for one in METRICS["metrics"]],
    }
    for state in (METRICS, as_floats):
        said = await world.ok(
            "PUT", path, {"content_state": state, "target": {"channels": ["ops"]}}
        )
        assert is_time(said.pop("timestamp"))
        assert said == {
            "success": True,
            "operation": "noop",
            "stream_key": "replica-2",
            "activity_id": first,
        }

    changed = {"title": "Database", "metrics": [{"label": "LAG", "value": 4, "unit": "s"}]}
    said = await world.ok("PUT", path, {"content_state": changed, "channels": ["ops"]})
    assert (said["operation"], said["activity_id"]) == ("updated", first)
    assert (said["devices_notified"], said["devices_queued"]) == (1, 0)
    assert world.card(phone)["metrics"][0]["value"] == 4
    assert phone.activities[-1].alerts == 1, "quiet"

    said = await world.ok("PUT", path, {"content_state": ALERT, "channels": ["ops"]})
    assert said["operation"] == "rotated"
    assert said["previous_activity_id"] == first
    second = said["activity_id"]
    assert second != first
    await world.until(lambda: len(phone.activities) == 2)
    await world.tokens()
    assert shows(world.card(phone), ALERT)
    assert phone.activities[0].state == "dismissed"

    said = await world.ok("POST", f"{path}/pause")
    assert is_time(said.pop("paused_at"))
    assert is_time(said.pop("timestamp"))
    paused = {
        "success": True,
        "operation": "paused",
        "stream_key": "replica-2",
        "activity_id": None,
    }
    assert said == paused
    await world.settled()
    assert phone.activities[-1].state == "ended"
    said = await world.ok("PUT", path, {"content_state": {"title": "no type, and nobody minds"}})
    assert is_time(said.pop("timestamp"))
    assert said == paused
    said = await world.ok("POST", f"{path}/resume")
    assert said["operation"] == "resumed"

    said = await world.ok("PUT", path, {"content_state": METRICS, "channels": ["ops"]})
    assert said["operation"] == "started"
    third = said["activity_id"]
    await world.tokens()
    final = {**METRICS, "subtitle": "off", "auto_dismiss_minutes": 2, "auto_dismiss_seconds": 30}
    said = await world.ok("DELETE", path, {"content_state": final})
    assert is_time(said.pop("timestamp"))
    assert said == {
        "success": True,
        "operation": "ended",
        "stream_key": "replica-2",
        "activity_id": third,
        "devices_notified": 1,
        "devices_queued": 0,
    }
    card = phone.activities[-1]
    assert card.state == "ended"
    assert world.card(phone)["subtitle"] == "off"
    assert card.dismissal_date <= world.clock.time() + 30

    said = await world.ok("DELETE", path)
    assert is_time(said.pop("timestamp"))
    assert said == {
        "success": True,
        "operation": "ended",
        "stream_key": "replica-2",
        "activity_id": None,
        "ignored": True,
    }
    said = await world.refused(404, "DELETE", "/live-activity/stream/never-was")
    assert said == {
        "error": "Live Activity stream not found",
        "message": "No Live Activity stream found for stream_key: never-was",
    }
    said = await world.ok("PUT", path, {"content_state": METRICS, "channels": ["ops"]})
    assert said["operation"] == "started"


@pytest.mark.parametrize("content", [None, b"", b"{}"], ids=["none", "empty", "object"])
async def test_stream_end_without_a_state_keeps_the_last_one(
    world: SmithWorld, content: bytes | None
) -> None:
    [phone] = await world.add_smith_phones(1)
    path = "/api/live-activity/stream/tea"
    await world.ok("PUT", path, {"content_state": TIMER, "secondary_action": None})
    await world.tokens()
    await world.clock.advance(100)
    json_header = {"content-type": "application/json"}
    said = await world.call("DELETE", path, content=content, headers=json_header)
    assert said.json()["operation"] == "ended"
    card = phone.activities[-1]
    assert card.state == "ended"
    assert world.card(phone)["title"] == "Soak test"
    assert world.card(phone)["is_running"] is False, "a timer does not run on"
    assert card.dismissal_date <= world.clock.time() + 120


async def test_stream_with_buttons_is_a_noop_when_put_again(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    path = "/live-activity/stream/deploy"
    body = {
        "content_state": {**STEPS, "step_colors": ["lime"]},
        "action": HOOK,
        "secondary_action": OPEN,
        "alert": {"title": "Deploy", "body": "begins"},
    }
    await world.ok("PUT", path, body)
    await world.tokens()
    await world.clock.advance(3600)
    said = await world.ok("PUT", path, body)
    assert said["operation"] == "noop"
    assert set(world.card(phone)) >= {"action", "secondary_action"}


async def test_stream_alert_on_a_change(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    path = "/live-activity/stream/fridge"
    await world.ok("PUT", path, {"content_state": ALERT})
    await world.tokens()
    loud = {"content_state": {**ALERT, "message": "Still open"}, "alert": {"body": "Hurry"}}
    said = await world.ok("PUT", path, loud)
    assert said["operation"] == "updated"
    assert phone.activities[-1].alerts == 2
    assert json.loads(phone.activities[-1].alert) == {"title": "Freezer 3", "body": "Hurry"}


async def test_stream_is_renewed_before_the_system_ends_it(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    path = "/live-activity/stream/long"
    said = await world.ok("PUT", path, {"content_state": PROGRESS, "tags": ["t"]})
    first = said["activity_id"]
    await world.tokens()
    await world.began_earlier(first, hours=7.6)
    said = await world.ok("PUT", path, {"content_state": {**PROGRESS, "percentage": 77}})
    assert (said["operation"], said["activity_id"]) == ("updated", first)
    assert said["tags"] == ["t"], "what was not mentioned stays"
    await world.until(lambda: len(phone.activities) == 2)
    await world.tokens()
    await world.until(lambda: phone.activities[0].state == "dismissed")
    assert world.card(phone)["percentage"] == 77


async def test_stream_warns_of_many_updates(world: SmithWorld) -> None:
    await world.add_smith_phones(1)
    path = "/live-activity/stream/busy"
    warned = []
    for number in range(15):
        said = await world.ok("PUT", path, {"content_state": {**PROGRESS, "percentage": number}})
        warned.append("warning" in said)
        await world.clock.advance(2)
    assert warned == [False] * 13 + [True] * 2


async def test_update_by_id_of_a_stream_that_went_on(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    path = "/live-activity/stream/job"
    first = (await world.ok("PUT", path, {"content_state": PROGRESS}))["activity_id"]
    await world.tokens()
    await world.result_of(world.service.activities.end(world.app, End(id=first)))
    await world.settled()
    assert phone.activities[-1].state == "ended"
    said = await world.ok(
        "POST",
        "/live-activity/update",
        {"activity_id": first, "content_state": {"title": "Van 12", "percentage": 90}},
    )
    assert said["operation"] == "started"
    assert said["stream_key"] == "job"
    assert said["previous_activity_id"] == first
    assert said["activity_id"] != first
    assert world.card(phone)["percentage"] == 90
