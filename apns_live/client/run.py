"""Every fan-out from the caller's side: start, iterate, wait, stop. Rules: docs/fan-out.md.

A run is `NEW`, then `READING`, then `LANDING` (no more is read or sent; pushes in flight get their
answers), then `OVER`. A subclass of `Run` does the sending: `EngineRun` from this process, others
from worker processes or with a journal.
"""

import asyncio
import enum
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Self

from ..clock import Clock
from ..errors import ClientClosed
from ..outcome import Outcome, Verdict, alike
from ..pool import Sendable
from .attachment import Acceptances, Alike, Attachment, End, Settled
from .edge import DropSink, DropsTo
from .engine import Engine
from .reading import TokenReader
from .statistics import Report, Tally

UNREAD_LIMIT = 10_000
"""Unread outcomes at which sending pauses. Outcomes of pushes in flight are still added."""
WATERMARK = UNREAD_LIMIT // 2
"""Unread outcomes at which a paused run continues."""
HELD_LIMIT = 100_000
"""Pushes of one run that wait for a retry (after a 429, say): at this number, reading pauses."""


class Life(enum.Enum):
    """The state of a run."""

    NEW = "not started"
    READING = "running"
    LANDING = "landing"
    OVER = "done"


class Outbox:
    """The queue of outcomes from the sender to the caller."""

    def __init__(self) -> None:
        self.unread: deque[Outcome] = deque()
        self._packed: deque[tuple[int, Callable[[], list[Outcome]]]] = deque()
        self._packed_count = 0
        self.kept = True
        """Whether the caller reads outcomes; `wait()` does not."""
        self._changed = asyncio.Event()

    def put(self, outcomes: Iterable[Outcome]) -> None:
        """Keep outcomes for the caller."""
        if self.kept:
            self.unread.extend(outcomes)
        self.tell()

    def __len__(self) -> int:
        return len(self.unread) + self._packed_count

    def put_accepted(self, batch: Acceptances) -> None:
        """Keep acceptances for the caller. A worker process overrides this to pack them."""
        self.put_packed(len(batch.tokens), batch.outcomes)

    def put_packed(self, count: int, unpack: Callable[[], list[Outcome]]) -> None:
        """Keep ``count`` outcomes that ``unpack`` creates when the caller reads them."""
        if self.kept:
            self._packed.append((count, unpack))
            self._packed_count += count
        self.tell()

    def unpack(self) -> bool:
        """Create the next packed outcomes; return whether there were any."""
        if not self._packed:
            return False
        count, unpack = self._packed.popleft()
        self._packed_count -= count
        self.unread.extend(unpack())
        return True

    def discard(self) -> None:
        """Drop unread outcomes, and all later ones."""
        self.kept = False
        self.unread.clear()
        self._packed.clear()
        self._packed_count = 0

    def tell(self) -> None:
        """Wake the caller, because something changed."""
        self._changed.set()

    async def changed(self) -> None:
        """Return after the next `tell`."""
        self._changed.clear()
        await self._changed.wait()


