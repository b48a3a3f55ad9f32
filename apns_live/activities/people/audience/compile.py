"""Compiles a filter tree to SQL over the devices table, for SQLite and PostgreSQL.

Tags and attributes are tested by correlated EXISTS over their unique index, not by IN over a set: an
audience is read in pages, and the set would be computed for each page.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any as Anything

from sqlalchemy import ColumnElement, Table, and_, exists, false, func, not_, or_, select, true

from ... import checks
from ...store import schema
from .filters import KEYED, SESSIONS, All, Any, Condition, Filter, Not, conditions

# Fields that an index leads to; a search by one of the others alone reads every device of the app.
INDEXED = frozenset(
    {"tag", "custom", "language", "country", "app_version", "first_session", "last_session"}
)
_OPPOSITE = {"!=": "=", "not_in_array": "in_array", "not_exists": "exists"}
_EARTH_RADIUS = 6_371_000.0

Clause = ColumnElement[bool]
_COMPARED: dict[str, Callable[[ColumnElement[Anything], Anything], Clause]] = {
    "exists": lambda column, _: column.is_not(None),
    "in_array": lambda column, value: column.in_(value),
    "=": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_TURNED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}


def compile_filter(tree: Filter, *, now: int) -> Clause:
    """Return the condition on ``devices``; ``now`` is milliseconds since 1970."""
    match tree:
        case All():
            return and_(*(compile_filter(part, now=now) for part in tree.parts))
        case Any():
            return or_(*(compile_filter(part, now=now) for part in tree.parts))
        case Not():
            # NULL is "not known", and what is not known does not hold: so its opposite does.
            return not_(func.coalesce(compile_filter(tree.part, now=now), false()))
        case Condition():
            return _condition(tree, now)


def unindexed(tree: Filter) -> list[str]:
    """Return the fields of conditions that no index leads to, for a dry run to name."""
    return [
        f"{condition.field}:{condition.key}" if condition.key else condition.field
        for condition in conditions(tree)
        if condition.field not in INDEXED or condition.relation in _OPPOSITE
    ]


def of_device_or_user(table: Table, *held: Clause) -> Clause:
    """Return whether a row with these conditions belongs to the device, or to its user."""
    devices = schema.devices
    return or_(
        exists(select(table.c.id).where(table.c.device_id == devices.c.id, *held)),
        and_(
            devices.c.user_id.is_not(None),
            exists(select(table.c.id).where(table.c.user_id == devices.c.user_id, *held)),
        ),
    )


def _condition(condition: Condition, now: int) -> Clause:
    name, relation, value = condition.field, condition.relation, condition.value
    if name in KEYED:
        table = schema.attributes
        held = _held(_OPPOSITE.get(relation, relation), value, now)
        named = (table.c.namespace == name, table.c.name == condition.key)
        found = of_device_or_user(table, *named, held)
        return not_(found) if relation in _OPPOSITE else found
    if name == "location":
        return _location(condition)
    column: ColumnElement[Anything] = schema.devices.c[name]
    if name == "language" and relation in {"=", "!="}:
        # ``en`` also means ``en-GB``: an app that says what it speaks says it in more detail.
        same = or_(column == value, column.startswith(f"{value}-", autoescape=True))
        return same if relation == "=" else or_(column.is_(None), not_(same))
    if name in SESSIONS and condition.hours_ago is not None:
        # ``> 24`` hours ago is longer ago than that, so the stored time is smaller.
        relation, value = _TURNED[relation], now - int(condition.hours_ago * 3_600_000)
    if name == "app_version":
        column = schema.devices.c.app_version_order
        if isinstance(value, list):
            value = [checks.version_order(str(item)) for item in value]
        elif isinstance(value, str):
            value = checks.version_order(value)
    if relation in _OPPOSITE:
        differs = not_(_COMPARED[_OPPOSITE[relation]](column, value))
        return differs if relation == "not_exists" else or_(column.is_(None), differs)
    return _COMPARED[relation](column, value)


def _held(relation: str, value: object, now: int) -> Clause:
    """Return the condition on a tag's or attribute's value; of an array, on any item."""
    columns = schema.attributes.c
    if relation == "exists":
        return true()
    if relation in {"time_elapsed_gt", "time_elapsed_lt"} and isinstance(value, (int, float)):
        # The attribute holds seconds since 1970 (a date: milliseconds), the value is seconds.
        compare = operator.lt if relation == "time_elapsed_gt" else operator.gt
        return or_(
            and_(columns.kind == "date", compare(columns.number, now - value * 1000.0)),
            and_(columns.kind != "date", compare(columns.number, now / 1000 - value)),
        )
    if isinstance(value, list):
        texts = [item for item in value if isinstance(item, str)]
        numbers = [item for item in value if not isinstance(item, str)]
        return or_(columns.text.in_(texts), columns.number.in_(numbers))
    if isinstance(value, bool):
        return and_(columns.kind == "boolean", columns.number == float(value))
    if isinstance(value, (int, float)):
        return and_(columns.kind != "boolean", _COMPARED[relation](columns.number, float(value)))
    return _COMPARED[relation](columns.text, value)


def _location(condition: Condition) -> Clause:
    """Within a radius on the sphere (haversine); a cheap band of latitudes is looked at first."""
    table = schema.devices
    known = and_(table.c.latitude.is_not(None), table.c.longitude.is_not(None))
    lat, long, radius = condition.lat, condition.long, condition.radius
    if lat is None or long is None or radius is None:
        return known if condition.relation == "exists" else not_(known)
    angle = radius / _EARTH_RADIUS
    degrees, centre = math.degrees(angle), math.radians(lat)
    band = table.c.latitude.between(lat - degrees, lat + degrees)
    latitude = func.radians(table.c.latitude)
    half_up = func.sin((latitude - centre) / 2)
    half_across = func.sin(func.radians(table.c.longitude - long) / 2)
    haversine = (
        half_up * half_up + math.cos(centre) * func.cos(latitude) * half_across * half_across
    )
    return and_(known, band, haversine <= math.sin(min(angle / 2, math.pi / 2)) ** 2)
