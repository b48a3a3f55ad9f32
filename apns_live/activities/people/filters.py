"""Filter trees: AND and OR groups of conditions on devices and their users, and their SQL.

As JSON a filter is ``{"and": [...]}``, ``{"or": [...]}``, ``{"not": {...}}`` or one condition::

    {"field": "tag", "key": "team", "relation": "=", "value": "red"}
    {"field": "last_session", "relation": "<", "hours_ago": 168}
    {"field": "location", "relation": "within", "lat": 48.2, "long": 16.4, "radius": 5000}

An unknown field or relation is an error. If it were ignored, the push would go to too many devices.

Tags and attributes are tested by correlated EXISTS over their unique index, not by IN over a set: an
audience is read in pages, and the set would be computed for each page.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any as Anything

import msgspec
from sqlalchemy import ColumnElement, Table, and_, exists, false, func, not_, or_, select, true

from ...errors import InvalidInput
from .. import checks
from ..store import schema

MAX_CONDITIONS = 200
MAX_DEPTH = 8
MAX_LIST = 1_000
_EARTH_RADIUS = 6_371_000.0
"""Metres."""

_ORDER = frozenset({">", "<", ">=", "<="})
_EQUALITY = frozenset({"=", "!="})
_PRESENCE = frozenset({"exists", "not_exists"})
_LISTS = frozenset({"in_array", "not_in_array"})
_ELAPSED = frozenset({"time_elapsed_gt", "time_elapsed_lt"})

_TEXT = _EQUALITY | _LISTS | _PRESENCE

RELATIONS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("tag", "custom"), _ORDER | _TEXT | _ELAPSED),
    **dict.fromkeys(("language", "country"), _TEXT),
    "app_version": _ORDER | _TEXT,
    "os_version": _TEXT,
    **dict.fromkeys(("first_session", "last_session"), _ORDER | _PRESENCE),
    **dict.fromkeys(("session_count", "session_time", "amount_spent"), _ORDER | _EQUALITY),
    "push_enabled": _EQUALITY,
    "location": _PRESENCE | {"within"},
}
_KEYED = frozenset({"tag", "custom"})
_SESSIONS = frozenset({"first_session", "last_session"})
_TEXTS = frozenset({"language", "country", "app_version", "os_version"})
_NUMBERS = frozenset({"session_count", "session_time", "amount_spent"})
_INDEXED = _KEYED | _SESSIONS | {"language", "country", "app_version"}
"""Fields with an index. A search by other fields alone reads every device of the app."""

Value = str | float | bool | list[str | float] | None


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """One condition. ``value`` is in stored form; sessions have ``hours_ago``, ``radius`` has metres."""

    field: str
    relation: str
    value: Value = None
    key: str = ""
    hours_ago: float | None = None
    lat: float | None = None
    long: float | None = None
    radius: float | None = None


class All(msgspec.Struct, frozen=True, rename={"parts": "and"}):
    """Every part must hold."""

    parts: list[Filter]


class Any(msgspec.Struct, frozen=True, rename={"parts": "or"}):
    """One part must hold."""

    parts: list[Filter]


class Not(msgspec.Struct, frozen=True, rename={"part": "not"}):
    """The part must not hold."""

    part: Filter


Filter = Condition | All | Any | Not


def parse_filter(value: object, *, field: str = "filter") -> Filter:
    """Return the checked tree. Raises `InvalidInput` with the path of what is wrong."""
    return _parse(value, field, 0, itertools.count(1))


def write_filter(tree: Filter) -> str:
    """Return the tree as JSON text that `parse_filter` reads to an equal tree."""
    return msgspec.json.encode(tree).decode()


def _parse(value: object, field: str, depth: int, numbers: Iterator[int]) -> Filter:
    if not isinstance(value, Mapping):
        raise InvalidInput("is not an object", field, "Give a condition or a group.")
    if depth > MAX_DEPTH:
        raise InvalidInput(f"is nested over {MAX_DEPTH} deep", field, "Flatten the groups.")
    name = next((name for name in ("and", "or", "not") if name in value), None)
    if name is None:
        if next(numbers) > MAX_CONDITIONS:
            problem = f"has over {MAX_CONDITIONS} conditions"
            raise InvalidInput(problem, field, "Save parts as segments.")
        return _condition(value, field)
    checks.unknown_keys(value, [name], field)
    parts, field = value[name], f"{field}.{name}"
    if name == "not":
        return Not(_parse(parts, field, depth + 1, numbers))
    if not isinstance(parts, (list, tuple)) or not parts:
        raise InvalidInput("is not a list, or is empty", field, "Give at least one condition.")
    made = [_parse(part, f"{field}[{n}]", depth + 1, numbers) for n, part in enumerate(parts)]
    return All(made) if name == "and" else Any(made)


def _condition(value: Mapping[str, object], field: str) -> Condition:
    checks.unknown_keys(value, Condition.__struct_fields__, field)
    name = _known(value.get("field"), RELATIONS, f"{field}.field", "is unknown")
    relations, where = sorted(RELATIONS[name]), f"{field}.relation"
    relation = _known(value.get("relation"), relations, where, f"is not supported for {name}")
    key = ""
    if name in _KEYED:
        key = checks.identifier(value.get("key"), f"{field}.key", limit=128)
    elif value.get("key") is not None:
        raise InvalidInput("does not apply here", f"{field}.key", "Leave it out.")
    if relation in _PRESENCE:
        return Condition(name, relation, key=key)
    if name in _SESSIONS:
        hours = _number(value.get("hours_ago"), f"{field}.hours_ago")
        if hours < 0:
            raise InvalidInput("is negative", f"{field}.hours_ago", "Give 0 or more.")
        return Condition(name, relation, hours_ago=hours)
    if name == "location":
        place: dict[str, Anything] = {}
        for part, most, unit in (
            ("lat", 90.0, "degrees"),
            ("long", 180.0, "degrees"),
            ("radius", math.pi * _EARTH_RADIUS, "metres"),
        ):
            place[part] = number = _number(value.get(part), f"{field}.{part}")
            if abs(number) > most or (part == "radius" and number <= 0):
                raise InvalidInput(f"{number} is out of range", f"{field}.{part}", f"Give {unit}.")
        return Condition(name, relation, **place)
    given, where = value.get("value"), f"{field}.value"
    if relation not in _LISTS:
        return Condition(name, relation, _value(name, relation, given, where), key)
    if not isinstance(given, (list, tuple)) or not 1 <= len(given) <= MAX_LIST:
        raise InvalidInput(f"is not a list of 1 to {MAX_LIST}", where, "Give a list of values.")
    items = [_item(name, item, f"{where}[{index}]") for index, item in enumerate(given)]
    return Condition(name, relation, items, key)


def _known(given: object, known: Collection[str], field: str, problem: str) -> str:
    """Return a condition's field or relation."""
    if isinstance(given, str) and given in known:
        return given
    problem = f"{given!r} {problem}" if isinstance(given, str) else "is missing"
    raise InvalidInput(problem, field, f"Known here: {', '.join(known)}.")


