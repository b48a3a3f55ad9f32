"""A wall clock for irreversible actions: it follows a changed system clock only after a while.

If a machine's clock is a day ahead for a minute, the service must not end every activity. Such a jump
shows as a difference between the monotonic clock and the wall clock.
"""

from __future__ import annotations

import logging

from ...clock import Clock

logger = logging.getLogger("apns_live.activities")

JUMP = 30.0
"""Seconds by which the clocks must part to count as a jump; less is followed at once."""
CONFIRMED = 600.0
"""Seconds for which the wall clock must stay ahead before activities end by its new time."""
TOLD = 900.0
"""Seconds for which a jump stays a warning."""


class SteadyTime:
    """Follows the wall clock, but a jump ahead only after `CONFIRMED` seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._trusted = self._seen = clock.time() - clock.monotonic()
        self._since = 0.0
        self._jump = 0.0
        self._told_until = 0.0

    def milliseconds(self) -> int:
        """Return the time that counts, in milliseconds since 1970."""
        self.look()
        return int((self._clock.monotonic() + self._trusted) * 1000)

    def look(self) -> None:
        """Compare the clocks, and log a jump."""
        now = self._clock.monotonic()
        offset = self._clock.time() - now
        jump = offset - self._seen
        if abs(jump) > JUMP:
            self._jump, self._since, self._told_until = jump, now, now + TOLD
            logger.warning(
                "the clock was set by %+.0f s: times before and after cannot be compared", jump
            )
        self._seen = offset
        if offset - self._trusted <= JUMP or now - self._since >= CONFIRMED:
            self._trusted = offset

    def warning(self) -> str:
        """Return a sentence for a quarter of an hour after a jump, else nothing."""
        if self._clock.monotonic() < self._told_until:
            return f"the clock was set by {self._jump:+.0f} s"
        return ""
