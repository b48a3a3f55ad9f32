"""The work source that the client draws from: lanes first, then activities and fan-outs in turn.

Lanes come first, because each has at most one push in flight and a caller waits for it. Activities and
fan-outs share the rest in equal slices, so that a long fan-out does not delay others.

With a journal nothing is sent before its intent is committed. Chosen pushes go through the writer and
then wait in a short queue; pushes that were replaced meanwhile are dropped.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import msgspec

from ..client import Attachment, WorkItem
from ..clock import Alarm, Clock, SteadyTime
from ..errors import ClientClosed, JournalError
from ..guard import Guarded
from ..outcome import Outcome, Verdict
from ..payload import EncodedMessage
from .journal import Journal
from .writer import Recorded, Writer

_ACCEPTED = Verdict.ACCEPTED
AHEAD = 900
"""Intents committed and not left, of lanes and activities together. 1,000 are promised: the client
may hold a few that are not on the wire."""
SLICE = 64
"""The least that an activity or a fan-out gets when several share the room."""


class Sender(Protocol):
    """What delivery needs of a client."""

    def attach(
        self,
        source: Any,
        *,
        retry: bool = True,
        response_timeout: float | None = None,
        deadline: float | None = None,
    ) -> Attachment:
        """Draw work from ``source``."""

    def prepare(self, encoded: EncodedMessage) -> Any:
        """Return the message with this client's headers."""


class Home(Recorded, ABC):
    """Who has pushes: the lanes, a live activity, a fan-out. An item's context is (home, key, extra)."""

    gated = True
    """Whether `Dispatch` has its intents committed; a fan-out does that itself."""
    queued = False
    """Written by `Ring`."""

    @property
    @abstractmethod
    def pending(self) -> bool:
        """Whether `take` may return something."""

    @property
    def unrecorded(self) -> bool:
        """Whether there is something to record."""
        return False

    @abstractmethod
    def take(self, limit: int, now: float) -> list[Any]:
        """Return at most ``limit`` items that leave now."""

    def leaves(self, key: Any, extra: Any) -> bool:
        """Return whether an item whose intent was committed still leaves."""
        del key, extra
        return True

    @abstractmethod
    def settle(self, key: Any, extra: Any, outcome: Outcome, now: float) -> None:
        """Take the answer to one item."""

    def settled_batch(self, accepted: int) -> None:
        """Finish a batch of answers."""

    def next_time(self) -> float | None:
        """Return when `tick` has something to do, None when it has not."""
        return None

    def tick(self, now: float) -> None:
        """Do what is due at ``now``."""


