"""Answers in OneSignal's shape: ``{"errors": [...]}`` for every refusal.

Source: OneSignal, "Rate limits and error handling", and the official SDKs' list of texts.
"""

from __future__ import annotations

from starlette.responses import Response

from ...errors import InvalidInput, NotAllowed, TooManyRequests
from ..problems import classify
from ..problems import json_answer as answer
from . import words

__all__ = ["answer", "refusal", "refuse"]

_OWN = ("/apps/", "/notifications/")


def refuse(error: Exception) -> Response:
    """Return the answer to an error. Nothing is shown of a defect."""
    match error:
        case InvalidInput() if error.problem in (words.NO_TARGET, words.ALL_SENT):
            return _errors(400, error.problem)
        case InvalidInput():
            return _errors(400, str(error))
        case NotAllowed():
            # OneSignal says 403 also where the key is missing or wrong.
            return _errors(403, words.INVALID_KEY if error.status == 401 else str(error))
        case TooManyRequests():
            return _errors(429, words.RATE_LIMITED, retry_after=error.retry_after)
    found = classify(error)
    if found.status >= 500:
        return _errors(found.status, words.UNAVAILABLE, retry_after=found.retry_after)
    return _errors(400 if found.status == 422 else found.status, found.detail or found.title)


def refusal(path: str, error: Exception) -> Response | None:
    """Return the answer to what no route met, or None for a path that is not OneSignal's."""
    if not f"{path.removeprefix('/api/v1')}/".startswith(_OWN) and not path.startswith("/api/v1/"):
        return None
    status = getattr(error, "status_code", None)
    if status == 404:
        return _errors(404, "Not found: this gateway speaks the part that Live Activities need")
    return _errors(405, "Method not allowed") if status == 405 else refuse(error)


def _errors(status: int, text: str, *, retry_after: float | None = None) -> Response:
    return answer({"errors": [text]}, status, retry_after=retry_after)
