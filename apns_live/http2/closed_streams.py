"""Handles frames on closed streams (RFC 9113, section 5.1)."""

from __future__ import annotations

import enum

_REMEMBERED = 10_000


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
