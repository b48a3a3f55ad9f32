"""Activities by id (start, update, end), streams by key (put, end, pause, resume), and their states."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from ...activities.cards.content_states import Phase, State, auto_dismiss_seconds, equal, normalise
from ...activities.checks import plain_numbers
from ...activities.requests import AlertText, End, Presentation, Start, Update
from ...activities.store import schema
from ...activities.times import to_text
from ...errors import ActivityEnded
from . import requests, sending
from .buttons import draw
from .dialect import DIALECT, ID_ATTRIBUTE, Call, Refused, answered, await_result, end_answer
from .requests import SLOTS, AlertWords, LiveCall

_WINDOW = ("started_at", "ends_at", "frozen_remaining", "frozen_elapsed")
_LOOKS = ("subtitle", "color", "icon", "badge", "step_color", "step_colors")
_PARTS = 3


async def start(call: Call, body: Any = None) -> dict[str, Any]:
    """Start an activity on every device of the target."""
    said, once = requests.start(body, lenient=call.lenient), call.once()
    state = complete(said.state or {}, phase="start", now=call.moment)
    slugs = await sending.reached(call, said.channels)
    activity = sending.fresh_id(call)
    state = await draw(call, state, said, None, f"activity:{activity}")
    request = Start(
        id=activity,
        attributes_type=call.chosen.attributes_type,
        id_attribute=ID_ATTRIBUTE,
        content_state=state,
        presentation=Presentation(alert=start_alert(said.alert, state)),
        audience=sending.audience_of(slugs),
        tags=said.tags or (),
        metadata=said.metadata or {},
        dialect=DIALECT,
    )
    ended = None
    async with sending.one_start_at_a_time(call):
        if not await sending.was_told(call, once):
            await sending.check_reach(call, slugs)
            ended = await sending.make_room(call, request.audience)
        answer = call.told(await call.service.activities.start(call.app, request, key=once))
    result = await await_result(call, answer.operation)
    return answered(
        call,
        result,
        success=result.success,
        activity_id=answer.activity,
        devices_notified=result.accepted,
        users_notified=result.persons,
        effective_channel_slugs=slugs,
        tags=said.tags,
        ended_activity_id=ended,
        message=None if result.finished else "The start is still being sent.",
    )


async def update(call: Call, body: Any = None) -> dict[str, Any]:
    """Give an activity a new state. If its stream now has another activity, update that one instead."""
    said, once = requests.update(body, lenient=call.lenient), call.once()
    card = await sending.own_card(call, said.activity, "update")
    if card.ended:
        stream = None if card.stream_key is None else await sending.stream_of(call, card.stream_key)
        if stream is not None and not stream.paused:
            put = await _put(call, stream, said, sending.slugs_of(card.audience))
            return {**put, "previous_activity_id": card.id}
        if not await sending.was_told(call, once):
            raise ActivityEnded(
                f"the activity {card.id!r} has ended ({card.end_reason}): start a new one"
            )
    state = complete(said.state or {}, phase="update", now=call.moment, current=card.state)
    state = await draw(call, state, said, card.state, card.place)
    request = Update(id=card.id, content_state=state, **_labels(said))
    answer = call.told(await call.service.activities.update(call.app, request, key=once))
    result = await await_result(call, answer.operation)
    return answered(
        call,
        result,
        success=True,
        activity_id=card.id,
        **result.counts(devices=answer.devices, queued=answer.queued),
        users_notified=result.persons,
        effective_channel_slugs=sending.slugs_of(card.audience),
        tags=card.tags if said.tags is None else said.tags,
    )


async def end(call: Call, body: Any = None) -> dict[str, Any]:
    """End an activity. Do nothing if it has ended already."""
    said, once = requests.end(body, lenient=call.lenient), call.once()
    card = await sending.own_card(call, said.activity, "end")
    if card.ended and not await sending.was_told(call, once):
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
    state = complete(said.state or {}, phase="end", now=call.moment, current=card.state)
    state = await draw(call, state, said, card.state, card.place)
    stays = Presentation(dismiss_after=dismissal(said.state, 180.0))
    request = End(id=card.id, content_state=state, presentation=stays, **_labels(said))
    answer = call.told(await call.service.activities.end(call.app, request, key=once))
    ignored = True if answer.status == "ignored" else None
    about = {"activity_id": answer.activity, "ignored": ignored}
    return await end_answer(call, answer.operation, answer.devices, answer.queued, about)


async def put_stream(call: Call, body: Any = None) -> dict[str, Any]:
    """Update the activity of a stream, or start one if none is running."""
    key, said = call.stream_key, requests.stream(body, lenient=call.lenient)
    stream = await sending.stream_of(call, key) or sending.Stream(key=key)
    return await _put(call, stream, said, await sending.reached(call, said.channels))


async def end_stream(call: Call, body: Any = None) -> dict[str, Any]:
    """End the activity of a stream, and delete the key."""
    key, said = call.stream_key, requests.stream_end(body, lenient=call.lenient)
    once, table = call.once(), schema.activities
    stream = await sending.stream_of(call, key)
    if stream is None and not await sending.was_told(call, once):
        former = select(table.c.id).where(table.c.app_id == call.app.row)
        former = former.where(table.c.stream_key == key).limit(1)
        if await call.service.database.scalar(former) is None:
            raise _unknown(key)
        return _idle(call, key, "ended", ignored=True)
    final = await _final(call, key, stream, said, "end")
    ended = call.told(await call.service.streams.end(call.app, key, final, key=once))
    if ended.ignored:
        return _idle(call, key, "ended", ignored=True)
    about = {"operation": "ended", "stream_key": key, "activity_id": ended.activity}
    return await end_answer(call, ended.id, ended.devices, ended.queued, about)


async def pause_stream(call: Call, body: Any = None) -> dict[str, Any]:
    """End the activity of a stream. Puts are answered with ``paused`` until it is resumed."""
    key, said = call.stream_key, requests.stream_end(body, lenient=call.lenient)
    if (stream := await sending.stream_of(call, key)) is None:
        raise _unknown(key)
    final = await _final(call, key, stream, said, "pause")
    since = await call.service.streams.pause(call.app, key, final)
    return _idle(call, key, "paused", paused_at=to_text(since))


async def resume_stream(call: Call) -> dict[str, Any]:
    """Resume a stream: the next put starts an activity. This call starts none."""
    key = call.stream_key
    if await sending.stream_of(call, key) is None:
        raise _unknown(key)
    await call.service.streams.resume(call.app, key)
    return _idle(call, key, "resumed")


async def _put(
    call: Call, stream: sending.Stream, said: LiveCall, slugs: tuple[str, ...] | None
) -> dict[str, Any]:
    key = stream.key
    if stream.paused:
        return _idle(call, key, "paused")
    once, running, current = call.once(), stream.running, None
    if running is not None:
        sending.check_within(call, running.audience, "update this Live Activity")
        current = running.state
    elif (former := stream.card) is not None:
        # A new card keeps these fields of an ended one.
        kept = ("type", "number_of_steps")
        current = {name: former.state[name] for name in kept if name in former.state}
    state = complete(
        said.state or {}, phase="update", now=call.moment, current=current, steady=True
    )
    drawn = await draw(call, state, said, current, f"stream:{key}")
    tags = stream.tags if said.tags is None else said.tags
    request = Start(
        id=sending.fresh_id(call),
        stream_key=key,
        attributes_type=call.chosen.attributes_type,
        attributes={"stream_key": key},
        id_attribute=ID_ATTRIBUTE,
        content_state=drawn,
        presentation=Presentation(alert=start_alert(said.alert, state)),
        audience=sending.audience_of(slugs),
        tags=tags,
        metadata=stream.metadata if said.metadata is None else said.metadata,
        dialect=DIALECT,
    )
    # Unlike a start, a change needs no alert.
    shown = Presentation(alert=None if said.alert is None else start_alert(said.alert, state))
    change = Update(id="", content_state=drawn, presentation=shown, **_labels(said))
    ended = None
    async with sending.one_start_at_a_time(call, starts=running is None):
        if not await sending.was_told(call, once):
            if running is None or running.audience != request.audience:
                await sending.check_reach(call, slugs)
            if running is None:
                # A concurrent put may have started the activity. This put then needs no free card.
                newest = await sending.stream_of(call, key)
                if newest is None or newest.running is None:
                    ended = await sending.make_room(call, request.audience)
        done = call.told(await call.service.streams.put(call.app, request, change=change, key=once))
    about = {"operation": done.operation, "stream_key": done.key, "activity_id": done.activity}
    if done.operation in {"noop", "paused"}:
        return {"success": True, **about, "timestamp": call.timestamp}
    result = await await_result(call, done.id)
    if done.operation == "updated":
        success, counted = True, result.counts(devices=done.devices, queued=done.queued)
    else:
        success, counted = result.success, {"devices_notified": result.accepted}
    return answered(
        call,
        result,
        success=success,
        **about,
        **counted,
        users_notified=result.persons,
        previous_activity_id=done.previous,
        ended_activity_id=ended,
        effective_channel_slugs=slugs,
        tags=tags,
        warning=done.warning,
    )


async def _final(
    call: Call, key: str, stream: sending.Stream | None, said: LiveCall, verb: str
) -> End:
    """Return the end of a stream's activity. Without a state the card keeps its last one."""
    running, state = None if stream is None else stream.running, None
    if running is not None:
        sending.check_within(call, running.audience, f"{verb} this Live Activity")
        last = without_buttons(running.state)
        if said.state is not None:
            state = complete(said.state, phase="end", now=call.moment, current=running.state)
        elif said.buttons or (last.get("type") == "timer" and last.get("is_running") is True):
            # The end freezes a running timer.
            state = complete(without_window(last), phase="end", now=call.moment, current=last)
        if state is not None:
            state = await draw(call, state, said, running.state, f"stream:{key}")
    shown = state or (running.state if running is not None else {})
    alert = start_alert(said.alert, shown) if said.alert and shown.get("title") else None
    stays = dismissal(said.state, 120.0)
    return End(
        id="",
        content_state=state,
        presentation=Presentation(alert=alert, dismiss_after=stays),
        reason="requested" if verb == "end" else "paused",
        **_labels(said),
    )


