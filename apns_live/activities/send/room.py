"""Bounds the pushes of fan-outs in flight, to bound memory."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """A number of places; whoever asks first is served first."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, count: int) -> None:
        """Return when there is room for ``count`` more."""
        if not self._waiting and self._free >= count:
            self._free -= count
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(count)
            raise

    def give(self, count: int) -> None:
        """Make room again."""
        self._free += count
        while self._waiting and (
            self._waiting[0][1].cancelled() or self._waiting[0][0] <= self._free
        ):
            wanted, future = self._waiting.popleft()
            if not future.cancelled():
                self._free -= wanted
                future.set_result(None)
