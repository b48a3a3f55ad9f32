"""Live fan-out: one state to all the tokens of an activity, and only the newest.

What is published goes through a lane (timestamp, budget, minimum interval, alerts carried while a
state is held); who has it is the audience's business. A state is encoded once per version. Tokens
differ only in what they missed: one that did not get the last alert, or the last push at priority
10, gets it with the newest state, so there are at most a handful of encodings of one version.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from typing import Literal, Protocol

import msgspec

from ..errors import InvalidInput
from ..outcome import Outcome, Verdict
from ..payload import EncodedMessage, End, Message, Update
from .activity_report import ActivityReport
from .audience import Audience
from .budget import Budget, Urgency, UrgencyName, decide, for_device
from .encoding import carry_alert, restamp, without_alert
from .lane import HEADROOM_URGENT, Lane, State, superseded
from .pacing import NEVER, SpikeGuard, Trouble, again_at
from .tickets import Ticket

_ACCEPTED = Verdict.ACCEPTED
Standing = Literal["new", "behind", "current"]
PROBLEMS_KEPT = 1000
"""Outcomes kept in a report; the hook sees all."""


class Variant:
    """One encoding of a version, as the client sends it."""

    __slots__ = ("sendable", "version")

    def __init__(self, version: int, sendable: object) -> None:
        self.version = version
        self.sendable = sendable


class Version(Ticket):
    """What `put` returns: awaiting it gives the report once every token has this state or a newer one.

    ``number`` is None while the state is held (a minimum interval, timestamps too far ahead);
    ``outcome`` is set only when it was replaced before it was published, or too old.
    """

    __slots__ = ("_activity", "number")

    def __init__(self, activity: LiveActivity) -> None:
        super().__init__()
        self._activity = activity
        self.number: int | None = None

    def __await__(self) -> Generator[object, None, ActivityReport]:  # type: ignore[override]
        return self._activity.settled().__await__()


class Host(Protocol):
    """What an activity needs of the delivery around it."""

    def now(self) -> float:
        """Return seconds since 1970."""

    def state(
        self,
        message: Message,
        lane: Lane | None,
        *,
        urgency: Urgency | UrgencyName | None,
        revision: int | None,
        deadline: float | None,
        ticket: Ticket | None,
    ) -> State:
        """Check and encode a message."""

    def prepare(self, encoded: EncodedMessage) -> object:
        """Return the message as the client sends it."""

    def make_item(self, token: str, sendable: object, context: object) -> object:
        """Return a work item of the client."""

    def stir(self, home: LiveActivity) -> None:
        """Something may leave, or wants to be asked at another time."""

    def joining(self, token: str, activity: LiveActivity) -> Lane | None:
        """Claim a token; return its own lane, which ends by that. Raises InvalidInput."""

    def parting(self, token: str) -> None:
        """Release a token."""

    def finished(self, activity: LiveActivity) -> None:
        """Forget an activity that ended and has nothing left to do."""


class LiveActivity:
    """One activity on many phones. Made by ``delivery.activity(...)``."""

    def __init__(
        self,
        host: Host,
        activity: str,
        *,
        budget: Budget,
        minimum_interval: float = 0.0,
        guard: SpikeGuard | None = None,
        on_problem: Callable[[Outcome], object] | None = None,
    ) -> None:
        self.activity = activity
        self.lane = Lane(activity)
        self.audience = Audience()
        self.guard = guard or SpikeGuard()
        self.journalled = False
        self.changed = True
        self.touched: set[int] = set()
        """Places whose progress is to be written, with a journal."""
        self.queued = False
        self.over = False
        """Whether it ended on all its phones."""
        self.current: EncodedMessage | None = None
        self.alert: EncodedMessage | None = None
        self.alert_version = self.ten_version = self.slow_ten_version = 0
        self.slow_full_at = 0.0
        self.last_moment = NEVER
        self.demoted = self.over_budget = self.accepted_count = 0
        self.submitted = self.held_back = 0
        self.on_decided: Callable[[int, int, Outcome], object] | None = None
        """Called with the place of a token, a version, and what that version came to for it: once
        for each version that a token was sent or given up for, not for those that it skipped."""
        self._host = host
        self._budget = budget
        self._minimum_interval = minimum_interval
        self._on_problem = on_problem
        self._expired_version = 0
        self._lifetime = 0.0
        self._quiet: set[int] = set()
        self._variants: dict[tuple[bool, bool, int], Variant] = {}
        self._counts: Counter[Verdict] = Counter()
        self._problems: list[Outcome] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._closed = ""

    def __repr__(self) -> str:
        audience = self.audience
        return (
            f"<LiveActivity {self.activity!r} version {audience.newest}, {len(audience)} tokens, "
            f"{audience.behind} behind{', ended' if self.lane.ended else ''}>"
        )

    def join(
        self,
        token: str,
        *,
        frequent_pushes_enabled: bool | None = None,
        standing: Standing = "new",
    ) -> bool:
        """Add a token; it gets the newest state, without an alert that rang before it came.

        ``standing`` says more of a token whose past is known elsewhere: ``behind`` was a member when
        the newest state was put, and gets its alert too; ``current`` has the newest state already.
        Returns False when it is a member already. Raises InvalidToken for a token that cannot be
        one, and InvalidInput when it belongs to another activity or has a push of its own under way.
        """
        if token in self.audience:
            self._host.joining(token, self)
            self.audience.join(token)
        else:
            lane = self._host.joining(token, self)
            newest = self.audience.newest
            has = newest if standing == "current" else max(newest - 1, 0)
            place = self.audience.join(token, confirmed=has)
            if place is None:
                return False
            if lane is not None:
                # Its own pushes may have stamped ahead of ours.
                self.lane.last_timestamp = max(self.lane.last_timestamp, lane.last_timestamp)
                if self.current is not None and lane.last_timestamp >= (
                    self.current.timestamp or 0
                ):
                    self.audience.troubles[place] = Trouble(
                        may_have_been_sent=True, timestamp=lane.last_timestamp
                    )
            if newest and self.alert_version == newest and standing == "new":
                self._quiet.add(place)
            if frequent_pushes_enabled is False:
                self.audience.slow.add(place)
            self._renew(self._host.now())
            self._host.stir(self)
            return True
        self.frequent_pushes(token, frequent_pushes_enabled)
        return False

    def join_all(self, tokens: Iterable[str]) -> int:
        """Add many tokens; return how many were new."""
        return sum(self.join(token) for token in tokens)

    def leave(self, token: str) -> bool:
        """Remove a token. What is in flight to it is not taken back. False if it is no member."""
        gone = self.audience.leave(token)
        if gone:
            self._host.parting(token)
            self._after(self._host.now())
        return gone

    def frequent_pushes(self, token: str, enabled: bool | None) -> None:
        """Note what a device says of ``frequentPushesEnabled``; False keeps it to the default budget."""
        place = self.audience.index.get(token)
        if place is None or enabled is None:
            return
        if enabled:
            self.audience.slow.discard(place)
        else:
            self.audience.slow.add(place)

    def put(
        self,
        message: Update,
        *,
        urgency: Urgency | UrgencyName | None = None,
        revision: int | None = None,
        deadline: float | None = None,
    ) -> Version:
        """Make ``message`` the newest state. Costs the same for one token and for a million.

        ``deadline`` is seconds from now after which it is not worth sending. Raises InvalidPayload
        for a message that cannot be, ActivityEnded after `end`.
        """
        if not isinstance(message, Update):
            raise InvalidInput(
                f"put takes an Update, not {type(message).__name__}",
                field="message",
                remedy="Use end() for an End; start with a fan-out to start tokens.",
            )
        return self._offer(message, urgency, revision, deadline)

    def end(
        self,
        message: End | None = None,
        *,
        revision: int | None = None,
        deadline: float | None = None,
    ) -> Version:
        """End the activity on all phones. Nothing may follow. Raises ActivityEnded the second time."""
        return self._offer(message or End(), Urgency.URGENT, revision, deadline)

    def _offer(
        self,
        message: Update | End,
        urgency: Urgency | UrgencyName | None,
        revision: int | None,
        deadline: float | None,
    ) -> Version:
        version = Version(self)
        state = self._host.state(
            message,
            self.lane,
            urgency=urgency,
            revision=revision,
            deadline=deadline,
            ticket=version,
        )
        replaced = self.lane.offer(state)
        if replaced is not None and replaced[0].ticket is not None:
            replaced[0].ticket.resolve(replaced[1])
        self.changed = True
        self.submitted += 1
        self.tick(self._host.now())
        if self.lane.waiting is state:
            self.held_back += 1
        self._host.stir(self)
        return version

    def resume(self) -> None:
        """Go on after the fan-out was stopped."""
        self.guard.reset()
        self._host.stir(self)

    async def settled(self) -> ActivityReport:
        """Return the report once every token has the newest state, or cannot get it.

        Returns also when the fan-out is stopped (``report.stopped``) or the delivery closes.
        """
        while not self._is_settled():
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self.report

    def _is_settled(self) -> bool:
        if self._closed or self.guard.stopped:
            return True
        return self.audience.behind == 0 and self.lane.waiting is None

    @property
    def idle(self) -> bool:
        """Whether every token has the newest state, or cannot get it, and none waits."""
        return self._is_settled()

    @property
    def report(self) -> ActivityReport:
        """A snapshot."""
        return ActivityReport(
            activity=self.activity,
            version=self.audience.newest,
            tokens=len(self.audience),
            behind=self.audience.behind,
            counts={**self._counts, _ACCEPTED: self.accepted_count},
            problems=tuple(self._problems),
            demoted=self.demoted,
            over_budget=self.over_budget,
            held=self.lane.waiting is not None,
            ended=self.lane.ended,
            stopped=self.guard.stopped or self._closed,
        )

    # From here on: for the delivery around it.

    def tick(self, now: float) -> None:
        """Publish what is due, queue what was held, give up what is too late."""
        self.audience.tick(now)
        if self.lane.waiting is not None and self.lane.ready_at(now, self._minimum_interval) <= now:
            self._publish(now)
        if now >= self.last_moment and self.audience.behind:
            self._give_up()

    def next_time(self) -> float | None:
        """Return when `tick` has something to do, None when it has not."""
        waits = self.audience.behind and self._expired_version != self.audience.newest
        times = [self.last_moment if waits else NEVER]
        if self.lane.waiting is not None:
            times.append(self.lane.ready_at(self._host.now(), self._minimum_interval))
        held = self.audience.next_time()
        if held is not None:
            times.append(held)
        first = min(times)
        return None if first == NEVER else first

    def _publish(self, now: float) -> None:
        state = self.lane.waiting
        if state is None:
            return
        urgency = Urgency.URGENT if state.is_end else state.urgency
        slow_decision = decide(for_device(self._budget, False), self.slow_full_at, urgency, now)
        encoded = self.lane.depart(now, self._budget)
        self.lane.flying = None
        version = self.audience.publish()
        self.slow_full_at = slow_decision.full_at
        if state.decision is not None:
            self.demoted += state.decision.demoted
            self.over_budget += state.decision.over_budget
        if encoded.priority == 10:
            self.ten_version = version
        if slow_decision.priority == 10:
            self.slow_ten_version = version
        if encoded.has_alert:
            self.alert, self.alert_version = encoded, version
        self.current = encoded
        self.last_moment = state.last_moment
        self._lifetime = state.lifetime
        self._quiet.clear()
        self._variants.clear()
        self.changed = True
        if isinstance(state.ticket, Version):
            state.ticket.number = version

    @property
    def pending(self) -> bool:
        """Whether `take` may return something."""
        return self.audience.pending and not self.guard.stopped

    def take(self, limit: int, now: float) -> list[object]:
        """Return work items for at most ``limit`` tokens."""
        if self.current is None or self.guard.stopped:
            return []
        if now >= self.last_moment:
            self._give_up()
            return []
        audience = self.audience
        places = audience.pick(limit)
        if not places:
            return []
        newest, tokens = audience.newest, audience.tokens
        cursor, confirmed = audience.cursor, audience.confirmed
        make = self._host.make_item
        usual_version = newest - 1
        usual = self._variant(self.current, usual_version, quiet=False, slow=False)
        special = bool(audience.troubles or audience.slow or self._quiet)
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
        if self.journalled:
            self.touched.update(places)
        return items

    def _variant_for(self, place: int, now: float) -> Variant | None:
        trouble = self.audience.troubles.get(place)
        current = self.current
        if current is None:
            return None
        doubtful = trouble is not None and trouble.may_have_been_sent
        if trouble and doubtful and trouble.timestamp >= (current.timestamp or 0):
            renewed = self._restamp(current, now)
            if renewed is None:
                self.audience.again(place, self.lane.last_timestamp + 1 - HEADROOM_URGENT, now)
                return None
            current = renewed
        return self._variant(
            current,
            self.audience.confirmed[place],
            quiet=place in self._quiet,
            slow=place in self.audience.slow,
        )

    def _variant(
        self, encoded: EncodedMessage, confirmed: int, *, quiet: bool, slow: bool
    ) -> Variant:
        """Return the encoding for a token that has version ``confirmed``."""
        ring = confirmed < self.alert_version and not quiet
        ten = confirmed < (self.slow_ten_version if slow else self.ten_version) or ring
        key = (ring, ten, self.audience.newest)
        variant = self._variants.get(key)
        if variant is None:
            if ring and not encoded.has_alert and self.alert is not None:
                encoded = carry_alert(encoded, self.alert) or encoded
            elif not ring and encoded.has_alert:
                encoded = without_alert(encoded)
            encoded = restamp(encoded, encoded.timestamp or 0, 10 if ten else 5)
            variant = Variant(self.audience.newest, self._host.prepare(encoded))
            self._variants[key] = variant
        return variant

    def _restamp(self, current: EncodedMessage, now: float) -> EncodedMessage | None:
        """Give the newest version a newer timestamp, for a token that may have got the old one.

        Returns None while the timestamps are as far ahead as they may be.
        """
        stamp = max(int(now), self.lane.last_timestamp + 1)
        if stamp > now + HEADROOM_URGENT:
            return None
        self.lane.last_timestamp = stamp
        self.current = restamp(current, stamp, current.priority)
        self._variants.clear()
        self.changed = True
        return self.current

    def _renew(self, now: float) -> None:
        """Give the newest state a new expiration for one who joins after it ran out.

        Only where the expiration is our default and there is neither stale date nor deadline: then
        nobody said that the state is worth nothing by now.
        """
        if self.current is None or now < self.last_moment or not self._lifetime:
            return
        self.last_moment = now + self._lifetime
        self._expired_version = 0
        self.current = msgspec.structs.replace(self.current, expiration=int(self.last_moment))
        self._variants.clear()
        self.changed = True

    def settle(self, place: int, variant: Variant, outcome: Outcome, now: float) -> None:
        """Take the answer to one push."""
        audience = self.audience
        if outcome.verdict is _ACCEPTED:
            self.accepted_count += 1
            if self.on_decided is not None:
                self.on_decided(place, variant.version, outcome)
            if audience.troubles:
                audience.troubles.pop(place, None)
            audience.accepted(place, variant.version)
        else:
            self._failed(place, variant, outcome, now)
        if self.journalled:
            self.touched.add(place)

    def _failed(self, place: int, variant: Variant, outcome: Outcome, now: float) -> None:
        audience = self.audience
        self._counts[outcome.verdict] += 1
        self.guard.answered(outcome)
        token = audience.tokens[place]
        if outcome.verdict is Verdict.DROP_TOKEN:
            audience.dropped(place)
            self._host.parting(token)
            self._report(place, variant.version, outcome)
            return
        trouble = audience.troubles.get(place)
        failures = trouble.failures if trouble else 0
        when = again_at(outcome, failures, now)
        if when == NEVER:
            audience.given_up(place, variant.version)
            self._report(place, variant.version, outcome)
            return
        if variant.version == audience.newest and when >= self.last_moment:
            late = msgspec.structs.replace(
                outcome,
                verdict=Verdict.EXPIRED,
                detail="the state's last moment comes before the next try",
            )
            audience.given_up(place, variant.version)
            self._counts[Verdict.EXPIRED] += 1
            self._report(place, variant.version, late)
            return
        stamp = self.lane.last_timestamp
        if trouble is None:
            audience.troubles[place] = trouble = Trouble()
        trouble.failures = failures + 1
        trouble.not_before = when
        if outcome.may_have_been_sent:
            trouble.may_have_been_sent = True
            # Of an older version the stamp is older too; of this one it is at most the lane's last.
            trouble.timestamp = max(
                trouble.timestamp, stamp if variant.version == audience.newest else 0
            )
        audience.again(place, when, now)

    def settled_batch(self, accepted: int, now: float) -> None:
        """Finish a batch of answers."""
        self.guard.judge(accepted)
        self._after(now)

    def _after(self, now: float) -> None:
        del now
        if self._is_settled():
            self._release()
            if self.lane.ended and not self.guard.stopped and not self._closed:
                self._host.finished(self)

    def _report(self, place: int, version: int, outcome: Outcome) -> None:
        if self.on_decided is not None:
            self.on_decided(place, version, outcome)
        if len(self._problems) < PROBLEMS_KEPT:
            self._problems.append(outcome)
        if self._on_problem is not None:
            self._on_problem(outcome)

    def _give_up(self) -> None:
        places = self.audience.give_up_waiting()
        self._expired_version = self.audience.newest
        if not places:
            return
        self._counts[Verdict.EXPIRED] += len(places)
        priority = self.current.priority if self.current else 5
        everyone = self._on_problem or self.on_decided
        for place in places if everyone else places[:PROBLEMS_KEPT]:
            late = Outcome(
                token=self.audience.tokens[place],
                verdict=Verdict.EXPIRED,
                priority=priority,
                detail="its deadline, expiration or stale date passed before APNs accepted it",
            )
            self._report(place, self.audience.newest, late)
        if self.journalled:
            self.touched.update(places)
        self._after(self._host.now())

    def _release(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def close(self, why: str) -> None:
        """Let everybody who waits go: the delivery closes."""
        self._closed = why
        state, self.lane.waiting = self.lane.waiting, None
        if state is not None and state.ticket is not None:
            state.ticket.resolve(superseded(self.activity, state, why))
        self._release()
