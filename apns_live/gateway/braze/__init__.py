"""Braze's Live Activity API: authentication, its two calls, and Braze's answers.

``{"error"}`` for a body that cannot be read, else ``{"message"}``. Servers written for Braze work with another
host and another key. Some clients compare the texts. Source: Braze, "API errors and responses".
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ...errors import ActivityEnded, BadBody, InvalidInput, NotFound, PayloadTooLarge
from .. import reach
from ..calls import Call, Face, operation
from ..keys import ApiKey
from ..problems import json_answer, problem_of
from ..scopes import Dialect
from . import translate

MAX_BYTES = 4_194_304
"""Braze, OpenAPI of the update endpoint: a request has at most 4 MB."""
_MESSAGES: Mapping[int, str] = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Access Denied",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    429: "Rate Limited",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_FATAL = frozenset({translate.NO_RECIPIENTS, translate.TOO_MANY_IDS, translate.INVALID_EXTRA})
"""Problems in Braze's own words: they are the ``message``, and our text is in ``errors``."""
NOT_JSON = (
    "\nProblem:\n  message body does not match declared format\nResolution:\n  when specifying "
    "application/json as content-type, you must pass valid application/json in the request's 'body' "
)
"""The answer that both endpoints' pages show for a body that is not a JSON object, to the letter."""
_UNKNOWN_ACTIVITY = (
    "No device has handed this gateway a token for the activity_id {activity!r}, so nothing was "
    "sent. The app must register its tokens here; see docs/vendors/braze.md"
)
_NOBODY_LEFT = (
    "No device has the activity {activity!r} any more, so nothing was sent: everyone dismissed it"
)
_ENDED_ACTIVITY = "The activity {activity!r} has ended, so nothing was sent. Start a new one"
_MISSING: Mapping[reach.Missing, str] = {
    "type": "No device has handed this gateway a push-to-start token for {name!r}: nobody is reached "
    "until the app registers its tokens here; see docs/vendors/braze.md",
    "recipients": "None of the recipients has handed this gateway a push-to-start token for {name!r}: "
    "nobody is reached; see docs/vendors/braze.md",
}


class Braze(Face):
    """Braze's API. Every answer has the key's rate limit in its headers."""

    dialect: ClassVar[Dialect] = "braze"
    no_key = (
        "Give a REST key of this gateway as Authorization: Bearer KEY "
        "(apns-live keys create --dialect braze)."
    )
    hides_others = True
    limit_bytes = MAX_BYTES
    paths = ("/messages/",)

    def __init__(self) -> None:
        path = "POST /messages/live_activity"
        self.operations = [
            operation(self, f"{path}/update", _update, scope="activities:update", grouped=True),
            operation(self, f"{path}/start", _start, scope="activities:start", grouped=True),
        ]

    def refuse(self, error: Exception) -> Response:
        """Return the answer to an error."""
        match error:
            case HTTPException(status_code=405):
                return _answer(405, errors=["Use POST."])
            case HTTPException(status_code=404):
                spoken = "Supported paths: /messages/live_activity/start and /update"
                return _answer(404, errors=[spoken])
            case BadBody(status=400):
                return json_answer({"error": NOT_JSON}, 400)
            case PayloadTooLarge():
                return _answer(400, "Apple Push Length Exceeded", [str(error)])
            case InvalidInput() if error.problem in _FATAL:
                return _answer(400, error.problem, [str(error)] if error.field else [error.remedy])
        found = problem_of(error)
        status = 400 if found.status in (408, 409, 422) else found.status
        said = str(error) if isinstance(error, InvalidInput) else found.detail
        return _answer(status, errors=[said], retry_after=found.retry_after)

    def after(self, call: Call) -> None:
        """Add headers with the number of calls that the key has left."""
        limit, left, seconds = call.gateway.limits.remaining(call.key)
        if limit is not None and left is not None:
            call.said["x-ratelimit-limit"] = str(limit)
            call.said["x-ratelimit-remaining"] = str(left)
            call.said["x-ratelimit-reset"] = str(int(call.gateway.clock.time() + seconds))


async def _start(call: Call, body: dict[str, Any]) -> Response:
    gateway, key = call.gateway, call.key
    most = key.app.settings.get("braze_max_external_ids", translate.MAX_EXTERNAL_IDS)
    request = translate.read_start(body, now=gateway.clock.time(), max_ids=most)
    _check_app(key, body)
    missing = await reach.check_start(gateway, key, request)
    await gateway.service.activities.start(key.app, request, again=True)
    minor = _MISSING[missing].format(name=request.attributes_type) if missing else ""
    return _answer(201, "success", [minor])


async def _update(call: Call, body: dict[str, Any]) -> Response:
    gateway, key = call.gateway, call.key
    request = translate.read_update(body, now=gateway.clock.time())
    _check_app(key, body)
    minor = ""
    try:
        answer = await reach.change(gateway, key, request)
        nobody = answer.status == "accepted" and not answer.devices + answer.queued
        if nobody and await reach.is_gone(gateway, key.app, request.id):
            minor = _NOBODY_LEFT
    except NotFound:
        # Braze accepts undeliverable messages, and reports them only in its dashboard.
        minor = _UNKNOWN_ACTIVITY
    except ActivityEnded:
        minor = _ENDED_ACTIVITY
    # Accepted, not delivered: the text says why a push may reach no device.
    return _answer(201, "success", [minor.format(activity=request.id)])


def _check_app(key: ApiKey, body: Mapping[str, Any]) -> None:
    if not reach.is_named(key.app, body["app_id"], "braze_app_id"):
        remedy = "Give the app's id here, or set braze_app_id of the app to your id."
        raise InvalidInput("is not the app of this key", "app_id", remedy)


def _answer(
    status: int, message: str = "", errors: Sequence[str] = (), retry_after: float | None = None
) -> Response:
    message = message or _MESSAGES.get(status, _MESSAGES[400 if status < 500 else 500])
    given = [text for text in errors if text]
    body = {"message": message, **({"errors": given} if given else {})}
    return json_answer(body, status, retry_after=retry_after)