class Ring:
    """Homes that have something to send, in turn; ``first`` before all others."""

    def __init__(self, first: Home | None, rests: Callable[[Home], object]) -> None:
        self._first = first
        self._rests = rests
        self._homes: deque[Home] = deque()

    def __bool__(self) -> bool:
        return bool(self._homes) or (self._first is not None and self._first.pending)

    def add(self, home: Home) -> None:
        """Queue a home, unless it is queued."""
        if not home.queued and home is not self._first:
            home.queued = True
            self._homes.append(home)

    def remove(self, home: Home) -> None:
        """Ask a home no more."""
        if home.queued:
            home.queued = False
            self._homes.remove(home)

    def pull(self, limit: int, now: float) -> list[Any]:
        """Return at most ``limit`` items; ``rests`` is called with each home that has no more."""
        items: list[Any] = []
        first, homes = self._first, self._homes
        if first is not None and first.pending and limit > 0:
            items.extend(first.take(limit, now))
            self._rests(first)
        while homes and len(items) < limit:
            home = homes.popleft()
            home.queued = False  # what it takes may be its last: then it leaves
            room = limit - len(items)
            share = room if not homes else max(SLICE, room // (len(homes) + 1))
            got = home.take(min(share, room), now)
            items.extend(got)
            if got and home.pending:
                self.add(home)
            else:
                self._rests(home)
        return items


_STALE = 256
"""Entries of a timetable that an earlier time has replaced and that may lie around."""


class Timetable:
    """When each home wants to be asked again, on one timer.

    Calls ``due(home, now)`` once for each time, the earliest first. Times are steady seconds since 1970.
    """

    def __init__(
        self, clock: Clock, time: SteadyTime, due: Callable[[Home, float], object]
    ) -> None:
        self._clock = clock
        self._time = time
        self._due = due
        self._alarm = Alarm(clock, self._ring)
        self._heap: list[list[Any]] = []
        self._count = 0
        self._entries: dict[Home, list[Any]] = {}
        """When, a number, and the home, which is None once another time has replaced this one."""

    def at(self, home: Home, when: float | None) -> None:
        """Ask ``home`` at ``when``, unless it is asked before that already."""
        if when is None:
            return
        known = self._entries.get(home)
        if known is not None:
            if known[0] <= when:
                return
            known[2] = None
        self._count += 1
        entry = self._entries[home] = [when, self._count, home]
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._entries) + _STALE:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)
        self._arm()

    def forget(self, home: Home) -> None:
        """Do not ask ``home`` any more."""
        entry = self._entries.pop(home, None)
        if entry is not None:
            entry[2] = None

    def close(self) -> None:
        """Ask nobody any more."""
        self._heap.clear()
        self._entries.clear()
        self._alarm.cancel()

    def _arm(self) -> None:
        if self._heap:
            wait = self._heap[0][0] - self._time.now()
            self._alarm.set(self._clock.monotonic() + wait)

    def _ring(self) -> None:
        now = self._time.now()
        while self._heap and self._heap[0][0] <= now:
            home = heapq.heappop(self._heap)[2]
            if home is not None:
                del self._entries[home]
                self._due(home, now)
        self._arm()


