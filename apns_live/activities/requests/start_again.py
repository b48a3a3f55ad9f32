"""Where one of several starts of an activity differs from the activity."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row

from ..store.statements import json_text
from . import AlertText, Audience, Start, Update


class Further(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a start differs from its activity's other starts; None means as the activity has it.

    Kept in the operation's ``request``.
    """

    audience: Audience | None = None
    attributes: dict[str, Any] | None = None
    alert: AlertText | None = None
    quiet: bool = False
    """True if the start itself is sent at priority 5, whatever later updates say."""
    hand_over: bool = False
    """True if it silently replaces cards that are soon too old."""


def read_further(operation: Row[Any]) -> Further:
    """Return where a start operation differs from its activity."""
    return msgspec.json.decode(operation.request, type=Further)


class Started:
    """An activity's row with the attributes and the alert of one of its starts."""

    __slots__ = ("_row", "attributes", "quiet", "start_alert")

    def __init__(self, row: Row[Any], further: Further) -> None:
        self._row = row
        self.quiet = further.quiet
        self.attributes: str = row.attributes
        self.start_alert: str = row.start_alert
        if further.attributes is not None:
            self.attributes = json_text(further.attributes)
        if further.alert is not None:
            self.start_alert = json_text(further.alert)
        elif further.hand_over:
            # Without its sound. iOS ignores a start that has no alert at all.
            stored = msgspec.json.decode(row.start_alert, type=AlertText | None)
            if stored is not None:
                self.start_alert = json_text(msgspec.structs.replace(stored, sound=None))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


def planned_end(request: Start | Update) -> dict[str, Any]:
    """Return the columns that a planned end changes; none without one."""
    if request.end_at is None:
        return {}
    message = json_text(request.end_presentation)
    return {"end_at": int(request.end_at * 1000), "end_message": message}


def together(one: Audience, other: Audience) -> Audience:
    """Return an audience that includes both: the union of groups, or else everyone."""
    if one == other or one.is_empty:
        return other
    if any(each != Audience(groups=each.groups) for each in (one, other)):
        return Audience(everyone=True)
    return Audience(groups=tuple(dict.fromkeys([*one.groups, *other.groups])))
