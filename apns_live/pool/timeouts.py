"""When answers are due: deadlines kept for ranges of streams, not for each push."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from .push import Push

_STEPS = 64
"""A timeout is kept in steps of a 64th of itself, so that the list of ranges stays short."""


class _Range:
    __slots__ = ("deadline", "first", "last", "opened")

    def __init__(self, opened: float, deadline: float, first: int, last: int) -> None:
        self.opened = opened
        self.deadline = deadline
        self.first = first
        self.last = last


class ResponseTimeouts:
    """The response deadlines of one link's streams.

    Streams start in order, so for each length of timeout the deadlines are ordered too. Ranges
    of stream ids started within one step share the deadline of the last of them: a push times
    out at its timeout or up to a 64th of it later.
    """

    __slots__ = ("_by_timeout",)

    def __init__(self) -> None:
        self._by_timeout: dict[float, deque[_Range]] = {}

    def started(self, now: float, timeout: float, first: int, last: int) -> None:
        """Note that streams ``first`` to ``last`` were started now with ``timeout`` seconds."""
        ranges = self._by_timeout.get(timeout)
        if ranges is None:
            ranges = self._by_timeout[timeout] = deque()
        elif ranges:
            tail = ranges[-1]
            if now - tail.opened <= timeout / _STEPS:
                tail.last = last
                tail.deadline = now + timeout
                return
        ranges.append(_Range(now, now + timeout, first, last))

    def next_deadline(self) -> float | None:
        """Return the earliest deadline, in monotonic seconds."""
        heads = [ranges[0].deadline for ranges in self._by_timeout.values() if ranges]
        return min(heads) if heads else None

    def due(self, now: float, in_flight: Mapping[int, Push]) -> list[Push]:
        """Return the pushes whose answer is overdue, and forget the ranges that have passed."""
        overdue: list[Push] = []
        for timeout in list(self._by_timeout):
            ranges = self._by_timeout[timeout]
            while ranges and ranges[0].deadline <= now:
                passed = ranges.popleft()
                for stream_id in range(passed.first, passed.last + 2, 2):
                    push = in_flight.get(stream_id)
                    # The range may hold streams of other owners, with deadlines of their own.
                    if (
                        push is not None
                        and push.sent_at + timeout <= now
                        and push.owner.response_timeout == timeout
                    ):
                        overdue.append(push)
            if not ranges:
                del self._by_timeout[timeout]
        return overdue
