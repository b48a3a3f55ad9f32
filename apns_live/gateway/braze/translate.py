"""Converts Braze's bodies to requests of the service. Pure functions.

Source: Braze, "Start Live Activity", "Update Live Activity", "Apple push object" and "Apple push alert
object". Fields that are unknown are ignored, as there, and so is what only ordinary pushes have (badge,
buttons, category, custom_uri, asset_url, ...); numbers and booleans may come as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ...activities import checks
from ...activities.requests import (
    AlertText,
    Audience,
    CatalogText,
    End,
    Presentation,
    Start,
    Update,
)
from ...errors import InvalidInput
from .. import reading
from ..reading import LONG_PAST, Score
from .audience import read_audience
from .words import INVALID_EXTRA, NO_RECIPIENTS, TOO_MANY_IDS

MAX_EXTERNAL_IDS = 50
GONE = Presentation(dismiss_after=0.0)
"""What goes with the end at a dismissal date: the card leaves the Lock Screen at once."""
_RESERVED = frozenset({"ab", "aps"})
_NORMAL_PRIORITY = 5
_TARGETS = ("external_user_ids", "segment_id", "custom_audience", "audience")


class Alert(msgspec.Struct, frozen=True):
    """The alert object; ``*_loc_key`` name texts of the app's string catalogue."""

    title: str | None = None
    body: str | None = None
    sound: str | None = None
    title_loc_key: str | None = None
    title_loc_args: tuple[str, ...] | None = None
    loc_key: str | None = None
    loc_args: tuple[str, ...] | None = None

    def words(self) -> AlertText | None:
        """Return what is shown and heard, or None for nothing."""
        text = AlertText(
            title=self.title or "",
            body=self.body or "",
            sound=self.sound or None,
            title_key=_catalog(self.title_loc_key, self.title_loc_args),
            body_key=_catalog(self.loc_key, self.loc_args),
        )
        return None if text == AlertText(title="", body="") else text


class Notification(msgspec.Struct, frozen=True):
    """The apple_push object. 10 is the priority, 5 with content-available; ``apns_priority`` says otherwise."""

    alert: Alert | str | None = None
    extra: Any = None
    relevance_score: Score | None = None
    content_available: bool | None = msgspec.field(default=None, name="content-available")
    content_available_too: bool | None = msgspec.field(default=None, name="content_available")
    apns_priority: Annotated[int, Meta(ge=1, le=10)] | None = None

    def presentation(self, stale_date: float | None) -> Presentation:
        """Return what goes with a state. Raises `InvalidInput`."""
        extra, priority = self.extra, self.apns_priority
        alert = Alert(body=self.alert) if isinstance(self.alert, str) else self.alert
        if extra is not None and (not isinstance(extra, Mapping) or _RESERVED & extra.keys()):
            raise InvalidInput(
                INVALID_EXTRA,
                field="notification.extra",
                remedy="Give an object without the keys ab and aps.",
            )
        quiet = self.content_available or self.content_available_too
        if priority is not None:
            quiet = priority <= _NORMAL_PRIORITY
        return Presentation(
            alert=None if alert is None else alert.words(),
            # One that has passed long ago is drawn as outdated, too.
            stale_date=None if stale_date is None else max(stale_date, LONG_PAST),
            relevance_score=self.relevance_score,
            urgency="quiet" if quiet else None if priority is None else "urgent",
        )

    def check_start(self) -> None:
        """Raise `InvalidInput` without title and body: a phone ignores a start without an alert."""
        alert = self.alert
        if not isinstance(alert, Alert):
            raise InvalidInput(
                "is not an object",
                field="notification.alert",
                remedy="Give an object with title and body.",
            )
        for name, key in (("title", alert.title_loc_key), ("body", alert.loc_key)):
            if not (getattr(alert, name) or key):
                raise InvalidInput(
                    "is missing", field=f"notification.alert.{name}", remedy="Give a text."
                )


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """What both calls say."""

    app_id: str
    activity_id: str
    content_state: dict[str, Any]
    dismissal_date: Any = None
    stale_date: Any = None

    def dates(self) -> tuple[float | None, float | None]:
        """Return dismissal date and stale date in seconds since 1970. Raises `InvalidInput`."""
        dismissal, stale = self.dismissal_date, self.stale_date
        return (
            None if dismissal is None else reading.moment(dismissal, "dismissal_date"),
            None if stale is None else reading.moment(stale, "stale_date"),
        )


