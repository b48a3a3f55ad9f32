"""A named fan-out: tokens from a source, one outcome each, and nothing lost when the process dies.

What is where is the `Ledger`'s business; here it is read, sent, tried again and told.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import msgspec

from ..errors import DeliveryError
from ..outcome import Outcome, Verdict
from ..payload import EncodedMessage
from .budget import StartAccounts
from .encoding import from_journal, to_journal
from .journal import Journal, Known, Record, RunRecord
from .ledger import AHEAD, STEP, Ledger, verdict_of
from .pacing import NEVER, SpikeGuard, Trouble, again_at, last_moment
from .sources import Reader, Tokens

_ACCEPTED = Verdict.ACCEPTED
UNREAD_OUTCOMES = 10_000
PROBLEMS_KEPT = 1000


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
        self._sendable: object = None
        self._last_moment = NEVER
        self._ledger = Ledger(
            RunRecord(name=name, message=to_journal(encoded)), journalled=self._journalled
        )
        self._held: list[tuple[float, int]] = []
        self._troubles: dict[int, Trouble] = {}
        self._over: set[int] = set()
        self._in_flight = 0
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
            f"<Run {self.name!r} read {self._ledger.record.read}, ready {len(self._ledger.ready)}, "
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
            read=self._ledger.record.read,
            unsettled=self._ledger.record.read - sum(counts.values()),
            exhausted=self._exhausted,
            finished=self._ledger.record.finished,
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
        """Let nothing more leave; what was read and not sent is NOT_SENT in this life."""
        if self._stopped:
            return
        self._stopped = why
        for position in (*self._ledger.withdraw(), *(position for _, position in self._held)):
            trouble = self._troubles.get(position)
            if trouble is None or not trouble.may_have_been_sent:
                self._ledger.unsent(position)
        self._held.clear()
        self._commit(at_once=True)
        self._close_down_when_landed()

    def _close_down_when_landed(self) -> None:
        if not self._stopped or self._in_flight or self._over_with:
            return
        # The journal keeps these as unsent: the same name goes on with them.
        for position, token in self._ledger.unsettled():
            trouble = self._troubles.get(position)
            doubt = bool(trouble and trouble.may_have_been_sent)
            self._note(
                Outcome(
                    token=token,
                    verdict=Verdict.UNKNOWN if doubt else Verdict.NOT_SENT,
                    priority=self._encoded.priority,
                    attempts=trouble.attempts if trouble else 0,
                    may_have_been_sent=doubt,
                    detail=self._stopped,
                )
            )
        self._close_down()

    def fail(self, error: BaseException) -> None:
        """End with an error: the journal failed, or the source did."""
        self._error = error
        self._stopped = self._stopped or str(error)
        self._close_down()

    async def _read(self) -> None:
        try:
            reader = await self._open()
            ledger = self._ledger
            while reader is not None and not self._stopped:
                while not ledger.wants_tokens:
                    self._room.clear()
                    await self._room.wait()
                tokens = await reader.next()
                if not tokens:
                    break
                ledger.add(tokens, reader.after, reader.digest)
                self.pump()
                self._host.stir(self)
                # A plain iterable never waits: let the others have the loop between two shards.
                await asyncio.sleep(0)
            if reader is not None:
                self._exhausted = ledger.record.exhausted = reader.exhausted
                ledger.changed = True
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
            if self._deadline is not None:
                self._ledger.record.deadline = self._host.now() + self._deadline
            reader = Reader(self._tokens)
        else:
            reader = await self._restore(journal, known)
        encoded = self._encoded
        self._last_moment = last_moment(
            deadline=self._ledger.record.deadline,
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
        self._encoded, self._resumed, self._exhausted = kept, True, known.exhausted
        ledger = self._ledger = Ledger(known, journalled=True)
        ledger.changed = False
        resend = kept.replay_safe if self._resend_unknown is None else self._resend_unknown
        self._counts.update({Verdict(name): count for name, count in known.counts.items()})
        first = 0
        while shards := await journal.shards(self.name, first, 100):
            for record in shards:
                for position, token, what, code in ledger.load(record):
                    if what is Known.SETTLED:
                        self._counts[verdict_of(code)] += 1
                    elif what is Known.UNKNOWN and resend:
                        self._resent += 1
                        self._troubles[position] = Trouble(attempts=1, may_have_been_sent=True)
                        ledger.resend(position)
                    elif what is Known.UNKNOWN:
                        self._settle(position, _in_doubt(token, kept.priority))
            first = shards[-1].number + 1
        self._commit(at_once=True)
        if known.exhausted:
            return None
        if self._tokens is None:
            raise DeliveryError(
                f"the source of {self.name!r} was not read to its end; give the same tokens again."
            )
        return Reader(self._tokens, skip=known.read, after=known.after, digest=known.digest)

    def pump(self) -> None:
        """Let more tokens through the gate of intents, as far as there is room behind it."""
        if self._stopped or self._sendable is None:
            return
        if not (self._iterated and len(self._unread) >= UNREAD_OUTCOMES) and self._ledger.intend():
            self._commit(at_once=True)
        if self._ledger.wants_tokens:
            self._room.set()

    def _commit(self, *, at_once: bool) -> None:
        if self._journalled:
            self._host.commit(self, at_once=at_once)

    # For the writer.

    def collect(self) -> list[Record]:
        """Return what changed since the last commit."""
        return self._ledger.collect()

    def committed(self) -> None:
        """Let the intents that were collected last leave: they are safe."""
        self._ledger.committed()
        self.pump()
        if self._ledger.ready:
            self._host.stir(self)

    # For the delivery around it.

    @property
    def pending(self) -> bool:
        """Whether `take` may return something."""
        return bool(self._ledger.ready) and not self._stopped

    def take(self, limit: int, now: float) -> list[object]:
        """Return work items for at most ``limit`` tokens."""
        if self._stopped:
            return []
        if now >= self._last_moment:
            self._expire()
            return []
        make, sendable, starts = self._host.make_item, self._sendable, self._starts
        left = self._ledger.take(limit)
        items = [make(token, sendable, (self, position, None)) for position, token in left]
        if starts is not None:
            self._over.update(position for position, token in left if starts.charge(token, now))
        self._in_flight += len(items)
        if not self._journalled or len(self._ledger.ready) < STEP:
            self.pump()
        return items

    def settle(self, position: int, _: object, outcome: Outcome, now: float) -> None:
        """Take the answer to one push."""
        self._in_flight -= 1
        if outcome.verdict is not _ACCEPTED or self._troubles or self._over:
            final = self._considered(position, outcome, now)
            if final is None:
                return
            outcome = final
        self._settle(position, outcome)

    def _considered(self, position: int, outcome: Outcome, now: float) -> Outcome | None:
        """Return the final outcome of a push, or None when it goes again."""
        trouble = self._troubles.pop(position, None)
        if position in self._over:
            self._over.discard(position)
            outcome = msgspec.structs.replace(outcome, over_budget=True)
        accepted = outcome.verdict is _ACCEPTED
        if trouble is not None:
            doubt = outcome.may_have_been_sent or (trouble.may_have_been_sent and not accepted)
            outcome = msgspec.structs.replace(
                outcome, attempts=outcome.attempts + trouble.attempts, may_have_been_sent=doubt
            )
        if accepted:
            return outcome
        self.guard.answered(outcome)
        failures = trouble.failures if trouble else 0
        when = again_at(outcome, failures, now, replay_safe=self._encoded.replay_safe)
        if when == NEVER:
            if outcome.may_have_been_sent and outcome.verdict in _TRIED_AGAIN:
                return msgspec.structs.replace(outcome, verdict=Verdict.UNKNOWN)
            return outcome
        if when >= self._last_moment:
            return msgspec.structs.replace(
                outcome,
                verdict=Verdict.EXPIRED,
                detail="its deadline, expiration or stale date comes before the next try",
            )
        doubt = outcome.may_have_been_sent
        self._troubles[position] = Trouble(failures + 1, when, outcome.attempts, doubt)
        if not doubt:
            self._ledger.unsent(position)
        if self._stopped:
            return None
        if when > now:
            heapq.heappush(self._held, (when, position))
        elif self._ledger.again(position):
            self._commit(at_once=True)
        return None

    def _settle(self, position: int, outcome: Outcome) -> None:
        self._ledger.settle(position, outcome)
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
            self._commit(at_once=self._ledger.unrecorded >= AHEAD // 2)
        if self._ledger.has_room:
            self.pump()
        if self._iterated:
            self._changed.set()
        self._maybe_done()

    def _maybe_done(self) -> None:
        if self._over_with:
            return
        if self._stopped:
            self._close_down_when_landed()
        elif self._exhausted and not (self._ledger.waiting or self._held or self._in_flight):
            self._ledger.record.finished = True
            self._ledger.changed = True
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
            if self._ledger.again(position):
                self._commit(at_once=True)
        if now >= self._last_moment and not self._over_with:
            self._expire()

    def _expire(self) -> None:
        """End it at its last moment: nothing more is read or sent; what was read is answered."""
        self._last_moment = NEVER
        late = [*self._ledger.give_up(), *(position for _, position in self._held)]
        self._held.clear()
        for position in late:
            tried = self._troubles.pop(position, None)
            self._settle(
                position,
                Outcome(
                    token=self._ledger.token(position),
                    verdict=Verdict.EXPIRED if tried else Verdict.NOT_SENT,
                    priority=self._encoded.priority,
                    attempts=tried.attempts if tried else 0,
                    may_have_been_sent=bool(tried and tried.may_have_been_sent),
                    detail="the deadline, expiration or stale date passed",
                ),
            )
        self._stopped = "its deadline, expiration or stale date passed"
        self._commit(at_once=True)
        self._close_down_when_landed()


_TRIED_AGAIN = frozenset({Verdict.RETRY_LATER, Verdict.NOT_SENT, Verdict.SLOW_DOWN})


def _in_doubt(token: str, priority: int) -> Outcome:
    return Outcome(
        token=token,
        verdict=Verdict.UNKNOWN,
        priority=priority,
        may_have_been_sent=True,
        detail="the process ended between its intent and its answer; it may have been sent",
    )
