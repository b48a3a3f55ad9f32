"""Single pushes that belong to no lane: starts and ordinary notifications.

There is no order to keep and nothing to replace. They are retried like everything else until their
last moment, except that a start which may have been processed is never sent again: two cards are
worse than the one question.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable

import msgspec

from ..outcome import Outcome, Verdict
from .budget import StartAccounts
from .lane import State, expired
from .pacing import NEVER, Trouble, again_at


class Errand:
    """One push to one token."""

    __slots__ = ("over_budget", "state", "token", "trouble")

    def __init__(self, token: str, state: State) -> None:
        self.token = token
        self.state = state
        self.trouble: Trouble | None = None
        self.over_budget = False


class Errands:
    """The single pushes that wait or fly."""

    def __init__(
        self, starts: StartAccounts, decided: Callable[[str, State, Outcome], None]
    ) -> None:
        self._starts = starts
        self._decided = decided
        self._due: deque[Errand] = deque()
        self._held: list[tuple[float, int, Errand]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._due) + len(self._held)

    @property
    def pending(self) -> bool:
        """Whether `pick` may return something."""
        return bool(self._due)

    def add(self, token: str, state: State) -> None:
        """Queue a push."""
        self._due.append(Errand(token, state))

    def withdraw(self, state: State) -> bool:
        """Take back a push that has not left; False when it has."""
        for errand in self._due:
            if errand.state is state:
                self._due.remove(errand)
                return True
        return False

    def pick(self, limit: int, now: float) -> list[Errand]:
        """Return at most ``limit`` pushes that leave now."""
        picked: list[Errand] = []
        while self._due and len(picked) < limit:
            errand = self._due.popleft()
            if now >= errand.state.last_moment:
                self._decided(
                    errand.token, errand.state, expired(errand.token, errand.state, errand.trouble)
                )
                continue
            if errand.state.encoded.event == "start" and errand.trouble is None:
                errand.over_budget = self._starts.charge(errand.token, now)
            picked.append(errand)
        return picked

    def settle(self, errand: Errand, outcome: Outcome, now: float) -> None:
        """Take the answer."""
        state, trouble = errand.state, errand.trouble
        attempts = outcome.attempts + (trouble.attempts if trouble else 0)
        if attempts != outcome.attempts or errand.over_budget:
            outcome = msgspec.structs.replace(
                outcome, attempts=attempts, over_budget=errand.over_budget
            )
        failures = trouble.failures if trouble else 0
        safe = state.encoded.replay_safe
        when = again_at(outcome, failures, now, replay_safe=safe)
        if when == NEVER:
            if outcome.may_have_been_sent and outcome.verdict is Verdict.RETRY_LATER:
                outcome = msgspec.structs.replace(outcome, verdict=Verdict.UNKNOWN)
            self._decided(errand.token, state, outcome)
            return
        errand.trouble = Trouble(
            failures + 1,
            when,
            attempts,
            outcome.may_have_been_sent or bool(trouble and trouble.may_have_been_sent),
            outcome,
        )
        if when >= state.last_moment:
            self._decided(errand.token, state, expired(errand.token, state, errand.trouble))
        elif when <= now:
            self._due.append(errand)
        else:
            self._count += 1
            heapq.heappush(self._held, (when, self._count, errand))

    def next_time(self) -> float | None:
        """Return when `tick` has something to do, None when it has not."""
        return self._held[0][0] if self._held else None

    def tick(self, now: float) -> None:
        """Queue what was held."""
        while self._held and self._held[0][0] <= now:
            self._due.append(heapq.heappop(self._held)[2])

    def close(self) -> list[Errand]:
        """Take out everything that has not left."""
        rest = [*self._due, *(errand for _, _, errand in self._held)]
        self._due.clear()
        self._held.clear()
        return rest
