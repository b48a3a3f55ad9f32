"""Sends the newest state of an activity to all its tokens.

A state goes through a lane (timestamp, budget, minimum interval, alerts of replaced states) and becomes a
`Publication`. The `Audience` tracks which tokens have it.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter, OrderedDict
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Unpack

from ..errors import InvalidInput
from ..guard import Guarded
from ..outcome import Outcome, Verdict
from ..payload import End, Update, check_token
from ..refusals import refused
from .audience import Audience, Publication, Variant
from .budget import FULL, Account, Budget, Urgency, charge_of, for_device
from .dispatch import Dispatch
from .encoding import one_spelling
from .journal import ALL, ActivityRecord, Entry, MembersRecord, ProgressRecord, pack
from .lane import HEADROOM_URGENT, Lane, restore_lane
from .lanes import Lanes
from .pacing import NEVER, SpikeGuard, Trouble, follows
from .state import Options, State, Ticket, expired, make_state, unsent
from .statistics import ActivityReport
from .writer import Home

_ACCEPTED = Verdict.ACCEPTED
Standing = Literal["new", "behind", "current"]
CHANGE = End()
"""What a token of an activity must accept."""
PROBLEMS_KEPT = 1000
"""Outcomes kept in a report; ``on_problem`` gets all of them."""
ENDED_KEPT = 4 * 3600.0
"""Seconds that an ended activity without tokens waits for some, if its end has no last moment."""
ACCOUNTS_KEPT = 100_000
"""Unloaded activities whose accounts are remembered."""


class Life(enum.Enum):
    """The state of a live activity. While open, the guard may stop it; `resume` continues it."""

    OPEN = "open"
    OVER = "over"
    """The activity ended on all its phones."""
    CLOSED = "closed"
    """The delivery was closed, or its journal failed."""


class Version(Ticket):
    """Returned by `put`. Await it for the report when every token has this state or a newer one.

    ``number`` is None while the state is held (a minimum interval, timestamps too far ahead);
    ``outcome`` is set only if it was not published (replaced, too old, the delivery closed).
    """

    __slots__ = ("_activity", "number")

    def __init__(self, activity: LiveActivity) -> None:
        super().__init__()
        self._activity = activity
        self.number: int | None = None

    def __await__(self) -> Generator[object, None, ActivityReport]:  # type: ignore[override]
        return self._activity.settled().__await__()


class LiveActivity(Home):
    """One activity on many phones. Made by ``delivery.activity(...)``."""

    def __init__(
        self,
        all_: Activities,
        activity: str,
        *,
        minimum_interval: float | None = None,
        guard: SpikeGuard | None = None,
    ) -> None:
        self.activity = activity
        self.lane = Lane(activity)
        self.audience = Audience()
        self.published = Publication(all_.dispatch.client.prepare)
        self.guard = guard or SpikeGuard()
        self.counts: Counter[str] = Counter()
        """Pushes by verdict, versions that were demoted or over_budget."""
        self.problems: list[Outcome] = []
        self.life = Life.OPEN
        self.changed = True
        """Whether its own record must be written, with a journal."""
        self._all = all_
        self._time = all_.dispatch.time
        self._minimum_interval = (
            all_.minimum_interval if minimum_interval is None else minimum_interval
        )
        self.on_decided: Callable[[int, int, Outcome], object] | None = None
        """Called with a token's index, a version and the outcome, for each version that was sent to
        the token or given up. Skipped versions are not reported.
        """
        self._decided = Guarded(
            lambda *what: self.on_decided and self.on_decided(*what), "on_decided"
        )
        self._settled = asyncio.Event()
        self._ended_until = NEVER
        """When an ended activity without tokens is forgotten."""
        self._closed = ""
        all_.homes[activity] = self
        accounts = all_.accounts.pop(activity, (FULL, FULL))
        self.lane.account, self.published.slow_account = accounts

    def __repr__(self) -> str:
        audience, state = self.audience, ", ended" if self.lane.ended else ""
        return (
            f"<LiveActivity {self.activity!r} {self.life.value}{state}, version {audience.newest}, "
            f"{len(audience)} tokens, {audience.behind} behind>"
        )

    @property
    def over(self) -> bool:
        """Whether it has ended on all its phones."""
        return self.life is Life.OVER

    # Recipients.

    def join(
        self, token: str, *, frequent_pushes_enabled: bool | None = None, standing: Standing = "new"
    ) -> bool:
        """Add a token; it gets the newest state, without earlier alerts.

        ``standing`` is what the caller knows of the token: ``behind`` was a member when the newest
        state was put, so it also gets the alert; ``current`` already has the newest state, even if
        that is held here. Returns False if it is already a member. Raises InvalidToken for a
        malformed token, InvalidInput if it belongs to another activity or has its own push in flight.
        """
        lane = self._all.claim(token, self)
        published, newest = self.published, self.audience.newest
        has = newest if standing == "current" else max(newest - 1, 0)
        place = self.audience.join(token, confirmed=has)
        if frequent_pushes_enabled is not None:
            self.frequent_pushes(token, frequent_pushes_enabled)
        if place is None:
            return False
        if standing == "current" and self.lane.waiting is not None:
            self.audience.ahead.add(place)
        if lane is not None:
            # Its own pushes may have used later timestamps than ours.
            stamp = lane.last_timestamp
            self.lane.last_timestamp = max(self.lane.last_timestamp, stamp)
            if published.current is not None and stamp >= published.timestamp:
                self.audience.troubles[place] = Trouble(may_have_been_sent=True, timestamp=stamp)
        if newest and published.alert_version == newest and standing == "new":
            published.quiet.add(place)
        self.changed |= published.renew(self._time.now(), self._time.step)
        self._all.dispatch.stir(self)
        return True

    def join_all(self, tokens: Iterable[str]) -> int:
        """Add many tokens; return how many were new."""
        return sum(self.join(token) for token in tokens)

    def leave(self, token: str) -> bool:
        """Remove a token; its push in flight continues. Return False if it is not a member."""
        gone = self.audience.leave(token)
        if gone:
            self._all.owners.pop(one_spelling(token), None)
            self._after()
            self._all.dispatch.writer.note(self)
        return gone

    def frequent_pushes(self, token: str, enabled: bool) -> None:
        """Set a device's ``frequentPushesEnabled``; with False it uses the default budget."""
        place = self.audience.index.get(one_spelling(token))
        if place is not None:
            (self.audience.slow.discard if enabled else self.audience.slow.add)(place)

    # States.

    def put(self, message: Update, **options: Unpack[Options]) -> Version:
        """Make ``message`` the newest state. Takes the same time for one token and for a million.

        Options of `Delivery.submit`. Raises InvalidPayload, InvalidInput; ActivityEnded after end.
        """
        if not isinstance(message, Update):
            raise refused(InvalidInput, "put_kind", "message", kind=type(message).__name__)
        return self._offer(message, **options)

    def end(self, message: End | None = None, **options: Unpack[Options]) -> Version:
        """End the activity on all phones. Raises ActivityEnded if it has already ended."""
        options["urgency"] = Urgency.URGENT
        return self._offer(message or End(), **options)

    def _offer(self, message: Update | End, **options: Unpack[Options]) -> Version:
        dispatch = self._all.dispatch
        dispatch.check_open()
        version = Version(self)
        state = make_state(message, dispatch, ticket=version, **options)
        replaced = self.lane.offer(state)
        if replaced is not None:
            replaced[0].ticket.resolve(replaced[1])
        if self.lane.waiting is state:
            self.audience.ahead.clear()  # they lack this one
        self.changed = True
        dispatch.counts["submitted"] += 1
        self.tick(self._time.now())
        if self.lane.waiting is state:
            dispatch.counts["held"] += 1
        dispatch.stir(self)
        return version

    def resume(self) -> None:
        """Continue after the guard has stopped sending."""
        self.guard.reset()
        self._all.dispatch.stir(self)

    # Results.

    async def settled(self) -> ActivityReport:
        """Return the report once every token has the newest state, or cannot get it.

        Returns also when the fan-out is stopped (``report.stopped``) or the delivery closes.
        """
        while not self.idle:
            self._settled.clear()
            await self._settled.wait()
        return self.report

    @property
    def idle(self) -> bool:
        """Whether every token has the newest state, or cannot get it, and none waits."""
        if self.life is Life.CLOSED or self.guard.stopped:
            return True
        return self.audience.behind == 0 and self.lane.waiting is None

    @property
    def report(self) -> ActivityReport:
        """A snapshot."""
        counts = self.counts
        return ActivityReport(
            activity=self.activity,
            version=self.audience.newest,
            tokens=len(self.audience),
            behind=self.audience.behind,
            counts={each: counts[each] for each in Verdict if counts[each] or each is _ACCEPTED},
            problems=tuple(self.problems),
            demoted=counts["demoted"],
            over_budget=counts["over_budget"],
            held=self.lane.waiting is not None,
            ended=self.lane.ended,
            stopped=self.guard.stopped or self._closed,
        )

    # A home of `Dispatch`: publish, take, settle.

    def tick(self, now: float) -> None:
        """Publish due states, queue held ones, give up expired ones."""
        if self.life is not Life.OPEN:
            return
        self.audience.tick(now)
        state = self.lane.waiting
        if state is not None and self._publishes_at(state, now) <= now:
            self._publish(state, now, self._time.wall())
            if self.idle:
                # There are no recipients. An ended activity stays, because tokens may still join.
                self._settled.set()
        if now >= self.published.last_moment and self.audience.behind:
            self._give_up()
        if now >= self._ended_until and self.idle:
            self.finish()

    def _publishes_at(self, state: State, now: float) -> float:
        # A state that is held until its last moment is published too: each token gets an outcome.
        ready = self.lane.ready_at(now, self._time.wall(), self._minimum_interval)
        return min(ready, state.last_moment)

    def next_time(self) -> float:
        """Return when `tick` is due; NEVER if it need not be called."""
        if self.life is not Life.OPEN:
            return NEVER
        first = self.audience.next_time()
        if self.audience.behind and not self.published.expired:
            first = min(first, self.published.last_moment)
        if self.lane.waiting is not None:
            first = min(first, self._publishes_at(self.lane.waiting, self._time.now()))
        if self.idle:
            first = min(first, self._ended_until)
        return first

    def _publish(self, state: State, now: float, wall: float) -> None:
        urgency = Urgency.URGENT if state.is_end else state.urgency
        budget = self._all.budget
        slow = charge_of(for_device(budget, False), self.published.slow_account, urgency, now)
        self.lane.depart(now, wall, budget)
        self.lane.flying = None
        version = self.audience.publish()
        self.published.publish(version, state, slow)
        self.changed = True
        charge = state.charge
        for counts in (self.counts, self._all.dispatch.counts):
            counts["demoted"] += charge.demoted
            counts["over_budget"] += charge.over_budget
        if state.is_end:
            last = state.last_moment
            self._ended_until = now + ENDED_KEPT if last == NEVER else last
        if isinstance(state.ticket, Version):
            state.ticket.number = version

    @property
    def pending(self) -> bool:
        """Whether `take` may return something."""
        return self.audience.pending and self._sends

    @property
    def _sends(self) -> bool:
        return self.life is Life.OPEN and not self.guard.stopped

    def take(self, limit: int, now: float) -> list[object]:
        """Return work items for at most ``limit`` tokens."""
        published = self.published
        if not self.pending or published.current is None:
            return []
        if now >= published.last_moment:
            self._give_up()
            return []
        audience = self.audience
        places = audience.pick(limit)
        if not places:
            return []
        newest, tokens = audience.newest, audience.tokens
        cursor, confirmed = audience.cursor, audience.confirmed
        make = self._all.dispatch.make_item
        usual_version = newest - 1
        usual = published.variant(usual_version)
        special = bool(audience.troubles or audience.slow or published.quiet)
        items: list[object] = []
        for place in places:
            variant = usual
            if special or confirmed[place] != usual_version:
                own = self._variant_for(place, now)
                if own is None:
                    continue
                variant = own
            cursor[place] = newest
            items.append(make(tokens[place], variant.sendable, (self, place, variant)))
        self._touch(places)
        return items

    def _variant_for(self, place: int, now: float) -> Variant | None:
        """Return the encoding for a token that missed a version; None if it has to wait."""
        published, lane, audience = self.published, self.lane, self.audience
        trouble = audience.troubles.get(place)
        doubtful = trouble if trouble is not None and trouble.may_have_been_sent else None
        if doubtful is not None and doubtful.timestamp >= published.timestamp:
            # It may have got this version; a newer timestamp makes the phone accept it again.
            wall = self._time.wall()
            stamp = max(int(wall), lane.last_timestamp + 1)
            set_back = published.is_pressing and lane.last_timestamp > wall + HEADROOM_URGENT
            if stamp > wall + HEADROOM_URGENT and not set_back:
                audience.again(place, stamp - HEADROOM_URGENT + (now - wall), now)
                return None
            lane.last_timestamp = stamp
            published.restamp(stamp)
            self.changed = True
        return published.variant(
            audience.confirmed[place], quiet=place in published.quiet, slow=place in audience.slow
        )

    def leaves(self, place: int, variant: Variant) -> bool:
        """Return whether an item with a committed intent is still sent; otherwise it is queued again."""
        if variant.version == self.audience.newest and self._sends:
            return True
        self.audience.put_back(place)
        self._touch((place,))
        return False

    def settle(self, answers: Sequence[tuple[int, Variant, Outcome]], now: float) -> None:
        """Process the answers to pushes."""
        failed: list[Outcome] = []
        for place, variant, outcome in answers:
            if outcome.verdict is _ACCEPTED:
                if self.on_decided is not None:
                    self._decided(place, variant.version, outcome)
                self.audience.accepted(place, variant.version)
            else:
                failed.append(outcome)
                self._failed(place, variant, outcome, now)
        accepted = len(answers) - len(failed)
        self.counts[_ACCEPTED] += accepted
        if self._all.dispatch.journal is not None:
            self._touch([place for place, _, _ in answers])
        self.guard.judge(accepted, failed)
        self._after()

    def _failed(self, place: int, variant: Variant, outcome: Outcome, now: float) -> None:
        audience = self.audience
        self.counts[outcome.verdict] += 1
        if outcome.verdict is Verdict.DROP_TOKEN:
            token = audience.tokens[place]
            if not audience.dropped(place):
                self._all.owners.pop(one_spelling(token), None)
            self._report(place, variant.version, outcome)
            return
        before = audience.troubles.get(place)
        newest = variant.version == audience.newest
        last = self.published.last_moment if newest else NEVER
        trouble = follows(outcome, before, now, last_moment=last)
        if isinstance(trouble, Outcome):
            audience.accepted(place, variant.version)
            if trouble is not outcome:
                self.counts[trouble.verdict] += 1
            self._report(place, variant.version, trouble)
            return
        if before is not None:
            trouble.timestamp = before.timestamp
        if trouble.may_have_been_sent and newest:
            # An older version has an older timestamp; this version has at most the lane's last one.
            trouble.timestamp = max(trouble.timestamp, self.lane.last_timestamp)
        trouble.may_have_been_sent |= before is not None and before.may_have_been_sent
        trouble.last = None  # a million tokens may fail at once
        audience.troubles[place] = trouble
        audience.again(place, trouble.not_before, now)

    def _touch(self, places: Sequence[int]) -> None:
        if self._all.dispatch.journal is not None:
            self.audience.progressed.update(places)

    def _after(self) -> None:
        if not self.idle:
            return
        self._settled.set()
        if self.lane.ended and self._sends:
            self.finish()

    def _report(self, place: int, version: int, outcome: Outcome) -> None:
        self._decided(place, version, outcome)
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(outcome)
        if self._all.on_problem is not None:
            self._all.on_problem(outcome)

    def _give_up(self) -> None:
        """Give up the newest version for the tokens that do not have it."""
        audience, current = self.audience, self.published.current
        places = audience.give_up_waiting()
        self.published.expired = True
        if not places or current is None:
            return
        self.counts[Verdict.EXPIRED] += len(places)
        everyone = self._all.on_problem or self.on_decided
        for place in places if everyone else places[:PROBLEMS_KEPT]:
            outcome = expired(audience.tokens[place], current.priority, None)
            self._report(place, audience.newest, outcome)
        self._touch(places)
        self._after()
        self._all.dispatch.writer.note(self)

    def finish(self) -> None:
        """Remove the activity from the delivery."""
        if self.life is not Life.OVER:
            self.life = Life.OVER
            self._all.forget(self)

    def close(self, why: str) -> None:
        """Resolve all waiters, because the delivery closes or its journal failed."""
        if self.life is Life.OPEN:
            self.life, self._closed = Life.CLOSED, why
        state, self.lane.waiting = self.lane.waiting, None
        if state is not None:
            state.ticket.resolve(unsent(self.activity, state.encoded.priority, why))
        self._settled.set()

    # Journal entries.

    def collect(self) -> list[Entry]:
        """Return the journal entries of what changed since the last call."""
        name = self.activity
        if self.over:
            return [Entry(kind, name, ALL, None) for kind in ("members", "progress", "activity")]
        entries = self.audience.entries(name)
        if self.changed:
            self.changed = False
            record = self.published.record(name, self.lane.record())
            entries.append(Entry("activity", name, 0, pack(record)))
        return entries

    def restore(
        self,
        record: ActivityRecord,
        shards: Sequence[tuple[MembersRecord, ProgressRecord | None]],
        now: float,
    ) -> int:
        """Restore a live activity from the journal; return how many tokens were in doubt."""
        self.lane = restore_lane(record.lane, now)
        self.published.restore(record)
        self.audience.newest = record.version
        self.changed = False
        if self.lane.ended and self.lane.waiting is None:
            last = self.published.last_moment
            self._ended_until = now + ENDED_KEPT if last == NEVER else last
        in_doubt = self.audience.restore(shards, self.lane.last_timestamp)
        self._all.owners.update(dict.fromkeys(self.audience.index, self))
        return in_doubt


