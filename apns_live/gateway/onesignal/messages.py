"""A notification by its id: what became of it, and calling it off.

Source: OneSignal, "View message" and "Cancel message".
"""

from __future__ import annotations

from starlette.responses import Response

from ...activities.read.views import OperationView
from ...activities.requests import CANCELLED, End, Presentation
from ...errors import InvalidInput, NotFound
from ..calls import Call
from ..problems import json_answer as answer
from . import words


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
