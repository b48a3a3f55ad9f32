"""OneSignal's segments: saved filters of the app. The default ones are read-only.

Source: OneSignal, "Create Segment", "View Segments", "Update Segment", "Delete Segment".
"""

from __future__ import annotations

import uuid
from typing import Any

from starlette.responses import Response

from ...activities.checks import identifier
from ...activities.people.audience import DEFAULTS, Segment
from ...errors import InvalidInput, NotFound
from ..calls import Call
from ..problems import json_answer as answer
from .filters import read_filters, write_filters

MAX_NAME = 128
MOST = 300


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


async def view_all(call: Call) -> Response:
    """GET /apps/{app_id}/segments."""
    limit, offset = _number(call, "limit", MOST), _number(call, "offset", 0)
    saved = [
        {"id": one.id, "name": one.name, "app_id": call.app.id, "read_only": False}
        for one in await call.service.segments.list(call.app)
    ]
    every = [
        {"id": _id_of(name), "name": name, "app_id": call.app.id, "read_only": True}
        for name in DEFAULTS
    ]
    found = [{**entry, "is_active": True} for entry in [*saved, *every]]
    page = found[offset : offset + min(limit, MOST)]
    return answer({"total_count": len(found), "offset": offset, "limit": limit, "segments": page})


async def view(call: Call) -> Response:
    """GET /apps/{app_id}/segments/{segment_id}."""
    found = await _find(call)
    return answer(
        {
            "payload": {
                "id": found.id,
                "name": found.name,
                "description": None,
                "source": "api",
                "filters": write_filters(found.filter) or [],
            }
        }
    )


async def change(call: Call, body: dict[str, Any]) -> Response:
    """PATCH /apps/{app_id}/segments/{segment_id}: another filter. A name stays as it is."""
    found = await _find(call)
    if body.get("name") not in (None, found.name):
        raise InvalidInput(
            "cannot be changed", field="name", remedy="Create a segment with the new name."
        )
    if body.get("filters") is not None:
        rule = read_filters(body["filters"])
        await call.service.segments.save(call.app, found.name, rule)
    return answer({"success": True, "id": found.id})


async def delete(call: Call) -> Response:
    """DELETE /apps/{app_id}/segments/{segment_id}."""
    found = await _find(call)
    await call.service.segments.delete(call.app, found.id)
    return answer({"success": True})


async def _find(call: Call) -> Segment:
    wanted = call.part("segment_id")
    for one in await call.service.segments.list(call.app):
        if one.id == wanted:
            return one
    raise NotFound("segment not found")


def _number(call: Call, name: str, default: int) -> int:
    given: Any = call.request.query_params.get(name)
    if given is None:
        return default
    if not given.isdecimal() or len(given) > 9:
        raise InvalidInput("is not a whole number", field=name, remedy="Give 0 or more.")
    return int(given)


def _id_of(name: str) -> str:
    """Return the id of a segment that every app has: the same everywhere."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"apns-live:segment:{name}"))
