"""Activities by id: start, update, end."""

from __future__ import annotations

from typing import Any

from ...activities.requests import End, Presentation, Start, Update
from ...errors import ActivityEnded
from . import requests, sending, states, store
from .answers import answered, await_result, counts, end_answer, start_answer
from .dialect import DIALECT, ID_ATTRIBUTE, Call
from .refusals import Refused
from .requests import LiveCall
from .streaming import put_state


async def start(call: Call, body: Any) -> dict[str, Any]:
    """Start an activity on every device of the target."""
    said = requests.start(body, lenient=call.lenient)
    once = call.once()
    state = states.complete(said.state or {}, phase="start", now=call.moment)
    slugs = await sending.reached(call, said.channels)
    activity = sending.fresh_id(call)
    state = await sending.draw(call, state, said, None, f"activity:{activity}")
    request = Start(
        id=activity,
        attributes_type=call.chosen.attributes_type,
        id_attribute=ID_ATTRIBUTE,
        content_state=state,
        presentation=Presentation(alert=states.start_alert(said.alert, state)),
        audience=sending.audience_of(slugs),
        tags=said.tags or (),
        metadata=said.metadata or {},
        dialect=DIALECT,
    )
    ended = None
    async with sending.one_start_at_a_time(call):
        if not await store.was_told(call, once):
            await sending.check_phones(call, slugs)
            ended = await sending.make_room(call, request.audience)
        done = await call.service.activities.start(call.app, request, key=once)
    answer = call.told(done)
    result = await await_result(call, answer.operation)
    return start_answer(call, answer.activity, result, slugs=slugs, tags=said.tags, ended=ended)


async def update(call: Call, body: Any) -> dict[str, Any]:
    """Give an activity a new state; behind a stream's former one, a new activity is started."""
    said = requests.update(body, lenient=call.lenient)
    once = call.once()
    card = await own_card(call, said.activity, "update")
    if card.ended and card.stream_key is not None:
        again = await _through_stream(call, card, said)
        if again is not None:
            return again
    if card.ended and not await store.was_told(call, once):
        raise ActivityEnded(
            f"the activity {card.id!r} has ended ({card.end_reason}): start a new one"
        )
    state = states.complete(said.state or {}, phase="update", now=call.moment, current=card.state)
    state = await sending.draw(call, state, said, card.state, place_of(card))
    done = await call.service.activities.update(
        call.app,
        Update(
            id=card.id, content_state=state, tags=said.tags, metadata=said.metadata, dialect=DIALECT
        ),
        key=once,
    )
    answer = call.told(done)
    result = await await_result(call, answer.operation)
    return answered(
        call,
        result,
        success=True,
        activity_id=card.id,
        **counts(result, devices=answer.devices, queued=answer.queued),
        users_notified=result.persons,
        effective_channel_slugs=sending.slugs_of(card.audience),
        tags=list(card.tags if said.tags is None else said.tags),
    )


async def end(call: Call, body: Any) -> dict[str, Any]:
    """End an activity; one that has ended is left alone."""
    said = requests.end(body, lenient=call.lenient)
    once = call.once()
    card = await own_card(call, said.activity, "end")
    if card.ended and not await store.was_told(call, once):
        return ended_before(call, card)
    state = states.complete(said.state or {}, phase="end", now=call.moment, current=card.state)
    state = await sending.draw(call, state, said, card.state, place_of(card))
    done = await call.service.activities.end(
        call.app,
        End(
            id=card.id,
            content_state=state,
            presentation=Presentation(
                dismiss_after=states.dismissal(said.state, states.END_DISMISSAL)
            ),
            tags=said.tags,
            metadata=said.metadata,
            dialect=DIALECT,
        ),
        key=once,
    )
    answer = call.told(done)
    ignored = True if answer.status == "ignored" else None
    about = {"activity_id": answer.activity, "ignored": ignored}
    return await end_answer(call, answer.operation, answer.devices, answer.queued, about)


def ended_before(call: Call, card: store.Card) -> dict[str, Any]:
    """Return the answer of an end that came after another one."""
    return answered(
        call,
        None,
        success=True,
        activity_id=card.id,
        devices_notified=0,
        devices_queued=0,
        ignored=True,
        message="The Live Activity had already ended.",
        end_reason=card.end_reason,
    )


async def own_card(call: Call, activity: str, verb: str) -> store.Card:
    """Return the activity that a call names. Raises `Refused`."""
    card = await store.card_of(call, activity)
    if card is None:
        raise Refused(
            404,
            "Live Activity not found",
            "No Live Activity of this app has this activity_id: start it first.",
        )
    sending.check_within(call, card, verb)
    return card


def place_of(card: store.Card) -> str:
    """Return what the buttons of a card say that they are on: it stays the same for its life."""
    return f"activity:{card.id}" if card.stream_key is None else f"stream:{card.stream_key}"


async def _through_stream(call: Call, card: store.Card, said: LiveCall) -> dict[str, Any] | None:
    """Put the state to the stream that the ended activity belonged to, if it is still there."""
    key = card.stream_key or ""
    stream = await store.stream_of(call, key)
    if stream is None or stream.paused:
        return None
    if stream.running is not None:
        sending.check_within(call, stream.running, "update")
    slugs = sending.slugs_of(card.audience)
    answer = await put_state(call, key, stream, said, None if slugs is None else tuple(slugs))
    answer["previous_activity_id"] = card.id
    return answer
