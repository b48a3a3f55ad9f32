"""Streams: put the state, and the gateway starts, updates or renews the card behind the key."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import asdict

from ...activities.accept.idempotency import Once
from ...activities.accept.streams import Streamed
from ...activities.times import to_text
from ..reach import check_audience, check_stream
from .activities import REPLAYED
from .answers import StreamAnswer, Time
from .api import Answer, Call, Routes
from .shapes import EndBody, StreamBody, to_end, to_start

routes = Routes("streams", scope="streams:write")


class PausedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that starts nothing until it is resumed."""

    key: str
    paused_at: Time


@routes(
    "PUT",
    "/v1/streams/{stream}",
    "Put a state",
    body=StreamBody,
    answer=StreamAnswer,
    idempotent=True,
    grouped=True,
)
async def put_stream(call: Call) -> Answer:
    """The answer's ``result`` says what it came to.

    ``started``, ``updated``, ``rotated`` (a new card took the old one's place), ``noop`` (the state
    is the same; nothing is sent) or ``paused``.
    """
    body: StreamBody = call.body
    stream = call.part("stream")
    check_audience(call.caller, body.audience)
    await check_stream(call.gateway, call.caller, stream)
    done = await call.service.streams.put(call.app, to_start(body, stream=stream), key=call.once())
    return _answer(done)


@routes(
    "DELETE",
    "/v1/streams/{stream}",
    "End a stream",
    body=EndBody,
    body_required=False,
    answer=StreamAnswer,
    idempotent=True,
    grouped=True,
)
async def end_stream(call: Call) -> Answer:
    """Ends the card and forgets the key; a later put starts afresh."""
    stream = call.part("stream")
    await check_stream(call.gateway, call.caller, stream)
    final = to_end(stream, call.body)
    return _answer(await call.service.streams.end(call.app, stream, final, key=call.once()))


@routes(
    "POST",
    "/v1/streams/{stream}/pause",
    "Pause a stream",
    body=EndBody,
    body_required=False,
    answer=PausedAnswer,
    grouped=True,
)
async def pause_stream(call: Call) -> dict[str, Any]:
    """Ends the card; puts are answered with ``paused`` until the stream is resumed."""
    stream = call.part("stream")
    await check_stream(call.gateway, call.caller, stream)
    final = to_end(stream, call.body, reason="paused")
    since = await call.service.streams.pause(call.app, stream, final)
    return {"key": stream, "paused_at": to_text(since)}


@routes("POST", "/v1/streams/{stream}/resume", "Resume a stream", grouped=True)
async def resume_stream(call: Call) -> None:
    """Starts nothing by itself: the next put does."""
    stream = call.part("stream")
    await check_stream(call.gateway, call.caller, stream)
    await call.service.streams.resume(call.app, stream)


def _answer(done: Once[Streamed]) -> Answer:
    said = asdict(done.answer)
    said["result"], said["operation"] = said["operation"], said.pop("id")
    return Answer(body=StreamAnswer(**said), headers=REPLAYED if done.replayed else {})
