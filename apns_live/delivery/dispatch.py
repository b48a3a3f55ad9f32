"""The work source that the client draws from: lanes first, then activities and fan-outs in turn.

Lanes are first because each has at most one push in flight and somebody waits for it; activities
and fan-outs share what is left in equal slices, so that a long fan-out delays nobody.

With a journal nothing is handed out before its intent is committed: what is picked goes through the
writer first and waits, committed, in a short row. If a newer state comes meanwhile, the old one is
taken back out of the row.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..client import WorkItem
from ..clock import Clock, Timer
from ..errors import InvalidInput, JournalError
from ..outcome import Outcome, Verdict
from ..payload import EncodedMessage, check_token
from .activity import LiveActivity
from .budget import StartAccounts
from .errands import Errand, Errands
from .journal import Journal, LaneRecord, Record
from .lane import Lane, State
from .lanes import INTENDED, RESTING, Lanes
from .records import activity_records, lane_record
from .run import Run
from .wakeups import Wakeups
from .writer import Writer

_ACCEPTED = Verdict.ACCEPTED
AHEAD = 900
"""Intents committed and not left, and answers not yet recorded, of lanes and activities together.
1,000 are promised: the client may hold a few that are not on the wire."""
SLICE = 64
"""The least that an activity or a fan-out gets when several share the room."""
HOUSEKEEPING = 5.0
_STALE = 256
"""Timers that an earlier one has replaced and that may lie around."""


class Attachment(Protocol):
    """What the client gives for a source."""

    def wake(self) -> None:
        """There is work again."""

    def detach(self) -> None:
        """No more work comes from here."""

    def cancel(self, item: Any) -> object:
        """Give up one item."""


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


Home = LiveActivity | Run


class _LaneHome:
    """Lanes and single pushes, as one of those who get answers and keep records."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._collected: list[tuple[Lane, State]] = []
        self.forgotten: list[str] = []
        self._unrecorded = 0

    def settle(self, key: Lane | Errand, _: object, outcome: Outcome, now: float) -> None:
        dispatch = self._dispatch
        if isinstance(key, Errand):
            dispatch.errands.settle(key, outcome, now)
            return
        dispatch.lanes.settled(key, outcome, now)
        if dispatch.lanes.get(key.token) is not key:
            self.forgotten.append(key.token)

    def settled_batch(self, accepted: int, now: float) -> None:
        del accepted, now
        self._dispatch.stir_lanes()
        if self._dispatch.writer is not None:
            self._dispatch.writer.soon(self)

    def collect(self) -> Sequence[Record]:
        lanes = self._dispatch.lanes
        changed = lanes.changed or set()
        records: list[Record] = [lane_record(lane) for lane in changed]
        records.extend(
            LaneRecord(
                token=token,
                last_timestamp=0,
                revision=None,
                full_at=0.0,
                left_at=0.0,
                ended=False,
                frequent=None,
                forgotten=True,
            )
            for token in self.forgotten
            if token not in lanes
        )
        self._collected = [
            (lane, lane.flying)
            for lane in changed
            if lane.place == INTENDED and lane.flying is not None
        ]
        self.forgotten.clear()
        changed.clear()
        return records

    def committed(self) -> None:
        self._dispatch.lanes_ready.extend(self._collected)
        self._collected = []
        self._dispatch.recorded()


class _ActivityHome:
    """A live activity as one of those who keep records."""

    def __init__(self, dispatch: Dispatch, activity: LiveActivity) -> None:
        self._dispatch = dispatch
        self.activity = activity
        self.picked: list[Any] = []
        self._collected: list[Any] = []

    def collect(self) -> Sequence[Record]:
        self._collected, self.picked = self.picked, []
        return activity_records(self.activity)

    def committed(self) -> None:
        self._dispatch.activities_ready.extend(self._collected)
        self._collected = []
        self._dispatch.recorded()


