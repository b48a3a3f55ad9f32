"""Converts the fake's records to the objects of the control API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from apns_live import explain
from apns_live.testing.clock import RealClock
from apns_live.testing.fake import FakeApns
from apns_live.testing.faults import ActiveFault, Fault
from apns_live.testing.log import LogEntry, PushRecord
from apns_live.testing.namespaces import Namespace
from apns_live.testing.phones import Activity, Device, SimulatedPhones, Token
from apns_live.testing.phones.decoding import as_json, peek_event
from apns_live.testing.wire import ConnectionSnapshot

from .shapes import (
    ActivityRow,
    BudgetRow,
    ClockRow,
    ConnectionRow,
    CountsRow,
    DeviceRow,
    FakeRow,
    LogRow,
    NotificationRow,
    PushRow,
    StartBudgetRow,
    TokenRow,
)

_BODY_SHOWN = 4096
_DEEP = 400
_ROOM = 64


def shown_json(data: bytes) -> object:
    """Return decoded JSON, or None when it is empty, cannot be decoded, or is too deep to be sent on.

    What decodes at the interpreter's recursion limit does not encode inside an answer.
    """
    decoded = as_json(data)
    if data.count(b"[") + data.count(b"{") > _DEEP:
        wrapped = decoded
        for _ in range(_ROOM):
            wrapped = [wrapped]
        try:
            msgspec.json.encode(wrapped)
        except RecursionError:
            return None
    return decoded


def clock_row(fake: FakeApns | Namespace) -> ClockRow:
    """Return the clock."""
    clock = fake.clock
    offset = clock.offset if isinstance(clock, RealClock) else 0.0
    return ClockRow(clock.time(), offset, not isinstance(clock, RealClock))


def counts_row(fake: FakeApns | Namespace) -> CountsRow:
    """Return the counts."""
    phones, log = fake.devices, fake.log
    states = log.by_state
    return CountsRow(
        received=states["received"],
        stored=states["stored"],
        delivered=states["delivered"],
        delivered_from_storage=states["delivered from storage"],
        discarded=states["discarded"],
        refused=sum(log.refused_by.values()),
        discarded_by=dict(sorted(log.discarded_by.items())),
        refused_by=dict(sorted(log.refused_by.items())),
        devices=len(phones.devices),
        activities=len(phones.activities),
        tokens=len(phones.registry.tokens),
    )


def fake_row(fake: FakeApns | Namespace, started_at: float) -> FakeRow:
    """Return what runs here, without clock and counts."""
    return FakeRow(
        endpoint=fake.url,
        manage=fake.manage_url,
        bundle_id=fake.bundle_id,
        environment=fake.state.environment,
        devices=fake.state.devices,
        seed=fake.seed,
        version=_version(),
        started_at=started_at,
    )


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return version("apns-live")
    except PackageNotFoundError:
        return "0"


def _copied(kind: type[Any], thing: object, **special: Any) -> msgspec.Struct:
    """Return a row whose fields are the attributes of ``thing``, but for those that are given."""
    names = (name for name in kind.__struct_fields__ if name not in special)
    row: msgspec.Struct = kind(**special, **{name: getattr(thing, name) for name in names})
    return row


def token_row(token: Token) -> msgspec.Struct:
    """Return a token."""
    activity = token.activity.id if token.activity is not None else None
    return _copied(TokenRow, token, token=token.text, device=token.device.id, activity=activity)


def activity_row(activity: Activity, phones: SimulatedPhones, now: float) -> msgspec.Struct:
    """Return an activity."""
    refresh = activity.refresh
    return _copied(
        ActivityRow,
        activity,
        device=activity.device.id,
        attributes=shown_json(activity.attributes),
        content_state=shown_json(activity.content),
        pending=shown_json(refresh.content) if refresh is not None and refresh.due else None,
        alert=_alert(activity.alert),
        token=activity.token.text if activity.token is not None else None,
        budget=_budget(activity, phones, now),
    )


def _alert(data: bytes) -> object:
    alert = shown_json(data)
    return {"title": alert, "body": None} if isinstance(alert, str) else alert


def _budget(activity: Activity, phones: SimulatedPhones, now: float) -> BudgetRow | None:
    law, budget = phones.kit.law_of(activity.device), phones.kit.budget_of(activity)
    if law is None or budget is None:
        return None
    left, refills_at = budget.remaining(now), budget.refills_at(now)
    return BudgetRow(budget.capacity, left, law.window, law.kind, refills_at, bool(law.pooled))


def device_row(device: Device, phones: SimulatedPhones, now: float) -> msgspec.Struct:
    """Return a phone with its tokens, activities and notifications."""
    return _copied(
        DeviceRow,
        device,
        os_version=f"{device.os_version[0]}.{device.os_version[1]}",
        online=not (device.offline_until or 0) > now,
        tokens=[token_row(token) for token in device.tokens],
        start_budget=_start_budget(device, phones, now),
        stored=device.waiting,
        activities=[activity_row(activity, phones, now) for activity in device.activities],
        notifications=[notification_row(record) for record in device.notifications or ()],
    )


def _start_budget(device: Device, phones: SimulatedPhones, now: float) -> StartBudgetRow | None:
    law = phones.settings.start_budget
    if law is None:
        return None
    starts = (each for key, each in (device.budgets or {}).items() if key[0] == "starts")
    budget = next(starts, None)
    left = law.capacity if budget is None else budget.remaining(now)
    return StartBudgetRow(law.capacity, left, law.window)


def notification_row(record: PushRecord) -> NotificationRow:
    """Return an ordinary notification."""
    payload = shown_json(record.push.body)
    aps = payload.get("aps") if isinstance(payload, dict) else None
    aps = aps if isinstance(aps, dict) else {}
    alert = aps.get("alert")
    parts = alert if isinstance(alert, dict) else {"body": alert}
    return NotificationRow(
        record.push.received_at,
        record.number,
        parts.get("title"),
        parts.get("subtitle"),
        parts.get("body"),
        aps.get("badge"),
        record.push.push_type,
    )


_OF_PUSH = (
    *("received_at", "apns_id", "apns_unique_id", "token", "topic", "push_type", "priority"),
    *("expiration", "collapse_id"),
)


def push_row(
    record: PushRecord, *, payload: bool, log: Iterable[LogEntry] | None = None
) -> msgspec.Struct:
    """Return a push; its decoded body only with ``payload``."""
    push = record.push
    fields: dict[str, Any] = dict.fromkeys(("payload", "body", "log"), msgspec.UNSET)
    if payload:
        decoded = shown_json(push.body)
        fields["payload"] = decoded
        if decoded is None:
            fields["body"] = push.body[:_BODY_SHOWN].decode("utf-8", "replace")
    if log is not None:
        fields["log"] = [log_row(entry) for entry in log]
    word = record.why or record.reason
    of_push = {name: getattr(push, name) for name in _OF_PUSH}
    return _copied(
        PushRow,
        record,
        **of_push,
        channel=push.channel_id,
        connection=push.connection_id,
        size=len(push.body),
        event=event_of(record),
        state=record.state or None,
        explain=word if explain.find(word) else "",
        **fields,
    )


def event_of(record: PushRecord) -> str | None:
    """Return the event of a push, read from its body when no phone has done so."""
    if record.event:
        return record.event
    event = peek_event(record.push.body)
    return event if event in {"start", "update", "end"} else None


def log_row(entry: LogEntry) -> msgspec.Struct:
    """Return a log entry."""
    row: msgspec.Struct = LogRow(**entry.as_row())
    return row


def connection_row(snapshot: ConnectionSnapshot) -> msgspec.Struct:
    """Return a connection."""
    named = {"id": snapshot.connection_id, "key_id": snapshot.bound_key}
    return _copied(ConnectionRow, snapshot, **named)


_FAULT_DEFAULTS: dict[str, Any] = {
    each.name: each.default for each in fields(Fault) if each.name != "action"
}


def fault_row(active: ActiveFault) -> dict[str, object]:
    """Return a fault as it would stand in a scenario file, with its id and what it did."""
    fault = active.fault
    row: dict[str, object] = {"id": active.fault_id, "action": fault.action}
    for name, default in _FAULT_DEFAULTS.items():
        value = getattr(fault, name)
        if value != default and value not in ((), {}):
            row[name] = value
    return row | {"matched": active.matched, "fired": active.fired}
