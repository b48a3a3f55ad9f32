"""Converts Braze's bodies to requests of the service. Pure functions.

Source: Braze, "Start Live Activity", "Update Live Activity", "Apple push object" and "Apple push alert
object". Unknown fields are ignored, as at Braze, and so are fields of ordinary pushes (badge,
buttons, category, custom_uri, asset_url, ...); numbers and booleans may come as text.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...activities import checks, requests
from ...activities.checks import convert
from ...errors import InvalidInput
from .. import reading
from ..reading import LONG_PAST, Score

MAX_EXTERNAL_IDS = 50
GONE = requests.Presentation(dismiss_after=0.0)
"""The end at a dismissal date: the card leaves the Lock Screen at once."""
_RESERVED = frozenset({"ab", "aps"})
_NORMAL_PRIORITY = 5
NO_RECIPIENTS = "No Recipients"
TOO_MANY_IDS = "The max number of ids per request was exceeded"
INVALID_EXTRA = "Invalid Extra Push Payload"
_TARGETS = ("external_user_ids", "segment_id", "custom_audience", "audience")
MAX_DEPTH = 8
_DAY = 86_400
_DAYS: Any = Annotated[float, Meta(ge=0, le=36_500)]
_PLAIN: Mapping[str, str] = {
    "equals": "=",
    "not_equal": "!=",
    "does_not_equal": "!=",
    "includes_value": "=",
    "does_not_include_value": "!=",
    "greater_than": ">",
    "greater_than_or_equal_to": ">=",
    "less_than": "<",
    "less_than_or_equal_to": "<=",
    "exists": "exists",
    "does_not_exist": "not_exists",
}
_ORDER = frozenset({">", ">=", "<", "<="})
Tree = dict[str, Any]


class Alert(msgspec.Struct, frozen=True):
    """The alert object; ``*_loc_key`` name texts of the app's string catalogue."""

    title: str | None = None
    body: str | None = None
    sound: str | None = None
    title_loc_key: str | None = None
    title_loc_args: tuple[str, ...] | None = None
    loc_key: str | None = None
    loc_args: tuple[str, ...] | None = None

    def words(self) -> requests.AlertText | None:
        """Return the alert of the service, or None if it is empty."""
        title, key = self.title_loc_key, self.loc_key
        text = requests.AlertText(
            title=self.title or "",
            body=self.body or "",
            sound=self.sound or None,
            title_key=requests.CatalogText(key=title, args=self.title_loc_args or ())
            if title
            else None,
            body_key=requests.CatalogText(key=key, args=self.loc_args or ()) if key else None,
        )
        return None if text == requests.AlertText(title="", body="") else text


