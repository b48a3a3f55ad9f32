"""``apns-live fan-out``: sends one message to a file of tokens, and sorts the outcomes into files."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..outcome import Verdict
from ..payload import Message, encode
from ..settings import Settings
from .files import OutcomeFiles, TokenFile
from .messages import message_from
from .options import CONNECTION, MESSAGE, Shared, command
from .output import CREDENTIAL_VERDICTS, ExitCode, progress_shown
from .send import check_push

if TYPE_CHECKING:
    from ..client import Client, Report, Run


@command(
    """
    FILE: File of tokens: CSV, JSON Lines or one a line; - reads stdin.
    --deadline SECONDS: Seconds after which the fan-out stops.
    --workers N: Worker processes; at most one per core makes sense.
    --progress/--no-progress: Show a progress bar. [on a terminal]
    Files:
    --format FORMAT: auto, csv, jsonl or text.
    --column NAME: CSV column by name or by number from 1, or JSON key. [token]
    --retry-file FILE: Write tokens that were not accepted and may be sent again; use it as FILE later.
    --drop-file FILE: Write tokens to delete, with the reason (JSON Lines, or .csv).
    --unknown-file FILE: Write starts that may have been processed. [RETRY_FILE.unknown]
    --retry-unknown: Write those to the retry file too; some phones may then show two cards.
    """,
    MESSAGE,
    CONNECTION,
)
def fan_out(
    shared: Shared,
    tokens: str,
    format_: str = "auto",
    column: str | None = None,
    retry_file: str | None = None,
    drop_file: str | None = None,
    unknown_file: str | None = None,
    retry_unknown: bool = False,
    deadline: float | None = None,
    workers: int = 1,
    progress: bool | None = None,
) -> int:
    """Send one message to every token of a file, each token once.

    SIGINT stops reading, waits for the answers to what has left, and writes the files; a second
    one stops waiting.
    """
    from ..client.workers import check_workers

    check_workers(workers)
    message = message_from(shared.message)
    encoded = encode(message, now=time.time())
    check_push(shared, encoded, deadline)
    settings = shared.settings()
    settings.client_arguments()  # raises for a wrong setting or key before a file is touched
    with contextlib.closing(TokenFile(tokens, form=format_, column=column)) as source:
        files = OutcomeFiles(
            retry=retry_file,
            drop=drop_file,
            unknown=unknown_file,
            replay_safe=encoded.replay_safe,
            retry_unknown=retry_unknown,
        )
        sender = Sender(
            source,
            files,
            deadline=deadline,
            workers=workers,
            shows_progress=sys.stderr.isatty() if progress is None else progress,
            note=shared.note,
        )
        report = asyncio.run(sender.run(settings, message))
    _say(shared, sender, report)
    if sender.interrupted:
        return ExitCode.INTERRUPTED
    if sender.source_error is not None:
        return ExitCode.BAD_INPUT
    if report.accepted == report.settled and not sender.not_read:
        return ExitCode.OK
    answered = sum(report.reasons.values()) and report.rate > 0
    refused = any(verdict in CREDENTIAL_VERDICTS for verdict in report.verdicts)
    if report.accepted == 0 and (refused or not answered):
        return ExitCode.NO_WAY
    return ExitCode.NOT_ACCEPTED


def _say(shared: Shared, sender: Sender, report: Report) -> None:
    open_files = sender.files.open.items()
    written = {name: file for name, file in open_files if file.count or name != "unknown"}
    files = {name: (str(file.path), file.count) for name, file in written.items()}
    # Times are seconds.
    summary: dict[str, Any] = {
        "read": report.read,
        "accepted": report.accepted,
        "verdicts": {verdict.value: count for verdict, count in report.verdicts.items()},
        "reasons": dict(report.reasons),
        "drops": report.drop_count,
        "deadline_passed": report.deadline_passed,
        "elapsed": round(report.elapsed, 3),
        "rate": round(report.rate, 1),
        **{name: round(getattr(report, name), 6) for name in ("p50", "p95", "p99")},
        "connections": report.connections,
        "repeated": sender.source.repeated,
        "not_read": sender.not_read,
        "unanswered": sender.unanswered,
        "interrupted": sender.interrupted,
        "files": files,
    }
    if sender.source_error is not None:
        summary["error"] = str(sender.source_error)
        shared.note(f"{sender.source_error} Nothing after it was read.")
    shared.answer(summary)
    verdicts = [(name.replace("_", " "), count) for name, count in summary["verdicts"].items()]
    shared.table(("", "pushes"), verdicts)
    if summary["reasons"]:
        shared.table(("reason", "pushes"), list(summary["reasons"].items()))
    shared.line(
        f"{report.settled:,} pushes in {report.elapsed:.1f} s ({report.rate:,.0f}/s) over "
        f"{report.connections} connections; answers after {report.p50 * 1000:.1f} ms (median), "
        f"{report.p95 * 1000:.1f} ms (p95), {report.p99 * 1000:.1f} ms (p99)"
    )
    if sender.source.repeated:
        shared.line(f"{sender.source.repeated:,} repeated tokens were left out")
    if sender.not_read:
        shared.line(f"{sender.not_read:,} tokens were not reached")
    for name, (path, count) in files.items():
        shared.line(f"{name} file: {count:,} tokens in {path}")
    if shared.json_mode:
        return
    if report.reasons.get("BadDeviceToken"):
        shared.note(
            "BadDeviceToken: before you drop those tokens, check that they belong to this "
            "environment (a sandbox token on production, or the reverse)."
        )
    if not files.keys() & {"retry", "unknown"} and (lost := report.verdicts.get(Verdict.UNKNOWN)):
        remedy = "use --unknown-file to keep such tokens"
        shared.note(f"{lost:,} starts may have been processed; {remedy}.")


# --- sending

PATIENCE_AFTER_INTERRUPT = 15.0
"""Seconds that an interrupted fan-out waits for the answers to pushes in flight."""
_REDRAW = 500


@dataclass(slots=True)
class Sender:
    """One fan-out of the command line.

    ``_in_hand`` holds the tokens that were handed to the client and have no outcome yet, so that an
    interrupt can account for each. The client takes at most some thousands ahead.
    """

    source: TokenFile
    files: OutcomeFiles
    _: KW_ONLY
    deadline: float | None
    workers: int
    shows_progress: bool
    note: Callable[[str], None]
    not_read: int = 0
    """Tokens that were not sent because of the deadline or an interrupt."""
    unanswered: int = 0
    """Tokens that were handed over and whose outcome did not arrive before the end."""
    interrupted: bool = False
    source_error: InvalidInput | OSError | None = None
    _in_hand: set[str] = field(default_factory=set)
    _pipe: PipeTokens | None = None
    _client: Client | None = None
    _closing: asyncio.Future[None] | None = None
    _run: Run | None = None
    _last_resort: asyncio.TimerHandle | None = None

    async def run(self, settings: Settings, message: Message) -> Report:
        """Send, and write the files. Returns the report."""
        client = self._client = settings.client()
        try:
            size, shown = self.source.size, self.shows_progress
            with self._signals(), progress_shown("sending", total=size, shown=shown) as show:
                tokens: Iterator[str] | AsyncIterator[str] = self._tokens()
                if self.source.size is None:
                    self._pipe = PipeTokens(iter(self.source))
                    tokens = self._piped_tokens(self._pipe)
                run = self._run = client.fan_out(
                    message, tokens, deadline=self.deadline, workers=self.workers
                )
                seen = 0
                async with run:
                    async for outcome in run:
                        self._in_hand.discard(outcome.token)
                        self.files.write(outcome)
                        seen += 1
                        if seen % _REDRAW == 0:
                            accepted = f"{run.report.accepted:,} accepted of {seen:,}"
                            show(self.source.bytes_read, accepted)
                await (self._closing or client.aclose())
        finally:
            await client.aclose(drain=0.0)
            self._account_for_the_rest()
            self.files.commit()
        return run.report

    @contextlib.contextmanager
    def _catching(self) -> Iterator[None]:
        """Store an error of the source, so that the tokens read before it get their outcomes."""
        try:
            yield
        except (InvalidInput, OSError) as error:
            self.source_error = error

    def _tokens(self) -> Iterator[str]:
        with self._catching():
            for token in self.source:
                self._in_hand.add(token)
                yield token

    async def _piped_tokens(self, pipe: PipeTokens) -> AsyncIterator[str]:
        with self._catching():
            async for token in pipe:
                self._in_hand.add(token)
                yield token

    def _account_for_the_rest(self) -> None:
        self.unanswered = len(self._in_hand)
        for token in self._in_hand:
            self.files.unanswered(token)
        self._in_hand.clear()
        if self.source_error is not None or self.source.is_terminal:
            return
        reason = "interrupted" if self.interrupted else "deadline"
        rest = iter(self.source) if self._pipe is None else self._pipe.rest()
        # SIGTERM raises KeyboardInterrupt too, so that both end the reading.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with self._catching():
                for token in rest:
                    self.not_read += 1
                    self.files.not_sent(token, reason)
        except KeyboardInterrupt:
            # The pipe's producer may not end, so the tokens that it has not written are not known.
            self.interrupted = True
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
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
        waiting = "waiting for the answers to what has left; interrupt again to stop waiting"
        self.note(f"stopping: {waiting}")
        self._run.stop()
        loop = asyncio.get_running_loop()
        self._last_resort = loop.call_later(PATIENCE_AFTER_INTERRUPT, self._give_up)

    def _give_up(self) -> None:
        if self._closing is None and self._client is not None:
            # Closing settles every push in flight as UNKNOWN, which ends the run.
            self._closing = asyncio.ensure_future(self._client.aclose(drain=0.0))


# --- tokens from a pipe

AHEAD = 1_000
"""Maximum of tokens that are read ahead."""


class PipeTokens:
    """Reads a blocking iterator on a thread, so that a slow producer does not delay the answers.

    Iterate asynchronously; afterwards `rest` yields the tokens that were not taken.
    """

    def __init__(self, source: Iterator[str]) -> None:
        self._ready: queue.Queue[str | BaseException | None] = queue.Queue(AHEAD)
        """Tokens read ahead; None or the source's error marks the end."""
        self._ended = False
        self._loop, self._wanted = asyncio.get_running_loop(), asyncio.Event()
        # A daemon thread, because nothing can wake it from a read that never returns.
        threading.Thread(target=self._read, args=(source,), name="tokens", daemon=True).start()

    async def __aiter__(self) -> AsyncIterator[str]:
        while not self._ended:
            self._wanted.clear()
            while not self._ready.empty():
                if (token := self._take()) is not None:
                    yield token
            if not self._ended:
                await self._wanted.wait()

    def rest(self) -> Iterator[str]:
        """Yield the remaining tokens to the end of the pipe; blocks the calling thread."""
        while not self._ended and (token := self._take()) is not None:
            yield token

    def _take(self) -> str | None:
        """Return the next token, or None at the end. Raises the source's error."""
        token = self._ready.get()
        self._ended = not isinstance(token, str)
        if isinstance(token, BaseException):
            raise token
        return token

    def _read(self, source: Iterator[str]) -> None:
        end: BaseException | None = None
        try:
            for token in source:
                self._put(token)
        except BaseException as error:  # noqa: BLE001 - raised again where tokens are taken
            end = error
        self._put(end)

    def _put(self, item: str | BaseException | None) -> None:
        self._ready.put(item)
        # The loop may be closed by now; rest() waits on the queue instead.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wanted.set)
