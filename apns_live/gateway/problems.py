"""Errors as problem details (RFC 9457) with a stable ``code``, for the native API.

The vendors' APIs have their own formats and use `classify` to map an error.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import msgspec
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

    ``field`` is the path of what is wrong in the body, ``remedy`` says what to do; ``retry_after``
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


def problem(
    code: str,
    status: int,
    detail: str = "",
    *,
    field: str = "",
    remedy: str = "",
    retry_after: float | None = None,
) -> Problem:
    """Return a problem with the code's title. ``type`` is a URN of the code."""
    return Problem(
        type=f"urn:apns-live:problem:{code}",
        title=TITLES[code],
        status=status,
        code=code,
        detail=detail,
        field=field,
        remedy=remedy,
        retry_after=retry_after,
    )


def classify(error: BaseException) -> Problem:
    """Return what an error is to a caller. Of an unknown one nothing is shown."""
    match error:
        case errors.PayloadTooLarge():
            return problem(
                "payload_too_large", 422, error.problem, field=error.field, remedy=error.remedy
            )
        case errors.InvalidInput():
            return problem("invalid", 422, error.problem, field=error.field, remedy=error.remedy)
        case errors.BadBody(status=413):
            return problem("body_too_large", 413, error.problem)
        case errors.BadBody(status=415):
            return problem("not_json", 415, error.problem, remedy="Send plain application/json.")
        case errors.BadBody():
            return problem("bad_body", error.status, error.problem)
        case msgspec.ValidationError():
            found = misfit(error)
            return problem("invalid", 422, found.problem, field=found.field, remedy=found.remedy)
        case errors.NotAllowed(status=401):
            return problem("unauthenticated", 401, str(error))
        case errors.NotAllowed():
            return problem("forbidden", 403, str(error))
        case errors.TooManyRequests():
            return problem("too_many_requests", 429, str(error), retry_after=error.retry_after)
        case errors.Busy():
            return problem("busy", 503, str(error), retry_after=error.retry_after)
        case errors.NotFound():
            return problem("not_found", 404, str(error))
        case errors.KeyReused():
            return problem("idempotency_key_reused", 422, str(error))
        case errors.Conflict():
            return problem("conflict", 409, str(error))
        case errors.ActivityEnded():
            return problem("activity_ended", 409, str(error))
        case errors.StoreError():
            _trouble.say(str(error)[:200])
            return problem("store_unavailable", 503, retry_after=5.0)
        case errors.ChannelError(status=400 | 404 | 405 | 413):
            return problem("apns_refused", 422, str(error), remedy=error.remedy)
        case errors.ChannelError(status=status) if 400 <= status < 500 and status != 429:
            return problem("apns_refused", 409, str(error), remedy=error.remedy)
        case errors.ChannelError():
            return problem(
                "apns_unreachable", 503, str(error), remedy=error.remedy, retry_after=5.0
            )
        case errors.TransportError():
            return problem("apns_unreachable", 503, str(error), retry_after=5.0)
        case errors.ApnsLiveError():
            return problem("not_possible", 409, str(error))
    return problem("internal", 500)


class Reply(Response):
    """An answer that is all there. ``media_type`` is empty for one without a body."""

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
    """Return an answer with a JSON body, and the headers that its status calls for.

    ``retry_after`` is seconds, and ``Retry-After`` whole ones. A 401 says how to show a key (RFC 9110, 11.6.1).
    """
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


def of_status(status: int) -> Problem:
    """Return the problem for a bare HTTP status of the framework (404, 405)."""
    codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    code = codes.get(status, "bad_body" if status < 500 else "internal")
    details = {404: "there is no such path", 405: "this path has other methods: see Allow"}
    remedy = "GET /openapi.json describes every path." if status in details else ""
    return problem(code, status, details.get(status, ""), remedy=remedy)