class _Start(_Said, frozen=True, kw_only=True):
    activity_attributes_type: str
    activity_attributes: dict[str, Any]
    notification: Notification


class _Update(_Said, frozen=True, kw_only=True):
    end_activity: bool = False
    notification: Notification = Notification()


def read_start(
    body: Mapping[str, Any], *, now: float, max_ids: int | None = MAX_EXTERNAL_IDS
) -> Start:
    """Return the start that a body of ``/messages/live_activity/start`` asks for.

    ``now`` is seconds since 1970. At ``dismissal_date`` the card goes away: a phone heeds that date
    with an end only, so the activity is ended then. Raises `InvalidInput`.
    """
    said = reading.body(body, _Start)
    dismissal, stale = said.dates()
    said.notification.check_start()
    activity = checks.identifier(said.activity_id, "activity_id")
    return Start(
        id=activity,
        attributes_type=checks.attributes_type(
            said.activity_attributes_type, "activity_attributes_type"
        ),
        # By this the app's Braze attributes know which activity an update token is for.
        attributes={**said.activity_attributes, "brazeActivityId": activity},
        content_state=said.content_state,
        presentation=said.notification.presentation(stale),
        # One that has passed: at once, but a card there must have been.
        end_at=None if dismissal is None else max(dismissal, now + 1.0),
        end_presentation=Presentation() if dismissal is None else GONE,
        audience=read_target(body, now=now, max_ids=max_ids),
        dialect="braze",
    )


def read_update(body: Mapping[str, Any], *, now: float) -> Update | End:
    """Return the update, or the end, that a body of ``/messages/live_activity/update`` asks for.

    A ``dismissal_date`` takes the card away then, and at once where it has passed; ``now`` is
    seconds since 1970. Raises `InvalidInput`.
    """
    said = reading.body(body, _Update)
    dismissal, stale = said.dates()
    passed = dismissal is not None and dismissal <= now
    presentation = said.notification.presentation(stale)
    activity = checks.identifier(said.activity_id, "activity_id")
    if said.end_activity or passed:
        final = msgspec.structs.replace(presentation, dismissal_date=0.0 if passed else dismissal)
        return End(
            id=activity, content_state=said.content_state, presentation=final, dialect="braze"
        )
    return Update(
        id=activity,
        content_state=said.content_state,
        presentation=presentation,
        end_at=dismissal,
        end_presentation=Presentation() if dismissal is None else GONE,
        dialect="braze",
    )


def read_target(
    body: Mapping[str, Any], *, now: float, max_ids: int | None = MAX_EXTERNAL_IDS
) -> Audience:
    """Return the audience of a start. Raises `InvalidInput` unless exactly one kind is given."""
    remedy = "Give external_user_ids, segment_id or custom_audience."
    name = reading.one_of(body, _TARGETS, InvalidInput(NO_RECIPIENTS, remedy=remedy))
    if name == "external_user_ids":
        return Audience(users=reading.ids(body[name], name, most=max_ids, too_many=TOO_MANY_IDS))
    if name == "segment_id":
        return Audience(segments=(checks.identifier(body[name], name),))
    return Audience(filter=read_audience(body[name], name, now=now))


def _catalog(key: str | None, args: tuple[str, ...] | None) -> CatalogText | None:
    return CatalogText(key=key, args=args or ()) if key else None
