"""Budgets as the phones keep them: never negative, and cheap while nothing is spent."""

from __future__ import annotations

from .settings import BudgetLaw


class RollingBudget:
    """``capacity`` uses within any ``window`` seconds."""

    __slots__ = ("capacity", "uses", "window")

    def __init__(self, capacity: int, window: float) -> None:
        self.capacity = capacity
        self.window = window
        self.uses: list[float] = []

    def _forget(self, now: float) -> None:
        uses, since = self.uses, now - self.window
        while uses and uses[0] <= since:
            uses.pop(0)

    def remaining(self, now: float) -> int:
        """Return how many uses are left at ``now``."""
        self._forget(now)
        return self.capacity - len(self.uses)

    def spend(self, now: float) -> bool:
        """Use one; False when none is left."""
        self._forget(now)
        if len(self.uses) >= self.capacity:
            return False
        self.uses.append(now)
        return True

    def refills_at(self, now: float) -> float | None:
        """Return when ``remaining`` next grows, or None when it is full."""
        self._forget(now)
        return self.uses[0] + self.window if self.uses else None

    def refill(self) -> None:
        """Give everything back."""
        self.uses.clear()


class ClockHourBudget:
    """``capacity`` uses within each window of the clock, which starts at whole multiples of it."""

    __slots__ = ("capacity", "hour", "used", "window")

    def __init__(self, capacity: int, window: float) -> None:
        self.capacity = capacity
        self.window = window
        self.hour = -1
        self.used = 0

    def _turn(self, now: float) -> None:
        hour = int(now // self.window)
        if hour > self.hour:
            self.hour, self.used = hour, 0

    def remaining(self, now: float) -> int:
        """Return how many uses are left at ``now``."""
        self._turn(now)
        return self.capacity - self.used

    def spend(self, now: float) -> bool:
        """Use one; False when none is left."""
        self._turn(now)
        if self.used >= self.capacity:
            return False
        self.used += 1
        return True

    def refills_at(self, now: float) -> float | None:
        """Return when ``remaining`` next grows, or None when it is full."""
        self._turn(now)
        return (self.hour + 1) * self.window if self.used else None

    def refill(self) -> None:
        """Give everything back."""
        self.used = 0


class BucketBudget:
    """Refills steadily to ``capacity`` over ``window`` seconds."""

    __slots__ = ("at", "capacity", "level", "window")

    def __init__(self, capacity: int, window: float) -> None:
        self.capacity = capacity
        self.window = window
        self.level = float(capacity)
        self.at = 0.0

    def _fill(self, now: float) -> None:
        if now > self.at:
            gained = (now - self.at) * self.capacity / self.window
            self.level = min(float(self.capacity), self.level + gained)
            self.at = now

    def remaining(self, now: float) -> int:
        """Return how many whole uses are left at ``now``."""
        self._fill(now)
        return int(self.level)

    def spend(self, now: float) -> bool:
        """Use one; False when none is left."""
        self._fill(now)
        if self.level < 1.0:
            return False
        self.level -= 1.0
        return True

    def refills_at(self, now: float) -> float | None:
        """Return when ``remaining`` next grows, or None when it is full."""
        self._fill(now)
        if self.level >= self.capacity:
            return None
        missing = int(self.level) + 1 - self.level
        return now + missing * self.window / self.capacity

    def refill(self) -> None:
        """Give everything back."""
        self.level = float(self.capacity)


Budget = RollingBudget | ClockHourBudget | BucketBudget


def make_budget(law: BudgetLaw, capacity: int) -> Budget:
    """Return a full budget under ``law``."""
    if law.kind == "rolling":
        return RollingBudget(capacity, law.window)
    if law.kind == "clock hour":
        return ClockHourBudget(capacity, law.window)
    return BucketBudget(capacity, law.window)
