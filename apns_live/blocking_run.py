"""A fan-out seen from a synchronous thread: tokens go in and outcomes come out, in batches.

Between the two threads lie two queues, each bounded. They are plain deques, whose ends may be
used from different threads; a thread is woken only when it waits. So the cost of crossing is paid
once a batch, not once a push.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter, deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from .errors import ClientClosed
from .outcome import Outcome, Verdict
from .payload import Message

if TYPE_CHECKING:
    from . import client as _async
    from .portal import Portal

TOKENS_AHEAD = 1_024
"""Tokens read from the caller's iterable before the engine asks for them."""
OUTCOMES_AHEAD = 4_096
"""Outcomes that wait for the caller; then the engine is no longer read, and pauses in its turn."""
HAND_OVER = 512
"""Outcomes taken at once by the caller's thread."""
PATIENCE = 0.02
"""Seconds that reading tokens may keep waiting outcomes from the caller."""

_IN_MEMORY = (str, bytes, list, tuple, set, frozenset)
_LATE = "deadline"


class Run:
    """A fan-out in progress: iterate it for outcomes, or ``wait()`` for the report.

    Every token that was read from the iterable gets exactly one outcome. Leaving the ``with``
    block early cancels what has not left and drains what has. One thread at a time may use it.
    """

    def __init__(
        self,
        started: Callable[[], tuple[_async.Client, Portal]],
        message: Message,
        tokens: Iterable[str] | AsyncIterable[str],
        options: dict[str, Any],
    ) -> None:
        client, self._portal = started()
        self._iterator: Iterator[str] | None = None
        source: Iterable[str] | AsyncIterable[str] = tokens
        if isinstance(tokens, Iterable) and not isinstance(tokens, _IN_MEMORY):
            # Anything may happen in a generator or a cursor, so it stays in the caller's thread.
            self._iterator = iter(tokens)
            source = self._given()
        self._tokens: deque[str] = deque()
        self._outcomes: deque[Outcome] = deque()
        self._ready: deque[Outcome] = deque()
        self._exhausted = self._iterator is None
        self._condition = threading.Condition()
        self._caller_waits = False
        self._engine_waits = False
        self._started = False
        self._done = False
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._more_tokens = asyncio.Event()
        self._more_room = asyncio.Event()
        self._stop = asyncio.Event()
        self._late = 0

        async def make() -> _async.Run:
            return client.fan_out(message, source, **options)

        # Made now, so that a wrong message or option is refused in the caller's own line.
        self._run = self._portal.call(make)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Run:
        return self

    def __next__(self) -> Outcome:
        if self._ready:
            return self._ready.popleft()
        self._fill()
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def wait(self) -> _async.Report:
        """Send to all tokens, drop the outcomes that nobody took, and return the report."""
        for _ in self:
            pass
        return self.report

    @property
    def report(self) -> _async.Report:
        """The report so far: counts, latencies, first drops."""
        report = self._run.report
        if self._late:
            verdicts = Counter(report.verdicts)
            verdicts[Verdict.NOT_SENT] += self._late
            reasons = Counter(report.reasons)
            reasons[_LATE] += self._late
            report = replace(
                report,
                read=report.read + self._late,
                settled=report.settled + self._late,
                verdicts=MappingProxyType(dict(verdicts)),
                reasons=MappingProxyType(dict(reasons)),
            )
        return report

    def close(self) -> None:
        """Cancel what has not left, and drain what has. May be repeated."""
        if self._started and not self._done and self._portal.process == os.getpid():
            self._portal.call(self._end)
        self._done = True

    # The caller's thread.

    def _fill(self) -> None:
        if not self._started:
            self._started = True
            self._portal.call(self._begin)
        while True:
            if self._portal.process != os.getpid():
                raise ClientClosed("this fan-out belongs to the parent process")
            if not self._done:
                self._read_tokens()
            batch = min(len(self._outcomes), HAND_OVER)
            if batch:
                self._ready.extend(self._outcomes.popleft() for _ in range(batch))
                if len(self._outcomes) < OUTCOMES_AHEAD // 2 and not self._more_room.is_set():
                    self._portal.loop.call_soon_threadsafe(self._more_room.set)
                return
            if self._done:
                self._finish()
                return
            with self._condition:
                # First say that we wait, then look: the engine first changes something, then
                # looks whether anyone waits.
                self._caller_waits = True
                # With a timeout, so that a dead event loop cannot hold a thread forever.
                if not (self._outcomes or self._done or self._tokens_wanted()):
                    self._condition.wait(1.0)
                self._caller_waits = False
            if self._portal.loop.is_closed() and not self._done:
                raise ClientClosed("the event loop ended during a fan-out")

    def _tokens_wanted(self) -> bool:
        return not self._exhausted and len(self._tokens) < TOKENS_AHEAD // 2

    def _read_tokens(self) -> None:
        if self._iterator is None or not self._tokens_wanted():
            return
        until = perf_counter() + PATIENCE
        while len(self._tokens) < TOKENS_AHEAD and not self._done:
            try:
                token = next(self._iterator)
            except StopIteration:
                self._exhausted = True
                break
            self._tokens.append(token)
            if self._engine_waits:
                self._wake_engine()
            if self._outcomes and perf_counter() > until:
                break
        if self._exhausted:
            self._wake_engine()

    def _wake_engine(self) -> None:
        self._engine_waits = False
        self._portal.loop.call_soon_threadsafe(self._more_tokens.set)

    def _finish(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        # Read from the caller's iterable, but the engine had ended before it asked for them.
        while self._tokens:
            self._ready.append(
                Outcome(
                    token=self._tokens.popleft(),
                    verdict=Verdict.NOT_SENT,
                    reason=_LATE,
                    detail="the deadline passed before this token's turn",
                )
            )
            self._late += 1

    # The event loop's thread.

    async def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._pump())

    async def _end(self) -> None:
        self._stop.set()
        self._more_room.set()
        if self._task is not None:
            await self._task

    async def _pump(self) -> None:
        try:
            async with self._run as run:
                reader = asyncio.ensure_future(self._take_outcomes(run))
                stopped = asyncio.ensure_future(self._stop.wait())
                try:
                    await asyncio.wait((reader, stopped), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    stopped.cancel()
                    if not reader.done():
                        reader.cancel()
                        await asyncio.wait((reader,))
                if not reader.cancelled():
                    reader.result()
        except BaseException as error:
            # Raised again in the caller's thread; this task has nobody else to tell.
            self._error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self._done = True
            with self._condition:
                self._condition.notify_all()

    async def _take_outcomes(self, run: AsyncIterable[Outcome]) -> None:
        outcomes = self._outcomes
        async for outcome in run:
            outcomes.append(outcome)
            if self._caller_waits:
                self._wake_caller()
            if len(outcomes) >= OUTCOMES_AHEAD:
                self._more_room.clear()
                if len(outcomes) >= OUTCOMES_AHEAD:
                    await self._more_room.wait()

    async def _given(self) -> AsyncIterator[str]:
        tokens = self._tokens
        while True:
            while tokens:
                yield tokens.popleft()
                if self._caller_waits and self._tokens_wanted():
                    self._wake_caller()
            if self._exhausted and not tokens:
                return
            self._more_tokens.clear()
            self._engine_waits = True
            if self._caller_waits:
                self._wake_caller()
            if not tokens and not self._exhausted:
                await self._more_tokens.wait()
            self._engine_waits = False

    def _wake_caller(self) -> None:
        with self._condition:
            self._caller_waits = False
            self._condition.notify_all()
