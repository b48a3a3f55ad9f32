"""Settings of the simulated phones, for all rules that Apple does not publish: budgets and chances.

Defaults are the most likely values by public reports. If reports disagree, the docstring says so.
All durations are seconds, all shares are fractions between 0 and 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b, shake_128
from typing import Any, Literal, get_args

import msgspec

from apns_live.errors import FakeError

HOUR = 3600.0
BudgetKind = Literal["window", "rolling", "clock hour", "bucket"]
Consent = Literal["none", "allow", "always", "deny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLaw:
    """The budget of pushes with priority 10. docs/phones.md has the reports; Apple publishes nothing.

    ``kind``: ``window`` begins with the first counted push after the last window ended; ``rolling``
    counts the pushes of the last ``window`` seconds; ``clock hour`` starts again at each full window of
    the clock; ``bucket`` refills steadily. ``capacity`` is for a phone without frequent updates,
    ``frequent_capacity`` with them; either may be a range from which the seed draws. ``pooled`` counts
    all activities of one app on a phone together, and ``demotes`` delays a push over the budget to the
    phone's next burst, where it is dropped otherwise. By default both are on for ``window`` and off for
    the other kinds. ``exempt_end`` delivers an end when the budget is spent. ``None`` instead of a law
    means no budget.
    """

    kind: BudgetKind = "window"
    capacity: int | tuple[int, int] = 15
    frequent_capacity: int | tuple[int, int] = 229
    window: float = HOUR
    exempt_end: bool = False
    pooled: bool | None = None
    demotes: bool | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(BudgetKind):
            raise FakeError(f"budget kind is {self.kind!r}; use {', '.join(get_args(BudgetKind))}")
        for name in ("pooled", "demotes"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.kind == "window")
        for name in ("capacity", "frequent_capacity"):
            value = getattr(self, name)
            low, high = value if isinstance(value, tuple) else (value, value)
            if not 0 <= low <= high:
                raise FakeError(f"budget {name} is {value!r}; give 0 or more, or (lowest, highest)")
        if self.window <= 0:
            raise FakeError(f"budget window is {self.window!r}; give seconds above 0")


class Budget(msgspec.Struct, eq=False):
    """``capacity`` uses in ``window`` seconds, counted as ``kind`` says (`BudgetLaw`).

    With ``counts_refused`` a use over the capacity is counted too, so that ``remaining`` falls below 0.
    ``used`` is the count at ``since``: the start of a window, or the last update of a bucket. ``uses``
    are the times of a rolling window.
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
        """Use one. Return False if none is left."""
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
            return now + (left + 1 - (self.capacity - self.used)) * self.window / self.capacity
        return (self.uses[0] if self.kind == "rolling" else self.since) + self.window

    def refill(self) -> None:
        """Reset the budget to its capacity."""
        self.used, self.uses = 0, []


