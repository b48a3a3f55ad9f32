"""The work source that the client draws from: lanes first, then activities and fan-outs in turn.

Lanes come first, because each has at most one push in flight and a caller waits for it. Activities
and fan-outs share the rest in equal slices, so that a long fan-out does not delay others.

With a journal nothing is sent before its intent is committed: chosen pushes pass the writer, then
wait in a short queue. A push that was replaced or withdrawn meanwhile is dropped there.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from ..client import Attachment, Client, WorkItem
from ..clock import Alarm, Clock, SteadyTime
from ..errors import ClientClosed, JournalError
from ..guard import Guarded
from ..outcome import Outcome, Verdict
from .journal import Journal
from .pacing import NEVER
from .writer import Home, Writer

AHEAD = 900
"""The most unsent items with an intent. The docs promise 1,000; the client may hold some more."""
STEP = 225
"""The fewest intents that are committed together, unless a lane waits for one."""
SLICE = 64
"""The minimum for an activity or a fan-out when several share the room."""


class Dispatch:
    """The `WorkSource` of a delivery. See the module for its rules.

    ``failed`` is called once, if the journal cannot be written.
    """

    make_item: Callable[..., Any] = WorkItem

    def __init__(
        self,
        client: Client,
        clock: Clock,
        time: SteadyTime,
        *,
        journal: Journal | None,
        commit_interval: float,
        on_outcome: Guarded | None,
        failed: Callable[[JournalError], object],
    ) -> None:
        self.time = time
        self.journal = journal
        self.outcomes: Counter[Verdict] = Counter()
        self.counts: Counter[str] = Counter()
        """Counts of states: submitted, held, demoted, over_budget."""
        self.in_flight = 0
        self.error: JournalError | None = None
        self.accepting = False
        """Whether new work is accepted: from `open` until the delivery begins to close."""
        self.writer = Writer(
            journal, clock, interval=commit_interval, released=self._released, failed=self._fail
        )
        self.client = client
        self.clock = clock
        self._on_outcome = on_outcome
        self._failed = failed
        self._attachment: Attachment | None = None
        self._first: Home | None = None
        self._homes: deque[Home] = deque()
        """Homes with something to send: the lanes first, then the others in round-robin order."""
        self._alarms: dict[Home, Alarm] = {}
        self._ready: deque[Any] = deque()
        self.waiting = 0
        """Items whose intent is being committed, or that wait for a connection after the commit."""

    def open(self, lanes: Home, response_timeout: float) -> None:
        """Attach to the client, which then asks for work."""
        self._first = lanes
        if self.journal is not None:
            self.writer.start()
        self._attachment = self.client.attach(
            self, retry=False, response_timeout=response_timeout, tokens_checked=True
        )
        self.accepting = True

    def check_open(self) -> None:
        """Raise JournalError if the journal has failed, ClientClosed if no work is accepted."""
        if self.error is not None:
            raise self.error
        if not self.accepting:
            raise ClientClosed(
                "the delivery is not open; use it inside `async with Delivery(...)`."
            )

    def detach(self) -> None:
        """Detach from the client: it asks for no more work."""
        for alarm in self._alarms.values():
            alarm.cancel()
        self._alarms.clear()
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.detach()

    @property
    def busy(self) -> bool:
        """Whether pushes are in flight, or may be sent now."""
        return bool(self.in_flight or self.waiting or self._homes)

    # WorkSource: what the client calls.

    def take(self, limit: int) -> Sequence[Any]:
        """Return at most ``limit`` work items to send now."""
        if self.error is not None or self._attachment is None:
            return ()
        now = self.time.now()
        if self.journal is None:
            items = self._choose(limit, now)
        else:
            items, ready = [], self._ready
            while ready and len(items) < limit:
                item = ready.popleft()
                self.waiting -= 1
                home, key, extra = item.context
                if home.leaves(key, extra):
                    items.append(item)
                elif home.pending:
                    self._queue(home)
            self._intend(now)
        self.in_flight += len(items)
        return items

    def settled(self, outcomes: Sequence[tuple[Any, Outcome]]) -> None:
        """Process the outcomes of items."""
        now = self.time.now()
        step = self.time.step
        self.in_flight -= len(outcomes)
        answers: defaultdict[Home, list[tuple[Any, Any, Outcome]]] = defaultdict(list)
        for item, outcome in outcomes:
            home, key, extra = item.context
            if step and outcome.retry_at:  # it is a wall-clock time
                steady = outcome.retry_at - step
                outcome = msgspec.structs.replace(outcome, retry_at=steady)  # noqa: PLW2901
            answers[home].append((key, extra, outcome))
        self.outcomes.update([outcome.verdict for _, outcome in outcomes])
        for home, batch in answers.items():
            home.settle(batch, now)
        if self._on_outcome is not None:
            for _, outcome in outcomes:
                self._on_outcome(outcome)
        for home in answers:
            self.stir(home)

    # What lanes, activities and fan-outs call.

    def stir(self, home: Home) -> None:
        """Queue a changed home, record its changes, and set its alarm."""
        if self._attachment is None or self.error is not None:
            return
        if home.pending:
            self._queue(home)
        self._intend(self.time.now())
        self.writer.note(home)
        self._wake()
        self._ask_later(home)

    def leave(self, home: Home) -> None:
        """Remove an ended home."""
        if home.queued:
            home.queued = False
            self._homes.remove(home)
        alarm = self._alarms.pop(home, None)
        if alarm is not None:
            alarm.cancel()
        for item in [item for item in self._ready if item.context[0] is home]:
            self._ready.remove(item)
            self.waiting -= 1

    # Internals.

    def _queue(self, home: Home) -> None:
        if not home.queued:
            home.queued = True
            (self._homes.appendleft if home is self._first else self._homes.append)(home)

    def _choose(self, limit: int, now: float) -> list[Any]:
        """Return at most ``limit`` items: first from the lanes, then from each home in turn."""
        items: list[Any] = []
        homes = self._homes
        while homes and len(items) < limit:
            home = homes.popleft()
            home.queued = False  # it may take its last item and be removed
            room = limit - len(items)
            if homes and home is not self._first:
                room = min(room, max(SLICE, room // (len(homes) + 1)))
            got = home.take(room, now)
            items.extend(got)
            if got and home.pending:
                self._queue(home)
            else:
                self._ask_later(home)
        return items

    def _wake(self) -> None:
        if self._attachment is not None and (self._ready or (self.journal is None and self._homes)):
            self._attachment.wake()

    def _ask_later(self, home: Home) -> None:
        """Set a home's alarm to its next time."""
        when = home.next_time()
        if when == NEVER or self._attachment is None:
            return
        alarm = self._alarms.get(home)
        if alarm is None:
            alarm = self._alarms[home] = Alarm(self.clock, partial(self._due, home))
        alarm.set(self.clock.monotonic() + when - self.time.now())

    def _due(self, home: Home) -> None:
        home.tick(self.time.now())
        self.stir(home)

    def _intend(self, now: float) -> None:
        """Choose the next items, and commit their intents."""
        if self.journal is None or self._attachment is None:
            return
        room = AHEAD - self.waiting
        if room < (1 if self._homes and self._homes[0] is self._first else STEP):
            return
        items = self._choose(room, now)
        self.waiting += len(items)
        for home in {item.context[0]: None for item in items}:
            self.writer.note(home, at_once=True)
        self.writer.items += items

    def _released(self, items: list[Any]) -> None:
        """Queue items whose intents are committed; those of lanes go first."""
        ready = self._ready
        for item in items:
            (ready.appendleft if item.context[0] is self._first else ready.append)(item)
        self._intend(self.time.now())
        self._wake()

    def _fail(self, error: JournalError) -> None:
        """Stop everything because the journal failed: nothing may be sent without an intent."""
        self.error = error
        self._ready.clear()
        self.waiting = 0
        self._failed(error)
