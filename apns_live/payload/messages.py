"""Start, Update and End: what can be pushed to a live activity.

Apple, "Starting and updating Live Activities with ActivityKit push notifications". What does not
depend on the time is checked when a message is made, the rest in `encode`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from ..errors import InvalidPayload, InvalidToken
from .alert import Alert
from .dates import DateInput
from .notification import Background, Notification
from .tokens import ChannelId, check_channel, check_collapse_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Starts a live activity on a push-to-start token (iOS 17.2).

    The phone drops a start without alert, attributes or attributes type while APNs answers 200,
    so all of them are needed here.

    - ``content_state`` and ``attributes``: a mapping, dataclass, msgspec Struct or pydantic model,
      with exactly the names of the Swift properties.
    - ``attributes_type``: the Swift type's name, without its module.
    - ``stale_date``, ``timestamp``, ``expiration``: an aware datetime, a timedelta from now, or
      seconds since 1970. ``expiration`` 0 means one attempt; the default is 10 minutes from now.
    - ``relevance_score``: any finite number, the highest wins the Dynamic Island.
    - ``input_push_token``: ask for an update token (iOS 18). By default yes, unless
      ``input_push_channel`` names a channel to subscribe the activity to.
    - ``activity_id``: your own id of the activity, sent as the collapse id (64 bytes of ASCII).
    - ``priority``: 10 by default, or 5.
    - ``custom``: keys beside ``aps``.

    Raises `InvalidPayload` (and `InvalidToken` for the channel).
    """

    event: ClassVar[str] = "start"

    content_state: Any = None
    attributes_type: str | None = None
    attributes: Any = None
    alert: Alert | None = None
    stale_date: DateInput | None = None
    relevance_score: float | None = None
    timestamp: DateInput | None = None
    input_push_token: bool | None = None
    input_push_channel: ChannelId | str | None = None
    activity_id: str | None = None
    priority: int | None = None
    expiration: DateInput | None = None
    custom: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.content_state is None:
            raise InvalidPayload(
                "is missing",
                field="content_state",
                remedy="A start shows a first state: pass the fields of the Swift ContentState.",
            )
        _check_attributes_type(self.attributes_type)
        if self.attributes is None:
            raise InvalidPayload(
                "is missing",
                field="attributes",
                remedy="Pass the activity's fixed attributes, {} if the Swift type has none.",
            )
        _check_start_alert(self.alert)
        _check_common(self.alert, self.relevance_score)
        if self.input_push_token is not None and type(self.input_push_token) is not bool:
            raise InvalidPayload(
                f"is {self.input_push_token!r:.40}, not a boolean",
                field="input_push_token",
                remedy="Pass True or False; it is sent as 1 or left out.",
            )
        if self.input_push_channel is not None:
            if self.input_push_token:
                raise InvalidPayload(
                    "was asked for together with input_push_channel",
                    field="input_push_token",
                    remedy="Choose one: an update token of its own, or a channel to listen to.",
                )
            try:
                check_channel(self.input_push_channel)
            except InvalidToken as error:
                raise InvalidToken(
                    error.problem, field="input_push_channel", remedy=error.remedy
                ) from None
        if self.activity_id is not None:
            check_collapse_id(self.activity_id, "activity_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """Updates a running live activity, on its activity token or on a broadcast channel.

    Fields as in `Start`. ``priority`` is 5 by default, 10 with an alert; priority 10 counts against
    the phone's hourly budget. ``expiration`` by default is the stale date, at most an hour from now;
    without a stale date an hour, or 15 minutes when silent. Raises `InvalidPayload`.
    """

    event: ClassVar[str] = "update"

    content_state: Any = None
    alert: Alert | None = None
    stale_date: DateInput | None = None
    relevance_score: float | None = None
    timestamp: DateInput | None = None
    priority: int | None = None
    expiration: DateInput | None = None
    custom: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.content_state is None:
            raise InvalidPayload(
                "is missing",
                field="content_state",
                remedy="An update is its new state: pass all fields of the Swift ContentState.",
            )
        _check_common(self.alert, self.relevance_score)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Ends a live activity. Give the final state: the card may stay visible for 4 hours.

    ``dismissal_date`` removes the card then; a past date, or 0, removes it at once; without one the
    system chooses, at most 4 hours from the end. Other fields as in `Start`. ``priority`` is 10 and
    ``expiration`` 4 hours from now by default. Raises `InvalidPayload`.
    """

    event: ClassVar[str] = "end"

    content_state: Any = None
    alert: Alert | None = None
    dismissal_date: DateInput | None = None
    stale_date: DateInput | None = None
    relevance_score: float | None = None
    timestamp: DateInput | None = None
    priority: int | None = None
    expiration: DateInput | None = None
    custom: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_common(self.alert, self.relevance_score)


Message: TypeAlias = Start | Update | End | Notification | Background
ActivityMessage: TypeAlias = Start | Update | End


def _check_attributes_type(name: object) -> None:
    field = "attributes_type"
    if name is None or name == "":
        raise InvalidPayload(
            "is missing",
            field=field,
            remedy="Pass the name of the Swift ActivityAttributes type, such as 'ScoreAttributes'.",
        )
    if not isinstance(name, str):
        raise InvalidPayload(
            f"is a {type(name).__name__}, not text",
            field=field,
            remedy="Pass the name of the Swift ActivityAttributes type as text.",
        )
    if "." in name:
        raise InvalidPayload(
            f"{name!r:.80} has a module or an outer type in front",
            field=field,
            remedy=f"Pass the type's name alone: {name.rpartition('.')[2]!r:.80}.",
        )
    if not name.isidentifier():
        raise InvalidPayload(
            f"{name!r:.80} is no name of a Swift type",
            field=field,
            remedy="Pass the name exactly as the Swift source declares it, such as 'ScoreAttributes'.",
        )


def _check_start_alert(alert: object) -> None:
    if alert is None:
        raise InvalidPayload(
            "is missing",
            field="alert",
            remedy="The phone drops a start without one: pass Alert(title=..., body=...).",
        )
    if isinstance(alert, Alert):
        for name in ("title", "body"):
            if not getattr(alert, name):
                raise InvalidPayload(
                    "is missing",
                    field=f"alert.{name}",
                    remedy="The alert of a start needs a title and a body.",
                )


def _check_common(alert: object, relevance_score: object) -> None:
    if alert is not None and not isinstance(alert, Alert):
        raise InvalidPayload(
            f"is a {type(alert).__name__}, not an Alert",
            field="alert",
            remedy="Pass Alert(title=..., body=..., sound=...).",
        )
    if relevance_score is not None and (
        isinstance(relevance_score, bool)
        or not isinstance(relevance_score, (int, float))
        or not math.isfinite(relevance_score)
    ):
        raise InvalidPayload(
            f"is {relevance_score!r:.40}, not a finite number",
            field="relevance_score",
            remedy="Pass any finite number; the activity with the highest wins the Dynamic Island.",
        )
