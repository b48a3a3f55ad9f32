"""Delivery: order, latest state wins, priority budgets, and a journal, over one client.

::

    async with Delivery(client, journal=SqliteJournal("journal.db")) as delivery:
        outcome = await delivery.send(Update(content_state=...), token)
        match = delivery.activity("match-17", tokens=[...])
        await match.put(Update(content_state=...))
        async with delivery.fan_out(Start(...), tokens, name="kickoff-17") as run:
            report = await run.wait()

docs/architecture.md draws the path of one update, with the module of each step.
"""

import asyncio
import enum
import logging
from collections.abc import Callable, Iterable
from typing import Self, Unpack

from ..client import Client
from ..client.edge import DropsTo, check_deadline
from ..clock import Clock, SteadyTime
from ..errors import DeliveryError, InvalidInput, InvalidSetting, JournalError
from ..guard import Guarded
from ..outcome import Outcome
from ..payload import End, Message, Update, check_token, encode
from ..refusals import refused
from .activity import CHANGE, Activities, LiveActivity
from .budget import Budget, check_budget
from .dispatch import Dispatch
from .journal import ActivityRecord, Journal, LaneRecord, MembersRecord, ProgressRecord, RunRecord
from .lane import HEADROOM_URGENT, Errand, Lane, restore_lane
from .lanes import Lanes
from .pacing import SpikeGuard
from .run import Run
from .sources import Tokens
from .state import Options, State, Ticket, make_state
from .statistics import DeliveryStatistics

logger = logging.getLogger("apns_live.delivery")

_CLOSED = "the delivery was closed before this left"