def _labels(said: LiveCall) -> dict[str, Any]:
    return {"tags": said.tags, "metadata": said.metadata, "dialect": DIALECT}


def _idle(call: Call, key: str, operation: str, **more: Any) -> dict[str, Any]:
    """Return the answer for a stream without a running activity."""
    about = {"success": True, "operation": operation, "stream_key": key, "activity_id": None}
    return {**about, **more, "timestamp": call.timestamp}


def _unknown(key: str) -> Refused:
    text = f"No Live Activity stream found for stream_key: {key}"
    return Refused(404, "Live Activity stream not found", text)


# --- states: what a call leaves out is taken from the card


def complete(
    state: Mapping[str, Any],
    *,
    phase: Phase,
    now: float,
    current: Mapping[str, Any] | None = None,
    steady: bool = False,
) -> State:
    """Return the checked state without buttons. ``current`` is the state of the running card.

    An update or end keeps the looks of the card that it does not mention; ``null`` removes one. With
    ``steady`` (streams) the state is complete, and a timer continues if it is put again unchanged.
    Ending a timer without a duration freezes it. Raises `InvalidPayload`.
    """
    given, card = dict(state), _known(current)
    kind = given.get("type") or (None if card is None else card.get("type"))
    if card is not None and not steady and card.get("type") == kind:
        given = {name: card[name] for name in _LOOKS if name in card} | given
    given = {name: value for name, value in given.items() if value is not None}

    def checked(values: Mapping[str, Any]) -> State:
        return State(plain_numbers(normalise(values, phase=phase, now=now, current=card)))

    if kind == "timer" and "duration_seconds" not in given:
        if phase == "end":
            given["is_running"] = False
        return _same_window(checked(given), card)
    made = checked(given)
    if (
        steady
        and kind == "timer"
        and card is not None
        and card["type"] == kind
        and "ends_at" in card
    ):
        lasts = card["ends_at"] - card["started_at"]
        if abs(lasts - given.pop("duration_seconds")) < 0.01:
            kept = _same_window(checked(given), card)
            if equal(kept, card):
                return kept
    return made


