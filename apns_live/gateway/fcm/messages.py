"""Reads the body of ``messages:send``, makes one push of it, and makes Google's errors. Pure functions.

Defaults of FCM are filled in; the payload goes to the phone unchanged. Bodies are proto3 JSON with both
spellings of each field. Error texts are those observed from FCM. Source: FCM, REST reference
"projects.messages", and "Start, update and end Live Activities"; Protocol Buffers, "ProtoJSON Format".

Errors are ``{"error": {code, message, status, details}}``. Source: FCM, "ErrorCode" and "FCM error codes";
docs/vendors/fcm.md has the table of APNs' reasons. Only a dead registration is answered with 404, because
apps delete the token when an SDK reports that status.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.exceptions import HTTPException

from ... import errors
from ...outcome import Outcome, Verdict
from ...payload import EncodedMessage
from ...payload.encode import LIVE_ACTIVITY_SUFFIX
from ...reasons import TABLE as REASONS
from ..problems import problem_of

# --- errors

REALM = 'Bearer realm="https://accounts.google.com/"'
_GOOGLE = "type.googleapis.com"
_FCM = f"{_GOOGLE}/google.firebase.fcm.v1"
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
        "@type": f"{_GOOGLE}/google.rpc.BadRequest",
        "fieldViolations": [{**named, "description": description}],
    }


def _quota(subject: str, text: str, wait: float, *more: Mapping[str, Any]) -> GoogleError:
    """Return the refusal that names the exceeded quota."""
    violated = {"subject": subject, "description": text}
    failure = {"@type": f"{_GOOGLE}/google.rpc.QuotaFailure", "violations": [violated]}
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
    if (found := problem_of(error)).status >= 500:
        code = 503 if found.status == 503 else 500
        return GoogleError(code, found.title, [fcm(STATUS[code])], retry_after=found.retry_after)
    return GoogleError(400, found.detail or INVALID, [fcm("INVALID_ARGUMENT")])


def not_spoken(what: str) -> GoogleError:
    """Return 501 for an unsupported part of the API."""
    text = f"{what} is not implemented by this gateway: it sends to Apple devices, one token each."
    return GoogleError(501, text)


def _apns(status: int, reason: str) -> dict[str, Any]:
    return {"@type": f"{_FCM}.ApnsError", "statusCode": status, "reason": reason}


# --- the body

TEXT, BOOL, TEXTS, STRUCT = "TYPE_STRING", "TYPE_BOOL", "map", "struct"
_TYPES: Mapping[str, type[Any]] = {TEXT: str, BOOL: bool, TEXTS: dict, STRUCT: dict}
Shape = Mapping[str, Any]

_LABEL: Shape = {"analytics_label": TEXT}
_APNS: Shape = {
    "headers": TEXTS,
    "payload": STRUCT,
    "fcm_options": {**_LABEL, "image": TEXT},
    "live_activity_token": TEXT,
}
MESSAGE: Shape = {
    "name": TEXT,
    "data": TEXTS,
    "notification": {"title": TEXT, "body": TEXT, "image": TEXT},
    # These parts are for other platforms. Their fields are not read.
    "android": STRUCT,
    "webpush": STRUCT,
    "apns": _APNS,
    "fcm_options": _LABEL,
    "token": TEXT,
    "fid": TEXT,
    "topic": TEXT,
    "condition": TEXT,
}
REQUEST: Shape = {"message": MESSAGE, "validate_only": BOOL}
_LOCATION = f"{_GOOGLE}/google.protobuf.Struct"
LIFETIME = 30 * 86_400
MOST_BYTES = 4_096
_NO_TARGET = "Recipient of the message is not set."
_TARGETS = ("token", "fid", "topic", "condition")
_TOKEN = re.compile(r"(?:[0-9a-fA-F]{2}){8,256}\Z")
_HEADER = re.compile(r"[\x20-\x7e]{1,256}\Z")
_RESERVED = re.compile(r"(?:from|message_type)\Z|google\.|gcm\.notification\.")
_SHOWN = ("alert", "badge", "sound")
SCOPES: Mapping[str, str] = {
    "start": "activities:start",
    "update": "activities:update",
    "end": "activities:end",
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One push, to one token. The key must have ``scope``; ``aps`` is decoded by the phone."""

    token: str
    aps: dict[str, Any]
    message: EncodedMessage
    scope: str
    validate_only: bool


