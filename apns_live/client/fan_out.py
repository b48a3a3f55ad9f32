"""Sends one message to many tokens: yields outcomes, and returns a report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..clock import Clock
from ..outcome import Outcome, Verdict, alike
from ..pool import Sendable
from .attachment import Acceptances, Attachment, End, Settled
from .drops import DropsTo
from .engine import Engine
from .reading import TokenReader
from .run import UNREAD_LIMIT, BaseRun
from .statistics import Counts, Report, Tally

HELD_LIMIT = 100_000
"""Pushes of one run that wait for a retry (after a 429, say): at this number, reading pauses."""


class Run(BaseRun[Report]):
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
        deadline: float | None,
        drops_to: DropsTo | None,
        may_start: Callable[[], object],
    ) -> None:
        super().__init__(reader, drops_to)
        self._priority = priority
        self._deadline = deadline
        self._may_start = may_start
        self.tally = Tally(clock, self._drops.write)

    @property
    def report(self) -> Report:
        """The report so far."""
        return self.tally.report(self._reader, self.end, self._counted_elsewhere())

    def _counted_elsewhere(self) -> Iterable[Counts]:
        return ()

    def _begin(self) -> None:
        self._may_start()
        self._drops.open()
        self.tally.begin()

    def _tell(self, outcomes: list[Outcome]) -> None:
        """Count outcomes and keep them for the caller."""
        self.tally.add(outcomes)
        self.outbox.put(outcomes)

    def _never_left(self, tokens: list[str]) -> None:
        why, priority = self.end.value, self._priority
        like = Outcome(token="", verdict=Verdict.NOT_SENT, reason=why, priority=priority)
        self._tell(alike(like, token=tokens))

    def _ended(self) -> None:
        self.tally.end()


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
        super()._begin()
        self._attachment = self._engine.attach(
            self,
            deadline=self._deadline,
            on_stop=self._stopped_from_outside,
            checked=self._reader.checked,
            message=self._message,
        )

    def take(self, limit: int) -> list[str]:
        """Return the next tokens; the engine makes pushes of them."""
        attachment = self._attachment
        if self.end is not End.OPEN or attachment is None or attachment.held >= HELD_LIMIT:
            return []
        if len(self.outbox) >= UNREAD_LIMIT:
            return []
        tokens = self._reader.take(limit)
        if self._reader.ended:
            # Later in this turn: only then has the engine taken the pushes below.
            asyncio.get_running_loop().call_soon(self.review)
        return tokens

    def settled(self, outcomes: Settled) -> None:
        """Count outcomes and keep them for the caller."""
        self._tell([outcome for _, outcome in outcomes])
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