class Phase(enum.Enum):
    """The life-cycle state of a delivery."""

    NEW = "not open"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Delivery:
    """Ordered delivery over ``client``. Use it as an async context manager.

    - ``budget``: a preset ("default", "frequent", "observed", "observed-frequent") or a `Budget`;
      per activity.
    - ``journal``: a `Journal`, or None for none.
    - ``minimum_interval``: seconds between two silent states of one activity; the last one is always
      sent. Urgent states and ends do not wait for it.
    - ``response_timeout``: seconds to wait for an answer before the newest state is sent.
    - ``commit_interval``: seconds within which outcomes are stored in the journal.
    - ``on_outcome``: called with every answer (a plain callable on the event loop).
    - ``on_problem``: called with outcomes that remove a token from a live activity or end a version.
    - ``lane_lifetime``: seconds for which an idle lane is kept.

    If a callback raises, the error is logged. Raises InvalidSetting for an invalid setting,
    JournalError if the journal cannot be opened.
    """

    def __init__(
        self,
        client: Client,
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
                raise refused(InvalidSetting, "delivery_seconds", name, value=value, least=least)
        self.budget = check_budget(budget)
        self.in_doubt = 0
        """States and tokens with an unknown outcome from before a restart; they are sent again."""
        self._clock: Clock = clock or client.clock
        self._time = SteadyTime(self._clock, _clock_was_set)
        self._response_timeout = response_timeout
        self._close_timeout = close_timeout
        self._dispatch = Dispatch(
            client,
            self._clock,
            self._time,
            journal=journal,
            commit_interval=commit_interval,
            on_outcome=Guarded(on_outcome, "on_outcome") if on_outcome else None,
            failed=self._stop,
        )
        self._lanes = Lanes(
            self._dispatch, self.budget, minimum_interval=minimum_interval, lifetime=lane_lifetime
        )
        self._activities = Activities(
            self._dispatch,
            self._lanes,
            budget=self.budget,
            minimum_interval=minimum_interval,
            on_problem=Guarded(on_problem, "on_problem") if on_problem else None,
        )
        self._runs: dict[str, Run] = {}
        self._phase = Phase.NEW
        self._draining: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Delivery {self._phase.value}, {len(self._lanes)} lanes, {len(self._activities.homes)} activities>"

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """Open the journal, restore its unfinished work, and start sending."""
        if self._phase is not Phase.NEW:
            raise DeliveryError("a delivery is opened once; make a new one.")
        journal = self._dispatch.journal
        if journal is not None:
            await journal.open()
            try:
                await self._restore(journal)
            except BaseException:
                await journal.close()
                raise
        self._phase = Phase.OPEN
        self._dispatch.open(self._lanes, self._response_timeout)
        self._dispatch.stir(self._lanes)
        for activity in list(self._activities.homes.values()):
            activity.tick(self._time.now())
            self._dispatch.stir(activity)

    async def _restore(self, journal: Journal) -> None:
        now, wall = self._time.now(), self._time.wall()
        newest = 0
        async for _, record in journal.records("lane", LaneRecord):
            newest = max(newest, record.last_timestamp)
            self.in_doubt += record.intended
            self._lanes.adopt(restore_lane(record, now), record.device)
        async for name, kept in journal.records("activity", ActivityRecord):
            newest = max(newest, kept.lane.last_timestamp)
            shards = [each async for _, each in journal.records("members", MembersRecord, name)]
            progress = {
                each.number: each
                async for _, each in journal.records("progress", ProgressRecord, name)
            }
            members = [(each, progress.get(each.number)) for each in shards]
            self.in_doubt += LiveActivity(self._activities, name).restore(kept, members, now)
        async for device, waiting in journal.records("wakeup", LaneRecord):
            self._lanes.wakeups[device] = restore_lane(waiting, now)
        if newest > wall + HEADROOM_URGENT:
            _clock_was_set(wall - newest)

    async def aclose(self, *, drain: float | None = None) -> None:
        """Send waiting states, wait up to ``drain`` seconds for the answers, and close.

        Pushes that were not sent by then are NOT_SENT; a journal keeps them for the next start. If
        this is cancelled, it stops waiting, every push gets its outcome, and the journal is closed
        before CancelledError is raised. A second call waits for the first.
        """
        if self._phase is Phase.OPEN:
            self._phase = Phase.CLOSING
            self._dispatch.accepting = False
            loop = asyncio.get_running_loop()
            limit = self._close_timeout if drain is None else drain
            self._draining = loop.create_task(self._drain(limit), name="apns-live-drains")
            self._closing = loop.create_task(self._close(self._draining), name="apns-live-closes")
        if self._closing is None or self._draining is None:
            return
        try:
            await asyncio.shield(self._closing)
        except asyncio.CancelledError:
            self._draining.cancel()
            await asyncio.wait((self._closing,))
            raise

    async def _drain(self, limit: float) -> None:
        for run in list(self._runs.values()):
            run.stop()
        give_up = self._clock.monotonic() + limit
        while self._dispatch.error is None and (self._dispatch.busy or self._runs):
            if self._clock.monotonic() >= give_up:
                return
            await self._clock.sleep(0.01)

    async def _close(self, draining: asyncio.Task[None]) -> None:
        writer = self._dispatch.writer
        try:
            await asyncio.wait((draining,))
            self._dispatch.detach()
            if self._dispatch.error is None:
                await writer.flush(self._lanes)
        except JournalError:
            logger.exception("the journal failed while the delivery was closed")
        finally:
            draining.cancel()
            self._dispatch.detach()
            self._stop()
            self._phase = Phase.CLOSED
            await writer.close()
            if self._dispatch.journal is not None:
                await self._dispatch.journal.close()

    def _stop(self, error: JournalError | None = None) -> None:
        """Give every waiting push its outcome, because the delivery ends or the journal failed."""
        kept = "; the journal keeps it" if self._dispatch.journal is not None and not error else ""
        why = str(error or _CLOSED)
        self._lanes.stop(why, kept=kept, flying=error is None)
        for activity in list(self._activities.homes.values()):
            activity.close(why + kept)
        for run in list(self._runs.values()):
            if error is None:
                run.abandon(why + kept)
            else:
                run.fail(error)

    # Single activity tokens.

    async def send(self, message: Message, token: str, **options: Unpack[Options]) -> Outcome:
        """Send a message in order and return its outcome; arguments as in `submit`.

        If this is cancelled before the push is sent, the message is withdrawn.
        """
        lane, state = self._submit(message, token, **options)
        try:
            return await state.ticket
        except asyncio.CancelledError:
            if self._phase is Phase.OPEN:
                self._lanes.withdraw(lane, state)
                self._dispatch.stir(self._lanes)
            raise

    def submit(self, message: Message, token: str, **options: Unpack[Options]) -> Ticket:
        """Queue a message and return at once; await the ticket for the outcome.

        An `Update` or `End` goes to the lane of its token: at most one push is in flight, a newer
        state replaces a waiting one (SUPERSEDED), an end is final. Other messages are sent in
        order. ``options``: ``urgency`` is "urgent", "normal" or "quiet" (`Urgency`). ``revision``
        is the caller's counter; a state that is not newer than the last one is SUPERSEDED at once.
        ``deadline`` is in seconds from now; after it the message is not sent.

        Raises InvalidPayload or InvalidToken for invalid arguments, ActivityEnded after an end,
        InvalidInput for a token of a live activity or an invalid deadline, ClientClosed if the
        delivery is not open, JournalError if the journal has failed.
        """
        return self._submit(message, token, **options)[1].ticket

    def _submit(
        self, message: Message, token: str, **options: Unpack[Options]
    ) -> tuple[Lane, State]:
        self._dispatch.check_open()
        token = str(check_token(token, message=message))
        ordered = isinstance(message, Update | End)
        home = self._activities.owner(token) if ordered else None
        if home is not None:
            told = {"shown": token[:8], "activity": home.activity}
            raise refused(InvalidInput, "token_of_an_activity", "token", **told)
        state = make_state(message, self._dispatch, token=token, **options)
        self._dispatch.counts["submitted"] += 1
        if ordered:
            lane = self._lanes.offer(token, state)
        else:
            lane = self._lanes.run(Errand(token, state, self._lanes.starts))
        self._dispatch.stir(self._lanes)
        return lane, state

    def forget(self, token: str) -> bool:
        """Delete the lane of an unused token; return False if it has a push in flight or waiting."""
        gone = self._lanes.forget(token)
        self._dispatch.stir(self._lanes)
        return gone

    def frequent_pushes(self, token: str, enabled: bool) -> None:
        """Set a device's ``frequentPushesEnabled`` for the activity with this token.

        With False the activity uses the default budget, whatever budget the delivery has.
        """
        home = self._activities.owner(token)
        if home is not None:
            home.frequent_pushes(token, enabled)
        else:
            self._lanes.open(str(check_token(token))).frequent = enabled

    def pool(self, token: str, device: str) -> None:
        """Let activity tokens of one phone share a budget, as iOS was observed to do for an app.

        ``device`` is the caller's name for the phone. Tokens of a live activity are not affected,
        because its budget is kept per version. Raises InvalidToken.
        """
        self._lanes.pool(str(check_token(token)), device)
        self._dispatch.stir(self._lanes)

    # Live activities.

    def activity(
        self,
        activity: str,
        *,
        tokens: Iterable[str] = (),
        minimum_interval: float | None = None,
        guard: SpikeGuard | None = None,
    ) -> LiveActivity:
        """Return the live activity with this name, or create it; add ``tokens`` to it.

        Raises InvalidToken for a malformed token, InvalidInput for a token of another activity.
        """
        self._dispatch.check_open()
        if not activity or "\n" in activity:
            raise refused(InvalidInput, "activity_name", "activity", activity=activity)
        known = self._activities.homes.get(activity)
        if known is None:
            known = LiveActivity(
                self._activities, activity, minimum_interval=minimum_interval, guard=guard
            )
        known.join_all(tokens)
        return known

    def owner(self, token: str) -> LiveActivity | None:
        """Return the live activity that a token belongs to."""
        return self._activities.owner(token)

    def let_go(self, activity: LiveActivity) -> bool:
        """Remove an idle live activity from memory, without ending it.

        Returns False if it is not idle or of another delivery, or if a journal keeps activities.
        """
        known = self._activities.homes.get(activity.activity) is activity
        if not known or self._dispatch.journal is not None or not activity.idle:
            return False
        self._activities.let_go(activity)
        return True

    # Fan-outs.

    def fan_out(
        self,
        message: Message,
        tokens: Tokens | None,
        *,
        name: str,
        deadline: float | None = None,
        dedupe: bool = False,
        drops_to: DropsTo | None = None,
        resend_unknown: bool | None = None,
        guard: SpikeGuard | None = None,
        on_outcome: Callable[[Outcome], object] | None = None,
    ) -> Run:
        """Return a fan-out of one message to the tokens of a source; see `Run`.

        If the journal has a fan-out with this ``name``, it is resumed. Accepted pushes are not sent
        again and unsent ones are sent. Pushes of unknown outcome are sent again for updates and
        ends, and reported as UNKNOWN for starts; ``resend_unknown`` overrides this. ``tokens`` may
        be None if the source was read to its end before. ``deadline`` is in seconds from now.
        ``dedupe`` and ``drops_to`` are as in `Client.fan_out`, but forget tokens at a restart.

        Raises InvalidPayload, InvalidInput, or DeliveryError while a fan-out of this name runs.
        """
        self._dispatch.check_open()
        check_deadline(deadline)
        if not name:
            raise refused(InvalidInput, "fan_out_name", "name")
        encoded = self._dispatch.client.check_decodes(encode(message, now=self._time.wall()))
        run = Run(
            self._dispatch,
            self._runs,
            RunRecord(name=name, message=encoded, deadline=deadline),
            tokens,
            dedupe=dedupe,
            resend_unknown=resend_unknown,
            guard=guard,
            starts=self._lanes.starts,
            on_outcome=on_outcome,
            drops_to=drops_to,
        )
        run.check_start()
        return run

    # Wakeups.

    def submit_when_known(
        self, message: Update | End, device: str, **options: Unpack[Options]
    ) -> Ticket:
        """Keep the newest state for a device whose activity token has not arrived.

        ``device`` is the caller's name for it (the start token, a user id). `hand_in` sends it.
        """
        self._dispatch.check_open()
        state = make_state(message, self._dispatch, **options)
        self._lanes.wait(device, state)
        self._dispatch.stir(self._lanes)
        return state.ticket

    def hand_in(self, device: str, token: str) -> bool:
        """Set the activity token of a device and send its waiting state; return whether there was one."""
        self._dispatch.check_open()
        return self._lanes.hand_in(device, str(check_token(token, message=CHANGE)))

    async def flush(self) -> None:
        """Return when all submitted messages are in the journal. Raises JournalError."""
        await self._dispatch.writer.flush(self._lanes)

    def statistics(self) -> DeliveryStatistics:
        """Return a frozen snapshot. Takes time for each live activity, not for each token."""
        dispatch, lanes, activities = self._dispatch, self._lanes, self._activities
        writer, homes, counts = dispatch.writer, activities.homes.values(), dispatch.counts
        return DeliveryStatistics(
            lanes=len(lanes),
            lanes_waiting=len(lanes.due) + dispatch.waiting,
            lanes_held=len(lanes.timed),
            activities=len(homes),
            activity_tokens=sum(len(home.audience) for home in homes),
            tokens_behind=sum(home.audience.behind for home in homes),
            runs=len(self._runs),
            wakeups=len(self._lanes.wakeups),
            in_flight=dispatch.in_flight,
            submitted=counts["submitted"],
            outcomes=dict(dispatch.outcomes),
            decided=dict(lanes.decided),
            demoted=counts["demoted"],
            over_budget=counts["over_budget"],
            held_back=counts["held"],
            journal_commits=writer.commits,
            journal_records=writer.records,
            budget=self.budget.name,
            budget_verified=self.budget.verified,
        )


def _clock_was_set(change: float) -> None:
    if change < 0:
        logger.warning(
            "the clock was set back by %.0f s. Alerts and ends go with the last timestamp of their "
            "activity + 1; its silent updates wait until the clock has passed that timestamp",
            -change,
        )