def read_send(body: object, *, bundle_id: str, now: float) -> Asked:
    """Return the push that a body requests; ``now`` is seconds since 1970. Raises `GoogleError`."""
    request = _read(body, REQUEST)
    if (message := request.get("message")) is None:
        raise invalid("message", _NO_TARGET)
    apns = message.get("apns", {})
    live = apns.get("live_activity_token")
    target = _target(message, live)
    others = [name for name in ("android", "webpush") if name in message]
    if others and not any(name in message for name in ("apns", "notification", "data")):
        raise not_spoken(f"A message of {others[0]} alone")
    if live is not None:
        aps = _live_aps(apns.get("payload"))
        event, payload = aps["event"], apns["payload"]
        scope, kind, suffix = SCOPES[event], "liveactivity", LIVE_ACTIVITY_SUFFIX
    else:
        payload = _ordinary(message)
        aps = payload["aps"]
        kind = "alert" if any(name in aps for name in _SHOWN) else "background"
        scope, event, suffix = "notifications:send", kind, ""
    headers = {name.lower(): value for name, value in apns.get("headers", {}).items()}
    for name, value in headers.items():
        if not _HEADER.match(value):
            where = f"message.apns.headers.{name[:60]}"
            raise _wrong(where, "is not a string that a header can hold.")
    if "apns-channel-id" in headers:
        raise _wrong("message.apns.headers.apns-channel-id", "cannot be sent to: use the own API.")
    text = msgspec.json.encode(payload)
    if len(text) > MOST_BYTES:
        raise GoogleError(400, INVALID)
    topic = headers.get("apns-topic", f"{bundle_id}{suffix}")
    if not topic.startswith(bundle_id):
        field = "message.apns.headers.apns-topic"
        raise refused("TopicDisallowed", field, f"is not a topic of {bundle_id}.")
    encoded = EncodedMessage(
        body=text,
        push_type=headers.get("apns-push-type", kind),
        topic_suffix=topic.removeprefix(bundle_id),
        priority=_number(headers, "apns-priority", 5 if kind == "background" else 10, 99),
        expiration=_number(headers, "apns-expiration", int(now) + LIFETIME, 10**11),
        collapse_id=headers.get("apns-collapse-id"),
        event=event,
        has_alert="alert" in aps,
        # A second copy of an update or end changes nothing. A second start or alert is visible.
        replay_safe=event in ("update", "end", "background"),
    )
    token = target if live is None else str(live)
    if not _TOKEN.match(token):
        if live is not None:
            field = "message.apns.live_activity_token"
            raise refused("BadDeviceToken", field, "is not a token in hex.")
        what = "Invalid registration token: give the device token of APNs in hex."
        details = [fcm("INVALID_ARGUMENT"), violation("message.token", what)]
        what = "The registration token is not a valid FCM registration token"
        raise GoogleError(400, what, details)
    return Asked(
        token=token.lower(),
        aps=aps,
        message=encoded,
        scope=scope,
        validate_only=request.get("validate_only", False),
    )


def _target(message: Mapping[str, Any], live: str | None) -> str:
    if not (given := [name for name in _TARGETS if message.get(name)]):
        raise invalid("message", _NO_TARGET)
    if len(given) > 1:
        text = "Invalid value at 'message' (oneof), oneof field 'target' is already set."
        raise bad_field("message", f"{text} Cannot set '{given[1]}'")
    [name] = given
    if name in ("topic", "condition"):
        if live is not None:
            text = f"A Live Activity has one token: it cannot go to a {name}."
            raise invalid("message", text)
        raise not_spoken(f"A message to a {name}")
    return str(message[name])


