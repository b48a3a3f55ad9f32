"""The settings, calls and errors of ActivitySmith's API.

An app's settings are in ``app.settings["activitysmith"]``. An error is an object with ``error`` and
``message``. The labels that ActivitySmith publishes are used word for word; the others follow them.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.exceptions import HTTPException

from ...activities.accept.idempotency import Key
from ...activities.apps import App
from ...activities.times import to_text
from ...errors import GatewayError, InvalidInput, InvalidSetting
from ...misfits import misfit
from ..calls import Call as AnyCall
from ..problems import classify
from .requests import FIELDS

DIALECT = "activitysmith"
ID_ATTRIBUTE = "activity_id"
"""Where the app finds the activity's id, which it hands in its token with."""
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
_NAMED = FIELDS | {"key", "notification_id"}
_NAMED -= {"message", "subtitle", "sound", "interruption_level", "timestamp"}
"""Fields whose label is their name; ActivitySmith has no label for the excluded ones."""
_CODES: Mapping[str, tuple[int, str]] = {
    "payload_too_large": (400, "Payload too large"),
    "unauthenticated": (401, "Unauthorized"),
    "forbidden": (403, "Forbidden"),
    "too_many_requests": (429, "Rate limit exceeded"),
    "busy": (503, "Service busy"),
    "not_found": (404, "Not found"),
    "activity_ended": (404, "Live Activity not found"),
    "conflict": (409, "Conflict"),
    "idempotency_key_reused": (409, "Conflict"),
    "store_unavailable": (503, "Service unavailable"),
    "apns_unreachable": (503, "Service unavailable"),
    "not_possible": (400, "Invalid request"),
    "internal": (500, "Internal server error"),
}
"""Status and label of what `classify` finds; what is missing is about the body."""
_LATER = "The gateway cannot do this now, please try again later."
_SAID: Mapping[str, str] = {
    "too_many_requests": "Too many requests, please try again later.",
    "store_unavailable": _LATER,
    "apns_unreachable": _LATER,
    "internal": "The gateway failed. This was logged.",
}
_ABSENT: Mapping[int, tuple[str, str]] = {
    404: ("Not found", "There is no such endpoint."),
    405: ("Method not allowed", "This endpoint has no such method."),
}


class DialectSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one app.

    - ``attributes_type``: the Swift type of the cards, as the app registers it.
    - ``no_recipients_status``: 422, or 404 for programs written for the API before it had 422.
    - ``live_activities``: how many cards a device, or with ``counted`` ``account`` the whole app,
      may have from this dialect at the same time; None for no limit. ``at_limit`` says what a
      start does then.
    - ``answer_wait``: seconds that an answer waits for APNs, so that it can count devices; 0 answers at
      once, and counts the devices that the push is being sent to.
    - ``metrics_on_demand``: the first value creates the metric; otherwise a call must have created it
      before.
    - ``unknown_fields``: whether an unknown field is refused or ignored. Fields that ActivitySmith's
      own clients send are never refused.
    """

    attributes_type: str = "ActivitySmithAttributes"
    no_recipients_status: Literal[404, 422] = 422
    live_activities: Annotated[int, Meta(ge=1)] | None = 4
    counted: Literal["device", "account"] = "device"
    at_limit: Literal["refuse", "end_oldest"] = "refuse"
    answer_wait: Annotated[float, Meta(ge=0, le=60)] = 3.0
    metrics_on_demand: bool = False
    unknown_fields: Literal["refuse", "ignore"] = "refuse"


def settings_of(app: App) -> DialectSettings:
    """Return an app's settings of this dialect. Raises `InvalidSetting`."""
    given = app.settings.get(DIALECT, {})
    try:
        return msgspec.convert(given, DialectSettings)
    except msgspec.ValidationError as error:
        wrong = misfit(error)
        field = f"settings.{DIALECT}.{wrong.field}".rstrip(".")
        remedy = "See docs/vendors/activitysmith.md for what can be set."
        raise InvalidSetting(wrong.problem, field, remedy) from None


class Call(AnyCall):
    """A call of this dialect. A phone may read with its credential; such a call has no key."""

    @property
    def chosen(self) -> DialectSettings:
        """The app's settings of this dialect. Raises `InvalidSetting`."""
        return settings_of(self.app)

    @property
    def lenient(self) -> bool:
        """Whether unknown fields are ignored."""
        return self.chosen.unknown_fields == "ignore"

    @property
    def moment(self) -> float:
        """Seconds since 1970."""
        return self.gateway.clock.time()

    @property
    def timestamp(self) -> str:
        """The time of the answer, as this dialect writes it."""
        return to_text(self.now) or ""

    def once(self, digest: bytes | None = None) -> Key | None:
        """Return the idempotency key, an addition to ActivitySmith's API. Raises `InvalidInput`.

        It identifies the request as received, without the times and ids that the gateway derives.
        """
        if b"idempotency-key" not in self.headers:
            return None
        said: list[Any] = [self.scope["method"], self.scope["path"].removeprefix("/api"), self.body]
        return super().once(
            hashlib.sha256(msgspec.json.encode(said, order="deterministic")).digest()
        )


class Refused(GatewayError):
    """A refusal with the dialect's own words. ``extra`` are further keys of the answer."""

    def __init__(
        self, status: int, label: str, message: str, retry_after: float | None = None, **extra: Any
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after
        self.body = {"error": label, "message": message, **extra}


def refusal_of(error: BaseException) -> Refused:
    """Convert an error to this dialect. An unknown error's text is not shown to the caller."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, InvalidSetting):
        return Refused(500, "Gateway misconfigured", str(error))
    if isinstance(error, HTTPException) and error.status_code in _ABSENT:
        return Refused(error.status_code, *_ABSENT[error.status_code])
    found = classify(error)
    status, label = _CODES.get(found.code, (found.status, "Invalid request body"))
    if found.code == "invalid":
        head = found.field.partition(".")[0].partition("[")[0]
        status = 400
        label = _LABELS.get(head, f"Invalid {head if head in _NAMED else 'request'}")
    detail = str(error) if isinstance(error, InvalidInput) else found.detail
    extra = {"code": "rate_limited"} if status == 429 else {}
    return Refused(status, label, _SAID.get(found.code) or detail, found.retry_after, **extra)
