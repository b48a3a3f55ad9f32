"""Which priority a push gets, so that the phone still shows the next one.

iOS gives each activity an hourly budget of pushes with priority 10. When it is spent the phone
shows nothing while APNs still answers 200 (Apple, "Starting and updating Live Activities with
ActivityKit push notifications": priority 10 counts, priority 5 does not). The size of the budget
is unpublished, so the presets here are guesses that circulate, and are marked so.

An account is one float, the moment at which it would be full again (the generic cell rate
algorithm), so that a million idle activities cost eight bytes each for it.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from ..errors import InvalidSetting

HOUR = 3600.0


class Urgency(enum.IntEnum):
    """How much it matters that the phone shows this state at once."""

    QUIET = 0
    """Priority 5, whatever the budget."""
    NORMAL = 1
    """Priority 10 while there is budget above the reserve, then 5."""
    URGENT = 2
    """Priority 10 always; the default for what carries an alert."""


UrgencyName = Literal["urgent", "normal", "quiet"]


def check_urgency(value: Urgency | str | None, *, has_alert: bool) -> Urgency:
    """Return the urgency that ``value`` names; None means urgent with an alert, else normal.

    Raises InvalidSetting for anything else.
    """
    if value is None:
        return Urgency.URGENT if has_alert else Urgency.NORMAL
    if isinstance(value, Urgency):
        return value
    try:
        return Urgency[value.upper()]
    except (KeyError, AttributeError):
        raise InvalidSetting(
            f"{value!r} is no urgency",
            field="urgency",
            remedy='Use "urgent", "normal" or "quiet".',
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The priority-10 pushes that one activity may get in any 60 minutes.

    ``per_hour`` bounds every rolling hour. ``reserve`` of them are for urgent states and ends.
    ``burst`` is how many normal states may go at priority 10 one after another before the pace
    of the refill holds them back. ``starts_per_hour`` is the account of one device for
    push-to-start. ``verified`` is False where the figures are guesses.

    It is a token bucket: ``reserve + burst`` deep, refilled with the rest of ``per_hour`` over an
    hour. Depth and refill together are ``per_hour``, so a clock hour cannot see more either,
    wherever the phone's hour begins.
    """

    per_hour: int
    reserve: int = 4
    burst: int = 3
    starts_per_hour: int = 8
    verified: bool = False
    name: str = "custom"

    def __post_init__(self) -> None:
        for field in ("per_hour", "burst", "starts_per_hour"):
            if getattr(self, field) < 1:
                raise InvalidSetting(
                    f"{getattr(self, field)} is below 1",
                    field=f"budget.{field}",
                    remedy="Give a whole number of pushes.",
                )
        if self.reserve < 0:
            raise InvalidSetting(
                f"{self.reserve} is below 0", field="budget.reserve", remedy="Give 0 or more."
            )
        if self.reserve + self.burst >= self.per_hour:
            raise InvalidSetting(
                f"reserve {self.reserve} and burst {self.burst} leave nothing of {self.per_hour} to refill",
                field="budget",
                remedy="Keep reserve + burst below per_hour.",
            )

    @property
    def depth(self) -> int:
        """How many pushes a full account holds."""
        return self.reserve + self.burst

    @property
    def refill_time(self) -> float:
        """Seconds until one more push is in the account."""
        return HOUR / (self.per_hour - self.depth)

    def level(self, full_at: float, now: float) -> float:
        """Return how many pushes an account holds that is full at ``full_at``; below 0 is debt."""
        missing = full_at - now
        return self.depth - missing / self.refill_time if missing > 0 else float(self.depth)


DEFAULT = Budget(per_hour=15, reserve=4, burst=3, name="default")
"""15 an hour: a figure that circulates, not Apple's. Unverified."""
FREQUENT = Budget(per_hour=60, reserve=8, burst=12, name="frequent")
"""With ``NSSupportsLiveActivitiesFrequentUpdates``; the size is a guess. Unverified."""
PRESETS: dict[str, Budget] = {"default": DEFAULT, "frequent": FREQUENT}


def check_budget(value: Budget | str) -> Budget:
    """Return the budget that ``value`` is or names; raises InvalidSetting for anything else."""
    if isinstance(value, Budget):
        return value
    preset = PRESETS.get(value) if isinstance(value, str) else None
    if preset is None:
        raise InvalidSetting(
            f"{value!r} is no budget",
            field="budget",
            remedy='Use "default", "frequent" or Budget(per_hour=...).',
        )
    return preset


@dataclass(frozen=True, slots=True)
class Decision:
    """What one push is sent with, and the account after it."""

    priority: int
    full_at: float
    demoted: bool = False
    over_budget: bool = False


def decide(budget: Budget, full_at: float, urgency: Urgency, now: float) -> Decision:
    """Choose the priority of a push that leaves at ``now`` and charge the account.

    Urgent (and every end) gets 10 even when the account is empty, and is marked ``over_budget``
    then; the debt is paid before a normal push gets 10 again, but it never grows past the reserve,
    so that an hour of alarms is not followed by a day of silence.
    """
    if urgency is Urgency.QUIET:
        return Decision(5, full_at)
    level = budget.level(full_at, now)
    charged = max(full_at, now) + budget.refill_time
    # Differences of large floats: a push is not refused for the sake of a rounding error.
    if urgency is Urgency.NORMAL:
        if level >= budget.reserve + 1 - 1e-6:
            return Decision(10, charged)
        return Decision(5, full_at, demoted=True)
    if level >= 1 - 1e-6:
        return Decision(10, charged)
    deepest = now + (budget.depth + budget.reserve) * budget.refill_time
    return Decision(10, min(charged, max(deepest, full_at)), over_budget=True)


def for_device(budget: Budget, frequent_pushes_enabled: bool | None) -> Budget:
    """Return the budget for a device that reported ``frequentPushesEnabled``.

    A device that says no gets at most the default budget (Apple, ``ActivityAuthorizationInfo``:
    send the value to your server and slow down when it is false).
    """
    if frequent_pushes_enabled is False and budget.per_hour > DEFAULT.per_hour:
        return DEFAULT
    return budget


class StartAccounts:
    """The push-to-start account of each device: a meter, not a gate.

    A phone starts about ten activities by push in a short time and ignores the rest with "Push-to-start
    budget exceeded" in its log, in both environments, whatever the frequent flag. How fast it
    refills is disputed (an hour, up to a day). A start beyond the account is still sent, marked
    ``over_budget``. Only the ``devices`` seen last are remembered.
    """

    def __init__(self, per_hour: int = 8, *, devices: int = 100_000) -> None:
        self._budget = Budget(per_hour=per_hour + 1, reserve=0, burst=per_hour)
        self._devices = devices
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def charge(self, token: str, now: float) -> bool:
        """Count a start for ``token``; return whether it is over the account."""
        full_at = self._full_at.pop(token, 0.0)
        decision = decide(self._budget, full_at, Urgency.URGENT, now)
        self._full_at[token] = decision.full_at
        if len(self._full_at) > self._devices:
            self._full_at.popitem(last=False)
        return decision.over_budget
