"""Simulates how a day's updates use a phone's budget.

It uses the real lane, timestamps and budget. The clock, APNs' answers and the phone are simulated. The
simulated phone has an hourly budget by the clock (or rolling), whose size the sender does not know.
When the budget is spent, no push is shown at once, although APNs answers 200. The phone shows pushes of
priority 5 in bursts, as Apple describes it; Apple does not say how often.
"""

import csv
import io
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ..delivery.budget import HOUR, Budget, check_budget, check_urgency
from ..delivery.lane import Lane
from ..delivery.state import State
from ..errors import InvalidInput, InvalidSetting
from ..misfits import misfit
from ..outcome import Outcome, Verdict
from ..payload import Alert, End, Update, encode
from ..testing.phones.settings import Budget as PhoneBudget

EPOCH = 1_800_000_000.0
BURSTS = 30.0
"""Seconds after which a phone shows pushes of priority 5, together."""
ROUND_TRIP = 0.1
"""Seconds until APNs answers a push."""


class Planned(msgspec.Struct, frozen=True):
    """One update that a backend would submit, ``at`` seconds from the start."""

    at: Annotated[float, msgspec.Meta(ge=0, lt=366 * 24 * HOUR)]
    urgency: Literal["", "urgent", "normal", "quiet"] = ""
    alert: bool = False
    end: bool = False


class Sent(msgspec.Struct, frozen=True):
    """One sent push. Times are seconds from the start; ``shown_at`` None means never shown.

    ``submitted`` is its index in the plan. ``throttled``: the phone's budget was spent, so that it was
    not shown at once.
    """

    at: float
    submitted: int
    priority: int
    kind: str
    demoted: bool
    over_budget: bool
    shown_at: float | None
    throttled: bool


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a simulation. ``ages`` are the ages of the shown state, sampled every second.

    ``left`` is the rest of the phone's budget by minute, with one entry for each change.
    """

    budget: dict[str, Any]
    phone: dict[str, Any]
    updates: int
    superseded: int
    sent: tuple[Sent, ...]
    alerts: int
    alerts_shown_at_once: int
    exhausted: bool
    median_age: float
    worst_age: float
    ended: bool
    left: list[tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """Return plain values, without ``left``."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        del values["left"]
        for priority in (10, 5):
            values[f"sent_at_{priority}"] = sum(push.priority == priority for push in self.sent)
        for name in ("demoted", "over_budget", "throttled"):
            values[name] = sum(getattr(push, name) for push in self.sent)
        return values


