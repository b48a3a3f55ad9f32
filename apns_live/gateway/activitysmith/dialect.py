"""The settings, calls, results and errors of ActivitySmith's API.

An app's settings are in ``app.settings["activitysmith"]``. An error is an object with ``error`` and
``message``. The labels that ActivitySmith publishes are used word for word; the others follow them.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from sqlalchemy import func, select
from starlette.exceptions import HTTPException

from ...activities import checks
from ...activities.accept.idempotency import Key
from ...activities.apps import App
from ...activities.finding import named
from ...activities.read.operations import persons_reached
from ...activities.store import schema
from ...activities.store.statements import row_of, rows_of, view_of
from ...activities.times import to_text
from ...errors import GatewayError, InvalidInput, InvalidSetting
from ...misfits import misfit
from ...outcome import Verdict
from ..calls import Call as AnyCall
from ..problems import problem_of
from .requests import FIELDS

DIALECT = "activitysmith"
ID_ATTRIBUTE = "activity_id"
"""Where the app finds the activity's id, which it hands in its token with."""
CHANNELS = "Invalid channel targeting"
_STREAM_KEY = "Invalid stream_key"
_LABELS = {
    "stream_key": _STREAM_KEY,
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
"""Status and label of what `problem_of` finds; what is missing is about the body."""
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
_ERRORS_SHOWN = 20
_ALWAYS = ("activity_id", "effective_channel_slugs")
"""Keys that clients read even if they are null. Other empty keys are left out."""


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

    @property
    def stream_key(self) -> str:
        """The stream's key in the path. Raises `Refused` (400)."""
        try:
            return checks.stream_key(self.parts["stream_key"], "stream_key")
        except InvalidInput:
            text = "stream_key must contain only letters, numbers, underscores, and hyphens"
            raise Refused(400, _STREAM_KEY, text) from None

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
    found = problem_of(error)
    status, label = _CODES.get(found.code, (found.status, "Invalid request body"))
    if found.code == "invalid":
        head = found.field.partition(".")[0].partition("[")[0]
        status = 400
        label = _LABELS.get(head, f"Invalid {head if head in _NAMED else 'request'}")
    detail = str(error) if isinstance(error, InvalidInput) else found.detail
    extra = {"code": "rate_limited"} if status == 429 else {}
    return Refused(status, label, _SAID.get(found.code) or detail, found.retry_after, **extra)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an operation so far."""

    finished: bool = False
    targeted: int = 0
    accepted: int = 0
    failed: int = 0
    unregistered: int = 0
    persons: int = 0
    errors: list[str] = []

    @property
    def success(self) -> bool:
        """Whether APNs accepted a push, or may still accept one."""
        return self.accepted > 0 or not self.finished

    def counts(self, *, devices: int, queued: int) -> dict[str, Any]:
        """Return the counters of a change that ``devices`` can receive now and ``queued`` later.

        Devices that have not answered yet are counted as well: they get the change, or a newer state.
        """
        settled = self.finished and (self.accepted or self.failed)
        notified = self.accepted if settled else max(devices, self.accepted)
        return {
            "devices_notified": notified,
            "devices_queued": max(0, min(queued, devices + queued - notified)),
        }


async def await_result(call: Call, operation: str) -> Result:
    """Wait for APNs as long as the app's setting says; return the result so far.

    It is empty if ``operation`` is, because nothing was to be done, and if the operation was pruned.
    """
    wait = call.chosen.answer_wait

    async def finish() -> None:
        async for _ in call.service.watch(call.app, operation=operation):
            pass

    if operation and wait > 0:
        both = (
            asyncio.ensure_future(finish()),
            asyncio.ensure_future(call.gateway.clock.sleep(wait)),
        )
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
    table, outcomes, devices = schema.operations, schema.outcomes, schema.devices
    async with call.service.database.read() as connection:
        row = await row_of(connection, select(table).where(named(call.app, table, operation)))
        if row is None:
            return Result()
        persons = await persons_reached(connection, row.id)
        unregistered = 0
        failures: Sequence[Any] = ()
        if row.failed:
            ours, verdict = outcomes.c.operation_id == row.id, outcomes.c.verdict
            dropped = select(func.count()).where(ours, verdict == Verdict.DROP_TOKEN.value)
            unregistered = await connection.scalar(dropped) or 0
            failures = await rows_of(
                connection,
                select(devices.c.public_id, verdict, outcomes.c.reason)
                .select_from(outcomes)
                .outerjoin(devices, devices.c.id == outcomes.c.device_id)
                .where(ours, verdict != Verdict.ACCEPTED.value)
                .order_by(outcomes.c.id)
                .limit(_ERRORS_SHOWN),
            )
    errors = [f"device {one.public_id}: {one.reason or one.verdict}" for one in failures]
    return view_of(
        Result,
        row,
        finished=row.finished_at is not None,
        errors=[*errors, row.reason] if row.reason else errors,
        unregistered=unregistered,
        persons=persons,
    )


async def end_answer(
    call: Call, operation: str, devices: int, queued: int, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the answer to an end that ``devices`` can receive now and ``queued`` later.

    It has a warning if APNs accepted the end for no device. The activity has ended even then.
    """
    result = await await_result(call, operation)
    counted = result.counts(devices=devices, queued=queued)
    if devices and result.finished and result.failed and not result.accepted:
        counted["forced_completion"] = True
        counted["warning"] = (
            "The activity has ended here, but APNs accepted the end for none of its devices."
        )
    return answered(call, result, success=True, **about, **counted)


def answered(call: Call, result: Result | None, **said: Any) -> dict[str, Any]:
    """Return an answer without its empty keys, with a timestamp and the errors of its result."""
    said["timestamp"] = call.timestamp
    said["errors"] = result and result.errors
    empty: tuple[Any, ...] = (None, "", [], ())
    return {name: value for name, value in said.items() if name in _ALWAYS or value not in empty}
