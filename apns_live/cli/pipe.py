"""Tokens from a pipe: read on a thread, because a silent producer must not hold up the answers."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator

AHEAD = 1_000
"""Tokens that are read before they are asked for."""


class PipeTokens:
    """An async iterator over a blocking one. What it has not given yet, `rest` gives."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._ready: deque[str] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wanted = asyncio.Event()
        # A daemon: nothing can wake it from a read that never returns.
        self._thread = threading.Thread(target=self._read, name="reads tokens", daemon=True)

    async def __aiter__(self) -> AsyncIterator[str]:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        try:
            while True:
                self._wanted.clear()
                while self._ready:
                    token = self._ready.popleft()
                    if len(self._ready) == AHEAD // 2:
                        self._make_room()
                    yield token
                self._make_room()
                if self._ready:
                    continue
                if self._ended:
                    break
                await self._wanted.wait()
        finally:
            self._loop = None
        if self._error is not None:
            raise self._error

    def rest(self) -> Iterator[str]:
        """Give what is left, to the end of the pipe; blocks the calling thread."""
        if not self._thread.is_alive() and not self._ended:
            self._thread.start()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._ended)
                if not self._ready:
                    break
                token = self._ready.popleft()
                self._changed.notify_all()
            yield token
        if self._error is not None:
            raise self._error

    def _make_room(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            for token in self._source:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._ready) < AHEAD)
                    self._ready.append(token)
                    self._changed.notify_all()
                self._wake()
        except BaseException as error:  # noqa: BLE001 - raised again where tokens are taken
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._wanted.set)
            except RuntimeError:
                # The loop has ended in between; whoever calls rest() sees the condition.
                return