OBSERVED = BudgetLaw()
"""Seen on iOS 17.2 and later, unverified. The sender's presets hold the same figures; a test compares."""
BEFORE_17_2 = BudgetLaw(kind="rolling", frequent_capacity=60)
"""What phones before iOS 17.2 keep to where the law is `OBSERVED`: a figure that circulates, and a guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBudgetLaw:
    """How many push-to-starts one app may have on one phone in a window of ``window`` seconds.

    The window begins with the first try after the last one ended. A start without budget is refused on
    the phone and still counted. Opening the app refills it.
    """

    capacity: int = 10
    window: float = HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneSettings:
    """The laws of all phones of one fake. docs/phones.md has the source of each.

    ``consent``: what owners answer when a card that was started by push asks. ``none``: nothing yet,
    and no activity token comes; ``allow``: Allow, once they have seen each card (``consent_delay``
    seconds, between the bounds); ``always``: at once; ``deny``: nothing is shown.
    ``frequent_pushes``: whether phones have the budget of frequent updates; False is the level of a
    phone that is not in use.
    ``refresh_interval``: seconds between two refreshes of what is shown, on iOS 18 and later, however
    many pushes arrive; 5 to 15 were seen, about 60 in CarPlay. 0 shows every push.
    ``silent_stream``: the share of new push-to-start tokens that the app's token stream keeps quiet
    about; opening the app finds them.
    ``token_delay``: how long an activity token takes after the start, between the two bounds;
    ``token_never``: the share of started activities whose token does not come until the app is
    opened (9 of 14 starts on an idle phone in one report; 0 here, so that tests are not surprised).
    ``rotate_start_token``: the share of uses after which a push-to-start token is replaced.
    ``rotate_activity_token``: seconds after which an activity token is replaced, or None.
    ``after_end``: what an ended activity's token answers. ``8 hours``: 200 until eight hours after
    the start, then 410 ExpiredToken (one report saw this); ``silent``: always 200 (three
    reports); ``410``: at once (one report).
    ``equal_timestamp``: whether a push with the timestamp that is shown already counts; ``discard``
    is harsher than Apple's words. ``future_limit``: seconds that an update's timestamp may lie ahead.
    ``priority_5``: ``awake``: at once on a phone in use, in bursts on one that sleeps; ``bursts``:
    always; ``at once``: never held. ``burst_interval`` is the time between two bursts.
    ``asleep``: the share of automatic phones that sleep. ``offline``: the share of time that a
    phone is away, in one stretch of each ``offline_cycle``.
    ``storage``: ``app`` stores one message for each bundle id (Apple, "Sending notification
    requests to APNs"), ``token`` one for each token.
    ``app_limit`` and ``device_limit``: how many activities run at once (Apple publishes neither;
    five an app is what practitioners see).
    ``schemas``: JSON Schemas of content states by attributes type. An activity of unknown type
    is held to the schema if there is exactly one.
    ``max_devices``: automatic phones kept; the longest known one is forgotten beyond it.
    """

    seed: int = 0
    budget: BudgetLaw | None = field(default_factory=BudgetLaw)
    start_budget: StartBudgetLaw | None = field(default_factory=StartBudgetLaw)
    token_delay: tuple[float, float] = (0.5, 2.0)
    token_never: float = 0.0
    consent: Consent = "always"
    consent_delay: tuple[float, float] = (5.0, 30.0)
    refresh_interval: float = 0.0
    rotate_start_token: float = 0.0
    silent_stream: float = 0.0
    rotate_activity_token: float | None = None
    after_end: Literal["8 hours", "silent", "410"] = "8 hours"
    equal_timestamp: Literal["discard", "accept"] = "accept"
    future_limit: float = 8 * HOUR
    priority_5: Literal["awake", "bursts", "at once"] = "awake"
    burst_interval: float = 60.0
    asleep: float = 0.0
    offline: float = 0.0
    offline_cycle: float = HOUR
    storage: Literal["app", "token"] = "app"
    active_for: float = 8 * HOUR
    shown_after_end: float = 4 * HOUR
    app_limit: int = 5
    device_limit: int = 10
    os_version: str = "18.0"
    frequent_pushes: bool = True
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_devices: int = 250_000
    max_dead_tokens: int = 250_000

    def __post_init__(self) -> None:
        for name in ("token_never", "rotate_start_token", "silent_stream", "asleep", "offline"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise FakeError(f"phone setting {name} is {value!r}; give a share from 0 to 1")
        for name in ("token_delay", "consent_delay"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise FakeError(f"phone setting {name} wants (shortest, longest) in seconds")
        if self.refresh_interval < 0:
            raise FakeError("phone setting refresh_interval wants 0 or more seconds")
        check_consent(self.consent)
        for name in ("burst_interval", "offline_cycle", "active_for"):
            if getattr(self, name) <= 0:
                raise FakeError(f"phone setting {name} wants seconds above 0")
        parse_version(self.os_version)

    # Choices are a hash of the seed and of the name of the choice, not from a generator. So a choice
    # does not depend on other events, and a run can be repeated.

    def draw(self, what: str, who: str, nth: int = 0) -> float:
        """Return a number in [0, 1) for the ``nth`` time that ``what`` is drawn for ``who``."""
        digest = blake2b(f"{self.seed}\0{what}\0{who}\0{nth}".encode(), digest_size=7).digest()
        return int.from_bytes(digest, "big") / (1 << 56)

    def draw_between(self, what: str, who: str, bounds: tuple[float, float]) -> float:
        """Return a number between the two bounds; no draw is made when they are equal."""
        low, high = bounds
        return low if low == high else low + (high - low) * self.draw(what, who)

    def make_token(self, what: str, who: str, nth: int, size: int) -> str:
        """Return ``size`` bytes as lower-case hex: the ``nth`` token of its kind for ``who``."""
        return shake_128(f"{self.seed}\0token\0{what}\0{who}\0{nth}".encode()).hexdigest(size)

    def short_id(self, what: str, who: str, nth: int = 0) -> str:
        """Return twelve hex digits, for use as an id."""
        text = f"{self.seed}\0id\0{what}\0{who}\0{nth}".encode()
        return blake2b(text, digest_size=6).hexdigest()


def check_consent(answer: str) -> Consent:
    """Return a state of consent; raises ``FakeError`` for any other word."""
    for each in get_args(Consent):
        if each == answer:
            return each  # type: ignore[no-any-return]
    raise FakeError(f"consent is {answer!r:.40}; use {', '.join(get_args(Consent))}")


def parse_version(text: str) -> tuple[int, int]:
    """Return (major, minor) of an iOS version such as ``17.2``."""
    major, _, minor = text.partition(".")
    minor = minor.partition(".")[0] or "0"
    if not (major.isdigit() and minor.isdigit()):
        raise FakeError(f"os_version is {text!r}; give an iOS version such as 18.0")
    return int(major), int(minor)
