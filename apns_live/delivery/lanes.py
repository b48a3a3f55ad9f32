"""All lanes and single pushes: ready, waiting or expired.

After a push-to-start the activity token often arrives late. Until then the newest state of each
device waits in a lane without a token, under any name that the caller chooses (`Lanes.wakeups`).
"""

import heapq
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from weakref import WeakValueDictionary

import msgspec

from ..errors import ActivityEnded
from ..outcome import Outcome, Verdict
from .budget import Budget, SharedAccount, StartAccounts
from .dispatch import Dispatch
from .encoding import one_spelling
from .journal import Entry, pack
from .lane import Decided, Errand, Lane
from .pacing import NEVER, Trouble
from .state import State, superseded, unsent
from .writer import Home

RESTING, DUE, TIMED, INTENDED = range(4)
"""Where a lane is: nowhere; queued; in the heap of times; chosen, while its intent is committed."""
HOUSEKEEPING = 5.0
"""Seconds between two rounds of housekeeping."""
REFUSED_KEPT = 60.0
"""Seconds that the lane of a refused token is kept. The refusal may be a mistake (BadDeviceToken while the client is set
to the wrong environment), and the next state needs a later timestamp than the states before."""
MOST_WAKEUPS = 1_000_000
"""Devices that may wait for a token; above this the oldest is given up."""
_UNCLAIMED = "no token was handed in for this device before the state's last moment"