def _value(name: str, relation: str, given: object, where: str) -> Value:
    if name == "push_enabled" and not isinstance(given, bool):
        raise InvalidInput("is not a boolean", where, "Give true or false.")
    if isinstance(given, bool) and name in {"push_enabled", "custom"} and relation in _EQUALITY:
        return given
    numeric = (
        name in _NUMBERS or relation in _ELAPSED or (relation in _ORDER and name not in _TEXTS)
    )
    return _number(given, where) if numeric else _item(name, given, where)


def _item(name: str, item: object, field: str) -> str | float:
    if isinstance(item, (int, float)) and not isinstance(item, bool) and name in _KEYED:
        if name == "custom":
            return _number(item, field)
        item = f"{item:g}"
    if not isinstance(item, str) or not item or len(item) > 1024 or "\x00" in item:
        raise InvalidInput("is missing or not a string", field, "Give a text.")
    if name == "language":
        return checks.language(item, field)
    return checks.country(item, field) if name == "country" else item


def _number(given: object, field: str) -> float:
    if isinstance(given, str) and len(given) <= 32:
        try:
            given = float(given)  # Clients are known to write numbers as text.
        except ValueError:
            given = None
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not abs(given) < 1e300:
        raise InvalidInput("is not a finite number", field, "Give a number.")
    return float(given)


