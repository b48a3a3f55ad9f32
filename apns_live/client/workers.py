"""A fan-out over several worker processes.

This process reads the tokens and hands them to workers, a thousand at a time, to the one with the
fewest unanswered ones. Each worker sends on its own connections and returns the results. Provider
tokens are signed here, for a day ahead, so that the key stays in this process and all workers use the
same token. If a worker dies, its unanswered pushes are UNKNOWN. What they tell one another is four bytes
of length, then MessagePack.
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
from ..errors import InvalidSetting, InvalidToken, TransportError
from ..guard import logger
from ..http2 import EncodedString
from ..outcome import Outcome, Verdict, alike
from ..payload import EncodedMessage, are_tokens, check_token
from ..pool import Endpoint, PoolOptions, RequestIds, Sendable
from ..refusals import refused
from .attachment import Acceptances, End
from .fan_out import Run
from .outcomes import refused_token
from .reading import TokenReader
from .run import UNREAD_LIMIT, Life
from .statistics import Counts

MOST_WORKERS = 256
_SIGNED_AHEAD = 86_400.0
"""Seconds for which workers get provider tokens."""
_CHUNK = 1_000
"""Tokens handed to a worker at once, at most."""
_IN_HAND = 10_000
"""Tokens that a worker may hold without an outcome."""
_BUFFER = 1 << 22
"""Bytes of a worker's words that may wait to be read."""


class Setup(msgspec.Struct, tag=True, array_like=True):
    """What a worker sends, and as whom."""

    key_id: str
    team_id: str
    provider_tokens: dict[int, str]
    """The JWTs by their ``iat``. The key itself stays in the process that owns it."""
    bundle_id: str
    endpoint: tuple[str, int, str | None]
    proxy: str | None
    options: PoolOptions
    never_index: bool
    message: EncodedMessage
    deadline: float | None
    """By the machine's monotonic clock, in seconds."""
    ids: bytes
    """What its request ids are made from."""
    rows: bool
    """Whether outcomes are wanted, or counts alone."""


class Take(msgspec.Struct, tag=True, array_like=True):
    """Tokens for a worker."""

    tokens: list[str]


class NoMore(msgspec.Struct, tag=True, array_like=True):
    """The source of tokens has ended. With ``stop`` what has not left must not leave."""

    stop: bool = False


class Accepted(msgspec.Struct, array_like=True):
    """`Acceptances` on their way."""

    like: Outcome
    spans: list[tuple[int, int]]
    """Which tokens, numbered in the order in which the worker got them: first number and count of each span."""
    unique_ids: Sequence[bytes]
    """As APNs sent them, see `EncodedString`; empty where it sent none."""

    def numbers(self) -> Iterable[int]:
        """Return the number of each token."""
        return chain.from_iterable(range(first, first + count) for first, count in self.spans)

    def outcomes(self, tokens: Sequence[str], ids: RequestIds) -> list[Outcome]:
        """Return the outcomes again; ``ids`` are those of the worker."""
        apns_ids = list(chain.from_iterable(ids.span(*span) for span in self.spans))
        unique_ids = list(map(EncodedString, self.unique_ids))
        return Acceptances(self.like, tokens, apns_ids, unique_ids).outcomes()


class Settled(msgspec.Struct, tag=True, array_like=True):
    """What a worker's tokens came to since its last word."""

    counts: Counts
    """Of everything that it has settled so far."""
    accepted: list[Accepted] = []
    numbers: list[int] = []
    """Which tokens the others are of."""
    others: list[Outcome] = []
    drops: list[Outcome] = []
    """Those with DROP_TOKEN, where outcomes are not wanted."""


def pack(batch: Acceptances, ids: RequestIds) -> Accepted:
    """Return acceptances for the other process, in the order of their tokens.

    A token's number is that of its id, because a worker takes tokens in the order they came.
    """
    if any(batch.unique_ids):
        pairs = sorted(zip(batch.apns_ids, map(_as_it_came, batch.unique_ids), strict=True))
        apns_ids = [apns_id for apns_id, _ in pairs]
        return Accepted(batch.like, list(_spans(apns_ids, ids)), [each for _, each in pairs])
    return Accepted(batch.like, list(_spans(sorted(batch.apns_ids), ids)), ())


