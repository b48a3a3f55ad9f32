"""The outermost layer: bounds what is under way, counts answers, and hides defects.

Plain ASGI, because it is in the way of every request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import Busy
from .context import Gateway

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
    """Wraps the app. Answers 503 when more requests are under way than may be.

    A request that finds no place waits for one half a second at most: a burst is served, and under
    lasting overload a client that asks again at once costs little.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def _enter(self) -> bool:
        """Take a place; False when none came free in time."""
        gateway = self._gateway
        settings = gateway.settings
        if gateway.under_way < settings.requests and not self._waiting:
            gateway.under_way += 1
            return True
        if len(self._waiting) >= settings.waiting_requests:
            return False
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        timer = loop.call_later(settings.patience, place.cancel)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                with contextlib.suppress(ValueError):
                    self._waiting.remove(place)
            elif place.done():
                self._leave()  # the place was given at the moment at which the caller went
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return False
        finally:
            timer.cancel()
        return True

    def _leave(self) -> None:
        """Give the place to who waits longest, or back."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._gateway.under_way -= 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        gateway = self._gateway
        if not await self._enter():
            gateway.count(_OTHER, scope["method"], 503)
            busy = Busy("as many requests are under way as may be", retry_after=1.0)
            await _drain(scope, receive)
            await gateway.faces.refuse(scope, busy)(scope, receive, _with_headers(send))
            return
        started = False
        inside = True
        more_body = True

        async def take() -> Message:
            nonlocal more_body
            message = await receive()
            more_body = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal started, inside
            if message["type"] == "http.response.start":
                started = True
                if inside and _is_endless(message):
                    # Followers are counted by themselves; they must not keep others out.
                    inside = False
                    self._leave()
                if more_body:
                    await _drain(scope, take)
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
                gateway.count(_route(scope), scope["method"], message["status"])
            await send(message)

        try:
            await self._app(scope, take, answer)
        except Exception as error:
            # Path only: a query or a header may hold what is nobody's business in a log.
            logger.exception("%s %s failed", scope["method"], _route(scope))
            if started:
                raise
            await gateway.faces.refuse(scope, error)(scope, take, answer)
        finally:
            if inside:
                self._leave()


def _with_headers(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return answer


def _is_endless(message: Message) -> bool:
    return any(
        name == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in message.get("headers", ())
    )


async def _drain(scope: Scope, take: Receive) -> None:
    """Read what is left of a body before it is refused, within bounds.

    The server closes the connection behind an answer that came before the end of the body, and a
    client that is still writing then never sees the answer. One that announced more than would be
    read is answered at once: most such clients look at what comes while they write.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            if len(value) > 9 or int(value) > _DRAINED_BYTES:
                return
            break
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
