"""Errors in this dialect's shape: an object with ``error``, a short label, and ``message``.

The labels that ActivitySmith publishes are used word for word where they exist; the others follow
their manner.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from ...errors import (
    ActivityEnded,
    ApnsLiveError,
    BadBody,
    Busy,
    Conflict,
    GatewayError,
    InvalidInput,
    InvalidSetting,
    NotAllowed,
    NotFound,
    PayloadTooLarge,
    StoreError,
    TooManyRequests,
    TransportError,
)
from ..problems import json_answer

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
    match error:
        case Refused():
            return error
        case InvalidSetting():
            return Refused(500, "Gateway misconfigured", str(error))
        case PayloadTooLarge():
            return Refused(400, "Payload too large", str(error))
        case InvalidInput():
            return Refused(400, _label(error.field), str(error))
        case BadBody():
            return Refused(error.status, "Invalid request body", error.problem)
        case NotAllowed(status=401):
            return Refused(401, "Unauthorized", str(error))
        case NotAllowed():
            return Refused(403, "Forbidden", str(error))
        case TooManyRequests():
            return Refused(
                429,
                "Rate limit exceeded",
                "Too many requests, please try again later.",
                extra={"code": "rate_limited"},
                retry_after=error.retry_after,
            )
        case Busy():
            return Refused(503, "Service busy", str(error), retry_after=error.retry_after)
        case NotFound():
            return Refused(404, "Not found", str(error))
        case ActivityEnded():
            return Refused(404, "Live Activity not found", str(error))
        case Conflict():
            return Refused(409, "Conflict", str(error))
        case StoreError() | TransportError():
            return Refused(
                503,
                "Service unavailable",
                "The gateway cannot do this now, please try again later.",
                retry_after=5.0,
            )
        case ApnsLiveError():
            return Refused(400, "Invalid request", str(error))
    return Refused(500, "Internal server error", "The gateway failed. This was logged.")


def answer_refusal(error: Exception) -> Response:
    """Return an error as an answer."""
    refused = refusal_of(error)
    headers = {"cache-control": "no-store"}
    if refused.status == 401:
        headers["www-authenticate"] = 'Bearer realm="apns-live"'
    body = {"error": refused.label, "message": refused.message, **refused.extra}
    return json_answer(body, refused.status, headers, retry_after=refused.retry_after)


def _label(field: str) -> str:
    head = field.partition(".")[0].partition("[")[0]
    if head in _OWN:
        return f"Invalid {head}"
    return _LABELS.get(head, "Invalid request")
