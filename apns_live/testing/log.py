"""The delivery log: the state of each push, in the terms of Apple's log, in bounded buffers.

Apple's console calls a push received, stored, delivered, delivered from storage or discarded
("Viewing the status of push notifications using Metrics and APNs"). Apple's log ends there. This log also
says why a phone showed nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from .recorder import Refusal, Ring
from .state import Push

RECEIVED = "received"
STORED = "stored"
DELIVERED = "delivered"
DELIVERED_FROM_STORAGE = "delivered from storage"
DISCARDED = "discarded"

# Why a push is stored.
DEVICE_OFFLINE = "device offline"
POWER = "power"
DEMOTED = "budget"
"""The budget of priority 10 is spent: it waits for a burst, as priority 5 does."""

# Why a push was discarded.
BUDGET = "budget"
START_BUDGET = "start budget"
OLDER_TIMESTAMP = "older timestamp"
FUTURE_TIMESTAMP = "future timestamp"
UNDECODABLE = "undecodable"
NO_ALERT = "no alert"
ENDED = "ended"
LIMIT = "limit"
TOO_LARGE = "too large"
DISABLED = "disabled"
DENIED = "denied"
LOW_POWER = "low power"
WRONG_TOKEN = "wrong token"
CHANNEL = "channel"
COLLAPSED = "collapsed"
SILENT_TOKEN = "silent token"
OFFLINE = "offline"
EXPIRED = "expired"
REPLACED = "replaced"
DISCARD_REASONS = (
    *(BUDGET, START_BUDGET, OLDER_TIMESTAMP, FUTURE_TIMESTAMP, UNDECODABLE, NO_ALERT, ENDED),
    *(LIMIT, TOO_LARGE, DISABLED, DENIED, LOW_POWER, WRONG_TOKEN, CHANNEL, COLLAPSED),
    *(SILENT_TOKEN, OFFLINE, EXPIRED, REPLACED),
)
_FIELD_KEPT = 512


class PushRecord(msgspec.Struct, gc=False, eq=False):
    """One request to the push port, and what became of it.

    ``number`` counts every recorded request from 1. ``status`` and ``reason`` are APNs' answer;
    ``state``, ``why`` and ``detail`` say what the phone did (``state`` is ``""`` for a refused
    one). ``event`` and ``timestamp`` are the payload's, once a phone has read it. A broadcast
    counts its ``subscribers`` and to how many it was ``delivered``; its state is ``received``.
    ``demoted``: it came over the budget and was delayed.
    """

    number: int
    push: Push
    status: int = 200
    reason: str = ""
    state: str = RECEIVED
    why: str = ""
    detail: str = ""
    device: str = ""
    activity: str = ""
    event: str = ""
    timestamp: float | None = None
    subscribers: int = 0
    delivered: int = 0
    demoted: bool = False


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """One change of state. ``record`` is its push; ``time`` is seconds on the fake's clock."""

    sequence: int
    time: float
    record: PushRecord
    device: str
    activity: str
    state: str
    why: str = ""
    detail: str = ""


class DeliveryLog:
    """The recorded pushes and the changes of their states.

    ``pushes`` and ``entries`` say how many of each are kept.
    ``listeners`` are called with a record when it is new and whenever its state changes.
    ``generation`` counts how often everything was forgotten.
    """

    def __init__(self, *, pushes: int = 10_000, entries: int = 20_000) -> None:
        self.pushes: Ring[PushRecord] = Ring(pushes)
        self.entries: Ring[LogEntry] = Ring(entries)
        self.listeners: list[Callable[[PushRecord], object]] = []
        self.by_state: Counter[str] = Counter()
        self.discarded_by: Counter[str] = Counter()
        self.refused_by: Counter[str] = Counter()
        self.generation = 0

    def received(self, push: Push) -> PushRecord:
        """Record a push that APNs took, before a phone is asked."""
        pushes = self.pushes
        record = PushRecord(pushes.total + 1, push)
        pushes.append(record)
        return record

    def refusal(self, refusal: Refusal) -> None:
        """Record what the fake refused at the push port; the management port is not recorded."""
        if refusal.face != "device":
            return
        push = Push(
            number=refusal.number,
            apns_id=refusal.apns_id[:_FIELD_KEPT],
            apns_unique_id="",
            token=refusal.token[:_FIELD_KEPT],
            topic=refusal.topic[:_FIELD_KEPT],
            push_type=refusal.push_type[:_FIELD_KEPT],
            priority=_integer(refusal.priority) or 10,
            expiration=_integer(refusal.expiration),
            collapse_id=refusal.collapse_id[:_FIELD_KEPT] or None,
            body=refusal.body,
            received_at=refusal.at,
            connection_id=refusal.connection_id,
            channel_id=refusal.channel_id[:_FIELD_KEPT] or None,
        )
        status, reason = refusal.status, refusal.reason
        record = PushRecord(self.pushes.total + 1, push, status, reason, "")
        self.pushes.append(record)
        self.refused_by[reason or str(status)] += 1
        for listener in self.listeners:
            listener(record)

    def note(
        self,
        record: PushRecord,
        now: float,
        state: str,
        device: str = "",
        activity: str = "",
        why: str = "",
        detail: str = "",
    ) -> None:
        """Record that a push changed its state on the way to one phone."""
        entries = self.entries
        entry = LogEntry(entries.total + 1, now, record, device, activity, state, why, detail)
        entries.append(entry)
        self.by_state[state] += 1
        if why and state == DISCARDED:
            self.discarded_by[why] += 1
        if record.push.channel_id is None:
            record.state = state
            record.why = why
            record.detail = detail
            record.device = device
            record.activity = activity
        elif state in {DELIVERED, DELIVERED_FROM_STORAGE}:
            record.delivered += 1
        for listener in self.listeners:
            listener(record)

    def entries_of(self, number: int) -> list[LogEntry]:
        """Return the kept entries of one push, oldest first."""
        return [entry for entry in self.entries if entry.record.number == number]

    def clear(self) -> None:
        """Forget pushes, entries and counts, and count from 1 again."""
        self.pushes.clear()
        self.entries.clear()
        self.by_state.clear()
        self.discarded_by.clear()
        self.refused_by.clear()
        self.generation += 1


def _integer(text: str) -> int | None:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    return int(text)
