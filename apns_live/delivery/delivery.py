"""Delivery: order, latest state wins, priority budgets, and a journal, over one client.

::

    async with Delivery(client, journal=SqliteJournal("journal.db")) as delivery:
        outcome = await delivery.send(Update(content_state=...), token)
        match = delivery.activity("match-17", tokens=[...])
        await match.put(Update(content_state=...))
        async with delivery.fan_out(Start(...), tokens, name="kickoff-17") as run:
            report = await run.wait()
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from ..clock import Clock, SystemClock
from ..errors import ActivityEnded, ClientClosed, DeliveryError, InvalidInput, InvalidSetting
from ..outcome import Outcome, Verdict
from ..payload import End, Message, Update, check_token, encode
from .activity import LiveActivity
from .budget import Budget, Urgency, UrgencyName, check_budget, check_urgency
from .dispatch import Dispatch, Sender
from .encoding import from_journal
from .journal import Journal
from .lane import Lane, State
from .lanes import Lanes
from .pacing import SpikeGuard
from .records import restore_activity, restore_lane
from .run import Run
from .sources import Tokens
from .statistics import DeliveryStatistics
from .tickets import Ticket

_CLOSED = "the delivery was closed before this left"


class Delivery:
    """Ordered delivery over ``client``. Use it as an async context manager.

    - ``budget``: "default", "frequent" or a `Budget`; per activity.
    - ``journal``: a `Journal`, or None for none.
    - ``minimum_interval``: seconds between two silent states of one activity; the last one always
      goes out. Urgent states and ends do not wait for it.
    - ``response_timeout``: seconds after which an answer is given up and the newest state sent.
    - ``commit_interval``: seconds within which outcomes are recorded.
    - ``on_outcome``: called with every answer (a plain callable on the event loop).
    - ``on_problem``: called with what ended a token or a version of a live activity.
    - ``lane_lifetime``: seconds that an idle lane is remembered.

    Raises InvalidSetting for a setting that cannot be, JournalError when the journal cannot be
    opened.
    """

    def __init__(
        self,
        client: Sender,
        *,
        budget: Budget | str = "default",
        journal: Journal | None = None,
        clock: Clock | None = None,
        minimum_interval: float = 0.0,
        response_timeout: float = 3.0,
        commit_interval: float = 0.2,
        close_timeout: float = 10.0,
        lane_lifetime: float = 12 * 3600.0,
        on_outcome: Callable[[Outcome], object] | None = None,
        on_problem: Callable[[Outcome], object] | None = None,
    ) -> None:
        for name, value, least in (
            ("minimum_interval", minimum_interval, 0.0),
            ("response_timeout", response_timeout, 0.001),
            ("commit_interval", commit_interval, 0.0),
            ("close_timeout", close_timeout, 0.0),
            ("lane_lifetime", lane_lifetime, 1.0),
        ):
            if not least <= value < float("inf"):
                raise InvalidSetting(
                    f"{value!r} is not possible",
                    field=name,
                    remedy=f"Give at least {least} seconds.",
                )
        self.budget = check_budget(budget)
        self._clock: Clock = clock or getattr(client, "clock", None) or SystemClock()
        self._journal = journal
        self._minimum_interval = minimum_interval
        self._response_timeout = response_timeout
        self._close_timeout = close_timeout
        self._on_problem = on_problem
        self._lanes = Lanes(
            self.budget, self._decided, minimum_interval=minimum_interval, lifetime=lane_lifetime
        )
        self._dispatch = Dispatch(
            client,
            self._clock,
            self._lanes,
            journal=journal,
            commit_interval=commit_interval,
            state=self._state,
            decided=self._decided,
            on_outcome=on_outcome,
        )
        self._submitted = 0
        self._counts: Counter[Verdict] = Counter()
        self._open = False
        self._closed = False
        self.in_doubt = 0
        """States and tokens that an earlier life left in doubt, sent again at the start."""

    def __repr__(self) -> str:
        state = "open" if self._open else "closed" if self._closed else "not open"
        return f"<Delivery {state}, {len(self._lanes)} lanes, {len(self._dispatch.activities)} activities>"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Open the journal, take up what an earlier life left, and begin to deliver."""
        if self._open or self._closed:
            raise DeliveryError("a delivery is opened once; make a new one.")
        if self._journal is not None:
            await self._journal.open()
            try:
                await self._restore(self._journal)
            except BaseException:
                await self._journal.close()
                raise
        self._open = True
        self._dispatch.open(self._response_timeout)
        self._dispatch.stir_lanes()
        for activity in list(self._dispatch.activities.values()):
            activity.tick(self._dispatch.now())
            self._dispatch.stir(activity)

    async def _restore(self, journal: Journal) -> None:
        now = self._dispatch.now()
        after = ""
        while records := await journal.lanes(after, 10_000):
            for record in records:
                lane = restore_lane(record, now)
                self.in_doubt += record.intended
                self._lanes.adopt(lane, now)
            after = records[-1].token
        for kept in await journal.activities():
            activity = self._make_activity(kept.activity, None, None)
            members = await journal.members(kept.activity)
            self.in_doubt += restore_activity(activity, kept, members, now)
            activity.journalled = True
            self._dispatch.activities[kept.activity] = activity
            self._dispatch.homes.update(dict.fromkeys(activity.audience.index, activity))
        for wakeup in await journal.wakeups():
            if wakeup.message is not None:
                state = State(
                    from_journal(wakeup.message),
                    urgency=Urgency(wakeup.urgency),
                    ticket=Ticket(),
                    submitted_at=now,
                    revision=wakeup.revision,
                    deadline=wakeup.deadline,
                )
                self._dispatch.wakeups.wait(wakeup.device, state)
        self._dispatch.wakeups.changed.clear()

    async def aclose(self, *, drain: float | None = None) -> None:
        """Send what is due and wait for the answers, ``drain`` seconds at most; then stop.

        What has not left by then is NOT_SENT; with a journal it is kept, and goes in the next life.
        """
        if not self._open:
            return
        self._open, self._closed = False, True
        dispatch = self._dispatch
        for run in list(dispatch.runs):
            await run.aclose()
        limit = self._clock.monotonic() + (self._close_timeout if drain is None else drain)
        while self._clock.monotonic() < limit and dispatch.error is None:
            busy = dispatch.in_flight or self._lanes.pending or dispatch.lanes_ready
            busy = busy or dispatch.errands.pending or dispatch.activities_ready
            if not busy and not any(home.pending for home in dispatch.activities.values()):
                break
            await self._clock.sleep(0.01)
        dispatch.detach()
        if dispatch.writer is not None:
            if dispatch.error is None:
                await dispatch.writer.flush(dispatch.lane_home, dispatch.wakeups)
            await dispatch.writer.close()
        self._let_go()
        if self._journal is not None:
            await self._journal.close()

    def _let_go(self) -> None:
        """Give everything that still waits its outcome."""
        kept = "; the journal keeps it" if self._journal is not None else ""
        for lane in self._lanes.waiting():
            tried = bool(lane.trouble and lane.trouble.may_have_been_sent)
            for state, doubt in ((lane.flying, True), (lane.waiting, tried)):
                if state is not None:
                    self._decided(lane.token, state, _unsent(lane.token, state, kept, doubt=doubt))
        for errand in self._dispatch.errands.close():
            doubt = bool(errand.trouble and errand.trouble.may_have_been_sent)
            outcome = _unsent(errand.token, errand.state, "", doubt=doubt)
            self._decided(errand.token, errand.state, outcome)
        for state in self._dispatch.wakeups.close():
            self._decided("", state, _unsent("", state, kept, doubt=False))
        for activity in self._dispatch.activities.values():
            activity.close(_CLOSED + kept)

    # Single activity tokens.

    async def send(
        self,
        message: Message,
        token: str,
        *,
        urgency: Urgency | UrgencyName | None = None,
        revision: int | None = None,
        deadline: float | None = None,
    ) -> Outcome:
        """Send a message in its order and return its outcome; arguments as in `submit`.

        Cancelled before the push left, it is taken back.
        """
        ticket = Ticket()
        state = self._submit(
            message, token, urgency=urgency, revision=revision, deadline=deadline, ticket=ticket
        )
        try:
            return await ticket
        except asyncio.CancelledError:
            self._withdraw(token, state)
            raise

    def submit(
        self,
        message: Message,
        token: str,
        *,
        urgency: Urgency | UrgencyName | None = None,
        revision: int | None = None,
        deadline: float | None = None,
    ) -> Ticket:
        """Hand over a message and return at once; awaiting the ticket gives the outcome.

        An `Update` or `End` goes on the lane of its token: at most one push in flight, a waiting
        state is replaced by a newer one (SUPERSEDED), an end is last. Other messages are sent as
        they come. ``revision`` is the caller's own count: a state that is not newer than the last
        one is SUPERSEDED at once. ``deadline`` is seconds from now.

        Raises InvalidPayload and InvalidToken for what cannot be sent, ActivityEnded after an end,
        InvalidInput for a token that belongs to a live activity, ClientClosed when not open.
        """
        ticket = Ticket()
        self._submit(
            message, token, urgency=urgency, revision=revision, deadline=deadline, ticket=ticket
        )
        return ticket

    def _submit(
        self,
        message: Message,
        token: str,
        *,
        urgency: Urgency | UrgencyName | None,
        revision: int | None,
        deadline: float | None,
        ticket: Ticket,
    ) -> State:
        self._check_open()
        token = str(check_token(token, message=message))
        dispatch = self._dispatch
        if isinstance(message, Update | End):
            home = dispatch.homes.get(token)
            if home is not None:
                raise InvalidInput(
                    f"token {token[:8]}... belongs to the live activity {home.activity!r}",
                    field="token",
                    remedy="Put the state there: two senders cannot keep one order.",
                )
            lane = self._lanes.open(token)
            state = self._state(
                message,
                lane,
                urgency=urgency,
                revision=revision,
                deadline=deadline,
                ticket=ticket,
            )
            self._submitted += 1
            self._lanes.offer(token, state, dispatch.now())
            if dispatch.writer is not None:
                dispatch.writer.soon(dispatch.lane_home)
        else:
            state = self._state(
                message, None, urgency=urgency, revision=None, deadline=deadline, ticket=ticket
            )
            self._submitted += 1
            dispatch.errands.add(token, state)
        dispatch.stir_lanes()
        return state

    def _withdraw(self, token: str, state: State) -> None:
        lane = self._lanes.get(token)
        if lane is not None and lane.waiting is state:
            # An end that is taken back leaves the activity open again.
            lane.waiting = None
            lane.ended = lane.ended and not state.is_end
        else:
            self._dispatch.errands.withdraw(state)

    def forget(self, token: str) -> bool:
        """Forget the lane of a token that is not used any more; False when something is under way."""
        gone = self._lanes.forget(token)
        if gone and self._dispatch.writer is not None:
            self._dispatch.lane_home.forgotten.append(token)
            self._dispatch.writer.soon(self._dispatch.lane_home)
        return gone

    def frequent_pushes(self, token: str, enabled: bool) -> None:
        """Note what a device says of ``frequentPushesEnabled`` for the activity with this token.

        False keeps the activity to the default budget, whatever budget the delivery has.
        """
        home = self._dispatch.homes.get(token)
        if home is not None:
            home.frequent_pushes(token, enabled)
        else:
            self._lanes.open(check_token(token)).frequent = enabled

    # Live activities.

    def activity(
        self,
        activity: str,
        *,
        tokens: Iterable[str] = (),
        minimum_interval: float | None = None,
        guard: SpikeGuard | None = None,
    ) -> LiveActivity:
        """Return the live activity with this name, made when there is none; ``tokens`` join it.

        Raises InvalidToken for a token that cannot be one, InvalidInput for one of another activity.
        """
        self._check_open()
        if not activity or "\n" in activity:
            raise InvalidInput(
                f"{activity!r} is no name", field="activity", remedy="Give one line of text."
            )
        known = self._dispatch.activities.get(activity)
        if known is None:
            known = self._make_activity(activity, minimum_interval, guard)
            known.journalled = self._journal is not None
            self._dispatch.activities[activity] = known
        known.join_all(tokens)
        return known

    def owner(self, token: str) -> LiveActivity | None:
        """Return the live activity that a token belongs to."""
        return self._dispatch.homes.get(token)

    def let_go(self, activity: LiveActivity) -> bool:
        """Forget a live activity that nothing is under way for; it did not end, and may come back.

        Not for a delivery with a journal, which keeps its activities. False when something is
        under way, or it is not one of this delivery's.
        """
        known = self._dispatch.activities.get(activity.activity) is activity
        if not known or self._journal is not None or not activity.idle:
            return False
        self._dispatch.finished(activity)
        return True

    def _make_activity(
        self, activity: str, minimum_interval: float | None, guard: SpikeGuard | None
    ) -> LiveActivity:
        return LiveActivity(
            self._dispatch,
            activity,
            budget=self.budget,
            minimum_interval=self._minimum_interval
            if minimum_interval is None
            else minimum_interval,
            guard=guard,
            on_problem=self._on_problem,
        )

    # Fan-outs.

    def fan_out(
        self,
        message: Message,
        tokens: Tokens | None,
        *,
        name: str,
        deadline: float | None = None,
        resend_unknown: bool | None = None,
        guard: SpikeGuard | None = None,
        on_outcome: Callable[[Outcome], object] | None = None,
    ) -> Run:
        """Return a fan-out of one message to the tokens of a source; see `Run`.

        With a journal it is resumed when one of this ``name`` is there: what was accepted is not
        sent again, what was not sent is sent, what is unknown is sent again for updates and ends
        and reported as UNKNOWN for starts; ``resend_unknown`` says otherwise. ``tokens`` may be
        None when a journalled one was read to its end. ``deadline`` is seconds from now.
        """
        self._check_open()
        if not name:
            raise InvalidInput(
                "a fan-out needs a name", field="name", remedy="Name what it is for: kickoff-17."
            )
        if any(run.name == name for run in self._dispatch.runs):
            raise DeliveryError(f"a fan-out named {name!r} is under way; await that one.")
        encoded = encode(message, now=self._dispatch.now())
        return Run(
            self._dispatch,
            name,
            encoded,
            tokens,
            deadline=deadline,
            resend_unknown=resend_unknown,
            guard=guard,
            starts=self._dispatch.starts,
            on_outcome=on_outcome,
        )

    # Wakeups.

    def submit_when_known(
        self,
        message: Update | End,
        device: str,
        *,
        urgency: Urgency | UrgencyName | None = None,
        revision: int | None = None,
        deadline: float | None = None,
    ) -> Ticket:
        """Keep a state for a device whose activity token has not arrived; the newest one stays.

        ``device`` is the caller's name for it (the start token, a user id). `hand_in` sends it.
        """
        self._check_open()
        ticket = Ticket()
        state = self._state(
            message, None, urgency=urgency, revision=revision, deadline=deadline, ticket=ticket
        )
        for decided in self._dispatch.wakeups.wait(device, state):
            self._decided(*decided)
        if self._dispatch.writer is not None:
            self._dispatch.writer.soon(self._dispatch.wakeups)
        return ticket

    def hand_in(self, device: str, token: str) -> bool:
        """Give the activity token of a device; return whether a state waited for it, which leaves now."""
        self._check_open()
        token = str(check_token(token))
        state = self._dispatch.wakeups.hand_in(device)
        if state is None:
            return False
        dispatch = self._dispatch
        try:
            self._lanes.offer(token, state, dispatch.now())
        except ActivityEnded:
            self._decided(token, state, _unsent(token, state, "; the activity ended", doubt=False))
        if dispatch.writer is not None:
            # One transaction: the state is either still a wakeup or already in its lane.
            dispatch.writer.soon(dispatch.wakeups)
            dispatch.writer.soon(dispatch.lane_home)
        dispatch.stir_lanes()
        return True

    async def flush(self) -> None:
        """Return when everything submitted so far is in the journal. Raises JournalError."""
        writer = self._dispatch.writer
        if writer is not None:
            await writer.flush(self._dispatch.lane_home, self._dispatch.wakeups)

    def statistics(self) -> DeliveryStatistics:
        """Return a frozen snapshot. Looks at every live activity, not at every token."""
        dispatch = self._dispatch
        activities = dispatch.activities.values()
        writer = dispatch.writer
        past = dispatch.past
        return DeliveryStatistics(
            lanes=len(self._lanes),
            lanes_waiting=self._lanes.due_count + len(dispatch.lanes_ready),
            lanes_held=self._lanes.timed_count,
            activities=len(dispatch.activities),
            activity_tokens=sum(len(home.audience) for home in activities),
            tokens_behind=sum(home.audience.behind for home in activities),
            runs=len(dispatch.runs),
            wakeups=len(dispatch.wakeups),
            in_flight=dispatch.in_flight,
            submitted=self._submitted + past.submitted + sum(home.submitted for home in activities),
            outcomes=dict(dispatch.outcomes),
            decided=dict(self._counts),
            demoted=self._lanes.demoted + past.demoted + sum(home.demoted for home in activities),
            over_budget=self._lanes.over_budget
            + past.over_budget
            + sum(home.over_budget for home in activities),
            held_back=self._lanes.held
            + past.held_back
            + sum(home.held_back for home in activities),
            journal_commits=writer.commits if writer else 0,
            journal_records=writer.records if writer else 0,
            budget=self.budget.name,
            budget_verified=self.budget.verified,
        )

    # The inside.

    def _check_open(self) -> None:
        if self._dispatch.error is not None:
            raise self._dispatch.error
        if not self._open:
            raise ClientClosed(
                "the delivery is not open; use it inside `async with Delivery(...)`."
            )

    def _state(
        self,
        message: Message,
        lane: Lane | None,
        *,
        urgency: Urgency | UrgencyName | None,
        revision: int | None,
        deadline: float | None,
        ticket: Ticket | None,
    ) -> State:
        """Check and encode a message, with the timestamp it would leave with now."""
        if deadline is not None and deadline <= 0:
            raise InvalidInput(
                f"{deadline!r} seconds from now is over",
                field="deadline",
                remedy="Give seconds from now, above 0.",
            )
        now = self._dispatch.now()
        given = getattr(message, "timestamp", None)
        stamp = None
        if lane is not None and given is None:
            stamp = max(int(now), lane.last_timestamp + 1)
        encoded = encode(message, now=now, timestamp=stamp)
        if urgency is None and getattr(message, "priority", None) is not None:
            urgency = Urgency.URGENT if encoded.priority == 10 else Urgency.QUIET
        own = getattr(message, "expiration", None) is None
        renewable = own and encoded.stale_date is None and deadline is None
        return State(
            encoded,
            urgency=check_urgency(urgency, has_alert=encoded.has_alert),
            ticket=ticket,
            submitted_at=now,
            revision=revision,
            deadline=None if deadline is None else now + deadline,
            given_timestamp=encoded.timestamp if given is not None else None,
            lifetime=encoded.expiration - now if renewable else 0.0,
        )

    def _decided(self, token: str, state: State, outcome: Outcome) -> None:
        del token
        self._counts[outcome.verdict] += 1
        if state.ticket is not None:
            state.ticket.resolve(outcome)


def _unsent(token: str, state: State, more: str, *, doubt: bool) -> Outcome:
    return Outcome(
        token=token,
        verdict=Verdict.UNKNOWN if doubt else Verdict.NOT_SENT,
        priority=state.encoded.priority,
        may_have_been_sent=doubt,
        detail=_CLOSED + more,
    )
