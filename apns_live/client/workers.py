"""A fan-out over several worker processes.

This process reads the tokens and passes them to workers, a thousand at a time, always to the worker
with the fewest unanswered tokens. Each worker sends on its own connections and returns the results.
Provider tokens are signed here, for a day ahead, so that the key stays in this process and all
workers use the same token. If a worker dies, its unanswered pushes are UNKNOWN. A message between
processes is four bytes of length, then MessagePack.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from time import monotonic
from typing import Any
from weakref import WeakSet

import msgspec

from ..clock import Clock
from ..credentials import ProviderTokens
from ..errors import InvalidSetting, TransportError
from ..guard import logger
from ..http2 import EncodedString
from ..outcome import Outcome, Verdict, alike
from ..payload import EncodedMessage
from ..pool import Endpoint, PoolOptions, RequestIds, Sendable
from ..refusals import refused
from .attachment import Acceptances, End
from .outcomes import refused_tokens
from .reading import TokenReader
from .run import UNREAD_LIMIT, Life, Run
from .statistics import Counts, Report

MOST_WORKERS = 256
_SIGNED_AHEAD = 86_400.0
"""Seconds for which workers get provider tokens in advance."""
_CHUNK = 1_000
"""Maximum tokens in one message to a worker."""
_IN_HAND = 10_000
"""Maximum tokens of a worker without an outcome."""
_BUFFER = 1 << 22
"""Bytes of a worker's messages that may wait to be read."""


class Setup(msgspec.Struct, tag=True, array_like=True):
    """A worker's settings and credentials."""

    key_id: str
    team_id: str
    provider_tokens: dict[int, str]
    """The JWTs by their ``iat``. The key itself stays in its process."""
    bundle_id: str
    endpoint: tuple[str, int, str | None]
    proxy: str | None
    options: PoolOptions
    never_index: bool
    message: EncodedMessage
    deadline: float | None = None
    """Seconds of the machine's monotonic clock."""
    ids: bytes = b""
    """The prefix of its request ids."""
    rows: bool = True
    """Whether the other process wants outcomes, or only counts."""


class Take(msgspec.Struct, tag=True, array_like=True):
    """Tokens for a worker."""

    tokens: list[str]


class NoMore(msgspec.Struct, tag=True, array_like=True):
    """The source of tokens has ended. With ``stop`` unsent tokens must not be sent."""

    stop: bool = False


class Accepted(msgspec.Struct, array_like=True):
    """`Acceptances` in a message."""

    like: Outcome
    spans: list[tuple[int, int]]
    """The tokens, numbered in the order in which the worker got them: first number and count of each span."""
    unique_ids: Sequence[bytes]
    """As APNs sent them, see `EncodedString`; empty if it sent none."""

    def numbers(self) -> Iterable[int]:
        """Return the number of each token."""
        return chain.from_iterable(range(first, first + count) for first, count in self.spans)

    def outcomes(self, tokens: Sequence[str], ids: RequestIds) -> list[Outcome]:
        """Return the outcomes; ``ids`` are the worker's request ids."""
        apns_ids = list(chain.from_iterable(ids.span(*span) for span in self.spans))
        unique_ids = list(map(EncodedString, self.unique_ids))
        return Acceptances(self.like, tokens, apns_ids, unique_ids).outcomes()


class Settled(msgspec.Struct, tag=True, array_like=True):
    """A worker's results since its last message."""

    counts: Counts
    """The counts of everything that it has settled so far."""
    accepted: list[Accepted] = []
    numbers: list[int] = []
    """The numbers of the tokens of the other outcomes."""
    others: list[Outcome] = []
    drops: list[Outcome] = []
    """Outcomes with DROP_TOKEN, if other outcomes are not wanted."""


def pack(batch: Acceptances, ids: RequestIds) -> Accepted:
    """Return acceptances for the other process, in the order of their tokens.

    A token has the same number as its id, because a worker takes tokens in the order they arrive.
    """
    if any(batch.unique_ids):
        pairs = sorted(zip(batch.apns_ids, map(_as_it_came, batch.unique_ids), strict=True))
        apns_ids = [apns_id for apns_id, _ in pairs]
        return Accepted(batch.like, list(_spans(apns_ids, ids)), [each for _, each in pairs])
    return Accepted(batch.like, list(_spans(sorted(batch.apns_ids), ids)), ())


