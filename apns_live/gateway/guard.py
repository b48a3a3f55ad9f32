"""The outermost layer: gives every request its time, counts answers, and hides defects.

Plain ASGI, because it is in the way of every request.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import Busy
from .admission import Visit
from .context import Gateway
from .logs import Seldom
from .problems import classify

logger = logging.getLogger("apns_live.gateway")

_OTHER = "other"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_late = Seldom(logger, "calls were given up at their deadline")


class Guard:
    """Wraps the app. What takes longer than a call may is answered with 503."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await _Request(self._gateway, scope, receive, send).serve(self._app)


class _Request:
    """One request and its answer: of the app, or, when its time is over, of the gateway."""

    def __init__(self, gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
        self._gateway = gateway
        self._scope = scope
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self._refusal: asyncio.Task[None] | None = None
        self._started = False
        self._ended = False
        client = scope.get("client")
        method = scope["method"]
        self._visit = Visit(
            gateway.admission,
            client[0] if client else "",
            self._expire,
            reads=method in _READING,
            body=method not in _READING and method != "DELETE" and _has_body(scope),
        )

    async def serve(self, app: ASGIApp) -> None:
        """Let the app answer."""
        try:
            with self._gateway.admission.visiting(self._visit):
                await app(self._scope, self._receive, self._answer)
        except asyncio.CancelledError:
            if self._refusal is None or self._task is None or self._task.uncancel() > 0:
                raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            if self._refusal is None:
                await self._fail(error)
        finally:
            self._ended = True
            if self._refusal is not None:
                await self._refusal

    async def _fail(self, error: Exception) -> None:
        if classify(error).status == 500:
            # Path only: a query or a header may hold what is nobody's business in a log.
            logger.exception("%s %s failed", self._scope["method"], _route(self._scope))
        if self._started:
            raise error
        await self._gateway.faces.refuse(self._scope, error)(
            self._scope, self._receive, self._answer
        )

    async def _answer(self, message: Message) -> None:
        if self._refusal is not None:
            return
        if message["type"] == "http.response.start":
            self._started = True
            if _is_endless(message):
                # Followers are counted by themselves; they must not keep others out.
                self._visit.leave()
                self._visit.within(None)
            self._begin(message)
        await self._send(message)

    def _begin(self, message: Message) -> None:
        message["headers"] = [*message.get("headers", ()), *_HEADERS]
        self._gateway.count(_route(self._scope), self._scope["method"], message["status"])

    def _expire(self) -> None:
        _late.say(_route(self._scope))
        self._refusal = asyncio.get_running_loop().create_task(self._refuse_late())

    async def _refuse_late(self) -> None:
        """Answer in the app's place, and only then stop it: what it waits for may not let go."""

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._begin(message)
            await self._send(message)

        if not self._started:
            busy = Busy("the call took longer than it may", retry_after=5.0)
            await self._gateway.faces.refuse(self._scope, busy)(self._scope, self._receive, send)
        if not self._ended and self._task is not None:
            self._task.cancel()


def _has_body(scope: Scope) -> bool:
    length = None
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return True
        if name == b"content-length":
            length = value
    # HTTP/2 needs neither header for a body.
    return length != b"0" if length is not None else scope.get("http_version") == "2"


def _is_endless(message: Message) -> bool:
    return any(
        name == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in message.get("headers", ())
    )


def _route(scope: Scope) -> str:
    """Return the route's pattern, never the path: labels of metrics must be few."""
    path = getattr(scope.get("route"), "path", None) or scope.get("apns_live.route")
    return path if isinstance(path, str) else _OTHER
