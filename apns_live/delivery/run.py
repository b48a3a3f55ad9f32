"""A named fan-out: tokens from a source, one outcome each, and nothing lost when the process dies.

With a journal the tokens go through four gates, each committed before the next:

    read      copied into the journal, a shard at a time
    intended  may leave; at most 1,000 are intended and not left, or answered and not yet recorded
    settled   has a verdict byte
    finished  the whole shard has; it is removed, its counts stay in the run

Memory holds the shards between the first and the last gate, which are few.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import msgspec

from ..errors import DeliveryError
from ..outcome import Outcome, Verdict
from ..payload import EncodedMessage
from .budget import StartAccounts
from .encoding import from_journal, to_journal
from .journal import (
    CODE,
    PENDING,
    SHARD,
    UNSENT,
    Journal,
    Known,
    ProblemRecord,
    Record,
    RunRecord,
    ShardRecord,
    classify,
)
from .pacing import NEVER, SpikeGuard, again_at, last_moment
from .sources import Reader, Tokens

_ACCEPTED = Verdict.ACCEPTED
AHEAD = 1000
"""Tokens intended and not left, and answered and not recorded, together."""
STEP = 250
OPEN_SHARDS = 64
READ_AHEAD = 4 * SHARD
UNREAD_OUTCOMES = 10_000
PROBLEMS_KEPT = 1000
_pack = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What became of a fan-out so far; counts include earlier lives of a resumed one."""

    name: str
    counts: dict[Verdict, int]
    read: int
    """Tokens read from the source."""
    unsettled: int
    """Tokens read that have no outcome yet."""
    exhausted: bool
    """Whether the source was read to its end."""
    finished: bool
    problems: tuple[Outcome, ...]
    """The first 1,000 outcomes of this life that were not acceptances."""
    resent: int
    """Tokens unknown after a crash that were sent again."""
    resumed: bool
    stopped: str
    """Why it was stopped before the end; empty otherwise."""
    elapsed: float
    """Seconds of this life."""


class _Shard:
    __slots__ = ("finished", "left", "stored", "tokens", "verdicts")

    def __init__(self, tokens: Sequence[str], verdicts: bytearray, *, stored: bool) -> None:
        self.tokens = tokens
        self.verdicts = verdicts
        self.left = verdicts.count(PENDING) + verdicts.count(UNSENT)
        self.stored = stored
        self.finished = False


class RunHost(Protocol):
    """What a run needs of the delivery around it."""

    journal: Journal | None

    def now(self) -> float:
        """Return seconds since 1970."""

    def prepare(self, encoded: EncodedMessage) -> object:
        """Return the message as the client sends it."""

    def make_item(self, token: str, sendable: object, context: object) -> object:
        """Return a work item of the client."""

    def stir(self, home: Run) -> None:
        """Something may leave, or wants to be asked at another time."""

    def commit(self, home: Run, *, at_once: bool) -> None:
        """There is something to record."""

    def enter(self, home: Run) -> None:
        """Take in the run, which begins."""

    async def depart(self, home: Run) -> None:
        """Let go of the run, which is over, and record the rest."""


