"""Which pages of a notification are under way, and which are done with."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


class Pages:
    """Which pages under way have all of their results in the store, and need no row any more."""

    def __init__(self) -> None:
        self._page_of: dict[int, int] = {}
        self._left: dict[int, int] = {}
        self._closed: deque[tuple[int, int]] = deque()
        self._done: list[int] = []
        self._settled = self._recorded = 0

    def intended(self, page: int, devices: Sequence[int]) -> None:
        """Note that a page is about to leave."""
        if not devices:
            self._done.append(page)
            return
        self._left[page] = len(devices)
        self._page_of.update(dict.fromkeys(devices, page))

    def settled(self, device: int) -> None:
        """Note that a device has its result."""
        self._settled += 1
        page = self._page_of.pop(device, None)
        if page is None:
            return
        self._left[page] -= 1
        if not self._left[page]:
            del self._left[page]
            self._closed.append((self._settled, page))

    def recorded(self, count: int) -> None:
        """Note that so many more results, in the order in which they came, are in the store."""
        self._recorded += count
        while self._closed and self._closed[0][0] <= self._recorded:
            self._done.append(self._closed.popleft()[1])

    def take_done(self) -> list[int]:
        """Return the pages that may be forgotten, once."""
        done, self._done = self._done, []
        return done
