"""Filter trees: AND and OR groups over what is known of devices and their users.

As JSON a filter is ``{"and": [...]}``, ``{"or": [...]}``, ``{"not": {...}}`` or one condition::

    {"field": "tag", "key": "team", "relation": "=", "value": "red"}
    {"field": "last_session", "relation": "<", "hours_ago": 168}
    {"field": "location", "relation": "within", "lat": 48.2, "long": 16.4, "radius": 5000}

A field or relation that is not known here is an error, never ignored: an ignored condition would
send to everyone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any as AnyValue

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
_KEYED = frozenset({"tag", "custom"})
_TEXTS = frozenset({"language", "country", "app_version", "os_version"})
_SESSIONS = frozenset({"first_session", "last_session"})
_NUMBERS = frozenset({"session_count", "session_time", "amount_spent"})
_KNOWN_KEYS = ("field", "key", "relation", "value", "hours_ago", "radius", "lat", "long")

Value = str | float | bool | tuple[str | float, ...] | None


@dataclass(frozen=True, slots=True)
class Condition:
    """One test. ``value`` is in its stored form; sessions keep hours in ``hours_ago``."""

    field: str
    relation: str
    value: Value = None
    key: str = ""
    hours_ago: float = 0.0
    latitude: float = 0.0
    longitude: float = 0.0
    radius: float = 0.0
    """Metres."""


@dataclass(frozen=True, slots=True)
class All:
    """Every part must hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """One part must hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part must not hold."""

    part: Filter


Filter = Condition | All | Any | Not


def parse_filter(value: object, *, field: str = "filter") -> Filter:
    """Return the checked tree. Raises `InvalidInput` with the path of what is wrong."""
    count = [0]
    return _parse(value, field, 0, count)


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
    return json.dumps(_write(tree))


def _write(tree: Filter) -> dict[str, AnyValue]:
    match tree:
        case All():
            return {"and": [_write(part) for part in tree.parts]}
        case Any():
            return {"or": [_write(part) for part in tree.parts]}
        case Not():
            return {"not": _write(tree.part)}
    entry: dict[str, AnyValue] = {"field": tree.field, "relation": tree.relation}
    if tree.key:
        entry["key"] = tree.key
    if tree.field in _SESSIONS and tree.relation not in PRESENCE:
        entry["hours_ago"] = tree.hours_ago
    elif tree.relation == "within":
        entry |= {"lat": tree.latitude, "long": tree.longitude, "radius": tree.radius}
    elif tree.value is not None:
        entry["value"] = list(tree.value) if isinstance(tree.value, tuple) else tree.value
    return entry


def _parse(value: object, field: str, depth: int, count: list[int]) -> Filter:
    if not isinstance(value, Mapping):
        raise InvalidInput("is not an object", field=field, remedy="Give a condition or a group.")
    if depth > MAX_DEPTH:
        raise InvalidInput(
            f"is nested over {MAX_DEPTH} deep", field=field, remedy="Flatten the groups."
        )
    for name, group in (("and", All), ("or", Any)):
        if name in value:
            checks.unknown_keys(value, [name], field)
            return _group(group, value[name], f"{field}.{name}", depth, count)
    if "not" in value:
        checks.unknown_keys(value, ["not"], field)
        return Not(_parse(value["not"], f"{field}.not", depth + 1, count))
    count[0] += 1
    if count[0] > MAX_CONDITIONS:
        raise InvalidInput(
            f"has over {MAX_CONDITIONS} conditions", field=field, remedy="Save parts as segments."
        )
    return _condition(value, field)


def _group(
    kind: type[All] | type[Any], parts: object, field: str, depth: int, count: list[int]
) -> Filter:
    if not isinstance(parts, (list, tuple)) or not parts:
        raise InvalidInput(
            "is not a list, or is empty", field=field, remedy="Give at least one condition."
        )
    return kind(
        tuple(_parse(part, f"{field}[{n}]", depth + 1, count) for n, part in enumerate(parts))
    )