@dataclass(eq=False)
class Activities:
    """The live activities of one delivery, and their shared data."""

    dispatch: Dispatch
    lanes: Lanes
    budget: Budget
    minimum_interval: float
    on_problem: Guarded | None
    homes: dict[str, LiveActivity] = field(default_factory=dict)
    """By name."""
    owners: dict[str, LiveActivity] = field(default_factory=dict)
    """By token, in lower case."""
    accounts: OrderedDict[str, tuple[Account, Account]] = field(default_factory=OrderedDict)
    """The accounts of activities that were unloaded before their end."""

    def let_go(self, home: LiveActivity) -> None:
        """Unload an activity that did not end, and remember its accounts."""
        self.accounts[home.activity] = home.lane.account, home.published.slow_account
        if len(self.accounts) > ACCOUNTS_KEPT:
            self.accounts.popitem(last=False)
        home.finish()

    def owner(self, token: str) -> LiveActivity | None:
        """Return the activity that a token belongs to."""
        return self.owners.get(one_spelling(token))

    def claim(self, token: str, home: LiveActivity) -> Lane | None:
        """Assign a token to an activity. Return the token's own lane, which is removed.

        Raises InvalidToken; InvalidInput for a token of another activity or with a push in flight.
        """
        check_token(token, message=CHANGE)
        owner = self.owners.setdefault(one_spelling(token), home)
        told: dict[str, str] = {"shown": token[:8], "value": owner.activity}
        if owner is not home:
            raise refused(InvalidInput, "token_of_another_activity", "token", **told)
        lane = self.lanes.get(token)
        if lane is not None and not self.lanes.forget(token):
            del self.owners[one_spelling(token)]
            raise refused(InvalidInput, "token_under_way", "token", **told)
        return lane

    def forget(self, home: LiveActivity) -> None:
        """Remove an activity that has ended, and its tokens."""
        del self.homes[home.activity]
        for key in home.audience.index:
            if self.owners.get(key) is home:
                del self.owners[key]
        self.dispatch.leave(home)
        self.dispatch.writer.note(home)
