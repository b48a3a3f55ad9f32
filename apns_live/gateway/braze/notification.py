"""The apple_push object: what of it a Live Activity can use.

Source: Braze, "Apple push object" and "Apple push alert object". What only ordinary pushes have
(badge, buttons, category, custom_uri, asset_url, ...) is accepted and means nothing here, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ...activities.requests import AlertText, CatalogText, Urgency
from ...errors import InvalidInput
from ..reading import read, score, text
from .words import INVALID_EXTRA

_RESERVED = frozenset({"ab", "aps"})
_NORMAL_PRIORITY = 5
_PRIORITY: Any = Annotated[int, Meta(ge=1, le=10)]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What an apple_push object says of a Live Activity."""

    alert: AlertText | None = None
    relevance_score: float | None = None
    urgency: Urgency | None = None


def read_notification(value: object, field: str = "notification", *, start: bool) -> Shown:
    """Return what counts of the object. Raises `InvalidInput`.

    ``start`` asks for an alert with title and body: a phone ignores a start without one.
    """
    if value is None and not start:
        return Shown()
    value = read(value, dict[str, Any], field, "Give an apple_push object with an alert.")
    _check_extra(value.get("extra"), f"{field}.extra")
    return Shown(
        alert=_alert(value.get("alert"), f"{field}.alert", required=start),
        relevance_score=score(value.get("relevance_score"), f"{field}.relevance_score"),
        urgency=_urgency(value, field),
    )


def _check_extra(value: object, field: str) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping) or _RESERVED & value.keys():
        raise InvalidInput(
            INVALID_EXTRA, field=field, remedy="Give an object without the keys ab and aps."
        )


def _urgency(value: Mapping[str, Any], field: str) -> Urgency | None:
    """10 by default, 5 with content-available; ``apns_priority`` says otherwise."""
    priority = value.get("apns_priority")
    if priority is not None:
        remedy = "Give 10 to wake the screen, 5 to spare the battery."
        priority = read(priority, _PRIORITY, f"{field}.apns_priority", remedy)
        return "urgent" if priority > _NORMAL_PRIORITY else "quiet"
    available = value.get("content-available", value.get("content_available"))
    return "quiet" if available is True or available in (1, "1") else None


def _alert(value: object, field: str, *, required: bool) -> AlertText | None:
    if value is None and not required:
        return None
    if isinstance(value, str) and not required:
        return AlertText(title="", body=value)
    value = read(value, dict[str, Any], field, "Give an object with title and body.")
    title_key = _key(value, "title_loc_key", "title_loc_args", field)
    body_key = _key(value, "loc_key", "loc_args", field)
    title = text(value, "title", field, required=required and title_key is None)
    body = text(value, "body", field, required=required and body_key is None)
    sound = text(value, "sound", field)
    if not any((title, body, sound, title_key, body_key)):
        return None
    return AlertText(
        title=title or "",
        body=body or "",
        sound=sound or None,
        title_key=title_key,
        body_key=body_key,
    )


def _key(alert: Mapping[str, Any], name: str, args_name: str, field: str) -> CatalogText | None:
    """Return a text of the app's string catalogue."""
    key = text(alert, name, field)
    args = alert.get(args_name)
    if not key:
        return None
    texts = read(
        args or (), tuple[str, ...], f"{field}.{args_name}", "Give texts, or leave it out."
    )
    return CatalogText(key=key, args=texts)
