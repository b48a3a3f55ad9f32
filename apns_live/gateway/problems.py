"""Errors as problem details (RFC 9457) with a stable ``code``, for the native API.

The vendors' APIs have their own formats and use `problem_of` to map an error.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .. import errors
from ..misfits import misfit
from .logs import Seldom

_trouble = Seldom(
    logging.getLogger("apns_live.gateway"), "calls were refused because the database cannot be used"
)
JSON = "application/json"
MEDIA_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One refusal. ``code`` is stable and meant for programs, ``detail`` for people.

    ``field`` is the path of the wrong value in the body, ``remedy`` says what to do; ``retry_after``
    is seconds, and is also the header ``Retry-After`` (whole seconds, rounded up).
    """

    type: str
    title: str
    status: int
    code: str
    detail: str = ""
    field: str = ""
    remedy: str = ""
    retry_after: float | None = None


TITLES: dict[str, str] = {
    "bad_body": "The body cannot be read",
    "body_too_large": "The body is too large",
    "not_json": "The body is not declared as JSON",
    "media_type": "The body is not of a type that this call takes",
    "invalid": "A field is wrong",
    "payload_too_large": "The content is too large for APNs",
    "unauthenticated": "No valid key",
    "forbidden": "The key may not do this",
    "not_found": "There is no such thing",
    "method_not_allowed": "The method is not allowed here",
    "conflict": "It cannot be done in this state",
    "activity_ended": "The activity has ended",
    "idempotency_key_reused": "The idempotency key was used for another request",
    "too_many_requests": "Too many requests",
    "busy": "Too much is waiting",
    "store_unavailable": "The database cannot be used",
    "apns_refused": "APNs refused it",
    "apns_unreachable": "APNs cannot be reached",
    "not_possible": "It cannot be done",
    "internal": "A defect of the gateway",
}


def problem(code: str, status: int, detail: str = "", **more: Any) -> Problem:
    """Return a problem with the code's title; ``more`` are other fields. ``type`` is a URN of the code."""
    urn, title = f"urn:apns-live:problem:{code}", TITLES[code]
    return Problem(type=urn, title=title, status=status, code=code, detail=detail, **more)


_STATUSES: tuple[tuple[type[Exception], str, int], ...] = (
    (errors.TooManyRequests, "too_many_requests", 429),
    (errors.Busy, "busy", 503),
    (errors.NotFound, "not_found", 404),
    (errors.KeyReused, "idempotency_key_reused", 422),
    (errors.Conflict, "conflict", 409),
    (errors.ActivityEnded, "activity_ended", 409),
    (errors.TransportError, "apns_unreachable", 503),
    (errors.ApnsLiveError, "not_possible", 409),
)
"""Code and status of errors whose text is the detail; the first that fits counts."""
_UNREADABLE = {413: ("body_too_large", ""), 415: ("not_json", "Send plain application/json.")}
_ABSENT = {
    404: ("not_found", "there is no such path"),
    405: ("method_not_allowed", "this path has other methods: see Allow"),
}


def problem_of(error: BaseException) -> Problem:
    """Convert an error to a problem. The text of an unknown error is not shown to the caller."""
    match error:
        case errors.InvalidInput():
            code = "payload_too_large" if isinstance(error, errors.PayloadTooLarge) else "invalid"
            return problem(code, 422, error.problem, field=error.field, remedy=error.remedy)
        case msgspec.ValidationError():
            found = misfit(error)
            return problem("invalid", 422, found.problem, field=found.field, remedy=found.remedy)
        case errors.BadBody():
            code, remedy = _UNREADABLE.get(error.status, ("bad_body", ""))
            return problem(code, error.status, error.problem, remedy=remedy)
        case errors.NotAllowed():
            code = "unauthenticated" if error.status == 401 else "forbidden"
            return problem(code, error.status, str(error))
        case errors.StoreError():
            _trouble.say(str(error)[:200])
            return problem("store_unavailable", 503, retry_after=5.0)
        case errors.ChannelError(status=status):
            text, remedy = str(error), error.remedy
            if not 400 <= status < 500 or status == 429:
                return problem("apns_unreachable", 503, text, remedy=remedy, retry_after=5.0)
            refused = 422 if status in (400, 404, 405, 413) else 409
            return problem("apns_refused", refused, text, remedy=remedy)
        case HTTPException(status_code=(404 | 405) as status):
            code, detail = _ABSENT[status]
            return problem(code, status, detail, remedy="GET /openapi.json describes every path.")
        case HTTPException(status_code=status) if status < 500:
            return problem("body_too_large" if status == 413 else "bad_body", status)
    for kind, code, status in _STATUSES:
        if isinstance(error, kind):
            wait = 5.0 if code == "apns_unreachable" else getattr(error, "retry_after", None)
            return problem(code, status, str(error), retry_after=wait)
    return problem("internal", 500)


class Reply(Response):
    """A complete answer. ``media_type`` is empty if it has no body."""

    def __init__(
        self, body: bytes, status: int, headers: Mapping[str, str], media_type: str = JSON
    ) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        if media_type:
            self.raw_headers.append((b"content-length", b"%d" % len(body)))
            self.raw_headers.append((b"content-type", media_type.encode()))


def json_answer(
    body: object,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    retry_after: float | None = None,
    media_type: str = JSON,
) -> Response:
    """Return a JSON answer. ``retry_after`` is seconds; a 401 has WWW-Authenticate (RFC 9110, 11.6.1)."""
    found = dict(headers or {})
    if retry_after is not None:
        found["retry-after"] = str(max(1, math.ceil(retry_after)))
    if status == 401:
        found.setdefault("www-authenticate", 'Bearer realm="apns-live"')
    return Reply(msgspec.json.encode(body), status, found, media_type)


def respond(found: Problem) -> Response:
    """Return a problem as an answer."""
    return json_answer(
        found,
        found.status,
        {"cache-control": "no-store"},
        retry_after=found.retry_after,
        media_type=MEDIA_TYPE,
    )
