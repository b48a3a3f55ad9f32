"""OneSignal's segments, which are saved filters of the app, and its filters. Default segments are read-only.

Filters are a flat list with AND and OR; AND binds closer. An unsupported condition is refused: if it
were ignored, the push would go to everyone. Source: OneSignal, "Filters", "Create Segment", "View
Segments", "Update Segment", "Delete Segment".
"""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta
from starlette.responses import Response

from ...activities.checks import convert, identifier
from ...activities.people.audience import DEFAULTS, Segment
from ...errors import InvalidInput, NotFound
from ..calls import Call
from ..problems import json_answer as answer

MAX_NAME = 128
MOST = 300
MAX_ENTRIES = 200
_ENTRIES = Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_ENTRIES)]
_KEYS = ("key", "relation", "value", "hours_ago", "radius", "lat", "long")

Tree = dict[str, Any]


async def create(call: Call, body: dict[str, Any]) -> Response:
    """POST /apps/{app_id}/segments."""
    name = identifier(body.get("name"), "name", limit=MAX_NAME)
    if await call.service.segments.list(call.app, only=name):
        return answer({"success": False, "errors": [f"a segment {name!r} is there already"]}, 409)
    given = body.get("id")
    rule = read_filters(body.get("filters"))
    saved = await call.service.segments.save(
        call.app, name, rule, id=None if given is None else identifier(given, "id", limit=64)
    )
    return answer({"success": True, "id": saved.id}, 201)


async def view_all(call: Call) -> dict[str, Any]:
    """GET /apps/{app_id}/segments: the saved ones, then those that every app has."""
    limit, offset = _number(call, "limit", MOST), _number(call, "offset", 0)
    named = [(one.id, one.name, False) for one in await call.service.segments.list(call.app)]
    for name in DEFAULTS:
        every = uuid.uuid5(uuid.NAMESPACE_URL, f"apns-live:segment:{name}")
        named.append((str(every), name, True))
    page = [
        {"id": id_, "name": name, "app_id": call.app.id, "read_only": fixed, "is_active": True}
        for id_, name, fixed in named[offset : offset + min(limit, MOST)]
    ]
    return {"total_count": len(named), "offset": offset, "limit": limit, "segments": page}


async def view(call: Call) -> dict[str, Any]:
    """GET /apps/{app_id}/segments/{segment_id}."""
    found = await _find(call)
    shown = {"id": found.id, "name": found.name, "description": None, "source": "api"}
    return {"payload": {**shown, "filters": write_filters(found.filter) or []}}


async def change(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    """PATCH /apps/{app_id}/segments/{segment_id}: another filter. The name cannot change."""
    found = await _find(call)
    if body.get("name") not in (None, found.name):
        raise InvalidInput("cannot be changed", "name", "Create a segment with the new name.")
    if body.get("filters") is not None:
        await call.service.segments.save(call.app, found.name, read_filters(body["filters"]))
    return {"success": True, "id": found.id}


async def delete(call: Call) -> dict[str, Any]:
    """DELETE /apps/{app_id}/segments/{segment_id}."""
    await call.service.segments.delete(call.app, (await _find(call)).id)
    return {"success": True}


async def _find(call: Call) -> Segment:
    wanted = call.parts["segment_id"]
    for one in await call.service.segments.list(call.app):
        if one.id == wanted:
            return one
    raise NotFound("segment not found")


def _number(call: Call, name: str, default: int) -> int:
    given: Any = call.params.get(name)
    if given is None:
        return default
    if not given.isdecimal() or len(given) > 9:
        raise InvalidInput("is not a whole number", name, "Give 0 or more.")
    return int(given)


def read_filters(value: object, field: str = "filters") -> Tree:
    """Return the tree of a list of filters and operators. Raises `InvalidInput`.

    Fields, relations and values are checked where the tree is compiled.
    """
    remedy = f"Give 1 to {MAX_ENTRIES} filters and operators."
    entries: list[dict[str, Any]] = convert(value, _ENTRIES, field, remedy=remedy)
    groups: list[list[Tree]] = [[]]
    expected = True  # a condition must come before an operator
    for index, entry in enumerate(entries):
        where = f"{field}[{index}]"
        if (operator := entry.get("operator")) is None or entry.get("field") is not None:
            groups[-1].append(_condition(entry))
            expected = False
            continue
        convert(operator, Literal["AND", "OR"], f"{where}.operator", remedy="Use OR or AND.")
        if expected:
            problem = "is an operator where a condition is expected"
            raise InvalidInput(problem, where, "Put it between two.")
        expected = True
        if operator == "OR":
            groups.append([])
    if expected:
        raise InvalidInput("ends with an operator", field, "Give a condition after it.")
    trees = [group[0] if len(group) == 1 else {"and": group} for group in groups]
    return trees[0] if len(trees) == 1 else {"or": trees}


def write_filters(tree: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return the list that `read_filters` reads to an equal tree, or None if there is none."""
    entries: list[dict[str, Any]] = []
    for group in tree.get("or", [tree]):
        parts = group.get("and", [group])
        if any("field" not in part for part in parts):
            return None
        if entries:
            entries.append({"operator": "OR"})
        for part in parts:
            implied = {"relation"} if part.get("relation") == "within" else set()
            entries.append({name: part[name] for name in part if name not in implied})
    return entries


def _condition(entry: Mapping[str, Any]) -> Tree:
    """Return one condition. A null key counts as absent."""
    condition: Tree = {"field": entry.get("field")}
    condition |= {name: entry[name] for name in _KEYS if entry.get(name) is not None}
    name = condition["field"]
    relation = condition.get("relation")
    if name == "location":
        condition.setdefault("relation", "within")
    if name in ("first_session", "last_session") and "value" in condition:
        # Some clients write the hours as the value.
        condition.setdefault("hours_ago", condition.pop("value"))
    value = condition.get("value")
    if relation in ("in_array", "not_in_array") and isinstance(value, str):
        condition["value"] = [part.strip() for part in value.split(",")]
    return condition
