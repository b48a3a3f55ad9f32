"""A named fan-out that can be resumed after a crash: one outcome for each token of a source.

The caller's side, and the rules for break, cancel, deadline and sources, are those of every fan-out
(`apns_live.client.run`, docs/fan-out.md). The `Ledger` tracks the state of each token; this module
reads, sends, retries and reports.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ..client.attachment import End
from ..client.drops import DropsTo
from ..client.outcomes import refused_token
from ..client.run import UNREAD_LIMIT, BaseRun, Life
from ..errors import DeliveryError, InvalidToken, JournalError
from ..guard import Guarded
from ..outcome import Outcome, Verdict
from ..payload import EncodedMessage, are_tokens, check_token
from .budget import StartAccounts
from .dispatch import AHEAD, Dispatch, Home
from .guard import SpikeGuard
from .journal import PENDING, SHARD, Entry, Journal, RunRecord
from .ledger import VERDICT_OF, Ledger
from .pacing import NEVER, Trouble, follows, last_moment, with_tries
from .sources import Bookmark, Tokens, reader_of
from .state import expired, unsent

_ACCEPTED = Verdict.ACCEPTED
_TOO_LATE = "its deadline or expiration passed"
_IN_DOUBT = "the process ended between its intent and its answer; it may have been sent"
PROBLEMS_KEPT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The report of a fan-out; counts include the time before a restart."""

    name: str
    counts: dict[Verdict, int]
    read: int
    """Tokens read from the source, including repeats that were left out."""
    duplicates: int
    """Repeated tokens that ``dedupe`` left out since the last start."""
    unsettled: int
    """Tokens read that have no outcome yet."""
    exhausted: bool
    """Whether the source was read to its end."""
    finished: bool
    problems: tuple[Outcome, ...]
    """The first 1,000 outcomes other than acceptances since the last start."""
    resent: int
    """Tokens unknown after a crash that were sent again."""
    resumed: bool
    stopped: str
    """Why it was stopped early; empty otherwise."""
    elapsed: float
    """Seconds since the last start."""

    @property
    def verdicts(self) -> dict[Verdict, int]:
        """The counts, named as in every fan-out's report."""
        return self.counts

    @property
    def source_exhausted(self) -> bool:
        """Whether the source was read to its end."""
        return self.exhausted

    @property
    def settled(self) -> int:
        """Tokens that have their outcome."""
        return sum(self.counts.values())

    @property
    def accepted(self) -> int:
        """Tokens whose push APNs accepted."""
        return self.counts.get(Verdict.ACCEPTED, 0)

    @property
    def drop_count(self) -> int:
        """Tokens to delete, according to APNs."""
        return self.counts.get(Verdict.DROP_TOKEN, 0)


@dataclass(slots=True)
class _Tally:
    """Counts for the report of a fan-out."""

    counts: Counter[Verdict] = field(default_factory=Counter)
    problems: list[Outcome] = field(default_factory=list)
    resent: int = 0
    resumed: bool = False
    unread: int = 0
    """Tokens that the source yielded and that were not taken, because the run was stopped."""
    started: float = 0.0
    ended: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.verdict] += 1
        if outcome.verdict is not _ACCEPTED and len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(outcome)


