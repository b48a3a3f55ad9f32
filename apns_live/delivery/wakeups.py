"""Updates for phones whose activity token has not arrived yet.

After a push-to-start the phone makes an activity and sends its token when iOS feels like it, often
late. Until then the newest state waits here, one per device, under whatever key the caller has for
it (a start token, a user id). When the token is handed in, the state goes out on its lane.
"""

from __future__ import annotations

from collections import OrderedDict

from ..errors import ActivityEnded
from ..outcome import Outcome
from .encoding import to_journal
from .journal import Record, WakeupRecord
from .lane import State, inherit, superseded


class Wakeups:
    """The newest state per device, the oldest given up when more than ``most`` wait."""

    def __init__(self, *, most: int = 1_000_000) -> None:
        self.changed: set[str] = set()
        self._states: OrderedDict[str, State] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, device: object) -> bool:
        return device in self._states

    def wait(self, device: str, state: State) -> list[tuple[str, State, Outcome]]:
        """Keep ``state`` for ``device``; return what it replaced, or itself when it is older.

        Raises ActivityEnded when an end waits already.
        """
        decided: list[tuple[str, State, Outcome]] = []
        before = self._states.get(device)
        if before is not None:
            if before.is_end:
                raise ActivityEnded(
                    "an end waits for this device's token already; nothing may follow it."
                )
            older = (
                state.revision is not None
                and before.revision is not None
                and state.revision <= before.revision
            )
            if older and not state.is_end:
                return [
                    ("", state, superseded("", state, f"revision {state.revision} is not newer"))
                ]
            decided.append(("", before, superseded("", before, inherit(state, before))))
        self._states[device] = state
        self._states.move_to_end(device)
        self.changed.add(device)
        if len(self._states) > self._most:
            lost, oldest = self._states.popitem(last=False)
            self.changed.add(lost)
            decided.append(
                ("", oldest, superseded("", oldest, "too many devices wait for a token"))
            )
        return decided

    def hand_in(self, device: str) -> State | None:
        """Return the state that waited for this device's token, once."""
        state = self._states.pop(device, None)
        if state is not None:
            self.changed.add(device)
        return state

    def expired(self, now: float, count: int = 1000) -> list[tuple[str, State]]:
        """Take out states whose last moment has passed, looking at the ``count`` oldest."""
        gone = [
            device
            for device, _ in zip(self._states, range(count), strict=False)
            if self._states[device].last_moment <= now
        ]
        self.changed.update(gone)
        return [(device, self._states.pop(device)) for device in gone]

    def close(self) -> list[State]:
        """Take out everything."""
        states = list(self._states.values())
        self._states.clear()
        return states

    def collect(self) -> list[Record]:
        """Return the records of what changed."""
        records: list[Record] = []
        for device in self.changed:
            state = self._states.get(device)
            records.append(
                WakeupRecord(device=device)
                if state is None
                else WakeupRecord(
                    device=device,
                    urgency=int(state.urgency),
                    revision=state.revision,
                    deadline=state.deadline,
                    message=to_journal(state.encoded),
                )
            )
        self.changed.clear()
        return records

    def committed(self) -> None:
        """Note that what was collected is safe."""
