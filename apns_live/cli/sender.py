"""The work of ``apns-live fan-out``: sends to a stream of tokens, and sorts the outcomes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..outcome import Verdict
from ..settings import Settings
from .files import OutcomeFiles
from .pipe import PipeTokens
from .progress import Bar
from .tokens import TokenFile

if TYPE_CHECKING:
    from ..client import Client, Report, Run
    from ..payload import Message

PATIENCE_AFTER_INTERRUPT = 15.0
"""Seconds that an interrupted fan-out waits for the answers to what has left."""
_REDRAW = 500


class Sender:
    """One fan-out of the command line.

    Tokens that were handed over and have no outcome yet are kept, so that an interrupt can
    account for each; the engine holds at most some thousands in hand.
    """

    def __init__(
        self,
        source: TokenFile,
        files: OutcomeFiles,
        *,
        deadline: float | None,
        workers: int,
        shows_progress: bool,
        note: Callable[[str], None],
    ) -> None:
        self._note = note
        self._pipe: PipeTokens | None = None
        self.source = source
        self.files = files
        self.not_read = 0
        """Tokens of the source whose turn never came: deadline, interrupt."""
        self.unanswered = 0
        """Tokens in hand whose outcome was not waited for."""
        self.unknown_without_file = 0
        self.interrupted = False
        self.source_error: InvalidInput | OSError | None = None
        self._deadline = deadline
        self._workers = workers
        self._shows_progress = shows_progress
        self._in_hand: set[str] = set()
        self._client: Client | None = None
        self._closing: asyncio.Future[None] | None = None
        self._run: Run | None = None
        self._last_resort: asyncio.TimerHandle | None = None

    def files_written(self) -> dict[str, tuple[str, int]]:
        """Return path and count of each file that was asked for."""
        files = {"retry": self.files.retry, "drop": self.files.drop, "unknown": self.files.unknown}
        return {
            name: (str(file.path), file.count)
            for name, file in files.items()
            if file is not None and (file.count or name != "unknown")
        }

    async def run(self, settings: Settings, message: Message) -> Report:
        """Send, and write the files. Returns the report."""
        client = self._client = settings.client()
        try:
            with self._signals():
                tokens: Iterator[str] | AsyncIterator[str] = self._tokens()
                if self.source.size is None:
                    self._pipe = PipeTokens(iter(self.source))
                    tokens = self._piped_tokens(self._pipe)
                run = self._run = client.fan_out(
                    message, tokens, deadline=self._deadline, workers=self._workers
                )
                async with run:
                    await self._take(run)
                await (self._closing or client.aclose())
        finally:
            await client.aclose(drain=0.0)
            self._account_for_the_rest()
            self.files.commit()
        return run.report

    def _tokens(self) -> Iterator[str]:
        in_hand = self._in_hand
        try:
            for token in self.source:
                in_hand.add(token)
                yield token
        except (InvalidInput, OSError) as error:
            # What was read before the bad line has outcomes; the rest of the file is untouched.
            self.source_error = error

    async def _piped_tokens(self, pipe: PipeTokens) -> AsyncIterator[str]:
        in_hand = self._in_hand
        try:
            async for token in pipe:
                in_hand.add(token)
                yield token
        except (InvalidInput, OSError) as error:
            self.source_error = error

    async def _take(self, run: Run) -> None:
        in_hand = self._in_hand
        files = self.files
        size = self.source.size
        accepted = seen = 0
        with Bar("sending", total=size, shown=self._shows_progress) as bar:
            async for outcome in run:
                in_hand.discard(outcome.token)
                seen += 1
                if outcome.verdict is Verdict.ACCEPTED:
                    accepted += 1
                else:
                    files.write(outcome)
                    if outcome.verdict is Verdict.UNKNOWN and files.retry is files.unknown is None:
                        self.unknown_without_file += 1
                if seen % _REDRAW == 0:
                    bar.at(self.source.bytes_read, f"{accepted:,} accepted of {seen:,}")

    def _account_for_the_rest(self) -> None:
        self.unanswered = len(self._in_hand)
        for token in self._in_hand:
            self.files.unanswered(token)
        self._in_hand.clear()
        if self.source_error is not None or self.source.is_terminal:
            return
        reason = "interrupted" if self.interrupted else "deadline"
        rest = iter(self.source) if self._pipe is None else self._pipe.rest()
        with _ended_by_signals():
            try:
                for token in rest:
                    self.not_read += 1
                    self.files.not_sent(token, reason)
            except KeyboardInterrupt:
                # A producer that does not end: what it has not said is not known here.
                self.interrupted = True
            except (InvalidInput, OSError) as error:
                self.source_error = error

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
            if self._last_resort is not None:
                self._last_resort.cancel()

    def _interrupt(self) -> None:
        self.interrupted = True
        if self._run is None:
            return
        if self._last_resort is not None:
            self._give_up()
            return
        self._note(
            "stopping: waiting for the answers to what has left; interrupt again to stop waiting"
        )
        self._run.stop()
        loop = asyncio.get_running_loop()
        self._last_resort = loop.call_later(PATIENCE_AFTER_INTERRUPT, self._give_up)

    def _give_up(self) -> None:
        if self._closing is None and self._client is not None:
            # Every push that is still out settles as UNKNOWN, and so the run comes to its end.
            self._closing = asyncio.ensure_future(self._client.aclose(drain=0.0))


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
