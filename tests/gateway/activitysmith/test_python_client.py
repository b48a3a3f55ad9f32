"""ActivitySmith's own Python client, unchanged but for its base address, against the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from activitysmith import ActivitySmith, action, alert_badge, alert_icon, content_state, metric
from activitysmith_openapi.exceptions import (
    ApiException,
    BadRequestException,
    ForbiddenException,
    NotFoundException,
    UnauthorizedException,
)
from activitysmith_openapi.models.no_recipients_error import NoRecipientsError

from tests.gateway.activitysmith.live import Live

HOOK = action("Hold", "webhook", "https://ops.example.com/hold", method="POST", body={"job": 9})
OPEN = action("Look", "open_url", "https://example.com/run/9")


def client(live: Live, secret: str | None = None) -> ActivitySmith:
    """The client, with its address swapped: all of its parts share one configuration."""
    made = ActivitySmith(api_key=secret or live.secret)
    made.live_activities._api.api_client.configuration.host = f"{live.url}/api"
    return made


async def run(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


async def refused(kind: type[ApiException], status: int, work: Callable[[], Any]) -> Any:
    with pytest.raises(kind) as caught:
        await run(work)
    assert caught.value.status == status
    said = json.loads(caught.value.body or "")
    assert isinstance(said["error"], str)
    assert isinstance(said["message"], str)
    return caught.value, said


async def test_start_update_end(live: Live) -> None:
    activities = client(live).live_activities
    started = await run(
        lambda: activities.start(
            title="Mirror",
            type=activities.TYPE_SEGMENTED_PROGRESS,
            number_of_steps=4,
            current_step=1,
            step_color="lime",
            icon=alert_icon("externaldrive", color="cyan"),
            badge=alert_badge("weekly"),
            action=HOOK,
            secondary_action=OPEN,
            alert={"title": "Mirror", "body": "begins"},
            channels="demo",
            tags=["nightly"],
            metadata={"job": 9, "dry": True, "host": "a"},
        )
    )
    assert started.success is True
    assert started.devices_notified == 5
    assert started.users_notified == 5
    assert started.effective_channel_slugs == ["demo"]
    assert started.tags == ["nightly"]
    activity = started.activity_id
    cards = await live.until(activity, lambda card: card["state"] == "active")
    for card in cards:
        state = card["content_state"]
        assert state["type"] == "segmented_progress"
        assert (state["number_of_steps"], state["current_step"]) == (4, 1)
        assert state["icon"] == {"symbol": "externaldrive", "color": "cyan"}
        assert state["secondary_action"] == OPEN
        assert state["action"]["url"].startswith(live.url)
        assert "counts_down" not in state, "the client's own defaults are no news"
        assert card["alert"] == {"title": "Mirror", "body": "begins"}

    updated = await run(
        lambda: activities.update(activity_id=activity, title="Mirror", current_step=2)
    )
    assert updated.success is True
    assert updated.devices_notified + updated.devices_queued == 5
    cards = await live.until(activity, lambda card: card["content_state"]["current_step"] == 2)
    assert all(card["content_state"]["type"] == "segmented_progress" for card in cards)
    assert all(card["alerts"] == 1 for card in cards)

    ended = await run(
        lambda: activities.end(
            activity_id=activity, title="Mirror", current_step=4, auto_dismiss_minutes=2
        )
    )
    assert ended.success is True
    assert ended.ignored is None
    await live.until(activity, lambda card: card["state"] == "ended")
    again = await run(lambda: activities.end(activity_id=activity, title="Mirror", current_step=4))
    assert again.ignored is True
    assert again.end_reason == "requested"


async def test_kinds_through_the_older_names(live: Live) -> None:
    activities = client(live).live_activities
    for state, shown in (
        (content_state("A", type="progress", percentage=15), {"percentage": 15}),
        (
            content_state("A", type="progress", value=3, upper_limit=9),
            {"value": 3, "upper_limit": 9},
        ),
        (
            content_state("A", type="metrics", metrics=[metric("CPU", 9, unit="%")]),
            {"metrics": [{"label": "CPU", "value": 9, "unit": "%"}]},
        ),
        (
            content_state("A", type="stats", metrics=[metric("Sold", "12 k", color="lime")]),
            {"metrics": [{"label": "Sold", "value": "12 k", "color": "lime"}]},
        ),
        (content_state("A", type="alert", message="now"), {"message": "now"}),
        (content_state("A", type="timer", duration_seconds=90), {"is_running": True}),
        (content_state("A", type="timer", counts_down=False), {"counts_down": False}),
        (content_state("A", type="value", value="9 €"), {"value": "9 €"}),
    ):
        started = await run(
            lambda state=state: activities.start_live_activity({"content_state": state})
        )
        cards = await live.until(started.activity_id, lambda card: card["state"] == "active")
        for card in cards:
            assert {**card["content_state"], **shown} == card["content_state"]
        final = {**state, "auto_dismiss_minutes": 0}
        ended = await run(
            lambda final=final, started=started: activities.end_live_activity(
                {"activity_id": started.activity_id, "content_state": final}
            )
        )
        assert ended.success is True
        await live.until(started.activity_id, lambda card: card["state"] == "dismissed")


async def test_streams(live: Live) -> None:
    activities = client(live).live_activities

    def put(cpu: int, **more: Any) -> Any:
        return activities.stream(
            "host-2", title="Host", type="metrics", metrics=[metric("CPU", cpu, unit="%")], **more
        )

    first = await run(lambda: put(9, channels=["demo"]))
    assert first.operation == "started"
    assert first.stream_key == "host-2"
    assert first.devices_notified == 5
    same = await run(lambda: put(9, channels=["demo"]))
    assert (same.operation, same.activity_id) == ("noop", first.activity_id)
    changed = await run(lambda: put(12, channels=["demo"]))
    assert (changed.operation, changed.activity_id) == ("updated", first.activity_id)
    await live.until(
        first.activity_id, lambda card: card["content_state"]["metrics"][0]["value"] == 12
    )
    rotated = await run(
        lambda: activities.reconcile_live_activity_stream(
            "host-2", {"content_state": content_state("Host", type="alert", message="Hot")}
        )
    )
    assert rotated.operation == "rotated"
    assert rotated.previous_activity_id == first.activity_id
    await live.until(rotated.activity_id, lambda card: card["content_state"]["message"] == "Hot")
    await live.until(first.activity_id, lambda card: card["state"] == "dismissed")
    answer = await live.native.post("/v1/streams/host-2/pause")
    assert answer.status_code < 300, "another face of the gateway pauses the same stream"
    paused = await run(lambda: put(1))
    assert (paused.operation, paused.activity_id) == ("paused", None)
    answer = await live.native.post("/v1/streams/host-2/resume")
    assert answer.status_code < 300
    third = await run(lambda: put(2))
    assert third.operation == "started"
    ended = await run(lambda: activities.end_stream("host-2"))
    assert (ended.operation, ended.activity_id) == ("ended", third.activity_id)
    cards = await live.until(third.activity_id, lambda card: card["state"] == "ended")
    assert all(card["content_state"]["metrics"][0]["value"] == 2 for card in cards)
    gone = await run(lambda: activities.end_live_activity_stream("host-2"))
    assert (gone.operation, gone.activity_id, gone.ignored) == ("ended", None, True)


async def test_notifications_badges_and_metrics(live: Live) -> None:
    smith = client(live)
    sent = await run(
        lambda: smith.notifications.send(
            title="Build",
            message="runs",
            subtitle="main",
            redirection="https://example.com/run/9",
            actions=[HOOK, OPEN],
            interruption_level="time-sensitive",
            channels=["demo"],
            tags=["ci"],
            metadata={"run": 9},
        )
    )
    assert sent.success is True
    assert (sent.devices_notified, sent.users_notified, sent.devices_targeted) == (5, 5, 5)
    assert sent.effective_channel_slugs == ["demo"]
    pushes = await live.pushes("Build")
    assert len({push["device"] for push in pushes}) == 5
    payload = pushes[0]["payload"]
    assert payload["aps"]["alert"] == {"title": "Build", "body": "runs", "subtitle": "main"}
    assert payload["aps"]["interruption-level"] == "time-sensitive"
    assert payload["redirection"] == "https://example.com/run/9"
    assert payload["actions"][1] == OPEN
    replaced = await run(
        lambda: smith.notifications.replace(sent.notification_id, title="Built", message="passed")
    )
    assert replaced.notification_id == sent.notification_id
    assert replaced.devices_notified == 5
    assert replaced.tags == ["ci"]
    later = await live.pushes("Built")
    assert {push["collapse_id"] for push in later} == {push["collapse_id"] for push in pushes}
    media = await run(
        lambda: smith.notifications.send_push_notification(
            {"title": "Media", "media": "https://example.com/a.png", "icon": "https://e.com/i.png"}
        )
    )
    assert media.success is True
    badge = await run(lambda: smith.badge_count(3, channels=["demo"]))
    assert (badge.badge, badge.devices_updated, badge.users_updated) == (3, 5, 5)
    assert (await run(lambda: smith.badge_count(0))).success is True
    for value in (42, 99.9, "99 %"):
        assert (await run(lambda value=value: smith.metrics.update("rate", value))).success is True


async def test_every_refusal(live: Live) -> None:
    smith = client(live)
    activities = smith.live_activities

    def start(**more: Any) -> Any:
        return activities.start(title="T", type="value", value="x", **more)

    # The client checks much by itself; what it lets through is refused here.
    _, said = await refused(
        BadRequestException,
        400,
        lambda: activities.start(
            title="T", type="segmented_progress", number_of_steps=1, current_step=2
        ),
    )
    assert said["error"] == "Invalid content_state"
    _, said = await refused(BadRequestException, 400, lambda: start(channels=["nope"]))
    assert said["error"] == "Invalid channel targeting"
    stranger = client(live, "ask_" + "0" * 12 + "_" + "0" * 64).live_activities
    await refused(
        UnauthorizedException, 401, lambda: stranger.start(title="T", type="value", value="x")
    )
    await live.native.put("/v1/groups/empty", json={"name": "Empty"})
    bound = client(live, await live.key(groups=["empty"]))
    _, said = await refused(
        ForbiddenException,
        403,
        lambda: bound.live_activities.start(title="T", type="value", value=1, channels=["demo"]),
    )
    assert said["error"] == "Invalid channel targeting"
    error, said = await refused(ApiException, 422, lambda: start(channels=["empty"]))
    assert isinstance(error.data, NoRecipientsError)
    assert error.data.effective_channel_slugs == ["empty"]
    error, _ = await refused(ApiException, 422, lambda: smith.badge_count(1, channels=["empty"]))
    assert isinstance(error.data.actual_instance, NoRecipientsError)
    await refused(
        NotFoundException, 404, lambda: activities.update(activity_id="nope", title="T", value="x")
    )
    _, said = await refused(NotFoundException, 404, lambda: activities.end_stream("nope"))
    assert said["error"] == "Live Activity stream not found"
    await refused(NotFoundException, 404, lambda: smith.notifications.replace("nope", title="T"))
    await live.configure(metrics_on_demand=False, live_activities=1)
    _, said = await refused(NotFoundException, 404, lambda: smith.metrics.update("unmade", 1))
    assert said["error"] == "Metric not found"
    await run(start)
    other = client(live, await live.key())
    _, said = await refused(
        ApiException, 429, lambda: other.live_activities.start(title="T", type="value", value=1)
    )
    assert (said["error"], said["limit"], said["active"]) == ("Live Activity limit reached", 1, 1)

    await live.configure(live_activities=1)

    def hammer_on() -> None:
        for _ in range(200):
            other.metrics.update("rate", 1)

    error, said = await refused(ApiException, 429, hammer_on)
    assert said["code"] == "rate_limited"
    assert int(error.headers["retry-after"]) >= 1
