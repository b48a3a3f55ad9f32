"""What can be set of one app, by the service and by the gateway's dialects."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInput
from . import checks
from .decodes import checked_contract

OWN = "x_"
"""How names begin that are the caller's own: they are kept, and nobody here reads them."""
_CHOICES = {
    "budget": ("default", "frequent", "observed", "observed-frequent"),
    "device_limit_ends": ("oldest", "least relevant"),
    "onesignal_device_calls": ("off", "signed", "open", "demo"),
}
_NUMBERS = ("device_limit", "braze_max_external_ids")
_IDS = ("braze_app_id", "onesignal_app_id", "fcm_project_id")
_KNOWN = (*_CHOICES, *_NUMBERS, *_IDS, "activitysmith", "contract", "fcm_unregistered", "language")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for an unknown name, and for a value that nobody could follow."""
    for name, value in settings.items():
        field = f"settings.{name}"[:80]
        if name not in _KNOWN and not name.startswith(OWN):
            near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.6)
            raise InvalidInput(
                "is not a setting of an app",
                field=field,
                remedy=f"Did you mean {near[0]}?"
                if near
                else f"Known: {', '.join(sorted(_KNOWN))}; names of your own begin with {OWN}.",
            )
        if value is not None:
            _check(name, value, field)


def _check(name: str, value: object, field: str) -> None:
    if name in _CHOICES and value not in _CHOICES[name]:
        raise InvalidInput(
            f"{value!r:.40} is not possible",
            field=field,
            remedy=f"Give {' or '.join(_CHOICES[name])}.",
        )
    if name in _NUMBERS and (type(value) is not int or value < 1):
        raise InvalidInput(
            f"{value!r:.40} is not a limit", field=field, remedy="Give 1 or more, or null for none."
        )
    if name in _IDS and not _are_texts(value):
        raise InvalidInput(
            f"{value!r:.40} is not an id", field=field, remedy="Give a text, or a list of texts."
        )
    if name == "fcm_unregistered" and not isinstance(value, bool):
        raise InvalidInput("is not a boolean", field=field, remedy="Give true or false.")
    if name == "activitysmith" and not isinstance(value, Mapping):
        raise InvalidInput("is not an object", field=field, remedy="Give a JSON object.")
    if name == "language":
        checks.language(value, field)
    if name == "contract":
        checked_contract(value)


def _are_texts(value: object) -> bool:
    texts = value if isinstance(value, list) and value else [value]
    return all(isinstance(text, str) and text for text in texts)
