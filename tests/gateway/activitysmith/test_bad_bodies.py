"""Bodies that are refused, each with the field that is wrong and the label of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from apns_live.errors import InvalidInput
from apns_live.gateway.activitysmith import live, requests
from apns_live.gateway.activitysmith.dialect import refusal_of
from tests.gateway.activitysmith.test_translators import HOOK, LIVE, NOW, OPEN, STEPS

BAD_STATES: list[tuple[str, Any, str]] = [
    ("start", None, "content_state"),
    ("start", [], "content_state"),
    ("start", {}, "content_state.type"),
    ("start", {"type": "progress"}, "content_state.title"),
    ("start", {"title": 7, "type": "progress"}, "content_state.title"),
    ("start", {"title": "", "type": "value", "value": 1}, "content_state.title"),
    ("start", {"title": "T", "type": "pie"}, "content_state.type"),
    ("start", {"title": "T", "type": 7}, "content_state.type"),
    ("start", {"title": "T", "type": "value", "value": 1, "colour": "red"}, "content_state.colour"),
    ("start", {"title": "T", "type": "value", "value": 1, "color": "pink"}, "content_state.color"),
    ("start", {"title": "T", "type": "value"}, "content_state.value"),
    ("start", {"title": "T", "type": "value", "value": True}, "content_state.value"),
    ("start", {"title": "T", "type": "progress"}, "content_state.percentage"),
    ("start", {"title": "T", "type": "progress", "percentage": 101}, "content_state.percentage"),
    ("start", {"title": "T", "type": "progress", "percentage": -1}, "content_state.percentage"),
    ("start", {"title": "T", "type": "progress", "value": 3}, "content_state.upper_limit"),
    ("start", {"title": "T", "type": "progress", "upper_limit": 3}, "content_state.value"),
    (
        "start",
        {"title": "T", "type": "progress", "value": 1, "upper_limit": 0},
        "content_state.upper_limit",
    ),
    ("start", {**STEPS, "current_step": 6}, "content_state.current_step"),
    ("start", {**STEPS, "current_step": 1.5}, "content_state.current_step"),
    ("start", {**STEPS, "number_of_steps": 0}, "content_state.number_of_steps"),
    ("start", {**STEPS, "step_colors": ["pink"]}, "content_state.step_colors[0]"),
    ("start", {"title": "T", "type": "metrics"}, "content_state.metrics"),
    ("start", {"title": "T", "type": "metrics", "metrics": []}, "content_state.metrics"),
    (
        "start",
        {"title": "T", "type": "stats", "metrics": [{"label": "a", "value": 1}] * 9},
        "content_state.metrics",
    ),
    (
        "start",
        {"title": "T", "type": "stats", "metrics": [{"label": "a", "value": "x" * 65}]},
        "content_state.metrics[0].value",
    ),
    (
        "start",
        {"title": "T", "type": "stats", "metrics": [{"label": "", "value": 1}]},
        "content_state.metrics[0].label",
    ),
    ("start", {"title": "T", "type": "alert"}, "content_state.message"),
    ("start", {"title": "T", "type": "alert", "message": ""}, "content_state.message"),
    (
        "start",
        {"title": "T", "type": "alert", "message": "m", "icon": {}},
        "content_state.icon.symbol",
    ),
    (
        "start",
        {"title": "T", "type": "alert", "message": "m", "badge": {"title": ""}},
        "content_state.badge.title",
    ),
    ("start", {"title": "T", "type": "timer"}, "content_state.duration_seconds"),
    (
        "start",
        {"title": "T", "type": "timer", "duration_seconds": 0},
        "content_state.duration_seconds",
    ),
    (
        "start",
        {"title": "T", "type": "timer", "duration_seconds": 9, "is_running": 1},
        "content_state.is_running",
    ),
    ("start", {**STEPS, "auto_dismiss_minutes": 1}, "content_state.auto_dismiss_minutes"),
    ("update", {**STEPS, "auto_dismiss_minutes": 1}, "content_state.auto_dismiss_minutes"),
    ("end", {**STEPS, "auto_dismiss_minutes": -1}, "content_state.auto_dismiss_minutes"),
    ("end", {**STEPS, "auto_dismiss_minutes": 1.5}, "content_state.auto_dismiss_minutes"),
    ("end", {**STEPS, "auto_dismiss_minutes": True}, "content_state.auto_dismiss_minutes"),
    ("end", {**STEPS, "auto_dismiss_minutes": 1e300}, "content_state.auto_dismiss_minutes"),
]


@pytest.mark.parametrize(("phase", "state", "field"), BAD_STATES)
def test_bad_states(phase: Any, state: Any, field: str) -> None:
    body: dict[str, Any] = {"content_state": state}
    read: Any = requests.start
    if phase != "start":
        body["activity_id"] = "a"
        read = requests.update if phase == "update" else requests.end
    with pytest.raises(InvalidInput) as refused:
        live.complete(read(body).state, phase=phase, now=NOW)
    assert refused.value.field == field
    assert refused.value.remedy
    assert refusal_of(refused.value).body["error"] == "Invalid content_state"


BAD_BODIES: list[tuple[Any, Any, str, str]] = [
    (requests.start, None, "body", "Invalid request"),
    (requests.start, [], "body", "Invalid request"),
    (requests.start, {**LIVE, "channels": ["a"]}, "channels", "Invalid channel targeting"),
    (requests.start, {**LIVE, "target": []}, "target", "Invalid channel targeting"),
    (requests.start, {**LIVE, "target": {}}, "target.channels", "Invalid channel targeting"),
    (
        requests.start,
        {**LIVE, "target": {"channels": "a"}},
        "target.channels",
        "Invalid channel targeting",
    ),
    (
        requests.start,
        {**LIVE, "target": {"channels": []}},
        "target.channels",
        "Invalid channel targeting",
    ),
    (
        requests.start,
        {**LIVE, "target": {"channels": [7]}},
        "target.channels",
        "Invalid channel targeting",
    ),
    (
        requests.start,
        {**LIVE, "target": {"channels": ["a"], "x": 1}},
        "target.x",
        "Invalid channel targeting",
    ),
    (
        requests.start,
        {**LIVE, "target": {"channels": ["a"] * 101}},
        "target.channels",
        "Invalid channel targeting",
    ),
    (requests.start, {**LIVE, "tags": "a"}, "tags", "Invalid tags"),
    (requests.start, {**LIVE, "tags": [""]}, "tags[0]", "Invalid tags"),
    (requests.start, {**LIVE, "tags": ["x" * 65]}, "tags[0]", "Invalid tags"),
    (requests.start, {**LIVE, "tags": [str(n) for n in range(21)]}, "tags", "Invalid tags"),
    (requests.start, {**LIVE, "metadata": []}, "metadata", "Invalid metadata"),
    (requests.start, {**LIVE, "metadata": {"a": None}}, "metadata.a", "Invalid metadata"),
    (requests.start, {**LIVE, "metadata": {"a": [1]}}, "metadata.a", "Invalid metadata"),
    (
        requests.start,
        {**LIVE, "metadata": {str(n): n for n in range(51)}},
        "metadata",
        "Invalid metadata",
    ),
    (requests.start, {**LIVE, "alert": "x"}, "alert", "Invalid alert"),
    (requests.start, {**LIVE, "alert": {"title": 1}}, "alert.title", "Invalid alert"),
    (requests.start, {**LIVE, "alert": {"sound": "x"}}, "alert.sound", "Invalid alert"),
    (requests.start, {**LIVE, "action": []}, "action", "Invalid action"),
    (requests.start, {**LIVE, "action": {"title": "x"}}, "action.type", "Invalid action"),
    (requests.start, {**LIVE, "action": {**OPEN, "title": ""}}, "action.title", "Invalid action"),
    (
        requests.start,
        {**LIVE, "action": {**OPEN, "url": "javascript:alert(1)"}},
        "action.url",
        "Invalid action",
    ),
    (
        requests.start,
        {**LIVE, "action": {**OPEN, "url": "myapp://x"}},
        "action.url",
        "Invalid action",
    ),
    (
        requests.start,
        {**LIVE, "action": {**OPEN, "url": "shortcuts://gallery"}},
        "action.url",
        "Invalid action",
    ),
    (
        requests.start,
        {**LIVE, "action": {**HOOK, "url": "http://example.com"}},
        "action.url",
        "Invalid action",
    ),
    (
        requests.start,
        {**LIVE, "action": {**HOOK, "url": "https://u:p@example.com"}},
        "action.url",
        "Invalid action",
    ),
    (
        requests.start,
        {**LIVE, "action": {**HOOK, "method": "PUT"}},
        "action.method",
        "Invalid action",
    ),
    (requests.start, {**LIVE, "action": {**HOOK, "body": [1]}}, "action.body", "Invalid action"),
    (
        requests.start,
        {**LIVE, "action": {**OPEN, "style": "big"}},
        "action.style",
        "Invalid action",
    ),
    (
        requests.start,
        {**LIVE, "secondary_action": 7},
        "secondary_action",
        "Invalid secondary_action",
    ),
    (requests.update, LIVE, "activity_id", "Invalid activity_id"),
    (requests.update, {**LIVE, "activity_id": ""}, "activity_id", "Invalid activity_id"),
    (requests.update, {**LIVE, "activity_id": 7}, "activity_id", "Invalid activity_id"),
    (requests.update, {**LIVE, "activity_id": "a\nb"}, "activity_id", "Invalid activity_id"),
    (requests.update, {**LIVE, "activity_id": "a", "alert": {}}, "alert", "Invalid alert"),
    (
        requests.update,
        {**LIVE, "activity_id": "a", "target": {}},
        "target",
        "Invalid channel targeting",
    ),
    (
        requests.stream,
        {**LIVE, "channels": ["a"], "target": {"channels": ["b"]}},
        "channels",
        "Invalid channel targeting",
    ),
    (requests.stream_end, {"channels": ["a"]}, "channels", "Invalid channel targeting"),
    (requests.notification, {}, "title", "Invalid title"),
    (requests.notification, {"title": ""}, "title", "Invalid title"),
    (
        requests.notification,
        {"title": "T", "media": "http://example.com/a.png"},
        "media",
        "Invalid media",
    ),
    (requests.notification, {"title": "T", "media": "https://"}, "media", "Invalid media"),
    (requests.notification, {"title": "T", "media": "https://a b/c"}, "media", "Invalid media"),
    (requests.notification, {"title": "T", "media": "https://[/c"}, "media", "Invalid media"),
    (
        requests.notification,
        {"title": "T", "icon": "https://u@example.com/i.png"},
        "icon",
        "Invalid icon",
    ),
    (
        requests.notification,
        {"title": "T", "redirection": "javascript:x"},
        "redirection",
        "Invalid redirection",
    ),
    (
        requests.notification,
        {"title": "T", "redirection": "JavaScript:x"},
        "redirection",
        "Invalid redirection",
    ),
    (
        requests.notification,
        {"title": "T", "redirection": "data:text/html,x"},
        "redirection",
        "Invalid redirection",
    ),
    (
        requests.notification,
        {"title": "T", "redirection": "/local"},
        "redirection",
        "Invalid redirection",
    ),
    (
        requests.notification,
        {"title": "T", "redirection": "https:nohost"},
        "redirection",
        "Invalid redirection",
    ),
    (
        requests.notification,
        {"title": "T", "redirection": "https://e.com/" + "x" * 2048},
        "redirection",
        "Invalid redirection",
    ),
    (
        requests.notification,
        {"title": "T", "media": "https://e.com/a", "actions": [OPEN]},
        "media",
        "Invalid media",
    ),
    (requests.notification, {"title": "T", "actions": [OPEN] * 5}, "actions", "Invalid actions"),
    (
        requests.notification,
        {"title": "T", "actions": [{**OPEN, "url": "file:///x"}]},
        "actions[0].url",
        "Invalid actions",
    ),
    (requests.notification, {"title": "T", "payload": []}, "payload", "Invalid payload"),
    (requests.notification, {"title": "T", "badge": -1}, "badge", "Invalid badge"),
    (requests.notification, {"title": "T", "badge": True}, "badge", "Invalid badge"),
    (
        requests.notification,
        {"title": "T", "interruption_level": "critical"},
        "interruption_level",
        "Invalid request",
    ),
    (requests.notification, {"title": "T", "body": "x"}, "body", "Invalid request"),
    (requests.badge, {}, "badge", "Invalid badge"),
    (requests.badge, {"badge": 2**31}, "badge", "Invalid badge"),
    (requests.badge, {"badge": "3"}, "badge", "Invalid badge"),
    (requests.metric, {}, "value", "Invalid value"),
    (requests.metric, {"value": None}, "value", "Invalid value"),
    (requests.metric, {"value": True}, "value", "Invalid value"),
    (requests.metric, {"value": ""}, "value", "Invalid value"),
    (requests.metric, {"value": "x" * 65}, "value", "Invalid value"),
    (requests.metric, {"value": 1, "timestamp": "soon"}, "timestamp", "Invalid request"),
    (requests.metric, {"value": 1, "timestamp": 7}, "timestamp", "Invalid request"),
    (requests.metric, {"value": 1, "at": 7}, "at", "Invalid request"),
]


@pytest.mark.parametrize(("read", "body", "field", "label"), BAD_BODIES)
def test_bad_bodies(read: Any, body: Any, field: str, label: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(body)
    assert refused.value.field == field
    answer = refusal_of(refused.value)
    assert (answer.status, answer.body["error"]) == (400, label)
