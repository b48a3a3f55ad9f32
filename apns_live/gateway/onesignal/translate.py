"""OneSignal's bodies as requests of the service: pure functions, nothing is read or sent here.

Source: OneSignal, "Start Live Activity" and "Update Live Activity". Fields that are unknown are
ignored, as there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...activities import checks
from ...activities.requests import AlertText, End, Presentation, Start, Update, Urgency
from ...activities.requests.audience import Audience
from ...errors import InvalidInput
from .. import reading
from .filters import read_filters
from .words import NO_TARGET

MAX_IDS = 20_000
MAX_NAME = 128
LONG_PAST = 1e9
"""Seconds since 1970: the year 2001. What is before has no other meaning than the past."""
_TARGETS = ("include_aliases", "include_subscription_ids", "included_segments", "filters")
_URGENCIES: Mapping[int, Urgency] = {5: "quiet", 10: "urgent"}
_SOUND: Any = Annotated[str, Meta(min_length=1)]
_DATE: Any = Annotated[float, Meta(ge=0, lt=1e11)]
_PRIORITY: Any = Literal[5, 10]
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


class AskedStart(msgspec.Struct, frozen=True, kw_only=True):
    """A start, and the idempotency key that stands in the body."""

    request: Start
    idempotency_key: str | None = None


def read_start(body: Mapping[str, Any], activity_type: str, *, notification: str) -> AskedStart:
    """Return the start that a body asks for. Raises `InvalidInput`.

    ``notification`` is the id of the notification, and of the operation: it travels in the content
    state, and comes back when the device confirms that it got it.
    """
    if body.get("event") != "start":
        raise InvalidInput("is not start", field="event", remedy="Say start.")
    activity = checks.identifier(body.get("activity_id"), "activity_id")
    if activity in (".", ".."):
        raise InvalidInput(
            f"{activity!r} cannot stand in an address",
            field="activity_id",
            remedy="Give another id: clients leave it out of the address of an update.",
        )
    name = _name(body)
    attributes = _object(body, "event_attributes")
    state = _object(body, "event_updates")
    headings, contents = _texts(body, "headings"), _texts(body, "contents")
    for field, value in (("headings", headings), ("contents", contents)):
        if value is None:
            raise InvalidInput("is missing", field=field, remedy="Give a text for en at least.")
    _check_languages(headings, contents)
    return AskedStart(
        request=Start(
            id=activity,
            attributes_type=checks.attributes_type(activity_type, "activity_type"),
            attributes=_with(attributes, "activityId", activity),
            content_state=_with(state, "notificationId", notification),
            presentation=Presentation(
                alert=AlertText(
                    title=headings or "", body=contents or "", sound=_sound(body, default=True)
                ),
                stale_date=_date(body, "stale_date"),
                relevance_score=reading.score(
                    body.get("ios_relevance_score"), "ios_relevance_score"
                ),
                urgency=_urgency(body),
            ),
            audience=read_target(body),
            metadata={"name": name},
            dialect="onesignal",
            operation=notification,
        ),
        idempotency_key=read_idempotency_key(body),
    )


def read_update(body: Mapping[str, Any], activity: str, *, notification: str) -> Update | End:
    """Return the update, or the end, that a body asks for. Raises `InvalidInput`."""
    event = body.get("event")
    if event not in ("update", "end"):
        raise InvalidInput("is neither update nor end", field="event", remedy="Say update or end.")
    checks.identifier(activity, "activity_id")
    _name(body)
    state = _object(body, "event_updates")
    ends = event == "end"
    dismissal = _date(body, "dismissal_date" if "dismissal_date" in body else "dismiss_at")
    presentation = Presentation(
        alert=_alert(body),
        stale_date=_date(body, "stale_date"),
        # Long past means at once, which APNs spells 0.
        dismissal_date=_past_as_zero(dismissal) if ends else None,
        relevance_score=reading.score(body.get("ios_relevance_score"), "ios_relevance_score"),
        urgency=_urgency(body),
    )
    if ends:
        return End(
            id=activity,
            # An end without a state leaves the last one on the card.
            content_state=_with(state, "notificationId", notification) if state else None,
            presentation=presentation,
            dialect="onesignal",
            operation=notification,
        )
    return Update(
        id=activity,
        content_state=_with(state, "notificationId", notification),
        presentation=presentation,
        dialect="onesignal",
        operation=notification,
    )


def read_idempotency_key(body: Mapping[str, Any]) -> str | None:
    """Return the idempotency key, by its name or its old one. Raises `InvalidInput`."""
    for name in ("idempotency_key", "external_id"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not _UUID.fullmatch(value):
            raise InvalidInput("is no UUID", field=name, remedy="Give a UUID as of RFC 9562.")
        return value.lower()
    return None


def read_target(body: Mapping[str, Any]) -> Audience:
    """Return the audience of a start. Raises `InvalidInput` unless exactly one kind is given."""
    name = reading.one_of(body, _TARGETS, InvalidInput(NO_TARGET))
    excluded = body.get("excluded_segments")
    if excluded not in (None, []) and name != "included_segments":
        raise InvalidInput(
            "stands beside other targets than segments",
            field="excluded_segments",
            remedy="Use it with included_segments.",
        )
    match name:
        case "include_aliases":
            return _aliases(body[name])
        case "include_subscription_ids":
            return Audience(devices=reading.ids(body[name], name, most=MAX_IDS, limit=64))
        case "filters":
            return Audience(filter=read_filters(body[name]))
    return Audience(
        segments=reading.ids(body[name], name, most=MAX_IDS),
        exclude_segments=reading.ids(excluded or [], "excluded_segments", most=MAX_IDS),
    )


def _aliases(value: object) -> Audience:
    field = "include_aliases"
    given = reading.read(value, dict[str, Any], field, "Give labels, each with its ids.")
    by_label = {
        checks.identifier(label, field, limit=128): reading.ids(
            ids, f"{field}.{label}", most=MAX_IDS
        )
        for label, ids in given.items()
        if ids is not None
    }
    count = sum(len(ids) for ids in by_label.values())
    if count > MAX_IDS:
        raise InvalidInput(f"has {count} ids", field=field, remedy=f"Give at most {MAX_IDS:,}.")
    if not count:
        raise InvalidInput(NO_TARGET)
    users = by_label.pop("external_id", ())
    user_ids = by_label.pop("onesignal_id", ())
    return Audience(
        users=users, user_ids=user_ids, aliases={k: v for k, v in by_label.items() if v}
    )


def _alert(body: Mapping[str, Any]) -> AlertText | None:
    headings, contents = _texts(body, "headings"), _texts(body, "contents")
    _check_languages(headings, contents)
    if headings is None and contents is None:
        _sound(body, default=False)
        return None
    # A sound needs a title: without one ActivityKit drops it.
    return AlertText(
        title=headings or "",
        body=contents or "",
        sound=_sound(body, default=True) if headings else None,
    )


def _texts(body: Mapping[str, Any], field: str) -> dict[str, str] | None:
    """Return texts by language, ``en`` among them; None for none."""
    value = body.get(field)
    if value is None or value == {}:
        return None
    given = reading.read(value, dict[str, Any], field, "Give a text for each language.")
    texts: dict[str, str] = {}
    for tag, text in given.items():
        where = f"{field}.{tag}"[:80]
        if text is not None:
            texts[checks.language(tag, where)] = reading.read(text, str, where, "Give a text.")
    if not texts.get("en"):
        raise InvalidInput("has no text for en", field=field, remedy="Give one: it is the default.")
    return texts


def _check_languages(
    headings: Mapping[str, str] | None, contents: Mapping[str, str] | None
) -> None:
    """Raise `InvalidInput` unless both texts, where both are given, have the same languages."""
    if headings and contents and headings.keys() != contents.keys():
        tags = ", ".join(sorted(headings.keys() ^ contents.keys()))
        raise InvalidInput(
            f"has other languages than contents: {tags}",
            field="headings",
            remedy="Give both texts in the same languages.",
        )


def _sound(body: Mapping[str, Any], *, default: bool) -> str | None:
    """Return the sound: a file, the default one, or None for silence (``nil``)."""
    value = body.get("ios_sound")
    if value is None:
        return "default" if default else None
    value = reading.read(value, _SOUND, "ios_sound", "Name a file, or say nil.")
    return None if value == "nil" else value


def _name(body: Mapping[str, Any]) -> str:
    return checks.identifier(body.get("name"), "name", limit=MAX_NAME)


def _object(body: Mapping[str, Any], field: str) -> dict[str, Any]:
    return reading.as_object(body.get(field), field)


def _with(values: Mapping[str, Any], name: str, value: str) -> dict[str, Any]:
    """Return the object with one more value in ``onesignal``, where the app's SDK looks for it."""
    known = values.get("onesignal")
    return {
        **values,
        "onesignal": {**(known if isinstance(known, Mapping) else {}), name: value},
    }


def _date(body: Mapping[str, Any], field: str) -> float | None:
    value = body.get(field)
    return None if value is None else reading.read(value, _DATE, field, "Give whole seconds.")


def _past_as_zero(moment: float | None) -> float | None:
    return 0.0 if moment is not None and moment < LONG_PAST else moment


def _urgency(body: Mapping[str, Any]) -> Urgency | None:
    value = body.get("priority")
    if value is None:
        return None
    return _URGENCIES[reading.read(value, _PRIORITY, "priority", "Give 5 or 10.")]
