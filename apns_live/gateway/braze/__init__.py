"""Braze's Live Activity API: authentication, its two calls, and Braze's answers.

``{"error"}`` for a body that cannot be read, else ``{"message"}``. Source: Braze, "API errors and
responses". Servers that were written for it run against the gateway with another host and another key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from starlette.responses import Response

from ...activities.requests import End
from ...errors import ActivityEnded, BadBody, InvalidInput, NotFound, PayloadTooLarge
from .. import reach
from ..calls import Call, Face, operation
from ..keys import ApiKey
from ..problems import classify, json_answer
from ..scopes import Dialect
from . import words
from .translate import MAX_EXTERNAL_IDS, read_start, read_update

__all__ = ["Braze"]

MAX_BYTES = 4_194_304
"""Braze, OpenAPI of the update endpoint: a request has at most 4 MB."""
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


class Braze(Face):
    """Says the key's limit in the headers of every answer."""

    dialect: ClassVar[Dialect] = "braze"
    no_key = (
        "Give a REST key of this gateway as Authorization: Bearer KEY "
        "(apns-live keys create --dialect braze)."
    )
    hides_others = True
    limit_bytes = MAX_BYTES

    def __init__(self) -> None:
        self.operations = [
            operation(self, f"POST /messages/live_activity/{name}", do, scope=scope, grouped=True)
            for name, do, scope in (
                ("update", update, "activities:update"),
                ("start", start, "activities:start"),
            )
        ]

    def owns(self, path: str) -> bool:
        """Messages are Braze's."""
        return path.startswith("/messages/")

    def absent(self, status: int) -> Response:
        """Return 404 or 405."""
        if status == 405:
            return _answer(405, words.NOT_ALLOWED, ["Use POST."])
        spoken = "Spoken here: /messages/live_activity/start and /update"
        return _answer(404, words.NOT_FOUND, [spoken])

    def refuse(self, error: Exception) -> Response:
        """Return the answer to an error."""
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

    def after(self, call: Call) -> None:
        """Say what the key may ask yet."""
        limit, left, seconds = call.gateway.limits.remaining(call.key)
        if limit is not None and left is not None:
            call.said["x-ratelimit-limit"] = str(limit)
            call.said["x-ratelimit-remaining"] = str(left)
            call.said["x-ratelimit-reset"] = str(int(call.gateway.clock.time() + seconds))


async def start(call: Call, body: dict[str, Any]) -> Response:
    """Start an activity."""
    gateway, key = call.gateway, call.key
    app = key.app
    most = app.settings.get("braze_max_external_ids", MAX_EXTERNAL_IDS)
    request = read_start(body, now=gateway.clock.time(), max_ids=most)
    _check_app(key, body)
    reach.check_audience(key, request.audience)
    await reach.check_id(gateway, key, request.id)
    minor = []
    if not await reach.reaches_anyone(gateway, app, request.audience, request.attributes_type):
        known = await reach.knows_type(gateway, app, request.attributes_type)
        text = words.NOBODY if known else words.UNKNOWN_TYPE
        minor.append(text.format(name=request.attributes_type))
    await gateway.service.activities.start(app, request, again=True)
    return accepted(minor)


async def update(call: Call, body: dict[str, Any]) -> Response:
    """Give an activity a new state, or end it."""
    gateway, key = call.gateway, call.key
    request = read_update(body, now=gateway.clock.time())
    _check_app(key, body)
    activities = gateway.service.activities
    minor = []
    try:
        await reach.check_activity(gateway, key, request.id)
        if isinstance(request, End):
            done = await activities.end(key.app, request)
        else:
            done = await activities.update(key.app, request)
        answer = done.answer
        nobody = answer.status == "accepted" and not answer.devices + answer.queued
        if nobody and await reach.is_gone(gateway, key.app, request.id):
            minor.append(words.NOBODY_LEFT.format(activity=request.id))
    except NotFound:
        # Braze accepts what it cannot deliver, and says so in its dashboard only.
        minor.append(words.UNKNOWN_ACTIVITY.format(activity=request.id))
    except ActivityEnded:
        minor.append(words.ENDED_ACTIVITY.format(activity=request.id))
    return accepted(minor)


def _check_app(key: ApiKey, body: Mapping[str, Any]) -> None:
    if not reach.is_named(key.app, body["app_id"], "braze_app_id"):
        raise InvalidInput(
            "is not the app of this key",
            field="app_id",
            remedy="Give the app's id here, or set braze_app_id of the app to your id.",
        )


def accepted(minor: Sequence[str] = ()) -> Response:
    """Return 201: accepted, not delivered. ``minor`` says what will come of it, if less than hoped."""
    return _answer(201, words.SUCCESS, minor)


def _answer(
    status: int, message: str, errors: Sequence[str] = (), retry_after: float | None = None
) -> Response:
    beside = {"errors": list(errors)} if errors else {}
    return json_answer({"message": message, **beside}, status, retry_after=retry_after)
