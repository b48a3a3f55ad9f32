"""What one connection did so far: the account that the pool's decision and the statistics read."""

from __future__ import annotations

STEADY_AFTER = 10.0
WORTHWHILE = 100
"""A connection that lasted so many seconds, or brought so many answers, was worth opening."""

_SMOOTHING = 0.2


class LinkRecord:
    """Counts and times of one link; times are monotonic seconds."""

    __slots__ = (
        "accepted",
        "answered",
        "answered_at",
        "best_limit",
        "body_size",
        "fresh",
        "full_since",
        "idle_since",
        "losses",
        "opened_at",
        "refused_last",
        "round_trip",
    )

    def __init__(self, now: float) -> None:
        self.opened_at = now
        self.accepted = 0
        self.answered = 0
        self.answered_at = now
        """When the last answer came; when it was opened before there was any."""
        self.losses = 0
        self.round_trip = 0.0
        self.best_limit = 0
        """The largest number of streams that it ever allowed."""
        self.body_size = 0
        """Bytes of the body that left last: what the next one is guessed to have."""
        self.refused_last = False
        """Whether its latest answer was a 4xx that APNs counts as an error."""
        self.fresh = True
        """Nothing was accepted since it was opened or was idle for long."""
        self.full_since: float | None = None
        self.idle_since: float | None = None

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
