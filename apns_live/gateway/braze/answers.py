"""Answers in Braze's two shapes: ``{"error"}`` for a body that cannot be read, else ``{"message"}``.

Source: Braze, "API errors and responses".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec
from starlette.responses import Response

from ...errors import (
    BadBody,
    Busy,
    InvalidInput,
    NotAllowed,
    PayloadTooLarge,
    TooManyRequests,
)
from ..problems import classify
from . import words

_BY_STATUS: Mapping[int, str] = {
    401: words.UNAUTHORIZED,
    403: words.ACCESS_DENIED,
    404: words.NOT_FOUND,
    405: words.NOT_ALLOWED,
    413: words.TOO_LARGE,
    415: words.MEDIA_TYPE,
    429: words.RATE_LIMITED,
    502: words.BAD_GATEWAY,
    503: words.UNAVAILABLE,
}


def accepted(minor: Sequence[str] = ()) -> Response:
    """Return 201: accepted, not delivered. ``minor`` says what will come of it, if less than hoped."""
    return _answer(201, words.SUCCESS, minor)


def refuse(error: Exception) -> Response:
    """Return the answer to an error. Nothing is shown of a defect."""
    match error:
        case BadBody(status=400):
            return _respond(400, {"error": words.NOT_JSON})
        case BadBody():
            return _answer(error.status, _BY_STATUS[error.status], [error.problem])
        case PayloadTooLarge():
            return _answer(400, words.TOO_LONG, [str(error)])
        case InvalidInput() if error.problem in words.FATAL:
            return _answer(400, error.problem, [str(error)] if error.field else [error.remedy])
        case InvalidInput():
            return _answer(400, words.BAD_REQUEST, [str(error)])
        case NotAllowed():
            return _answer(error.status, _BY_STATUS[error.status], [str(error)])
        case TooManyRequests() | Busy():
            status = 429 if isinstance(error, TooManyRequests) else 503
            wait = str(max(1, math.ceil(error.retry_after)))
            return _answer(status, _BY_STATUS[status], [str(error)], {"retry-after": wait})
    found = classify(error)
    status = 400 if found.status in (409, 422) else found.status
    message = _BY_STATUS.get(status, words.BAD_REQUEST if status < 500 else words.SERVER_ERROR)
    headers = {} if found.retry_after is None else {"retry-after": f"{found.retry_after:.0f}"}
    return _answer(status, message, [found.detail] if found.detail else (), headers)


def refusal(path: str, error: Exception) -> Response | None:
    """Return the answer to what no route met, or None for a path that is not Braze's."""
    if not path.startswith("/messages/"):
        return None
    status = getattr(error, "status_code", None)
    if status == 404:
        return not_found()
    return not_allowed() if status == 405 else refuse(error)


def not_found() -> Response:
    """Return 404 for an address that is none of Braze's that are spoken here."""
    return _answer(404, words.NOT_FOUND, ["Spoken here: /messages/live_activity/start and /update"])


def not_allowed() -> Response:
    """Return 405 for a known address with another method."""
    return _answer(405, words.NOT_ALLOWED, ["Use POST."], {"allow": "POST"})


def _answer(
    status: int, message: str, errors: Sequence[str] = (), headers: Mapping[str, str] | None = None
) -> Response:
    body: dict[str, object] = {"message": message}
    if errors:
        body["errors"] = list(errors)
    return _respond(status, body, headers)


def _respond(
    status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        msgspec.json.encode(body), status, headers=headers, media_type="application/json"
    )