class PastActivities:
    """What the activities that have ended add to the statistics."""

    __slots__ = ("demoted", "held_back", "over_budget", "submitted")

    def __init__(self) -> None:
        self.submitted = self.demoted = self.over_budget = self.held_back = 0

    def add(self, activity: LiveActivity) -> None:
        """Keep the counts of one that ended."""
        self.submitted += activity.submitted
        self.demoted += activity.demoted
        self.over_budget += activity.over_budget
        self.held_back += activity.held_back


class Dispatch:
    """The `WorkSource` of a delivery. See the module for its rules."""

    make_item: Callable[..., Any] = WorkItem

    def __init__(
        self,
        client: Sender,
        clock: Clock,
        lanes: Lanes,
        *,
        journal: Journal | None,
        commit_interval: float,
        state: Callable[..., State],
        decided: Callable[[str, State, Outcome], None],
        on_outcome: Callable[[Outcome], object] | None,
    ) -> None:
        self.clock = clock
        self.lanes = lanes
        self.journal = journal
        self.state = state
        self.prepare = client.prepare
        self.starts = StartAccounts(lanes.budget.starts_per_hour)
        self.errands = Errands(self.starts, decided)
        self.wakeups = Wakeups()
        self.activities: dict[str, LiveActivity] = {}
        self.runs: set[Run] = set()
        self.homes: dict[str, LiveActivity] = {}
        self.outcomes: Counter[Verdict] = Counter()
        self.past = PastActivities()
        self.in_flight = 0
        self.error: JournalError | None = None
        self.lanes_ready: deque[tuple[Lane, State]] = deque()
        self.activities_ready: deque[Any] = deque()
        self.writer: Writer | None = None
        self.lane_home = _LaneHome(self)
        self._activity_homes: dict[str, _ActivityHome] = {}
        self._client = client
        self._on_outcome = on_outcome
        self._ring: deque[Home] = deque()
        self._attachment: Attachment | None = None
        self._timers: list[tuple[float, int, Home | None]] = []
        self._timer_count = 0
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._home_times: dict[Home | None, float] = {}
        if journal is not None:
            lanes.changed = set()
            self.writer = Writer(journal, clock, interval=commit_interval, failed=self._fail)

    def open(self, response_timeout: float) -> None:
        """Begin to hand out work."""
        self._attachment = self._client.attach(self, retry=False, response_timeout=response_timeout)
        if self.writer is not None:
            self.writer.start()
        self._timer_for(None, self.now() + HOUSEKEEPING)

    def detach(self) -> None:
        """Hand out nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            attachment.detach()

    def now(self) -> float:
        """Return seconds since 1970."""
        return self.clock.time()

    # WorkSource: what the client calls.

    def take(self, limit: int) -> Sequence[Any]:
        """Return at most ``limit`` work items that may leave now."""
        now = self.clock.time()
        items: list[Any] = []
        if self.errands.pending:
            prepare, make = self.prepare, self.make_item
            for errand in self.errands.pick(limit, now):
                message = prepare(errand.state.encoded)
                items.append(make(errand.token, message, (self.lane_home, errand, None)))
        self._take_lanes(items, limit, now)
        if self.activities_ready:
            self._take_ready(items, limit)
        ring = self._ring
        while ring and len(items) < limit:
            home = ring.popleft()
            room = limit - len(items)
            share = room if not ring else max(SLICE, room // (len(ring) + 1))
            got = home.take(min(share, room), now)
            items.extend(got)
            if got and home.pending:
                ring.append(home)
            else:
                home.queued = False
                when = home.next_time()
                if when is not None:
                    self._timer_for(home, when)
        self.in_flight += len(items)
        return items

    def _take_lanes(self, items: list[Any], limit: int, now: float) -> None:
        prepare, make, lane_home = self.prepare, self.make_item, self.lane_home
        if self.writer is None:
            if self.lanes.pending and len(items) < limit:
                for lane in self.lanes.pick(limit - len(items), now):
                    if lane.flying is not None:
                        message = prepare(lane.flying.encoded)
                        items.append(make(lane.token, message, (lane_home, lane, None)))
                self._lane_timer()
            return
        ready = self.lanes_ready
        while ready and len(items) < limit:
            lane, state = ready.popleft()
            if lane.flying is not state or lane.place != INTENDED:
                continue
            lane.place = RESTING
            items.append(make(lane.token, prepare(state.encoded), (lane_home, lane, None)))
        if self.lanes.pending:
            self._intend_lanes(now)

    def _take_ready(self, items: list[Any], limit: int) -> None:
        ready = self.activities_ready
        while ready and len(items) < limit:
            item = ready.popleft()
            activity, place, variant = item.context
            if variant.version != activity.audience.newest or activity.guard.stopped:
                activity.audience.put_back(place)
                self.stir(activity)
                continue
            items.append(item)
        self.recorded()

    def settled(self, outcomes: Sequence[tuple[Any, Outcome]]) -> None:
        """Take what became of items."""
        now = self.clock.time()
        self.in_flight -= len(outcomes)
        touched: dict[Any, int] = {}
        last: Any = None
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
            home.settle(key, extra, outcome, now)
        if last is not None:
            touched[last] = touched.get(last, 0) + accepted
        counts[_ACCEPTED] += sum(touched.values())
        if self._on_outcome is not None:
            for _, outcome in outcomes:
                self._on_outcome(outcome)
        for home, accepted in touched.items():
            home.settled_batch(accepted, now)
            if home is not self.lane_home:
                if self.writer is not None and isinstance(home, LiveActivity):
                    self._note_activity(home, at_once=False)
                self.stir(home)

    # What lanes, activities and fan-outs call.

    def wake(self) -> None:
        """Tell the client that there may be work."""
        if self._attachment is not None and self.error is None:
            self._attachment.wake()

    def stir_lanes(self) -> None:
        """Lanes or single pushes changed."""
        if self.writer is not None and self.lanes.pending:
            self._intend_lanes(self.now())
        if self.lanes.pending or self.errands.pending or self.lanes_ready:
            self.wake()
        self._lane_timer()

    def stir(self, home: Home) -> None:
        """Queue an activity or fan-out that changed, and see when it wants to be asked again."""
        if self.writer is not None and isinstance(home, LiveActivity):
            self._intend_activity(home)
        elif home.pending and not home.queued:
            home.queued = True
            self._ring.append(home)
        if home.queued or self.activities_ready:
            self.wake()
        when = home.next_time()
        if when is not None:
            self._timer_for(home, when)

    def enter(self, home: Run) -> None:
        """Take in a fan-out that begins."""
        self.runs.add(home)

    async def depart(self, home: Run) -> None:
        """Let go of a fan-out that is over, and record the rest."""
        self.runs.discard(home)
        if home.queued:
            home.queued = False
            self._ring.remove(home)
        self._home_times.pop(home, None)
        if self.writer is not None and self.error is None:
            await self.writer.flush(home)

    def commit(self, home: Run, *, at_once: bool) -> None:
        """Record what a fan-out has."""
        if self.writer is not None:
            (self.writer.now if at_once else self.writer.soon)(home)

    def joining(self, token: str, activity: LiveActivity) -> Lane | None:
        """Claim a token for an activity; return its own lane, which ends by that."""
        check_token(token)
        other = self.homes.get(token)
        if other is not None and other is not activity:
            raise InvalidInput(
                f"token {token[:8]}... belongs to the activity {other.activity!r}",
                field="token",
                remedy="Take it out there first; an activity token is one activity on one phone.",
            )
        lane = self.lanes.get(token)
        if lane is not None and not self.lanes.forget(token):
            raise InvalidInput(
                f"token {token[:8]}... has a push of its own under way",
                field="token",
                remedy="Await that push, then join.",
            )
        if lane is not None:
            self.lane_home.forgotten.append(token)
        self.homes[token] = activity
        return lane

    def parting(self, token: str) -> None:
        """Release a token."""
        self.homes.pop(token, None)

    def finished(self, activity: LiveActivity) -> None:
        """Forget an activity that has ended on all its phones."""
        if self.activities.get(activity.activity) is not activity:
            return
        del self.activities[activity.activity]
        for token in activity.audience.index:
            self.homes.pop(token, None)
        self._home_times.pop(activity, None)
        activity.over = True
        self.past.add(activity)
        if self.writer is not None:
            self._note_activity(activity, at_once=False)

    # Intents.

    def _outstanding(self) -> int:
        return len(self.lanes_ready) + len(self.activities_ready)

    def _intend_lanes(self, now: float) -> None:
        room = AHEAD - self._outstanding()
        if room <= 0 or self.error is not None or self.writer is None:
            return
        for lane in self.lanes.pick(room, now):
            lane.place = INTENDED
        self.writer.now(self.lane_home)

    def _intend_activity(self, activity: LiveActivity) -> None:
        if self.writer is None:
            return
        room = AHEAD - self._outstanding()
        home = self._activity_home(activity)
        if self.error is None and room > len(home.picked) and activity.pending:
            home.picked.extend(activity.take(room - len(home.picked), self.now()))
        if home.picked:
            self.writer.now(home)
        elif activity.changed or activity.touched or activity.audience.changed:
            self.writer.soon(home)

    def _activity_home(self, activity: LiveActivity) -> _ActivityHome:
        home = self._activity_homes.get(activity.activity)
        if home is None or home.activity is not activity:
            home = self._activity_homes[activity.activity] = _ActivityHome(self, activity)
        return home

    def _note_activity(self, activity: LiveActivity, *, at_once: bool) -> None:
        if self.writer is None:
            return
        home = self._activity_home(activity)
        (self.writer.now if at_once else self.writer.soon)(home)
        if activity.over:
            del self._activity_homes[activity.activity]

    def recorded(self) -> None:
        """Intend more, now that a commit is done."""
        now = self.now()
        if self.lanes.pending:
            self._intend_lanes(now)
        if self._outstanding() < AHEAD // 2:
            for activity in list(self.activities.values()) if self.activities else ():
                if activity.pending:
                    self._intend_activity(activity)
        if self.lanes_ready or self.activities_ready:
            self.wake()

    def _fail(self, error: JournalError) -> None:
        """Nothing leaves without its intent: the journal is broken, so everything stops."""
        self.error = error
        for run in list(self.runs):
            run.fail(error)
        for activity in list(self.activities.values()):
            activity.close(str(error))

    # Time.

    def _lane_timer(self) -> None:
        for when in (self.lanes.next_time(), self.errands.next_time()):
            if when is not None:
                self._timer_for(None, when)

    def _timer_for(self, home: Home | None, when: float) -> None:
        known = self._home_times.get(home)
        if known is not None and known <= when:
            return
        self._home_times[home] = when
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, home))
        if len(self._timers) > 2 * len(self._home_times) + _STALE:
            self._drop_stale()
        self._arm()

    def _drop_stale(self) -> None:
        """Forget times that an earlier one has replaced: they would stay until they come."""
        times = self._home_times.items()
        self._timers = [(when, number, home) for number, (home, when) in enumerate(times)]
        self._timer_count = len(self._timers)
        heapq.heapify(self._timers)

    def _arm(self) -> None:
        if not self._timers or self._attachment is None:
            return
        when = self._timers[0][0]
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self.clock.call_later(max(0.0, when - self.now()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            when, _, home = heapq.heappop(self._timers)
            if self._home_times.get(home) != when:
                continue
            del self._home_times[home]
            if home is None:
                self._tick_lanes(now)
            else:
                home.tick(now)
                self.stir(home)
        self._arm()

    def _tick_lanes(self, now: float) -> None:
        self.lanes.tick(now)
        self.errands.tick(now)
        self.lanes.expire_due(now)
        for device, state in self.wakeups.expired(now):
            self._client_decides(device, state)
        if self.writer is not None and self.wakeups.changed:
            self.writer.soon(self.wakeups)
        self.lanes.sweep(now)
        self.stir_lanes()
        self._timer_for(None, now + HOUSEKEEPING)

    def _client_decides(self, device: str, state: State) -> None:
        del device
        if state.ticket is not None:
            state.ticket.resolve(
                Outcome(
                    token="",
                    verdict=Verdict.EXPIRED,
                    priority=state.encoded.priority,
                    detail="no token was handed in for this device before the state's last moment",
                )
            )
