"""A filter tree as SQL over the devices table, the same meaning on SQLite and PostgreSQL.

Tags and attributes are asked for with correlated EXISTS over their unique index, not with IN over a
set: an audience is read in pages, and a set would be built anew for each page.
"""

from __future__ import annotations

import math
from typing import Any as Anything

from sqlalchemy import ColumnElement, and_, exists, false, func, not_, or_, select, true

from ... import checks
from ...store import schema
from .filters import LISTS, All, Any, Condition, Filter, Not, conditions

# Fields that an index leads to; a search by one of the others alone reads every device of the app.
INDEXED = frozenset(
    {"tag", "custom", "language", "country", "app_version", "first_session", "last_session"}
)
_NEGATIVE = frozenset({"!=", "not_in_array", "not_exists"})
_EARTH_RADIUS = 6_371_000.0

Clause = ColumnElement[bool]


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
    found = [
        condition.field if not condition.key else f"{condition.field}:{condition.key}"
        for condition in conditions(tree)
        if condition.field not in INDEXED or condition.relation in _NEGATIVE
    ]
    return list(dict.fromkeys(found))


def _condition(condition: Condition, now: int) -> Clause:
    if condition.field in {"tag", "custom"}:
        return _attribute(condition, now)
    if condition.field == "location":
        return _location(condition)
    table = schema.devices
    if condition.field in {"first_session", "last_session"}:
        return _session(table.c[condition.field], condition, now)
    column: ColumnElement[Anything] = table.c[condition.field]
    value: object = condition.value
    if condition.field == "app_version":
        column = table.c.app_version_order
        value = _ordered(value)
    if condition.field == "language" and condition.relation in {"=", "!="}:
        return _language(condition)
    return _compare(column, condition.relation, value)


def _ordered(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(checks.version_order(str(item)) for item in value)
    return checks.version_order(value) if isinstance(value, str) else value


def _language(condition: Condition) -> Clause:
    """``en`` also means ``en-GB``: an app that says what it speaks says it in more detail."""
    column = schema.devices.c.language
    value = str(condition.value)
    same = or_(column == value, column.startswith(f"{value}-", autoescape=True))
    return same if condition.relation == "=" else or_(column.is_(None), not_(same))


def _compare(column: ColumnElement[Anything], relation: str, value: object) -> Clause:
    match relation:
        case "exists":
            return column.is_not(None)
        case "not_exists":
            return column.is_(None)
        case "=":
            return column == value
        case "!=":
            return or_(column.is_(None), column != value)
        case ">":
            return column > value
        case ">=":
            return column >= value
        case "<":
            return column < value
        case "<=":
            return column <= value
        case "in_array":
            return column.in_(value)  # type: ignore[arg-type]
        case _:
            return or_(column.is_(None), column.not_in(value))  # type: ignore[arg-type]


def _session(column: ColumnElement[Anything], condition: Condition, now: int) -> Clause:
    """``> 24`` hours ago is longer ago than that, so the stored time is smaller."""
    moment = now - int(condition.hours_ago * 3_600_000)
    turned = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
    return _compare(column, turned.get(condition.relation, condition.relation), moment)


def _attribute(condition: Condition, now: int) -> Clause:
    """Ask for a tag or custom attribute of the device, or of its user; of an array, any item."""
    relation = condition.relation
    positive = {"!=": "=", "not_in_array": "in_array", "not_exists": "exists"}.get(
        relation, relation
    )
    table = schema.attributes
    devices = schema.devices
    held = [
        table.c.namespace == condition.field,
        table.c.name == condition.key,
        _attribute_value(positive, condition.value, now),
    ]
    found = or_(
        exists(select(table.c.id).where(table.c.device_id == devices.c.id, *held)),
        and_(
            devices.c.user_id.is_not(None),
            exists(select(table.c.id).where(table.c.user_id == devices.c.user_id, *held)),
        ),
    )
    return not_(found) if relation in _NEGATIVE else found


def _attribute_value(relation: str, value: object, now: int) -> Clause:
    columns = schema.attributes.c
    if relation == "exists":
        return true()
    if relation in {"time_elapsed_gt", "time_elapsed_lt"}:
        # The attribute holds seconds since 1970 (a date: milliseconds), the value is seconds.
        seconds = float(value) if isinstance(value, (int, float)) else 0.0
        dates = and_(
            columns.kind == "date", _elapsed(relation, columns.number, now, seconds * 1000)
        )
        stamps = and_(
            columns.kind != "date", _elapsed(relation, columns.number, now / 1000, seconds)
        )
        return or_(dates, stamps)
    if relation in LISTS and isinstance(value, tuple):
        texts = [item for item in value if isinstance(item, str)]
        numbers = [item for item in value if not isinstance(item, str)]
        return or_(columns.text.in_(texts), columns.number.in_(numbers))
    if isinstance(value, bool):
        return and_(columns.kind == "boolean", columns.number == float(value))
    if isinstance(value, (int, float)):
        return and_(columns.kind != "boolean", _compare(columns.number, relation, float(value)))
    return _compare(columns.text, relation, value)


def _elapsed(relation: str, column: ColumnElement[float], now: float, distance: float) -> Clause:
    moment = now - distance
    return column < moment if relation == "time_elapsed_gt" else column > moment


def _location(condition: Condition) -> Clause:
    """Within a radius on the sphere (haversine); a cheap band of latitudes is looked at first."""
    table = schema.devices
    known = and_(table.c.latitude.is_not(None), table.c.longitude.is_not(None))
    if condition.relation == "exists":
        return known
    if condition.relation == "not_exists":
        return not_(known)
    angle = condition.radius / _EARTH_RADIUS
    degrees = math.degrees(angle)
    band = table.c.latitude.between(condition.latitude - degrees, condition.latitude + degrees)
    latitude = func.radians(table.c.latitude)
    across = func.radians(table.c.longitude - condition.longitude)
    centre = math.radians(condition.latitude)
    half_up = func.sin((latitude - centre) / 2)
    half_across = func.sin(across / 2)
    haversine = (
        half_up * half_up + math.cos(centre) * func.cos(latitude) * half_across * half_across
    )
    return and_(known, band, haversine <= math.sin(min(angle / 2, math.pi / 2)) ** 2)
