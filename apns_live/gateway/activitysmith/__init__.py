"""The ActivitySmith dialect: its endpoints, bodies, answers and errors, over the service.

Programs written for ``https://activitysmith.com/api`` run against the gateway with the base address
swapped. The paths answer under ``/api`` and without it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response

from ...activities.cards.webhooks import WebhookRelay
from ..context import Gateway
from . import live, pushes, streaming
from .calling import Handler, route
from .refusals import Refused, answer_refusal, refusal
from .taps import tap_route

__all__ = ["refusal", "routes"]

PREFIXES = ("", "/api")

_ROUTES: tuple[tuple[str, str, Handler, str, bool], ...] = (
    ("POST", "/live-activity/start", live.start, "activities:start", True),
    ("POST", "/live-activity/update", live.update, "activities:update", True),
    ("POST", "/live-activity/end", live.end, "activities:end", True),
    ("POST", "/live-activity/stream/{stream_key}/pause", streaming.pause, "streams:write", True),
    ("POST", "/live-activity/stream/{stream_key}/resume", streaming.resume, "streams:write", False),
    ("PUT", "/live-activity/stream/{stream_key:path}", streaming.put, "streams:write", True),
    ("DELETE", "/live-activity/stream/{stream_key:path}", streaming.end, "streams:write", True),
    ("POST", "/push-notification", pushes.send, "notifications:send", True),
    ("PUT", "/push-notification/{notification_id}", pushes.replace, "notifications:send", True),
    ("POST", "/badge", pushes.badge, "notifications:send", True),
    ("POST", "/metrics/{key}/value", pushes.metric_value, "activities:update", True),
    ("PUT", "/metrics/{key}", pushes.metric_make, "admin", False),
    ("GET", "/metrics/{key}", pushes.metric_get, "activities:read", False),
    ("DELETE", "/metrics/{key}", pushes.metric_remove, "admin", False),
)
_LIST = ("GET", "/api/metrics", pushes.metric_list, "activities:read", False)
"""Only below ``/api``: ``/metrics`` itself is the gateway's own counters."""


def routes(gateway: Gateway, *, relay: WebhookRelay | None = None) -> APIRouter:
    """Return the routes. ``relay`` calls webhooks; by default one of public addresses only."""
    made: list[WebhookRelay] = []

    def relay_in_use() -> WebhookRelay:
        if relay is not None:
            return relay
        if not made:
            made.append(WebhookRelay(allow=gateway.settings.webhook_hosts, clock=gateway.clock))
        return made[0]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        while made:
            await made.pop().aclose()

    router = APIRouter(lifespan=lifespan)
    tap = tap_route(gateway, relay_in_use)
    for prefix in PREFIXES:
        for method, path, handler, scope, body in _ROUTES:
            endpoint = route(gateway, handler, scope=scope, body=body)
            router.add_api_route(prefix + path, endpoint, methods=[method], response_model=None)
        for path, endpoint, methods in (
            ("/live-activity/taps/{tap}", tap, ["POST"]),
            ("/live-activity/{rest:path}", _nothing, _METHODS),
        ):
            router.add_api_route(prefix + path, endpoint, methods=methods, response_model=None)
        for path in dict.fromkeys(path for _, path, *_ in _ROUTES):
            router.add_api_route(prefix + path, _no_method, methods=_METHODS, response_model=None)
    method, path, handler, scope, body = _LIST
    endpoint = route(gateway, handler, scope=scope, body=body)
    router.add_api_route(path, endpoint, methods=[method], response_model=None)
    return router


_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


async def _nothing(request: Request) -> Response:
    """Answer what is no endpoint in this dialect's shape."""
    return answer_refusal(Refused(404, "Not found", "There is no such endpoint."), route="")


async def _no_method(request: Request) -> Response:
    """Answer a method that an endpoint has not, in this dialect's shape."""
    return answer_refusal(
        Refused(405, "Method not allowed", f"This endpoint has no {request.method}."), route=""
    )
