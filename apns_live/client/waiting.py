"""Accepted pushes that are not in flight: ready to be sent, or waiting for a retry.

A push that is settled meanwhile (cancelled, timed out) stays in its queue and is skipped because of its
state. The sources bound both queues.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence

from ..pool import Push, PushState

_READY, _HELD = PushState.READY, PushState.HELD


class Waiting:
    """The two places where pushes wait."""

    def __init__(self) -> None:
        self.ready: deque[Push] = deque()
        self._held: list[tuple[float, int, Push]] = []
        self._count = 0

    def __iter__(self) -> Iterator[Push]:
        """Yield every push that waits."""
        for push in self.ready:
            if push.state == _READY:
                yield push
        for _, _, push in self._held:
            if push.state == _HELD:
                yield push

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def add(self, push: Push) -> None:
        """Put a push behind those that are ready."""
        push.state = _READY
        self.ready.append(push)

    def put_in_front(self, pushes: Sequence[Push]) -> None:
        """Put pushes in front of those that are ready, in their order."""
        self.ready.extendleft(reversed(pushes))

    def hold(self, push: Push, until: float) -> None:
        """Keep a push until a monotonic time."""
        push.state = _HELD
        push.owner.held += 1
        self._count += 1
        heapq.heappush(self._held, (until, self._count, push))

    def take(self, limit: int) -> list[Push]:
        """Remove and return up to ``limit`` ready pushes."""
        ready = self.ready
        taken: list[Push] = []
        while ready and len(taken) < limit:
            push = ready.popleft()
            if push.state == _READY:
                taken.append(push)
        return taken

    def first(self) -> Push | None:
        """Return the push that is next to leave."""
        ready = self.ready
        while ready and ready[0].state != _READY:
            ready.popleft()
        return ready[0] if ready else None

    def release(self, now: float) -> None:
        """Make ready what was held until now."""
        held = self._held
        while held and (held[0][0] <= now or held[0][2].state != _HELD):
            _, _, push = heapq.heappop(held)
            if push.state == _HELD:
                push.owner.held -= 1
                self.add(push)

    def settled(self, push: Push) -> None:
        """Note that a push has its outcome, wherever it is."""
        if push.state == _HELD:
            push.owner.held -= 1
        push.state = PushState.SETTLED

    def next_release(self) -> float | None:
        """Return when the next held push becomes ready."""
        return self._held[0][0] if self._held else None

    def clear(self) -> None:
        """Forget everything; what waited has to be settled before."""
        self.ready.clear()
        self._held.clear()
