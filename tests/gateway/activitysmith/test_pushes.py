"""Push notifications, badges and widgets' values as ActivitySmith's documentation shows them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.activitysmith.test_examples import HOOK, OPEN, is_time
from tests.gateway.activitysmith.world import SmithWorld

PUSHES: dict[str, dict[str, Any]] = {
    "plain": {"title": "Paid", "message": "Order 9 was paid"},
    "redirection": {"title": "Up", "message": "All well", "redirection": "https://e.com/i/9"},
    "media": {"title": "Done", "media": "https://cdn.example.com/a.png"},
    "media and redirection": {
        "title": "Done",
        "media": "https://cdn.example.com/a.mp4",
        "redirection": "https://example.com/pull/9",
    },
    "open_url actions": {"title": "Ready", "actions": [OPEN, {**OPEN, "title": "Notes"}]},
    "webhook action": {"title": "Failed", "redirection": "https://e.com/8", "actions": [HOOK]},
    "everything else": {
        "title": "Loud",
        "subtitle": "really",
        "message": "now",
        "badge": 3,
        "sound": "default",
        "icon": "https://cdn.example.com/i.png",
        "interruption_level": "time-sensitive",
        "payload": {"order": 9, "lines": [1, 2]},
        "tags": ["a"],
        "metadata": {"b": 1},
    },
}


@pytest.mark.parametrize("name", PUSHES)
async def test_push_notification(world: SmithWorld, name: str) -> None:
    phones = await world.add_smith_phones(2)
    body = PUSHES[name]
    said = await world.ok("POST", "/api/push-notification", body)
    assert is_time(said.pop("timestamp"))
    notification = said.pop("notification_id")
    assert notification
    assert said == {
        "success": True,
        "devices_notified": 2,
        "users_notified": 2,
        "devices_targeted": 2,
        "devices_deactivated": 0,
        "devices_unregistered": 0,
        "effective_channel_slugs": None,
        **({"tags": ["a"]} if "tags" in body else {}),
    }
    for phone in phones:
        [record] = phone.notifications
        push = record.push
        payload = json.loads(push.body)
        aps = payload["aps"]
        words = {"title": body["title"]}
        if "message" in body:
            words["body"] = body["message"]
        if "subtitle" in body:
            words["subtitle"] = body["subtitle"]
        assert aps["alert"] == words
        rich = {"media", "icon", "actions"} & body.keys()
        assert aps.get("mutable-content") == (1 if rich else None)
        for field in ("badge", "sound"):
            assert aps.get(field) == body.get(field)
        assert aps.get("interruption-level") == body.get("interruption_level")
        for field in ("media", "redirection", "icon", "payload"):
            assert payload.get(field) == body.get(field)
        assert [one["title"] for one in payload.get("actions", ())] == [
            one["title"] for one in body.get("actions", ())
        ]
        assert "ops.example.com" not in push.body.decode()
        assert push.expiration == pytest.approx(world.clock.time() + 86_400, abs=30)


async def test_push_notification_to_channels(world: SmithWorld) -> None:
    [one] = await world.add_smith_phones(1, group="devs")
    [other] = await world.add_smith_phones(1)
    said = await world.ok(
        "POST", "/push-notification", {"title": "Up", "target": {"channels": ["devs"]}}
    )
    assert said["effective_channel_slugs"] == ["devs"]
    assert said["devices_notified"] == 1
    assert len(one.notifications) == 1
    assert not other.notifications


async def test_push_notification_is_replaced(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1, group="devs")
    [later] = await world.add_smith_phones(1, group="devs")
    await world.service.people.leave_group(world.app, "devs", "device", later.id)
    sent = await world.ok(
        "POST",
        "/push-notification",
        {
            "title": "Build 9",
            "message": "runs",
            "sound": "default",
            "target": {"channels": ["devs"]},
            "tags": ["ci"],
        },
    )
    await world.service.people.join_group(world.app, "devs", "device", later.id)
    path = f"/push-notification/{sent['notification_id']}"
    said = await world.ok("PUT", path, {"title": "Build 9", "message": "passed"})
    assert is_time(said.pop("timestamp"))
    assert said == {
        "success": True,
        "notification_id": sent["notification_id"],
        "devices_notified": 1,
        "users_notified": 1,
        "effective_channel_slugs": ["devs"],
        "tags": ["ci"],
    }
    first, second = (record.push for record in phone.notifications)
    assert first.collapse_id == second.collapse_id
    aps = json.loads(second.body)["aps"]
    assert aps["alert"] == {"title": "Build 9", "body": "passed"}
    assert "sound" not in aps
    assert not later.notifications, "a replacement goes where the first one went"
    said = await world.ok("PUT", path, {"title": "Build 9", "tags": ["done"]})
    assert said["tags"] == ["done"]
    said = await world.ok("PUT", path, {"title": "Build 9"})
    assert said["tags"] == ["done"]
    said = await world.ok("PUT", path, {"title": "Build 9", "tags": []})
    assert "tags" not in said
    assert len(phone.notifications) == 5


async def test_badge(world: SmithWorld) -> None:
    phones = await world.add_smith_phones(2, group="ops")
    for number in (7, 0):
        said = await world.ok("POST", "/api/badge", {"badge": number})
        assert is_time(said.pop("timestamp"))
        assert said == {
            "success": True,
            "badge": number,
            "devices_updated": 2,
            "users_updated": 2,
            "devices_notified": 2,
            "users_notified": 2,
            "devices_targeted": 2,
            "devices_deactivated": 0,
            "devices_unregistered": 0,
            "effective_channel_slugs": [],
        }
        for phone in phones:
            assert json.loads(phone.notifications[-1].push.body)["aps"] == {"badge": number}
    said = await world.ok("POST", "/badge", {"badge": 1, "target": {"channels": ["ops"]}})
    assert said["effective_channel_slugs"] == ["ops"]


async def test_metric_value(world: SmithWorld) -> None:
    path = "/api/metrics/deploy.rate/value"
    said = await world.refused(404, "POST", path, {"value": 4})
    assert said["error"] == "Metric not found"
    assert await world.ok("PUT", "/metrics/deploy.rate") == {"success": True, "key": "deploy.rate"}
    nothing = {"key": "deploy.rate", "value": None, "timestamp": None}
    assert await world.ok("GET", "/metrics/deploy.rate") == nothing
    for value in (42, 99.5, "99 %"):
        assert await world.ok("POST", path, {"value": value}) == {"success": True}
        assert (await world.ok("GET", "/metrics/deploy.rate"))["value"] == value
    old = {"value": 1, "timestamp": "2001-01-01T00:00:00Z"}
    assert await world.ok("POST", path, old) == {"success": True}
    found = await world.ok("GET", "/metrics/deploy.rate")
    assert found["value"] == "99 %", "what was measured before does not replace what came after"
    assert is_time(found["timestamp"])
    assert await world.ok("GET", "/api/metrics") == {"metrics": [found]}
    assert await world.ok("DELETE", "/metrics/deploy.rate") == {"success": True}
    await world.refused(404, "GET", "/metrics/deploy.rate")
    await world.refused(404, "DELETE", "/metrics/deploy.rate")
    await world.configure(metrics_on_demand=True)
    assert await world.ok("POST", path, {"value": 4}) == {"success": True}
