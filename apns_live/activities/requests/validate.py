"""Validates starts, updates and ends before anything is stored."""

from typing import Any, TypeVar

import msgspec

from ... import payload
from ...errors import InvalidInput, InvalidToken
from .. import checks
from ..apps import App
from ..decodes import check_decodes
from . import AlertText, End, Presentation, Start, Text, Update
from .messages import check_languages, words_of

_ANY_ID = "0" * 36
"""In place of an id that is made later, to check the size."""


def checked_start(app: App, request: Start, now: int) -> Start:
    """Return the request as it is stored; ``now`` is milliseconds. Raises `InvalidInput`."""
    _check_common(request)
    checks.attributes_type(request.attributes_type, "attributes_type")
    if request.environment is not None:
        checks.environment(request.environment)
    if request.stream_key is not None:
        checks.stream_key(request.stream_key, "stream_key")
    request.audience.check()
    if request.channel is not None:
        try:
            payload.check_channel(request.channel)
        except InvalidToken as error:
            raise InvalidToken(error.problem, "channel", error.remedy) from None
    if request.hand_over_after is not None:
        checks.hand_over_after(request.hand_over_after, "hand_over_after")
    seconds = now / 1000
    _check_moment(request.start_at, "start_at")
    if request.presentation.alert is None:
        remedy = "A phone ignores a start without an alert: give title and body."
        raise InvalidInput("is missing", "presentation.alert", remedy)
    state, kind = request.content_state, request.attributes_type
    check_message(state, request.presentation, "update", seconds)
    _check_end(request, seconds if request.start_at is None else request.start_at, seconds)
    attributes = with_id(request, request.id or _ANY_ID)
    check_decodes(app.settings, kind, state, attributes)
    start = payload.Start(
        content_state=state,
        attributes_type=kind,
        attributes=attributes,
        alert=_alert(request.presentation.alert),
        relevance_score=request.presentation.relevance_score,
        input_push_channel=request.channel,
    )
    payload.encode(start, now=seconds)
    return checked_labels(request)


def with_id(request: Start, public_id: str) -> dict[str, Any]:
    """Return the attributes of a start with the activity's id where ``id_attribute`` says.

    Raises `InvalidInput` when the path leads through something that is not an object.
    """
    if not request.id_attribute:
        return request.attributes
    *path, name = request.id_attribute.split(".")
    attributes = dict(request.attributes)
    place = attributes
    for step in path:
        below = place.setdefault(step, {})
        if not isinstance(below, dict):
            remedy = f"The activity's id goes to {request.id_attribute}: leave room for it."
            raise InvalidInput("is not an object", f"attributes.{step}", remedy)
        place[step] = place = dict(below)
    place.setdefault(name, public_id)
    return attributes


def _check_common(request: Start | Update | End) -> None:
    checks.conform(request)
    checks.revision(request.revision)
    checks.identifier(request.dialect, "dialect", limit=16)


Changed = TypeVar("Changed", Update, End)


def checked_change(request: Changed, now: float) -> Changed:
    """Return an update or end as it is stored; ``now`` is seconds. Raises `InvalidInput`."""
    _check_common(request)
    if isinstance(request, End):
        checks.identifier(request.reason, "reason", limit=64)
    event = "end" if isinstance(request, End) else "update"
    check_message(request.content_state, request.presentation, event, now)
    if isinstance(request, Update):
        _check_end(request, now, now)
    return checked_labels(request)


def _check_end(request: Start | Update, begin: float, now: float) -> None:
    """Check the time of a planned end, and its presentation. Times are seconds."""
    _check_moment(request.end_at, "end_at")
    if request.end_at is not None and request.end_at <= begin:
        raise InvalidInput(
            "is not after the start", "end_at", "Give a time after start_at and now."
        )
    if request.end_presentation == Presentation():
        return
    field = "end_presentation"
    if request.end_at is None:
        raise InvalidInput("has no effect without end_at", field, "Give end_at, or leave it out.")
    check_message(request.content_state, request.end_presentation, "end", now, field=field)


def _check_moment(value: float | None, field: str) -> None:
    if value is not None and not 1e9 <= value < 1e11:
        problem = f"{value} is not a valid time in seconds since 1970"
        raise InvalidInput(problem, field, "Give seconds, not milliseconds.")


Labelled = TypeVar("Labelled", Start, Update, End)


def checked_labels(request: Labelled) -> Labelled:
    """Return the request with its tags and metadata checked. Raises `InvalidInput`."""
    if not request.tags and not request.metadata:
        return request
    changes: dict[str, Any] = {}
    if request.tags is not None:
        changes["tags"] = tuple(checks.tags(request.tags))
    if request.metadata is not None:
        changes["metadata"] = checks.metadata(request.metadata)
    return msgspec.structs.replace(request, **changes)


def check_message(
    content_state: dict[str, Any] | None,
    presentation: Presentation,
    event: str,
    now: float,
    *,
    field: str = "presentation",
) -> None:
    """Encode what would be sent, so that a bad state is refused before anything is stored."""
    for name in ("stale_after", "dismiss_after"):
        if (value := getattr(presentation, name)) is not None and not 0 <= value < 1e9:
            problem = f"{value} is not a number of seconds"
            raise InvalidInput(problem, f"{field}.{name}", "Give seconds from now, 0 or more.")
    shown: dict[str, Any] = {
        "alert": _alert(presentation.alert),
        "stale_date": presentation.stale_date,
        "relevance_score": presentation.relevance_score,
    }
    if event == "update":
        if presentation.dismissal_date is not None or presentation.dismiss_after is not None:
            problem, remedy = "has an effect on an end only", "Leave it out, or end the activity."
            raise InvalidInput(problem, "presentation.dismissal_date", remedy)
        message: payload.Message = payload.Update(content_state=content_state or {}, **shown)
    else:
        dismissal = presentation.dismissal_date
        message = payload.End(content_state=content_state, dismissal_date=dismissal, **shown)
    payload.encode(message, now=now)


def _alert(alert: AlertText | None) -> payload.Alert | None:
    """Return the longest form of an alert by language, which is what its size is checked with."""
    if alert is None:
        return None

    def longest(text: Text, field: str) -> str:
        check_languages(text, f"presentation.alert.{field}")
        texts = [text] if isinstance(text, str) else text.values()
        return max(texts, key=lambda value: len(value.encode("utf-8", "replace")))

    title = words_of(alert.title_key) or longest(alert.title, "title")
    body = words_of(alert.body_key) or longest(alert.body, "body")
    return payload.Alert(title=title, body=body, sound=alert.sound)