def without_buttons(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored state without its buttons."""
    return {name: value for name, value in state.items() if name not in SLOTS}


def without_window(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state without the times of its timer, as a caller sends it."""
    return {name: value for name, value in state.items() if name not in _WINDOW}


def dismissal(state: Mapping[str, Any] | None, default: float) -> float:
    """Return how many seconds the ended card stays. Raises `InvalidPayload`."""
    return default if state is None else auto_dismiss_seconds(state, default=default)


def start_alert(words: AlertWords | None, state: Mapping[str, Any]) -> AlertText:
    """Return the alert of a start, which a phone ignores without one."""
    words = words or AlertWords()
    return AlertText(title=words.title or state["title"], body=words.body or summary(state))


def summary(state: Mapping[str, Any]) -> str:
    """Return one line about the card, for an alert without a body."""
    if said := state.get("subtitle") or state.get("message"):
        return str(said)
    if state.get("metrics"):
        return ", ".join(
            f"{one['label']} {_number(one['value'])}{one.get('unit', '')}"
            for one in state["metrics"][:_PARTS]
        )
    if "percentage" in state:
        return f"{_number(state['percentage'])} %"
    if "upper_limit" in state:
        return f"{_number(state['value'])} / {_number(state['upper_limit'])}"
    if "number_of_steps" in state:
        return f"{state['current_step']} / {state['number_of_steps']}"
    if "value" in state and state["value"] != "":
        return _number(state["value"])
    return str(state["title"])


def _known(current: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the card without buttons, or None if another API wrote a state of no known type."""
    if current is None or not isinstance(current.get("type"), str):
        return None
    times = _WINDOW if current["type"] == "timer" else ()
    numbers = [current[name] for name in (*times, "number_of_steps") if name in current]
    if current["type"] == "timer" and "started_at" not in current:
        return None
    if any(isinstance(one, bool) or not isinstance(one, (int, float)) for one in numbers):
        return None
    return without_buttons(current)


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _same_window(made: State, current: Mapping[str, Any] | None) -> State:
    """Keep the times of a timer that stays stopped, so that the card does not change."""
    if current is None or made.get("type") != "timer" or current.get("type") != "timer":
        return made
    still = made["is_running"] is False and current.get("is_running") is False
    if still and made["counts_down"] == current.get("counts_down"):
        return without_window(made) | {name: current[name] for name in _WINDOW if name in current}
    return made
