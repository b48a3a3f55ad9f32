"""What is refused, and in which words; keys, channels and limits."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from apns_live.gateway.settings import GatewaySettings, Limit
from tests.gateway.activitysmith.world import TYPE, SmithWorld

STEPS = {"title": "Job", "type": "segmented_progress", "number_of_steps": 4, "current_step": 1}
START = {"content_state": STEPS}
STREAM = "/live-activity/stream/job"
CALLS: list[tuple[str, str, Any]] = [
    ("POST", "/live-activity/start", START),
    ("POST", "/live-activity/update", {"activity_id": "x", **START}),
    ("POST", "/live-activity/end", {"activity_id": "x", **START}),
    ("PUT", STREAM, START),
    ("DELETE", STREAM, None),
    ("POST", f"{STREAM}/pause", None),
    ("POST", f"{STREAM}/resume", None),
    ("POST", "/push-notification", {"title": "T"}),
    ("PUT", "/push-notification/x", {"title": "T"}),
    ("POST", "/badge", {"badge": 1}),
    ("POST", "/metrics/m/value", {"value": 1}),
    ("PUT", "/metrics/m", None),
    ("GET", "/metrics/m", None),
    ("DELETE", "/metrics/m", None),
]


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_keys(world: SmithWorld, prefix: str, method: str, path: str, body: Any) -> None:
    path = prefix + path
    for header in ("", "Basic x", "Bearer", "Bearer ask_000000000000_" + "0" * 64, "Bearer é"):
        headers = {"authorization": header.encode()}
        answer = await world.result_of(world.http.request(method, path, json=body, headers=headers))
        assert answer.status_code == 401, header
        assert answer.json()["error"] == "Unauthorized"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    native = await world.key(dialect="native")
    said = await world.refused(403, method, path, body, secret=native)
    assert said["error"] == "Forbidden"
    weak = await world.key(scopes=["devices:read"])
    said = await world.refused(403, method, path, body, secret=weak)
    assert "lacks the scope" in said["message"]


async def test_revoked_and_rotated_keys(world: SmithWorld) -> None:
    await world.add_smith_phones(1)
    key, secret = await world.gateway.keys.create(
        world.app, dialect="activitysmith", scopes=["streams:write"], name="one"
    )
    await world.ok("PUT", STREAM, START, secret=secret)
    _, fresh = await world.gateway.keys.rotate(world.app, key.id)
    for one in (secret, fresh):
        assert (await world.ok("PUT", STREAM, START, secret=one))["operation"] == "noop"
    await world.gateway.keys.revoke(world.app, key.id)
    await world.refused(401, "PUT", STREAM, START, secret=secret)


async def test_a_client_names_itself(world: SmithWorld) -> None:
    await world.add_smith_phones(1)
    headers = {"X-ActivitySmith-SDK": "python-v1.14.0", "user-agent": "x"}
    await world.ok("PUT", STREAM, START, headers=headers)


async def test_without_phones_the_answer_says_what_is_missing(world: SmithWorld) -> None:
    await world.service.people.add_group(world.app, "ops")
    for method, path, body in (
        ("POST", "/live-activity/start", START),
        ("PUT", STREAM, START),
        ("POST", "/push-notification", {"title": "T"}),
        ("POST", "/badge", {"badge": 1}),
    ):
        said = await world.refused(422, method, path, body)
        assert said["error"] == "No recipients found"
        assert said["effective_channel_slugs"] is None
        assert "register its tokens here" in said["message"]
        targeted = {**body, "target": {"channels": ["ops"]}}
        said = await world.refused(422, method, path, targeted)
        assert said["effective_channel_slugs"] == ["ops"]
    said = await world.refused(422, "PUT", STREAM, START)
    assert TYPE in said["message"], "of which type the tokens are missing"
    await world.configure(no_recipients_status=404)
    await world.refused(404, "POST", "/live-activity/start", START)
    assert await world.service.activities.page(world.app) == [], "nothing was half-done"


async def test_channels(world: SmithWorld) -> None:
    [ops] = await world.add_smith_phones(1, group="ops")
    [devs] = await world.add_smith_phones(1, group="devs")
    said = await world.refused(
        400, "POST", "/live-activity/start", {**START, "target": {"channels": ["nope", "ops"]}}
    )
    assert said["error"] == "Invalid channel targeting"
    assert "nope" in said["message"]
    bound = await world.key(groups=["ops"])
    beyond = {"target": {"channels": ["devs"]}}
    for method, path, body in (
        ("POST", "/live-activity/start", START),
        ("PUT", STREAM, START),
        ("POST", "/push-notification", {"title": "T"}),
        ("POST", "/badge", {"badge": 1}),
    ):
        said = await world.refused(403, method, path, {**body, **beyond}, secret=bound)
        assert said["error"] == "Invalid channel targeting"
        assert "key scope" in said["message"]
        said = await world.ok(method, path, body, secret=bound)
        assert said["effective_channel_slugs"] == ["ops"]
    assert len(ops.activities) == 2
    assert not devs.activities
    assert not devs.notifications
    gone = await world.key(groups=["not-there"])
    said = await world.refused(422, "POST", "/live-activity/start", START, secret=gone)
    assert said["effective_channel_slugs"] == ["not-there"]


async def test_a_bound_key_reaches_nothing_of_others(world: SmithWorld) -> None:
    await world.add_smith_phones(1, group="ops")
    [devs] = await world.add_smith_phones(1, group="devs")
    bound = await world.key(groups=["ops"])
    for target in ({}, {"target": {"channels": ["devs"]}}):
        await world.configure(live_activities=None)
        said = await world.ok("POST", "/live-activity/start", {**START, **target})
        about = {"activity_id": said["activity_id"], **START}
        for verb in ("update", "end"):
            said = await world.refused(403, "POST", f"/live-activity/{verb}", about, secret=bound)
            assert said == {
                "error": "Forbidden",
                "message": f"This API key cannot {verb} this Live Activity",
            }
    await world.ok("PUT", STREAM, {**START, "channels": ["devs"]})
    await world.tokens()
    for method, path, body in (
        ("PUT", STREAM, START),
        ("DELETE", STREAM, None),
        ("POST", f"{STREAM}/pause", None),
    ):
        await world.refused(403, method, path, body, secret=bound)
    sent = await world.ok("POST", "/push-notification", {"title": "T"})
    path = f"/push-notification/{sent['notification_id']}"
    await world.refused(403, "PUT", path, {"title": "U"}, secret=bound)
    await world.settled()
    assert all(card.state == "active" for card in devs.activities)
    assert len(devs.notifications) == 1


async def test_another_app_is_another_world(world: SmithWorld) -> None:
    await world.add_smith_phones(1)
    said = await world.ok("POST", "/live-activity/start", START)
    await world.ok("PUT", STREAM, START)
    push = await world.ok("POST", "/push-notification", {"title": "T"})
    await world.ok("PUT", "/metrics/m")
    other = await world.service.apps.create(name="other", id="other", bundle_id="com.example.other")
    _, secret = await world.gateway.keys.create(
        other,
        dialect="activitysmith",
        scopes=[
            "activities:update",
            "activities:end",
            "streams:write",
            "notifications:send",
            "activities:read",
        ],
        name="other",
    )
    about = {"activity_id": said["activity_id"], **START}
    for method, path, body in (
        ("POST", "/live-activity/update", about),
        ("POST", "/live-activity/end", about),
        ("DELETE", STREAM, None),
        ("POST", f"{STREAM}/pause", None),
        ("POST", f"{STREAM}/resume", None),
        ("PUT", f"/push-notification/{push['notification_id']}", {"title": "U"}),
        ("POST", "/metrics/m/value", {"value": 1}),
        ("GET", "/metrics/m", None),
    ):
        await world.refused(404, method, path, body, secret=secret)


@pytest.mark.parametrize("key", ["a.b", "a b", "ä", "a/b", "x" * 256])
async def test_stream_keys(world: SmithWorld, key: str) -> None:
    for method in ("PUT", "DELETE"):
        said = await world.refused(400, method, f"/live-activity/stream/{key}", START)
        assert said == {
            "error": "Invalid stream_key",
            "message": "stream_key must contain only letters, numbers, underscores, and hyphens",
        }


async def test_what_is_no_endpoint(world: SmithWorld) -> None:
    for method, path in (("POST", "/api/live-activity/begin"), ("GET", "/live-activity/streams")):
        said = await world.refused(404, method, path, {})
        assert said["error"] == "Not found"


async def test_methods_that_an_endpoint_has_not(world: SmithWorld) -> None:
    for method, path in (
        ("GET", "/badge"),
        ("GET", "/live-activity/start"),
        ("PATCH", "/live-activity/stream/x"),
        ("PUT", "/api/push-notification"),
        ("POST", "/metrics/m"),
    ):
        said = await world.refused(405, method, path, {})
        assert said["error"] == "Method not allowed"


async def test_a_phone_reads_what_its_widget_shows_and_nothing_else(world: SmithWorld) -> None:
    await world.ok("PUT", "/metrics/m")
    await world.ok("POST", "/metrics/m/value", {"value": 7})
    credential, _ = await world.gateway.credentials.mint(world.app, "phone-9", seconds=60)
    assert (await world.ok("GET", "/metrics/m", secret=credential))["value"] == 7
    assert len((await world.ok("GET", "/api/metrics", secret=credential))["metrics"]) == 1
    await world.refused(404, "GET", "/metrics/unmade", secret=credential)
    for method, path, body in CALLS:
        if method != "GET":
            await world.refused(401, method, path, body, secret=credential)
    await world.refused(401, "GET", "/metrics/m", secret=credential[:-2] + "AA")
    await world.clock.advance(61)
    await world.refused(401, "GET", "/metrics/m", secret=credential)


BODIES: list[tuple[bytes, str, int]] = [
    (b"", "application/json", 400),
    (b"{", "application/json", 400),
    (b"null", "application/json", 400),
    (b"\xff\xfe", "application/json", 400),
    (b'{"content_state": NaN}', "application/json", 400),
    (b"[" * 1_000 + b"]" * 1_000, "application/json", 400),
    (b"title=x", "application/x-www-form-urlencoded", 415),
    (b'{"a": "' + b"x" * 1_100_000 + b'"}', "application/json", 413),
]


@pytest.mark.parametrize(("content", "kind", "status"), BODIES, ids=range(len(BODIES)))
async def test_bodies_that_cannot_be_read(
    world: SmithWorld, content: bytes, kind: str, status: int
) -> None:
    for method, path in (("POST", "/live-activity/start"), ("PUT", STREAM), ("POST", "/badge")):
        await world.refused(status, method, path, content=content, headers={"content-type": kind})


async def test_a_card_that_is_too_large(world: SmithWorld) -> None:
    await world.add_smith_phones(1)
    state = {"title": "T", "type": "alert", "message": "x" * 5_000}
    said = await world.refused(400, "POST", "/live-activity/start", {"content_state": state})
    assert said["error"] == "Payload too large"
    assert "4096" in said["message"]


async def test_unknown_things(world: SmithWorld) -> None:
    said = await world.refused(
        404, "POST", "/live-activity/update", {"activity_id": "nope", **START}
    )
    assert said["error"] == "Live Activity not found"
    said = await world.refused(404, "PUT", "/push-notification/nope", {"title": "T"})
    assert said["error"] == "Push Notification not found"
    said = await world.refused(400, "POST", "/metrics/UP/value", {"value": 1})
    assert said["error"] == "Invalid key"


async def test_sixty_a_minute(world: SmithWorld) -> None:
    await world.add_smith_phones(1)
    await world.ok("PUT", "/metrics/m")

    async def give() -> httpx.Response:  # without time passing
        headers = {"authorization": f"Bearer {world.secret}"}
        return await world.http.post("/metrics/m/value", json={"value": 1}, headers=headers)

    answer = await give()
    count = 0
    while answer.status_code == 200:
        answer = await give()
        count += 1
    assert 59 <= count <= 60
    said = answer.json()
    assert answer.status_code == 429
    assert said == {
        "error": "Rate limit exceeded",
        "message": "Too many requests, please try again later.",
        "code": "rate_limited",
    }
    assert int(answer.headers["retry-after"]) >= 1
    await world.refused(429, "PUT", STREAM, START)
    other = await world.key()
    await world.ok("POST", "/metrics/m/value", {"value": 1}, secret=other)
    await world.clock.advance(60)
    for _ in range(60):
        assert (await give()).status_code == 200
    assert (await give()).status_code == 429


async def test_guessing_keys_is_slowed_down(world: SmithWorld) -> None:
    await world.http.aclose()
    await world.serve(GatewaySettings(refused_per_minute=3))
    statuses = []
    for _ in range(5):
        answer = await world.call("POST", "/badge", {"badge": 1}, secret="ask_x")
        statuses.append(answer.status_code)
    assert statuses == [401, 401, 401, 429, 429]


async def test_limits_of_the_settings_and_of_a_key(world: SmithWorld) -> None:
    await world.http.aclose()
    await world.serve(GatewaySettings(limits={"activitysmith": Limit(per_minute=2)}))
    await world.ok("PUT", "/metrics/m")
    await world.ok("GET", "/metrics/m")
    await world.refused(429, "GET", "/metrics/m")
    wide = await world.key(per_minute=100)
    for _ in range(20):
        await world.ok("GET", "/metrics/m", secret=wide)


@pytest.mark.parametrize("counted", ["device", "account"])
async def test_four_activities_at_once(world: SmithWorld, counted: str) -> None:
    await world.add_smith_phones(2, group="ops")
    await world.configure(counted=counted)
    started = [
        (await world.ok("POST", "/live-activity/start", START))["activity_id"] for _ in range(3)
    ]
    await world.ok("PUT", STREAM, START)
    assert (await world.ok("PUT", STREAM, START))["operation"] == "noop"
    answer = await world.call("POST", "/live-activity/start", START)
    assert answer.status_code == 429
    assert answer.json() == {
        "error": "Live Activity limit reached",
        "message": f"Only 4 concurrent Live Activities are allowed per {counted}",
        "limit": 4,
        "active": 4,
    }
    await world.refused(429, "PUT", "/live-activity/stream/another", START)
    # A rotation takes the place of what it ends.
    alert = {"title": "T", "type": "alert", "message": "m"}
    assert (await world.ok("PUT", STREAM, {"content_state": alert}))["operation"] == "rotated"
    await world.ok("POST", "/live-activity/end", {"activity_id": started[0], **START})
    await world.ok("POST", "/live-activity/start", START)
    await world.configure(live_activities=None)
    await world.ok("POST", "/live-activity/start", START)


async def test_devices_that_differ_in_room(world: SmithWorld) -> None:
    await world.add_smith_phones(2, group="full")
    await world.configure(live_activities=2)
    for _ in range(2):
        await world.ok("POST", "/live-activity/start", {**START, "target": {"channels": ["full"]}})
    await world.add_smith_phones(3, group="free")
    said = await world.refused(429, "POST", "/live-activity/start", START)
    assert (said["limit"], said["active"]) == (2, 2)
    assert (said["blocked_devices"], said["targeted_devices"]) == (2, 5)
    said = await world.ok(
        "POST", "/live-activity/start", {**START, "target": {"channels": ["free"]}}
    )
    assert said["devices_notified"] == 3


async def test_the_oldest_gives_way(world: SmithWorld) -> None:
    [phone] = await world.add_smith_phones(1)
    await world.configure(at_limit="end_oldest", live_activities=2)
    first = (await world.ok("POST", "/live-activity/start", START))["activity_id"]
    await world.ok("PUT", STREAM, START)
    await world.tokens()
    said = await world.ok("POST", "/live-activity/start", START)
    assert said["ended_activity_id"] == first
    await world.tokens()
    assert [card.state for card in phone.activities] == ["dismissed", "active", "active"]


async def test_two_starts_at_once_do_not_pass_the_limit_together(world: SmithWorld) -> None:
    await world.add_smith_phones(1)
    await world.configure(live_activities=1)
    headers = {"authorization": f"Bearer {world.secret}"}
    answers = await world.result_of(
        asyncio.gather(
            *(world.http.post("/live-activity/start", json=START, headers=headers) for _ in "four")
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429, 429]


async def test_what_apns_refuses_is_told(world: SmithWorld) -> None:
    gone, here = await world.add_smith_phones(2)
    world.leaves(gone)
    said = await world.ok("POST", "/live-activity/start", START)
    assert said["success"] is True
    assert said["devices_notified"] == 1
    [error] = said["errors"]
    assert gone.id in error
    assert here.activities
    said = await world.ok("POST", "/push-notification", {"title": "T"})
    assert (said["devices_targeted"], said["devices_notified"]) == (2, 1)
    assert (said["devices_unregistered"], said["devices_deactivated"]) == (1, 1)
    said = await world.ok("POST", "/push-notification", {"title": "T"})
    assert (said["devices_targeted"], said["devices_notified"]) == (1, 1)
    world.leaves(here)
    said = await world.refused(422, "POST", "/badge", {"badge": 4})
    assert said["code"] == "badge_device_disconnected"
    assert (said["badge"], said["devices_updated"], said["devices_targeted"]) == (4, 0, 1)
    await world.refused(422, "POST", "/badge", {"badge": 4})


async def test_apns_takes_a_badge_for_nobody(world: SmithWorld) -> None:
    await world.add_smith_phones(1)
    world.fake.fault("answer", status=400, reason="BadTopic")
    said = await world.refused(502, "POST", "/badge", {"badge": 4})
    assert said["code"] == "badge_update_failed"
    said = await world.ok("POST", "/push-notification", {"title": "T"})
    assert said["success"] is False
    assert "BadTopic" in said["message"]
    said = await world.ok("POST", "/live-activity/start", START)
    assert said["success"] is False
    assert "BadTopic" in said["errors"][0]


async def test_wrong_settings_are_the_gateways_fault(world: SmithWorld) -> None:
    await world.configure(live_activities="many")
    said = await world.refused(500, "POST", "/live-activity/start", START)
    assert said["error"] == "Gateway misconfigured"
