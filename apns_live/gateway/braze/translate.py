"""Braze's bodies as requests of the service: pure functions, nothing is read or sent here.

Source: Braze, "Start Live Activity" and "Update Live Activity". Fields that are unknown are
ignored, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from ...activities import checks
from ...activities.requests import End, Presentation, Start, Update
from ...activities.requests.audience import Audience
from ...errors import InvalidInput
from .. import reading
from .audience import read_audience
from .dates import read_date
from .notification import read_notification
from .words import NO_RECIPIENTS, TOO_MANY_IDS

MAX_EXTERNAL_IDS = 50
GONE = Presentation(dismiss_after=0.0)
"""What goes with the end at a dismissal date: the card leaves the Lock Screen at once."""
_TARGETS = ("external_user_ids", "segment_id", "custom_audience", "audience")


Request = TypeVar("Request")


class Asked(msgspec.Struct, Generic[Request], frozen=True, kw_only=True):
    """A request of the service, and the app that the body names."""

    app_id: str
    request: Request


def read_start(
    body: Mapping[str, Any], *, now: float, max_ids: int | None = MAX_EXTERNAL_IDS
) -> Asked[Start]:
    """Return the start that a body of ``/messages/live_activity/start`` asks for.

    ``now`` is seconds since 1970. At ``dismissal_date`` the card goes away: a phone heeds that date
    with an end only, so the activity is ended then. Raises `InvalidInput`.
    """
    activity = _identifier(body, "activity_id")
    dismissal = _date(body, "dismissal_date")
    shown = read_notification(body.get("notification"), start=True)
    return Asked(
        app_id=_identifier(body, "app_id"),
        request=Start(
            id=activity,
            attributes_type=checks.attributes_type(
                body.get("activity_attributes_type"), "activity_attributes_type"
            ),
            # By this the app's Braze attributes know which activity an update token is for.
            attributes={**_object(body, "activity_attributes"), "brazeActivityId": activity},
            content_state=_object(body, "content_state"),
            presentation=Presentation(
                alert=shown.alert,
                stale_date=_date(body, "stale_date"),
                relevance_score=shown.relevance_score,
                urgency=shown.urgency,
            ),
            # One that has passed: at once, but a card there must have been.
            end_at=None if dismissal is None else max(dismissal, now + 1.0),
            end_presentation=Presentation() if dismissal is None else GONE,
            audience=read_target(body, now=now, max_ids=max_ids),
            dialect="braze",
        ),
    )


def read_update(body: Mapping[str, Any], *, now: float) -> Asked[Update | End]:
    """Return the update, or the end, that a body of ``/messages/live_activity/update`` asks for.

    A ``dismissal_date`` takes the card away then, and at once where it has passed; ``now`` is
    seconds since 1970. Raises `InvalidInput`.
    """
    activity = _identifier(body, "activity_id")
    content_state = _object(body, "content_state")
    given = body.get("end_activity")
    ends = given is not None and reading.read(given, bool, "end_activity", "Give true or false.")
    shown = read_notification(body.get("notification"), start=False)
    dismissal = _date(body, "dismissal_date")
    passed = dismissal is not None and dismissal <= now
    presentation = Presentation(
        alert=shown.alert,
        stale_date=_date(body, "stale_date"),
        relevance_score=shown.relevance_score,
        urgency=shown.urgency,
    )
    request: Update | End
    if ends or passed:
        final = msgspec.structs.replace(presentation, dismissal_date=0.0 if passed else dismissal)
        request = End(id=activity, content_state=content_state, presentation=final, dialect="braze")
    else:
        request = Update(
            id=activity,
            content_state=content_state,
            presentation=presentation,
            end_at=dismissal,
            end_presentation=Presentation() if dismissal is None else GONE,
            dialect="braze",
        )
    return Asked(app_id=_identifier(body, "app_id"), request=request)


def read_target(
    body: Mapping[str, Any], *, now: float, max_ids: int | None = MAX_EXTERNAL_IDS
) -> Audience:
    """Return the audience of a start. Raises `InvalidInput` unless exactly one kind is given."""
    remedy = "Give external_user_ids, segment_id or custom_audience."
    name = reading.one_of(body, _TARGETS, InvalidInput(NO_RECIPIENTS, remedy=remedy))
    if name == "external_user_ids":
        return Audience(users=reading.ids(body[name], name, most=max_ids, too_many=TOO_MANY_IDS))
    if name == "segment_id":
        return Audience(segments=(_identifier(body, name),))
    return Audience(filter=read_audience(body[name], name, now=now))


def _identifier(body: Mapping[str, Any], name: str) -> str:
    return checks.identifier(body.get(name), name)


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    return reading.as_object(body.get(name), name)


def _date(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    return None if value is None else read_date(value, name)
