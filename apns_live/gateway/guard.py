"""The outermost layer: bounds what is under way, counts answers, and hides defects.

Plain ASGI, because it is in the way of every request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .context import Gateway
from .problems import problem, respond

logger = logging.getLogger("apns_live.gateway")

_OTHER = "other"
_DRAINED_BYTES = 16 * 1_048_576
_DRAINED_SECONDS = 5.0
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
            await _drain(receive)
            await respond(busy)(scope, receive, send)
            return
        gateway.under_way += 1
        started = False
        more_body = True

        async def take() -> Message:
            nonlocal more_body
            message = await receive()
            more_body = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if more_body:
                    await _drain(take)
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
                gateway.count(_route(scope), scope["method"], message["status"])
            await send(message)

        try:
            await self._app(scope, take, answer)
        except Exception:
            # Path only: a query or a header may hold what is nobody's business in a log.
            logger.exception("%s %s failed", scope["method"], _route(scope))
            if started:
                raise
            await respond(problem("internal", 500))(scope, take, answer)
        finally:
            gateway.under_way -= 1


async def _drain(take: Receive) -> None:
    """Read what is left of a body before it is refused, within bounds.

    The server closes the connection behind an answer that came before the end of the body, and a
    client that is still writing then never sees the answer.
    """
    left = _DRAINED_BYTES
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAINED_SECONDS):
            while left > 0:
                message = await take()
                left -= len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _route(scope: Scope) -> str:
    """Return the route's pattern, never the path: labels of metrics must be few."""
    path = getattr(scope.get("route"), "path", None) or scope.get("apns_live.route")
    return path if isinstance(path, str) else _OTHER