class Dispatch:
    """The `WorkSource` of a delivery. See the module for its rules.

    ``failed`` is called once, when the journal cannot be written.
    """

    make_item: Callable[..., Any] = WorkItem

    def __init__(
        self,
        client: Sender,
        clock: Clock,
        time: SteadyTime,
        *,
        journal: Journal | None,
        commit_interval: float,
        on_outcome: Guarded | None,
        failed: Callable[[JournalError], object],
    ) -> None:
        self.time = time
        self.prepare = client.prepare
        self.outcomes: Counter[Verdict] = Counter()
        self.in_flight = 0
        self.error: JournalError | None = None
        self.accepting = False
        """Whether new work is taken: from `open` until the delivery begins to close."""
        self.times: Timetable = Timetable(clock, time, self._due)
        self.writer: Writer | None = None
        self._client = client
        self._on_outcome = on_outcome
        self._failed = failed
        self._attachment: Attachment | None = None
        self._ring = Ring(None, self._rests)
        """Homes that may send as they are."""
        self._gated = self._ring
        """Homes whose intents are to be committed first: the same without a journal."""
        self._ready: deque[Any] = deque()
        self.waiting = 0
        """Items that wait for a commit or, committed, for a connection."""
        if journal is not None:
            self.writer = Writer(
                journal, clock, interval=commit_interval, released=self._released, failed=self._fail
            )

    def open(self, lanes: Home, response_timeout: float) -> None:
        """Begin to hand out work."""
        self._gated = Ring(lanes, self._rests)
        if self.writer is None:
            self._ring = self._gated
        else:
            self.writer.start()
        self._attachment = self._client.attach(self, retry=False, response_timeout=response_timeout)
        self.accepting = True

    def check_decodes(self, encoded: EncodedMessage) -> EncodedMessage:
        """Return the message. Raises `InvalidPayload` for what the client's contracts refuse."""
        check = getattr(self._client, "check_decodes", None)
        return encoded if check is None else cast("EncodedMessage", check(encoded))

    def check_open(self) -> None:
        """Raise JournalError when the journal has failed, ClientClosed when no work is taken."""
        if self.error is not None:
            raise self.error
        if not self.accepting:
            raise ClientClosed(
                "the delivery is not open; use it inside `async with Delivery(...)`."
            )

    def detach(self) -> None:
        """Hand out nothing more."""
        self.times.close()
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.detach()

    @property
    def busy(self) -> bool:
        """Whether something is in flight or may leave now."""
        return bool(self.in_flight or self.waiting or self._ring or self._gated)

    # WorkSource: what the client calls.

    def take(self, limit: int) -> Sequence[Any]:
        """Return at most ``limit`` work items that may leave now."""
        if self.error is not None or self._attachment is None:
            return ()
        now = self.time.now()
        items: list[Any] = []
        if self.writer is not None:
            ready = self._ready
            while ready and len(items) < limit:
                item = ready.popleft()
                self.waiting -= 1
                home, key, extra = item.context
                if home.leaves(key, extra):
                    items.append(item)
                elif home.pending:
                    self._gated.add(home)
            self._intend(now)
        items.extend(self._ring.pull(limit - len(items), now))
        self.in_flight += len(items)
        return items

    def settled(self, outcomes: Sequence[tuple[Any, Outcome]]) -> None:
        """Take what became of items."""
        now = self.time.now()
        step = self.time.step
        self.in_flight -= len(outcomes)
        touched: dict[Home, int] = {}
        last: Home | None = None
        accepted = 0
        counts = self.outcomes
        for item, outcome in outcomes:
            home, key, extra = item.context
            if home is not last:
                if last is not None:
                    touched[last] = touched.get(last, 0) + accepted
                last, accepted = home, 0
            if outcome.verdict is _ACCEPTED:
                accepted += 1
            else:
                counts[outcome.verdict] += 1
            home.settle(key, extra, _steady(outcome, step) if step else outcome, now)
        if last is not None:
            touched[last] = touched.get(last, 0) + accepted
        counts[_ACCEPTED] += sum(touched.values())
        if self._on_outcome is not None:
            for _, outcome in outcomes:
                self._on_outcome(outcome)
        for home, accepted in touched.items():
            home.settled_batch(accepted)
            self.stir(home)

    # What lanes, activities and fan-outs call.

    def stir(self, home: Home) -> None:
        """Queue a home that changed, see what is to be recorded, and when it wants to be asked again."""
        if self._attachment is None or self.error is not None:
            return
        if home.pending:
            (self._gated if home.gated else self._ring).add(home)
        if self.writer is not None:
            self._intend(self.time.now())
            if home.unrecorded:
                self.writer.soon(home)
        self._wake()
        self.times.at(home, home.next_time())

    def commit(self, home: Home, *, at_once: bool = False) -> None:
        """Record what a home has."""
        if self.writer is not None:
            (self.writer.now if at_once else self.writer.soon)(home)

    def leave(self, home: Home) -> None:
        """Ask a home no more."""
        self._ring.remove(home)
        self._gated.remove(home)
        self.times.forget(home)

    # The inside.

    def _wake(self) -> None:
        if self._attachment is not None and (self._ready or self._ring):
            self._attachment.wake()

    def _rests(self, home: Home) -> None:
        self.times.at(home, home.next_time())

    def _due(self, home: Home, now: float) -> None:
        home.tick(now)
        self.stir(home)

    def _intend(self, now: float) -> None:
        """Pick what may leave next and have its intents committed."""
        room = AHEAD - self.waiting
        if self.writer is None or self._attachment is None or room <= 0 or not self._gated:
            return
        items = self._gated.pull(room, now)
        self.waiting += len(items)
        for home in {item.context[0]: None for item in items}:
            self.writer.now(home)
        if items:
            self.writer.now(items[-1].context[0], items)

    def _released(self, items: list[Any]) -> None:
        """Let items leave whose intents are committed."""
        self._ready.extend(items)
        self._intend(self.time.now())
        self._wake()

    def _fail(self, error: JournalError) -> None:
        """Nothing leaves without its intent: the journal is broken, so everything stops."""
        self.error = error
        self._ready.clear()
        self.waiting = 0
        self._failed(error)


def _steady(outcome: Outcome, step: float) -> Outcome:
    """Return an outcome whose ``retry_at``, told by the wall clock, is steady time."""
    if not outcome.retry_at:
        return outcome
    return msgspec.structs.replace(outcome, retry_at=outcome.retry_at - step)
