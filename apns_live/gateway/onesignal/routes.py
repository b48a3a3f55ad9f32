"""The addresses of OneSignal's API that Live Activities need, with and without ``/api/v1``."""

from __future__ import annotations

from fastapi import APIRouter

from ..callers import guarded
from ..context import Gateway
from . import answers, devices, live, messages, segments, subscriptions, users
from .calls import Do, keyed

PREFIXES = ("", "/api/v1")
"""Older SDKs put ``/api/v1`` before every address."""
_LIVE = "/apps/{app_id}/live_activities/{activity_id:path}"
_USER = "/apps/{app_id}/users/by/{alias_label}/{alias_id}"
_SUBSCRIPTION = "/apps/{app_id}/subscriptions/{subscription_id}"
_SEGMENT = "/apps/{app_id}/segments/{segment_id}"
_START_TOKEN = (
    "/apps/{app_id}/activities/tokens/start/{activity_type}/subscriptions/{subscription_id}"
)

KEYED: tuple[tuple[str, str, Do], ...] = (
    ("POST", "/apps/{app_id}/activities/activity/{activity_type}", live.start),
    ("POST", f"{_LIVE}/notifications", live.change),
    ("GET", "/notifications/{notification_id}", messages.view),
    ("DELETE", "/notifications/{notification_id}", messages.cancel),
    ("POST", "/apps/{app_id}/users", subscriptions.create_user),
    ("GET", _USER, users.view),
    ("PATCH", _USER, users.change),
    ("DELETE", _USER, users.remove),
    ("GET", f"{_USER}/identity", users.identity),
    ("PATCH", f"{_USER}/identity", users.add_aliases),
    ("DELETE", _USER + "/identity/{label}", users.remove_alias),
    ("POST", f"{_USER}/subscriptions", subscriptions.create),
    ("PATCH", _SUBSCRIPTION, subscriptions.change),
    ("DELETE", _SUBSCRIPTION, subscriptions.remove),
    ("PATCH", f"{_SUBSCRIPTION}/owner", subscriptions.transfer),
    ("GET", f"{_SUBSCRIPTION}/user/identity", subscriptions.identity),
    ("PATCH", f"{_SUBSCRIPTION}/user/identity", subscriptions.add_aliases),
    ("GET", "/apps/{app_id}/segments", segments.view_all),
    ("POST", "/apps/{app_id}/segments", segments.create),
    ("GET", _SEGMENT, segments.view),
    ("PATCH", _SEGMENT, segments.change),
    ("DELETE", _SEGMENT, segments.delete),
)
DEVICE_CALLS: tuple[tuple[str, str, str, devices.Do, str, bool], ...] = (
    ("POST", f"{_LIVE}/token", "onesignal.enter", devices.enter, "push_token", True),
    ("DELETE", _LIVE + "/token/{subscription_id}", "onesignal.exit", devices.leave, "", False),
    (
        "PUT",
        _START_TOKEN,
        "onesignal.start_token",
        devices.register_start,
        "activity_token",
        True,
    ),
    ("DELETE", _START_TOKEN, "onesignal.withdraw", devices.withdraw_start, "", False),
    (
        "PUT",
        "/notifications/{notification_id}/report_received",
        "onesignal.received",
        devices.confirm,
        "",
        True,
    ),
)


def routes(gateway: Gateway) -> APIRouter:
    """Return the routes of the dialect."""
    router = APIRouter()
    for prefix in PREFIXES:
        for method, path, do in KEYED:
            router.add_route(prefix + path, keyed(gateway, do), methods=[method])
        for method, path, action, handle, token, body in DEVICE_CALLS:
            respond = devices.device_call(gateway, action, handle, token=token, body=body)
            endpoint = guarded(gateway, respond, answers.refuse)
            router.add_route(prefix + path, endpoint, methods=[method])
    return router
