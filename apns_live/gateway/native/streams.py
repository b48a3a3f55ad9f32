"""Streams: the caller puts a state, and the service starts, updates or renews the activity."""

from __future__ import annotations

import msgspec
from msgspec.structs import asdict

from ...activities.accept.idempotency import Once
from ...activities.accept.streams import Streamed
from ...activities.times import to_text
from ..calls import Call
from ..reach import check_audience
from .answers import StreamAnswer, Time
from .face import Routes
from .shapes import EndBody, StreamBody, to_end, to_start

routes = Routes("streams", scope="streams:write")


class PausedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that starts no activity until it is resumed."""

    key: str
    paused_at: Time


@routes("PUT /v1/streams/{stream}", "Put a state", idempotent=True, grouped=True)
async def put_stream(call: Call, stream: str, body: StreamBody) -> StreamAnswer:
    """Starts or updates the activity of the stream.

    ``result`` is ``started``, ``updated``, ``rotated`` (a new activity replaced the old one),
    ``noop`` (the state is the same; nothing is sent) or ``paused``.
    """
    check_audience(call.key, body.audience)
    done = await call.service.streams.put(call.app, to_start(body, stream=stream), key=call.once())
    return _answer(call, done)


@routes("DELETE /v1/streams/{stream}", "End a stream", idempotent=True, grouped=True)
async def end_stream(call: Call, stream: str, body: EndBody | None) -> StreamAnswer:
    """Ends the activity and deletes the key. A later put starts a new activity."""
    final = to_end(stream, body)
    return _answer(call, await call.service.streams.end(call.app, stream, final, key=call.once()))


@routes("POST /v1/streams/{stream}/pause", "Pause a stream", grouped=True)
async def pause_stream(call: Call, stream: str, body: EndBody | None) -> PausedAnswer:
    """Ends the activity. Puts get ``paused`` until the stream is resumed."""
    final = to_end(stream, body, reason="paused")
    since = await call.service.streams.pause(call.app, stream, final)
    return PausedAnswer(key=stream, paused_at=to_text(since) or "")


@routes("POST /v1/streams/{stream}/resume", "Resume a stream", grouped=True)
async def resume_stream(call: Call, stream: str) -> None:
    """The next put starts an activity."""
    await call.service.streams.resume(call.app, stream)


def _answer(call: Call, done: Once[Streamed]) -> StreamAnswer:
    said = asdict(call.told(done))
    said["result"], said["operation"] = said["operation"], said.pop("id")
    return StreamAnswer(**said)
