"""Operations: what was accepted, what became of it on every device; receipts from the app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.responses import StreamingResponse

from ...activities.accept.receipts import Event, ReceiptRecord
from ...activities.read.views import OperationView
from ..reach import check_activity
from .answers import CountAnswer, PageAnswer, Time, page
from .api import Call, Routes
from .shapes import Moment, OperationsPage, Page, ReceiptsPage, Strict, seconds, shown_times

routes = Routes("operations")
JSON_LINES = "application/x-ndjson"


class OperationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted request, and the counts of what became of it.

    ``status``: scheduled, accepted, running, done, superseded or failed (see ``reason``).
    ``queued`` devices get the state when they hand in a token; ``missing`` handed in none in time.
    """

    row: int
    id: str
    kind: str
    activity: str | None
    version: int | None
    status: str
    reason: str | None
    caller: str
    dialect: str
    targeted: int
    accepted: int
    queued: int
    failed: int
    missing: int
    users: int
    created_at: Time
    finished_at: Time | None


class OutcomeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What APNs said to the push to one device. ``accepted`` is not ``shown``: APNs cannot know."""

    row: int
    device: str | None
    verdict: str
    status: int
    reason: str
    apns_id: str
    priority: int
    created_at: Time


class ReceiptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an app reported."""

    row: int
    device: str
    event: str
    activity: str | None
    operation: str | None
    created_at: Time


class ReceiptBody(Strict, frozen=True, kw_only=True):
    """One report: about an activity, or about an operation (a notification)."""

    device: str
    event: Event
    activity: str | None = None
    operation: str | None = None
    at: Moment | None = None


class ReceiptsBody(Strict, frozen=True, kw_only=True):
    """Reports of devices."""

    receipts: Annotated[list[ReceiptBody], Meta(min_length=1, max_length=1_000)]


class OutcomesPage(Page, frozen=True, kw_only=True):
    """A page of outcomes."""

    format: Literal["json"] = "json"


@routes(
    "GET",
    "/v1/operations",
    "List operations",
    scope="operations:read",
    query=OperationsPage,
    answers={200: PageAnswer[OperationAnswer]},
    refusals=frozenset({404}),
)
async def list_operations(call: Call) -> dict[str, Any]:
    """The oldest first; of one activity, or of the whole app."""
    query: OperationsPage = call.query
    found = await call.service.operations.page(
        call.app, activity=query.activity, after=query.after, limit=query.limit
    )
    return page([shown_times(one) for one in found], query.limit)


@routes(
    "GET",
    "/v1/operations/{operation}",
    "Get an operation",
    scope="operations:read",
    answers={200: OperationAnswer},
    grouped=True,
    refusals=frozenset({404}),
)
async def get_operation(call: Call) -> dict[str, Any]:
    """With its counts."""
    return shown_times(await _operation(call))


@routes(
    "GET",
    "/v1/operations/{operation}/outcomes",
    "List the outcome on each device",
    scope="operations:read",
    query=OutcomesPage,
    answers={200: PageAnswer[OutcomeAnswer]},
    grouped=True,
    refusals=frozenset({404}),
)
async def list_outcomes(call: Call) -> dict[str, Any]:
    """In the order in which APNs answered."""
    query: OutcomesPage = call.query
    operation = (await _operation(call))["id"]
    found = await call.service.operations.outcomes(
        call.app, operation, after=query.after, limit=query.limit
    )
    return page([shown_times(one) for one in found], query.limit)


@routes(
    "GET",
    "/v1/operations/{operation}/outcomes.jsonl",
    "Stream all outcomes as JSON Lines",
    scope="operations:read",
    answers={200: OutcomeAnswer},
    media=JSON_LINES,
    grouped=True,
    refusals=frozenset({404}),
)
async def export_outcomes(call: Call) -> StreamingResponse:
    """One outcome a line, however many there are; nothing is held but a page."""
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


@routes(
    "GET",
    "/v1/receipts",
    "List receipts",
    scope="operations:read",
    query=ReceiptsPage,
    answers={200: PageAnswer[ReceiptAnswer]},
    refusals=frozenset({404}),
)
async def list_receipts(call: Call) -> dict[str, Any]:
    """The oldest first; of one activity, of one operation, or of the whole app."""
    query: ReceiptsPage = call.query
    found = await call.service.receipts.page(
        call.app,
        activity=query.activity,
        operation=query.operation,
        after=query.after,
        limit=query.limit,
    )
    return page([shown_times(one) for one in found], query.limit)


@routes(
    "POST",
    "/v1/receipts",
    "Hand in receipts that devices reported",
    scope="devices:write",
    body=ReceiptsBody,
    answers={200: CountAnswer},
)
async def add_receipts(call: Call) -> CountAnswer:
    """For a team whose own server collects them; phones use /v1/device/receipts."""
    body: ReceiptsBody = call.body
    records = [
        ReceiptRecord(
            device=one.device,
            event=one.event,
            activity=one.activity,
            operation=one.operation,
            at=_milliseconds(one.at, f"receipts[{index}].at"),
        )
        for index, one in enumerate(body.receipts)
    ]
    return CountAnswer(count=await call.service.receipts.record(call.app, records))


async def _operation(call: Call) -> OperationView:
    found = await call.service.operations.get(call.app, call.part("operation"))
    if call.caller.groups is not None:
        await check_activity(call.gateway, call.caller, found["activity"] or "")
    return found


def _milliseconds(value: Any, field: str) -> int | None:
    moment = seconds(value, field)
    return None if moment is None else int(moment * 1000)
