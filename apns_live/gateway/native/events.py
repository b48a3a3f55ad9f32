"""Server-sent events: changes of an operation or an activity."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from ...activities.read.watch import Followed
from ...errors import Busy
from ..calls import Call
from ..context import Gateway
from ..reach import check_activity
from .answers import shown_times
from .face import Routes

routes = Routes("events")
EVENT_STREAM = "text/event-stream"
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@routes(
    "GET /v1/operations/{operation}/events",
    "Follow an operation",
    scope="operations:read",
    answer=str,
    media=EVENT_STREAM,
    grouped=True,
)
async def follow_operation(call: Call, operation: str) -> Response:
    """Sends ``progress`` events with the newest counts. ``done`` closes the stream."""
    found = await call.service.operations.get(call.app, operation)
    await check_activity(call.gateway, call.key, found["activity"] or "")
    events = call.service.watch(call.app, operation=found["id"])
    return _stream(call, events, "progress", "done")


@routes(
    "GET /v1/activities/{activity}/events",
    "Follow an activity",
    scope="activities:read",
    answer=str,
    media=EVENT_STREAM,
    grouped=True,
)
async def follow_activity(call: Call, activity: str) -> Response:
    """Sends ``activity`` events with the newest state and counts. ``ended`` closes the stream."""
    await call.service.activities.get(call.app, activity)
    events = call.service.watch(call.app, activity=activity)
    return _stream(call, events, "activity", "ended")


def _stream(call: Call, events: AsyncIterator[Followed], name: str, last: str) -> Response:
    gateway = call.gateway
    if call.scope["method"] == "HEAD":
        # Nothing may follow, and what follows here has no end.
        return Response(media_type=EVENT_STREAM, headers=_HEADERS)
    most, app = gateway.settings.events, call.app.row
    # An app leaves a quarter to the others.
    if gateway.followers.total() >= most or gateway.followers[app] >= (most + 1) * 3 // 4:
        raise Busy(f"{gateway.followers.total()} streams of events are open", retry_after=5.0)
    gateway.followers[app] += 1
    given = call.header(b"last-event-id")
    after = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0
    numbers = numbers_of(after, call.service.clock.time)
    text = _write(events, name, last, gateway.settings.heartbeat, numbers)
    return _Following(text, gateway, app)


class _Following(StreamingResponse):
    """Releases its slot at the end, also if it never began."""

    def __init__(self, text: AsyncIterator[bytes], gateway: Gateway, app: int) -> None:
        super().__init__(text, media_type=EVENT_STREAM, headers=_HEADERS)
        self._gateway = gateway
        self._app = app

    async def __call__(self, *arguments: Any) -> None:
        try:
            await super().__call__(*arguments)
        finally:
            self._gateway.followers[self._app] -= 1
            self._gateway.followers += Counter()  # drops what is zero


def numbers_of(after: int, now: Callable[[], float]) -> Iterator[int]:
    """Give growing ids, also beyond those that another replica gave: milliseconds since 1970."""
    while True:
        after = max(after + 1, int(now() * 1000))
        yield after


async def _write(
    events: AsyncIterator[Followed], name: str, last: str, heartbeat: float, numbers: Iterator[int]
) -> AsyncIterator[bytes]:
    """Write events as text; a comment line now and then shows that the connection lives."""
    coming: asyncio.Task[Followed] | None = None
    try:
        yield b"retry: 2000\n\n"
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({coming}, timeout=heartbeat)
            if not done:
                yield b": still here\n\n"
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                break
            finally:
                coming = None
            data = msgspec.json.encode(shown_times(event)).decode()
            yield f"event: {name}\nid: {next(numbers)}\ndata: {data}\n\n".encode()
        yield f"event: {last}\ndata: {{}}\n\n".encode()
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
