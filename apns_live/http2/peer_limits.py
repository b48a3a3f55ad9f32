"""Bounds what a peer may do: frames without use, and frames on closed streams (RFC 9113, section 5.1)."""

from __future__ import annotations

import enum

from apns_live.errors import Http2ConnectionError
from apns_live.http2.frames import ErrorCode

FLOOD_BUDGET = 10_000
"""Frames without use that a peer may send before they outweigh the useful ones."""
_PER_EXCHANGE = 4
_REMEMBERED = 10_000


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


class Ending(enum.Enum):
    """How a closed stream came to its end, as far as that changes what follows."""

    COMPLETE = "complete"
    """Both sides ended it: another HEADERS or DATA is an error of the connection."""
    OURS = "reset by us, or not taken"
    """The peer may not know yet: whatever comes is ignored."""
    PEERS = "reset by the peer"
    """The peer knows: more is a stream error, answered once."""


class ClosedStreams:
    """Remembers the last 10,000 streams that were reset.

    Streams that ended normally are not remembered: a closed stream that is not in here was
    complete, unless it is older than the oldest reset that had to be forgotten.
    """

    def __init__(self) -> None:
        self._endings: dict[int, Ending] = {}
        self._forgotten_up_to = 0

    def __len__(self) -> int:
        return len(self._endings)

    def remember(self, stream_id: int, ending: Ending) -> None:
        """Note a reset."""
        self._endings[stream_id] = ending
        if len(self._endings) > _REMEMBERED:
            oldest = next(iter(self._endings))
            del self._endings[oldest]
            self._forgotten_up_to = max(self._forgotten_up_to, oldest)

    def ending(self, stream_id: int) -> Ending:
        """Return how a closed stream ended; in doubt, that we reset it."""
        known = self._endings.get(stream_id)
        if known is not None:
            return known
        return Ending.OURS if stream_id <= self._forgotten_up_to else Ending.COMPLETE