_OPPOSITE = {"!=": "=", "not_in_array": "in_array", "not_exists": "exists"}
_TURNED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}

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


def compile_filter(tree: Filter, *, now: int) -> Clause:
    """Return the SQL condition on ``devices``; ``now`` is milliseconds since 1970."""
    match tree:
        case All():
            return and_(*(compile_filter(part, now=now) for part in tree.parts))
        case Any():
            return or_(*(compile_filter(part, now=now) for part in tree.parts))
        case Not():
            # NULL means "unknown". An unknown condition is false, so its negation is true.
            return not_(func.coalesce(compile_filter(tree.part, now=now), false()))
        case Condition():
            return _clause(tree, now)


def unindexed(tree: Filter) -> list[str]:
    """Return the fields of conditions that have no index."""
    match tree:
        case Condition(field, relation, _, key):
            indexed = field in _INDEXED and relation not in _OPPOSITE
            return [] if indexed else [f"{field}:{key}" if key else field]
        case Not():
            return unindexed(tree.part)
        case _:
            return [name for part in tree.parts for name in unindexed(part)]


def of_device_or_user(table: Table, *held: Clause) -> Clause:
    """Return the condition that a row with these conditions belongs to the device, or to its user."""
    devices = schema.devices
    return or_(
        exists(select(table.c.id).where(table.c.device_id == devices.c.id, *held)),
        and_(
            devices.c.user_id.is_not(None),
            exists(select(table.c.id).where(table.c.user_id == devices.c.user_id, *held)),
        ),
    )


def _clause(condition: Condition, now: int) -> Clause:
    name, relation, value = condition.field, condition.relation, condition.value
    if name in _KEYED:
        table = schema.attributes
        held = _held(_OPPOSITE.get(relation, relation), value, now)
        named = (table.c.namespace == name, table.c.name == condition.key)
        found = of_device_or_user(table, *named, held)
        return not_(found) if relation in _OPPOSITE else found
    if name == "location":
        return _within(condition)
    column = schema.devices.c[name]
    if name == "language" and relation in _EQUALITY:
        # ``en`` also matches ``en-GB``: apps report the language with its region.
        same = or_(column == value, column.startswith(f"{value}-", autoescape=True))
        return same if relation == "=" else or_(column.is_(None), not_(same))
    if condition.hours_ago is not None:
        # ``> 24`` hours ago means earlier than 24 hours ago, so the stored time must be smaller.
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
    """Return the condition on the value of a tag or attribute; for an array, on any item."""
    columns = schema.attributes.c
    if relation == "exists":
        return true()
    if relation in _ELAPSED and isinstance(value, (int, float)):
        # The attribute holds seconds since 1970 (a date: milliseconds); the condition's value is
        # seconds.
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


def _within(condition: Condition) -> Clause:
    """Return the condition of a radius on the sphere (haversine), after a cheap latitude check."""
    columns = schema.devices.c
    known = and_(columns.latitude.is_not(None), columns.longitude.is_not(None))
    lat, long, radius = condition.lat, condition.long, condition.radius
    if lat is None or long is None or radius is None:
        return known if condition.relation == "exists" else not_(known)
    angle, centre = radius / _EARTH_RADIUS, math.radians(lat)
    degrees = math.degrees(angle)
    band = columns.latitude.between(lat - degrees, lat + degrees)
    latitude = func.radians(columns.latitude)
    half_up = func.sin((latitude - centre) / 2)
    half_across = func.sin(func.radians(columns.longitude - long) / 2)
    across = math.cos(centre) * func.cos(latitude) * half_across * half_across
    limit = math.sin(min(angle / 2, math.pi / 2)) ** 2
    return and_(known, band, half_up * half_up + across <= limit)