class Run(BaseRun[RunReport], Home):
    """A fan-out under delivery. Made by ``delivery.fan_out(...)``.

    Iterate over it for the outcomes, or ``await run.wait()``; then it starts. 10,000 unread outcomes
    pause it. If you leave it early, nothing more is sent; with a journal you can resume it by its
    name. Raises JournalError if the journal fails.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        under_way: dict[str, Run],
        name: str,
        encoded: EncodedMessage,
        tokens: Tokens | None,
        *,
        dedupe: bool,
        deadline: float | None,
        resend_unknown: bool | None,
        guard: SpikeGuard | None,
        starts: StartAccounts,
        on_outcome: Callable[[Outcome], object] | None,
        drops_to: DropsTo | None,
    ) -> None:
        super().__init__(reader_of(tokens, dedupe=dedupe), drops_to)
        self.name = name
        self._bookmark = Bookmark(self._reader, kept=dispatch.journal is not None)
        self._is_given = tokens is not None
        self.guard = guard or SpikeGuard()
        self._dispatch = dispatch
        self._under = under_way
        self._on_outcome = Guarded(on_outcome, "on_outcome") if on_outcome else None
        self._resend_unknown = resend_unknown
        self._starts = starts if encoded.event == "start" else None
        self._sendable: object = None
        """The message as the client sends it; None before the journal was read."""
        self._last_moment = NEVER
        self._ledger = Ledger(
            RunRecord(name=name, message=encoded, deadline=deadline),
            journalled=dispatch.journal is not None,
        )
        self._tally = _Tally()
        self._in_flight = 0
        self._stopped = ""
        self._opening: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        stopped = f", {self._stopped}" if self._stopped else ""
        return (
            f"<Run {self.name!r} {self.life.value}: read {self._ledger.record.read}, "
            f"waiting {len(self._ledger.queue)}, in flight {self._in_flight}{stopped}>"
        )

    @property
    def report(self) -> RunReport:
        """A snapshot."""
        tally, record = self._tally, self._ledger.record
        read = record.read + tally.unread
        now = self._dispatch.time.now()
        return RunReport(
            name=self.name,
            counts=dict(tally.counts),
            read=read + self._reader.duplicates,
            duplicates=self._reader.duplicates,
            unsettled=read - sum(tally.counts.values()),
            exhausted=record.exhausted or self._reader.exhausted,
            finished=record.finished,
            problems=tuple(tally.problems),
            resent=tally.resent,
            resumed=tally.resumed,
            stopped=self._stopped,
            elapsed=(tally.ended or now) - tally.started if tally.started else 0.0,
        )

    @property
    def _encoded(self) -> EncodedMessage:
        return self._ledger.record.message

    # Start: read the journal, then the source.

    def _begin(self) -> None:
        if self.name in self._under:
            raise DeliveryError(f"a fan-out named {self.name!r} is running; await that one.")
        self._dispatch.check_open()
        self._drops.open()
        self._tally.started = self._dispatch.time.now()
        journal = self._dispatch.journal
        if journal is None:
            self._begin_reading(None)
        self._under[self.name] = self
        if journal is not None:
            self._opening = asyncio.get_running_loop().create_task(
                self._open(journal), name=f"apns-live-run-{self.name}"
            )

    async def _open(self, journal: Journal) -> None:
        try:
            known = await journal.run(self.name)
            if known is not None:
                await self._restore(journal, known)
            self._begin_reading(known)
            self.review()
        except Exception as error:  # noqa: BLE001 - a journal is the caller's own; its error is theirs to see
            self.fail(error)

    def _begin_reading(self, known: RunRecord | None) -> None:
        if known is None and not self._is_given:
            raise DeliveryError(
                f"there is no fan-out named {self.name!r} in the journal; give its tokens to begin it."
            )
        if known is not None and not known.exhausted and not self._is_given:
            raise DeliveryError(
                f"the source of {self.name!r} was not read to its end; give the same tokens again."
            )
        time, record = self._dispatch.time, self._ledger.record
        if known is None:
            self._ledger.changed = True
            if record.deadline is not None:
                record.deadline += time.now()
        self._last_moment = last_moment(
            deadline=record.deadline, expiration=self._encoded.expiration, step=time.step
        )
        self._sendable = self._dispatch.prepare(self._encoded)
        if known is not None:
            self._bookmark.find(known)
        if self.life is not Life.NEW:
            self._open_reader()
            self.resume()

    def _open_reader(self) -> None:
        """Begin to read, once the journal has returned the position."""
        if self._sendable is not None and not self._reader.ended:
            super()._open_reader()

    async def _restore(self, journal: Journal, known: RunRecord) -> None:
        """Resume after a restart, from the verdict bytes of unfinished shards."""
        kept = known.message
        if kept.event != self._encoded.event:
            raise DeliveryError(
                f"the fan-out {self.name!r} in the journal sends {kept.event!r}, not {self._encoded.event!r}. "
                "Use another name for another message."
            )
        tally = self._tally
        tally.resumed = True
        ledger = self._ledger = Ledger(known, journalled=True)
        resend = kept.replay_safe if self._resend_unknown is None else self._resend_unknown
        tally.counts.update({Verdict(name): count for name, count in known.counts.items()})
        doubt = Trouble(attempts=int(resend), may_have_been_sent=True)
        first = 0
        while shards := await journal.shards(self.name, first, 100):
            for number, tokens, verdicts in shards:
                for code, count in Counter(verdicts).items():
                    if code in VERDICT_OF:
                        tally.counts[VERDICT_OF[code]] += count
                for position, token in ledger.load(number, tokens, verdicts):
                    if resend:
                        tally.resent += 1
                        ledger.troubles[position] = doubt
                        ledger.queue.append(position)
                    else:
                        self._settle(position, unsent(token, kept.priority, _IN_DOUBT, doubt))
            first = shards[-1][0] + 1
        self._commit()

    def resume(self) -> None:
        """Read more tokens, if there is room, and send."""
        if not self._sends:
            return
        while self._ledger.wants_tokens:
            tokens = self._bookmark.take(SHARD)
            if not tokens:
                break
            self._take_in(tokens)
        self._dispatch.stir(self)
        if self._reader.ended:
            self.review()

    @property
    def _sends(self) -> bool:
        """Whether tokens may be sent, including those read before the source ended."""
        active = self.life is Life.READING or self.life is Life.LANDING
        return active and not self._stopped and self._sendable is not None

    def _take_in(self, tokens: list[str]) -> None:
        encoded = self._encoded
        refused: dict[int, Outcome] = {}
        told: list[Outcome] = []
        for index, token in enumerate(() if are_tokens(tokens) else tokens):
            try:
                check_token(token, message=encoded)
            except InvalidToken as error:
                outcome = refused_token(token, error, encoded.priority)
                told.append(outcome)
                # A stored token must be one line of text.
                kept = outcome.token.encode("ascii", "backslashreplace").decode()
                tokens[index] = kept = kept.replace("\n", "\\n").replace("\r", "\\r")
                refused[index] = msgspec.structs.replace(outcome, token=kept)
        self._ledger.add(tokens, self._bookmark.after, self._bookmark.digest, refused)
        for outcome in told:
            self._tell(outcome)

    def _commit(self) -> None:
        self._dispatch.commit(self, at_once=True)

    # A home of `Dispatch`.

    @property
    def pending(self) -> bool:
        """Whether `take` may return something."""
        return bool(self._ledger.room) and self._sends and len(self.outbox.unread) < UNREAD_LIMIT

    def take(self, limit: int, now: float) -> list[object]:
        """Return work items for at most ``limit`` tokens."""
        if not self.pending:
            return []
        if now >= self._last_moment:
            self._expire()
            return []
        make, sendable, starts = self._dispatch.make_item, self._sendable, self._starts
        taken = self._ledger.take(limit)
        items = [
            make(
                token, sendable, (self, position, starts is not None and starts.charge(token, now))
            )
            for position, token in taken
        ]
        if self._dispatch.journal is None:
            self._in_flight += len(items)
        return items

    def leaves(self, position: int, _: object) -> bool:
        """Return True if a token must still be sent, now that its intent is committed."""
        left = self._ledger.leave(position)
        self._in_flight += left
        return left

    @property
    def unrecorded(self) -> bool:
        """Whether `collect` has something."""
        return self._ledger.dirty

    def collect(self) -> list[Entry]:
        """Return the journal entries of what changed since the last commit."""
        return self._ledger.collect()

    def committed(self) -> None:
        """Note that the entries last returned by `collect` are committed, and send more."""
        self._ledger.committed()
        self.resume()

    def settle(self, position: int, over_budget: bool, outcome: Outcome, now: float) -> None:
        """Process the answer to one push: the token is settled, or sent again."""
        if self.life is Life.OVER:
            return
        self._in_flight -= 1
        ledger = self._ledger
        trouble = ledger.troubles.pop(position, None) if ledger.troubles else None
        if over_budget:
            outcome = msgspec.structs.replace(outcome, over_budget=True)
        outcome = with_tries(outcome, trouble)
        if outcome.verdict is not _ACCEPTED:
            self.guard.answered(outcome)
            safe, last = self._encoded.replay_safe, self._last_moment
            next_ = follows(outcome, trouble, now, replay_safe=safe, last_moment=last)
            if isinstance(next_, Trouble):
                ledger.troubles[position] = next_
                if not next_.may_have_been_sent:
                    ledger.unsent(position)
                if not self._stopped and next_.not_before > now:
                    heapq.heappush(ledger.held, (next_.not_before, position))
                elif not self._stopped:
                    ledger.queue.appendleft(position)
                return
            outcome = next_
        self._settle(position, outcome)

    def _settle(self, position: int, outcome: Outcome) -> None:
        self._ledger.settle(position, outcome)
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        self._tally.add(outcome)
        if outcome.verdict is Verdict.DROP_TOKEN:
            self._drops.write(outcome)
        if self.outbox.kept:
            self.outbox.unread.append(outcome)
        if self._on_outcome is not None:
            self._on_outcome(outcome)

    def settled_batch(self, accepted: int) -> None:
        """Finish a batch of answers."""
        if self.guard.judge(accepted):
            self._stopped = self.guard.stopped
            self.stop()
        if self._ledger.unrecorded >= AHEAD // 2:
            self._commit()
        self.resume()
        self.outbox.tell()
        self.review()

    def next_time(self) -> float | None:
        """Return when `tick` is due, or None."""
        if self.life is not Life.READING and self.life is not Life.LANDING:
            return None
        held = self._ledger.held
        first = min(self._last_moment, held[0][0]) if held else self._last_moment
        return None if first == NEVER else first

    def tick(self, now: float) -> None:
        """Queue tokens whose time has come; end the run at its last moment."""
        if self.life is Life.OVER:
            return
        ledger = self._ledger
        while ledger.held and ledger.held[0][0] <= now:
            ledger.queue.appendleft(heapq.heappop(ledger.held)[1])
        if now >= self._last_moment:
            self._expire()

    # The end.

    def _expire(self) -> None:
        """End the run at its last moment: stop reading and sending."""
        self._last_moment = NEVER
        self._stopped = self._stopped or _TOO_LATE
        self.halt(End.DEADLINE)
        self._withdraw()
        self.outbox.tell()
        self.review()

    def halt(self, end: End) -> None:
        """Stop reading tokens for the reason ``end``; the first reason counts."""
        super().halt(end)
        if self.end is End.EXHAUSTED:
            self._ledger.record.exhausted = True
            self._ledger.changed = True
            self._dispatch.commit(self)

    def _withdraw(self) -> None:
        """Stop sending. Unsent tokens get their outcomes after the last answer."""
        why = "it was closed before its end"
        if self.end is End.FAILED:
            why = str(self._failure) or repr(self._failure)
        self._stopped = self._stopped or why
        self._ledger.withdraw()
        self._commit()

    def _never_left(self, tokens: list[str]) -> None:
        tokens = tokens[self._bookmark.skip :]
        self._tally.unread += len(tokens)
        for token in tokens:
            why = self._stopped or self.end.value
            name = token if isinstance(token, str) else f"<{type(token).__name__}>"
            self._tell(unsent(name, self._encoded.priority, why))

    def _under_way(self) -> bool:
        if self._in_flight:
            return True
        return not self._stopped and self._ledger.waiting

    def _ended(self) -> None:
        ledger = self._ledger
        self._tally.ended = self._dispatch.time.now()
        if self._stopped:
            # Unless it is too late, the journal stores these as unsent, and a run of the same name
            # continues them.
            priority, why = self._encoded.priority, self._stopped
            for position, token, _ in ledger.unsettled():
                trouble = self._ledger.troubles.get(position)
                if why is not _TOO_LATE:
                    self._tell(unsent(token, priority, why, trouble))
                elif trouble is None:
                    self._settle(position, unsent(token, priority, why))
                else:
                    self._settle(position, expired(token, priority, trouble, why))
        elif ledger.record.exhausted:
            ledger.record.finished = True
            ledger.changed = True
        self._commit()
        if self._opening is not None:
            self._opening.cancel()
        if self._under.get(self.name) is self:
            del self._under[self.name]
        self._dispatch.leave(self)

    async def _release(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait((self._opening,))
        await super()._release()
        writer = self._dispatch.writer
        # A closing delivery writes the rest itself.
        open_ = writer is not None and not writer.closing and self._dispatch.error is None
        if writer is not None and open_ and self._failure is None:
            try:
                await writer.flush(self)
            except JournalError as error:
                self._failure = self._failure or error

    def abandon(self, why: str) -> None:
        """End the run at once, because the delivery closes."""
        self._stopped = self._stopped or why
        self.halt(End.CLOSED)
        self._withdraw()
        if self._in_flight:
            self._in_flight = 0
            waiting = set(self._ledger.queue)
            for position, _, code in self._ledger.unsettled():
                if code == PENDING and position not in waiting:
                    before = self._ledger.troubles.get(position) or Trouble()
                    self._ledger.troubles[position] = Trouble(
                        attempts=before.attempts + 1, may_have_been_sent=True
                    )
        self.review()
