"""Activities: start, update, end, get, list, history, bulk."""

from __future__ import annotations

import asyncio

from msgspec.structs import asdict

from ...activities.accept.idempotency import Key
from ...activities.checks import at_most
from ...activities.read.views import ActivityCounts, ActivityRow, OperationView
from ...activities.requests import Accepted
from ..calls import Call
from ..problems import classify
from ..reach import check_activity, check_audience
from . import shapes
from .answers import BulkAnswer, BulkItem, PageAnswer, page, shown_times
from .face import Routes

routes = Routes("activities", scope="activities:read")
_ACCEPTED = {"status": 202, "idempotent": True, "grouped": True, "refusals": {409}}
"""Of a write that is done after its answer."""
_SCOPES = {
    shapes.BulkStart: "activities:start",
    shapes.BulkUpdate: "activities:update",
    shapes.BulkEnd: "activities:end",
}


@routes(
    "POST /v1/activities/{activity}/update",
    "Give an activity a new state",
    scope="activities:update",
    **_ACCEPTED,
)
async def update_activity(call: Call, activity: str, body: shapes.UpdateBody) -> Accepted:
    """Devices with an activity token get the state now, the others when they register one.

    If states come faster than they can be sent, a device gets only the newest.
    """
    request = shapes.to_update(activity, body)
    return call.told(await call.service.activities.update(call.app, request, key=call.once()))


@routes(
    "POST /v1/activities/{activity}/end", "End an activity", scope="activities:end", **_ACCEPTED
)
async def end_activity(call: Call, activity: str, body: shapes.EndBody | None) -> Accepted:
    """Without a body the card keeps its last state. Ending it again is ``ignored``."""
    request = shapes.to_end(activity, body)
    return call.told(await call.service.activities.end(call.app, request, key=call.once()))


@routes("POST /v1/activities", "Start an activity", scope="activities:start", **_ACCEPTED)
async def start_activity(call: Call, body: shapes.StartBody) -> Accepted:
    """Sends a start to every device of the audience that has a push-to-start token of the type.

    The app must have registered its token with this gateway.
    """
    check_audience(call.key, body.audience)
    request = shapes.to_start(body)
    return call.told(await call.service.activities.start(call.app, request, key=call.once()))


@routes(
    "POST /v1/activities/bulk",
    "Start, update and end many",
    scope="",
    idempotent=True,
    grouped=True,
    refusals={403},
)
async def bulk(call: Call, body: shapes.BulkBody) -> BulkAnswer:
    """Each item is accepted or refused by itself.

    Items stand in ``do`` (``start``, ``update``, ``end``) and are not ordered among each other. An
    idempotency key applies to each item by its position.
    """
    at_most(len(body.items), call.gateway.settings.bulk, "items", "items")
    once = call.once()
    done = await asyncio.gather(
        *(_one(call, index, item, once) for index, item in enumerate(body.items))
    )
    refused = sum(item.problem is not None for item in done)
    return BulkAnswer(items=list(done), accepted=len(done) - refused, refused=refused)


async def _one(
    call: Call,
    index: int,
    item: shapes.BulkStart | shapes.BulkUpdate | shapes.BulkEnd,
    once: Key | None,
) -> BulkItem:
    key = None if once is None else Key(caller=once.caller, key=f"{once.key[:240]}#{index}")
    activities, app = call.service.activities, call.app
    try:
        call.need(_SCOPES[type(item)])
        match item:
            case shapes.BulkStart():
                check_audience(call.key, item.audience)
                done = await activities.start(app, shapes.to_start(item), key=key)
            case shapes.BulkUpdate():
                await check_activity(call.gateway, call.key, item.id)
                done = await activities.update(app, shapes.to_update(item.id, item), key=key)
            case shapes.BulkEnd():
                await check_activity(call.gateway, call.key, item.id)
                done = await activities.end(app, shapes.to_end(item.id, item), key=key)
    except Exception as error:
        found = classify(error)
        if found.status == 500:
            raise
        return BulkItem(index=index, problem=found)
    return BulkItem(index=index, accepted=done.answer)


@routes("GET /v1/activities", "List activities")
async def list_activities(call: Call, query: shapes.ActivitiesPage) -> PageAnswer[ActivityRow]:
    """Oldest first."""
    found = await call.service.activities.page(call.app, **asdict(query))
    return page(found, query.limit)


@routes("GET /v1/activities/{activity}", "Get an activity", grouped=True)
async def get_activity(call: Call, activity: str) -> ActivityCounts:
    """With the number of devices that follow it, and of those without an activity token yet."""
    return shown_times(await call.service.activities.get(call.app, activity))


@routes("GET /v1/activities/{activity}/history", "List what was asked of an activity", grouped=True)
async def activity_history(
    call: Call, activity: str, query: shapes.Page
) -> PageAnswer[OperationView]:
    """The operations of the activity with their counts, oldest first."""
    found = await call.service.operations.page(call.app, activity=activity, **asdict(query))
    return page(found, query.limit)
