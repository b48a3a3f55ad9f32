"""States for phones whose activity token has not arrived yet.

After a push-to-start the activity token often arrives late. Until then the newest state of each device
waits here, under any key that the caller chooses (a start token, a user id). When the token arrives,
the state is sent on its lane.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ..errors import ActivityEnded
from ..outcome import Outcome
from .journal import Record, WakeupRecord
from .state import State, expired, inherit, superseded, unsent

_UNCLAIMED = "no token was handed in for this device before the state's last moment"


class Wakeups:
    """The newest state per device; beyond ``most`` devices the oldest is given up.

    ``decided`` is called with every state that got its outcome here.
    """

    def __init__(
        self, decided: Callable[[State, Outcome], object], *, most: int = 1_000_000
    ) -> None:
        self.changed: set[str] = set()
        self._decided = decided
        self._states: OrderedDict[str, State] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, device: object) -> bool:
        return device in self._states

    def wait(self, device: str, state: State) -> None:
        """Keep ``state`` for ``device`` in the place of an older one.

        Raises ActivityEnded when an end waits already.
        """
        before = self._states.get(device)
        if before is not None:
            if before.is_end:
                raise ActivityEnded(
                    "an end waits for this device's token already; nothing may follow it."
                )
            revisions = state.revision, before.revision
            if None not in revisions and not state.is_end and revisions[0] <= revisions[1]:  # type: ignore[operator]
                older = superseded("", state, f"revision {state.revision} is not newer")
                self._decided(state, older)
                return
            self._decided(before, superseded("", before, inherit(state, before)))
        self.keep(device, state)
        self.changed.add(device)
        if len(self._states) > self._most:
            lost, oldest = self._states.popitem(last=False)
            self.changed.add(lost)
            self._decided(oldest, superseded("", oldest, "too many devices wait for a token"))

    def keep(self, device: str, state: State) -> None:
        """Keep a state as the newest, whatever was there."""
        self._states[device] = state
        self._states.move_to_end(device)

    def hand_in(self, device: str) -> State | None:
        """Return the state that waited for this device's token, once."""
        state = self._states.pop(device, None)
        if state is not None:
            self.changed.add(device)
        return state

    def tick(self, now: float, count: int = 1000) -> None:
        """Give up states whose last moment has passed, looking at the ``count`` oldest."""
        gone = [
            device
            for device, _ in zip(self._states, range(count), strict=False)
            if self._states[device].last_moment <= now
        ]
        self.changed.update(gone)
        for device in gone:
            state = self._states.pop(device)
            self._decided(state, expired("", state.encoded.priority, None, _UNCLAIMED))

    def stop(self, why: str) -> None:
        """Give everything its outcome."""
        states, self._states = self._states, OrderedDict()
        for state in states.values():
            self._decided(state, unsent("", state.encoded.priority, why))

    def collect(self) -> list[Record]:
        """Return the records of what changed."""
        records: list[Record] = []
        for device in self.changed:
            state = self._states.get(device)
            record = WakeupRecord(device=device)
            if state is not None:
                record.urgency = int(state.urgency)
                record.revision = state.revision
                record.deadline = state.deadline
                record.message = state.encoded
            records.append(record)
        self.changed.clear()
        return records