class Run:
    """A fan-out under delivery. Made by ``delivery.fan_out(...)``.

    Iterate over it for the outcomes, or ``await run.wait()``; nothing starts before. 10,000 unread
    outcomes pause it. Leaving it early (``break`` and the end of ``async with``) cancels what has
    not left; with a journal the same name goes on later.
    """

    def __init__(
        self,
        host: RunHost,
        name: str,
        encoded: EncodedMessage,
        tokens: Tokens | None,
        *,
        deadline: float | None = None,
        resend_unknown: bool | None = None,
        guard: SpikeGuard | None = None,
        starts: StartAccounts | None = None,
        on_outcome: Callable[[Outcome], object] | None = None,
    ) -> None:
        self.name = name
        self.guard = guard or SpikeGuard()
        self._host = host
        self._encoded = encoded
        self._tokens = tokens
        self._deadline = deadline
        self._resend_unknown = resend_unknown
        self._starts = starts if encoded.event == "start" else None
        self._on_outcome = on_outcome
        self._journalled = host.journal is not None
        self._record = RunRecord(name=name, message=None)  # type: ignore[arg-type]
        self._sendable: object = None
        self._last_moment = NEVER
        self._shards: dict[int, _Shard] = {}
        self._positions: deque[int] = deque()
        self._ready: deque[int] = deque()
        self._held: list[tuple[float, int]] = []
        self._failures: dict[int, tuple[int, int]] = {}
        self._over: set[int] = set()
        self._next_shard = 0
        self._unintended = 0
        self._wanted = 0
        self._collected_wanted = 0
        self._pending_intents: deque[list[int]] = deque()
        self._collected_intents = 0
        self._intents_open = 0
        self._unrecorded = 0
        self._collected_unrecorded = 0
        self._in_flight = 0
        self._touched: set[int] = set()
        self._record_changed = False
        self._problem_records: list[ProblemRecord] = []
        self._counts: Counter[Verdict] = Counter()
        self._problems: list[Outcome] = []
        self._unread: deque[Outcome] = deque()
        self._iterated = False
        self._exhausted = False
        self._resumed = False
        self._resent = 0
        self._started = 0.0
        self._ended = 0.0
        self._stopped = ""
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._over_with = False
        self.queued = False

    def __repr__(self) -> str:
        return (
            f"<Run {self.name!r} read {self._record.read}, ready {len(self._ready)}, "
            f"in flight {self._in_flight}{', ' + self._stopped if self._stopped else ''}>"
        )

    # What the caller does.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[Outcome]:
        self._iterated = True
        self._begin()
        while True:
            while self._unread:
                outcome = self._unread.popleft()
                if len(self._unread) == UNREAD_OUTCOMES // 2:
                    self.pump()
                yield outcome
            if self._over_with:
                break
            self._changed.clear()
            await self._changed.wait()
        await self._finish()

    async def wait(self) -> RunReport:
        """Run to the end and return the report. Raises JournalError when the journal fails."""
        self._begin()
        while not self._over_with:
            self._changed.clear()
            await self._changed.wait()
            self._unread.clear()
        await self._finish()
        return self.report

    async def aclose(self) -> None:
        """Stop: cancel what has not left, wait for what has. Without effect after the end."""
        if self._task is None and not self._over_with:
            return
        if not self._over_with:
            self._stop("it was closed before its end")
            while not self._over_with:
                self._changed.clear()
                await self._changed.wait()
        await self._finish(reraise=False)

    @property
    def report(self) -> RunReport:
        """A snapshot."""
        counts = self._counts
        return RunReport(
            name=self.name,
            counts=dict(counts),
            read=self._record.read,
            unsettled=self._record.read - sum(counts.values()),
            exhausted=self._exhausted,
            finished=self._record.finished,
            problems=tuple(self._problems),
            resent=self._resent,
            resumed=self._resumed,
            stopped=self._stopped,
            elapsed=(self._ended or self._host.now()) - self._started if self._started else 0.0,
        )

    # The inside.

    def _begin(self) -> None:
        if self._task is None and not self._over_with:
            self._started = self._host.now()
            self._host.enter(self)
            self._task = asyncio.get_running_loop().create_task(
                self._read(), name=f"apns-live-run-{self.name}"
            )

    async def _finish(self, *, reraise: bool = True) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._host.depart(self)
        if not self._ended:
            self._ended = self._host.now()
        if reraise and self._error is not None:
            raise self._error

    def _close_down(self) -> None:
        self._over_with = True
        self._changed.set()

    def _stop(self, why: str) -> None:
        """Nothing more leaves; what was read and not sent is NOT_SENT in this life."""
        if self._stopped:
            return
        self._stopped = why
        self._withdraw()
        self._close_down_when_landed()

    def _withdraw(self) -> None:
        """Take back the intents of what will not leave in this life."""
        waiting = [*self._ready, *(position for _, position in self._held)]
        for batch in self._pending_intents:
            waiting.extend(batch)
            batch.clear()
        self._ready.clear()
        self._held.clear()
        self._intents_open = 0
        for position in waiting:
            self._mark(position, UNSENT)
        self._commit(at_once=True)

    def _mark(self, position: int, code: int) -> None:
        number, index = divmod(position, SHARD)
        self._shards[number].verdicts[index] = code
        self._touched.add(number)

    def _close_down_when_landed(self) -> None:
        if self._stopped and self._in_flight == 0 and not self._over_with:
            self._report_unsent()
            self._close_down()

    def _report_unsent(self) -> None:
        """Give those that were read and not sent their outcome; the journal keeps them as unsent."""
        for number, shard in self._shards.items():
            for index, code in enumerate(shard.verdicts):
                if code in (PENDING, UNSENT):
                    self._note(
                        Outcome(
                            token=shard.tokens[index],
                            verdict=Verdict.NOT_SENT,
                            priority=self._encoded.priority,
                            attempts=self._failures.get(number * SHARD + index, (0, 0))[1],
                            detail=self._stopped,
                        )
                    )

    def fail(self, error: BaseException) -> None:
        """End with an error: the journal failed, or the source did."""
        self._error = error
        self._stopped = self._stopped or str(error)
        self._close_down()

    async def _read(self) -> None:
        try:
            reader = await self._open()
            if reader is None:
                self._maybe_done()
                return
            while not self._stopped:
                while self._unintended >= READ_AHEAD or len(self._shards) >= OPEN_SHARDS:
                    self._room.clear()
                    await self._room.wait()
                tokens = await reader.next()
                if not tokens:
                    break
                self._add(tokens, reader)
                self.pump()
                self._host.stir(self)
                # A plain iterable never waits: let the others have the loop between two shards.
                await asyncio.sleep(0)
            self._exhausted = self._record.exhausted = reader.exhausted
            self._record_changed = True
            self._commit(at_once=False)
            self._maybe_done()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the source is the caller's code; its error is theirs to see
            self.fail(error)

    async def _open(self) -> Reader | None:
        journal = self._host.journal
        known = await journal.run(self.name) if journal is not None else None
        reader: Reader | None
        if journal is None or known is None:
            if self._tokens is None:
                raise DeliveryError(
                    f"there is no fan-out named {self.name!r} in the journal; give its tokens to begin it."
                )
            self._record = RunRecord(
                name=self.name,
                message=to_journal(self._encoded),
                deadline=None if self._deadline is None else self._host.now() + self._deadline,
            )
            self._record_changed = True
            reader = Reader(self._tokens)
        else:
            reader = await self._restore(journal, known)
        encoded = self._encoded
        self._last_moment = last_moment(
            deadline=self._record.deadline,
            expiration=encoded.expiration,
            stale_date=encoded.stale_date,
        )
        self._sendable = self._host.prepare(encoded)
        self.pump()
        self._host.stir(self)
        return reader

    async def _restore(self, journal: Journal, known: RunRecord) -> Reader | None:
        """Go on where an earlier life stopped: by the verdict bytes of what is not finished."""
        kept = from_journal(known.message)
        if kept.event != self._encoded.event:
            raise DeliveryError(
                f"the fan-out {self.name!r} in the journal sends {kept.event!r}, not {self._encoded.event!r}. "
                "Use another name for another message."
            )
        self._record, self._encoded, self._resumed = known, kept, True
        self._exhausted = known.exhausted
        resend = kept.replay_safe if self._resend_unknown is None else self._resend_unknown
        self._wanted = self._collected_wanted = known.intended
        self._next_shard = known.shards
        self._counts.update({Verdict(name): count for name, count in known.counts.items()})
        first = 0
        unknown: list[tuple[int, str]] = []
        while shards := await journal.shards(self.name, first, 100):
            for record in shards:
                shard = _Shard(record.tokens or (), bytearray(record.verdicts), stored=True)
                self._shards[record.number] = shard
                for index, code in enumerate(shard.verdicts):
                    position = record.number * SHARD + index
                    match classify(position, known.intended, code):
                        case Known.SETTLED:
                            self._counts[_VERDICT_OF[code]] += 1
                        case Known.NOT_SENT if position < known.intended:
                            self._again(position)
                        case Known.NOT_SENT:
                            self._positions.append(position)
                            self._unintended += 1
                        case Known.UNKNOWN if resend:
                            self._resent += 1
                            self._ready.append(position)
                            self._intents_open += 1
                        case Known.UNKNOWN:
                            unknown.append((position, shard.tokens[index]))
            first = shards[-1].number + 1
        for position, token in unknown:
            self._settle(
                position,
                Outcome(
                    token=token,
                    verdict=Verdict.UNKNOWN,
                    priority=kept.priority,
                    may_have_been_sent=True,
                    detail="the process ended between its intent and its answer; it may have been sent",
                ),
            )
        self._commit(at_once=True)
        if known.exhausted:
            return None
        if self._tokens is None:
            raise DeliveryError(
                f"the source of {self.name!r} was not read to its end; give the same tokens again."
            )
        return Reader(self._tokens, skip=known.read, after=known.after, digest=known.digest)

    def _add(self, tokens: list[str], reader: Reader) -> None:
        number, self._next_shard = self._next_shard, self._next_shard + 1
        self._shards[number] = _Shard(tokens, bytearray(len(tokens)), stored=False)
        start = number * SHARD
        self._positions.extend(range(start, start + len(tokens)))
        self._unintended += len(tokens)
        record = self._record
        record.read += len(tokens)
        record.shards = self._next_shard
        record.after, record.digest = reader.after, reader.digest
        self._touched.add(number)
        self._record_changed = True

    def pump(self) -> None:
        """Let more tokens through the gate of intents, as far as there is room behind it."""
        if self._stopped or self._sendable is None:
            return
        room = AHEAD - self._intents_open - self._unrecorded
        if self._iterated and len(self._unread) >= UNREAD_OUTCOMES:
            room = 0
        positions = self._positions
        if not self._journalled:
            while positions and len(self._ready) < AHEAD and room > 0:
                self._ready.append(positions.popleft())
                self._unintended -= 1
                self._intents_open += 1
                room -= 1
        else:
            while positions and room >= min(STEP, len(positions)):
                batch = [positions.popleft() for _ in range(min(STEP, len(positions)))]
                self._wanted = batch[-1] + 1
                self._unintended -= len(batch)
                self._intents_open += len(batch)
                room -= len(batch)
                self._pending_intents.append(batch)
                self._record_changed = True
                self._commit(at_once=True)
        if self._unintended < READ_AHEAD and len(self._shards) < OPEN_SHARDS:
            self._room.set()

    def _commit(self, *, at_once: bool) -> None:
        if self._journalled:
            self._host.commit(self, at_once=at_once)

    # For the writer.

    def collect(self) -> list[Record]:
        """Return what changed since the last commit."""
        records: list[Record] = []
        for number in self._touched:
            shard = self._shards.get(number)
            if shard is None:
                continue
            if shard.left == 0:
                self._retire(number, shard)
                records.append(
                    ShardRecord(
                        run=self.name, number=number, tokens=None, verdicts=b"", finished=True
                    )
                )
                continue
            records.append(
                ShardRecord(
                    run=self.name,
                    number=number,
                    tokens=None if shard.stored else tuple(shard.tokens),
                    verdicts=bytes(shard.verdicts),
                )
            )
            shard.stored = True
        self._touched.clear()
        records.extend(self._problem_records)
        self._problem_records.clear()
        if self._record_changed:
            self._record.intended = self._wanted
            records.append(msgspec.structs.replace(self._record, counts=dict(self._record.counts)))
            self._record_changed = False
        self._collected_intents = len(self._pending_intents)
        self._collected_unrecorded = self._unrecorded
        return records

    def _retire(self, number: int, shard: _Shard) -> None:
        """Drop a finished shard; its counts move to the run's record."""
        del self._shards[number]
        counts = self._record.counts
        for code in set(shard.verdicts):
            name = _VERDICT_OF[code].value
            counts[name] = counts.get(name, 0) + shard.verdicts.count(code)
        self._record_changed = True

    def committed(self) -> None:
        """Let the intents that were collected last leave: they are safe."""
        for _ in range(self._collected_intents):
            self._ready.extend(self._pending_intents.popleft())
        self._unrecorded -= self._collected_unrecorded
        self._collected_intents = self._collected_unrecorded = 0
        self.pump()
        if self._ready:
            self._host.stir(self)

    # For the delivery around it.

    @property
    def pending(self) -> bool:
        """Whether `take` may return something."""
        return bool(self._ready) and not self._stopped

    def take(self, limit: int, now: float) -> list[object]:
        """Return work items for at most ``limit`` tokens."""
        if self._stopped:
            return []
        if now >= self._last_moment:
            self._expire(now)
            return []
        ready, shards = self._ready, self._shards
        make, sendable = self._host.make_item, self._sendable
        items: list[object] = []
        for _ in range(min(limit, len(ready))):
            position = ready.popleft()
            number, index = divmod(position, SHARD)
            token = shards[number].tokens[index]
            items.append(make(token, sendable, (self, position, None)))
            if self._starts is not None and self._starts.charge(token, now):
                self._over.add(position)
        self._in_flight += len(items)
        self._intents_open -= len(items)
        if not self._journalled or len(ready) < STEP:
            self.pump()
        return items

    def settle(self, position: int, _: object, outcome: Outcome, now: float) -> None:
        """Take the answer to one push."""
        self._in_flight -= 1
        if outcome.verdict is not _ACCEPTED or self._failures or self._over:
            adjusted = self._troubled(position, outcome, now)
            if adjusted is None:
                return
            outcome = adjusted
        self._settle(position, outcome)

    def _troubled(self, position: int, outcome: Outcome, now: float) -> Outcome | None:
        """Return the final outcome, or None when it goes again."""
        failures, attempts = self._failures.pop(position, (0, 0))
        attempts += outcome.attempts
        if position in self._over:
            self._over.discard(position)
            outcome = msgspec.structs.replace(outcome, over_budget=True)
        if outcome.verdict is _ACCEPTED:
            return (
                msgspec.structs.replace(outcome, attempts=attempts)
                if attempts != outcome.attempts
                else outcome
            )
        self.guard.answered(outcome)
        when = again_at(outcome, failures, now, replay_safe=self._encoded.replay_safe)
        if when == NEVER:
            if outcome.may_have_been_sent and outcome.verdict in {
                Verdict.RETRY_LATER,
                Verdict.NOT_SENT,
                Verdict.SLOW_DOWN,
            }:
                outcome = msgspec.structs.replace(outcome, verdict=Verdict.UNKNOWN)
            return msgspec.structs.replace(outcome, attempts=attempts)
        if when >= self._last_moment:
            return msgspec.structs.replace(
                outcome,
                verdict=Verdict.EXPIRED,
                attempts=attempts,
                detail="its deadline, expiration or stale date comes before the next try",
            )
        if self._stopped and outcome.may_have_been_sent:
            return msgspec.structs.replace(outcome, attempts=attempts)
        self._failures[position] = (failures + 1, attempts)
        if not outcome.may_have_been_sent:
            self._mark(position, UNSENT)
        if self._stopped:
            return None
        if when <= now:
            self._again(position)
        else:
            heapq.heappush(self._held, (when, position))
        return None

    def _again(self, position: int) -> None:
        """Let a position that had its intent withdrawn leave again, behind a new intent."""
        self._intents_open += 1
        if not self._journalled:
            self._ready.append(position)
            return
        self._mark(position, PENDING)
        if self._pending_intents and len(self._pending_intents) > self._collected_intents:
            self._pending_intents[-1].append(position)
        else:
            self._pending_intents.append([position])
        self._commit(at_once=True)

    def _settle(self, position: int, outcome: Outcome) -> None:
        number, index = divmod(position, SHARD)
        shard = self._shards[number]
        shard.verdicts[index] = CODE[outcome.verdict]
        shard.left -= 1
        if self._journalled:
            self._touched.add(number)
            self._unrecorded += 1
            if outcome.verdict is not _ACCEPTED:
                self._problem_records.append(
                    ProblemRecord(run=self.name, position=position, outcome=_pack(outcome))
                )
        elif shard.left == 0:
            self._retire(number, shard)
        self._note(outcome)

    def _note(self, outcome: Outcome) -> None:
        self._counts[outcome.verdict] += 1
        if outcome.verdict is not _ACCEPTED and len(self._problems) < PROBLEMS_KEPT:
            self._problems.append(outcome)
        if self._iterated:
            self._unread.append(outcome)
        if self._on_outcome is not None:
            self._on_outcome(outcome)

    def settled_batch(self, accepted: int, now: float) -> None:
        """Finish a batch of answers."""
        del now
        if self.guard.judge(accepted):
            self._stop(self.guard.stopped)
        if self._journalled:
            self._commit(at_once=self._unrecorded >= AHEAD // 2)
        if not self._journalled or self._intents_open + self._unrecorded < AHEAD:
            self.pump()
        if self._iterated:
            self._changed.set()
        self._maybe_done()

    def _maybe_done(self) -> None:
        if self._over_with:
            return
        if self._stopped:
            self._close_down_when_landed()
            return
        waiting = self._positions or self._ready or self._held or self._intents_open
        if self._exhausted and not waiting and self._in_flight == 0:
            self._record.finished = True
            self._record_changed = True
            self._commit(at_once=True)
            self._close_down()

    def next_time(self) -> float | None:
        """Return when `tick` has something to do, None when it has not."""
        if self._over_with:
            return None
        times = [] if self._last_moment == NEVER else [self._last_moment]
        if self._held:
            times.append(self._held[0][0])
        return min(times) if times else None

    def tick(self, now: float) -> None:
        """Queue what was held; end what is past its last moment."""
        while self._held and self._held[0][0] <= now:
            _, position = heapq.heappop(self._held)
            self._again(position)
        if now >= self._last_moment and not self._over_with:
            self._expire(now)

    def _expire(self, now: float) -> None:
        """End it at its last moment: nothing more is read or sent; what was read is answered."""
        del now
        waiting = [*self._positions, *self._ready, *(position for _, position in self._held)]
        for batch in self._pending_intents:
            waiting.extend(batch)
        self._positions.clear()
        self._ready.clear()
        self._held.clear()
        for batch in self._pending_intents:
            batch.clear()
        self._unintended = self._intents_open = 0
        for position in waiting:
            tried = self._failures.pop(position, None)
            number, index = divmod(position, SHARD)
            self._settle(
                position,
                Outcome(
                    token=self._shards[number].tokens[index],
                    verdict=Verdict.EXPIRED if tried else Verdict.NOT_SENT,
                    priority=self._encoded.priority,
                    attempts=tried[1] if tried else 0,
                    detail="the deadline, expiration or stale date passed",
                ),
            )
        self._last_moment = NEVER
        self._stopped = "its deadline, expiration or stale date passed"
        self._commit(at_once=True)
        self._close_down_when_landed()


_VERDICT_OF = {code: verdict for verdict, code in CODE.items()}
