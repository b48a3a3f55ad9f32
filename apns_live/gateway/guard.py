"""The outermost layer: names, times and traces each request, counts answers, and hides defects.

Plain ASGI, because it is in the way of every request.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from contextlib import nullcontext
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..activities.logs import ACCESS
from ..activities.observed import CALL, Call, trace
from ..errors import Busy
from .admission import Visit
from .context import Gateway
from .logs import Seldom
from .problems import classify

logger = logging.getLogger("apns_live.gateway")
access = logging.getLogger(ACCESS)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")

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
            call = Call(_request_id(scope))
            CALL.set(call)
            with _span(scope) as span:
                await _Request(self._gateway, scope, receive, send, call, span).serve(self._app)


class _Request:
    """One request and its answer: of the app, or, when its time is over, of the gateway."""

    def __init__(
        self,
        gateway: Gateway,
        scope: Scope,
        receive: Receive,
        send: Send,
        call: Call,
        span: Any = None,
    ) -> None:
        self._gateway = gateway
        self._scope = scope
        self._receive = receive
        self._send = send
        self._task = asyncio.current_task()
        self._refusal: asyncio.Task[None] | None = None
        self._started = False
        self._ended = False
        self._call = call
        self._span = span
        self._began = asyncio.get_running_loop().time()
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
        request_id = (b"x-request-id", self._call.request_id.encode())
        message["headers"] = [*message.get("headers", ()), *_HEADERS, request_id]
        route, method, status = _route(self._scope), self._scope["method"], message["status"]
        seconds = asyncio.get_running_loop().time() - self._began
        self._gateway.figures.count(route, method, status, seconds)
        if access.isEnabledFor(logging.INFO):
            client = self._scope.get("client")
            about = {"method": method, "route": route, "status": status}
            about |= {"seconds": round(seconds, 6), "address": client[0] if client else ""}
            # The route's pattern only: a path may name people, a query may hold what is secret.
            access.info("answered", extra=about)
        if self._span is not None:
            self._span.update_name(f"{method} {route}")
            self._span.set_attributes({"http.route": route, "http.response.status_code": status})
            if status >= 500:
                self._span.set_status(trace.StatusCode.ERROR)

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


def _request_id(scope: Scope) -> str:
    """Return the caller's own id of the request if it is a plain one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return uuid.uuid4().hex


def _span(scope: Scope) -> Any:
    """Return a span of the request that joins the caller's trace.

    Nothing without OpenTelemetry, nor where other instrumentation has begun one.
    """
    if trace is None or trace.get_current_span().get_span_context().is_valid:
        return nullcontext()
    from opentelemetry.propagate import extract  # noqa: PLC0415 - an extra

    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return trace.get_tracer("apns_live").start_as_current_span(
        scope["method"],
        extract(headers),
        kind=trace.SpanKind.SERVER,
        attributes={"http.request.method": scope["method"], "url.scheme": scope["scheme"]},
    )


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
