"""Notification and Background: ordinary pushes.

Apple, "Generating a remote notification".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..errors import InvalidPayload
from ..refusals import refused
from .alert import CriticalSound, Localized, check_fraction, check_line, check_words, sound_from
from .dates import DateInput
from .tokens import check_collapse_id

INTERRUPTION_LEVELS = ("passive", "active", "time-sensitive", "critical")
_LOC_NAMES = {"title": "title-loc", "subtitle": "subtitle-loc", "body": "loc"}
_NAMES = ("launch_image", "category", "thread_id", "target_content_id", "filter_criteria")


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
            check_words(getattr(self, name), name)
        for name in _NAMES:
            value = getattr(self, name)
            if value is not None:
                check_line(value, name)
        if self.sound is not None:
            object.__setattr__(self, "sound", sound_from(self.sound))
        if self.badge is not None and (
            isinstance(self.badge, bool)
            or not isinstance(self.badge, int)
            or not 0 <= self.badge < 2**31
        ):
            raise refused(InvalidPayload, "badge", "badge", value=self.badge)
        level = self.interruption_level
        if level is not None and level not in INTERRUPTION_LEVELS:
            raise refused(
                InvalidPayload,
                "interruption_level",
                "interruption_level",
                level=level,
                choices=", ".join(INTERRUPTION_LEVELS),
            )
        if self.relevance_score is not None:
            check_fraction(self.relevance_score, "relevance_score")
        for name in ("mutable_content", "content_available"):
            if type(getattr(self, name)) is not bool:
                raise refused(InvalidPayload, "flag", name, value=getattr(self, name))
        if self.collapse_id is not None:
            check_collapse_id(self.collapse_id)
        words = self.title or self.subtitle or self.body
        if not words and self.badge is None and self.sound is None:
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
        aps: dict[str, Any] = {"alert": alert} if alert else {}
        if self.badge is not None:
            aps["badge"] = self.badge
        if self.sound is not None:
            aps["sound"] = (
                self.sound.as_json() if isinstance(self.sound, CriticalSound) else self.sound
            )
        rest = (
            ("category", self.category),
            ("thread-id", self.thread_id),
            ("interruption-level", self.interruption_level),
            ("relevance-score", self.relevance_score),
            ("target-content-id", self.target_content_id),
            ("filter-criteria", self.filter_criteria),
        )
        aps.update((key, value) for key, value in rest if value is not None)
        if self.mutable_content:
            aps["mutable-content"] = 1
        if self.content_available:
            aps["content-available"] = 1
        return aps


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
