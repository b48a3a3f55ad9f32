"""Start, update and end of OneSignal's API; showing and canceling a notification.

Unknown fields are ignored, as at OneSignal; numbers may come as text. Source: OneSignal, "Start Live Activity",
"Update Live Activity", "View message", "Cancel message".
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.responses import Response

from ...activities import Key, checks
from ...activities.checks import convert
from ...activities.read.operations import OperationView
from ...activities.requests import CANCELLED, AlertText, Audience, End, Presentation, Start, Update
from ...errors import ActivityEnded, InvalidInput, NotFound
from .. import reach, reading
from ..calls import Call
from ..problems import json_answer as answer
from ..reading import LONG_PAST
from . import words
from .segments import read_filters
from .words import NO_TARGET

MAX_IDS = 20_000
MAX_NAME = 128
_TARGETS = ("include_aliases", "include_subscription_ids", "included_segments", "filters")
_DATE = Annotated[float, Meta(ge=0, lt=1e11)]
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_ANY_BODY = hashlib.sha256(b"onesignal").digest()
"""A repeated key gets the first answer, whatever else is in the body."""


async def start(call: Call, activity_type: str, body: dict[str, Any]) -> Response:
    """POST /apps/{app_id}/activities/activity/{activity_type}."""
    given = read_idempotency_key(body)
    request = read_start(body, activity_type, notification=call.service.new_id())
    missing = await reach.check_start(call.gateway, call.key, request)
    if missing == "type":
        raise InvalidInput(words.UNKNOWN_TYPE.format(name=activity_type))
    key = Key(caller=call.key.caller, key=given, digest=_ANY_BODY) if given else None
    done = await call.service.activities.start(call.app, request, key=key, again=True)
    # A repeated key returns the notification of the first call.
    said: dict[str, object] = {"notification_id": call.told(done).operation}
    if missing:
        said["warnings"] = [words.NOBODY.format(name=activity_type)]
    return answer(said, 201)


async def change(call: Call, activity_id: str, body: dict[str, Any]) -> Response:
    """POST /apps/{app_id}/live_activities/{activity_id}/notifications."""
    notification = call.service.new_id()
    request = read_update(body, activity_id, notification=notification)
    call.need("activities:end" if isinstance(request, End) else "activities:update")
    try:
        done = await reach.change(call.gateway, call.key, request)
    except (NotFound, ActivityEnded) as error:
        ended = isinstance(error, ActivityEnded)
        raise NotFound(words.ENDED_ACTIVITY if ended else words.UNKNOWN_ACTIVITY) from None
    said: dict[str, object] = {"id": done.operation or notification}
    if done.status == "accepted" and not done.devices:
        said["warnings"] = [words.NO_DEVICES]
    return answer(said, 201)


async def view(call: Call) -> dict[str, Any]:
    """GET /notifications/{notification_id}?app_id=APP."""
    found, service = await _find(call), call.service
    receipts = await service.receipts.counters(call.app, operation=found["id"])
    done = found["finished_at"]
    counts = {
        "successful": found["accepted"],
        "failed": found["failed"],
        "errored": 0,
        "received": receipts["confirmed"],
        "converted": receipts["clicked"],
    }
    canceled = False
    if found["kind"] == "start" and (activity := found["activity"]) is not None:
        canceled = (await service.activities.get(call.app, activity))["end_reason"] == CANCELLED
    waiting = 0 if done else found["targeted"] - found["accepted"] - found["failed"]
    return {
        "id": found["id"],
        "app_id": call.app.id,
        **counts,
        "remaining": max(0, waiting),
        "canceled": canceled,
        "queued_at": found["created_at"] // 1000,
        "send_after": found["created_at"] // 1000,
        "completed_at": None if done is None else done // 1000,
        "platform_delivery_stats": {"ios": counts},
    }


async def cancel(call: Call) -> dict[str, Any]:
    """DELETE of the same address ends a start that is still being sent."""
    found = await _find(call)
    if found["kind"] != "start" or found["finished_at"] is not None:
        raise InvalidInput(words.ALL_SENT)
    gone, name = Presentation(dismiss_after=0.0), found["activity"] or ""
    end = End(id=name, presentation=gone, reason=CANCELLED, dialect="onesignal")
    await call.service.activities.end(call.app, end)
    return {"success": True}


async def _find(call: Call) -> OperationView:
    try:
        return await call.service.operations.get(call.app, call.parts["notification_id"])
    except NotFound:
        raise NotFound(words.NO_MESSAGE) from None


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of both calls."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    event_updates: dict[str, Any]
    contents: dict[str, Any] | None = None
    headings: dict[str, Any] | None = None
    stale_date: Any = None
    priority: Literal[5, 10] | None = None
    ios_sound: Annotated[str, Meta(min_length=1)] | None = None
    ios_relevance_score: reading.Score | None = None

    def presentation(self, *, dismissal: float | None = None) -> Presentation:
        """Return the presentation of the state. Raises `InvalidInput`."""
        headings, contents = _texts(self.headings, "headings"), _texts(self.contents, "contents")
        if headings and contents and headings.keys() != contents.keys():
            tags = ", ".join(sorted(headings.keys() ^ contents.keys()))
            problem = f"has other languages than contents: {tags}"
            raise InvalidInput(problem, "headings", "Give both texts in the same languages.")
        alert = None
        if headings or contents:
            # The sound is a file, the default or none (nil). ActivityKit drops an alert without a title.
            sound = {"nil": None, None: "default"}.get(self.ios_sound, self.ios_sound)
            sound = sound if headings else None
            alert = AlertText(title=headings or "", body=contents or "", sound=sound)
        stale = _date(self.stale_date, "stale_date")
        return Presentation(
            alert=alert,
            stale_date=None if stale is None else max(stale, LONG_PAST),
            # A date in the distant past means "at once", which is 0 for APNs.
            dismissal_date=0.0 if dismissal is not None and dismissal < LONG_PAST else dismissal,
            relevance_score=self.ios_relevance_score,
            urgency=self.priority and ("quiet" if self.priority == 5 else "urgent"),
        )


class _Start(_Said, frozen=True, kw_only=True):
    event: Literal["start"]
    activity_id: str
    event_attributes: dict[str, Any]


class _Change(_Said, frozen=True, kw_only=True):
    event: Literal["update", "end"]
    dismissal_date: Any = None
    dismiss_at: Any = None


def read_start(body: Mapping[str, Any], activity_type: str, *, notification: str) -> Start:
    """Return the start that a body requests. Raises `InvalidInput`.

    ``notification`` is the id of the notification, and of the operation: the content state carries it,
    and the device sends it back to confirm the push.
    """
    said = reading.body(body, _Start)
    activity = checks.identifier(said.activity_id, "activity_id")
    for field in ("headings", "contents"):
        if not getattr(said, field):
            raise InvalidInput("is missing", field, "Give a text for en at least.")
    return Start(
        id=activity,
        attributes_type=checks.attributes_type(activity_type, "activity_type"),
        attributes=_with(said.event_attributes, "activityId", activity),
        content_state=_with(said.event_updates, "notificationId", notification),
        presentation=said.presentation(),
        audience=read_target(body),
        metadata={"name": said.name},
        dialect="onesignal",
        operation=notification,
    )


def read_update(body: Mapping[str, Any], activity: str, *, notification: str) -> Update | End:
    """Return the update or end that a body requests. Raises `InvalidInput`."""
    checks.identifier(activity, "activity_id")
    said = reading.body(body, _Change)
    state = said.event_updates
    shown = _with(state, "notificationId", notification)
    common: Any = {"id": activity, "dialect": "onesignal", "operation": notification}
    given = said.dismiss_at if said.dismissal_date is None else said.dismissal_date
    dismissal = _date(given, "dismissal_date")
    if said.event == "update":
        return Update(content_state=shown, presentation=said.presentation(), **common)
    # After an end without a state the card keeps its last state.
    final = said.presentation(dismissal=dismissal)
    return End(content_state=shown if state else None, presentation=final, **common)


def read_idempotency_key(body: Mapping[str, Any]) -> str | None:
    """Return the idempotency key, by its name or its old one. Raises `InvalidInput`."""
    for name in ("idempotency_key", "external_id"):
        if (value := body.get(name)) is None:
            continue
        if not isinstance(value, str) or not _UUID.fullmatch(value):
            raise InvalidInput("is not a valid UUID", name, "Give a UUID as of RFC 9562.")
        return value.lower()
    return None


def read_target(body: Mapping[str, Any]) -> Audience:
    """Return the audience of a start. Raises `InvalidInput` unless exactly one kind is given."""
    name = reading.one_of(body, _TARGETS, InvalidInput(NO_TARGET))
    excluded = body.get("excluded_segments")
    if excluded not in (None, []) and name != "included_segments":
        problem = "cannot be combined with other targets than segments"
        raise InvalidInput(problem, "excluded_segments", "Use it with included_segments.")
    match name:
        case "include_aliases":
            return _aliases(body[name])
        case "include_subscription_ids":
            return Audience(devices=reading.ids(body[name], name, most=MAX_IDS, limit=64))
        case "filters":
            return Audience(filter=read_filters(body[name]))
    return Audience(
        segments=reading.ids(body[name], name, most=MAX_IDS),
        exclude_segments=reading.ids(excluded or [], "excluded_segments", most=MAX_IDS),
    )


def _aliases(value: object) -> Audience:
    field = "include_aliases"
    remedy = "Give labels, each with its ids."
    by_label: dict[str, tuple[str, ...]] = {}
    for label, ids in convert(value, dict[str, Any], field, remedy=remedy).items():
        if ids is not None:
            checks.identifier(label, field, limit=128)
            by_label[label] = reading.ids(ids, f"{field}.{label}", most=MAX_IDS)
    count = sum(len(ids) for ids in by_label.values())
    checks.at_most(count, MAX_IDS, "ids", field)
    if not count:
        raise InvalidInput(NO_TARGET)
    users, user_ids = by_label.pop("external_id", ()), by_label.pop("onesignal_id", ())
    aliases = {label: ids for label, ids in by_label.items() if ids}
    return Audience(users=users, user_ids=user_ids, aliases=aliases)


def _texts(given: Mapping[str, Any] | None, field: str) -> dict[str, str] | None:
    """Return texts by language, ``en`` among them; None for none."""
    if not given:
        return None
    texts: dict[str, str] = {}
    for tag, text in given.items():
        where = f"{field}.{tag}"[:80]
        if text is not None:
            texts[checks.language(tag, where)] = convert(text, str, where, remedy="Give a text.")
    if not texts.get("en"):
        raise InvalidInput("has no text for en", field, "Give one: it is the default.")
    return texts


def _date(value: object, field: str) -> float | None:
    """Return seconds since 1970; a text of ten digits counts as seconds, any other as an ISO date."""
    if isinstance(value, str) and len(value) == 10 and value.isdecimal():
        value = int(value)
    return None if value is None else convert(value, _DATE, field, remedy="Give whole seconds.")


def _with(values: Mapping[str, Any], name: str, value: str) -> dict[str, Any]:
    """Return the object with one more value under ``onesignal``, where the app's SDK reads it."""
    known = values.get("onesignal")
    return {**values, "onesignal": {**(known if isinstance(known, Mapping) else {}), name: value}}
