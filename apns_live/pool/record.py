"""Counters of one connection, for the pool's decisions and the statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STEADY_AFTER = 10.0
WORTHWHILE = 100
"""A connection that lasted so many seconds, or brought so many answers, was worth opening."""

_SMOOTHING = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """One connection as it was at the moment of asking. Times are seconds."""

    connection_id: int
    state: str
    address: str
    open_streams: int
    max_streams: int
    accepted: int
    answered: int
    lost: int
    age: float
    round_trip: float
    stalled_for: float
    """For how long the peer's windows have let nothing leave; it is replaced when an answer is due."""
    provider_token_age: float


@dataclass(slots=True)
class LinkRecord:
    """Counts and times of one link; times are monotonic seconds."""

    opened_at: float
    accepted: int = 0
    answered: int = 0
    answered_at: float = 0.0
    """When the last answer came; when it was opened before there was any."""
    losses: int = 0
    round_trip: float = 0.0
    best_limit: int = 0
    """The largest number of streams that it ever allowed."""
    body_size: int = 0
    """Bytes of the body that left last: what the next one is guessed to have."""
    refused_last: bool = False
    """Whether its latest answer was a 4xx that APNs counts as an error."""
    fresh: bool = True
    """Nothing was accepted since it was opened or was idle for long."""
    full_since: float | None = None
    idle_since: float | None = None

    def __post_init__(self) -> None:
        self.answered_at = self.opened_at

    def answers(self, count: int, accepted: int, round_trip: float, now: float) -> None:
        """Note a batch of answers."""
        self.answered_at = now
        self.answered += count
        self.accepted += accepted
        if self.round_trip:
            round_trip = self.round_trip + _SMOOTHING * (round_trip - self.round_trip)
        self.round_trip = round_trip
        if accepted:
            self.fresh = False
            self.refused_last = False

    def was_worth_opening(self, now: float) -> bool:
        """Tell whether a peer that ended it now did not do so out of hand."""
        return now - self.opened_at >= STEADY_AFTER or self.answered >= WORTHWHILE

    def statistics(self, now: float, **more: Any) -> LinkStatistics:
        """Return a frozen snapshot; ``more`` is what only the connection knows."""
        return LinkStatistics(
            accepted=self.accepted,
            answered=self.answered,
            lost=self.losses,
            age=now - self.opened_at,
            round_trip=self.round_trip,
            **more,
        )
