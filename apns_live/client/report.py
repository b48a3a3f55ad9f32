"""What a fan-out came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..outcome import Outcome, Verdict

FIRST_DROPS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A fan-out so far, or at its end. Times are seconds."""

    read: int
    """Tokens read from the source. Each gets exactly one outcome, repeats that were dropped none."""
    settled: int
    duplicates: int
    """Repeated tokens that ``dedupe=True`` left out."""
    accepted: int
    verdicts: Mapping[Verdict, int]
    reasons: Mapping[str, int]
    """Counts by reason, without acceptances."""
    drops: tuple[Outcome, ...]
    """The first 1,000 outcomes with DROP_TOKEN."""
    drop_count: int
    source_exhausted: bool
    """Whether the source of tokens was read to its end."""
    deadline_passed: bool
    elapsed: float
    rate: float
    """Outcomes with an answer from APNs per second."""
    p50: float
    """Round trip of half the answers at most; as the others, exact to about 5 percent."""
    p95: float
    p99: float
    maximum: float
    connections: int
    """Connections that carried at least one of the pushes."""

    def __str__(self) -> str:
        refused = ", ".join(f"{reason} {count}" for reason, count in self.reasons.items())
        return (
            f"{self.settled} of {self.read} settled, {self.accepted} accepted"
            f"{' (' + refused + ')' if refused else ''}; "
            f"p50 {self.p50 * 1000:.1f} ms, p99 {self.p99 * 1000:.1f} ms, {self.rate:.0f}/s"
        )
