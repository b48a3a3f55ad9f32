"""Reads tokens from a pipe on a thread, so that a slow producer does not delay the answers."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncIterator, Iterator

AHEAD = 1_000
"""Tokens that are read before they are asked for."""


class PipeTokens:
    """An async iterator over a blocking one. What it has not given yet, `rest` gives."""

    def __init__(self, source: Iterator[str]) -> None:
        self._source = source
        self._ready: queue.Queue[str | None] = queue.Queue(AHEAD)
        """None is the end."""
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
            while not self._ended:
                self._wanted.clear()
                while not self._ready.empty():
                    if (token := self._take()) is not None:
                        yield token
                if not self._ended:
                    await self._wanted.wait()
        finally:
            self._loop = None

    def rest(self) -> Iterator[str]:
        """Give what is left, to the end of the pipe; blocks the calling thread."""
        if self._thread.ident is None:
            self._thread.start()
        while not self._ended and (token := self._take()) is not None:
            yield token

    def _take(self) -> str | None:
        """Return the next token, None at the end. Raises what the source raised."""
        token = self._ready.get()
        if token is None:
            self._ended = True
            if self._error is not None:
                raise self._error
        return token

    def _read(self) -> None:
        try:
            for token in self._source:
                self._ready.put(token)
                self._wake()
        except BaseException as error:  # noqa: BLE001 - raised again where tokens are taken
            self._error = error
        self._ready.put(None)
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            # The loop may have ended in between; whoever calls rest() waits for the queue.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wanted.set)
