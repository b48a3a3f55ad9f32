"""The budgets of the phones."""

from __future__ import annotations

from .settings import BudgetLaw


class WindowBudget:
    """``capacity`` uses in a window that begins with the first use after the last one ended.

    With ``counts_refused`` a use over the capacity is counted too, so that ``remaining`` falls below 0.
    """

    __slots__ = ("capacity", "counts_refused", "start", "used", "window")

    def __init__(self, capacity: int, window: float, *, counts_refused: bool = False) -> None:
        self.capacity = capacity
        self.window = window
        self.counts_refused = counts_refused
        self.start = 0.0
        self.used = 0

    def _begins(self, now: float) -> float:
        return now

    def remaining(self, now: float) -> int:
        """Return how many uses are left at ``now``."""
        return self.capacity - (self.used if now < self.start + self.window else 0)

    def spend(self, now: float) -> bool:
        """Use one; False when none is left."""
        if not self.used or now >= self.start + self.window:
            self.start, self.used = self._begins(now), 0
        allowed = self.used < self.capacity
        if allowed or self.counts_refused:
            self.used += 1
        return allowed

    def refills_at(self, now: float) -> float | None:
        """Return when ``remaining`` next grows, or None when it is full."""
        end = self.start + self.window
        return end if self.used and now < end else None

    def refill(self) -> None:
        """Give everything back."""
        self.used = 0


class ClockHourBudget(WindowBudget):
    """``capacity`` uses within each window of the clock, which starts at whole multiples of it."""

    __slots__ = ()

    def _begins(self, now: float) -> float:
        return now // self.window * self.window


class RollingBudget:
    """``capacity`` uses within any ``window`` seconds."""

    __slots__ = ("capacity", "uses", "window")

    def __init__(self, capacity: int, window: float) -> None:
        self.capacity = capacity
        self.window = window
        self.uses: list[float] = []

    def remaining(self, now: float) -> int:
        """Return how many uses are left at ``now``."""
        self.uses = [use for use in self.uses if use > now - self.window]
        return self.capacity - len(self.uses)

    def spend(self, now: float) -> bool:
        """Use one; False when none is left."""
        if self.remaining(now) <= 0:
            return False
        self.uses.append(now)
        return True

    def refills_at(self, now: float) -> float | None:
        """Return when ``remaining`` next grows, or None when it is full."""
        self.remaining(now)
        return self.uses[0] + self.window if self.uses else None

    def refill(self) -> None:
        """Give everything back."""
        self.uses.clear()


class BucketBudget:
    """Refills steadily to ``capacity`` over ``window`` seconds."""

    __slots__ = ("at", "capacity", "level", "window")

    def __init__(self, capacity: int, window: float) -> None:
        self.capacity = capacity
        self.window = window
        self.level = float(capacity)
        self.at = 0.0

    def remaining(self, now: float) -> int:
        """Return how many whole uses are left at ``now``."""
        if now > self.at:
            gained = (now - self.at) * self.capacity / self.window
            self.level = min(float(self.capacity), self.level + gained)
            self.at = now
        return int(self.level)

    def spend(self, now: float) -> bool:
        """Use one; False when none is left."""
        if self.remaining(now) < 1:
            return False
        self.level -= 1.0
        return True

    def refills_at(self, now: float) -> float | None:
        """Return when ``remaining`` next grows, or None when it is full."""
        missing = self.remaining(now) + 1 - self.level
        if self.level >= self.capacity:
            return None
        return now + missing * self.window / self.capacity

    def refill(self) -> None:
        """Give everything back."""
        self.level = float(self.capacity)


Budget = WindowBudget | RollingBudget | BucketBudget
_KINDS: dict[str, type[WindowBudget | RollingBudget | BucketBudget]] = {
    "window": WindowBudget,
    "rolling": RollingBudget,
    "clock hour": ClockHourBudget,
    "bucket": BucketBudget,
}


def make_budget(law: BudgetLaw, capacity: int) -> Budget:
    """Return a full budget under ``law``."""
    return _KINDS[law.kind](capacity, law.window)
