"""A start under an existing id: adds devices, or starts a new activity after the end.

Some vendors' servers start an activity for fifty users at a time under one id, and reuse an id after
the end. A running activity then gets the newer state and more devices. An ended activity gives up its
id, so that a new one can use it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import Conflict
from ..apps import App
from ..finding import named
from ..store import schema
from ..store.statements import change_row, json_text, row_of
from . import AlertText, Audience, Start, Update

LONGEST = 255


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


def first_further(request: Start) -> Further:
    """Return where an activity's first start differs from the activity: only a quiet one does."""
    if request.presentation.urgency != "quiet":
        return Further()
    return Further(audience=request.audience, quiet=True)


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


async def standing(connection: AsyncConnection, app: App, public_id: str) -> Row[Any] | None:
    """Return the activity that has an id, locked, or None. One that has ended gives the id up."""
    table = schema.activities
    query = select(table).where(named(app, table, public_id))
    row = await row_of(connection, query.with_for_update())
    if row is None or row.status != "ended":
        return row
    mark = f"~{row.id}"
    other = f"{public_id[: LONGEST - len(mark)]}{mark}"
    await change_row(connection, table, row.id, public_id=other)
    return None


def check_same(row: Row[Any], request: Start) -> None:
    """Raise `Conflict` unless a start fits the activity that is running under its id."""
    if row.status != "active" or request.start_at is not None:
        raise Conflict(f"the activity {row.public_id!r} is scheduled: wait for it, or end it first")
    if row.attributes_type not in ("", request.attributes_type):
        raise Conflict(
            f"the activity {row.public_id!r} is one of {row.attributes_type}, "
            f"not of {request.attributes_type}: choose another id"
        )


def is_begun_by_devices(row: Row[Any]) -> bool:
    """Return True for an activity that only apps have started yet: a start of ours has an alert."""
    return bool(row.start_alert == "null")


async def join_start(
    connection: AsyncConnection,
    row: Row[Any],
    request: Start,
    attributes: dict[str, Any],
    *,
    hand_over_after: int | None,
    now: int,
) -> Further:
    """Extend an activity to the audience of another start; return where that start differs.

    ``hand_over_after`` and ``now`` are milliseconds. The activity's audience becomes that of all of its
    starts, and earlier starts keep their own with their operations.
    """
    activities, operations = schema.activities, schema.operations
    known = msgspec.json.decode(row.audience, type=Audience)
    changes: dict[str, Any] = {}
    begun = is_begun_by_devices(row)
    if begun:
        changes["attributes_type"] = request.attributes_type
        changes["start_alert"] = json_text(request.presentation.alert)
        changes["hand_over_after"] = hand_over_after
        changes["hand_over_at"] = None if hand_over_after is None else now
    if begun or known == request.audience:
        # A second card has the attributes of the newest start for the same people.
        changes["attributes"] = json_text(attributes)
    elif json_text(attributes) != row.attributes:
        # Cards differ and it is not stored how, so a second card could show one person another's attributes.
        changes |= {"hand_over_after": None, "hand_over_at": None}
    grown = _together(known, request.audience)
    if grown != known:
        changes["audience"] = json_text(grown)
        first = json_text(Further(audience=known))
        place = (operations.c.activity_id == row.id, operations.c.kind == "start")
        await connection.execute(
            update(operations).where(*place, operations.c.request == "{}").values(request=first)
        )
    changes |= planned_end(request)
    if changes:
        await change_row(connection, activities, row.id, **changes)
    return Further(
        audience=request.audience,
        attributes=attributes,
        alert=request.presentation.alert,
        quiet=request.presentation.urgency == "quiet",
    )


def planned_end(request: Start | Update) -> dict[str, Any]:
    """Return the columns that a planned end changes; none without one."""
    if request.end_at is None:
        return {}
    message = json_text(request.end_presentation)
    return {"end_at": int(request.end_at * 1000), "end_message": message}


def _together(one: Audience, other: Audience) -> Audience:
    """Return an audience that includes both: the union of groups, or else everyone."""
    if one == other or one.is_empty:
        return other
    if any(each != Audience(groups=each.groups) for each in (one, other)):
        return Audience(everyone=True)
    return Audience(groups=tuple(dict.fromkeys([*one.groups, *other.groups])))
