"""Scopes: the permissions of a key. Each vendor's API maps its own permissions to these."""

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from ..errors import InvalidInput

Dialect = Literal["native", "activitysmith", "braze", "onesignal", "fcm"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

SCOPES: Mapping[str, str] = {
    "activities:start": "start activities",
    "activities:update": "give activities a new state",
    "activities:end": "end activities",
    "activities:read": "read activities and their history",
    "streams:write": "put, end, pause and resume streams",
    "notifications:send": "send ordinary notifications",
    "devices:write": "tell of devices, users, groups and tokens; mint device credentials",
    "devices:read": "read devices, users and groups",
    "audiences:read": "read segments, count an audience",
    "audiences:write": "save and delete segments",
    "channels:write": "create and delete broadcast channels",
    "operations:read": "read operations, outcomes and receipts",
    "admin": "manage the app, its provider keys and API keys; read the audit log",
}
ALL = frozenset(SCOPES)
SENDING = ("activities:start", "activities:update", "activities:end", "notifications:send")
"""What a service account may do when its maker names nothing: it has no other calls."""


def check_scopes(names: Iterable[str], field: str = "scopes") -> frozenset[str]:
    """Return the names as a set. Raises `InvalidInput` for an unknown name or an empty list."""
    chosen, remedy = frozenset(names), f"Known: {', '.join(SCOPES)}."
    for name in chosen - ALL:
        raise InvalidInput(f"{name!r:.60} is not a valid scope", field, remedy)
    if not chosen:
        raise InvalidInput("names no scope", field, remedy)
    return chosen


def check_dialect(name: str, field: str = "dialect") -> Dialect:
    """Return the name of a dialect. Raises `InvalidInput` if it is unknown."""
    if name not in DIALECTS:
        problem = f"{name!r:.40} is not a valid dialect"
        raise InvalidInput(problem, field, f"Known: {', '.join(DIALECTS)}.")
    return name