@dataclass(eq=False, repr=False)
class Lanes(Home):
    """The lanes of all activity tokens that are not in a live activity, and of single pushes.

    ``lifetime`` is how many seconds an idle lane is kept. An activity lives eight hours and may stay on the Lock Screen for four more
    (Apple, "ActivityKit"); after that its token is useless.
    """

    dispatch: Dispatch
    budget: Budget
    minimum_interval: float = 0.0
    lifetime: float = 12 * 3600.0
    decided: Counter[Verdict] = field(default_factory=Counter)
    """The outcomes of states."""
    wakeups: OrderedDict[str, Lane] = field(default_factory=OrderedDict)
    """The newest state for each device whose activity token has not arrived."""
    _lanes: dict[str, Lane] = field(default_factory=dict)
    _errands: set[Errand] = field(default_factory=set)
    due: deque[Lane] = field(default_factory=deque)
    timed: list[tuple[float, int, Lane]] = field(default_factory=list)
    """A heap of lanes that wait for a time, each after that time and a number."""
    _count: int = 0
    _changed: set[tuple[str, str]] = field(default_factory=set)
    """Kind and name of the journal entries to write."""
    _purge: Iterator[str] | None = None
    _stopped: str = ""
    _devices: WeakValueDictionary[str, SharedAccount] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        self.starts = StartAccounts(self.budget.starts_per_hour)
        self._next_round = self.dispatch.time.now() + HOUSEKEEPING

    def __len__(self) -> int:
        return len(self._lanes)

    def get(self, token: str) -> Lane | None:
        """Return the lane of a token, or None. Upper and lower case are one token."""
        return self._lanes.get(one_spelling(token))

    def open(self, token: str) -> Lane:
        """Return the lane of a token; create it if there is none."""
        key = one_spelling(token)
        lane = self._lanes.get(key)
        if lane is None:
            # Its lifetime begins now. Its first state need not wait for the interval.
            begun = self.dispatch.time.now() - self.minimum_interval
            self._lanes[key] = lane = Lane(token, left_at=begun)
        return lane

    def pool(self, token: str, device: str) -> None:
        """Let the lanes of a device share one account."""
        lane = self.open(token)
        shared = self._devices.get(device)
        if shared is None:
            shared = self._devices[device] = SharedAccount(device)
        # Of several accounts the most recently charged one is the most complete.
        shared.account = max(shared.account, lane.account)
        lane.shared = shared
        self._note(lane)

    def forget(self, token: str) -> bool:
        """Remove an idle lane. Return False if it is not idle or does not exist."""
        lane = self.get(token)
        if lane is None or not lane.idle:
            return False
        self._remove(lane)
        return True

    def adopt(self, lane: Lane, device: str) -> None:
        """Add a lane from the journal, unless its lifetime has passed."""
        now = self.dispatch.time.now()
        self._lanes[one_spelling(lane.token)] = lane
        if device:
            self.pool(lane.token, device)
        if lane.idle and now - lane.left_at > self.lifetime:
            self._remove(lane)
        else:
            self._place(lane, now)

    def offer(self, token: str, state: State) -> Lane:
        """Queue a state for a token. Raises ActivityEnded after its end."""
        lane = self.open(token)
        recalled = lane.place == INTENDED and lane.flying is not None
        replaced = lane.offer(state)
        self._tell(replaced)
        if replaced is not None and replaced[0] is state:
            return lane
        if recalled:
            lane.place = RESTING
            self._tell(lane.recall())
        self._note(lane)
        self._place(lane, self.dispatch.time.now())
        if lane.place == TIMED:
            self.dispatch.counts["held"] += 1
        return lane

    def run(self, errand: Errand) -> Lane:
        """Queue a single push."""
        self._errands.add(errand)
        self._place(errand, self.dispatch.time.now())
        return errand

    def wait(self, device: str, state: State) -> None:
        """Store a state for a device until its token arrives. Raises ActivityEnded after an end."""
        lane = self.wakeups.get(device) or Lane("")
        if lane.ended:
            raise ActivityEnded(
                "an end waits for this device's token already; nothing may follow it."
            )
        self._tell(lane.offer(state))
        if lane.waiting is not state:
            return
        self.wakeups[device] = lane
        self.wakeups.move_to_end(device)
        self._record("wakeup", device)
        if len(self.wakeups) > MOST_WAKEUPS:
            lost, oldest = self.wakeups.popitem(last=False)
            self._record("wakeup", lost)
            if oldest.waiting is not None:
                why = "too many devices wait for a token"
                self._tell((oldest.waiting, superseded("", oldest.waiting, why)))

    def hand_in(self, device: str, token: str) -> bool:
        """Send the state that waits for a device's token. Return False if there is none."""
        lane = self.wakeups.pop(device, None)
        if lane is None or lane.waiting is None:
            return False
        self._record("wakeup", device)
        state = lane.waiting
        state.token = token
        try:
            self.offer(token, state)
        except ActivityEnded as error:
            self._tell((state, unsent(token, state.encoded.priority, str(error))))
        # One transaction: the state is either still a wakeup or already in its lane.
        self.dispatch.stir(self)
        return True

    def withdraw(self, lane: Lane, state: State) -> None:
        """Withdraw a state that was not yet sent."""
        if lane.place == INTENDED and lane.flying is state:
            lane.place = RESTING
            self._tell(lane.recall())
        if lane.withdraw(state):
            self._note(lane)
            self._release(lane)

    # A home of `Dispatch`.

    @property
    def pending(self) -> bool:
        """Whether `take` may return something."""
        return bool(self.due)

    def take(self, limit: int, now: float) -> list[object]:
        """Return items for at most ``limit`` lanes. Their states are in flight then."""
        wall = self.dispatch.time.wall()
        prepare, make = self.dispatch.client.prepare, self.dispatch.make_item
        items: list[object] = []
        counts, due = self.dispatch.counts, self.due
        while due and len(items) < limit:
            lane = due.popleft()
            lane.place = RESTING
            if self._expired(lane, now):
                continue
            if lane.ready_at(now, wall, self.minimum_interval) > now:
                self._place(lane, now)
                continue
            state = lane.depart(now, wall, self.budget)
            counts["demoted"] += state.charge.demoted
            counts["over_budget"] += state.charge.over_budget and lane.journalled
            self._note(lane)
            if self.dispatch.journal is not None:
                lane.place = INTENDED
            items.append(make(lane.token, prepare(state.encoded), (self, lane, state)))
        return items

    def leaves(self, lane: Lane, state: State) -> bool:
        """Return True if a state must still be sent, now that its intent is committed."""
        if lane.flying is not state or lane.place != INTENDED:
            return False
        lane.place = RESTING
        return True

    def settle(self, answers: Sequence[tuple[Lane, State, Outcome]], now: float) -> None:
        """Process the answers to pushes."""
        for lane, state, outcome in answers:
            if lane.flying is state:
                self._answered(lane, outcome, now)

    def _answered(self, lane: Lane, outcome: Outcome, now: float) -> None:
        for decided in lane.settle(outcome, now):
            self._tell(decided)
        if outcome.verdict is Verdict.DROP_TOKEN and not lane.ended:
            # Housekeeping removes it then, as if it had been idle for its lifetime.
            lane.left_at = min(lane.left_at, now - self.lifetime + REFUSED_KEPT)
        self._note(lane)
        if self._stopped:
            self._give_up(lane, self._stopped, flying=False)
        elif lane.waiting is not None:
            self._place(lane, now)
        self._release(lane)

    def next_time(self) -> float:
        """Return when `tick` is due."""
        return min(self.timed[0][0], self._next_round) if self.timed else self._next_round

    def tick(self, now: float) -> None:
        """Queue the due lanes; every few seconds, clean up."""
        while self.timed and self.timed[0][0] <= now:
            when, _, lane = heapq.heappop(self.timed)
            if lane.place == TIMED and lane.wake_at == when:
                lane.place = RESTING
                self._place(lane, now)
        if now >= self._next_round:
            self._next_round = now + HOUSEKEEPING
            self._keep_house(now)

    def _keep_house(self, now: float, count: int = 10_000) -> None:
        """Expire waiting states, and forget lanes that were idle for longer than their lifetime."""
        for lane in self.due:
            self._expired(lane, now)
        for device in list(islice(self.wakeups, count)):
            if self._expired(self.wakeups[device], now, _UNCLAIMED):
                del self.wakeups[device]
                self._record("wakeup", device)
        tokens = list(islice(self._purge, count)) if self._purge is not None else []
        if not tokens:
            self._purge = iter(list(self._lanes))
        for token in tokens:
            idle = self._lanes.get(token)
            if idle is not None and idle.idle and now - idle.left_at > self.lifetime:
                self._remove(idle)

    def stop(self, why: str, *, kept: str = "", flying: bool) -> None:
        """Stop sending. Every waiting state gets its outcome, with ``why`` as its detail.

        With ``flying``, pushes in flight become UNKNOWN. ``kept`` is added to ``why`` for lanes: it
        says that the journal keeps them.
        """
        self._stopped = why
        self.due.clear()
        self.timed.clear()
        for lane in [*self._lanes.values(), *self.wakeups.values()]:
            self._give_up(lane, why + kept, flying=flying)
        for errand in list(self._errands):
            self._give_up(errand, why, flying=flying)
        self.wakeups.clear()

    # Journal entries.

    def collect(self) -> list[Entry]:
        """Return the journal entries of what changed."""
        entries = []
        for kind, name in self._changed:
            lane = self.get(name) if kind == "lane" else self.wakeups.get(name)
            # The token may have another lane by now, under another spelling.
            kept = lane is not None and lane.token in (name, "")
            entries.append(Entry(kind, name, 0, pack(lane.record()) if lane and kept else None))
        self._changed.clear()
        return entries

    def _give_up(self, lane: Lane, why: str, *, flying: bool) -> None:
        trouble = lane.trouble
        state = lane.flying
        if state is not None and (flying or lane.place == INTENDED):
            lane.flying = None
            doubt = Trouble(attempts=1, may_have_been_sent=True)
            before = trouble if lane.place == INTENDED else doubt
            self._tell((state, unsent(lane.token, state.encoded.priority, why, before)))
        lane.place = RESTING
        state, lane.waiting = lane.waiting, None
        if state is not None:
            self._tell((state, unsent(lane.token, state.encoded.priority, why, trouble)))
        self._release(lane)

    def _tell(self, decided: Decided | None) -> None:
        if decided is not None:
            state, outcome = decided
            self.decided[outcome.verdict] += 1
            if state.token != outcome.token:
                outcome = msgspec.structs.replace(outcome, token=state.token)
            state.ticket.resolve(outcome)

    def _expired(self, lane: Lane, now: float, detail: str = "") -> bool:
        gone = lane.expire(now, detail)
        if gone is None:
            return False
        self._tell(gone)
        self._note(lane)
        self._release(lane)
        return True

    def _note(self, lane: Lane) -> None:
        if lane.journalled and lane.token:
            self._record("lane", lane.token)

    def _record(self, kind: str, name: str) -> None:
        if self.dispatch.journal is not None:
            self._changed.add((kind, name))

    def _remove(self, lane: Lane) -> None:
        del self._lanes[one_spelling(lane.token)]
        self._note(lane)

    def _release(self, lane: Lane) -> None:
        if isinstance(lane, Errand) and lane.idle:
            self._errands.discard(lane)

    def _place(self, lane: Lane, now: float) -> None:
        """Queue a lane, or store when its waiting state is due."""
        state = lane.waiting
        if lane.flying is not None or state is None or lane.place == DUE:
            return
        if self._expired(lane, now):
            lane.place = RESTING
            return
        when = lane.ready_at(now, self.dispatch.time.wall(), self.minimum_interval)
        if when <= now:
            lane.place = DUE
            self.due.append(lane)
            return
        when = min(when, state.last_moment)
        if when == NEVER or (lane.place == TIMED and lane.wake_at == when):
            return
        lane.place = TIMED
        lane.wake_at = when
        self._count += 1
        heapq.heappush(self.timed, (when, self._count, lane))