def _spans(apns_ids: Sequence[str], ids: RequestIds) -> Iterator[tuple[int, int]]:
    """Split sorted ids into spans without a gap: the number of the first, and how many."""
    first, count = ids.number(apns_ids[0]), len(apns_ids)
    if ids.number(apns_ids[-1]) - first == count - 1:
        yield first, count
    else:
        yield from _spans(apns_ids[: count // 2], ids)
        yield from _spans(apns_ids[count // 2 :], ids)


def _as_it_came(unique_id: object) -> bytes:
    return (
        unique_id.raw if isinstance(unique_id, EncodedString) else b"\0" + str(unique_id).encode()
    )


_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
decode_order = msgspec.msgpack.Decoder(Setup | Take | NoMore).decode
decode_settled = msgspec.msgpack.Decoder(Settled).decode


def write(writer: StreamWriter, what: msgspec.Struct) -> None:
    """Send one thing to the other side."""
    data = _encode(what)
    writer.write(len(data).to_bytes(4, "big") + data)


async def read(reader: StreamReader) -> bytes:
    """Return the next thing that the other side sent, and nothing when it has gone."""
    try:
        head = await reader.readexactly(4)
        return await reader.readexactly(int.from_bytes(head, "big"))
    except (EOFError, ConnectionError):
        return b""


def check_workers(workers: object) -> None:
    """Raise `InvalidSetting` unless it is a number of processes from 1 to 256."""
    if type(workers) is not int or not 1 <= workers <= MOST_WORKERS:
        raise refused(InvalidSetting, "workers", "workers", workers=workers, most=MOST_WORKERS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sharing:
    """What workers need to know of how a client was made, and the runs that it shares with them."""

    bundle_id: str
    endpoint: Endpoint
    options: PoolOptions
    proxy: str | None
    never_index: bool
    own: Mapping[str, object]
    """What the client was given that lives in its process alone."""
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
        """Return a run of a client. Raises `InvalidSetting` for a client that cannot share."""
        for name, given in self.own.items():
            if given:
                raise refused(InvalidSetting, "workers_cannot_share", name)
        endpoint = self.endpoint
        ca_file = None if endpoint.ca_file is None else os.fspath(endpoint.ca_file)
        share = max(1, self.options.max_connections // workers)
        pool = replace(self.options, max_connections=share, min_connections=1)

        def setup(ids: bytes, rows: bool) -> Setup:
            return Setup(
                provider_tokens.key.key_id,
                provider_tokens.key.team_id,
                provider_tokens.signed_ahead(_SIGNED_AHEAD),
                self.bundle_id,
                (endpoint.host, endpoint.port, ca_file),
                self.proxy,
                pool,
                self.never_index,
                msgspec.structs.replace(message.encoded, warnings=()),
                None,
                ids,
                rows,
            )

        run = SharedRun(clock, message, reader, workers=workers, setup=setup, **options)
        self.runs.add(run)
        return run

    async def close(self, patience: float) -> None:
        """End every run: wait so many seconds for answers, then end the processes."""
        await asyncio.gather(*(run.close(patience) for run in self.runs))


@dataclass(eq=False)
class _Worker:
    """What this process knows of a worker: what it was handed, and what it told."""

    writer: StreamWriter | None = None
    process: asyncio.subprocess.Process | None = None
    counts: Counts = field(default_factory=Counts)
    ids: RequestIds = field(default_factory=RequestIds)
    rows: bool = False
    """Whether it tells of outcomes, or of counts alone."""
    handed: dict[int, str] = field(default_factory=dict)
    """Tokens without an outcome by their number, where it tells of outcomes."""
    handed_count: int = 0
    given_up: int = 0

    @property
    def in_hand(self) -> int:
        """Tokens that it was handed and that have no outcome."""
        return self.handed_count - self.counts.settled - self.given_up

    def hand(self, tokens: list[str]) -> None:
        """Hand it tokens."""
        assert self.writer is not None  # noqa: S101 - only workers that are there are asked
        write(self.writer, Take(tokens))
        if self.rows:
            self.handed.update(enumerate(tokens, self.handed_count))
        self.handed_count += len(tokens)

    def settled(self, numbers: Iterable[int]) -> list[str]:
        """Return the tokens of these numbers, which have their outcome."""
        return list(map(self.handed.pop, numbers))

    def give_up(self) -> list[str]:
        """Return the tokens without an outcome, as many as there are; "" for one not remembered."""
        number = self.in_hand
        self.given_up += number
        return [*self.handed.values(), *[""] * number][:number]


class SharedRun(Run):
    """A fan-out by several processes. Made by ``Client.fan_out(workers=...)``."""

    def __init__(
        self,
        clock: Clock,
        message: Sendable,
        reader: TokenReader,
        *,
        workers: int,
        setup: Callable[[bytes, bool], Setup],
        **options: Any,
    ) -> None:
        super().__init__(clock, reader, **options)
        self._message = message.encoded
        self._number = workers
        self._make_setup = setup
        self._workers: list[_Worker] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._until: float | None = None

    def __repr__(self) -> str:
        return (
            f"<SharedRun {self.life.value}: {len(self._tasks)} workers, read {self._reader.read}>"
        )

    def _counted_elsewhere(self) -> list[Counts]:
        return [worker.counts for worker in self._workers]

    # Workers

    def _begin(self) -> None:
        super()._begin()
        loop = asyncio.get_running_loop()
        if self._deadline is not None:
            self._until = monotonic() + self._deadline
            # The workers keep to it themselves: this only ends the reading.
            self._timer = loop.call_later(self._deadline, self._reached_deadline)
        for number in range(self._number):
            worker = _Worker()
            self._workers.append(worker)
            task = loop.create_task(self._serve(worker), name=f"apns_live worker {number}")
            self._tasks.add(task)
            task.add_done_callback(self._served)

    async def _serve(self, worker: _Worker) -> None:
        worker.rows = self.outbox.kept
        setup = self._make_setup(worker.ids.seed, worker.rows)
        setup.deadline = self._until
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
        """Go on without a worker that has ended, where there is another."""
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
        """Give what an ended worker had in hand its outcome."""
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
        self._tell(alike(lost, token=tokens))

    def _take_in(self, worker: _Worker, what: Settled) -> None:
        worker.counts = what.counts
        for outcome in chain(what.others, what.drops):
            if outcome.verdict is Verdict.DROP_TOKEN:
                self.tally.note_drop(outcome)
        worker.settled(what.numbers)
        for group in what.accepted:
            tokens = worker.settled(group.numbers())
            self.outbox.put_packed(len(tokens), partial(group.outcomes, tokens, worker.ids))
        self.outbox.put(what.others)
        self.resume()
        self.review()

    # What a run must have

    def resume(self) -> None:
        """Hand on more tokens where there is room for them."""
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
                worker.hand(tokens if are_tokens(tokens) else self._good(tokens))
            if self._reader.ended:
                self.review()
            if not tokens:
                return

    def _good(self, tokens: list[str]) -> list[str]:
        """Return the tokens that can be sent to; refuse the others."""
        good: list[str] = []
        for token in tokens:
            try:
                good.append(check_token(token, message=self._message))
            except InvalidToken as error:
                self._tell([refused_token(token, error, self._priority)])
        return good

    def halt(self, end: End) -> None:
        """Read no more tokens, because of ``end``; the first cause counts."""
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
        """End with the client: wait so many seconds for answers, then end the processes."""
        if self.life in (Life.READING, Life.LANDING):
            self.halt(End.CLOSED)
            self._withdraw()
            self.review()
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
