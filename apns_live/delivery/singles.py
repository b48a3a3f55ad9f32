"""Lanes and single pushes as a home of `Dispatch`: their items, their records, their housekeeping."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ActivityEnded
from ..outcome import Outcome
from .budget import StartAccounts
from .dispatch import Dispatch, Home
from .journal import Record
from .lane import Lane
from .lanes import INTENDED, RESTING, Lanes
from .records import forgotten_lane, lane_record
from .state import State, unsent
from .wakeups import Wakeups

HOUSEKEEPING = 5.0
"""Seconds between two looks at what waits for a connection and at idle lanes."""


class Singles(Home):
    """What is sent to one token each."""

    def __init__(
        self,
        dispatch: Dispatch,
        decided: Callable[[State, Outcome], object],
        *,
        starts_per_hour: int,
        lanes: Lanes,
    ) -> None:
        self.lanes = lanes
        self.wakeups = Wakeups(decided)
        self.starts = StartAccounts(starts_per_hour)
        self._dispatch = dispatch
        self._decided = decided
        self._changed: set[Lane] = set()
        self._next_round = dispatch.time.now() + HOUSEKEEPING
        if dispatch.writer is not None:
            lanes.changed = self._changed.add

    def __repr__(self) -> str:
        return f"<Singles {len(self.lanes)} lanes, {len(self.wakeups)} wakeups>"

    # What the delivery calls.

    def hand_in(self, device: str, token: str) -> bool:
        """Send what waited for a device's token; return whether anything did."""
        state = self.wakeups.hand_in(device)
        if state is None:
            return False
        state.token = token
        try:
            self.lanes.offer(token, state)
        except ActivityEnded as error:
            self._decided(state, unsent(token, state.encoded.priority, str(error)))
        # One transaction: the state is either still a wakeup or already in its lane.
        self._dispatch.stir(self)
        return True

    def stop(self, why: str, *, kept: str = "", flying: bool) -> None:
        """Let nothing more leave: everything that waits gets its outcome (see `Lanes.stop`)."""
        self.lanes.stop(why, kept=kept, flying=flying)
        self.wakeups.stop(why + kept)

    # A home of `Dispatch`.

    @property
    def pending(self) -> bool:
        """Whether `take` may return something."""
        return self.lanes.pending

    def take(self, limit: int, now: float) -> list[object]:
        """Return items for lanes whose state has just departed."""
        del now
        prepare, make = self._dispatch.prepare, self._dispatch.make_item
        gated = self._dispatch.writer is not None
        items: list[object] = []
        for lane in self.lanes.pick(limit):
            state = lane.flying
            if state is not None:
                if gated:
                    lane.place = INTENDED
                items.append(make(lane.token, prepare(state.encoded), (self, lane, state)))
        return items

    def leaves(self, lane: Lane, state: State) -> bool:
        """Return whether a state whose intent was committed still leaves."""
        if lane.flying is not state or lane.place != INTENDED:
            return False
        lane.place = RESTING
        return True

    def settle(self, lane: Lane, state: State, outcome: Outcome, now: float) -> None:
        """Take the answer to one push."""
        if lane.flying is state:
            self.lanes.settled(lane, outcome, now)

    def next_time(self) -> float | None:
        """Return when `tick` has something to do."""
        lanes = self.lanes.next_time()
        return self._next_round if lanes is None else min(lanes, self._next_round)

    def tick(self, now: float) -> None:
        """Queue what was held; every few seconds look after what waits and what idles."""
        self.lanes.tick(now)
        if now >= self._next_round:
            self._next_round = now + HOUSEKEEPING
            self.lanes.keep_house(now)
            self.wakeups.tick(now)

    # A home of the journal's writer.

    @property
    def unrecorded(self) -> bool:
        """Whether `collect` has something."""
        return bool(self._changed or self.wakeups.changed)

    def collect(self) -> list[Record]:
        """Return the records of what changed."""
        records: list[Record] = []
        for lane in self._changed:
            if self.lanes.is_kept(lane):
                records.append(lane_record(lane))
            elif self.lanes.get(lane.token) is None:
                records.append(forgotten_lane(lane.token))
        self._changed.clear()
        return records + self.wakeups.collect()
