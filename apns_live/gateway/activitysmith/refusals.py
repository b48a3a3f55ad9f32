"""ActivitySmith's format of errors: an object with ``error`` and ``message``.

The labels that ActivitySmith publishes are used word for word where they exist; the others follow
their manner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from ...errors import GatewayError, InvalidInput, InvalidSetting
from ..problems import classify, json_answer

CHANNELS = "Invalid channel targeting"
STREAM_KEY = "Invalid stream_key"
_LABELS = {
    "stream_key": STREAM_KEY,
    "target": CHANNELS,
    "channels": CHANNELS,
    "content_state": "Invalid content_state",
    "presentation": "Invalid alert",
    "custom": "Invalid payload",
}
_CODES: Mapping[str, tuple[int, str]] = {
    "payload_too_large": (400, "Payload too large"),
    "invalid": (400, ""),
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
_OWN = frozenset(
    {
        "action",
        "actions",
        "activity_id",
        "alert",
        "badge",
        "icon",
        "key",
        "media",
        "metadata",
        "notification_id",
        "payload",
        "redirection",
        "secondary_action",
        "tags",
        "title",
        "value",
    }
)


class Refused(GatewayError):
    """A refusal with the dialect's own words. ``extra`` are further keys of the answer."""

    def __init__(
        self,
        status: int,
        label: str,
        message: str,
        *,
        extra: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.label = label
        self.message = message
        self.extra = dict(extra or {})
        self.retry_after = retry_after


def refusal_of(error: BaseException) -> Refused:
    """Return what an error is in this dialect. Of an unknown one nothing is shown."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, InvalidSetting):
        return Refused(500, "Gateway misconfigured", str(error))
    found = classify(error)
    status, label = _CODES.get(found.code, (found.status, "Invalid request body"))
    if found.code == "invalid":
        label = _label(found.field)
    message = _SAID.get(found.code) or (
        str(error) if isinstance(error, InvalidInput) else found.detail
    )
    extra = {"code": "rate_limited"} if status == 429 else {}
    return Refused(status, label, message, extra=extra, retry_after=found.retry_after)


def answer_refusal(error: Exception) -> Response:
    """Return an error as an answer."""
    refused = refusal_of(error)
    body = {"error": refused.label, "message": refused.message, **refused.extra}
    headers = {"cache-control": "no-store"}
    return json_answer(body, refused.status, headers, retry_after=refused.retry_after)


def _label(field: str) -> str:
    head = field.partition(".")[0].partition("[")[0]
    if head in _OWN:
        return f"Invalid {head}"
    return _LABELS.get(head, "Invalid request")
