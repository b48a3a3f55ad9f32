"""All the lanes: who may leave now, who waits for a time, and who is forgotten.

Knows no client and no timer: it is told the time, and says when it wants to be asked again.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice

from ..outcome import Outcome, Verdict
from .budget import Budget
from .lane import Lane, State
from .pacing import NEVER

RESTING, DUE, TIMED, INTENDED = range(4)
"""Where a lane is: nowhere; in the row; in the heap; its intent is being committed."""

Decided = Callable[[str, State, Outcome], None]


class Lanes:
    """The lanes of all activity tokens that are not in a live activity.

    ``decided`` is called with every state that got its outcome. ``lifetime`` is how many seconds an
    idle lane is remembered: an activity lives eight hours and may stay on the Lock Screen for four
    more (Apple, "ActivityKit"), after that its token means nothing.
    """

    def __init__(
        self,
        budget: Budget,
        decided: Decided,
        *,
        minimum_interval: float = 0.0,
        lifetime: float = 12 * 3600.0,
    ) -> None:
        self.budget = budget
        self.minimum_interval = minimum_interval
        self.lifetime = lifetime
        self.changed: set[Lane] | None = None
        """Lanes whose record is to be written; None without a journal."""
        self._decided = decided
        self._lanes: dict[str, Lane] = {}
        self._due: deque[Lane] = deque()
        self._timed: list[tuple[float, int, Lane]] = []
        self._count = 0
        self._purge: Iterator[str] | None = None
        self.demoted = self.over_budget = self.held = 0

    def __len__(self) -> int:
        return len(self._lanes)

    def __contains__(self, token: object) -> bool:
        return token in self._lanes

    def get(self, token: str) -> Lane | None:
        """Return the lane of a token, None when it has none."""
        return self._lanes.get(token)

    def open(self, token: str) -> Lane:
        """Return the lane of a token, made when it has none."""
        lane = self._lanes.get(token)
        if lane is None:
            self._lanes[token] = lane = Lane(token)
        return lane

    def forget(self, token: str) -> bool:
        """Forget an idle lane; False when it is not idle or not there."""
        lane = self._lanes.get(token)
        if lane is None or not lane.idle:
            return False
        del self._lanes[token]
        return True

    def adopt(self, lane: Lane, now: float) -> None:
        """Take over a lane that a journal kept."""
        self._lanes[lane.token] = lane
        self._place(lane, now)

    def offer(self, token: str, state: State, now: float) -> Lane:
        """Take a state for a token. Raises ActivityEnded after its end."""
        lane = self.open(token)
        recalled = lane.place == INTENDED and lane.flying is not None
        replaced = lane.offer(state)
        if replaced is not None:
            self._decided(token, *replaced)
            if replaced[0] is state:
                return lane
        if recalled:
            lane.place = RESTING
            gone = lane.recall()
            if gone is not None:
                self._decided(token, *gone)
        self._note(lane)
        self._place(lane, now)
        if lane.place == TIMED:
            self.held += 1
        return lane

    def pick(self, limit: int, now: float) -> list[Lane]:
        """Return lanes whose state has just departed, at most ``limit``."""
        picked: list[Lane] = []
        due = self._due
        while due and len(picked) < limit:
            lane = due.popleft()
            lane.place = RESTING
            gone = lane.expire(now)
            if gone is not None:
                self._decided(lane.token, *gone)
                self._note(lane)
                continue
            if lane.ready_at(now, self.minimum_interval) > now:
                self._place(lane, now)
                continue
            lane.depart(now, self.budget)
            state = lane.flying
            if state is not None and state.decision is not None:
                self.demoted += state.decision.demoted
                self.over_budget += state.decision.over_budget
            self._note(lane)
            picked.append(lane)
        return picked

    def settled(self, lane: Lane, outcome: Outcome, now: float) -> None:
        """Take the answer to a lane's push."""
        for state, decided in lane.settle(outcome, now):
            self._decided(lane.token, state, decided)
        self._note(lane)
        if lane.waiting is not None:
            self._place(lane, now)
        elif outcome.verdict is Verdict.DROP_TOKEN and not lane.ended:
            self._lanes.pop(lane.token, None)

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
            if lane.place != TIMED or lane.wake_at != when:
                continue
            lane.place = RESTING
            self._place(lane, now)

    def expire_due(self, now: float) -> None:
        """Give up what is past its last moment while it waits for a connection."""
        for lane in self._due:
            gone = lane.expire(now)
            if gone is not None:
                self._decided(lane.token, *gone)
                self._note(lane)

    def waiting(self) -> Iterator[Lane]:
        """Return the lanes that have a state which is not settled."""
        return (lane for lane in self._lanes.values() if not lane.idle)

    def sweep(self, now: float, count: int = 10_000) -> int:
        """Look at some lanes and forget those idle for longer than their lifetime; return how many."""
        tokens = list(islice(self._purge, count)) if self._purge is not None else []
        if not tokens:
            self._purge = iter(list(self._lanes))
            return 0
        forgotten = 0
        for token in tokens:
            lane = self._lanes.get(token)
            if lane is not None and lane.idle and now - lane.left_at > self.lifetime:
                del self._lanes[token]
                forgotten += 1
        return forgotten

    def _note(self, lane: Lane) -> None:
        if self.changed is not None:
            self.changed.add(lane)

    def _place(self, lane: Lane, now: float) -> None:
        """Put a lane where its waiting state belongs."""
        state = lane.waiting
        if lane.flying is not None or state is None or lane.place == DUE:
            return
        gone = lane.expire(now)
        if gone is not None:
            lane.place = RESTING
            self._decided(lane.token, *gone)
            self._note(lane)
            return
        when = lane.ready_at(now, self.minimum_interval)
        if when <= now:
            lane.place = DUE
            self._due.append(lane)
            return
        when = min(when, state.last_moment)
        if lane.place == TIMED and lane.wake_at == when:
            return
        if when == NEVER:
            return
        lane.place = TIMED
        lane.wake_at = when
        self._count += 1
        heapq.heappush(self._timed, (when, self._count, lane))
