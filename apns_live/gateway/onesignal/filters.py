"""Converts OneSignal's filters, a flat list with AND and OR, to a filter tree.

Source: OneSignal, "Filters". AND binds closer than OR. What cannot be said here is refused, never
left out: a condition that is ignored would send to everyone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...activities.checks import at_most
from ...errors import InvalidInput

MAX_ENTRIES = 200
_KEYS = ("key", "relation", "value", "hours_ago", "radius", "lat", "long")
_SESSIONS = ("first_session", "last_session")

Tree = dict[str, Any]


def read_filters(value: object, field: str = "filters") -> Tree:
    """Return the tree of a list of filters and operators. Raises `InvalidInput`.

    Fields, relations and values are checked where the tree is compiled.
    """
    if not isinstance(value, list) or not value:
        raise InvalidInput("is not a list, or is empty", field=field, remedy="Give filters.")
    at_most(len(value), MAX_ENTRIES, "entries", field)
    groups: list[list[Tree]] = [[]]
    expected = True  # a condition must come before an operator
    for index, entry in enumerate(value):
        where = f"{field}[{index}]"
        operator = _operator(entry, where)
        if operator is None:
            groups[-1].append(_condition(entry, where))
            expected = False
            continue
        if expected:
            raise InvalidInput(
                "is an operator where a condition is expected",
                field=where,
                remedy="Put it between two.",
            )
        expected = True
        if operator == "OR":
            groups.append([])
    if expected:
        raise InvalidInput(
            "ends with an operator", field=field, remedy="Give a condition after it."
        )
    trees = [group[0] if len(group) == 1 else {"and": group} for group in groups]
    return trees[0] if len(trees) == 1 else {"or": trees}


def write_filters(tree: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the list that `read_filters` reads to an equal tree, or None if there is none."""
    groups = tree.get("or", [tree])
    entries: list[dict[str, Any]] = []
    for group in groups:
        parts = group.get("and", [group])
        if any("field" not in part for part in parts):
            return None
        if entries:
            entries.append({"operator": "OR"})
        for part in parts:
            entry = dict(part)
            if entry.get("relation") == "within":
                del entry["relation"]
            entries.append(entry)
    return entries


def _operator(entry: object, field: str) -> str | None:
    if not isinstance(entry, Mapping):
        raise InvalidInput("is not an object", field=field, remedy="Give a filter or an operator.")
    operator = entry.get("operator")
    if operator is None or entry.get("field") is not None:
        return None
    if operator not in ("AND", "OR"):
        raise InvalidInput(
            f"{operator!r:.20} is not a valid operator",
            field=f"{field}.operator",
            remedy="Use OR or AND.",
        )
    return str(operator)


def _condition(entry: Mapping[str, Any], field: str) -> Tree:
    """Return one condition; keys that are null were not given."""
    condition: Tree = {"field": entry.get("field")}
    condition |= {name: entry[name] for name in _KEYS if entry.get(name) is not None}
    name = condition["field"]
    relation = condition.get("relation")
    if name == "location":
        condition.setdefault("relation", "within")
    if name in _SESSIONS and "value" in condition:
        # Some clients write the hours as the value.
        condition.setdefault("hours_ago", condition.pop("value"))
    value = condition.get("value")
    if relation in ("in_array", "not_in_array") and isinstance(value, str):
        condition["value"] = [part.strip() for part in value.split(",")]
    return condition
