"""The outermost layer: bounds what is under way, counts answers, and hides defects.

Plain ASGI, because it is in the way of every request.
"""

from __future__ import annotations

import logging
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .context import Gateway
from .problems import problem, respond

logger = logging.getLogger("apns_live.gateway")

_OTHER = "other"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)


class Guard:
    """Wraps the app. Answers 503 when more requests are under way than may be."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gateway = self._gateway
        if gateway.under_way >= gateway.settings.requests:
            gateway.count(_OTHER, scope["method"], 503)
            busy = problem("busy", 503, "as many requests are under way as may be", retry_after=1.0)
            await respond(busy)(scope, receive, send)
            return
        gateway.under_way += 1
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
                gateway.count(_route(scope), scope["method"], message["status"])
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except Exception:
            # Path only: a query or a header may hold what is nobody's business in a log.
            logger.exception("%s %s failed", scope["method"], _route(scope))
            if started:
                raise
            await respond(problem("internal", 500))(scope, receive, answer)
        finally:
            gateway.under_way -= 1


def _route(scope: Scope) -> str:
    """Return the route's pattern, never the path: labels of metrics must be few."""
    route: Any = scope.get("route")
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else _OTHER
