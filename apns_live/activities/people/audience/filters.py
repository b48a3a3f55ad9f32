"""Filter trees: AND and OR groups of conditions on devices and their users.

As JSON a filter is ``{"and": [...]}``, ``{"or": [...]}``, ``{"not": {...}}`` or one condition::

    {"field": "tag", "key": "team", "relation": "=", "value": "red"}
    {"field": "last_session", "relation": "<", "hours_ago": 168}
    {"field": "location", "relation": "within", "lat": 48.2, "long": 16.4, "radius": 5000}

An unknown field or relation is an error. If it were ignored, the push would go to too many devices.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import msgspec

from ....errors import InvalidInput
from ... import checks

MAX_CONDITIONS = 200
MAX_DEPTH = 8
MAX_LIST = 1_000

ORDER = frozenset({">", "<", ">=", "<="})
EQUALITY = frozenset({"=", "!="})
PRESENCE = frozenset({"exists", "not_exists"})
LISTS = frozenset({"in_array", "not_in_array"})
ELAPSED = frozenset({"time_elapsed_gt", "time_elapsed_lt"})

RELATIONS: Mapping[str, frozenset[str]] = {
    "tag": ORDER | EQUALITY | PRESENCE | LISTS | ELAPSED,
    "custom": ORDER | EQUALITY | PRESENCE | LISTS | ELAPSED,
    "language": EQUALITY | LISTS | PRESENCE,
    "country": EQUALITY | LISTS | PRESENCE,
    "app_version": ORDER | EQUALITY | LISTS | PRESENCE,
    "os_version": EQUALITY | LISTS | PRESENCE,
    "first_session": ORDER | PRESENCE,
    "last_session": ORDER | PRESENCE,
    "session_count": ORDER | EQUALITY,
    "session_time": ORDER | EQUALITY,
    "amount_spent": ORDER | EQUALITY,
    "push_enabled": EQUALITY,
    "location": frozenset({"within", "exists", "not_exists"}),
}
KEYED = frozenset({"tag", "custom"})
SESSIONS = frozenset({"first_session", "last_session"})
_TEXTS = frozenset({"language", "country", "app_version", "os_version"})
_NUMBERS = frozenset({"session_count", "session_time", "amount_spent"})

Value = str | float | bool | list[str | float] | None


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """One test. ``value`` is in its stored form; sessions keep ``hours_ago``, ``radius`` is metres."""

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


def conditions(tree: Filter) -> list[Condition]:
    """Return every condition of a tree, in order."""
    match tree:
        case Condition():
            return [tree]
        case Not():
            return conditions(tree.part)
        case _:
            return [found for part in tree.parts for found in conditions(part)]


def write_filter(tree: Filter) -> str:
    """Return the tree as JSON text that `parse_filter` reads to an equal tree."""
    return msgspec.json.encode(tree).decode()


def _parse(value: object, field: str, depth: int, numbers: Iterator[int]) -> Filter:
    if not isinstance(value, Mapping):
        raise InvalidInput("is not an object", field=field, remedy="Give a condition or a group.")
    if depth > MAX_DEPTH:
        raise InvalidInput(
            f"is nested over {MAX_DEPTH} deep", field=field, remedy="Flatten the groups."
        )
    name = next((name for name in ("and", "or", "not") if name in value), None)
    if name is None:
        if next(numbers) > MAX_CONDITIONS:
            problem = f"has over {MAX_CONDITIONS} conditions"
            raise InvalidInput(problem, field=field, remedy="Save parts as segments.")
        return _condition(value, field)
    checks.unknown_keys(value, [name], field)
    parts, field = value[name], f"{field}.{name}"
    if name == "not":
        return Not(_parse(parts, field, depth + 1, numbers))
    if not isinstance(parts, (list, tuple)) or not parts:
        raise InvalidInput(
            "is not a list, or is empty", field=field, remedy="Give at least one condition."
        )
    made = [_parse(part, f"{field}[{n}]", depth + 1, numbers) for n, part in enumerate(parts)]
    return All(made) if name == "and" else Any(made)


def _condition(value: Mapping[str, object], field: str) -> Condition:
    checks.unknown_keys(value, Condition.__struct_fields__, field)
    name, relation = value.get("field"), value.get("relation")
    if not isinstance(name, str) or name not in RELATIONS:
        raise InvalidInput(
            f"{name!r} is unknown" if isinstance(name, str) else "is missing",
            field=f"{field}.field",
            remedy=f"Known here: {', '.join(RELATIONS)}.",
        )
    if not isinstance(relation, str) or relation not in RELATIONS[name]:
        problem = f"{relation!r} is not supported for {name}"
        raise InvalidInput(
            problem if isinstance(relation, str) else "is missing",
            field=f"{field}.relation",
            remedy=f"For {name}: {', '.join(sorted(RELATIONS[name]))}.",
        )
    key = ""
    if name in KEYED:
        key = checks.identifier(value.get("key"), f"{field}.key", limit=128)
    elif value.get("key") is not None:
        raise InvalidInput("does not apply here", field=f"{field}.key", remedy="Leave it out.")
    if relation in PRESENCE:
        return Condition(name, relation, key=key)
    if name in SESSIONS:
        hours = _number(value.get("hours_ago"), f"{field}.hours_ago")
        if hours < 0:
            raise InvalidInput("is negative", field=f"{field}.hours_ago", remedy="Give 0 or more.")
        return Condition(name, relation, hours_ago=hours)
    if name == "location":
        return _location(value, field)
    given, where = value.get("value"), f"{field}.value"
    if relation not in LISTS:
        return Condition(name, relation, _value(name, relation, given, where), key)
    if not isinstance(given, (list, tuple)) or not 1 <= len(given) <= MAX_LIST:
        raise InvalidInput(
            f"is not a list of 1 to {MAX_LIST}", field=where, remedy="Give a list of values."
        )
    items = [_item(name, item, f"{where}[{index}]") for index, item in enumerate(given)]
    return Condition(name, relation, items, key)


def _value(name: str, relation: str, given: object, where: str) -> Value:
    if name == "push_enabled" and not isinstance(given, bool):
        raise InvalidInput("is not a boolean", field=where, remedy="Give true or false.")
    if isinstance(given, bool) and name in {"push_enabled", "custom"} and relation in EQUALITY:
        return given
    numeric = name in _NUMBERS or relation in ELAPSED or (relation in ORDER and name not in _TEXTS)
    return _number(given, where) if numeric else _item(name, given, where)


def _item(name: str, item: object, field: str) -> str | float:
    if isinstance(item, (int, float)) and not isinstance(item, bool) and name in KEYED:
        if name == "custom":
            return _number(item, field)
        item = f"{item:g}"
    if not isinstance(item, str) or not item or len(item) > 1024 or "\x00" in item:
        raise InvalidInput("is missing or not a string", field=field, remedy="Give a text.")
    if name == "language":
        return checks.language(item, field)
    return checks.country(item, field) if name == "country" else item


def _number(given: object, field: str) -> float:
    if isinstance(given, str) and len(given) <= 32:
        try:
            given = float(given)  # clients are known to write numbers as text
        except ValueError:
            given = None
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not abs(given) < 1e300:
        raise InvalidInput("is not a finite number", field=field, remedy="Give a number.")
    return float(given)


def _location(value: Mapping[str, object], field: str) -> Condition:
    lat, long, radius = (
        _number(value.get(name), f"{field}.{name}") for name in ("lat", "long", "radius")
    )
    for name, number, fits, unit in (
        ("lat", lat, abs(lat) <= 90, "degrees"),
        ("long", long, abs(long) <= 180, "degrees"),
        ("radius", radius, 0 < radius <= math.pi * 6_371_000, "metres"),
    ):
        if not fits:
            problem = f"{number} is out of range"
            raise InvalidInput(problem, field=f"{field}.{name}", remedy=f"Give {unit}.")
    return Condition("location", "within", lat=lat, long=long, radius=radius)
