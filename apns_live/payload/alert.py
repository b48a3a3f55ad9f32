"""Text and sound of an alert, for live activities and for ordinary pushes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidPayload
from ..refusals import refused
from .values import check_text


@dataclass(frozen=True, slots=True)
class Localized:
    """Text from the app's string catalog: a key, and the values for its placeholders.

    Apple, "Starting and updating Live Activities with ActivityKit push notifications": an alert's
    title or body may be ``{"loc-key": ..., "loc-args": [...]}``.
    """

    loc_key: str
    args: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_line(self.loc_key, "loc_key")
        if isinstance(self.args, str) or not isinstance(self.args, Sequence):
            raise refused(InvalidPayload, "loc_args_kind", "args", kind=type(self.args).__name__)
        for index, value in enumerate(self.args):
            if not isinstance(value, str):
                raise refused(
                    InvalidPayload, "loc_arg_kind", f"args[{index}]", kind=type(value).__name__
                )
        object.__setattr__(
            self, "args", tuple(check_text(v, f"args[{i}]") for i, v in enumerate(self.args))
        )


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
        check_words(self.title, "alert.title")
        check_words(self.body, "alert.body")
        if self.sound is not None:
            check_line(self.sound, "alert.sound")
        if not (self.title or self.body or self.sound):
            raise refused(InvalidPayload, "alert_empty", "alert")

    def as_json(self) -> dict[str, Any]:
        """Return the value of the ``alert`` key, with localisation nested as ActivityKit wants."""
        words: dict[str, Any] = {}
        if self.title is not None:
            words["title"] = _nested(self.title)
        if self.body is not None:
            words["body"] = _nested(self.body)
        if self.sound is not None:
            words["sound"] = self.sound
        return words


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
        check_line(self.name, "sound.name")
        if type(self.critical) is not bool:
            raise refused(
                InvalidPayload, "boolean", "sound.critical", kind=type(self.critical).__name__
            )
        check_fraction(self.volume, "sound.volume")

    def as_json(self) -> dict[str, Any]:
        """Return the value of the ``sound`` key."""
        return {"critical": int(self.critical), "name": self.name, "volume": self.volume}


def sound_from(value: object) -> str | CriticalSound:
    """Return a sound given as a name, a `CriticalSound`, or a mapping with that one's fields."""
    if isinstance(value, CriticalSound):
        return value
    if isinstance(value, Mapping):
        unknown = [key for key in value if key not in {"critical", "name", "volume"}]
        if unknown:
            raise refused(InvalidPayload, "sound_key", "sound", value=unknown[0])
        critical = value.get("critical", 1)
        return CriticalSound(
            name=value.get("name", "default"),
            volume=value.get("volume", 1.0),
            critical=bool(critical) if critical in (0, 1) else critical,
        )
    return check_line(value, "sound")


def check_words(value: object, field: str) -> None:
    """Refuse what is neither text, nor `Localized`, nor None."""
    if value is None or isinstance(value, Localized):
        return
    if not isinstance(value, str):
        raise refused(InvalidPayload, "words_kind", field, kind=type(value).__name__)
    check_text(value, field)


def check_line(value: object, field: str) -> str:
    """Return a non-empty text without control characters: a name, not prose."""
    if not isinstance(value, str):
        raise refused(InvalidPayload, "line_kind", field, kind=type(value).__name__)
    if not value:
        raise refused(InvalidPayload, "line_empty", field)
    if any(letter < " " or letter == "\x7f" for letter in value):
        raise refused(InvalidPayload, "line_control", field)
    return check_text(value, field)


def check_fraction(value: object, field: str) -> None:
    """Refuse anything but a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise refused(InvalidPayload, "fraction", field, value=value)


def _nested(words: str | Localized) -> str | dict[str, Any]:
    if isinstance(words, Localized):
        nested: dict[str, Any] = {"loc-key": words.loc_key}
        if words.args:
            nested["loc-args"] = list(words.args)
        return nested
    return words
