"""Priority budgets: which priority a push gets within the phone's hourly budget.

iOS gives each activity an hourly budget of pushes with priority 10. When it is spent, the phone delays
updates while APNs still answers 200 (Apple, "Starting and updating Live Activities with ActivityKit
push notifications": priority 10 counts, priority 5 does not). Apple does not publish its size, so the
presets are unverified and marked so.

How a phone counts is not published either, so it is a setting (`Law`). An account is a time and the
amount used at that time, under either law, so it survives a restart and a change of the law.
"""

import enum
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..errors import InvalidSetting
from ..refusals import refused
from .encoding import one_spelling

HOUR = 3600.0


class Urgency(enum.IntEnum):
    """How urgently the phone should show a state."""

    QUIET = 0
    """Priority 5, whatever the budget."""
    NORMAL = 1
    """Priority 10 while there is budget above the reserve, then 5."""
    URGENT = 2
    """Always priority 10; the default for a message with an alert."""


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
        raise refused(InvalidSetting, "urgency", "urgency", value=value) from None


class Law(enum.StrEnum):
    """How the pushes of an hour are counted."""

    BUCKET = "bucket"
    """A token bucket ``reserve + burst`` deep, refilled with the rest of ``per_hour`` over an hour.
    Depth and refill together are ``per_hour``, so no hour has more, whenever it begins.
    """
    WINDOW = "window"
    """A window of an hour that begins with the first counted push after the last one ended. So iOS
    17.2 and later were seen to count (iphone field notes, 2026-11; unverified)."""


class Account(NamedTuple):
    """An activity's used budget: ``used`` pushes, as of ``start`` (seconds since 1970).

    In a window, the pushes since ``start``; in a bucket, the pushes missing at ``start``.
    """

    start: float
    used: float


FULL = Account(0.0, 0)


@dataclass(slots=True, eq=False, weakref_slot=True)
class SharedAccount:
    """The account of several activities on one phone (iOS was seen to pool them; unverified)."""

    device: str
    account: Account = FULL


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The priority-10 pushes that one activity may get in an hour.

    ``reserve`` of them are for urgent states and ends. ``burst`` is how many normal states in a row
    may have priority 10 in a bucket; a window has no pace. ``starts_per_hour`` is the push-to-start
    budget of one device. ``law`` says how an hour is counted (`Law`). ``verified`` is False for
    guessed figures. Raises InvalidSetting for an invalid figure.
    """

    per_hour: int
    reserve: int = 4
    burst: int = 3
    starts_per_hour: int = 8
    law: Law = Law.BUCKET
    verified: bool = False
    name: str = "custom"

    def __post_init__(self) -> None:
        for field in ("per_hour", "burst", "starts_per_hour"):
            value = getattr(self, field)
            if value < 1:
                raise refused(InvalidSetting, "budget_number", f"budget.{field}", value=value)
        if self.reserve < 0:
            raise refused(InvalidSetting, "budget_reserve", "budget.reserve", reserve=self.reserve)
        try:
            object.__setattr__(self, "law", Law(self.law))
        except ValueError:
            raise refused(InvalidSetting, "budget_law", "budget.law", law=self.law) from None
        kept = self.depth if self.law is Law.BUCKET else self.reserve
        if kept >= self.per_hour:
            told = {"reserve": self.reserve, "burst": self.burst, "per_hour": self.per_hour}
            raise refused(InvalidSetting, "budget_nothing_left", "budget", **told)

    @property
    def depth(self) -> int:
        """How many pushes a full account holds."""
        return self.per_hour if self.law is Law.WINDOW else self.reserve + self.burst

    @property
    def refill_time(self) -> float:
        """Seconds until one more push is in a bucket."""
        return HOUR / (self.per_hour - self.depth)

    def at(self, account: Account, now: float) -> Account:
        """Return the account as of ``now``, with the refill since then."""
        start, used = account
        start = min(start, now)  # the clock may have been set back since
        if self.law is Law.WINDOW:
            return FULL if now - start >= HOUR else Account(start, used)
        left = used - (now - start) / self.refill_time
        return FULL if left <= 0 else Account(now, left)

    def level(self, account: Account, now: float) -> float:
        """Return how many pushes an account holds; below 0 is debt."""
        return self.depth - self.at(account, now).used


DEFAULT = Budget(per_hour=15, reserve=4, burst=3, name="default")
"""15 an hour: a widely quoted figure, not Apple's. Unverified."""
FREQUENT = Budget(per_hour=60, reserve=8, burst=12, name="frequent")
"""With ``NSSupportsLiveActivitiesFrequentUpdates``; the size is a guess. Unverified."""
OBSERVED = Budget(per_hour=15, reserve=4, law=Law.WINDOW, starts_per_hour=10, name="observed")
"""As seen on iOS 17.2 and later, for a device that is not in use. Unverified."""
OBSERVED_FREQUENT = Budget(
    per_hour=229, reserve=20, law=Law.WINDOW, starts_per_hour=10, name="observed-frequent"
)
"""As seen in a device log of iOS 26.6 (229 to 236 left) with frequent updates. Unverified."""
PRESETS: dict[str, Budget] = {
    budget.name: budget for budget in (DEFAULT, FREQUENT, OBSERVED, OBSERVED_FREQUENT)
}