def _live_aps(payload: object) -> dict[str, Any]:
    """Return ``aps`` of a Live Activity's payload, with the keys that a phone requires."""
    aps = payload.get("aps") if isinstance(payload, dict) else None
    where = "message.apns.payload.aps"
    if not isinstance(aps, dict):
        raise _wrong(where, "is missing or not an object: give event, timestamp and content-state.")
    if not isinstance(aps.get("event"), str) or aps["event"] not in SCOPES:
        raise _wrong(f"{where}.event", "is none of start, update and end.")
    if isinstance(aps.get("timestamp"), bool) or not isinstance(aps.get("timestamp"), (int, float)):
        raise _wrong(f"{where}.timestamp", "is missing or not a number: give seconds since 1970.")
    if aps["event"] != "end" and not isinstance(aps.get("content-state"), dict):
        raise _wrong(
            f"{where}.content-state",
            "is missing or not an object. The Python SDK leaves an empty one out of what it sends: give "
            "the state a field.",
        )
    return aps


def _ordinary(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an ordinary push: its payload, completed by the message's other fields."""
    apns = message.get("apns", {})
    payload = dict(apns.get("payload", {}))
    data: Mapping[str, str] = message.get("data", {})
    for name in data:
        if _RESERVED.match(name):
            raise _wrong("message.data", f"holds the reserved key {name[:100]}.")
    aps = payload.get("aps", {})
    if not isinstance(aps, dict):
        raise _wrong("message.apns.payload.aps", "is not an object.")
    notification = message.get("notification", {})
    words = {name: notification[name] for name in ("title", "body") if name in notification}
    if words and "alert" not in aps:
        aps = {**aps, "alert": words}
    if not aps and data:
        aps = {"content-available": 1}
    image = apns.get("fcm_options", {}).get("image") or notification.get("image")
    if image and "fcm_options" not in payload:
        payload["fcm_options"] = {"image": image}
    return {**data, **payload, "aps": aps}


def _number(headers: Mapping[str, str], name: str, default: int, most: int) -> int:
    if (text := headers.get(name)) is None:
        return default
    if not text.isdecimal() or int(text) > most:
        reason = "BadPriority" if name == "apns-priority" else "BadExpirationDate"
        raise refused(reason, f"message.apns.headers.{name}", "is not a number of that kind.")
    return int(text)


def _wrong(field: str, text: str) -> GoogleError:
    return invalid(field, f"{field}: {text}")


def _read(value: object, shape: Shape, path: str = "") -> dict[str, Any]:
    """Return the fields of an object by their proto names; null counts as absent.

    Raises `GoogleError` (400) for unknown fields and wrong types. Maps and structs stay as they are.
    """
    if not isinstance(value, dict):
        raise _invalid(path or "message", "message", value)
    found: dict[str, Any] = {}
    for name, entry in value.items():
        known = re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)
        head, *rest = known.split("_")
        if known not in shape or name not in (known, head + "".join(map(str.capitalize, rest))):
            where = f" at '{path}'" if path else ""
            text = f'Unknown name "{name[:100]}"{where}: Cannot find field.'
            raise bad_field(path, f"Invalid JSON payload received. {text}")
        if entry is None:
            continue
        if known in found:
            text = f"Invalid value at '{path}' (oneof), field '{known}' is set twice."
            raise bad_field(path or "message", text)
        inner, where = shape[known], f"{path}.{known}" if path else known
        if isinstance(inner, Mapping):
            found[known] = _read(entry, inner, where)
            continue
        if not isinstance(entry, _TYPES[inner]):
            raise _invalid(where, _LOCATION if inner == STRUCT else inner, entry)
        if inner == TEXTS:
            for index, text in enumerate(entry.values()):
                if not isinstance(text, str):
                    raise _invalid(f"{where}[{index}].value", TEXT, text)
        found[known] = entry
    return found


def _invalid(path: str, kind: str, value: object) -> GoogleError:
    return bad_field(path, f"Invalid value at '{path}' ({kind}), {json.dumps(value)[:100]}")
