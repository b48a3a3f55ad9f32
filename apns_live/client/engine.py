"""The engine: passes pushes to the transport, turns answers into outcomes, retries by verdict.

Every push from a source is in exactly one state: ready to be sent, in flight, waiting for a retry,
or settled. No function here awaits; the event loop calls them.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from ..clock import Alarm, Clock, timeout
from ..guard import Guarded
from ..http2 import EncodedString, ResponseReceived
from ..outcome import Outcome, Verdict
from ..pool import Bar, Carrier, Hooks, Loss, Push, PushState, RequestIds, Transport
from ..reasons import REPLAY_DELAYS, header
from ..retry import TOTAL_LIMIT, LinkAction
from .attachment import AlikeSource, Attachment, End, WorkSource
from .backoff import Refusals
from .intake import Intake, Waiting
from .outcomes import clock_advice, refusal, unanswered, unknown
from .statistics import Counters

_BAR_BATCH = 1000
_ROUNDS = 8
"""How often in one turn of the event loop sources are asked again while no push may be sent."""
_NO_WINDOW = "The server granted no window for all of the body, so it cannot have acted on it."
_READY = PushState.READY


class Engine:
    """Moves pushes from work sources to the transport. Implements `apns_live.pool.Feed`."""

    def __init__(
        self, clock: Clock, response_timeout: float, hooks: Hooks, ids: RequestIds | None
    ) -> None:
        self.clock = clock
        self.response_timeout = response_timeout
        self.counters = Counters()
        self.transport: Transport
        """Set by the client, which makes it for this engine."""
        hook = hooks.retry
        self._retry_hook = None if hook is None else Guarded(hook, "the hook retry")
        self._intake = Intake(ids or RequestIds(), self._settle)
        self.waiting = Waiting()
        """Pushes that were taken and not yet sent."""
        self._alarm = Alarm(clock, self._tick)
        self.refusals = Refusals(clock)
        self._bar: Bar | None = None
        self._resting = False
        self._watcher = asyncio.Event()
        self.closing = False

    # Sources

    def attach(
        self,
        source: WorkSource | AlikeSource,
        *,
        response_timeout: float | None = None,
        deadline: float | None = None,
        **how: Any,
    ) -> Attachment:
        """Connect a source to the engine; ``deadline`` is seconds from now.

        ``how`` are other fields of `Attachment`.
        """
        attachment = Attachment(
            self,
            source,
            response_timeout=response_timeout or self.response_timeout,
            deadline=0.0 if deadline is None else self.clock.monotonic() + deadline,
            **how,
        )
        self._intake.attachments.append(attachment)
        if deadline is not None:
            attachment.set_timer(
                self.clock.call_later(max(0.0, deadline), lambda: self._expire(attachment))
            )
        self.wake()
        return attachment

    def detach(self, attachment: Attachment, end: End) -> None:
        """Stop reading a source."""
        self._intake.remove(attachment, end)

    def stop_sources(self) -> None:
        """Stop reading all sources except the waiting room, which drains."""
        self.closing = True
        for attachment in tuple(self._intake.attachments):
            if not attachment.drains:
                self._stop(attachment, End.CLOSED)

    def _stop(self, attachment: Attachment, end: End) -> None:
        self.detach(attachment, end)
        if attachment.on_stop is not None:
            attachment.on_stop()

    def wake(self) -> None:
        """Let the transport look for work."""
        self.transport.wake()

    def busy(self) -> bool:
        """Whether any push has no outcome yet."""
        return bool(self.transport.in_flight() or len(self.waiting))

    async def changed(self, at_most: float) -> None:
        """Return after the next outcomes, or after ``at_most`` seconds."""
        self._watcher.clear()
        with contextlib.suppress(TimeoutError):
            async with timeout(self.clock, at_most):
                await self._watcher.wait()

    # The feed, called by the transport.

    def take(
        self, limit: int, now: float, carrier: Carrier | None = None, stream_id: int = 0
    ) -> Sequence[Push]:
        """Return up to ``limit`` pushes to send now; see `Feed`."""
        if now < self.refusals.pool.until or self._bar is not None:
            return ()
        for _ in range(_ROUNDS):
            pushes = self._leavable(self.waiting.take(limit), now)
            if not pushes:
                pushes = self._intake.take(limit, now, carrier, stream_id)
                if len(pushes) > limit:  # a source returned more than it was asked for
                    self.waiting.put_in_front(pushes[limit:])
                    pushes = pushes[:limit]
                self._flush()
                pushes = self._leavable(pushes, now)
            if pushes or not (self._intake.hungry() or self.waiting.ready):
                return pushes
        # All of them were refused, late or held. The event loop gets a turn before more are taken.
        if not self._resting:
            self._resting = True
            asyncio.get_running_loop().call_soon(self._rested)
        return ()

    def _rested(self) -> None:
        self._resting = False
        self.wake()

    def _leavable(self, pushes: Sequence[Push], now: float) -> Sequence[Push]:
        """Return the pushes that may be sent; settle or hold the others."""
        wall = self.clock.time()
        slow = self.refusals.tokens
        alike = bool(pushes) and pushes[0].state == PushState.IN_FLIGHT  # see pushes_that_leave
        if alike and pushes[0].message.useless_at > wall and not slow:
            return pushes
        if not slow and not any(
            push.deadline or push.message.useless_at <= wall for push in pushes
        ):
            return pushes
        for push in pushes:
            push.stays()
        leaving = [push for push in pushes if self._may_leave(push, now, wall)]
        self._flush()
        return leaving

    def _may_leave(self, push: Push, now: float, wall: float) -> bool:
        if push.message.useless_at <= wall or (push.deadline and push.deadline <= now):
            self._settle(push, self._late(push, now))
            return False
        slow = self.refusals.tokens
        wait = slow.wait(push.token, now) if slow else 0.0
        if wait <= 0.0:
            return True
        if push.owner.retry and now + wait <= self._limit(push, now):
            self._hold(push, now + wait)
        else:
            detail = "This token was answered 429 a moment ago; nothing was sent this time."
            again = {"retry_at": wall + wait, "detail": detail}
            self._unsent(push, Verdict.SLOW_DOWN, "TooManyRequests", now, **again)
        return False

    def give_back(self, pushes: Sequence[Push]) -> None:
        """Take back unsent pushes; they are sent next."""
        for push in pushes:
            push.stays()
        self.waiting.put_in_front(pushes)

    def may_have_work(self) -> bool:
        """Whether ``take`` might return something: `has_work` without reading ahead."""
        if self._bar is not None or self.clock.monotonic() < self.refusals.pool.until:
            return self.has_work()
        return bool(self.waiting.ready) or self._intake.hungry()

    def has_work(self) -> bool:
        """Whether ``take`` would return something now."""
        if self._bar is not None:
            self._settle_barred()
            return False
        now = self.clock.monotonic()
        if now < self.refusals.pool.until:
            return False
        if self.waiting.first() is None:
            looked_at = self.take(1, now)
            self.waiting.put_in_front(looked_at)
            for push in looked_at:
                self._alarm.set(self._limit(push, now))
        return self.waiting.first() is not None

    # Answers.

    def accepted(
        self,
        carrier: Carrier,
        pushes: Sequence[Push],
        unique_ids: Sequence[EncodedString],
        now: float,
    ) -> None:
        """Make an outcome of each acceptance."""
        self._accept(carrier.number, pushes, unique_ids, now)
        self._flush()

    def _accept(
        self, number: int, pushes: Sequence[Push], unique_ids: Sequence[object], now: float
    ) -> None:
        self._intake.accepted(number, pushes, unique_ids, now, self.counters)
        self.refusals.accepted(pushes)
        self.counters.accepted += len(pushes)

    def answered(
        self, carrier: Carrier, batch: Sequence[tuple[Push, ResponseReceived]], now: float
    ) -> None:
        """Make an outcome of each answer, or schedule a retry."""
        for push, response in batch:
            if response.status == 200:
                unique_id = header(response.headers, b"apns-unique-id")
                self._accept(carrier.number, [push], [unique_id], now)
            else:
                self.counters.round_trips.add(now - push.sent_at, 1)
                self.counters.queue_times.add(push.sent_at - push.created, 1)
                self._refused(push, response, carrier, now)
        self._flush()

    def _refused(
        self, push: Push, response: ResponseReceived, carrier: Carrier, now: float
    ) -> None:
        may_retry = push.owner.retry and not self.closing
        answer, step = self.refusals.judge(push, response, carrier, now, may_retry=may_retry)
        if step.link is not LinkAction.KEEP:
            if step.link is LinkAction.RETIRE_AND_BAR:
                self.transport.credentials_refused(answer.reason, clock_advice(answer))
            elif step.link is LinkAction.RETIRE_KEEPING_OLDEST_TOKEN:
                self.transport.keep_oldest_token(carrier.token)
            carrier.retire(answer.reason or f"status {answer.status}")
        if self.refusals.pool.until > now:
            self._alarm.set(self.refusals.pool.until)
        if step.again and step.delay is not None and now + step.delay <= self._limit(push, now):
            push.tries += 1
            self.counters.retries += 1
            self._try_again(push, answer.reason or str(answer.status), step.delay, now)
        else:
            self._settle(push, refusal(push, answer, step, now, self.clock.time(), carrier.number))

    def lost(
        self, carrier: Carrier, pushes: Sequence[Push], loss: Loss, now: float, detail: str = ""
    ) -> None:
        """Resend pushes that were certainly not processed; report the others as unknown."""
        for push in pushes:
            if loss is Loss.UNPROCESSED or loss is Loss.REFUSED:
                self._replay(push, loss, now, detail)
            elif loss is Loss.INCOMPLETE:
                self._unsent(push, Verdict.NOT_SENT, loss.value, now, detail=_NO_WINDOW)
            else:
                self._settle(push, unknown(push, loss, now, detail, carrier.number))
        self._flush()
        if self.waiting.ready:
            self.wake()

    def _replay(self, push: Push, loss: Loss, now: float, detail: str) -> None:
        """Resend a push that was certainly not processed.

        After GOAWAY another connection takes it at once. After REFUSED_STREAM the server is
        overloaded, so from the second time on there is a pause, and a limit.
        """
        push.replays += 1
        push.carrier = None
        self.counters.replays += 1
        if self.closing:
            self._unsent(push, Verdict.NOT_SENT, "closed", now)
        elif loss is Loss.UNPROCESSED and now < self._limit(push, now):
            self._try_again(push, loss.value, 0.0, now)
        elif loss is Loss.REFUSED and push.replays <= len(REPLAY_DELAYS):
            self._try_again(push, loss.value, REPLAY_DELAYS[push.replays - 1], now)
        else:
            retry_at = self.clock.time() + REPLAY_DELAYS[-1]
            detail = detail or "The server refused it unprocessed again and again."
            again = {"retry_at": retry_at, "detail": detail}
            self._unsent(push, Verdict.RETRY_LATER, loss.value, now, **again)

    def _try_again(self, push: Push, reason: str, delay: float, now: float) -> None:
        if self._retry_hook is not None:
            self._retry_hook(push.request_id, reason, delay)
        if delay > 0.0:
            self._hold(push, now + delay)
        else:
            self.waiting.add(push)
            self._alarm.set(self._limit(push, now))
            self.wake()

    def barred(self, bar: Bar | None) -> None:
        """Settle all waiting pushes, because connecting fails until a person fixes the cause."""
        self._bar = bar
        if bar is None:
            self.wake()
        else:
            asyncio.get_running_loop().call_soon(self._settle_barred)

    def _settle_barred(self) -> None:
        bar = self._bar
        if bar is None:
            return
        now = self.clock.monotonic()
        ready = self.waiting.take(_BAR_BATCH) or self._intake.take(_BAR_BATCH, now)
        retry_at = self.clock.time() + max(0.0, bar.until - now)
        again = {"retry_at": retry_at, "detail": bar.detail}
        for push in ready:
            self._unsent(push, Verdict.OPERATOR, bar.reason, now, **again)
        self._flush()
        if ready:
            self.wake()

    # Waiting for another try

    def _hold(self, push: Push, until: float) -> None:
        self.waiting.hold(push, until)
        self._alarm.set(until)
        push.owner.wake()  # makes room for other pushes of its source

    def _tick(self) -> None:
        now = self.clock.monotonic()
        wall = self.clock.time()
        self.waiting.release(now)
        for push in [push for push in self.waiting.ready if push.state == _READY]:
            # Its deadline may pass while it waits for a connection.
            if push.message.useless_at <= wall or self._limit(push, now) <= now:
                self._settle(push, self._late(push, now))
        self.refusals.tokens.sweep(now)
        self._flush()
        moments = [self._limit(push, now) for push in self.waiting.ready if push.state == _READY]
        moments += [until for until, _, _ in self.waiting.held[:1]]
        if self.refusals.pool.until > now:
            moments.append(self.refusals.pool.until)
        if moments:
            self._alarm.set(min(moments))
        self.wake()

    def _limit(self, push: Push, now: float) -> float:
        """Return the monotonic time after which the push is not tried again."""
        limit = push.created + TOTAL_LIMIT
        if push.deadline:
            limit = min(limit, push.deadline)
        owner = push.owner
        if owner.deadline:
            limit = min(limit, owner.deadline)
        useless_at = push.message.useless_at
        if useless_at != float("inf"):
            limit = min(limit, now + useless_at - self.clock.time())
        return limit

    # Giving up

    def give_up(self, push: Push, loss: Loss, *, report: bool = True) -> bool:
        """Give up one push in any state: NOT_SENT or, if its body may have left, UNKNOWN.

        Return False if it is settled. Without ``report`` no outcome is reported.
        """
        if push.state == PushState.SETTLED or push.owner is None:
            return False
        now = self.clock.monotonic()
        if push.state == PushState.NEW:
            push.owner.in_hand += 1  # the source gives it up before `take` has returned it
        if push.state == PushState.IN_FLIGHT:
            outcome = self._abandon(push, loss, now)
            if outcome is None:
                return False
        elif loss is Loss.CANCELLED:
            outcome = unanswered(push, Verdict.NOT_SENT, loss.value, now)
        else:
            outcome = self._late(push, now, loss.value)
        if report:
            self._settle(push, outcome)
            self._flush()
        else:
            self.waiting.settled(push)
            push.owner.in_hand -= 1
            self.counters.cancelled += 1
        self.wake()
        return True

    @staticmethod
    def _abandon(push: Push, loss: Loss, now: float) -> Outcome | None:
        """Reset a push's stream and return its outcome; None if it is not in flight."""
        carrier = push.carrier
        left = None if carrier is None else carrier.abandon(push)
        if carrier is None or left is None:
            return None
        if left:
            return unknown(push, loss, now, "", carrier.number)
        return unanswered(push, Verdict.NOT_SENT, loss.value, now, detail=_NO_WINDOW)

    def give_up_waiting(self, attachment: Attachment | None, reason: str) -> None:
        """Settle as NOT_SENT all pushes of one source (or of all) that are not in flight."""
        now = self.clock.monotonic()
        for push in [push for push in self.waiting if attachment in (None, push.owner)]:
            self._unsent(push, Verdict.NOT_SENT, reason, now)
        self._flush()

    def _expire(self, attachment: Attachment) -> None:
        """Settle a source at its deadline: unsent pushes get NOT_SENT, those in flight UNKNOWN."""
        now = self.clock.monotonic()
        self._stop(attachment, End.DEADLINE)
        for push in [push for push in self.waiting if push.owner is attachment]:
            self._settle(push, self._late(push, now))
        self._abandon_in_flight(attachment, Loss.DEADLINE)
        attachment.set_timer(None)

    def _abandon_in_flight(self, attachment: Attachment | None, loss: Loss) -> None:
        """Reset the streams of one source (or of all) and report them as unknown."""
        now = self.clock.monotonic()
        for push in self.transport.in_flight():
            if attachment is not None and push.owner is not attachment:
                continue
            outcome = self._abandon(push, loss, now)
            if outcome is not None:
                self._settle(push, outcome)
        self._flush()

    def close(self) -> None:
        """Settle all pushes, because the client is closed."""
        self.give_up_waiting(None, "closed")
        self.waiting.clear()
        self._alarm.cancel()
        self._abandon_in_flight(None, Loss.CLOSED)

    # Outcomes

    def _settle(self, push: Push, outcome: Outcome) -> None:
        self.waiting.settled(push)
        self._intake.settle(push, outcome)
        self.counters.count(outcome)

    def _unsent(self, push: Push, verdict: Verdict, reason: str, now: float, **words: Any) -> None:
        """Settle a push whose last try certainly did not reach APNs."""
        self._settle(push, unanswered(push, verdict, reason, now, **words))

    def _flush(self) -> None:
        if self._intake.flush():
            self._watcher.set()

    def _late(self, push: Push, now: float, reason: str = "deadline") -> Outcome:
        """Return the outcome of an unsent push: EXPIRED, or for ``reason`` NOT_SENT."""
        wall = self.clock.time()
        verdict = Verdict.NOT_SENT
        if push.message.useless_at <= wall:
            verdict, reason = Verdict.EXPIRED, "expired"
        elif push.last is not None:
            # An earlier refusal, after which it waited for a retry, is the better answer.
            answer, step = push.last
            return refusal(push, answer, step, now, wall, 0)
        detail = self._why_waiting() if push.attempts == 0 else ""
        return unanswered(push, verdict, reason, now, detail=detail)

    def _why_waiting(self) -> str:
        seconds, because = self.refusals.pause(self.clock.monotonic())
        if seconds:
            return f"APNs answered {because}: nothing leaves for another {seconds:.0f} s."
        failure = self.transport.opening.last_failure
        return f"No connection took it; the last try failed: {failure}" if failure else ""
