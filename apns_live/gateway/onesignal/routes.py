"""The addresses of OneSignal's API that Live Activities need, with and without ``/api/v1``."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..context import Gateway
from . import answers, devices, live
from .calls import Do, guarded, keyed

PREFIXES = ("", "/api/v1")
"""Older SDKs put ``/api/v1`` before every address."""
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_LIVE = "/apps/{app_id}/live_activities/{activity_id:path}"
_START_TOKEN = (
    "/apps/{app_id}/activities/tokens/start/{activity_type}/subscriptions/{subscription_id}"
)

KEYED: tuple[tuple[str, str, Do], ...] = (
    ("POST", "/apps/{app_id}/activities/activity/{activity_type}", live.start),
    ("POST", f"{_LIVE}/notifications", live.change),
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
        paths: dict[str, None] = {}
        for method, path, do in KEYED:
            router.add_route(prefix + path, keyed(gateway, do), methods=[method])
            paths[prefix + path] = None
        for method, path, action, handle, token, body in DEVICE_CALLS:
            respond = devices.device_call(gateway, action, handle, token=token, body=body)
            router.add_route(prefix + path, guarded(gateway, respond), methods=[method])
            paths[prefix + path] = None
        for path in paths:
            router.add_route(path, _wrong_method, methods=_METHODS)
        for rest in ("/apps/{rest:path}", "/notifications/{rest:path}", "/notifications"):
            router.add_route(prefix + rest, _wrong_path, methods=_METHODS)
    return router


async def _wrong_method(request: Request) -> Response:
    return answers.wrong_method()


async def _wrong_path(request: Request) -> Response:
    return answers.wrong_path()
