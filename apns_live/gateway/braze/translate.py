"""Braze's bodies as requests of the service: pure functions, nothing is read or sent here.

Source: Braze, "Start Live Activity" and "Update Live Activity". Fields that are unknown are
ignored, as there; numbers and booleans may come as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...activities import checks
from ...activities.requests import End, Presentation, Start, Update
from ...activities.requests.audience import Audience
from ...errors import InvalidInput
from .. import reading
from .audience import read_audience
from .notification import Notification
from .words import NO_RECIPIENTS, TOO_MANY_IDS

MAX_EXTERNAL_IDS = 50
GONE = Presentation(dismiss_after=0.0)
"""What goes with the end at a dismissal date: the card leaves the Lock Screen at once."""
_TARGETS = ("external_user_ids", "segment_id", "custom_audience", "audience")


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
