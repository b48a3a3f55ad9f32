"""Reads the caller's tokens, from any kind of source.

Reading never blocks: `TokenReader.take` returns the tokens that are available, and ``wake`` is called
when there are more. If the source raises, reading ends; tokens read before still get outcomes. Rules of
all fan-outs: docs/fan-out.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from time import perf_counter
from typing import Any

from ..errors import InvalidInput, SourceCancelled
from ..guard import RAISED, logger
from ..refusals import refused

Tokens = Iterable[str] | AsyncIterable[str]

READ_AHEAD = 2_000
"""Tokens that are read ahead from an async source."""
SLOW = 0.01
"""Seconds of reading after which the event loop gets a turn, so that tokens can be sent."""
_MOST_AT_ONCE = 32
"""Tokens between two checks of the time."""
_TAKEN_AT_MOST = 10_000
IN_MEMORY: tuple[type, ...] = (list, tuple, set, frozenset, dict)


def read_tokens(tokens: object, *, dedupe: bool = False) -> TokenReader:
    """Return the reader for an iterable or an async iterable of tokens.

    ``dedupe`` leaves out repeated tokens. Raises `InvalidInput` for any other object.
    """
    if isinstance(tokens, TokenReader):
        return tokens
    if not isinstance(tokens, (str, bytes, bytearray)):
        if isinstance(tokens, AsyncIterable):
            return AsyncReader(tokens, dedupe=dedupe)
        if isinstance(tokens, Iterable):
            return _PlainReader(tokens, dedupe=dedupe)
    raise refused(InvalidInput, "tokens_kind", "tokens", kind=type(tokens).__name__)


class TokenReader:
    """Reads a source once. Created by `read_tokens`; subclasses implement the kinds of sources.

    ``read`` counts tokens including repeats, ``duplicates`` the repeats that ``dedupe`` left out.
    """

    checked = False
    """Whether its tokens were already checked."""

    def __init__(self, *, dedupe: bool = False) -> None:
        self.read = 0
        self.duplicates = 0
        self.exhausted = False
        """The source was read to its end."""
        self.error: BaseException | None = None
        """The source's error; it ends the reading."""
        self.stopped = False
        self._seen: set[int] | None = set() if dedupe else None
        self.wake: Callable[[], object] = lambda: None
        """Called when `take` should be tried again."""

    @property
    def ended(self) -> bool:
        """Whether `take` will return nothing more."""
        return self.stopped or self.exhausted or self.error is not None

    def open(self, wake: Callable[[], object]) -> None:
        """Begin, on the running event loop; ``wake`` is called when `take` should be tried again."""
        self.wake = wake

    def take(self, limit: int) -> list[str]:
        """Return at most ``limit`` available tokens; none at the end, or if none are available."""
        looked_at = 0
        while not self.ended and looked_at < _TAKEN_AT_MOST:
            tokens = self._next(limit)
            if not tokens:
                return tokens
            looked_at += len(tokens)
            fresh = self._count(tokens)
            if fresh:
                return fresh
        if looked_at:
            asyncio.get_running_loop().call_soon(self.wake)
        return []

    def stop(self) -> list[str]:
        """Stop reading. Return the tokens that the source yielded and that were not taken."""
        self.stopped = True
        return self._count(self._left())

    async def aclose(self) -> None:
        """Stop, and wait until the source is closed."""
        self.stop()

    def _next(self, limit: int) -> list[str]:
        """Return at most ``limit`` tokens; if none, wait for ``wake``. Set ``exhausted``, ``error``."""
        raise NotImplementedError

    def _left(self) -> list[str]:
        """Return, once, the tokens that were yielded and not taken."""
        return []

    def _count(self, tokens: list[str]) -> list[str]:
        self.read += len(tokens)
        seen = self._seen
        if seen is None:
            return tokens
        fresh: list[str] = []
        for token in tokens:
            # 64-bit hashes, keyed per process: two of a million tokens collide once in 37 million.
            key = hash(token.lower()) if isinstance(token, str) else id(token)
            if key in seen:
                self.duplicates += 1
            else:
                seen.add(key)
                fresh.append(token)
        return fresh


