"""The messages that can be pushed: Start, Update and End to a live activity, and ordinary pushes.

Apple, "Starting and updating Live Activities with ActivityKit push notifications" and "Generating a
remote notification". Rules that do not depend on the time are checked when a message is created, the
others in `encode`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from ..errors import InvalidPayload, InvalidToken
from ..refusals import refused
from .tokens import ChannelId, check_channel, check_collapse_id
from .values import DateInput, check_text

INTERRUPTION_LEVELS = ("passive", "active", "time-sensitive", "critical")
_LOC_NAMES = {"title": "title-loc", "subtitle": "subtitle-loc", "body": "loc"}
_LINES = ("launch_image", "category", "thread_id", "target_content_id", "filter_criteria")


@dataclass(frozen=True, slots=True)
class Localized:
    """Text from the app's string catalog: a key, and the values for its placeholders.

    Apple, "Starting and updating Live Activities with ActivityKit push notifications": an alert's
    title or body may be ``{"loc-key": ..., "loc-args": [...]}``.
    """

    loc_key: str
    args: Sequence[str] = ()

    def __post_init__(self) -> None:
        _line(self.loc_key, "loc_key")
        if isinstance(self.args, str) or not isinstance(self.args, Sequence):
            raise refused(InvalidPayload, "loc_args_kind", "args", kind=type(self.args).__name__)
        args = [_text(arg, f"args[{at}]", "loc_arg_kind") for at, arg in enumerate(self.args)]
        object.__setattr__(self, "args", tuple(args))


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """The alert of a live activity: title, body, and a sound.

    ``title`` and ``body`` are text or `Localized`. ``sound`` is a file in the app's bundle or
    ``"default"``. It is part of the alert, unlike the sound of ordinary pushes.
    Raises `InvalidPayload` when all three are missing.
    """

    title: str | Localized | None = None
    body: str | Localized | None = None
    sound: str | None = None

    def __post_init__(self) -> None:
        _words(self.title, "alert.title")
        _words(self.body, "alert.body")
        if self.sound is not None:
            _line(self.sound, "alert.sound")
        if not (self.title or self.body or self.sound):
            raise refused(InvalidPayload, "alert_empty", "alert")

    def as_json(self) -> dict[str, Any]:
        """Return the value of the ``alert`` key, with localisation nested as ActivityKit wants."""
        parts = {"title": self.title, "body": self.body, "sound": self.sound}
        return {key: _nested(words) for key, words in parts.items() if words is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalSound:
    """The sound of a critical alert, which plays even if the phone is muted.

    The app needs Apple's entitlement for critical alerts. ``volume`` is 0 (silent) to 1 (full).
    Source: Apple, "Generating a remote notification".
    """

    name: str = "default"
    volume: float = 1.0
    critical: bool = True

    def __post_init__(self) -> None:
        _line(self.name, "sound.name")
        if type(self.critical) is not bool:
            kind = type(self.critical).__name__
            raise refused(InvalidPayload, "boolean", "sound.critical", kind=kind)
        _fraction(self.volume, "sound.volume")

    def as_json(self) -> dict[str, Any]:
        """Return the value of the ``sound`` key."""
        return {"critical": int(self.critical), "name": self.name, "volume": self.volume}


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """The common fields of the messages of a live activity."""

    content_state: Any = None
    alert: Alert | None = None
    stale_date: DateInput | None = None
    relevance_score: float | None = None
    timestamp: DateInput | None = None
    priority: int | None = None
    expiration: DateInput | None = None
    custom: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        alert, score = self.alert, self.relevance_score
        if alert is not None and not isinstance(alert, Alert):
            raise refused(InvalidPayload, "alert_kind", "alert", kind=type(alert).__name__)
        if score is not None and not (is_number(score) and math.isfinite(score)):
            field = "relevance_score"
            raise refused(InvalidPayload, "relevance_score", field, relevance_score=score)


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
        _required(self.content_state, "content_state", "start_state_missing")
        name, field = self.attributes_type, "attributes_type"
        if name is None or name == "":
            raise refused(InvalidPayload, "attributes_type_missing", field)
        if not isinstance(name, str):
            raise refused(InvalidPayload, "attributes_type_kind", field, kind=type(name).__name__)
        if "." in name:
            bare = name.rpartition(".")[2]
            raise refused(InvalidPayload, "attributes_type_module", field, name=name, bare=bare)
        if not name.isidentifier():
            raise refused(InvalidPayload, "attributes_type_name", field, name=name)
        _required(self.attributes, "attributes", "attributes_missing")
        _required(self.alert, "alert", "start_alert_missing")
        for name in ("title", "body") if isinstance(self.alert, Alert) else ():
            if not getattr(self.alert, name):
                raise refused(InvalidPayload, "start_alert_words", f"alert.{name}")
        _State.__post_init__(self)
        if self.input_push_token is not None:
            _flag(self.input_push_token, "input_push_token")
        if self.input_push_channel is not None:
            if self.input_push_token:
                raise refused(InvalidPayload, "both_inputs", "input_push_token")
            try:
                check_channel(self.input_push_channel)
            except InvalidToken as error:
                field = "input_push_channel"
                raise InvalidToken(error.problem, field=field, remedy=error.remedy) from None
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
        _required(self.content_state, "content_state", "update_state_missing")
        _State.__post_init__(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class End(_State):
    """Ends a live activity. Pass the final state: the card may stay visible for 4 hours.

    ``dismissal_date`` is when the card is removed; a past date, or 0, removes it at once. Without
    one iOS chooses, at most 4 hours after the end. Other fields as in `Start`. ``priority`` is 10 and
    ``expiration`` 4 hours from now by default. Raises `InvalidPayload`.
    """

    event: ClassVar[str] = "end"

    dismissal_date: DateInput | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """An ordinary alert push, to the app's device token.

    - ``title``, ``subtitle``, ``body``: text, or `Localized` for the flat ``-loc-key`` forms.
    - ``badge``: the number on the app icon; 0 removes it. ``sound``: a file in the app's bundle,
      ``"default"``, or a `CriticalSound`.
    - ``interruption_level``: passive, active, time-sensitive or critical.
    - ``relevance_score``: 0 to 1, unlike an activity's.
    - ``mutable_content`` runs the service extension, ``content_available`` wakes the app too.
    - ``priority``: 10 (the default), 5 or 1. ``expiration``: a date input as in `Start`, 0 for one
      attempt; 24 hours from now by default.
    - ``collapse_id``: at most 64 bytes; a later push with the same one replaces this one.
    - ``custom``: keys beside ``aps``.

    Raises `InvalidPayload`.
    """

    event: ClassVar[str] = "alert"

    title: str | Localized | None = None
    subtitle: str | Localized | None = None
    body: str | Localized | None = None
    launch_image: str | None = None
    badge: int | None = None
    sound: str | CriticalSound | Mapping[str, Any] | None = None
    category: str | None = None
    thread_id: str | None = None
    interruption_level: Literal["passive", "active", "time-sensitive", "critical"] | None = None
    relevance_score: float | None = None
    mutable_content: bool = False
    content_available: bool = False
    target_content_id: str | None = None
    filter_criteria: str | None = None
    custom: Mapping[str, Any] | None = None
    collapse_id: str | None = None
    priority: int | None = None
    expiration: DateInput | None = None

    def __post_init__(self) -> None:
        for name in _LOC_NAMES:
            _words(getattr(self, name), name)
        for name in _LINES:
            if (line := getattr(self, name)) is not None:
                _line(line, name)
        if self.sound is not None:
            object.__setattr__(self, "sound", _sound(self.sound))
        badge, level = self.badge, self.interruption_level
        if badge is not None and (
            isinstance(badge, bool) or not isinstance(badge, int) or not 0 <= badge < 2**31
        ):
            raise refused(InvalidPayload, "badge", "badge", value=badge)
        if level is not None and level not in INTERRUPTION_LEVELS:
            field, choices = "interruption_level", ", ".join(INTERRUPTION_LEVELS)
            raise refused(InvalidPayload, field, field, level=level, choices=choices)
        if self.relevance_score is not None:
            _fraction(self.relevance_score, "relevance_score")
        _flag(self.mutable_content, "mutable_content")
        _flag(self.content_available, "content_available")
        if self.collapse_id is not None:
            check_collapse_id(self.collapse_id)
        words = self.title or self.subtitle or self.body
        if not words and badge is None and self.sound is None:
            raise refused(InvalidPayload, "notification_empty", "body")

    def as_aps(self) -> dict[str, Any]:
        """Return the value of the ``aps`` key."""
        alert: dict[str, Any] = {}
        for name, loc_name in _LOC_NAMES.items():
            words = getattr(self, name)
            if isinstance(words, Localized):
                alert[f"{loc_name}-key"] = words.loc_key
                if words.args:
                    alert[f"{loc_name}-args"] = list(words.args)
            elif words is not None:
                alert[name] = words
        if self.launch_image is not None:
            alert["launch-image"] = self.launch_image
        sound = self.sound.as_json() if isinstance(self.sound, CriticalSound) else self.sound
        aps = {
            "alert": alert or None,
            "badge": self.badge,
            "sound": sound,
            "category": self.category,
            "thread-id": self.thread_id,
            "interruption-level": self.interruption_level,
            "relevance-score": self.relevance_score,
            "target-content-id": self.target_content_id,
            "filter-criteria": self.filter_criteria,
            "mutable-content": 1 if self.mutable_content else None,
            "content-available": 1 if self.content_available else None,
        }
        return {key: value for key, value in aps.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """A silent push that wakes the app, to its device token.

    It always has priority 5, the only one that APNs accepts for it. ``expiration`` is a date
    input as in `Start`, 24 hours from now by default. Raises `InvalidPayload`.
    """

    event: ClassVar[str] = "background"

    custom: Mapping[str, Any] | None = None
    collapse_id: str | None = None
    expiration: DateInput | None = None

    def __post_init__(self) -> None:
        if self.collapse_id is not None:
            check_collapse_id(self.collapse_id)

    def as_aps(self) -> dict[str, Any]:
        """Return the value of the ``aps`` key."""
        return {"content-available": 1}


ActivityMessage: TypeAlias = Start | Update | End
Message: TypeAlias = ActivityMessage | Notification | Background


def is_number(value: object) -> bool:
    """Tell whether a value is an int or a float; a bool is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _required(value: object, field: str, saying: str) -> None:
    if value is None:
        raise refused(InvalidPayload, saying, field)


