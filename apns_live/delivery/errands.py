"""Single pushes that belong to no activity: starts and ordinary notifications.

There is no order to keep and nothing to replace, so each has a lane of its own for one push. It is
retried like everything else until its last moment, except that a start which may have been processed
is never sent again: two cards are worse than the one question.
"""

from __future__ import annotations

from .budget import Budget, Decision, StartAccounts
from .lane import Lane
from .pacing import NEVER
from .state import State


class Errand(Lane):
    """The lane of one push to one token. A start is charged to its device's account, once."""

    __slots__ = ("_starts",)

    journalled = False

    def __init__(self, token: str, state: State, starts: StartAccounts) -> None:
        super().__init__(token)
        self.waiting = state
        self._starts = starts

    def ready_at(self, now: float, wall: float, minimum_interval: float = 0.0) -> float:
        """Return when it may leave: at once, or when its token may be tried again."""
        del wall, minimum_interval
        if self.waiting is None or self.flying is not None:
            return NEVER
        return now if self.trouble is None else max(now, self.trouble.not_before)

    def _charge(self, state: State, now: float, wall: float, budget: Budget) -> None:
        del wall, budget
        if state.decision is None:  # once, however often it is tried
            over = state.encoded.event == "start" and self._starts.charge(self.token, now)
            state.decision = Decision(state.encoded.priority, self.account, over_budget=over)
