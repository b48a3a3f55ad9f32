"""How the simulated phones behave: every law that Apple does not publish is a setting here.

Defaults are what public reports make most likely; where reports disagree, the docstring says so.
All durations are seconds, all shares are fractions between 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from apns_live.errors import FakeError

HOUR = 3600.0
DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLaw:
    """The hourly budget of priority-10 pushes of one activity.

    Apple does not publish it ("Starting and updating Live Activities with ActivityKit push
    notifications" only says that there is one, and that NSSupportsLiveActivitiesFrequentUpdates
    raises it). 15 an hour circulates among practitioners; 60 with frequent updates is our guess.

    ``kind``: ``rolling`` counts the pushes of the last ``window``; ``clock hour`` starts afresh at
    each full window of the clock; ``bucket`` refills steadily. A capacity may be a range: each
    activity then has its own, drawn from the seed. ``None`` instead of a law switches it off.
    ``exempt_end`` lets an end through when the budget is spent.
    """

    kind: Literal["rolling", "clock hour", "bucket"] = "rolling"
    capacity: int | tuple[int, int] = 15
    frequent_capacity: int | tuple[int, int] = 60
    window: float = HOUR
    exempt_end: bool = False

    def __post_init__(self) -> None:
        for name in ("capacity", "frequent_capacity"):
            value = getattr(self, name)
            low, high = value if isinstance(value, tuple) else (value, value)
            if not 0 <= low <= high:
                raise FakeError(f"budget {name} is {value!r}; give 0 or more, or (lowest, highest)")
        if self.window <= 0:
            raise FakeError(f"budget window is {self.window!r}; give seconds above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBudgetLaw:
    """How many push-to-starts one app may have on one phone in ``window``.

    An Apple engineer on the developer forums: about 10 in a short time, fixed, kept on the device,
    not raised by the frequent updates setting. The refill is quoted as up to 24 hours; another
    report says hourly. Opening the app refills it (reported).
    """

    capacity: int = 10
    window: float = DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class PhoneSettings:
    """The laws of all phones of one fake.

    ``token_delay``: how long an activity token takes after the start, between the two bounds;
    ``token_never``: the share of started activities whose token does not come until the app is
    opened (9 of 14 starts on an idle phone in one report; 0 here, so that tests are not surprised).
    ``rotate_start_token``: the share of uses after which a push-to-start token is replaced.
    ``rotate_activity_token``: seconds after which an activity token is replaced, or None.
    ``after_end``: what an ended activity's token answers. ``8 hours``: 200 until eight hours after
    the start, then 410 ExpiredToken (one report saw this); ``silent``: always 200 (three
    reports); ``410``: at once (one report).
    ``equal_timestamp``: whether a push with the timestamp that is shown already is newer. Apple
    does not say; ``discard`` keeps senders honest.
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
    rotate_start_token: float = 0.0
    rotate_activity_token: float | None = None
    after_end: Literal["8 hours", "silent", "410"] = "8 hours"
    equal_timestamp: Literal["discard", "accept"] = "discard"
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
    frequent_pushes: bool = False
    schemas: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    max_devices: int = 250_000
    max_dead_tokens: int = 250_000

    def __post_init__(self) -> None:
        for name in ("token_never", "rotate_start_token", "asleep", "offline"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise FakeError(f"phone setting {name} is {value!r}; give a share from 0 to 1")
        low, high = self.token_delay
        if not 0 <= low <= high:
            raise FakeError("phone setting token_delay wants (shortest, longest) in seconds")
        for name in ("burst_interval", "offline_cycle", "active_for"):
            if getattr(self, name) <= 0:
                raise FakeError(f"phone setting {name} wants seconds above 0")
        parse_version(self.os_version)


def parse_version(text: str) -> tuple[int, int]:
    """Return (major, minor) of an iOS version such as ``17.2``."""
    major, _, minor = text.partition(".")
    minor = minor.partition(".")[0] or "0"
    if not (major.isdigit() and minor.isdigit()):
        raise FakeError(f"os_version is {text!r}; give an iOS version such as 18.0")
    return int(major), int(minor)
