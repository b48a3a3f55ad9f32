"""The apple_push object: what of it a Live Activity can use.

Source: Braze, "Apple push object" and "Apple push alert object". What only ordinary pushes have
(badge, buttons, category, custom_uri, asset_url, ...) is accepted and means nothing here, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ...activities.requests import AlertText, CatalogText, Presentation
from ...errors import InvalidInput
from ..reading import LONG_PAST, Score
from .words import INVALID_EXTRA

_RESERVED = frozenset({"ab", "aps"})
_NORMAL_PRIORITY = 5


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
    """The object. 10 is the priority, 5 with content-available; ``apns_priority`` says otherwise."""

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


def _catalog(key: str | None, args: tuple[str, ...] | None) -> CatalogText | None:
    return CatalogText(key=key, args=args or ()) if key else None
