"""Counts of a delivery and of a live activity, and frozen snapshots of them for logs and dashboards."""

from dataclasses import dataclass

from ..outcome import Outcome, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStatistics:
    """Counts since the delivery was opened, and the work that waits now."""

    lanes: int
    """Activity tokens that have a lane, including idle ones."""
    lanes_waiting: int
    """States of lanes that wait for a connection or a commit."""
    lanes_held: int
    """Lanes that wait for a time: an interval, a timestamp, a throttled token."""
    activities: int
    activity_tokens: int
    tokens_behind: int
    """Tokens of live activities that do not have the newest version."""
    runs: int
    wakeups: int
    """Devices whose activity token has not arrived."""
    in_flight: int
    submitted: int
    """States accepted by lanes and live activities."""
    outcomes: dict[Verdict, int]
    """Answers of APNs to pushes of lanes, live activities and runs, before retries."""
    decided: dict[Verdict, int]
    """Outcomes of submitted states (lanes)."""
    demoted: int
    """States sent at priority 5 to save a budget."""
    over_budget: int
    """States sent at priority 10 although the budget was spent."""
    held_back: int
    """States that had to wait for their time."""
    journal_commits: int
    journal_records: int
    budget: str
    budget_verified: bool
    """False for the presets: Apple does not publish the figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityReport:
    """The state of a live activity. Counts are pushes over its whole life unless noted."""

    activity: str
    version: int
    """The newest version published; 0 before the first."""
    tokens: int
    behind: int
    """Tokens for which APNs has not accepted the newest version."""
    counts: dict[Verdict, int]
    problems: tuple[Outcome, ...]
    """The first 1,000 outcomes that ended a token or a version for it (drops, refusals, expiries)."""
    demoted: int
    """Versions sent at priority 5 to save the budget."""
    over_budget: int
    """Versions sent at priority 10 although the budget was spent."""
    held: bool
    """Whether a newer state waits for its time."""
    ended: bool
    stopped: str
    """Why the fan-out was stopped; empty while it runs."""
