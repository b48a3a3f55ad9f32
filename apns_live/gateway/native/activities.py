"""Activities and streams: start, update, end, pause, list, history, bulk."""

import asyncio

import msgspec
from msgspec.structs import asdict

from ...activities.accept.idempotency import Key, Once
from ...activities.accept.streams import Streamed
from ...activities.checks import at_most
from ...activities.people.records import FollowerView, StreamView
from ...activities.read.operations import ActivityCounts, ActivityRow, OperationView
from ...activities.requests import Accepted
from ...activities.times import to_text
from ...errors import NotFound
from ..calls import Call
from ..problems import problem_of
from ..reach import check_activity, check_audience
from . import shapes
from .face import Routes
from .shapes import PageAnswer, TextPage, TextPageAnswer, Time, page, shown_times, text_page

reads = Routes("activities", scope="activities:read")
lists = Routes("directory", scope="activities:read")
writes = Routes("activities", status=202, idempotent=True, grouped=True, refusals={409})
streams = Routes("streams", scope="streams:write", grouped=True)
_END = shapes.EndBody()
_SCOPES = {
    shapes.BulkStart: "activities:start",
    shapes.BulkUpdate: "activities:update",
    shapes.BulkEnd: "activities:end",
}


@writes(
    "POST /v1/activities/{activity}/update",
    "Give an activity a new state",
    scope="activities:update",
)
async def update_activity(call: Call, activity: str, body: shapes.UpdateBody) -> Accepted:
    """Devices with an activity token get the state now, the others when they register one.

    If states come faster than they can be sent, a device gets only the newest.
    """
    request = shapes.to_update(activity, body)
    return call.told(await call.service.activities.update(call.app, request, key=call.once()))


@writes("POST /v1/activities/{activity}/end", "End an activity", scope="activities:end")
async def end_activity(call: Call, activity: str, body: shapes.EndBody = _END) -> Accepted:
    """Without a body the card keeps its last state. Ending it again is ``ignored``."""
    request = shapes.to_end(activity, body)
    return call.told(await call.service.activities.end(call.app, request, key=call.once()))


@writes("POST /v1/activities", "Start an activity", scope="activities:start")
async def start_activity(call: Call, body: shapes.StartBody) -> Accepted:
    """Sends a start to every device of the audience that has a push-to-start token of the type.

    The app must have registered its token with this gateway.
    """
    check_audience(call.key, body.audience)
    request = shapes.to_start(body)
    return call.told(await call.service.activities.start(call.app, request, key=call.once()))


@writes("POST /v1/activities/bulk", "Start, update and end many", status=200, refusals={403})
async def bulk(call: Call, body: shapes.BulkBody) -> shapes.BulkAnswer:
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
    return shapes.BulkAnswer(items=list(done), accepted=len(done) - refused, refused=refused)


async def _one(
    call: Call,
    index: int,
    item: shapes.BulkStart | shapes.BulkUpdate | shapes.BulkEnd,
    once: Key | None,
) -> shapes.BulkItem:
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
        if (found := problem_of(error)).status == 500:
            raise
        return shapes.BulkItem(index=index, problem=found)
    return shapes.BulkItem(index=index, accepted=done.answer)


@reads("GET /v1/activities", "List activities")
async def list_activities(call: Call, query: shapes.ActivitiesPage) -> PageAnswer[ActivityRow]:
    """Oldest first."""
    return await page(call.service.activities.page, call.app, query)


@reads("GET /v1/activities/{activity}", "Get an activity", grouped=True)
async def get_activity(call: Call, activity: str) -> ActivityCounts:
    """With the number of devices that follow it, and of those without an activity token yet."""
    return shown_times(await call.service.activities.get(call.app, activity))


@reads("GET /v1/activities/{activity}/history", "List what was asked of an activity", grouped=True)
async def activity_history(
    call: Call, activity: str, query: shapes.Page
) -> PageAnswer[OperationView]:
    """The operations of the activity with their counts, oldest first."""
    return await page(call.service.operations.page, call.app, query, activity=activity)


class PausedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that starts no activity until it is resumed."""

    key: str
    paused_at: Time


@streams("PUT /v1/streams/{stream}", "Put a state", idempotent=True)
async def put_stream(call: Call, stream: str, body: shapes.StreamBody) -> shapes.StreamAnswer:
    """Starts or updates the activity of the stream.

    ``result`` is ``started``, ``updated``, ``rotated`` (a new activity replaced the old one),
    ``noop`` (the state is the same; nothing is sent) or ``paused``.
    """
    check_audience(call.key, body.audience)
    done = await call.service.streams.put(
        call.app, shapes.to_start(body, stream=stream), key=call.once()
    )
    return _answer(call, done)


@streams("DELETE /v1/streams/{stream}", "End a stream", idempotent=True)
async def end_stream(call: Call, stream: str, body: shapes.EndBody = _END) -> shapes.StreamAnswer:
    """Ends the activity and deletes the key. A later put starts a new activity."""
    final = shapes.to_end(stream, body)
    return _answer(call, await call.service.streams.end(call.app, stream, final, key=call.once()))


@streams("POST /v1/streams/{stream}/pause", "Pause a stream")
async def pause_stream(call: Call, stream: str, body: shapes.EndBody = _END) -> PausedAnswer:
    """Ends the activity. Puts get ``paused`` until the stream is resumed."""
    final = shapes.to_end(stream, body, reason="paused")
    since = await call.service.streams.pause(call.app, stream, final)
    return PausedAnswer(key=stream, paused_at=to_text(since) or "")


@streams("POST /v1/streams/{stream}/resume", "Resume a stream")
async def resume_stream(call: Call, stream: str) -> None:
    """The next put starts an activity."""
    await call.service.streams.resume(call.app, stream)


def _answer(call: Call, done: Once[Streamed]) -> shapes.StreamAnswer:
    return msgspec.convert(call.told(done), shapes.StreamAnswer, from_attributes=True)


@lists("GET /v1/streams", "List streams")
async def list_streams(call: Call, query: TextPage) -> TextPageAnswer[StreamView]:
    """Sorted by key."""
    return text_page(await call.service.directory.streams(call.app, **asdict(query)))


@lists("GET /v1/streams/{stream}", "Get a stream", grouped=True)
async def get_stream(call: Call, stream: str) -> StreamView:
    """With the id of its running activity."""
    found = await call.service.directory.stream(call.app, stream)
    if call.key.groups is not None and found["activity"] is None:
        # Without an activity the stream's audience is unknown, so a restricted key may not see it.
        raise NotFound(f"the app {call.app.id!r} has no {stream!r} within this key's groups")
    return shown_times(found)


@lists("GET /v1/activities/{activity}/devices", "List the devices of an activity", grouped=True)
async def list_followers(
    call: Call, activity: str, query: TextPage
) -> TextPageAnswer[FollowerView]:
    """The devices of an activity, with their token and the state that each has."""
    return text_page(await call.service.directory.followers(call.app, activity, **asdict(query)))