class _PlainReader(TokenReader):
    """Reads an iterable (a list, a generator, a cursor) on the event loop, in short slices."""

    def __init__(self, tokens: Iterable[str], *, dedupe: bool) -> None:
        super().__init__(dedupe=dedupe)
        self._tokens = tokens
        self._iterator: Iterator[str] = iter(())
        self._slice = _TAKEN_AT_MOST if isinstance(tokens, IN_MEMORY) else 1
        self._resting = False

    def open(self, wake: Callable[[], object]) -> None:
        super().open(wake)
        try:
            self._iterator = iter(self._tokens)
        except RAISED as error:
            self.error = shown(error)

    def _next(self, limit: int) -> list[str]:
        tokens: list[str] = []
        if self._resting:
            return tokens
        began = perf_counter()
        while len(tokens) < limit:
            wanted = min(self._slice, limit - len(tokens))
            had = len(tokens)
            try:
                # Items before an error are kept: extend appends one at a time.
                tokens.extend(islice(self._iterator, wanted))
            except RAISED as error:
                self.error = shown(error)
                break
            if len(tokens) - had < wanted:
                self.exhausted = True
                break
            if self._slice > _MOST_AT_ONCE:
                continue
            if perf_counter() - began > SLOW:
                self._slice = max(1, self._slice // 4)
                self._resting = True
                asyncio.get_running_loop().call_soon(self._rested)
                break
            self._slice = min(self._slice * 2, _MOST_AT_ONCE)
        return tokens

    def _rested(self) -> None:
        self._resting = False
        self.wake()


class AheadReader(TokenReader):
    """Items that are read before they are taken; the last one is ``_over``."""

    def __init__(self, *, dedupe: bool = False) -> None:
        super().__init__(dedupe=dedupe)
        self._ahead: deque[Any] = deque()
        self._over = False
        self._failure: BaseException | None = None

    def _next(self, limit: int) -> list[Any]:
        ahead = self._ahead
        items = [ahead.popleft() for _ in range(min(limit, len(ahead)))]
        if self._over and not ahead:
            self._finish()
        return items

    def _left(self) -> list[Any]:
        # Another thread may be about to append one more item; it checks ``stopped`` first.
        return [self._ahead.popleft() for _ in range(len(self._ahead))]

    def _finish(self) -> None:
        """Report the end of the source, once its last token is taken."""
        if not self.stopped:
            self.exhausted = self._failure is None
            self.error = self._failure


class AsyncReader(AheadReader):
    """Reads an async iterable with a task, at most ``ahead`` items ahead.

    ``tokens_of`` returns the tokens of an item that has several.
    """

    def __init__(
        self,
        items: AsyncIterable[Any],
        *,
        dedupe: bool,
        ahead: int = READ_AHEAD,
        tokens_of: Callable[[list[Any]], list[str]] = list,
    ) -> None:
        super().__init__(dedupe=dedupe)
        self._items = items
        self._most_ahead = ahead
        self._tokens_of = tokens_of
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self, wake: Callable[[], object]) -> None:
        """Begin, on the running event loop; see `TokenReader.open`."""
        super().open(wake)
        self._task = asyncio.get_running_loop().create_task(
            self._read(), name="apns_live reads tokens"
        )

    def _next(self, limit: int) -> list[str]:
        items = super()._next(limit)
        if len(self._ahead) < self._most_ahead:
            self._room.set()
        return self._tokens_of(items)

    def _left(self) -> list[str]:
        if self._task is not None:
            self._task.cancel()
        return self._tokens_of(super()._left())

    async def aclose(self) -> None:
        """Stop, and wait until the source is closed."""
        await super().aclose()
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _read(self) -> None:
        ahead = self._ahead
        iterator: AsyncIterator[Any] | None = None
        try:
            iterator = aiter(self._items)
            async for item in iterator:
                if self.stopped:
                    break
                ahead.append(item)
                if len(ahead) == 1:
                    self.wake()
                while len(ahead) >= self._most_ahead and not self.stopped:
                    self._room.clear()
                    await self._room.wait()
        except RAISED as error:
            self._failure = shown(error)
        finally:
            await _close(iterator)
            self._over = True
            if not ahead:
                self._finish()
            self.wake()


async def _close(iterator: object) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        try:
            await close()
        except RAISED:
            logger.exception("the source of tokens raised while it was closed")


def shown(error: BaseException) -> BaseException:
    """Return the error to raise to the caller: a CancelledError would end the caller's task."""
    if not isinstance(error, asyncio.CancelledError):
        return error
    shown = SourceCancelled(
        "the source of tokens raised CancelledError: what it waits for was cancelled. "
        "Tokens read before have their outcomes"
    )
    shown.__cause__ = error
    return shown
