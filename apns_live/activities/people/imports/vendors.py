"""Reads the exports of vendors, with their column names.

Vendors export tokens for ordinary pushes, but no push-to-start or activity tokens; those come from the
app. The column names follow the vendors' documentation (OneSignal, "Export subscriptions CSV"; Braze,
"User export object"). Columns may be absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ....errors import InvalidInput
from ..records import moment
from .fields import Facts, facts_of

Translate = Callable[[Mapping[str, Any], int, int], Facts | None]
_IOS = "0"  # OneSignal's device_type
_ONESIGNAL: dict[str, str] = {
    "external_user_id": "user",
    "language": "language",
    "country": "country",
    "game_version": "app_version",
    "device_os": "os_version",
    "session_count": "session_count",
    "playtime": "session_time",
    "amount_spent": "amount_spent",
}
_BRAZE_DEVICE = {"country": "country", "language": "language"}


def onesignal(values: Mapping[str, Any], now: int, registered_at: int) -> Facts | None:
    """Return what a line of OneSignal's CSV tells; None for another platform than iOS.

    The token counts as registered at ``last_active``: the SDK hands it in at every launch. Raises
    `InvalidInput`.
    """
    if values.get("device_type", _IOS) not in {_IOS, "iOS", ""}:
        return None
    made: dict[str, Any] = {"id": values.get("id") or values.get("player_id")}
    made.update({ours: values[theirs] for theirs, ours in _ONESIGNAL.items() if values.get(theirs)})
    for theirs, ours in (("created_at", "first_session"), ("last_active", "last_session")):
        if values.get(theirs):
            made[ours] = _utc(values[theirs], theirs)
    if values.get("location"):
        made["latitude"], made["longitude"] = _place(values["location"])
    if values.get("tags"):
        made["tags"] = _tags(values["tags"])
    invalid = str(values.get("invalid_identifier", "")).casefold() in {"t", "true", "1"}
    if invalid:
        made["push_enabled"] = "false"
    elif values.get("identifier"):
        made["device_token"] = values["identifier"]
        made["registered_at"] = made.get("last_session", registered_at)
    return facts_of("devices", made, texts=True, now=now, registered_at=registered_at)


def braze(values: Mapping[str, Any], now: int, registered_at: int) -> Facts | None:
    """Return what a line of Braze's user export tells: a user, and a device for each iOS token.

    A user without an external id is not stored, the devices are. Raises `InvalidInput`.
    """
    user = values.get("external_id")
    told = {ours: values[theirs] for theirs, ours in _BRAZE_DEVICE.items() if values.get(theirs)}
    if isinstance(told.get("country"), str):
        told["country"] = told["country"].upper()
    if user is not None:
        told["user"] = user
    place = values.get("last_coordinates")
    if isinstance(place, list) and len(place) == 2:
        told["longitude"], told["latitude"] = place
    facts = Facts()
    if user is not None:
        aliases = values.get("user_aliases") or []
        person = {
            "id": user,
            "attributes": values.get("custom_attributes") or {},
            "aliases": {
                alias.get("alias_label"): alias.get("alias_name")
                for alias in aliases
                if isinstance(alias, dict)
            },
        }
        facts.users.extend(facts_of("users", person, texts=False, now=now).users)
    for token in values.get("push_tokens") or []:
        if not isinstance(token, dict) or str(token.get("platform", "")).casefold() != "ios":
            continue
        device = {
            **told,
            "id": token.get("device_id"),
            "device_token": token.get("token"),
            "push_enabled": token.get("notifications_enabled"),
        }
        one = facts_of("devices", device, texts=False, now=now, registered_at=registered_at)
        facts.devices.extend(one.devices)
        facts.tokens.extend(one.tokens)
    return facts if facts.users or facts.devices else None


VENDORS: dict[str, Translate] = {"onesignal": onesignal, "braze": braze}


def _utc(value: str, field: str) -> int:
    """OneSignal writes ``2026-01-31 20:00:00 UTC``, without the zone in older exports, or seconds."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return moment(int(text) * 1000 if len(text) <= 10 else int(text), field)
    try:
        return moment(text, field)
    except InvalidInput:
        return moment(f"{text} UTC", field)


def _place(value: str) -> tuple[str, str]:
    latitude, comma, longitude = value.strip("() ").partition(",")
    if not comma:
        raise InvalidInput(
            "is not a valid place", field="location", remedy="It is latitude,longitude in degrees."
        )
    return latitude.strip(), longitude.strip()


def _tags(value: str) -> dict[str, Any]:
    try:
        tags = msgspec.json.decode(value)
    except msgspec.DecodeError:
        tags = None
    if not isinstance(tags, dict):
        raise InvalidInput("is not a JSON object", field="tags", remedy="Export the list again.")
    return tags
