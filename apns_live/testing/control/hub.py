"""Notifies watchers of changes: server-sent events and long polls.

Changes are collected per object and sent at most ten times a second, so 1,000 pushes a second to 500
phones are ten messages. Nothing is collected without watchers.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec

from apns_live.testing.log import PushRecord
from apns_live.testing.phones import Device

from . import rows

INTERVAL = 0.1
KEEP_ALIVE = 15.0
LOOK_AGAIN = 1.0
PUSHES_IN_DELTA = 100
MOST_SUBSCRIBERS = 32
_MOST_COLLECTED = 5000


@dataclass(slots=True, eq=False)
class Subscriber:
    """One reader of the event stream, and the changes that it has not received yet."""

    most_devices: int
    most_pushes: int
    payload: bool
    included: set[str] = field(default_factory=set)
    devices: dict[str, Device] = field(default_factory=dict)
    pushes: dict[int, PushRecord] = field(default_factory=dict)
    skipped: int = 0
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)
    sequence: int = 0
    told: dict[str, bytes] = field(default_factory=dict)
    """The connections and faults of the last event, as JSON."""


class Hub:
    """Collects changes for subscribers. ``started_at`` is the start time that `FakeRow` shows."""

    def __init__(self, fake: rows.Fake) -> None:
        self.fake = fake
        self.started_at = fake.clock.time()
        self.closed = asyncio.Event()
        self._subscribers: set[Subscriber] = set()
        self._waiters: set[asyncio.Event] = set()
        self._stop_listening: Callable[[], None] | None = None

    def close(self) -> None:
        """End every stream and long poll."""
        self.closed.set()
        for subscriber in self._subscribers:
            subscriber.wakeup.set()
        for waiter in self._waiters:
            waiter.set()
        self._detach()

    def changed(self, *, phones: bool = False) -> None:
        """Report a change that has no listener of its own: of the clock or the faults.

        With ``phones`` every phone in a stream is sent again, because budgets refill with time.
        """
        for subscriber in self._subscribers:
            if phones:
                known = self.fake.devices.devices
                subscriber.devices.update((i, known[i]) for i in subscriber.included if i in known)
            subscriber.wakeup.set()

    # Long polls.

    async def wait(self, waiter: asyncio.Event, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until something happens; False when time is up or the server stops."""
        try:
            async with asyncio.timeout(timeout):
                await waiter.wait()
        except TimeoutError:
            return False
        waiter.clear()
        return not self.closed.is_set()

    def add_waiter(self) -> asyncio.Event:
        """Return an event that is set by every push and every issued token."""
        waiter = asyncio.Event()
        self._waiters.add(waiter)
        self._attach()
        return waiter

    def remove_waiter(self, waiter: asyncio.Event) -> None:
        """Remove a waiter."""
        self._waiters.discard(waiter)
        self._detach()

    # The event stream.

    async def stream(self, devices: int, pushes: int, payload: bool) -> AsyncIterator[bytes]:
        """Yield server-sent events until the reader disconnects or the server stops."""
        subscriber = Subscriber(devices, pushes, payload)
        self._subscribers.add(subscriber)
        self._attach()
        try:
            phones, log = self.fake.devices, self.fake.log
            generation = (phones.registry.generation, log.generation)
            yield self._snapshot(subscriber)
            quiet = 0.0
            while not self.closed.is_set():
                try:
                    async with asyncio.timeout(LOOK_AGAIN):
                        await subscriber.wakeup.wait()
                except TimeoutError:
                    # A reset outside of this API sends no notice, so compare the generations.
                    if (phones.registry.generation, log.generation) == generation:
                        quiet += LOOK_AGAIN
                        if quiet >= KEEP_ALIVE:
                            quiet = 0.0
                            yield b": still here\n\n"
                        continue
                quiet = 0.0
                subscriber.wakeup.clear()
                if self.closed.is_set():
                    return
                now_generation = (phones.registry.generation, log.generation)
                if now_generation != generation:
                    generation = now_generation
                    subscriber.sequence += 1
                    yield _event("reset", subscriber.sequence, {"seq": subscriber.sequence})
                    yield self._snapshot(subscriber)
                else:
                    yield self._delta(subscriber)
                await asyncio.sleep(INTERVAL)
        finally:
            self._subscribers.discard(subscriber)
            self._detach()

    @property
    def is_full(self) -> bool:
        """Whether the event stream has reached its limit of readers."""
        return len(self._subscribers) >= MOST_SUBSCRIBERS

    def _snapshot(self, subscriber: Subscriber) -> bytes:
        fake = self.fake
        shown = list(islice(fake.devices.devices.values(), subscriber.most_devices))
        subscriber.included = {device.id for device in shown}
        subscriber.told = {}
        ring = fake.log.pushes
        newest = list(ring.after(ring.total - subscriber.most_pushes))
        content = {"fake": rows.FakeRow.of(fake, self.started_at)}
        return self._message("snapshot", subscriber, shown, newest, content)

    def _delta(self, subscriber: Subscriber) -> bytes:
        known, included = self.fake.devices.devices, subscriber.included
        changed, removed = [], []
        for device in subscriber.devices.values():
            if known.get(device.id) is not device:
                if device.id in included:
                    included.discard(device.id)
                    removed.append(device.id)
            elif device.id in included or len(included) < subscriber.most_devices:
                included.add(device.id)
                changed.append(device)
        waiting = sorted(subscriber.pushes.values(), key=lambda record: record.number)
        shown = waiting[-PUSHES_IN_DELTA:]
        content: dict[str, Any] = {"pushes_skipped": subscriber.skipped + len(waiting) - len(shown)}
        if removed:
            content["removed"] = removed
        return self._message("delta", subscriber, changed, shown, content)

    def _message(
        self,
        name: str,
        subscriber: Subscriber,
        devices: list[Device],
        pushes: list[PushRecord],
        content: dict[str, Any],
    ) -> bytes:
        """Return an event with these phones and pushes, and with the lists that have changed."""
        fake = self.fake
        subscriber.devices.clear()
        subscriber.pushes.clear()
        subscriber.skipped = 0
        subscriber.sequence += 1
        row = rows.with_payload if subscriber.payload else rows.row_of
        content |= {
            "seq": subscriber.sequence,
            "clock": rows.ClockRow.of(fake),
            "counts": rows.CountsRow.of(fake),
            "devices": [rows.row_of(device, fake) for device in devices],
            "devices_total": len(fake.devices.devices),
            "pushes": [row(record, fake) for record in pushes],
        }
        for kind, listed in (("connections", fake.connections), ("faults", fake.faults)):
            encoded = msgspec.json.encode([rows.row_of(each, fake) for each in listed])
            if subscriber.told.get(kind) != encoded:
                subscriber.told[kind] = encoded
                content[kind] = msgspec.Raw(encoded)
        return _event(name, subscriber.sequence, content)

    # Listening to the fake.

    def _attach(self) -> None:
        if self._stop_listening is not None:
            return
        fake = self.fake
        fake.log.listeners.append(self._on_push)
        fake.devices.registry.on_issue.append(self._on_issue)
        fake.devices.watch = self._on_device
        stop = fake.listen(self._on_happening)

        def stop_listening() -> None:
            stop()
            fake.devices.watch = None
            fake.devices.registry.on_issue.remove(self._on_issue)
            fake.log.listeners.remove(self._on_push)

        self._stop_listening = stop_listening

    def _detach(self) -> None:
        """Stop listening to the fake if no subscriber or waiter is left."""
        stop = self._stop_listening
        if stop is not None and (self.closed.is_set() or not (self._subscribers or self._waiters)):
            self._stop_listening = None
            stop()

    def _on_push(self, record: PushRecord) -> None:
        for waiter in self._waiters:
            waiter.set()
        for subscriber in self._subscribers:
            waiting = subscriber.pushes
            waiting[record.number] = record
            if len(waiting) > _MOST_COLLECTED:  # a slow reader misses the oldest
                del waiting[next(iter(waiting))]
                subscriber.skipped += 1
            subscriber.wakeup.set()

    def _on_issue(self, _token: object) -> None:
        for waiter in self._waiters:
            waiter.set()

    def _on_device(self, device: Device) -> None:
        for subscriber in self._subscribers:
            subscriber.devices[device.id] = device
            subscriber.wakeup.set()

    def _on_happening(self, _happening: object) -> None:
        for subscriber in self._subscribers:
            subscriber.wakeup.set()


def _event(name: str, sequence: int, content: object) -> bytes:
    data = msgspec.json.encode(content)
    return b"event: %s\nid: %d\ndata: %s\n\n" % (name.encode(), sequence, data)
