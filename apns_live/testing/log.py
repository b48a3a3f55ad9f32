"""The records of a fake, in bounded buffers with listeners: each event, and the result of each push.

Apple's console calls a push received, stored, delivered, delivered from storage or discarded
("Viewing the status of push notifications using Metrics and APNs"), and ends there. The delivery log also
says why a phone showed nothing.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, Literal, TypeVar, overload

import msgspec

from .state import Push

T = TypeVar("T")

_logger = logging.getLogger(__name__)

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


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A refused request. Header values are as received, ``""`` if absent.

    ``number`` counts pushes accepted and refused alike, and is 0 at the management port. ``at`` is
    epoch seconds on the fake's clock. ``target`` is the device token, channel id or path.
    """

    number: int
    at: float
    connection_id: int
    face: str
    target: str
    status: int
    reason: str
    apns_id: str
    token: str = ""
    channel_id: str = ""
    topic: str = ""
    push_type: str = ""
    priority: str = ""
    expiration: str = ""
    collapse_id: str = ""
    body: bytes = b""


class ConnectionChange(msgspec.Struct, frozen=True, gc=False):
    """A change of a connection. ``at`` is epoch seconds."""

    kind: Literal["opened", "closed", "streams", "goaway", "silent"]
    connection_id: int
    at: float
    detail: str = ""


class FaultStruck(msgspec.Struct, frozen=True, gc=False):
    """A fault struck the ``nth`` request to ``target``, or a connection. ``at`` is epoch seconds."""

    fault_id: int
    name: str
    action: str
    connection_id: int
    target: str
    nth: int
    at: float


Happening = Push | Refusal | ConnectionChange | FaultStruck
Listener = Callable[[Happening], object]


class Ring(Sequence[T], Generic[T]):
    """The newest ``limit`` items of a series numbered from 1; ``total`` counts all items ever added.

    As a sequence it has the kept items, oldest first.
    """

    __slots__ = ("_items", "limit", "total")

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        self.total = 0
        self._items: deque[T] = deque(maxlen=self.limit)

    @property
    def first(self) -> int:
        """Number of the oldest item kept; ``total + 1`` when there is none."""
        return self.total - len(self._items) + 1

    def append(self, item: T) -> None:
        """Add an item with number ``total + 1``. A full ring drops its oldest item."""
        self.total += 1
        self._items.append(item)

    def get(self, number: int) -> T | None:
        """Return item ``number``, or None when it is not kept."""
        return self._items[number - self.first] if self.first <= number <= self.total else None

    def after(self, number: int) -> Iterator[T]:
        """Iterate over the items after ``number``, oldest first."""
        count = max(0, min(self.total - number, len(self._items)))
        return reversed(list(islice(reversed(self._items), count)))

    def clear(self) -> None:
        """Forget the items, and count from 1 again."""
        self._items.clear()
        self.total = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._items))

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        return list(self)[index] if isinstance(index, slice) else self._items[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Ring, list, tuple)):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<Ring of {len(self)} entries, {self.total} in all>"


class Recorder:
    """The rings of one fake, and its listeners.

    ``limit`` bounds accepted pushes and refusals each. A listener is called on the fake's event
    loop, at once, for everything that happens; it must not block; one that raises is removed.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.pushes: Ring[Push] = Ring(limit)
        self.refusals: Ring[Refusal] = Ring(limit)
        self.changes: Ring[ConnectionChange] = Ring(min(limit, 1000))
        self.faults: Ring[FaultStruck] = Ring(min(limit, 1000))
        self._rings: dict[type, Ring[Any]] = {
            Push: self.pushes,
            Refusal: self.refusals,
            ConnectionChange: self.changes,
            FaultStruck: self.faults,
        }
        self.on_refusal: Callable[[Refusal], object] | None = None
        """Called for each refusal before the listeners. The delivery log uses it."""
        self._listeners: tuple[Listener, ...] = ()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` for everything from now on; call the returned function to stop."""
        self._listeners = (*self._listeners, listener)

        def stop() -> None:
            self._listeners = tuple(each for each in self._listeners if each is not listener)

        return stop

    def record(self, happening: Happening) -> None:
        """Store an event, and call every listener. One that raises is removed, and the fake goes on."""
        self._rings[type(happening)].append(happening)
        if self.on_refusal is not None and isinstance(happening, Refusal):
            self.on_refusal(happening)
        for listener in self._listeners:
            try:
                listener(happening)
            except Exception:
                _logger.exception("A listener failed and is not called any more.")
                self._listeners = tuple(each for each in self._listeners if each is not listener)

    def clear(self) -> None:
        """Empty the rings. Listeners stay."""
        for ring in self._rings.values():
            ring.clear()


class PushRecord(msgspec.Struct, gc=False, eq=False):
    """One request to the push port, and its result.

    ``number`` counts every recorded request from 1. ``status`` and ``reason`` are APNs' answer;
    ``state``, ``why`` and ``detail`` say what the phone did (``state`` is ``""`` for a refused
    one). ``event`` and ``timestamp`` are the payload's, once a phone has read it. A broadcast
    counts its ``subscribers`` and to how many it was ``delivered``; its state is ``received``.
    ``demoted``: it exceeded the budget and was delayed.
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
    ``generation`` counts the calls of `clear`.
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
        """Record a push that APNs accepted, before a phone gets it."""
        pushes = self.pushes
        record = PushRecord(pushes.total + 1, push)
        pushes.append(record)
        return record

    def refusal(self, refusal: Refusal) -> None:
        """Record a refusal at the push port. Refusals at the management port are not recorded."""
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
            record.state, record.why, record.detail = state, why, detail
            record.device, record.activity = device, activity
        elif state in {DELIVERED, DELIVERED_FROM_STORAGE}:
            record.delivered += 1
        for listener in self.listeners:
            listener(record)

    def entries_of(self, number: int) -> list[LogEntry]:
        """Return the kept entries of one push, oldest first."""
        return [entry for entry in self.entries if entry.record.number == number]

    def clear(self) -> None:
        """Delete pushes, entries and counts, and count from 1 again."""
        self.pushes.clear()
        self.entries.clear()
        self.by_state.clear()
        self.discarded_by.clear()
        self.refused_by.clear()
        self.generation += 1


def _integer(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
