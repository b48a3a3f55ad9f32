"""A wall clock that does not follow a jump at once.

If a machine's clock is a day ahead for a minute, the service must not end every activity.
"""

import logging

from ...clock import Clock

logger = logging.getLogger("apns_live.activities")

JUMP = 30.0
"""Seconds of difference between the clocks that count as a jump; a smaller one is followed at once."""
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
        """Return the steadied time in milliseconds since 1970."""
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
        """Return a warning for a quarter of an hour after a jump, else an empty text."""
        if self._clock.monotonic() < self._told_until:
            return f"the clock was set by {self._jump:+.0f} s"
        return ""
