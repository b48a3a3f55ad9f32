"""Answers in Braze's two shapes: ``{"error"}`` for a body that cannot be read, else ``{"message"}``.

Source: Braze, "API errors and responses".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.responses import Response

from ...errors import BadBody, InvalidInput, PayloadTooLarge
from ..problems import classify, json_answer
from . import words

_BY_STATUS: Mapping[int, str] = {
    401: words.UNAUTHORIZED,
    403: words.ACCESS_DENIED,
    404: words.NOT_FOUND,
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
            return json_answer({"error": words.NOT_JSON}, 400)
        case PayloadTooLarge():
            return _answer(400, words.TOO_LONG, [str(error)])
        case InvalidInput() if error.problem in words.FATAL:
            return _answer(400, error.problem, [str(error)] if error.field else [error.remedy])
    found = classify(error)
    status = 400 if found.status in (408, 409, 422) else found.status
    message = _BY_STATUS.get(status, words.BAD_REQUEST if status < 500 else words.SERVER_ERROR)
    said = str(error) if isinstance(error, InvalidInput) else found.detail
    return _answer(status, message, [said] if said else (), found.retry_after)


def refusal(path: str, error: Exception) -> Response | None:
    """Return the answer to what no route met, or None for a path that is not Braze's."""
    if not path.startswith("/messages/"):
        return None
    status = getattr(error, "status_code", None)
    if status == 404:
        spoken = "Spoken here: /messages/live_activity/start and /update"
        return _answer(404, words.NOT_FOUND, [spoken])
    return _answer(405, words.NOT_ALLOWED, ["Use POST."]) if status == 405 else refuse(error)


def _answer(
    status: int, message: str, errors: Sequence[str] = (), retry_after: float | None = None
) -> Response:
    beside = {"errors": list(errors)} if errors else {}
    return json_answer({"message": message, **beside}, status, retry_after=retry_after)
