"""Start, update and end of OneSignal's API; showing and canceling a notification.

Source: OneSignal, "Start Live Activity", "Update Live Activity", "View message", "Cancel message".
"""

from __future__ import annotations

import hashlib
from typing import Any

from starlette.responses import Response

from ...activities import Key
from ...activities.read.operations import OperationView
from ...activities.requests import CANCELLED, End, Presentation
from ...errors import ActivityEnded, InvalidInput, NotFound
from ..calls import Call
from ..problems import json_answer as answer
from ..reach import check_activity, check_audience, check_id, knows_type, reaches_anyone
from . import words
from .translate import read_idempotency_key, read_start, read_update

_ANY_BODY = hashlib.sha256(b"onesignal").digest()
"""A key that is used again gets the first answer, whatever else stands in the body."""


async def start(call: Call, body: dict[str, Any]) -> Response:
    """POST /apps/{app_id}/activities/activity/{activity_type}."""
    given = read_idempotency_key(body)
    request = read_start(body, call.part("activity_type"), notification=call.gateway.new_id())
    check_audience(call.key, request.audience)
    await check_id(call.gateway, call.key, request.id)
    key = None
    if given is not None:
        key = Key(caller=call.key.caller, key=given, digest=_ANY_BODY)
    warnings = []
    if not await reaches_anyone(call.gateway, call.app, request.audience, request.attributes_type):
        if not await knows_type(call.gateway, call.app, request.attributes_type):
            raise InvalidInput(words.UNKNOWN_TYPE.format(name=request.attributes_type))
        warnings.append(words.NOBODY.format(name=request.attributes_type))
    done = await call.service.activities.start(call.app, request, key=key, again=True)
    # A key that is used again gets the notification of the first time.
    said: dict[str, object] = {"notification_id": call.told(done).operation}
    if warnings:
        said["warnings"] = warnings
    return answer(said, 201)


async def change(call: Call, body: dict[str, Any]) -> Response:
    """POST /apps/{app_id}/live_activities/{activity_id}/notifications."""
    notification = call.gateway.new_id()
    request = read_update(body, call.part("activity_id"), notification=notification)
    activities = call.service.activities
    try:
        if isinstance(request, End):
            call.need("activities:end")
            await check_activity(call.gateway, call.key, request.id)
            done = await activities.end(call.app, request)
        else:
            call.need("activities:update")
            await check_activity(call.gateway, call.key, request.id)
            done = await activities.update(call.app, request)
    except NotFound:
        raise NotFound(words.UNKNOWN_ACTIVITY) from None
    except ActivityEnded:
        raise NotFound(words.ENDED_ACTIVITY) from None
    said: dict[str, object] = {"id": done.answer.operation or notification}
    if done.answer.status == "accepted" and not done.answer.devices:
        said["warnings"] = [words.NO_DEVICES]
    return answer(said, 201)


async def view(call: Call) -> Response:
    """GET /notifications/{notification_id}?app_id=APP."""
    found = await _find(call)
    service = call.service
    receipts = await service.receipts.counters(call.app, operation=found["id"])
    done = found["finished_at"]
    counts = {
        "successful": found["accepted"],
        "failed": found["failed"],
        "errored": 0,
        "received": receipts["confirmed"],
        "converted": receipts["clicked"],
    }
    canceled = False
    if found["kind"] == "start" and (activity := found["activity"]) is not None:
        canceled = (await service.activities.get(call.app, activity))["end_reason"] == CANCELLED
    waiting = 0 if done else found["targeted"] - found["accepted"] - found["failed"]
    return answer(
        {
            "id": found["id"],
            "app_id": call.app.id,
            **counts,
            "remaining": max(0, waiting),
            "canceled": canceled,
            "queued_at": found["created_at"] // 1000,
            "send_after": found["created_at"] // 1000,
            "completed_at": None if done is None else done // 1000,
            "platform_delivery_stats": {"ios": counts},
        }
    )


async def cancel(call: Call) -> Response:
    """DELETE of the same address: a start that is still being sent ends."""
    found = await _find(call)
    if found["kind"] != "start" or found["finished_at"] is not None:
        raise InvalidInput(words.ALL_SENT)
    end = End(
        id=found["activity"] or "",
        presentation=Presentation(dismiss_after=0.0),
        reason=CANCELLED,
        dialect="onesignal",
    )
    await call.service.activities.end(call.app, end)
    return answer({"success": True})


async def _find(call: Call) -> OperationView:
    try:
        return await call.service.operations.get(call.app, call.part("notification_id"))
    except NotFound:
        raise NotFound(words.NO_MESSAGE) from None
