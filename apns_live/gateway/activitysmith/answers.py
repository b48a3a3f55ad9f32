"""ActivitySmith's answers and errors. Empty keys of an answer are left out.

An error is an object with ``error`` and ``message``. The labels that ActivitySmith publishes are used word
for word; the others follow them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from ...errors import GatewayError, InvalidInput, InvalidSetting
from ..problems import classify
from .dialect import Call
from .requests import FIELDS
from .store import Result, result_of

CHANNELS = "Invalid channel targeting"
STREAM_KEY = "Invalid stream_key"
_ALWAYS = ("activity_id", "effective_channel_slugs")
"""Keys that clients read even if they are null."""
_LABELS = {
    "stream_key": STREAM_KEY,
    "target": CHANNELS,
    "channels": CHANNELS,
    "content_state": "Invalid content_state",
    "presentation": "Invalid alert",
    "custom": "Invalid payload",
}
_NAMED = FIELDS | {"key", "notification_id"}
_NAMED -= {"message", "subtitle", "sound", "interruption_level", "timestamp"}
"""Fields whose label is their name; ActivitySmith has no label for the excluded ones."""
_CODES: Mapping[str, tuple[int, str]] = {
    "payload_too_large": (400, "Payload too large"),
    "unauthenticated": (401, "Unauthorized"),
    "forbidden": (403, "Forbidden"),
    "too_many_requests": (429, "Rate limit exceeded"),
    "busy": (503, "Service busy"),
    "not_found": (404, "Not found"),
    "activity_ended": (404, "Live Activity not found"),
    "conflict": (409, "Conflict"),
    "idempotency_key_reused": (409, "Conflict"),
    "store_unavailable": (503, "Service unavailable"),
    "apns_unreachable": (503, "Service unavailable"),
    "not_possible": (400, "Invalid request"),
    "internal": (500, "Internal server error"),
}
"""Status and label of what `classify` finds; what is missing is about the body."""
_LATER = "The gateway cannot do this now, please try again later."
_SAID: Mapping[str, str] = {
    "too_many_requests": "Too many requests, please try again later.",
    "store_unavailable": _LATER,
    "apns_unreachable": _LATER,
    "internal": "The gateway failed. This was logged.",
}
_ABSENT: Mapping[int, tuple[str, str]] = {
    404: ("Not found", "There is no such endpoint."),
    405: ("Method not allowed", "This endpoint has no such method."),
}


class Refused(GatewayError):
    """A refusal with the dialect's own words. ``extra`` are further keys of the answer."""

    def __init__(
        self,
        status: int,
        label: str,
        message: str,
        *,
        retry_after: float | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.label = label
        self.message = message
        self.extra = extra
        self.retry_after = retry_after


def refusal_of(error: BaseException) -> Refused:
    """Convert an error to this dialect. An unknown error's text is not shown to the caller."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, InvalidSetting):
        return Refused(500, "Gateway misconfigured", str(error))
    if isinstance(error, HTTPException) and error.status_code in _ABSENT:
        return Refused(error.status_code, *_ABSENT[error.status_code])
    found = classify(error)
    status, label = _CODES.get(found.code, (found.status, "Invalid request body"))
    if found.code == "invalid":
        head = found.field.partition(".")[0].partition("[")[0]
        status = 400
        label = _LABELS.get(head, f"Invalid {head if head in _NAMED else 'request'}")
    detail = str(error) if isinstance(error, InvalidInput) else found.detail
    extra = {"code": "rate_limited"} if status == 429 else {}
    message = _SAID.get(found.code) or detail
    return Refused(status, label, message, retry_after=found.retry_after, **extra)


async def await_result(call: Call, operation: str) -> Result:
    """Wait for APNs as long as the app's setting says; return the result so far.

    ``operation`` is empty if nothing was to be done.
    """
    wait = call.chosen.answer_wait
    if operation and wait > 0:
        following = asyncio.ensure_future(_finish(call, operation))
        sleeping = asyncio.ensure_future(call.gateway.clock.sleep(wait))
        try:
            await asyncio.wait((following, sleeping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            following.cancel()
            sleeping.cancel()
            await asyncio.gather(following, sleeping, return_exceptions=True)
    return await result_of(call, operation) if operation else Result()


async def _finish(call: Call, operation: str) -> None:
    async for _ in call.service.watch(call.app, operation=operation):
        pass


def counts(result: Result, *, devices: int, queued: int) -> dict[str, Any]:
    """Return the counters of a change that ``devices`` can receive now and ``queued`` later.

    Devices that have not answered yet are counted as well: they get the change, or a newer state.
    """
    settled = result.finished and (result.accepted or result.failed)
    notified = result.accepted if settled else max(devices, result.accepted)
    return {
        "devices_notified": notified,
        "devices_queued": max(0, min(queued, devices + queued - notified)),
    }


async def end_answer(
    call: Call, operation: str, devices: int, queued: int, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the answer to an end that ``devices`` can receive now and ``queued`` later.

    It has a warning if APNs accepted the end for no device. The activity has ended even then.
    """
    result = await await_result(call, operation)
    counted = counts(result, devices=devices, queued=queued)
    if devices and result.finished and result.failed and not result.accepted:
        counted["forced_completion"] = True
        counted["warning"] = (
            "The activity has ended here, but APNs accepted the end for none of its devices."
        )
    return answered(call, result, success=True, **about, **counted)


def answered(call: Call, result: Result | None, **said: Any) -> dict[str, Any]:
    """Return an answer without its empty keys, with a timestamp and the errors of its result."""
    said["timestamp"] = call.timestamp
    said["errors"] = result and result.errors
    empty: tuple[Any, ...] = (None, "", [], ())
    return {name: value for name, value in said.items() if name in _ALWAYS or value not in empty}
