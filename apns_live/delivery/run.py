"""A named fan-out that can be resumed after a crash: one outcome for each token of a source.

It is a run of the client (`apns_live.client.run`, docs/fan-out.md) whose pushes pass the gate of
`dispatch`. The `Ledger` tracks the state of each token; this module reads, sends and retries.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import msgspec

from ..client import run as client_run
from ..client.attachment import End
from ..client.edge import DropsTo
from ..client.outcomes import refused_tokens
from ..client.run import UNREAD_LIMIT, Life
from ..client.statistics import Counts, Report
from ..errors import DeliveryError, JournalError
from ..guard import Guarded
from ..outcome import Outcome, Verdict
from ..payload import EncodedMessage
from .budget import StartAccounts
from .dispatch import AHEAD, Dispatch
from .journal import PENDING, SHARD, Entry, Journal, RunRecord
from .ledger import VERDICT_OF, Ledger
from .pacing import NEVER, SpikeGuard, Trouble, follows, last_moment, with_tries
from .sources import Bookmark, Tokens, reader_of
from .state import expired, unsent
from .writer import Home

_ACCEPTED = Verdict.ACCEPTED
_TOO_LATE = "its deadline or expiration passed"
_IN_DOUBT = "the process ended between its intent and its answer; it may have been sent"
PROBLEMS_KEPT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport(Report):
    """The report of a fan-out under delivery.

    Counts by verdict include the time before a restart; reasons, drops and times do not.
    """

    name: str
    unsettled: int
    """Tokens read that have no outcome yet."""
    finished: bool
    problems: tuple[Outcome, ...]
    """The first 1,000 outcomes other than acceptances since the last start."""
    resent: int
    """Tokens unknown after a crash that were sent again."""
    resumed: bool
    stopped: str
    """Why it was stopped early; empty otherwise."""

    @property
    def counts(self) -> Mapping[Verdict, int]:
        """The counts by verdict; the same as ``verdicts``."""
        return self.verdicts

    @property
    def exhausted(self) -> bool:
        """Whether the source was read to its end; the same as ``source_exhausted``."""
        return self.source_exhausted


class Run(client_run.Run, Home):
    """A fan-out under delivery. Made by ``delivery.fan_out(...)``.

    Iterate over it for the outcomes, or ``await run.wait()``; then it starts. 10,000 unread outcomes
    pause it. If you leave it early, nothing more is sent; with a journal you can resume it by its
    name. Raises JournalError if the journal fails.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        under_way: dict[str, Run],
        record: RunRecord,
        tokens: Tokens | None,
        *,
        dedupe: bool,
        resend_unknown: bool | None,
        guard: SpikeGuard | None,
        starts: StartAccounts,
        on_outcome: Callable[[Outcome], object] | None,
        drops_to: DropsTo | None,
    ) -> None:
        super().__init__(
            dispatch.clock,
            reader_of(tokens, dedupe=dedupe),
            priority=record.message.priority,
            drops_to=drops_to,
            may_start=self.check_start,
        )
        journalled = dispatch.journal is not None
        self.name = record.name
        self.guard = guard or SpikeGuard()
        self._bookmark = Bookmark(self._reader, kept=journalled, given=tokens is not None)
        self._dispatch = dispatch
        self._under = under_way
        self._on_outcome = Guarded(on_outcome, "on_outcome") if on_outcome else None
        self._resend_unknown = resend_unknown
        self._starts = starts if record.message.event == "start" else None
        self._sendable: object = None
        """The message as the client sends it; None before the journal was read."""
        self._last_moment = NEVER
        self._ledger = Ledger(record, journalled=journalled)
        self._settled: list[Outcome] = []
        """The outcomes of the current batch."""
        self._problems: list[Outcome] = []
        self._unread = 0
        """Tokens that the source yielded and that were not taken, because the run was stopped."""
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
        ledger, base = self._ledger, super().report
        read = ledger.record.read + self._unread
        facts = {each.name: getattr(base, each.name) for each in fields(base)}
        facts["read"] = read + base.duplicates
        facts["source_exhausted"] |= ledger.record.exhausted
        return RunReport(
            **facts,
            name=self.name,
            unsettled=read - base.settled,
            finished=ledger.record.finished,
            problems=tuple(self._problems),
            resent=ledger.resent,
            resumed=ledger.resumed,
            stopped=self._stopped,
        )

    async def wait(self) -> RunReport:
        """Send to every token, discard the outcomes, and return the report; see docs/fan-out.md."""
        await super().wait()
        return self.report

    @property
    def _encoded(self) -> EncodedMessage:
        return self._ledger.record.message

    # Start: read the journal, then the source.

    def check_start(self) -> None:
        """Raise DeliveryError if this name is running, ClientClosed or JournalError if it cannot."""
        if self.name in self._under:
            raise DeliveryError(f"a fan-out named {self.name!r} is running; await that one.")
        self._dispatch.check_open()

    def _begin(self) -> None:
        journal = self._dispatch.journal
        if journal is None:
            self._prepare(None)
        else:
            self._opening = asyncio.get_running_loop().create_task(
                self._open(journal), name=f"apns-live-run-{self.name}"
            )
        self._under[self.name] = self

    async def _open(self, journal: Journal) -> None:
        try:
            known = await journal.run(self.name)
            if known is not None:
                await self._restore(journal, known)
            self._prepare(known)
            self._open_reader()
            self.resume()
            self.review()
        except Exception as error:  # noqa: BLE001 - a journal is the caller's own; its error is theirs to see
            self.fail(error)

    def _prepare(self, known: RunRecord | None) -> None:
        if not self._bookmark.given and (known is None or not known.exhausted):
            problem = (
                f"there is no fan-out named {self.name!r} in the journal; give its tokens to begin it."
                if known is None
                else f"the source of {self.name!r} was not read to its end; give the same tokens again."
            )
            raise DeliveryError(problem)
        time, record = self._dispatch.time, self._ledger.record
        if known is not None:
            self._bookmark.find(known)
        else:
            self._ledger.changed = True
            if record.deadline is not None:
                record.deadline += time.now()
        self._last_moment = last_moment(
            deadline=record.deadline, expiration=self._encoded.expiration, step=time.step
        )
        self._sendable = self._dispatch.client.prepare(self._encoded)

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
        ledger = self._ledger = Ledger(known, journalled=True)
        ledger.resumed = True
        resend = kept.replay_safe if self._resend_unknown is None else self._resend_unknown
        before = Counter({Verdict(name): count for name, count in known.counts.items()})
        doubt = Trouble(attempts=int(resend), may_have_been_sent=True)
        first = 0
        while shards := await journal.shards(self.name, first, 100):
            for number, tokens, verdicts in shards:
                for code, count in Counter(verdicts).items():
                    if code in VERDICT_OF:
                        before[VERDICT_OF[code]] += count
                for position, token in ledger.load(number, tokens, verdicts):
                    if resend:
                        ledger.resent += 1
                        ledger.troubles[position] = doubt
                        ledger.queue.append(position)
                    else:
                        self._settle(position, unsent(token, kept.priority, _IN_DOUBT, doubt))
            first = shards[-1][0] + 1
        self.tally.counts.merge(Counts.of(before))
        self._tell_settled()
        self._commit()

    def resume(self) -> None:
        """Read more tokens, if there is room, and send."""
        if not self._sends:
            return
        while self._ledger.wants_tokens and (tokens := self._bookmark.take(SHARD)):
            self._take_in(tokens)
        self._dispatch.stir(self)
        if self._reader.ended:
            self.review()

    @property
    def _sends(self) -> bool:
        """Whether tokens may be sent, including those read before the source ended."""
        return self.is_active() and not self._stopped and self._sendable is not None

    def _take_in(self, tokens: list[str]) -> None:
        refused = refused_tokens(tokens, self._encoded)
        told = list(refused.values())
        for index, outcome in refused.items():
            # A stored token must be one line of text.
            kept = outcome.token.encode("ascii", "backslashreplace").decode()
            tokens[index] = kept = kept.replace("\n", "\\n").replace("\r", "\\r")
            refused[index] = msgspec.structs.replace(outcome, token=kept)
        self._ledger.add(tokens, self._bookmark.after, self._bookmark.digest, refused)
        if told:
            self.tell(told)

    def _commit(self) -> None:
        self._dispatch.writer.note(self, at_once=True)

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
        items = [
            make(
                token, sendable, (self, position, starts is not None and starts.charge(token, now))
            )
            for position, token in self._ledger.take(limit)
        ]
        if self._dispatch.journal is None:
            self._in_flight += len(items)
        return items

    def leaves(self, position: int, _: object) -> bool:
        """Return True if a token must still be sent, now that its intent is committed."""
        left = self._ledger.leave(position)
        self._in_flight += left
        return left

    def collect(self) -> list[Entry]:
        """Return the journal entries of what changed since the last commit."""
        return self._ledger.collect()

    def committed(self) -> None:
        """Note that the entries last returned by `collect` are committed, and send more."""
        self._ledger.committed()
        self.resume()

    def settle(self, answers: Sequence[tuple[int, bool, Outcome]], now: float) -> None:
        """Process the answers to pushes: each token is settled, or sent again."""
        if self.life is Life.OVER:
            return
        self._in_flight -= len(answers)
        for position, over_budget, outcome in answers:
            self._answered(position, over_budget, outcome, now)
        self._tell_settled()
        failed = [outcome for _, _, outcome in answers if outcome.verdict is not _ACCEPTED]
        if self.guard.judge(len(answers) - len(failed), failed):
            self._stopped = self.guard.stopped
            self.stop()
        if self._ledger.unrecorded >= AHEAD // 2:
            self._commit()
        self.resume()
        self.review()

    def _answered(self, position: int, over_budget: bool, outcome: Outcome, now: float) -> None:
        ledger = self._ledger
        trouble = ledger.troubles.pop(position, None) if ledger.troubles else None
        if over_budget:
            outcome = msgspec.structs.replace(outcome, over_budget=True)
        outcome = with_tries(outcome, trouble)
        if outcome.verdict is not _ACCEPTED:
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
        self._settled.append(outcome)

    def _tell_settled(self) -> None:
        settled, self._settled = self._settled, []
        self.tell(settled)

    def tell(self, outcomes: list[Outcome]) -> None:
        """Count outcomes and pass them to the caller."""
        super().tell(outcomes)
        room = PROBLEMS_KEPT - len(self._problems)
        if room:
            problems = [each for each in outcomes if each.verdict is not _ACCEPTED]
            self._problems += problems[:room]
        if self._on_outcome is not None:
            for outcome in outcomes:
                self._on_outcome(outcome)

    def next_time(self) -> float:
        """Return when `tick` is due."""
        held = self._ledger.held
        first = min(self._last_moment, held[0][0]) if held else self._last_moment
        return first if self.is_active() else NEVER

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
        self.give_up(End.DEADLINE)

    def halt(self, end: End) -> None:
        """Stop reading tokens for the reason ``end``; the first reason counts."""
        super().halt(end)
        if self.end is End.EXHAUSTED:
            self._ledger.record.exhausted = True
            self._ledger.changed = True
            self._dispatch.writer.note(self)

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
        self._unread += len(tokens)
        why, priority = self._stopped or self.end.value, self._encoded.priority
        names = [each if isinstance(each, str) else f"<{type(each).__name__}>" for each in tokens]
        self.tell([unsent(name, priority, why) for name in names])

    def _under_way(self) -> bool:
        return bool(self._in_flight or (not self._stopped and self._ledger.waiting))

    def _ended(self) -> None:
        ledger = self._ledger
        super()._ended()
        if self._stopped:
            # Unless it is too late, the journal stores these as unsent, and a later run sends them.
            priority, why = self._encoded.priority, self._stopped
            for position, token, _ in ledger.unsettled():
                trouble = ledger.troubles.get(position)
                if why is not _TOO_LATE:
                    self._settled.append(unsent(token, priority, why, trouble))
                elif trouble is None:
                    self._settle(position, unsent(token, priority, why))
                else:
                    self._settle(position, expired(token, priority, trouble, why))
        elif ledger.record.exhausted:
            ledger.record.finished = True
            ledger.changed = True
        self._tell_settled()
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
        open_ = not writer.closing and self._dispatch.error is None
        if open_ and self._failure is None:
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
