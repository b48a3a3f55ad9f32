"""Detects floods: counts frames without use against useful ones."""

from __future__ import annotations

from apns_live.errors import Http2ConnectionError
from apns_live.http2.constants import ErrorCode

FLOOD_BUDGET = 10_000
"""Frames without use that a peer may send before they outweigh the useful ones."""
_PER_EXCHANGE = 4


class FloodGuard:
    """The account of one connection; ``budget`` frames are on it at the start and at most."""

    def __init__(self, budget: int) -> None:
        self._full = self._left = budget
        self._undrained = 0
        """Replies that the peer made us queue and that nobody has written out."""

    def spend(self, what: str, amount: int = 1) -> None:
        """Count frames without use. Raises Http2ConnectionError when there were too many."""
        self._left -= amount
        if self._left < 0:
            raise _calm(f"too many {what} frames")

    def reply(self, what: str) -> None:
        """Count a frame that makes us answer; bounded even if nobody writes the answers out."""
        self.spend(what)
        self._undrained += 1
        if self._undrained > self._full:
            raise _calm(f"too many {what} frames and none of the answers was read")

    def written(self) -> None:
        """Note that everything queued was written out."""
        self._undrained = 0

    def heard(self) -> None:
        """Note that bytes came."""
        if self._left < self._full:
            self._left += 1

    def earn(self, exchanges: int = 1) -> None:
        """Count whole requests with their answers."""
        self._left = min(self._left + exchanges * _PER_EXCHANGE, self._full)


def _calm(message: str) -> Http2ConnectionError:
    return Http2ConnectionError(message, ErrorCode.ENHANCE_YOUR_CALM)
