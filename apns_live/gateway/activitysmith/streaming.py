"""Streams by key: put, end, pause, resume."""

from __future__ import annotations

from typing import Any

from ...activities import checks
from ...activities.accept.streams import Streamed
from ...activities.requests import End, Presentation, Start, Update
from ...activities.times import to_text
from ...errors import InvalidInput
from . import requests, sending, states, store
from .answers import answered, await_result, counts, end_answer
from .dialect import DIALECT, ID_ATTRIBUTE, Call
from .refusals import STREAM_KEY, Refused
from .requests import LiveCall

_KEY_RULE = "stream_key must contain only letters, numbers, underscores, and hyphens"


async def put(call: Call, body: Any) -> dict[str, Any]:
    """Bring the activity behind a key up to a state, starting it where none runs."""
    key = _key(call)
    said = requests.stream(body, lenient=call.lenient)
    stream = await store.stream_of(call, key)
    slugs = await sending.reached(call, said.channels)
    if stream is not None and stream.running is not None:
        sending.check_within(call, stream.running, "update")
    return await put_state(call, key, stream, said, slugs)


async def put_state(
    call: Call, key: str, stream: store.Stream | None, said: LiveCall, slugs: tuple[str, ...] | None
) -> dict[str, Any]:
    """Put a state that was read to a stream, whose standing is known. Raises `Refused`."""
    if stream is not None and stream.paused:
        return _idle(call, key, "paused")
    once = call.once()
    running = None if stream is None else stream.running
    current = None
    if running is not None:
        current = running.state
    elif stream is not None and stream.card is not None:
        current = states.last_known(stream.card.state)
    state = states.complete(
        said.state or {}, phase="update", now=call.moment, current=current, steady=True
    )
    drawn = await sending.draw(call, state, said, current, f"stream:{key}")
    audience = sending.audience_of(slugs)
    tags, metadata = said.tags, said.metadata
    former = stream or store.Stream(paused=False, card=None, tags=(), metadata={})
    request = Start(
        id=sending.fresh_id(call),
        stream_key=key,
        attributes_type=call.chosen.attributes_type,
        attributes={"stream_key": key},
        id_attribute=ID_ATTRIBUTE,
        content_state=drawn,
        presentation=Presentation(alert=states.start_alert(said.alert, state)),
        audience=audience,
        tags=former.tags if tags is None else tags,
        metadata=former.metadata if metadata is None else metadata,
        dialect=DIALECT,
    )
    change = Update(
        id="",
        content_state=drawn,
        presentation=Presentation(alert=states.change_alert(said.alert, state)),
        tags=tags,
        metadata=metadata,
        dialect=DIALECT,
    )
    ended = None
    async with sending.one_start_at_a_time(call, starts=running is None):
        if not await store.was_told(call, once):
            if running is None or running.audience != audience:
                await sending.check_phones(call, slugs)
            if running is None and not await _was_started(call, key):
                ended = await sending.make_room(call, audience)
        done = await call.service.streams.put(call.app, request, change=change, key=once)
    shown = former.tags if tags is None else tags
    return await _put_answer(call, call.told(done), slugs, shown, ended)


async def end(call: Call, body: Any) -> dict[str, Any]:
    """End what runs behind a key, and forget the key."""
    key = _key(call)
    said = requests.stream_end(body, lenient=call.lenient)
    once = call.once()
    stream = await store.stream_of(call, key)
    if stream is None and not await store.was_told(call, once):
        if await store.stream_was(call, key):
            return _inactive(call, key)
        raise _unknown(key)
    final = await _final(call, key, stream, said, "end")
    done = await call.service.streams.end(call.app, key, final, key=once)
    ended = call.told(done)
    if ended.ignored:
        return _inactive(call, key)
    about = {"operation": "ended", "stream_key": key, "activity_id": ended.activity}
    return await end_answer(call, ended.id, ended.devices, ended.queued, about)