class _Phone:
    """A phone with the fake's budgets, whose clock hour began ``offset`` seconds before the start."""

    def __init__(self, capacity: int, law: Literal["clock hour", "rolling"], offset: float) -> None:
        self.offset = offset
        self.budget = PhoneBudget(capacity, HOUR, law)
        self.left = [(0.0, float(capacity))]

    def shows(self, at: float, priority: int) -> tuple[float | None, bool]:
        """Return when it shows an arriving push, and whether the push was throttled."""
        if priority != 10:
            return (at // BURSTS + 1) * BURSTS, False
        now = at + self.offset
        refill = self.budget.refills_at(self.left[-1][0] * 60 + self.offset)
        if refill is not None and refill <= now:
            self.left.append(((refill - self.offset) / 60, float(self.budget.remaining(refill))))
        shown = self.budget.spend(now)
        self.left.append((at / 60, float(self.budget.remaining(now))))
        return (at, False) if shown else (None, True)


def simulate(
    plan: Sequence[Planned],
    *,
    budget: Budget | str = "default",
    minimum_interval: float = 0.0,
    capacity: int = 15,
    law: Literal["clock hour", "rolling"] = "clock hour",
    hour_offset: float = 0.0,
) -> Simulation:
    """Simulate a plan on a phone with a budget of ``capacity`` an hour that the engine does not know.

    ``hour_offset`` are the seconds of the phone's hour that have passed at the start. Raises InvalidInput
    for an impossible plan, InvalidSetting for impossible settings.
    """
    allowance = check_budget(budget)
    if capacity < 1 or law not in ("clock hour", "rolling"):
        remedy = 'Give capacity >= 1, law "clock hour" or "rolling".'
        raise InvalidSetting("capacity and law must be possible", "phone", remedy)
    lane = Lane("simulated")
    phone = _Phone(capacity, law, hour_offset)
    pending = sorted(enumerate(plan), key=lambda entry: entry[1].at)
    sent: list[Sent] = []
    index: dict[int, int] = {}
    superseded = at = 0
    answered_at: float | None = None
    now = 0.0
    while True:
        times = [pending[at][1].at] if at < len(pending) else []
        if answered_at is not None:
            times.append(answered_at)
        elif lane.waiting is not None:
            times.append(lane.ready_at(EPOCH + now, EPOCH + now, minimum_interval) - EPOCH)
        if not times:
            break
        now = max(now, min(times))
        if answered_at is not None and answered_at <= now:
            answered_at = None
            lane.settle(Outcome(token="", verdict=Verdict.ACCEPTED), EPOCH + now)
        while at < len(pending) and pending[at][1].at <= now:
            number, planned = pending[at]
            at += 1
            state = _state(planned, lane, EPOCH + now)
            superseded += lane.offer(state) is not None
            index[id(state)] = number
        waiting = lane.waiting
        if (
            waiting is not None
            and answered_at is None
            and lane.ready_at(EPOCH + now, EPOCH + now, minimum_interval) <= EPOCH + now + 1e-6
        ):
            encoded = lane.depart(EPOCH + now, EPOCH + now, allowance).encoded
            priority, charge = encoded.priority, waiting.charge
            kind = "end" if waiting.is_end else "alert" if encoded.has_alert else "update"
            shown_at, throttled = phone.shows(now + ROUND_TRIP / 2, priority)
            demoted, over = charge.demoted, charge.over_budget
            push = Sent(now, index[id(waiting)], priority, kind, demoted, over, shown_at, throttled)
            sent.append(push)
            answered_at = now + ROUND_TRIP
    ages = _ages(plan, sent, now)
    alerts = [push for push in sent if push.kind == "alert"]
    return Simulation(
        budget={**msgspec.to_builtins(allowance), "minimum_interval": minimum_interval},
        phone={"capacity": capacity, "law": law, "bursts": BURSTS, "hour_offset": hour_offset},
        updates=len(plan),
        superseded=superseded,
        sent=tuple(sent),
        alerts=sum(planned.alert for planned in plan),
        alerts_shown_at_once=sum(not push.throttled and push.priority == 10 for push in alerts),
        exhausted=any(push.throttled for push in sent),
        left=phone.left,
        median_age=ages[len(ages) // 2] if ages else 0.0,
        worst_age=ages[-1] if ages else 0.0,
        ended=lane.ended,
    )


def _state(planned: Planned, lane: Lane, now: float) -> State:
    alert = Alert(title="alert", body="alert") if planned.alert else None
    message = (End if planned.end else Update)(content_state={"n": 0}, alert=alert)
    stamp = max(int(now), lane.last_timestamp + 1)
    urgency = check_urgency(planned.urgency or None, has_alert=planned.alert)
    return State(encode(message, now=now, timestamp=stamp), urgency=urgency)


def _ages(plan: Sequence[Planned], sent: Sequence[Sent], until: float) -> list[float]:
    """Return the sorted ages of the shown state at every second; 0 while it was the newest."""
    moments = sorted(planned.at for planned in plan)
    shows = sorted(
        (push.shown_at, plan[push.submitted].at) for push in sent if push.shown_at is not None
    )
    newest_shown = list(accumulate((planned_at for _, planned_at in shows), max, initial=-1.0))
    ages: list[float] = []
    for second in range(int(until) + 1):
        submitted = bisect_right(moments, second)
        shown = newest_shown[bisect_right(shows, (second, inf))]
        if submitted:
            ages.append(0.0 if shown >= moments[submitted - 1] else second - max(shown, 0.0))
    return sorted(ages)


def read_plan(path: str | Path) -> list[Planned]:
    """Read a plan from JSON Lines or CSV with ``at`` (seconds) and, where given, ``urgency``, ``alert``, ``end``.

    Raises InvalidInput with the row that cannot be read.
    """
    text = Path(path).read_text(encoding="utf-8")
    is_json = text.lstrip().startswith("{")
    rows: Iterable[Any] = text.splitlines() if is_json else csv.DictReader(io.StringIO(text))
    plan = []
    for number, row in enumerate(rows, 1):
        try:
            if isinstance(row, str):
                if row.strip():
                    plan.append(msgspec.json.decode(row, type=Planned, strict=False))
            else:
                given = {
                    key: "true" if said == "yes" else said for key, said in row.items() if said
                }
                plan.append(msgspec.convert(given, Planned, strict=False))
        except msgspec.DecodeError as error:
            remedy = 'Write lines such as {"at": 12.5, "urgency": "normal", "alert": false}.'
            raise InvalidInput(str(misfit(error)), f"updates, row {number}", remedy) from None
    if not plan:
        raise InvalidInput("the file has no updates", "updates", "Give one update a line.")
    return plan


def plot(simulation: Simulation, path: str | Path) -> None:
    """Draw the pushes by priority, and what the phone showed; the name decides PNG or SVG.

    Needs the extra ``plot`` (matplotlib). Raises InvalidSetting without it, or for another suffix.
    """
    target = Path(path)
    if target.suffix.lower() not in (".png", ".svg"):
        raise InvalidSetting(
            f"{target.suffix!r} is not a valid format", "plot", "Name it .png or .svg."
        )
    try:
        from matplotlib.figure import Figure
    except ImportError:
        remedy = 'Install it: pip install "apns-live[plot]".'
        raise InvalidSetting("matplotlib is not installed", "plot", remedy) from None
    figure: Any = Figure(figsize=(11, 6), layout="constrained")
    sends, budget = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2])
    kinds: tuple[tuple[str, str, Callable[[Sent], bool]], ...] = (
        ("priority 5", "#8a94a6", lambda push: push.priority == 5 and not push.demoted),
        ("5, demoted", "#d9a441", lambda push: push.demoted),
        ("priority 10", "#2f6fde", lambda push: push.priority == 10 and not push.over_budget),
        ("10, over budget", "#c23b4b", lambda push: push.over_budget),
    )
    for row, (_, colour, belongs) in enumerate(kinds):
        times = [push.at / 60 for push in simulation.sent if belongs(push)]
        sends.scatter(times, [row] * len(times), s=14, color=colour, marker="|", linewidths=1.2)
        sends.text(1.005, row, f"{len(times)}", transform=sends.get_yaxis_transform(), va="center")
    sends.set_yticks(range(len(kinds)), [label for label, _, _ in kinds])
    sends.set_ylim(-0.6, len(kinds) - 0.4)
    sends.set_title("What was sent", loc="left")
    times = [minute for minute, _ in simulation.left]
    left = [remaining for _, remaining in simulation.left]
    budget.step(times, left, where="post", color="#2f6fde", label="left of the phone's budget")
    lost = [push.at / 60 for push in simulation.sent if push.throttled]
    budget.scatter(lost, [0] * len(lost), color="#c23b4b", s=18, label="not shown: budget spent")
    rang = [p.at / 60 for p in simulation.sent if p.kind == "alert" and not p.throttled]
    budget.scatter(
        rang, [-0.8] * len(rang), color="#2e8b57", marker="^", s=20, label="alert shown at once"
    )
    budget.set_xlabel("minutes")
    budget.set_ylim(-1.6, simulation.phone["capacity"] + 1)
    budget.set_title("What the phone had left, and what it did not show", loc="left")
    budget.legend(loc="upper right", fontsize=8)
    for axes in (sends, budget):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, format=target.suffix[1:].lower(), dpi=120)
