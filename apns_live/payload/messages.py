"""Start, Update and End: what can be pushed to a live activity.

Apple, "Starting and updating Live Activities with ActivityKit push notifications". Rules that
do not depend on the time are checked when a message is created, the others in `encode`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from ..errors import InvalidPayload, InvalidToken
from ..refusals import refused
from .alert import Alert
from .dates import DateInput
from .notification import Background, Notification
from .tokens import ChannelId, check_channel, check_collapse_id


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What the messages of a live activity have in common."""

    content_state: Any = None
    alert: Alert | None = None
    stale_date: DateInput | None = None
    relevance_score: float | None = None
    timestamp: DateInput | None = None
    priority: int | None = None
    expiration: DateInput | None = None
    custom: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Start(_State):
    """Starts a live activity on a push-to-start token (iOS 17.2).

    Alert, attributes and attributes type are required: a phone ignores a start without them,
    although APNs answers 200.

    - ``content_state`` and ``attributes``: a mapping, dataclass, msgspec Struct or pydantic model,
      with exactly the names of the Swift properties.
    - ``attributes_type``: the Swift type's name, without its module.
    - ``stale_date``, ``timestamp``, ``expiration``: an aware datetime, a timedelta from now, or
      seconds since 1970. ``expiration`` 0 means one attempt; the default is 10 minutes from now.
    - ``relevance_score``: any finite number; the Dynamic Island shows the activity with the highest.
    - ``input_push_token``: ask for an update token (iOS 18). By default yes, unless
      ``input_push_channel`` names a channel to subscribe the activity to.
    - ``activity_id``: your own id of the activity, sent as the collapse id (64 bytes of ASCII).
    - ``priority``: 10 by default, or 5.
    - ``custom``: keys beside ``aps``.

    Raises `InvalidPayload` (and `InvalidToken` for the channel).
    """

    event: ClassVar[str] = "start"

    attributes_type: str | None = None
    attributes: Any = None
    input_push_token: bool | None = None
    input_push_channel: ChannelId | str | None = None
    activity_id: str | None = None

    def __post_init__(self) -> None:
        if self.content_state is None:
            raise refused(InvalidPayload, "start_state_missing", "content_state")
        _check_attributes_type(self.attributes_type)
        if self.attributes is None:
            raise refused(InvalidPayload, "attributes_missing", "attributes")
        if self.alert is None:
            raise refused(InvalidPayload, "start_alert_missing", "alert")
        for name in ("title", "body") if isinstance(self.alert, Alert) else ():
            if not getattr(self.alert, name):
                raise refused(InvalidPayload, "start_alert_words", f"alert.{name}")
        _check_common(self.alert, self.relevance_score)
        if self.input_push_token is not None and type(self.input_push_token) is not bool:
            raise refused(InvalidPayload, "flag", "input_push_token", value=self.input_push_token)
        if self.input_push_channel is not None:
            if self.input_push_token:
                raise refused(InvalidPayload, "both_inputs", "input_push_token")
            try:
                check_channel(self.input_push_channel)
            except InvalidToken as error:
                raise InvalidToken(
                    error.problem, field="input_push_channel", remedy=error.remedy
                ) from None
        if self.activity_id is not None:
            check_collapse_id(self.activity_id, "activity_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update(_State):
    """Updates a running live activity, on its activity token or on a broadcast channel.

    Fields as in `Start`. ``priority`` is 5 by default, 10 with an alert; priority 10 counts against
    the phone's hourly budget. ``expiration`` by default is the stale date, at most an hour from now;
    without a stale date an hour, or 15 minutes when silent. Raises `InvalidPayload`.
    """

    event: ClassVar[str] = "update"

    def __post_init__(self) -> None:
        if self.content_state is None:
            raise refused(InvalidPayload, "update_state_missing", "content_state")
        _check_common(self.alert, self.relevance_score)


@dataclass(frozen=True, slots=True, kw_only=True)
class End(_State):
    """Ends a live activity. Pass the final state: the card may stay visible for 4 hours.

    ``dismissal_date`` is when the card is removed; a past date, or 0, removes it at once. Without
    one iOS chooses, at most 4 hours after the end. Other fields as in `Start`. ``priority`` is 10 and
    ``expiration`` 4 hours from now by default. Raises `InvalidPayload`.
    """

    event: ClassVar[str] = "end"

    dismissal_date: DateInput | None = None

    def __post_init__(self) -> None:
        _check_common(self.alert, self.relevance_score)


Message: TypeAlias = Start | Update | End | Notification | Background
ActivityMessage: TypeAlias = Start | Update | End


def _check_attributes_type(name: object) -> None:
    field = "attributes_type"
    if name is None or name == "":
        raise refused(InvalidPayload, "attributes_type_missing", field)
    if not isinstance(name, str):
        raise refused(InvalidPayload, "attributes_type_kind", field, kind=type(name).__name__)
    if "." in name:
        raise refused(
            InvalidPayload, "attributes_type_module", field, name=name, bare=name.rpartition(".")[2]
        )
    if not name.isidentifier():
        raise refused(InvalidPayload, "attributes_type_name", field, name=name)


def _check_common(alert: object, relevance_score: object) -> None:
    if alert is not None and not isinstance(alert, Alert):
        raise refused(InvalidPayload, "alert_kind", "alert", kind=type(alert).__name__)
    if relevance_score is not None and (
        isinstance(relevance_score, bool)
        or not isinstance(relevance_score, (int, float))
        or not math.isfinite(relevance_score)
    ):
        raise refused(
            InvalidPayload, "relevance_score", "relevance_score", relevance_score=relevance_score
        )
