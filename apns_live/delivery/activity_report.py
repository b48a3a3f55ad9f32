"""Where a live activity stands, as its sender is told."""

from __future__ import annotations

from dataclasses import dataclass

from ..outcome import Outcome, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityReport:
    """Where a live activity stands. Counts are pushes over its whole life unless said otherwise."""

    activity: str
    version: int
    """The newest version published; 0 before the first."""
    tokens: int
    behind: int
    """Tokens that do not have the newest version accepted."""
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
