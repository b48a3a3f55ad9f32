"""Converts Braze's connected audience to a filter tree.

Source: Braze, "Connected audience object": AND and OR over filters of custom attributes, push
subscription and last use. What cannot be said here is refused, never left out: a condition that is
ignored would send to everyone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from ...errors import InvalidInput
from .. import reading

MAX_DEPTH = 8
_DAY = 86_400
_DAYS: Any = Annotated[float, Meta(ge=0, le=36_500)]
_NAME: Any = Annotated[str, Meta(min_length=1)]
_IS: Any = Literal["is", "is_not"]
_PLAIN: Mapping[str, str] = {
    "equals": "=",
    "not_equal": "!=",
    "does_not_equal": "!=",
    "includes_value": "=",
    "does_not_include_value": "!=",
    "greater_than": ">",
    "greater_than_or_equal_to": ">=",
    "less_than": "<",
    "less_than_or_equal_to": "<=",
    "exists": "exists",
    "does_not_exist": "not_exists",
}
_ORDER = frozenset({">", ">=", "<", "<="})
_SUBSCRIBED: Mapping[str, bool] = {"opted_in": True, "subscribed": True, "unsubscribed": False}

Tree = dict[str, Any]


def read_audience(value: object, field: str, *, now: float) -> Tree:
    """Return the filter tree of a connected audience; ``now`` is seconds since 1970.

    Raises `InvalidInput` with the path of what is wrong.
    """
    return _read(value, field, now, 0)


def _read(value: object, field: str, now: float, depth: int) -> Tree:
    if depth > MAX_DEPTH:
        raise InvalidInput(
            f"is nested over {MAX_DEPTH} deep", field=field, remedy="Flatten the groups."
        )
    if not isinstance(value, Mapping) or len(value) != 1:
        raise InvalidInput(
            "is not an object with exactly one key",
            field=field,
            remedy=f"Give AND, OR or one of {', '.join(_FILTERS)}.",
        )
    [(name, inner)] = value.items()
    where = f"{field}.{name}"[:200]
    if name in ("AND", "OR"):
        if not isinstance(inner, list) or not inner:
            raise InvalidInput(
                "is not a list, or is empty", field=where, remedy="Give at least one filter."
            )
        parts = [_read(part, f"{where}[{n}]", now, depth + 1) for n, part in enumerate(inner)]
        return {name.lower(): parts}
    reader = _FILTERS.get(name)
    if reader is None:
        raise InvalidInput(
            "is a filter that this gateway does not have",
            field=where,
            remedy=f"Use AND, OR, {', '.join(_FILTERS)}.",
        )
    return reader(reading.as_object(inner, where), where, now)


def _custom(given: Mapping[str, Any], field: str, now: float) -> Tree:
    where, comparison = f"{field}.custom_attribute_name", given.get("comparison")
    name = reading.read(
        given.get("custom_attribute_name"), _NAME, where, "Name the custom attribute."
    )
    base = {"field": "custom", "key": name}
    value = given.get("value")
    where = f"{field}.value"
    if isinstance(comparison, str) and (relation := _PLAIN.get(comparison)) is not None:
        if relation in ("exists", "not_exists"):
            return {**base, "relation": relation}
        if relation in _ORDER:
            value = _number(value, where)
        elif not isinstance(value, (str, int, float)):
            raise InvalidInput("is missing", field=where, remedy="Give a text, number or boolean.")
        return {**base, "relation": relation, "value": value}
    match comparison:
        case "after" | "before":
            relation = ">" if comparison == "after" else "<"
            # Dates are stored as milliseconds.
            return {**base, "relation": relation, "value": reading.moment(value, where) * 1000}
        case "less_than_x_days_ago":
            return _between(base, past=_days(value, where), future=0.0)
        case "greater_than_x_days_ago":
            return {**base, "relation": "time_elapsed_gt", "value": _days(value, where)}
        case "less_than_x_days_in_the_future":
            return _between(base, past=0.0, future=_days(value, where))
        case "greater_than_x_days_in_the_future":
            return {**base, "relation": "time_elapsed_lt", "value": -_days(value, where)}
        case _:
            raise InvalidInput(
                f"{comparison!r:.60} is not a comparison of this gateway",
                field=f"{field}.comparison",
                remedy="Regular expressions are not supported; "
                f"use one of {', '.join(_PLAIN)}, "
                "after, before, less_than_x_days_ago, greater_than_x_days_ago, "
                "less_than_x_days_in_the_future or greater_than_x_days_in_the_future.",
            )


def _between(base: Tree, *, past: float, future: float) -> Tree:
    """Return: at most ``past`` seconds ago, and at most ``future`` seconds ahead."""
    return {
        "and": [
            {**base, "relation": "time_elapsed_lt", "value": past},
            {**base, "relation": "time_elapsed_gt", "value": -future},
        ]
    }


def _subscription(given: Mapping[str, Any], field: str, now: float) -> Tree:
    comparison, value = given.get("comparison"), given.get("value")
    reading.read(comparison, _IS, f"{field}.comparison", "Use is or is_not.")
    if not isinstance(value, str) or value not in _SUBSCRIBED:
        raise InvalidInput(
            f"{value!r:.60} is not a valid subscription state",
            field=f"{field}.value",
            remedy=f"Use {', '.join(_SUBSCRIBED)}.",
        )
    enabled = _SUBSCRIBED[value] is (comparison == "is")
    return {"field": "push_enabled", "relation": "=", "value": enabled}


def _last_used(given: Mapping[str, Any], field: str, now: float) -> Tree:
    comparison = given.get("comparison")
    kinds: Any = Literal["after", "before"]
    reading.read(comparison, kinds, f"{field}.comparison", "Use after or before.")
    last = reading.moment(given.get("value"), f"{field}.value")
    hours = max(0.0, (now - last) / 3600)
    return {
        "field": "last_session",
        "relation": "<" if comparison == "after" else ">",
        "hours_ago": hours,
    }


def _number(value: object, field: str) -> float:
    return reading.read(value, float, field, "Give a number.")


def _days(value: object, field: str) -> float:
    days: float = reading.read(value, _DAYS, field, "Give 0 to 36500 days.")
    return days * _DAY


_FILTERS = {
    "custom_attribute": _custom,
    "push_subscription_status": _subscription,
    "last_used_app": _last_used,
}
