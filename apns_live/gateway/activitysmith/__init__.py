"""The ActivitySmith dialect: its endpoints, bodies, answers and errors, over the service.

Programs written for ``https://activitysmith.com/api`` run against the gateway with the base address
swapped. The paths answer under ``/api`` and without it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from ...activities.cards.webhooks import WebhookRelay
from ..context import Gateway
from . import live, pushes, streaming
from .calling import Handler, route
from .refusals import refusal
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
_LIST = ("GET", "/metrics", pushes.metric_list, "activities:read", False)
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
        for method, path, handler, scope, body in (*_ROUTES, *((_LIST,) if prefix else ())):
            endpoint = route(gateway, handler, scope=scope, body=body)
            router.add_api_route(prefix + path, endpoint, methods=[method], response_model=None)
        path = prefix + "/live-activity/taps/{tap}"
        router.add_api_route(path, tap, methods=["POST"], response_model=None)
    return router
