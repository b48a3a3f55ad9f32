"""One message to many tokens: outcomes as they come, a report at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from types import MappingProxyType, TracebackType

from ..errors import ApnsLiveError, ClientClosed, InvalidToken
from ..outcome import Outcome, Verdict
from ..payload import check_token
from ..pool import Push, Sendable
from .attachment import Attachment, Settled
from .drops import DropSink
from .engine import Engine
from .histogram import Histogram
from .report import FIRST_DROPS, Report
from .statistics import ReasonCounts

UNREAD_LIMIT = 10_000
"""Outcomes that nobody has read yet, and pushes in hand: at so many, sending pauses."""

_READ_AHEAD = 2_000
_WATERMARK = UNREAD_LIMIT // 2

Tokens = Iterable[str] | AsyncIterable[str]
DropsTo = Callable[[Outcome], object] | str | PathLike[str]


class Run:
    """A fan-out. Nothing starts before the first outcome is asked for, or `wait()`.

    Use it in ``async with``: leaving the block early gives up what has not left and waits for the
    answers to what has. Every token read gets exactly one outcome.
    """

    def __init__(
        self,
        engine: Engine,
        message: Sendable,
        tokens: Tokens,
        *,
        deadline: float | None,
        dedupe: bool,
        drops_to: DropsTo | None,
        may_start: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._message = message
        self._tokens = tokens
        self._deadline = deadline
        self._seen: set[int] | None = set() if dedupe else None
        self._drops_to = DropSink(drops_to)
        self._may_start = may_start
        self._iterator: Iterator[str] | None = None
        self._ahead: deque[str] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._reader_room: asyncio.Event | None = None
        self._attachment: Attachment | None = None
        self._unread: deque[Outcome] = deque()
        self._keep_outcomes = True
        self._consumer: asyncio.Future[None] | None = None
        self._stopped = False
        self._exhausted = False
        self._source_error: BaseException | None = None
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._read = self._settled = self._accepted = self._duplicates = self._drop_count = 0
        self._answered = 0
        self._verdicts: dict[Verdict, int] = {}
        self._reasons = ReasonCounts()
        self._drops: list[Outcome] = []
        self._round_trips = Histogram()
        self._connections: set[int] = set()

    def __repr__(self) -> str:
        state = "not started" if self._started_at is None else "done" if self._done() else "running"
        return (
            f"<Run {state}: read {self._read}, settled {self._settled}, unread {len(self._unread)}>"
        )

    # The caller's side

    async def __aenter__(self) -> Run:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    async def __aiter__(self) -> AsyncIterator[Outcome]:
        """Yield outcomes as they come, not in the order of the tokens."""
        self._start()
        unread = self._unread
        try:
            while True:
                while unread:
                    yield unread.popleft()
                    if len(unread) == _WATERMARK and self._attachment is not None:
                        self._attachment.wake()
                if self._done():
                    break
                if self._attachment is not None:
                    self._attachment.wake()
                await self._changed()
        finally:
            self._halt()
        self._raise_source_error()

    async def wait(self) -> Report:
        """Send to every token without looking at single outcomes; return the report.

        Raises what the source of tokens raised, after what was read has its outcomes.
        """
        self._keep_outcomes = False
        self._unread.clear()
        self._start()
        try:
            while not self._done():
                await self._changed()
        finally:
            self._halt()
        self._raise_source_error()
        return self.report

    def stop(self) -> None:
        """Read no more tokens and give up what has not left; outcomes go on to come.

        What was read and has not left is NOT_SENT, what has left waits for its answer. Leaving
        the ``async with`` block does the same and throws the outcomes away.
        """
        self._halt()
        if self._attachment is not None:
            self._attachment.cancel_waiting()

    @property
    def report(self) -> Report:
        """What it came to so far."""
        now = self._clock.monotonic()
        begun = now if self._started_at is None else self._started_at
        elapsed = (now if self._ended_at is None else self._ended_at) - begun
        verdicts = dict(self._verdicts)
        if self._accepted:
            verdicts[Verdict.ACCEPTED] = self._accepted
        times = self._round_trips
        return Report(
            read=self._read,
            settled=self._settled,
            duplicates=self._duplicates,
            accepted=self._accepted,
            verdicts=MappingProxyType(verdicts),
            reasons=MappingProxyType(dict(self._reasons.counts)),
            drops=tuple(self._drops),
            drop_count=self._drop_count,
            source_exhausted=self._exhausted,
            deadline_passed=self._out_of_time(),
            elapsed=elapsed,
            rate=self._answered / elapsed if elapsed > 0 else 0.0,
            p50=times.percentile(50),
            p95=times.percentile(95),
            p99=times.percentile(99),
            maximum=times.maximum,
            connections=len(self._connections),
        )

    # Start and stop

    def _start(self) -> None:
        if self._started_at is not None:
            return
        if self._stopped or not self._may_start():
            raise ClientClosed("the client or this run is closed; nothing was sent")
        self._drops_to.open()
        self._started_at = self._clock.monotonic()
        if isinstance(self._tokens, AsyncIterable):
            self._ahead = deque()
            self._reader_room = asyncio.Event()
            self._reader = asyncio.get_running_loop().create_task(
                self._read_ahead(self._tokens), name="apns_live reads tokens"
            )
        else:
            self._iterator = iter(self._tokens)
        self._attachment = self._engine.attach(self, deadline=self._deadline, on_stop=self._halt)

    def _out_of_time(self) -> bool:
        return self._attachment is not None and self._attachment.deadline_passed

    def _halt(self) -> None:
        """Read no more tokens."""
        if self._stopped:
            return
        self._stopped = True
        if self._reader is not None:
            self._reader.cancel()
        if self._attachment is not None:
            self._attachment.detach()
        self._settle_ahead()
        self._tell()

    def _settle_ahead(self) -> None:
        """Read from an async source, and now without a turn: each token gets its outcome."""
        if not self._ahead:
            return
        tokens = list(self._ahead)
        self._ahead.clear()
        self._read += len(tokens)
        for token in self._without_repeats(tokens):
            outcome = Outcome(
                token=token,
                verdict=Verdict.NOT_SENT,
                reason="deadline" if self._out_of_time() else "cancelled",
                priority=self._message.priority,
            )
            self._note(outcome)
            if self._keep_outcomes:
                self._unread.append(outcome)

    async def _stop(self) -> None:
        self._halt()
        attachment = self._attachment
        if attachment is not None:
            attachment.cancel_waiting()
        self._keep_outcomes = False
        self._unread.clear()
        try:
            while not self._done():
                await self._changed()
            if self._reader is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await self._reader
        finally:
            self._end()

    def _end(self) -> None:
        if self._ended_at is None:
            self._ended_at = self._clock.monotonic()
        self._drops_to.close()

    def _done(self) -> bool:
        attachment = self._attachment
        if attachment is None:
            return True
        if attachment.in_hand:
            return False
        finished = self._stopped or self._exhausted or self._source_error is not None
        if finished and not self._ahead:
            self._end()
            return True
        if self._stopped:
            self._end()
            return True
        return False

    def _raise_source_error(self) -> None:
        if self._source_error is not None:
            error, self._source_error = self._source_error, None
            raise error

    async def _changed(self) -> None:
        """Return after the next batch of outcomes, or when the run may be done."""
        if self._consumer is None or self._consumer.done():
            self._consumer = asyncio.get_running_loop().create_future()
        await self._consumer

    def _tell(self) -> None:
        if self._consumer is not None and not self._consumer.done():
            self._consumer.set_result(None)

    # The engine's side

    def take(self, limit: int) -> Sequence[Push]:
        """Read tokens and make pushes of them."""
        attachment = self._attachment
        if self._stopped or self._exhausted or attachment is None:
            return ()
        room = UNREAD_LIMIT - attachment.in_hand - len(self._unread)
        if room <= 0:
            return ()
        tokens = self._next_tokens(min(limit, room))
        message = self._message
        pushes: list[Push] = []
        for token in tokens:
            try:
                pushes.append(Push(check_token(token, message=message.encoded), message))
            except InvalidToken as error:
                self._bad_token(token, error)
        if not pushes:
            if tokens and not self._exhausted:
                return self.take(limit)
            self._tell()
        return pushes

    def _next_tokens(self, limit: int) -> Sequence[str]:
        if self._ahead is not None:
            ahead = self._ahead
            tokens = [ahead.popleft() for _ in range(min(limit, len(ahead)))]
            if self._reader_room is not None and len(ahead) < _READ_AHEAD:
                self._reader_room.set()
            if not ahead and self._reader is not None and self._reader.done():
                self._exhausted = self._source_error is None
            self._read += len(tokens)
            return self._without_repeats(tokens)
        tokens = []
        assert self._iterator is not None  # noqa: S101 - set by _start
        try:
            tokens.extend(islice(self._iterator, limit))
        except Exception as error:  # noqa: BLE001 - raised again in front of the caller
            self._source_error = error
            self._halt_reading()
        else:
            if len(tokens) < limit:
                self._exhausted = True
        self._read += len(tokens)
        return self._without_repeats(tokens)

    def _halt_reading(self) -> None:
        self._stopped = True
        if self._attachment is not None:
            self._attachment.detach()

    def _without_repeats(self, tokens: list[str]) -> list[str]:
        seen = self._seen
        if seen is None:
            return tokens
        fresh: list[str] = []
        for token in tokens:
            # 64 bits of a hash keyed anew in each process: a million tokens collide
            # with a chance of about one in 37 million.
            key = hash(token.lower()) if isinstance(token, str) else hash(repr(token))
            if key in seen:
                self._duplicates += 1
            else:
                seen.add(key)
                fresh.append(token)
        return fresh

    def _bad_token(self, token: object, error: ApnsLiveError) -> None:
        outcome = Outcome(
            token=token if isinstance(token, str) else repr(token)[:100],
            verdict=Verdict.FIX_REQUEST,
            reason="invalid_token",
            priority=self._message.priority,
            detail=str(error),
        )
        self._note(outcome)
        if self._keep_outcomes:
            self._unread.append(outcome)
        self._tell()

    async def _read_ahead(self, tokens: AsyncIterable[str]) -> None:
        ahead, room = self._ahead, self._reader_room
        assert ahead is not None and room is not None  # noqa: S101, PT018 - set by _start
        iterator = aiter(tokens)
        try:
            async for token in iterator:
                ahead.append(token)
                if len(ahead) == 1 and self._attachment is not None:
                    self._attachment.wake()
                while len(ahead) >= _READ_AHEAD:
                    room.clear()
                    await room.wait()
        except Exception as error:  # noqa: BLE001 - raised again in front of the caller
            self._source_error = error
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()
        if not ahead:
            self._exhausted = self._source_error is None
        if self._attachment is not None:
            self._attachment.wake()
        self._tell()

    def settled(self, outcomes: Settled) -> None:
        """Count outcomes and keep them for the caller."""
        self._settled += len(outcomes)
        accepted = 0
        carrier = 0
        times = self._round_trips
        round_trip = 0.0
        same = 0
        ready: list[Outcome] = []
        add = ready.append
        for _, outcome in outcomes:
            add(outcome)
            if outcome.round_trip != round_trip:
                if same:
                    times.add(round_trip, same)
                    same = 0
                round_trip = outcome.round_trip
            if outcome.verdict is _ACCEPTED:
                accepted += 1
                same += 1
            else:
                if outcome.status:
                    same += 1
                self._refused(outcome)
            if outcome.connection_id != carrier:
                carrier = outcome.connection_id
                self._connections.add(carrier)
        if same:
            times.add(round_trip, same)
        self._accepted += accepted
        self._answered += accepted
        if self._keep_outcomes:
            self._unread += ready
        elif self._attachment is not None:
            self._attachment.wake()
        self._tell()

    def _note(self, outcome: Outcome) -> None:
        self._settled += 1
        self._refused(outcome)

    def _refused(self, outcome: Outcome) -> None:
        verdict = outcome.verdict
        self._verdicts[verdict] = self._verdicts.get(verdict, 0) + 1
        self._reasons.add(outcome.reason or str(outcome.status))
        if outcome.status:
            self._answered += 1
        if verdict is Verdict.DROP_TOKEN:
            self._drop_count += 1
            if len(self._drops) < FIRST_DROPS:
                self._drops.append(outcome)
            self._drops_to.write(outcome)


_ACCEPTED = Verdict.ACCEPTED