class Run:
    """A fan-out. It starts when you iterate over its outcomes, or call `wait()`.

    Use it in ``async with``. When you leave the block, nothing more is sent, and the block waits for
    the answers to pushes in flight. Every token read gets one outcome. Rules: docs/fan-out.md.
    """

    def __init__(
        self,
        clock: Clock,
        reader: TokenReader,
        *,
        priority: int,
        drops_to: DropsTo | None,
        may_start: Callable[[], object],
        deadline: float | None = None,
    ) -> None:
        self._reader = reader
        self._priority = priority
        self._deadline = deadline
        self._may_start = may_start
        self._drops = DropSink(drops_to)
        self.tally = Tally(clock, self._drops.write)
        self.outbox = Outbox()
        self.life = Life.NEW
        self.end = End.OPEN
        """Why no more tokens are read; `End.OPEN` while tokens are read."""
        self._failure: BaseException | None = None

    # Called by the caller.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[Outcome]:
        """Yield outcomes as they come, not in the order of the tokens.

        Raises an error of the token source, after the outcomes of the tokens read before.
        """
        self.start()
        outbox = self.outbox
        unread = outbox.unread
        try:
            while True:
                while unread:
                    yield unread.popleft()
                    if len(unread) == WATERMARK:
                        self.resume()
                if outbox.unpack():
                    self.resume()
                    continue
                if self.life is Life.OVER:
                    break
                self.resume()
                await outbox.changed()
        finally:
            self.stop()
        await self.finish()

    async def wait(self) -> Report:
        """Send to every token, discard the outcomes, and return the report.

        Raises an error of the token source, after the tokens read before have their outcomes.
        """
        self.start()
        self.outbox.discard()
        self.resume()
        try:
            while self.life is not Life.OVER:
                await self.outbox.changed()
        finally:
            self.stop()
        await self.finish()
        return self.report

    def stop(self) -> None:
        """Stop reading and sending; the iteration continues to the last outcome.

        Tokens that were read and not sent are NOT_SENT; pushes in flight wait for their answer.
        Leaving an iteration early or cancelling `wait` does this.
        """
        if self.is_active():
            self.give_up(End.STOPPED)

    async def aclose(self) -> None:
        """Stop, wait for the answers to pushes in flight, and discard unread outcomes."""
        self.stop()
        self.outbox.discard()
        if self.life is Life.NEW and self.end is End.OPEN:
            self.end = End.STOPPED
        try:
            while self.is_active():
                await self.outbox.changed()
        finally:
            await self._release()

    @property
    def report(self) -> Report:
        """The report so far."""
        return self.tally.report(self._reader, self.end)

    def is_active(self) -> bool:
        """Whether it has begun and is not over."""
        return self.life is Life.READING or self.life is Life.LANDING

    # Called by the sender.

    def start(self) -> None:
        """Start the run, once.

        Raises `ClientClosed`, or `InvalidSetting` if the file of drops cannot be made.
        """
        if self.life is Life.NEW:
            if self.end is not End.OPEN:
                raise ClientClosed("this run was closed before it began; nothing was sent")
            self._may_start()
            self._drops.open()
            self.tally.begin()
            self._begin()
            self.life = Life.READING
            self._open_reader()
            self.review()
            self.resume()

    def halt(self, end: End) -> None:
        """Read no more tokens, for the reason ``end``; the first reason counts."""
        if self.end is End.OPEN:
            self.end = end
            if self.life is Life.READING:
                self.life = Life.LANDING
        # Another thread may pass on tokens even after the end.
        self._never_left(self._reader.stop())

    def fail(self, error: BaseException) -> None:
        """Stop, and raise ``error`` to the caller after the last outcome."""
        if self._failure is None:
            self._failure = error
        self.give_up(End.FAILED)

    def give_up(self, end: End) -> None:
        """Read and send nothing more, for the reason ``end``."""
        self.halt(end)
        self._withdraw()
        self.review()

    def review(self) -> None:
        """Check whether the source has ended and every token has its outcome."""
        reader = self._reader
        if self.life is Life.READING and reader.ended:
            self._failure = self._failure or reader.error
            self.halt(End.EXHAUSTED if reader.exhausted else End.SOURCE_FAILED)
        if self.life is Life.LANDING and not self._under_way():
            self.life = Life.OVER
            self._ended()
            self._drops.close()
        if self.life is Life.OVER:
            self.outbox.tell()

    async def finish(self) -> None:
        """Release resources; raise the error that ended the run."""
        await self._release()
        if self._failure is not None:
            error, self._failure = self._failure, None
            raise error

    def tell(self, outcomes: list[Outcome]) -> None:
        """Count outcomes and keep them for the caller."""
        self.tally.add(outcomes)
        self.outbox.put(outcomes)

    def _never_left(self, tokens: list[str]) -> None:
        """Give these tokens, which were never taken from the reader, their outcome."""
        why, priority = self.end.value, self._priority
        like = Outcome(token="", verdict=Verdict.NOT_SENT, reason=why, priority=priority)
        self.tell(alike(like, token=tokens))

    def _open_reader(self) -> None:
        self._reader.open(self.resume)

    def _ended(self) -> None:
        """Note that every token has its outcome."""
        self.tally.end()

    async def _release(self) -> None:
        """Release the run's resources, when its caller leaves."""
        await self._reader.aclose()

    # Implemented by the subclass.

    def _begin(self) -> None:
        """Start sending, on the running event loop."""
        raise NotImplementedError

    def resume(self) -> None:
        """Read tokens again, because there are more or there is room for more."""
        raise NotImplementedError

    def _withdraw(self) -> None:
        """Give NOT_SENT to every token that was read and not sent."""
        raise NotImplementedError

    def _under_way(self) -> bool:
        """Whether a token that was read has no outcome yet."""
        raise NotImplementedError


class EngineRun(Run):
    """A fan-out that sends from this process. Its methods are called by the engine."""

    def __init__(
        self, engine: Engine, message: Sendable, reader: TokenReader, **options: Any
    ) -> None:
        super().__init__(engine.clock, reader, **options)
        self._engine = engine
        self._message = message
        self._attachment: Attachment | None = None

    def __repr__(self) -> str:
        return (
            f"<Run {self.life.value}: read {self._reader.read}, settled {self.tally.counts.settled}, "
            f"unread {len(self.outbox)}>"
        )

    def _begin(self) -> None:
        self._attachment = self._engine.attach(
            self,
            deadline=self._deadline,
            on_stop=self._stopped_from_outside,
            checked=self._reader.checked,
            alike=True,
        )

    def take(self, limit: int) -> Alike | None:
        """Return the next pushes."""
        attachment = self._attachment
        if self.end is not End.OPEN or attachment is None or attachment.held >= HELD_LIMIT:
            return None
        if len(self.outbox) >= UNREAD_LIMIT:
            return None
        tokens = self._reader.take(limit)
        if self._reader.ended:
            # Later in this turn: only then has the engine taken the pushes below.
            asyncio.get_running_loop().call_soon(self.review)
        return Alike(self._message, tokens) if tokens else None

    def settled(self, outcomes: Settled) -> None:
        """Count outcomes and keep them for the caller."""
        self.tell([outcome for _, outcome in outcomes])
        self.resume()
        self.review()

    def accepted(self, batches: Sequence[Acceptances]) -> None:
        """Count acceptances and keep them for the caller."""
        for batch in batches:
            like = batch.like
            self.tally.accepted(len(batch.tokens), like.round_trip, like.connection_id)
            self.outbox.put_accepted(batch)
        self.resume()
        self.review()

    def _stopped_from_outside(self) -> None:
        """Stop, because the deadline passed or the client is closing."""
        assert self._attachment is not None  # noqa: S101 - who is attached has begun
        self.halt(self._attachment.end)
        asyncio.get_running_loop().call_soon(self.review)

    def resume(self) -> None:
        """Request tokens again, because there are more or there is room for more."""
        if self._attachment is not None:
            self._attachment.wake()

    def halt(self, end: End) -> None:
        """Stop reading tokens for the reason ``end``; the first reason counts."""
        super().halt(end)
        if self._attachment is not None:
            self._attachment.detach(end)

    def _withdraw(self) -> None:
        if self._attachment is not None:
            self._attachment.cancel_waiting()

    def _under_way(self) -> bool:
        return self._attachment is not None and self._attachment.in_hand > 0