def _text(value: object, field: str, saying: str) -> str:
    if not isinstance(value, str):
        raise refused(InvalidPayload, saying, field, kind=type(value).__name__)
    return check_text(value, field)


def _words(value: object, field: str) -> None:
    """Refuse a value that is neither text, nor `Localized`, nor None."""
    if value is not None and not isinstance(value, Localized):
        _text(value, field, "words_kind")


def _line(value: object, field: str) -> str:
    """Return a non-empty text without control characters: a name, not prose."""
    line = _text(value, field, "line_kind")
    if not line:
        raise refused(InvalidPayload, "line_empty", field)
    if any(letter < " " or letter == "\x7f" for letter in line):
        raise refused(InvalidPayload, "line_control", field)
    return line


def _flag(value: object, field: str) -> None:
    if type(value) is not bool:
        raise refused(InvalidPayload, "flag", field, value=value)


def _fraction(value: Any, field: str) -> None:
    if not is_number(value) or not 0 <= value <= 1:
        raise refused(InvalidPayload, "fraction", field, value=value)


def _sound(value: object) -> str | CriticalSound:
    """Return a sound from a name, a `CriticalSound`, or a mapping with a `CriticalSound`'s fields."""
    if isinstance(value, CriticalSound):
        return value
    if not isinstance(value, Mapping):
        return _line(value, "sound")
    given = dict(value)
    critical = given.pop("critical", 1)
    fields = {name: given.pop(name) for name in ("name", "volume") if name in given}
    if given:
        raise refused(InvalidPayload, "sound_key", "sound", value=next(iter(given)))
    return CriticalSound(critical=bool(critical) if critical in (0, 1) else critical, **fields)


def _nested(words: str | Localized) -> str | dict[str, Any]:
    if not isinstance(words, Localized):
        return words
    nested: dict[str, Any] = {"loc-key": words.loc_key}
    return {**nested, "loc-args": list(words.args)} if words.args else nested