def _spans(apns_ids: Sequence[str], ids: RequestIds) -> Iterator[tuple[int, int]]:
    """Split sorted ids into spans without a gap: the first number and the count of each."""
    first, count = ids.number(apns_ids[0]), len(apns_ids)
    if ids.number(apns_ids[-1]) - first == count - 1:
        yield first, count
    else:
        yield from _spans(apns_ids[: count // 2], ids)
        yield from _spans(apns_ids[count // 2 :], ids)


def _as_it_came(unique_id: object) -> bytes:
    if isinstance(unique_id, EncodedString):
        return unique_id.raw
    return b"\0" + str(unique_id).encode()


_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
decode_order = msgspec.msgpack.Decoder(Setup | Take | NoMore).decode
decode_settled = msgspec.msgpack.Decoder(Settled).decode


def write(writer: StreamWriter, what: msgspec.Struct) -> None:
    """Send one message to the other side."""
    data = _encode(what)
    writer.write(len(data).to_bytes(4, "big") + data)


async def read(reader: StreamReader) -> bytes:
    """Return the next message of the other side; empty if that is gone."""
    try:
        head = await reader.readexactly(4)
        return await reader.readexactly(int.from_bytes(head, "big"))
    except (EOFError, ConnectionError):
        return b""


def check_workers(workers: object) -> None:
    """Raise `InvalidSetting` unless the value is a number of processes from 1 to 256."""
    if type(workers) is not int or not 1 <= workers <= MOST_WORKERS:
        raise refused(InvalidSetting, "workers", "workers", workers=workers, most=MOST_WORKERS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sharing:
    """The settings of a client that its workers need, and its shared runs."""

    bundle_id: str
    endpoint: Endpoint
    options: PoolOptions
    proxy: str | None
    never_index: bool
    own: Mapping[str, object]
    """Settings of the client that cannot leave its process."""
    runs: WeakSet[SharedRun] = field(default_factory=WeakSet)

    def run(
        self,
        clock: Clock,
        message: Sendable,
        reader: TokenReader,
        provider_tokens: ProviderTokens,
        *,
        workers: int,
        **options: Any,
    ) -> SharedRun:
        """Return a run of a client. Raises `InvalidSetting` if the client cannot share its work."""
        for name, given in self.own.items():
            if given:
                raise refused(InvalidSetting, "workers_cannot_share", name)
        endpoint = self.endpoint
        ca_file = None if endpoint.ca_file is None else os.fspath(endpoint.ca_file)
        share = max(1, self.options.max_connections // workers)

        def setup() -> Setup:
            return Setup(
                key_id=provider_tokens.key.key_id,
                team_id=provider_tokens.key.team_id,
                provider_tokens=provider_tokens.signed_ahead(_SIGNED_AHEAD),
                bundle_id=self.bundle_id,
                endpoint=(endpoint.host, endpoint.port, ca_file),
                proxy=self.proxy,
                options=replace(self.options, max_connections=share, min_connections=1),
                never_index=self.never_index,
                message=msgspec.structs.replace(message.encoded, warnings=()),
            )

        run = SharedRun(clock, reader, workers=workers, setup=setup, **options)
        self.runs.add(run)
        return run

    async def close(self, patience: float) -> None:
        """End every run: wait up to so many seconds for answers, then end the processes."""
        await asyncio.gather(*(run.close(patience) for run in self.runs))


@dataclass(eq=False)
class _Worker:
    """A worker as this process sees it: the tokens passed to it, and its results."""

    writer: StreamWriter | None = None
    process: asyncio.subprocess.Process | None = None
    counts: Counts = field(default_factory=Counts)
    ids: RequestIds = field(default_factory=RequestIds)
    rows: bool = False
    """Whether it sends outcomes, or only counts."""
    handed: dict[int, str] = field(default_factory=dict)
    """Tokens without an outcome by their number, if it sends outcomes."""
    handed_count: int = 0
    given_up: int = 0

    @property
    def in_hand(self) -> int:
        """The number of its tokens without an outcome."""
        return self.handed_count - self.counts.settled - self.given_up

    def hand(self, tokens: list[str]) -> None:
        """Pass tokens to it."""
        assert self.writer is not None  # noqa: S101 - only workers that are there are asked
        write(self.writer, Take(tokens))
        if self.rows:
            self.handed.update(enumerate(tokens, self.handed_count))
        self.handed_count += len(tokens)

    def give_up(self) -> list[str]:
        """Return all tokens without an outcome; "" for one that is not remembered."""
        number = self.in_hand
        self.given_up += number
        return [*self.handed.values(), *[""] * number][:number]


class SharedRun(Run):
    """A fan-out by several processes. Created by ``Client.fan_out(workers=...)``."""

    def __init__(
        self,
        clock: Clock,
        reader: TokenReader,
        *,
        workers: int,
        setup: Callable[[], Setup],
        **options: Any,
    ) -> None:
        super().__init__(clock, reader, **options)
        self._number = workers
        self._make_setup = setup
        self._setup: Setup
        self._workers: list[_Worker] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        life, workers = self.life.value, len(self._tasks)
        return f"<SharedRun {life}: {workers} workers, read {self._reader.read}>"

    @property
    def report(self) -> Report:
        """The report so far."""
        counts = [worker.counts for worker in self._workers]
        return self.tally.report(self._reader, self.end, counts)

    # Workers

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._setup = self._make_setup()
        if self._deadline is not None:
            self._setup.deadline = monotonic() + self._deadline
            # The workers observe the deadline themselves; here it only ends the reading.
            self._timer = loop.call_later(self._deadline, self._reached_deadline)
        for number in range(self._number):
            worker = _Worker()
            self._workers.append(worker)
            task = loop.create_task(self._serve(worker), name=f"apns_live worker {number}")
            self._tasks.add(task)
            task.add_done_callback(self._served)

    async def _serve(self, worker: _Worker) -> None:
        worker.rows = self.outbox.kept
        setup = msgspec.structs.replace(self._setup, ids=worker.ids.seed, rows=worker.rows)
        worker.process, reader, worker.writer = await _start()
        try:
            write(worker.writer, setup)
            if self.life is not Life.READING:
                write(worker.writer, NoMore(stop=self._stops()))
            self.resume()
            while data := await read(reader):
                self._take_in(worker, decode_settled(data))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            raise
        finally:
            worker.writer.close()
            worker.writer = None
            await worker.process.wait()
            self._give_up(worker)

    def _served(self, task: asyncio.Task[None]) -> None:
        """Continue without a worker that has ended, if another is left."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a worker process of a fan-out failed: %r", error)
        if not self._tasks and self.life is Life.READING:
            self.fail(
                TransportError(
                    "every worker process of the fan-out has ended; what they had in hand is "
                    "UNKNOWN. Their error output, or the log, says why"
                )
            )
        self.review()

    def _give_up(self, worker: _Worker) -> None:
        """Give the tokens of an ended worker their outcome."""
        tokens = worker.give_up()
        if tokens:
            logger.warning(
                "a worker process of a fan-out has ended with %d pushes in hand: they are UNKNOWN",
                len(tokens),
            )
        lost = Outcome(
            token="",
            verdict=Verdict.UNKNOWN,
            reason="worker_lost",
            may_have_been_sent=True,
            priority=self._priority,
            detail="the worker process that was to send it has ended",
        )
        self.tell(alike(lost, token=tokens))

    def _take_in(self, worker: _Worker, what: Settled) -> None:
        worker.counts = what.counts
        for outcome in chain(what.others, what.drops):
            if outcome.verdict is Verdict.DROP_TOKEN:
                self.tally.note_drop(outcome)
        for number in what.numbers:
            del worker.handed[number]
        for group in what.accepted:
            tokens = list(map(worker.handed.pop, group.numbers()))
            self.outbox.put_packed(len(tokens), partial(group.outcomes, tokens, worker.ids))
        self.outbox.put(what.others)
        self.resume()
        self.review()

    # Methods that a run must implement.

    def resume(self) -> None:
        """Pass more tokens to workers that have room."""
        while self.life is Life.READING and len(self.outbox) < UNREAD_LIMIT:
            there = [worker for worker in self._workers if worker.writer is not None]
            if not there:
                return
            worker = min(there, key=lambda each: each.in_hand)
            room = min(_CHUNK, _IN_HAND - worker.in_hand)
            if room < _CHUNK // 2:
                return
            tokens = self._reader.take(room)
            if tokens:
                refused = refused_tokens(tokens, self._setup.message)
                if refused:
                    self.tell(list(refused.values()))
                good = [each for at, each in enumerate(tokens) if at not in refused]
                worker.hand(good if refused else tokens)
            if self._reader.ended:
                self.review()
            if not tokens:
                return

    def halt(self, end: End) -> None:
        """Stop reading tokens for the reason ``end``; the first reason counts."""
        before = self.end
        super().halt(end)
        if before is End.OPEN and self.end is not End.OPEN:
            self._say(NoMore(stop=self._stops()))

    def _stops(self) -> bool:
        return self.end in (End.STOPPED, End.CLOSED, End.FAILED)

    def _say(self, what: NoMore) -> None:
        for worker in self._workers:
            if worker.writer is not None:
                write(worker.writer, what)

    def _reached_deadline(self) -> None:
        self.halt(End.DEADLINE)
        self.review()

    def _withdraw(self) -> None:
        self._say(NoMore(stop=True))

    def _under_way(self) -> bool:
        return any(worker.in_hand for worker in self._workers)

    def _ended(self) -> None:
        super()._ended()
        if self._timer is not None:
            self._timer.cancel()

    async def _release(self) -> None:
        await super()._release()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, patience: float) -> None:
        """Close with the client: wait up to so many seconds for answers, then end the processes."""
        if self.is_active():
            self.give_up(End.CLOSED)
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=patience)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)


async def _start() -> tuple[asyncio.subprocess.Process, StreamReader, StreamWriter]:
    here, there = socket.socketpair()
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"{__package__}.worker",
            str(there.fileno()),
            pass_fds=[there.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except BaseException:
        here.close()
        raise
    finally:
        there.close()
    reader, writer = await asyncio.open_connection(sock=here, limit=_BUFFER)
    return process, reader, writer