def check_budget(value: Budget | str) -> Budget:
    """Return the budget, or the preset of this name. Raises InvalidSetting for any other value."""
    if isinstance(value, Budget):
        return value
    preset = PRESETS.get(value) if isinstance(value, str) else None
    if preset is None:
        raise refused(InvalidSetting, "budget", "budget", value=value, choices=", ".join(PRESETS))
    return preset


@dataclass(frozen=True, slots=True)
class Charge:
    """The priority of a push, and the account after it."""

    priority: int
    account: Account
    demoted: bool = False
    over_budget: bool = False


UNCHARGED = Charge(0, FULL)
"""That of a state before its first try."""


def charge_of(budget: Budget, account: Account, urgency: Urgency, now: float) -> Charge:
    """Return the priority of a push that is sent at ``now``, and the charged account.

    Urgent (and every end) gets 10 even when the account is empty, and is marked ``over_budget``
    then; the debt must be refilled before a normal push gets 10 again. It never exceeds the
    reserve, so that an hour of alarms is not followed by a day of priority 5.
    """
    if urgency is Urgency.QUIET:
        return Charge(5, account)
    start, used = budget.at(account, now)
    left = budget.depth - used
    charged = Account(start or now, used + 1)
    # Differences of large floats: a rounding error must not refuse a push.
    if urgency is Urgency.NORMAL:
        if left >= budget.reserve + 1 - 1e-6:
            return Charge(10, charged)
        return Charge(5, account, demoted=True)
    if left >= 1 - 1e-6:
        return Charge(10, charged)
    deepest = budget.depth + budget.reserve
    return Charge(10, Account(start or now, min(used + 1, max(deepest, used))), over_budget=True)


def refund(account: Account, charge: Charge) -> Account:
    """Return the account without a push that was charged and not sent."""
    if charge.priority != 10:
        return account
    return Account(account.start, max(0, account.used - 1))


def for_device(budget: Budget, frequent_pushes_enabled: bool | None) -> Budget:
    """Return the budget for a device that reported ``frequentPushesEnabled``.

    With False the device gets at most the default budget of the same law (Apple,
    ``ActivityAuthorizationInfo``: send the value to your server and slow down when it is false).
    """
    if frequent_pushes_enabled is False and budget.per_hour > DEFAULT.per_hour:
        return OBSERVED if budget.law is Law.WINDOW else DEFAULT
    return budget


class StartAccounts:
    """The push-to-start account of each device. It counts starts and never blocks one.

    A phone starts about ten activities by push in a short time and ignores the rest with
    "Push-to-start budget exceeded" in its log, in both environments, whatever the frequent flag.
    How fast it refills is disputed (an hour, up to a day). A start beyond the account is still
    sent, marked ``over_budget``. Only the ``devices`` seen last are remembered.
    """

    def __init__(self, per_hour: int = 8, *, devices: int = 100_000) -> None:
        self._budget = Budget(per_hour=per_hour + 1, reserve=0, burst=per_hour)
        self._devices = devices
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def charge(self, token: str, now: float) -> bool:
        """Count a start for ``token``; return True if it exceeds the account."""
        token = one_spelling(token)
        account = self._accounts.pop(token, FULL)
        charge = charge_of(self._budget, account, Urgency.URGENT, now)
        self._accounts[token] = charge.account
        if len(self._accounts) > self._devices:
            self._accounts.popitem(last=False)
        return charge.over_budget