def _condition(value: Mapping[str, object], field: str) -> Condition:
    checks.unknown_keys(value, _KNOWN_KEYS, field)
    name = value.get("field")
    if not isinstance(name, str) or name not in RELATIONS:
        raise InvalidInput(
            f"{name!r} is unknown" if isinstance(name, str) else "is missing",
            field=f"{field}.field",
            remedy=f"Known here: {', '.join(RELATIONS)}.",
        )
    relation = value.get("relation")
    if not isinstance(relation, str) or relation not in RELATIONS[name]:
        raise InvalidInput(
            f"{relation!r} is not supported for {name}"
            if isinstance(relation, str)
            else "is missing",
            field=f"{field}.relation",
            remedy=f"For {name}: {', '.join(sorted(RELATIONS[name]))}.",
        )
    key = ""
    if name in _KEYED:
        key = checks.identifier(value.get("key"), f"{field}.key", limit=128)
    elif value.get("key") is not None:
        raise InvalidInput("means nothing here", field=f"{field}.key", remedy="Leave it out.")
    if relation in PRESENCE:
        return Condition(name, relation, key=key)
    if name in _SESSIONS:
        hours = _number(value.get("hours_ago"), f"{field}.hours_ago")
        if hours < 0:
            raise InvalidInput("is negative", field=f"{field}.hours_ago", remedy="Give 0 or more.")
        return Condition(name, relation, hours_ago=hours)
    if name == "location":
        return _location(value, field)
    return Condition(name, relation, _value(name, relation, value.get("value"), field), key)


def _value(name: str, relation: str, given: object, field: str) -> Value:
    where = f"{field}.value"
    if relation in LISTS:
        if not isinstance(given, (list, tuple)) or not 1 <= len(given) <= MAX_LIST:
            raise InvalidInput(
                f"is not a list of 1 to {MAX_LIST}", field=where, remedy="Give a list of values."
            )
        return tuple(
            _list_item(name, item, f"{where}[{index}]") for index, item in enumerate(given)
        )
    if name == "push_enabled":
        if not isinstance(given, bool):
            raise InvalidInput("is not a boolean", field=where, remedy="Give true or false.")
        return given
    if name in _NUMBERS or relation in ELAPSED:
        return _number(given, where)
    if name in _TEXTS:
        return _text(name, given, where)
    if relation in ORDER:
        return _number(given, where)
    if name == "custom" and isinstance(given, (bool, int, float)):
        return given if isinstance(given, bool) else _number(given, where)
    return _text(name, given, where)


def _list_item(name: str, item: object, field: str) -> str | float:
    if name == "custom" and isinstance(item, (int, float)) and not isinstance(item, bool):
        return _number(item, field)
    return _text(name, item, field)


def _text(name: str, given: object, field: str) -> str:
    if isinstance(given, (int, float)) and not isinstance(given, bool) and name == "tag":
        given = f"{given:g}"
    if not isinstance(given, str) or not given or len(given) > 1024 or "\x00" in given:
        raise InvalidInput("is missing or not a string", field=field, remedy="Give a text.")
    if name == "language":
        return checks.language(given, field)
    if name == "country":
        return checks.country(given, field)
    return given


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
    latitude = _number(value.get("lat"), f"{field}.lat")
    longitude = _number(value.get("long"), f"{field}.long")
    radius = _number(value.get("radius"), f"{field}.radius")
    for name, number, limit in (("lat", latitude, 90.0), ("long", longitude, 180.0)):
        if abs(number) > limit:
            raise InvalidInput(
                f"{number} is out of range", field=f"{field}.{name}", remedy="Give degrees."
            )
    if not 0 < radius <= math.pi * 6_371_000:
        raise InvalidInput(
            f"{radius} is out of range", field=f"{field}.radius", remedy="Give metres."
        )
    return Condition("location", "within", latitude=latitude, longitude=longitude, radius=radius)
