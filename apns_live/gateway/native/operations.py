"""Operations with their outcomes on every device; receipts from the app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict
from starlette.responses import StreamingResponse

from ...activities.accept.receipts import Event, ReceiptRecord, ReceiptView
from ...activities.read.views import OperationView, OutcomeView
from ..calls import Call
from ..reach import check_activity
from .answers import CountAnswer, PageAnswer, page, shown_times
from .face import Routes
from .shapes import Moment, OperationsPage, Page, ReceiptsPage, Strict, milliseconds_of

routes = Routes("operations", scope="operations:read")
JSON_LINES = "application/x-ndjson"


class PhoneReceiptBody(Strict, frozen=True, kw_only=True):
    """One report: about an activity, or about an operation (a notification).

    ``card`` is the card's own id, ActivityKit's ``Activity.id``: of two cards of an activity, one may be gone.
    """

    event: Event
    activity: str | None = None
    card: str | None = None
    operation: str | None = None
    at: Moment | None = None

    def record(self, device: str, index: int) -> ReceiptRecord:
        """Return the record of the service. Raises `InvalidInput`."""
        return ReceiptRecord(
            device=device,
            event=self.event,
            activity=self.activity,
            operation=self.operation,
            at=milliseconds_of(self.at, f"receipts[{index}].at"),
            card=self.card,
        )


class ReceiptBody(PhoneReceiptBody, frozen=True, kw_only=True):
    """A report of a device."""

    device: str


class ReceiptsBody(Strict, frozen=True, kw_only=True):
    """Reports of devices."""

    receipts: Annotated[list[ReceiptBody], Meta(min_length=1, max_length=1_000)]


class OutcomesPage(Page, frozen=True, kw_only=True):
    """A page of outcomes."""

    format: Literal["json"] = "json"


@routes("GET /v1/operations", "List operations", refusals={404})
async def list_operations(call: Call, query: OperationsPage) -> PageAnswer[OperationView]:
    """Oldest first, of one activity or of the app."""
    found = await call.service.operations.page(call.app, **asdict(query))
    return page(found, query.limit)


@routes("GET /v1/operations/{operation}", "Get an operation", grouped=True)
async def get_operation(call: Call) -> OperationView:
    """An operation with its counts."""
    return shown_times(await _operation(call))


@routes("GET /v1/operations/{operation}/outcomes", "List the outcome on each device", grouped=True)
async def list_outcomes(call: Call, query: OutcomesPage) -> PageAnswer[OutcomeView]:
    """In the order in which APNs answered."""
    operation = (await _operation(call))["id"]
    place = {"after": query.after, "limit": query.limit}
    found = await call.service.operations.outcomes(call.app, operation, **place)
    return page(found, query.limit)


@routes(
    "GET /v1/operations/{operation}/outcomes.jsonl",
    "Stream all outcomes as JSON Lines",
    answer=OutcomeView,
    media=JSON_LINES,
    grouped=True,
)
async def export_outcomes(call: Call) -> StreamingResponse:
    """All outcomes as JSON Lines, streamed."""
    operation = (await _operation(call))["id"]
    outcomes = call.service.operations.export(call.app, operation)

    async def lines() -> AsyncIterator[bytes]:
        kept: list[bytes] = []
        async for outcome in outcomes:
            kept.append(msgspec.json.encode(shown_times(outcome)))
            if len(kept) == 200:
                yield b"\n".join(kept) + b"\n"
                kept.clear()
        if kept:
            yield b"\n".join(kept) + b"\n"

    return StreamingResponse(lines(), media_type=JSON_LINES)


@routes("GET /v1/receipts", "List receipts", refusals={404})
async def list_receipts(call: Call, query: ReceiptsPage) -> PageAnswer[ReceiptView]:
    """Oldest first, of one activity, of one operation or of the app."""
    found = await call.service.receipts.page(call.app, **asdict(query))
    return page(found, query.limit)


@routes("POST /v1/receipts", "Hand in receipts that devices reported", scope="devices:write")
async def add_receipts(call: Call, body: ReceiptsBody) -> CountAnswer:
    """For receipts that your own server collects. Phones use /v1/device/receipts."""
    records = [one.record(one.device, index) for index, one in enumerate(body.receipts)]
    return CountAnswer(count=await call.service.receipts.record(call.app, records))


async def _operation(call: Call) -> OperationView:
    found = await call.service.operations.get(call.app, call.part("operation"))
    await check_activity(call.gateway, call.key, found["activity"] or "")
    return found
