"""Google's format of errors: ``{"error": {code, message, status, details}}``.

Source: FCM, "ErrorCode" and "FCM error codes"; docs/vendors/fcm.md has the table of APNs' reasons. Only
a dead registration is answered with 404, because apps delete the token when an SDK reports that status.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException

from ... import errors
from ...outcome import Outcome, Verdict
from ...reasons import TABLE as REASONS
from ..problems import classify

REALM = 'Bearer realm="https://accounts.google.com/"'
_TYPES = "type.googleapis.com"
_FCM = f"{_TYPES}/google.firebase.fcm.v1"
INVALID = "Request contains an invalid argument."
STATUS: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
Details = Sequence[Mapping[str, Any]]


class GoogleError(errors.GatewayError):
    """A refusal in Google's format. ``retry_after`` is seconds."""

    def __init__(
        self, code: int, message: str, details: Details = (), *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.details = details
        self.retry_after = retry_after


def fcm(code: str) -> dict[str, str]:
    """Return the detail from which SDKs read an error's type."""
    return {"@type": f"{_FCM}.FcmError", "errorCode": code}


def violation(field: str, description: str) -> dict[str, Any]:
    """Return the detail that names a wrong field."""
    named = {"field": field} if field else {}
    return {
        "@type": f"{_TYPES}/google.rpc.BadRequest",
        "fieldViolations": [{**named, "description": description}],
    }


def _quota(subject: str, text: str, wait: float, *more: Mapping[str, Any]) -> GoogleError:
    """Return the refusal that names the exceeded quota."""
    violated = {"subject": subject, "description": text}
    failure = {"@type": f"{_TYPES}/google.rpc.QuotaFailure", "violations": [violated]}
    return GoogleError(429, text, [fcm("QUOTA_EXCEEDED"), *more, failure], retry_after=wait)


def bad_field(field: str, text: str, *more: Mapping[str, Any]) -> GoogleError:
    """Return the refusal of a body with an unknown field or a wrong type."""
    return GoogleError(400, text, [violation(field, text), *more])


def invalid(field: str, text: str) -> GoogleError:
    """Return the refusal of a value that this gateway or a phone cannot use."""
    return bad_field(field, text, fcm("INVALID_ARGUMENT"))


def refused(reason: str, field: str, description: str) -> GoogleError:
    """Return APNs' answer for a message that is refused before it is sent."""
    details = [fcm("INVALID_ARGUMENT"), _apns(400, reason), violation(field, description)]
    return GoogleError(400, INVALID, details)


def failure_of(outcome: Outcome, *, unregistered: bool) -> GoogleError:
    """Convert an outcome to an error. With ``unregistered`` a 410 becomes UNREGISTERED."""
    reason, status = outcome.reason, outcome.status
    apns = [_apns(status, reason)] if status else []

    def error(code: int, kind: str, text: str, wait: float | None = None) -> GoogleError:
        return GoogleError(code, text, [fcm(kind), *apns], retry_after=wait)

    if status == 403 and reason in REASONS and reason != "TopicMismatch":  # the app's own key
        return error(401, "THIRD_PARTY_AUTH_ERROR", "Auth error from APNS or Web Push Service")
    if status == 410 and unregistered:
        return error(404, "UNREGISTERED", "Requested entity was not found.")
    if status == 410:
        return error(400, "INVALID_ARGUMENT", "APNs device token is disabled.")
    if status == 413:
        return GoogleError(400, INVALID)
    if status == 429 or outcome.verdict is Verdict.SLOW_DOWN:
        # This includes a push that was not sent because APNs has just throttled its token.
        return _quota("device", "Quota exceeded for this device.", 1.0, *apns)
    if status == 503 or (not status and not outcome.may_have_been_sent):
        return error(503, "UNAVAILABLE", "The service is currently unavailable.", 1.0)
    if status >= 500:
        return error(500, "INTERNAL", "Internal error encountered.")
    if not status:
        # SDKs do not retry this error. A retry could show the message twice.
        return error(504, "INTERNAL", "APNs did not answer in time: the message may have arrived.")
    return error(400, "INVALID_ARGUMENT", INVALID)


def refusal_of(error: Exception) -> GoogleError:
    """Convert an error to this API. Only a dead token gets 404."""
    match error:
        case GoogleError():
            return error
        case HTTPException(status_code=404 | 405):
            # Not 404: an SDK reports that as a dead token, and the app deletes it.
            return not_spoken("This address or method")
        case errors.BadBody():
            return bad_field("", f"Invalid JSON payload received. {error.problem}")
        case errors.InvalidInput():
            return invalid("message.apns.payload", str(error))
        case errors.NotAllowed():
            details = [fcm("SENDER_ID_MISMATCH")] if error.status == 403 else []
            return GoogleError(error.status, str(error), details)
        case errors.TooManyRequests():
            return _quota("project", str(error), error.retry_after)
        case errors.Busy() | errors.PoolFull() | errors.ClientClosed():
            return GoogleError(503, str(error), [fcm("UNAVAILABLE")], retry_after=1.0)
    found = classify(error)
    if found.status >= 500:
        code = 503 if found.status == 503 else 500
        return GoogleError(code, found.title, [fcm(STATUS[code])], retry_after=found.retry_after)
    return GoogleError(400, found.detail or INVALID, [fcm("INVALID_ARGUMENT")])


def not_spoken(what: str) -> GoogleError:
    """Return 501 for an unsupported part of the API."""
    text = f"{what} is not implemented by this gateway: it sends to Apple devices, one token each."
    return GoogleError(501, text)


def _apns(status: int, reason: str) -> dict[str, Any]:
    return {"@type": f"{_FCM}.ApnsError", "statusCode": status, "reason": reason}
