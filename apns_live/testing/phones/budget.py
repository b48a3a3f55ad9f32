"""The budgets of the phones: how often something may happen in a window of time."""

from __future__ import annotations

import msgspec

from .settings import BudgetKind


class Budget(msgspec.Struct, eq=False):
    """``capacity`` uses in ``window`` seconds, counted as ``kind`` says (`BudgetLaw`).

    With ``counts_refused`` a use over the capacity is counted too, so that ``remaining`` falls below 0.
    ``used`` is right at ``since``: the start of a window, or the last look at a bucket. ``uses`` are the
    times of a rolling window.
    """

    capacity: int
    window: float
    kind: BudgetKind = "window"
    counts_refused: bool = False
    since: float = 0.0
    used: float = 0
    uses: list[float] = []

    def remaining(self, now: float) -> int:
        """Return how many whole uses are left at ``now``."""
        if self.kind == "rolling":
            self.uses = [use for use in self.uses if use > now - self.window]
            self.used = len(self.uses)
        elif self.kind == "bucket":
            if now > self.since:
                given_back = (now - self.since) * self.capacity / self.window
                self.used, self.since = max(0.0, self.used - given_back), now
        elif now >= self.since + self.window:
            self.used = 0
        return int((self.capacity - self.used) // 1)

    def spend(self, now: float) -> bool:
        """Use one; False when none is left."""
        allowed = self.remaining(now) >= 1
        if allowed or self.counts_refused:
            if self.kind == "rolling":
                self.uses.append(now)
            elif not self.used:
                self.since = now // self.window * self.window if self.kind == "clock hour" else now
            self.used += 1
        return allowed

    def refills_at(self, now: float) -> float | None:
        """Return when ``remaining`` next grows, or None when it is full."""
        left = self.remaining(now)
        if not self.used:
            return None
        if self.kind == "bucket":
            missing = left + 1 - (self.capacity - self.used)
            return now + missing * self.window / self.capacity
        return (self.uses[0] if self.kind == "rolling" else self.since) + self.window

    def refill(self) -> None:
        """Give everything back."""
        self.used, self.uses = 0, []