class Notification(msgspec.Struct, frozen=True):
    """The apple_push object. The priority is 10, or 5 with content-available, or ``apns_priority``."""

    alert: Alert | str | None = None
    extra: Any = None
    relevance_score: Score | None = None
    content_available: bool | None = msgspec.field(default=None, name="content-available")
    content_available_too: bool | None = msgspec.field(default=None, name="content_available")
    apns_priority: Annotated[int, Meta(ge=1, le=10)] | None = None

    def presentation(self, stale_date: float | None) -> requests.Presentation:
        """Return the presentation of a state. Raises `InvalidInput`."""
        extra, priority = self.extra, self.apns_priority
        alert = Alert(body=self.alert) if isinstance(self.alert, str) else self.alert
        if extra is not None and (not isinstance(extra, Mapping) or _RESERVED & extra.keys()):
            remedy = "Give an object without the keys ab and aps."
            raise InvalidInput(INVALID_EXTRA, "notification.extra", remedy)
        quiet = self.content_available or self.content_available_too
        if priority is not None:
            quiet = priority <= _NORMAL_PRIORITY
        return requests.Presentation(
            alert=None if alert is None else alert.words(),
            # A date in the distant past also marks the card as outdated.
            stale_date=None if stale_date is None else max(stale_date, LONG_PAST),
            relevance_score=self.relevance_score,
            urgency="quiet" if quiet else None if priority is None else "urgent",
        )

    def check_start(self) -> None:
        """Raise `InvalidInput` without title and body: a phone ignores a start without an alert."""
        alert = self.alert
        if not isinstance(alert, Alert):
            remedy = "Give an object with title and body."
            raise InvalidInput("is not an object", "notification.alert", remedy)
        for name, key in (("title", alert.title_loc_key), ("body", alert.loc_key)):
            if not (getattr(alert, name) or key):
                raise InvalidInput("is missing", f"notification.alert.{name}", "Give a text.")


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of both calls."""

    app_id: str
    activity_id: str
    content_state: dict[str, Any]
    dismissal_date: Any = None
    stale_date: Any = None

    def date(self, name: str) -> float | None:
        """Return a date in seconds since 1970. Raises `InvalidInput`."""
        value = getattr(self, name)
        return None if value is None else reading.moment(value, name)


class _Start(_Said, frozen=True, kw_only=True):
    activity_attributes_type: str
    activity_attributes: dict[str, Any]
    notification: Notification


class _Update(_Said, frozen=True, kw_only=True):
    end_activity: bool = False
    notification: Notification = Notification()


def read_start(
    body: Mapping[str, Any], *, now: float, max_ids: int | None = MAX_EXTERNAL_IDS
) -> requests.Start:
    """Return the start that a body of ``/messages/live_activity/start`` requests.

    ``now`` is seconds since 1970. The activity is ended at ``dismissal_date``, because a phone obeys
    that date only in an end. Raises `InvalidInput`.
    """
    said = reading.body(body, _Start)
    dismissal, stale = said.date("dismissal_date"), said.date("stale_date")
    said.notification.check_start()
    activity = checks.identifier(said.activity_id, "activity_id")
    return requests.Start(
        id=activity,
        attributes_type=checks.attributes_type(
            said.activity_attributes_type, "activity_attributes_type"
        ),
        # The app's Braze attributes have the activity's id here, for its update token.
        attributes={**said.activity_attributes, "brazeActivityId": activity},
        content_state=said.content_state,
        presentation=said.notification.presentation(stale),
        # A past date ends the activity just after its start.
        end_at=None if dismissal is None else max(dismissal, now + 1.0),
        end_presentation=requests.Presentation() if dismissal is None else GONE,
        audience=read_target(body, now=now, max_ids=max_ids),
        dialect="braze",
    )


def read_update(body: Mapping[str, Any], *, now: float) -> requests.Update | requests.End:
    """Return the update or end that a body of ``/messages/live_activity/update`` requests.

    A ``dismissal_date`` removes the card at that time, or at once if it has passed; ``now`` is
    seconds since 1970. Raises `InvalidInput`.
    """
    said = reading.body(body, _Update)
    dismissal, stale = said.date("dismissal_date"), said.date("stale_date")
    passed = dismissal is not None and dismissal <= now
    presentation = said.notification.presentation(stale)
    activity = checks.identifier(said.activity_id, "activity_id")
    common: Any = {"id": activity, "content_state": said.content_state, "dialect": "braze"}
    if said.end_activity or passed:
        final = msgspec.structs.replace(presentation, dismissal_date=0.0 if passed else dismissal)
        return requests.End(presentation=final, **common)
    gone = requests.Presentation() if dismissal is None else GONE
    return requests.Update(
        presentation=presentation, end_at=dismissal, end_presentation=gone, **common
    )


def read_target(
    body: Mapping[str, Any], *, now: float, max_ids: int | None = MAX_EXTERNAL_IDS
) -> requests.Audience:
    """Return the audience of a start. Raises `InvalidInput` unless exactly one kind is given."""
    remedy = "Give external_user_ids, segment_id or custom_audience."
    name = reading.one_of(body, _TARGETS, InvalidInput(NO_RECIPIENTS, remedy=remedy))
    if name == "external_user_ids":
        return requests.Audience(
            users=reading.ids(body[name], name, most=max_ids, too_many=TOO_MANY_IDS)
        )
    if name == "segment_id":
        return requests.Audience(segments=(checks.identifier(body[name], name),))
    return requests.Audience(filter=read_audience(body[name], name, now=now))


class _Custom(msgspec.Struct, frozen=True):
    custom_attribute_name: Annotated[str, Meta(min_length=1)]
    comparison: Any = None
    value: Any = None


class _Subscription(msgspec.Struct, frozen=True):
    comparison: Literal["is", "is_not"]
    value: Literal["opted_in", "subscribed", "unsubscribed"]


class _LastUsed(msgspec.Struct, frozen=True):
    comparison: Literal["after", "before"]
    value: Any = None


_FILTERS: Mapping[str, type[_Custom | _Subscription | _LastUsed]] = {
    "custom_attribute": _Custom,
    "push_subscription_status": _Subscription,
    "last_used_app": _LastUsed,
}


def read_audience(value: object, field: str, *, now: float, depth: int = 0) -> Tree:
    """Return the filter tree of a connected audience; ``now`` is seconds since 1970.

    An unsupported condition is refused: if it were ignored, the push would go to everyone. Raises
    `InvalidInput` with the path of what is wrong. Source: Braze, "Connected audience object".
    """
    if depth > MAX_DEPTH:
        raise InvalidInput(f"is nested over {MAX_DEPTH} deep", field, "Flatten the groups.")
    if not isinstance(value, Mapping) or len(value) != 1:
        remedy = f"Give AND, OR or one of {', '.join(_FILTERS)}."
        raise InvalidInput("is not an object with exactly one key", field, remedy)
    [(name, inner)] = value.items()
    where = f"{field}.{name}"[:200]
    if name in ("AND", "OR"):
        if not isinstance(inner, list) or not inner:
            raise InvalidInput("is not a list, or is empty", where, "Give at least one filter.")
        deeper = partial(read_audience, now=now, depth=depth + 1)
        return {name.lower(): [deeper(part, f"{where}[{n}]") for n, part in enumerate(inner)]}
    if name not in _FILTERS:
        remedy = f"Use AND, OR, {', '.join(_FILTERS)}."
        raise InvalidInput("is a filter that this gateway does not have", where, remedy)
    said: Any = convert(inner, _FILTERS[name], where, remedy=reading.PAGE)
    if isinstance(said, _Custom):
        return _custom(said, where)
    if isinstance(said, _Subscription):
        enabled = (said.value != "unsubscribed") is (said.comparison == "is")
        return {"field": "push_enabled", "relation": "=", "value": enabled}
    hours = max(0.0, (now - reading.moment(said.value, f"{where}.value")) / 3600)
    relation = "<" if said.comparison == "after" else ">"
    return {"field": "last_session", "relation": relation, "hours_ago": hours}


def _custom(said: _Custom, field: str) -> Tree:
    base: Tree = {"field": "custom", "key": said.custom_attribute_name}
    comparison, value, where = said.comparison, said.value, f"{field}.value"
    if isinstance(comparison, str) and (relation := _PLAIN.get(comparison)) is not None:
        if relation in ("exists", "not_exists"):
            return {**base, "relation": relation}
        if relation in _ORDER:
            value = convert(value, float, where, remedy="Give a number.")
        elif not isinstance(value, (str, int, float)):
            raise InvalidInput("is missing", where, "Give a text, number or boolean.")
        return {**base, "relation": relation, "value": value}
    match comparison:
        case "after" | "before":
            relation = ">" if comparison == "after" else "<"
            # Dates are stored as milliseconds.
            return {**base, "relation": relation, "value": reading.moment(value, where) * 1000}
        case "less_than_x_days_ago" | "greater_than_x_days_ago":
            ahead = 1
        case "less_than_x_days_in_the_future" | "greater_than_x_days_in_the_future":
            ahead = -1
        case _:
            raise InvalidInput(
                f"{comparison!r:.60} is not a comparison of this gateway",
                f"{field}.comparison",
                "Regular expressions are not supported; "
                f"use one of {', '.join(_PLAIN)}, "
                "after, before, less_than_x_days_ago, greater_than_x_days_ago, "
                "less_than_x_days_in_the_future or greater_than_x_days_in_the_future.",
            )
    elapsed = ahead * _DAY * convert(value, _DAYS, where, remedy="Give 0 to 36500 days.")
    edges = {"time_elapsed_lt": max(0.0, elapsed), "time_elapsed_gt": min(0.0, elapsed)}
    if comparison.startswith("less"):
        return {"and": [{**base, "relation": name, "value": edge} for name, edge in edges.items()]}
    relation = "time_elapsed_gt" if ahead > 0 else "time_elapsed_lt"
    return {**base, "relation": relation, "value": elapsed}
