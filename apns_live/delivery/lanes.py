"""All the lanes: who may leave now, who waits for a time, and who is forgotten.

Knows no client and no timer: it is told the time, and says when it wants to be asked again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from weakref import WeakValueDictionary

from ..clock import SteadyTime
from ..outcome import Outcome, Verdict
from .budget import Budget, SharedAccount
from .encoding import one_spelling
from .lane import Decided, Errand, Lane
from .pacing import NEVER, Trouble
from .state import State, unsent

RESTING, DUE, TIMED, INTENDED = range(4)
"""Where a lane is: nowhere; in the row; in the heap; picked, and its intent is being committed."""


class Lanes:
    """The lanes of all activity tokens that are not in a live activity, and of single pushes.

    ``decided`` is called with every state that got its outcome, ``changed`` with every lane whose
    record changed. ``lifetime`` is how many seconds an idle lane is remembered: an activity lives
    eight hours and may stay on the Lock Screen for four more (Apple, "ActivityKit"), after that its
    token means nothing.
    """

    def __init__(
        self,
        budget: Budget,
        time: SteadyTime,
        decided: Callable[[State, Outcome], object],
        *,
        changed: Callable[[Lane], object] = lambda lane: None,
        minimum_interval: float = 0.0,
        lifetime: float = 12 * 3600.0,
    ) -> None:
        self.budget = budget
        self.changed = changed
        self.demoted = self.over_budget = self.held = 0
        self._time = time
        self._decided = decided
        self._minimum_interval = minimum_interval
        self._lifetime = lifetime
        self._lanes: dict[str, Lane] = {}
        self._errands: set[Errand] = set()
        self._due: deque[Lane] = deque()
        self._timed: list[tuple[float, int, Lane]] = []
        self._count = 0
        self._purge: Iterator[str] | None = None
        self._stopped = ""
        self._devices: WeakValueDictionary[str, SharedAccount] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._lanes)

    def get(self, token: str) -> Lane | None:
        """Return the lane of a token, None when it has none. Upper and lower case are one token."""
        return self._lanes.get(one_spelling(token))

    def open(self, token: str) -> Lane:
        """Return the lane of a token, made when it has none."""
        key = one_spelling(token)
        lane = self._lanes.get(key)
        if lane is None:
            # Its life begins now, also where nothing is sent yet; its first state need not wait.
            begun = self._time.now() - self._minimum_interval
            self._lanes[key] = lane = Lane(token, left_at=begun)
        return lane

    def pool(self, token: str, device: str) -> None:
        """Let the lane of a token share one account with the others of its device."""
        lane = self.open(token)
        shared = self._devices.get(device)
        if shared is None:
            shared = self._devices[device] = SharedAccount(device)
        # Of several accounts the one that was charged most recently knows most.
        shared.account = max(shared.account, lane.account)
        lane.shared = shared
        self._note(lane)

    def forget(self, token: str) -> bool:
        """Forget an idle lane; False when it is not idle or not there."""
        lane = self.get(token)
        if lane is None or not lane.idle:
            return False
        self._remove(lane)
        return True

    def is_kept(self, lane: Lane) -> bool:
        """Return whether this lane is still the one of its token."""
        return self._lanes.get(one_spelling(lane.token)) is lane

    def adopt(self, lane: Lane, device: str = "") -> None:
        """Take over a lane that a journal kept; one past its life is forgotten."""
        now = self._time.now()
        self._lanes[one_spelling(lane.token)] = lane
        if device:
            self.pool(lane.token, device)
        if lane.idle and now - lane.left_at > self._lifetime:
            self._remove(lane)
        else:
            self._place(lane, now)

    def offer(self, token: str, state: State) -> Lane:
        """Take a state for a token. Raises ActivityEnded after its end."""
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
        self._place(lane, self._time.now())
        if lane.place == TIMED:
            self.held += 1
        return lane

    def run(self, errand: Errand) -> Lane:
        """Take a single push."""
        self._errands.add(errand)
        self._place(errand, self._time.now())
        return errand

    def withdraw(self, lane: Lane, state: State) -> bool:
        """Take back a state that has not left; False when it has."""
        if lane.place == INTENDED and lane.flying is state:
            lane.place = RESTING
            self._tell(lane.recall())
        if not lane.withdraw(state):
            return False
        self._note(lane)
        self._release(lane)
        return True

    def pick(self, limit: int) -> list[Lane]:
        """Return lanes whose state has just departed, at most ``limit``."""
        now, wall = self._time.now(), self._time.wall()
        picked: list[Lane] = []
        due = self._due
        while due and len(picked) < limit:
            lane = due.popleft()
            lane.place = RESTING
            if self._expired(lane, now):
                continue
            if lane.ready_at(now, wall, self._minimum_interval) > now:
                self._place(lane, now)
                continue
            lane.depart(now, wall, self.budget)
            state = lane.flying
            if state is not None and state.decision is not None:
                self.demoted += state.decision.demoted
                self.over_budget += state.decision.over_budget and lane.journalled
            self._note(lane)
            picked.append(lane)
        return picked

    def settled(self, lane: Lane, outcome: Outcome, now: float) -> None:
        """Take the answer to a lane's push."""
        for decided in lane.settle(outcome, now):
            self._tell(decided)
        if outcome.verdict is Verdict.DROP_TOKEN and not lane.ended and self.is_kept(lane):
            self._remove(lane)
            return
        self._note(lane)
        if self._stopped:
            self._give_up(lane, self._stopped, flying=False)
        elif lane.waiting is not None:
            self._place(lane, now)
        self._release(lane)

    def next_time(self) -> float | None:
        """Return when `tick` has something to do, None when it has not."""
        return self._timed[0][0] if self._timed else None

    @property
    def pending(self) -> bool:
        """Whether `pick` may return something."""
        return bool(self._due)

    @property
    def due_count(self) -> int:
        """Lanes that may leave and wait for a connection."""
        return len(self._due)

    @property
    def timed_count(self) -> int:
        """Lanes that wait for a time (some may have left the heap's interest since)."""
        return len(self._timed)

    def tick(self, now: float) -> None:
        """Queue the lanes whose time has come; give up what is past its last moment."""
        while self._timed and self._timed[0][0] <= now:
            when, _, lane = heapq.heappop(self._timed)
            if lane.place == TIMED and lane.wake_at == when:
                lane.place = RESTING
                self._place(lane, now)

    def keep_house(self, now: float, count: int = 10_000) -> None:
        """Give up what waits for a connection past its last moment; look at some idle lanes.

        Lanes that have been idle for longer than their lifetime are forgotten.
        """
        for lane in self._due:
            self._expired(lane, now)
        tokens = list(islice(self._purge, count)) if self._purge is not None else []
        if not tokens:
            self._purge = iter(list(self._lanes))
        for token in tokens:
            idle = self._lanes.get(token)
            if idle is not None and idle.idle and now - idle.left_at > self._lifetime:
                self._remove(idle)

    def stop(self, why: str, *, kept: str = "", flying: bool) -> None:
        """Let nothing more leave: everything that waits gets its outcome, ``why`` in its detail.

        With ``flying`` also what has left and is not answered, which is UNKNOWN then. ``kept`` is
        said of lanes alone: a journal has them.
        """
        self._stopped = why
        self._due.clear()
        self._timed.clear()
        for lane in list(self._lanes.values()):
            self._give_up(lane, why + kept, flying=flying)
        for errand in list(self._errands):
            self._give_up(errand, why, flying=flying)

    def _give_up(self, lane: Lane, why: str, *, flying: bool) -> None:
        trouble = lane.trouble
        state = lane.flying
        if state is not None and lane.place == INTENDED:
            lane.flying = None
            self._tell((state, unsent(lane.token, state.encoded.priority, why, trouble)))
        elif state is not None and flying:
            lane.flying = None
            doubt = Trouble(attempts=1, may_have_been_sent=True)
            self._tell((state, unsent(lane.token, state.encoded.priority, why, doubt)))
        lane.place = RESTING
        state, lane.waiting = lane.waiting, None
        if state is not None:
            self._tell((state, unsent(lane.token, state.encoded.priority, why, trouble)))
        self._release(lane)

    def _tell(self, decided: Decided | None) -> None:
        if decided is not None:
            self._decided(*decided)

    def _expired(self, lane: Lane, now: float) -> bool:
        gone = lane.expire(now)
        if gone is None:
            return False
        self._tell(gone)
        self._note(lane)
        self._release(lane)
        return True

    def _note(self, lane: Lane) -> None:
        if lane.journalled:
            self.changed(lane)

    def _remove(self, lane: Lane) -> None:
        del self._lanes[one_spelling(lane.token)]
        self._note(lane)

    def _release(self, lane: Lane) -> None:
        if isinstance(lane, Errand) and lane.idle:
            self._errands.discard(lane)

    def _place(self, lane: Lane, now: float) -> None:
        """Put a lane where its waiting state belongs."""
        state = lane.waiting
        if lane.flying is not None or state is None or lane.place == DUE:
            return
        if self._expired(lane, now):
            lane.place = RESTING
            return
        when = lane.ready_at(now, self._time.wall(), self._minimum_interval)
        if when <= now:
            lane.place = DUE
            self._due.append(lane)
            return
        when = min(when, state.last_moment)
        if when == NEVER or (lane.place == TIMED and lane.wake_at == when):
            return
        lane.place = TIMED
        lane.wake_at = when
        self._count += 1
        heapq.heappush(self._timed, (when, self._count, lane))
