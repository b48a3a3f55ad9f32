"""Operations with their outcomes on every device, receipts from the app, and server-sent events."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict
from starlette.responses import Response, StreamingResponse

from ...activities.accept.receipts import Event, ReceiptRecord, ReceiptView
from ...activities.read.operations import Followed, OperationView, OutcomeView
from ..calls import Call
from ..reach import check_activity
from . import shapes
from .face import Routes
from .shapes import CountAnswer, Page, PageAnswer, Strict, milliseconds_of, page, shown_times

EVENT_STREAM = "text/event-stream"
reads = Routes("operations", scope="operations:read")
events = Routes("events", answer=str, media=EVENT_STREAM, grouped=True)
JSON_LINES = "application/x-ndjson"


class PhoneReceiptBody(Strict, frozen=True, kw_only=True):
    """One report: about an activity, or about an operation (a notification).

    ``card`` is the card's own id, ActivityKit's ``Activity.id``: of two cards of an activity, one may be gone.
    """

    event: Event
    activity: str | None = None
    card: str | None = None
    operation: str | None = None
    at: shapes.Moment | None = None

    def record(self, device: str, index: int) -> ReceiptRecord:
        """Return the record of the service. Raises `InvalidInput`."""
        at = milliseconds_of(self.at, f"receipts[{index}].at")
        return ReceiptRecord(**{**asdict(self), "device": device, "at": at})


class ReceiptBody(PhoneReceiptBody, frozen=True, kw_only=True):
    """A report of a device."""

    device: str


class ReceiptsBody(Strict, frozen=True, kw_only=True):
    """Reports of devices."""

    receipts: Annotated[list[ReceiptBody], Meta(min_length=1, max_length=1_000)]


class OperationsPage(Page, frozen=True, kw_only=True):
    """A page of operations."""

    activity: str | None = None


class ReceiptsPage(Page, frozen=True, kw_only=True):
    """A page of receipts."""

    activity: str | None = None
    operation: str | None = None


class OutcomesPage(Page, frozen=True, kw_only=True):
    """A page of outcomes."""

    format: Literal["json"] = "json"


@reads("GET /v1/operations", "List operations", refusals={404})
async def list_operations(call: Call, query: OperationsPage) -> PageAnswer[OperationView]:
    """Oldest first, of one activity or of the app."""
    return await page(call.service.operations.page, call.app, query)


@reads("GET /v1/operations/{operation}", "Get an operation", grouped=True)
async def get_operation(call: Call) -> OperationView:
    """An operation with its counts."""
    return shown_times(await _operation(call))


@reads("GET /v1/operations/{operation}/outcomes", "List the outcome on each device", grouped=True)
async def list_outcomes(call: Call, query: OutcomesPage) -> PageAnswer[OutcomeView]:
    """In the order in which APNs answered."""
    operation = (await _operation(call))["id"]
    where = Page(after=query.after, limit=query.limit)
    return await page(call.service.operations.outcomes, call.app, where, public_id=operation)


@reads(
    "GET /v1/operations/{operation}/outcomes.jsonl",
    "Stream all outcomes as JSON Lines",
    answer=OutcomeView,
    media=JSON_LINES,
    grouped=True,
)
async def export_outcomes(call: Call) -> StreamingResponse:
    """All outcomes as JSON Lines, streamed."""
    outcomes = call.service.operations.export(call.app, (await _operation(call))["id"])

    async def lines() -> AsyncIterator[bytes]:
        kept: list[object] = []
        async for outcome in outcomes:
            kept.append(shown_times(outcome))
            if len(kept) == 200:
                yield msgspec.json.Encoder().encode_lines(kept)
                kept.clear()
        if kept:
            yield msgspec.json.Encoder().encode_lines(kept)

    return StreamingResponse(lines(), media_type=JSON_LINES)


@reads("GET /v1/receipts", "List receipts", refusals={404})
async def list_receipts(call: Call, query: ReceiptsPage) -> PageAnswer[ReceiptView]:
    """Oldest first, of one activity, of one operation or of the app."""
    return await page(call.service.receipts.page, call.app, query)


@reads("POST /v1/receipts", "Hand in receipts that devices reported", scope="devices:write")
async def add_receipts(call: Call, body: ReceiptsBody) -> CountAnswer:
    """For receipts that your own server collects. Phones use /v1/device/receipts."""
    records = [one.record(one.device, index) for index, one in enumerate(body.receipts)]
    return CountAnswer(count=await call.service.receipts.record(call.app, records))


async def _operation(call: Call) -> OperationView:
    found = await call.service.operations.get(call.app, call.parts["operation"])
    await check_activity(call.gateway, call.key, found["activity"] or "")
    return found


_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


@events("GET /v1/operations/{operation}/events", "Follow an operation", scope="operations:read")
async def follow_operation(call: Call) -> Response:
    """Sends ``progress`` events with the newest counts. ``done`` closes the stream."""
    events = call.service.watch(call.app, operation=(await _operation(call))["id"])
    return _stream(call, events, "progress", "done")


@events("GET /v1/activities/{activity}/events", "Follow an activity", scope="activities:read")
async def follow_activity(call: Call, activity: str) -> Response:
    """Sends ``activity`` events with the newest state and counts. ``ended`` closes the stream."""
    await call.service.activities.get(call.app, activity)
    events = call.service.watch(call.app, activity=activity)
    return _stream(call, events, "activity", "ended")


def _stream(call: Call, events: AsyncIterator[Followed], name: str, last: str) -> Response:
    gateway = call.gateway
    if call.scope["method"] == "HEAD":
        # The answer to HEAD has no body, and this stream would never end.
        return Response(media_type=EVENT_STREAM, headers=_HEADERS)
    most, held = gateway.settings.events, ExitStack()
    share, what = (most + 1) * 3 // 4, "streams of events are open"
    held.enter_context(gateway.place(gateway.followers, call.app.row, most, share, what))
    given = call.header(b"last-event-id")
    after = int(given) if given.isascii() and given.isdigit() and len(given) < 16 else 0
    numbers = numbers_of(after, call.service.clock.time)
    return _Following(_write(events, name, last, gateway.settings.heartbeat, numbers), held)


class _Following(StreamingResponse):
    """A response that releases its place when it ends, even if it was never started."""

    def __init__(self, text: AsyncIterator[bytes], held: ExitStack) -> None:
        super().__init__(text, media_type=EVENT_STREAM, headers=_HEADERS)
        self._held = held

    async def __call__(self, *arguments: Any) -> None:
        with self._held:
            await super().__call__(*arguments)


def numbers_of(after: int, now: Callable[[], float]) -> Iterator[int]:
    """Yield growing ids: milliseconds since 1970, so that they also exceed those of other replicas."""
    while True:
        after = max(after + 1, int(now() * 1000))
        yield after


async def _write(
    events: AsyncIterator[Followed], name: str, last: str, heartbeat: float, numbers: Iterator[int]
) -> AsyncIterator[bytes]:
    """Write events as text. A comment line at each heartbeat shows that the connection works."""
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
        if (close := getattr(events, "aclose", None)) is not None:
            await close()
