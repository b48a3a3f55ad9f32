"""The outermost layer: request ids, timing, traces, counters, and errors for bugs.

It is plain ASGI, because every request passes it. It handles requests of the APIs without the
framework, whose routing and middleware cost more than an update itself.
"""

import asyncio
import logging
import random
import re
from contextlib import nullcontext
from typing import Any

from starlette._utils import get_route_path
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..activities.logs import ACCESS
from ..activities.observed import CALL, Call, trace
from ..errors import BadBody, Busy, GatewayError
from .admission import Visit
from .calls import Paths
from .context import Gateway
from .logs import Seldom

logger = logging.getLogger("apns_live.gateway")
access = logging.getLogger(ACCESS)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")

_OTHER = "other"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_late = Seldom(logger, "calls were given up at their deadline")


class Guard:
    """Serves the operations of every API, and passes other paths to the app.

    A call that takes too long gets 503. A body that does not arrive in time gets 408.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway, paths: Paths) -> None:
        self._app = app
        self.gateway = gateway
        self.paths = paths
        if trace is not None:
            trace.get_tracer_provider()  # loads the provider that the environment names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            call = Call(_request_id(scope))
            CALL.set(call)
            with _span(scope) as span:
                await _Request(self, scope, receive, send, call.request_id, span).serve(self._app)


class _Request:
    """One request and its answer. After the time limit the guard answers in place of the operation."""

    def __init__(
        self, guard: Guard, scope: Scope, receive: Receive, send: Send, request_id: str, span: Any
    ) -> None:
        gateway, self._paths = guard.gateway, guard.paths
        self._answers = gateway.answers
        self._scope = scope
        self._send = send
        self._task = asyncio.current_task()
        self._refusal: asyncio.Task[None] | None = None
        self._started = False
        self._ended = False
        self._request_id = request_id
        self._span = span
        self._began = asyncio.get_running_loop().time()
        self._visit = Visit(gateway.admission, scope, receive, self._expire)
        self._path = get_route_path(scope)
        self._call = None
        if (operation := self._paths.find(scope, self._path)) is not None:
            self._call = operation.face.call(gateway, operation, scope, self._visit)

    async def serve(self, app: ASGIApp) -> None:
        """Run the operation, or the wrapped app."""
        try:
            try:
                if (call := self._call) is None:
                    await app(self._scope, self._visit.receive, self._answer)
                else:
                    answer = await call.operation.serve(call)
                    if call.said:
                        answer.headers.update(call.said)
                    await answer(self._scope, self._visit.receive, self._answer)
            finally:
                self._visit.end()
        except asyncio.CancelledError:
            if self._refusal is None or self._task is None or self._task.uncancel() > 0:
                raise
        except Exception as error:
            if self._refusal is None:
                answer = self._refused(error)
                if self._started:
                    raise
                await answer(self._scope, self._visit.receive, self._answer)
        finally:
            self._ended = True
            if self._refusal is not None:
                await self._refusal

    def _refused(self, error: Exception) -> Response:
        """Return an error in the format of the API that was called. Log a defect."""
        if (call := self._call) is None:
            answer = self._paths.refuse(self._scope, self._path, error)
        else:
            answer = call.operation.face.refuse(error)
            answer.headers.update(call.said)
        if answer.status_code == 500 and not isinstance(error, GatewayError):
            # Log the route's pattern only. Path, query and headers may contain secrets.
            logger.error("%s %s failed", self._scope["method"], _route(self._scope), exc_info=error)
        return answer

    async def _answer(self, message: Message) -> None:
        if self._refusal is not None:
            return
        if message["type"] == "http.response.start":
            self._started = True
            if any(one[1].startswith(b"text/event-stream") for one in message["headers"]):
                # Event streams have their own limit. They do not occupy slots of other calls.
                self._visit.end()
            self._begin(message)
        await self._send(message)

    def _begin(self, message: Message) -> None:
        request_id = (b"x-request-id", self._request_id.encode())
        message["headers"] = [*message.get("headers", ()), *_HEADERS, request_id]
        route, method, status = _route(self._scope), self._scope["method"], message["status"]
        seconds = asyncio.get_running_loop().time() - self._began
        self._answers.add(route, method, status, seconds)
        if access.isEnabledFor(logging.INFO):
            about = {"method": method, "route": route, "status": status}
            about |= {"seconds": round(seconds, 6), "address": self._visit.address}
            # Log the route's pattern only. A path may name people, and a query may contain secrets.
            access.info("answered", extra=about)
        if self._span is not None:
            self._span.update_name(f"{method} {route}")
            self._span.set_attributes({"http.route": route, "http.response.status_code": status})
            if status >= 500:
                self._span.set_status(trace.StatusCode.ERROR)

    def _expire(self) -> None:
        error: Exception = BadBody("the body did not come in time", status=408)
        if not self._visit.reading:
            _late.say(_route(self._scope))
            error = Busy("the call took longer than it may", retry_after=5.0)
        self._refusal = asyncio.get_running_loop().create_task(self._refuse_late(error))

    async def _refuse_late(self, error: Exception) -> None:
        """Answer first, then cancel the operation, which may ignore the cancellation for a while."""

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._begin(message)
            await self._send(message)

        if not self._started:
            await self._refused(error)(self._scope, self._visit.receive, send)
        if not self._ended and self._task is not None:
            self._task.cancel()


def _request_id(scope: Scope) -> str:
    """Return the caller's request id if it has only safe characters, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return f"{random.getrandbits(128):032x}"


def _span(scope: Scope) -> Any:
    """Return a span of the request in the caller's trace, or none if tracing is off or done already."""
    if (
        trace is None
        # No tracer provider is set. The public getter would read the environment for every request.
        or getattr(trace, "_TRACER_PROVIDER", trace) is None
        or trace.get_current_span().get_span_context().is_valid
    ):
        return nullcontext()
    from opentelemetry.propagate import extract  # noqa: PLC0415 - an extra

    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return trace.get_tracer("apns_live").start_as_current_span(
        scope["method"],
        extract(headers),
        kind=trace.SpanKind.SERVER,
        attributes={"http.request.method": scope["method"], "url.scheme": scope["scheme"]},
    )


def _route(scope: Scope) -> str:
    """Return the route's pattern, never the path: labels of metrics must be few."""
    path = scope.get("apns_live.route") or getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else _OTHER