async def pause(call: Call, body: Any) -> dict[str, Any]:
    """End what runs behind a key; puts are answered with ``paused`` until it is resumed."""
    key = _key(call)
    said = requests.stream_end(body, lenient=call.lenient)
    stream = await store.stream_of(call, key)
    if stream is None:
        raise _unknown(key)
    final = await _final(call, key, stream, said, "pause")
    since = await call.service.streams.pause(call.app, key, final)
    return _idle(call, key, "paused", paused_at=to_text(since))


async def resume(call: Call) -> dict[str, Any]:
    """Let the next put start again; nothing is started now."""
    key = _key(call)
    stream = await store.stream_of(call, key)
    if stream is None:
        raise _unknown(key)
    await call.service.streams.resume(call.app, key)
    return _idle(call, key, "resumed")


async def _final(
    call: Call, key: str, stream: store.Stream | None, said: LiveCall, verb: str
) -> End:
    """Return the end that was asked for: without a state the last one stays on the card."""
    running = None if stream is None else stream.running
    state = None
    if running is not None:
        sending.check_within(call, running, verb)
        if said.state is not None:
            state = states.complete(said.state, phase="end", now=call.moment, current=running.state)
        elif said.buttons or _runs(running.state):
            last = {**states.without_buttons(running.state)}
            state = states.complete(_asked_again(last), phase="end", now=call.moment, current=last)
        if state is not None:
            state = await sending.draw(call, state, said, running.state, f"stream:{key}")
    shown = state if state is not None else (running.state if running is not None else {})
    alert = states.change_alert(said.alert, shown) if shown.get("title") else None
    return End(
        id="",
        content_state=state,
        presentation=Presentation(
            alert=alert, dismiss_after=states.dismissal(said.state, states.STREAM_DISMISSAL)
        ),
        tags=said.tags,
        metadata=said.metadata,
        reason="requested" if verb == "end" else "paused",
        dialect=DIALECT,
    )


async def _was_started(call: Call, key: str) -> bool:
    """Whether a put at the same moment was first; then this one needs no room of its own."""
    stream = await store.stream_of(call, key)
    return stream is not None and stream.running is not None


def _runs(state: dict[str, Any]) -> bool:
    """Whether the card shows a running timer, which an end freezes."""
    return state.get("type") == "timer" and state.get("is_running") is True


def _asked_again(state: dict[str, Any]) -> dict[str, Any]:
    """Return a stored state as a caller would send it."""
    times = ("started_at", "ends_at", "frozen_remaining", "frozen_elapsed")
    return {name: value for name, value in state.items() if name not in times}


async def _put_answer(
    call: Call,
    done: Streamed,
    slugs: tuple[str, ...] | None,
    tags: tuple[str, ...],
    ended: str | None,
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "success": True,
        "operation": done.operation,
        "stream_key": done.key,
        "activity_id": done.activity,
    }
    if done.operation in {"noop", "paused"}:
        return {**said, "timestamp": call.timestamp}
    result = await await_result(call, done.id)
    if done.operation == "updated":
        said |= counts(result, devices=done.devices, queued=done.queued)
    else:
        said["success"] = bool(result.accepted) or not result.finished
        said["devices_notified"] = result.accepted
    said["users_notified"] = result.persons
    return answered(
        call,
        result,
        **said,
        previous_activity_id=done.previous,
        ended_activity_id=ended,
        effective_channel_slugs=None if slugs is None else list(slugs),
        tags=list(tags),
        warning=done.warning,
    )


def _idle(call: Call, key: str, operation: str, **more: Any) -> dict[str, Any]:
    """Return the answer about a stream behind which nothing runs."""
    return {
        "success": True,
        "operation": operation,
        "stream_key": key,
        "activity_id": None,
        **more,
        "timestamp": call.timestamp,
    }


def _inactive(call: Call, key: str) -> dict[str, Any]:
    return _idle(call, key, "ended", ignored=True)


def _key(call: Call) -> str:
    try:
        return checks.stream_key(call.part("stream_key"))
    except InvalidInput:
        raise Refused(400, STREAM_KEY, _KEY_RULE) from None


def _unknown(key: str) -> Refused:
    return Refused(
        404,
        "Live Activity stream not found",
        f"No Live Activity stream found for stream_key: {key}",
    )
