"""From the fake's records to the shapes of the control API."""

from __future__ import annotations

from dataclasses import fields
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from apns_live.testing.clock import RealClock
from apns_live.testing.fake import FakeApns
from apns_live.testing.faults import ActiveFault, Fault
from apns_live.testing.log import LogEntry, PushRecord
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


def clock_row(fake: FakeApns) -> ClockRow:
    """Return the clock."""
    clock = fake.clock
    offset = clock.offset if isinstance(clock, RealClock) else 0.0
    return ClockRow(clock.time(), offset, not isinstance(clock, RealClock))


def counts_row(fake: FakeApns) -> CountsRow:
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


def fake_row(fake: FakeApns, started_at: float) -> FakeRow:
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


def token_row(token: Token) -> TokenRow:
    """Return a token."""
    return TokenRow(
        token.text,
        token.kind,
        token.bundle_id,
        token.attributes_type,
        token.condition,
        token.device.id,
        token.activity.id if token.activity is not None else None,
        token.automatic,
        token.sequence,
    )


def activity_row(activity: Activity, phones: SimulatedPhones, now: float) -> ActivityRow:
    """Return an activity."""
    return ActivityRow(
        activity.id,
        activity.device.id,
        activity.bundle_id,
        activity.attributes_type,
        shown_json(activity.attributes),
        shown_json(activity.content),
        activity.timestamp,
        activity.state,
        activity.stale,
        activity.started_at,
        activity.updated_at,
        activity.ended_at,
        activity.ended_by,
        activity.stale_date,
        activity.dismissal_date,
        activity.ends_at,
        activity.relevance_score,
        _alert(activity.alert),
        activity.alerted_at,
        activity.alerts,
        activity.token.text if activity.token is not None else None,
        activity.token_due,
        activity.channel,
        activity.updates,
        activity.ignored,
        _budget(activity, phones, now),
    )


def _alert(data: bytes) -> object:
    alert = shown_json(data)
    return {"title": alert, "body": None} if isinstance(alert, str) else alert


def _budget(activity: Activity, phones: SimulatedPhones, now: float) -> BudgetRow | None:
    law = phones.settings.budget
    if law is None:
        return None
    budget = activity.budget
    if budget is None:
        capacity = phones.kit.capacity_of(activity, law)
        return BudgetRow(capacity, capacity, law.window, law.kind, None)
    return BudgetRow(
        budget.capacity, budget.remaining(now), law.window, law.kind, budget.refills_at(now)
    )


def device_row(device: Device, phones: SimulatedPhones, now: float) -> DeviceRow:
    """Return a phone with its tokens, activities and notifications."""
    return DeviceRow(
        device.id,
        f"{device.os_version[0]}.{device.os_version[1]}",
        device.automatic,
        device.online and not (device.offline_until or 0) > now,
        device.awake,
        device.low_power,
        device.live_activities_enabled,
        device.frequent_pushes,
        device.has_dynamic_island,
        [token_row(token) for token in device.tokens],
        _start_budget(device, phones, now),
        device.waiting,
        [activity_row(activity, phones, now) for activity in device.activities],
        [notification_row(record) for record in device.notifications or ()],
    )


def _start_budget(device: Device, phones: SimulatedPhones, now: float) -> StartBudgetRow | None:
    law = phones.settings.start_budget
    if law is None:
        return None
    budgets = device.start_budgets
    if not budgets:
        return StartBudgetRow(law.capacity, law.capacity, law.window)
    budget = next(iter(budgets.values()))
    return StartBudgetRow(budget.capacity, budget.remaining(now), law.window)


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


def push_row(record: PushRecord, *, payload: bool) -> PushRow:
    """Return a push; its decoded body only with ``payload``."""
    push = record.push
    row = PushRow(
        record.number,
        push.received_at,
        record.status,
        record.reason,
        push.apns_id,
        push.apns_unique_id,
        push.token,
        push.channel_id,
        push.topic,
        push.push_type,
        push.priority,
        push.expiration,
        push.collapse_id,
        push.connection_id,
        len(push.body),
        event_of(record),
        record.timestamp,
        record.device,
        record.activity,
        record.state or None,
        record.why,
        record.detail,
        record.subscribers,
        record.delivered,
    )
    if payload:
        decoded = shown_json(push.body)
        row.payload = decoded
        if decoded is None:
            row.body = push.body[:_BODY_SHOWN].decode("utf-8", "replace")
    return row


def event_of(record: PushRecord) -> str | None:
    """Return the event of a push, read from its body when no phone has done so."""
    if record.event:
        return record.event
    event = peek_event(record.push.body)
    return event if event in {"start", "update", "end"} else None


def log_row(entry: LogEntry) -> LogRow:
    """Return a log entry."""
    return LogRow(**entry.as_row())  # type: ignore[arg-type]  # the same names, on purpose


def connection_row(snapshot: ConnectionSnapshot) -> ConnectionRow:
    """Return a connection."""
    return ConnectionRow(
        snapshot.connection_id,
        snapshot.peer,
        snapshot.face,
        snapshot.opened_at,
        snapshot.closed_at,
        snapshot.state,
        snapshot.open_streams,
        snapshot.max_streams,
        snapshot.window,
        snapshot.bound_key,
        snapshot.accepted,
        snapshot.refused,
    )


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
