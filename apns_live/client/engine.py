"""The engine: gives pushes to the transport, makes an outcome of each answer, retries by verdict.

Every push taken from a source is in exactly one place: ready to leave, on the wire, held until
another try is due, or settled. Nothing here awaits; the event loop calls in.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable, Sequence

from ..clock import Clock, Timer
from ..http2 import ResponseReceived
from ..outcome import Outcome, Verdict
from ..pool import Bar, Carrier, Hooks, Loss, Push, PushState, RequestIds, Transport
from ..reasons import Retry
from .answers import Answer, read_answer
from .attachment import Attachment, WorkSource
from .backoff import PoolBackoff, TokenBackoff
from .retry import REPLAY_DELAYS, Circumstances, Link, Step, next_step
from .statistics import Counters

logger = logging.getLogger("apns_live.client")

TOTAL_LIMIT = 60.0
"""Seconds from being taken to the last try, whatever deadline and expiration allow."""

_BAR_BATCH = 1000


class Engine:
    """Between the sources of work and the transport. Implements `apns_live.pool.Feed`."""

    def __init__(
        self,
        *,
        clock: Clock,
        response_timeout: float,
        hooks: Hooks,
        ids: Callable[[], str] | None = None,
        total_limit: float = TOTAL_LIMIT,
        slow_tokens: int = 10_000,
    ) -> None:
        self.clock = clock
        self.response_timeout = response_timeout
        self.counters = Counters()
        self.transport: Transport | None = None
        self.ids = ids or RequestIds()
        self._hooks = hooks
        self._total_limit = total_limit
        self._attachments: list[Attachment] = []
        self._turn = 0
        self._ready: deque[Push] = deque()
        self._held: list[tuple[float, int, Push]] = []
        self._held_count = 0
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._backoff = PoolBackoff()
        self._slow = TokenBackoff(slow_tokens)
        self._bar: Bar | None = None
        self._dirty: list[Attachment] = []
        self._flushing = False
        self._watcher: asyncio.Event | None = None
        self.closing = False

    # Sources

    def attach(
        self,
        source: WorkSource,
        *,
        retry: bool = True,
        response_timeout: float | None = None,
        deadline: float | None = None,
        on_deadline: Callable[[], object] | None = None,
        first: bool = False,
    ) -> Attachment:
        """Tie a source to the engine; ``deadline`` is seconds from now."""
        now = self.clock.monotonic()
        attachment = Attachment(
            self,
            source,
            retry=retry,
            response_timeout=response_timeout or self.response_timeout,
            deadline=0.0 if deadline is None else now + deadline,
            on_deadline=on_deadline,
        )
        if first:
            self._attachments.insert(0, attachment)
        else:
            self._attachments.append(attachment)
        if deadline is not None:
            attachment.set_timer(
                self.clock.call_later(max(0.0, deadline), lambda: self._expire(attachment))
            )
        self.wake()
        return attachment

    def detach(self, attachment: Attachment) -> None:
        """Take no more from a source."""
        attachment.detached = True
        if attachment in self._attachments:
            self._attachments.remove(attachment)
        if not attachment.in_hand:
            attachment.set_timer(None)

    def wake(self) -> None:
        """Let the transport look for work."""
        if self.transport is not None:
            self.transport.wake()

    def busy(self) -> bool:
        """Whether anything is on its way, from being taken to its outcome."""
        in_flight = self.transport.in_flight() if self.transport is not None else []
        return bool(in_flight or self.waiting())

    async def changed(self, at_most: float) -> None:
        """Return after the next outcomes, or after ``at_most`` seconds."""
        if self._watcher is None:
            self._watcher = asyncio.Event()
        self._watcher.clear()
        timer = self.clock.call_later(at_most, self._watcher.set)
        try:
            await self._watcher.wait()
        finally:
            timer.cancel()

    def waiting(self) -> int:
        """How many pushes were taken and are not on the wire."""
        return sum(push.state == PushState.READY for push in self._ready) + sum(
            push.state == PushState.HELD for _, _, push in self._held
        )

    # The feed: what the transport asks

    def take(self, limit: int, now: float) -> Sequence[Push]:
        """Return up to ``limit`` pushes that may leave at once."""
        if now < self._backoff.until or self._bar is not None:
            return ()
        if self._ready:
            return self._take_ready(limit, now)
        return self._take_new(limit, now)

    def _take_ready(self, limit: int, now: float) -> Sequence[Push]:
        ready = self._ready
        taken: list[Push] = []
        while ready and len(taken) < limit:
            push = ready.popleft()
            if push.state == PushState.READY:
                taken.append(push)
        return self._leavable(taken, now) or self._take_new(limit, now)

    def _take_new(self, limit: int, now: float) -> Sequence[Push]:
        attachments = self._attachments
        hungry = [attachment for attachment in attachments if not attachment.idle]
        if not hungry:
            return ()
        if len(hungry) == 1:
            return self._leavable(self._take_from(hungry[0], limit, now), now)
        self._turn += 1
        at = self._turn % len(hungry)
        taken: list[Push] = []
        share = max(1, limit // len(hungry))
        for attachment in hungry[at:] + hungry[:at]:
            if len(taken) >= limit:
                break
            taken += self._take_from(attachment, min(share, limit - len(taken)), now)
        return self._leavable(taken, now)

    def _take_from(self, attachment: Attachment, limit: int, now: float) -> Sequence[Push]:
        try:
            items = attachment.source.take(limit)
        except Exception as error:  # noqa: BLE001 - a source is not ours; the engine goes on
            attachment.idle = True
            self._complain("a source of work raised in take()", error)
            return ()
        if not items:
            attachment.idle = True
            return ()
        attachment.in_hand += len(items)
        ids = self.ids
        for push in items:
            push.owner = attachment
            push.state = PushState.READY
            if not push.created:
                push.created = now
            if not push.request_id:
                push.request_id = ids()
        return items

    def _leavable(self, pushes: Sequence[Push], now: float) -> Sequence[Push]:
        """Return those that may leave; settle or hold the others."""
        wall = self.clock.time()
        message = None
        slow = self._slow
        for push in pushes:
            if push.message is not message:
                message = push.message
                if message.useless_at <= wall:
                    break
            if push.deadline or slow:
                break
        else:
            return pushes
        leaving = [push for push in pushes if self._may_leave(push, now, wall)]
        self._flush()
        return leaving

    def _may_leave(self, push: Push, now: float, wall: float) -> bool:
        if push.message.useless_at <= wall:
            self._settle_late(push, Verdict.EXPIRED, "expired", now)
            return False
        if push.deadline and push.deadline <= now:
            self._settle_late(push, Verdict.NOT_SENT, "deadline", now)
            return False
        wait = self._slow.wait(push.token, now) if self._slow else 0.0
        if wait > 0.0:
            self._wait_for_slow_token(push, now, wait)
            return False
        return True

    def _wait_for_slow_token(self, push: Push, now: float, wait: float) -> None:
        if push.owner.retry and now + wait <= self._limit(push, now):
            self._hold(push, now + wait)
            return
        self._settle(
            push,
            self._plain(
                push,
                Verdict.SLOW_DOWN,
                "TooManyRequests",
                now,
                retry_at=self.clock.time() + wait,
                detail="This token was answered 429 a moment ago; nothing was sent this time.",
            ),
        )

    def give_back(self, pushes: Sequence[Push]) -> None:
        """Take back pushes that did not leave after all; they are the next to go."""
        self._ready.extendleft(reversed(pushes))

    def has_work(self) -> bool:
        """Whether ``take`` would return something now."""
        if self._bar is not None:
            self._settle_barred()
            return False
        now = self.clock.monotonic()
        if now < self._backoff.until:
            return False
        ready = self._ready
        while ready and ready[0].state != PushState.READY:
            ready.popleft()
        if not ready:
            ready.extend(self._take_new(1, now))
            if ready:
                self._watch_ready(ready[0], now)
        return bool(ready)

    def _watch_ready(self, push: Push, now: float) -> None:
        """Let a push that waits for a connection be looked at again when its time is up."""
        self._arm(self._limit(push, now))

    # What came back

    def answered(
        self, carrier: Carrier, batch: Sequence[tuple[Push, ResponseReceived]], now: float
    ) -> None:
        """Make an outcome of each answer, or another try."""
        accepted = 0
        number = carrier.number
        verdict = Verdict.ACCEPTED
        sent_at = created = -1.0
        round_trip = queue_time = elapsed = 0.0
        same = 0
        slow = self._slow
        latencies = self.counters.round_trips
        for push, response in batch:
            if push.sent_at != sent_at or push.created != created:
                if same:
                    latencies.add(round_trip, same)
                    same = 0
                sent_at, created = push.sent_at, push.created
                round_trip = now - sent_at
                queue_time = sent_at - created
                elapsed = now - created
            same += 1
            if response.status != 200:
                self._refused(push, response, carrier, now)
                continue
            accepted += 1
            unique_id = ""
            for name, value in response.headers:
                if name == b"apns-unique-id":
                    unique_id = value.decode("latin-1")
                    break
            push.state = PushState.SETTLED
            owner = push.owner
            outcomes = owner.batch
            if not outcomes:
                self._dirty.append(owner)
            outcomes.append(
                (
                    push,
                    Outcome(
                        token=push.token,
                        verdict=verdict,
                        status=200,
                        apns_id=push.request_id,
                        apns_unique_id=unique_id,
                        attempts=push.attempts,
                        priority=push.message.priority,
                        connection_id=number,
                        queue_time=queue_time,
                        round_trip=round_trip,
                        elapsed=elapsed,
                    ),
                )
            )
            if slow:
                slow.accepted(push.token)
        if same:
            latencies.add(round_trip, same)
        if accepted:
            self.counters.accepted += accepted
            self._backoff.accepted()
        self._flush()

    def _refused(
        self, push: Push, response: ResponseReceived, carrier: Carrier, now: float
    ) -> None:
        answer = read_answer(response.status, response.headers, response.body, self.clock.time())
        if answer.row.verdict is Verdict.ACCEPTED:
            # 200 is handled by the caller; no other status accepts.
            answer = read_answer(502, response.headers, response.body, self.clock.time())
        seen = self._circumstances(push, answer, carrier, now)
        step = next_step(answer.row, seen)
        self._treat_link(carrier, step, answer)
        push.last = (answer, step)
        if answer.row.retry is Retry.BACKOFF_TOKEN and step.delay is not None:
            self._slow.refused(push.token, now, step.delay)
        elif answer.row.retry in (Retry.NEW_TOKEN_ONCE, Retry.NEW_LINK_ONCE, Retry.NEW_KEY_LINK):
            push.renewed = True
        if step.again and step.delay is not None and now + step.delay <= self._limit(push, now):
            push.tries += 1
            self.counters.retries += 1
            self._try_again(push, answer.reason or str(answer.status), step.delay, now)
        else:
            self._settle(push, self._refusal(push, answer, step, now, carrier.number))

    def _circumstances(
        self, push: Push, answer: Answer, carrier: Carrier, now: float
    ) -> Circumstances:
        pool_delay = token_delay = 0.0
        token_is_current = True
        match answer.row.retry:
            case Retry.BACKOFF_POOL:
                pool_delay = self._backoff.refused(now, push.sent_at, answer.retry_after)
                self._arm(self._backoff.until)
            case Retry.BACKOFF_TOKEN:
                token_delay = self._slow.delay(push.token, now)
            case Retry.NEW_TOKEN_ONCE:
                token_is_current = carrier.shows_current_token()
            case _:
                pass
        return Circumstances(
            tries=push.tries,
            replays=push.replays,
            renewed=push.renewed,
            replay_safe=push.message.encoded.replay_safe,
            may_retry=push.owner.retry and not self.closing,
            token_is_current=token_is_current,
            connection_fresh=carrier.fresh,
            retry_after=answer.retry_after,
            pool_delay=pool_delay,
            token_delay=token_delay,
        )

    def _treat_link(self, carrier: Carrier, step: Step, answer: Answer) -> None:
        if step.link is Link.KEEP:
            return
        cause = answer.reason or f"status {answer.status}"
        if self.transport is not None:
            if step.link is Link.RETIRE_AND_BAR:
                self.transport.credentials_refused(answer.reason, _clock_advice(answer))
            elif step.link is Link.RETIRE_KEEPING_OLDEST_TOKEN:
                self.transport.keep_oldest_token(carrier.token)
        carrier.retire(cause)

    def lost(
        self, carrier: Carrier, pushes: Sequence[Push], loss: Loss, now: float, detail: str = ""
    ) -> None:
        """Replay what was certainly not processed; report the rest as unknown."""
        for push in pushes:
            if loss is Loss.UNPROCESSED or loss is Loss.REFUSED:
                self._replay(push, loss, now, detail)
            else:
                self._settle(push, self._unknown(push, loss, now, detail, carrier.number))
        self._flush()
        if self._ready:
            self.wake()

    def _replay(self, push: Push, loss: Loss, now: float, detail: str) -> None:
        """Let a push leave again that was certainly not processed.

        After GOAWAY another connection takes it, so at once. REFUSED_STREAM comes from a server
        that wants less, so the second time after a pause, and not for ever.
        """
        push.replays += 1
        push.carrier = None
        self.counters.replays += 1
        if self.closing:
            self._settle(push, self._plain(push, Verdict.NOT_SENT, "closed", now))
        elif loss is Loss.UNPROCESSED and now < self._limit(push, now):
            self._try_again(push, loss.value, 0.0, now)
        elif loss is Loss.REFUSED and push.replays <= len(REPLAY_DELAYS):
            self._try_again(push, loss.value, REPLAY_DELAYS[push.replays - 1], now)
        else:
            outcome = self._plain(
                push,
                Verdict.RETRY_LATER,
                loss.value,
                now,
                retry_at=self.clock.time() + REPLAY_DELAYS[-1],
                detail=detail or "The server refused it unprocessed again and again.",
            )
            self._settle(push, outcome)

    def _try_again(self, push: Push, reason: str, delay: float, now: float) -> None:
        hook = self._hooks.retry
        if hook is not None:
            try:
                hook(push.request_id, reason, delay)
            except Exception:
                logger.exception("a hook raised")
        if delay > 0.0:
            self._hold(push, now + delay)
        else:
            push.state = PushState.READY
            self._ready.append(push)
            self._watch_ready(push, now)
            self.wake()

    def barred(self, bar: Bar | None) -> None:
        """Settle what waits while nothing can connect for a reason that a person must see to."""
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
        self._bar = None  # so that the sources can be asked
        try:
            ready = [push for push in self._ready if push.state == PushState.READY]
            self._ready.clear()
            if not ready:
                ready = list(self._take_new(_BAR_BATCH, now))
        finally:
            self._bar = bar
        for push in ready:
            outcome = self._plain(
                push,
                Verdict.OPERATOR,
                bar.reason,
                now,
                retry_at=self.clock.time() + max(0.0, bar.until - now),
                detail=bar.detail,
            )
            self._settle(push, outcome)
        self._flush()
        if ready:
            self.wake()

    # Waiting for another try

    def _hold(self, push: Push, until: float) -> None:
        push.state = PushState.HELD
        self._held_count += 1
        heapq.heappush(self._held, (until, self._held_count, push))
        self._arm(until)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.clock.call_later(max(0.0, at - self.clock.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self.clock.monotonic()
        held = self._held
        while held and held[0][0] <= now:
            _, _, push = heapq.heappop(held)
            if push.state == PushState.HELD:
                push.state = PushState.READY
                self._ready.append(push)
        self._sweep_ready(now)
        self._slow.sweep(now)
        self._flush()
        moments = [self._limit(push, now) for push in self._ready if push.state == PushState.READY]
        if held:
            moments.append(held[0][0])
        if self._backoff.until > now:
            moments.append(self._backoff.until)
        if moments:
            self._arm(max(min(moments), now))
        self.wake()

    def _sweep_ready(self, now: float) -> None:
        """Settle what waited for room or a connection until its time was up."""
        wall = self.clock.time()
        for push in list(self._ready):
            if push.state != PushState.READY:
                continue
            if push.message.useless_at <= wall:
                self._settle_late(push, Verdict.EXPIRED, "expired", now)
            elif self._limit(push, now) <= now:
                self._settle_late(push, Verdict.NOT_SENT, "deadline", now)

    def _limit(self, push: Push, now: float) -> float:
        """Return the monotonic time after which the push is not tried again."""
        limit = push.created + self._total_limit
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

    def cancel(self, push: Push, *, report: bool) -> bool:
        """Give one push up, wherever it is; without ``report`` nobody hears of it."""
        if push.state == PushState.SETTLED or push.owner is None:
            return False
        if push.state == PushState.NEW:
            push.owner.in_hand += 1  # its source gives it up before it was taken
        now = self.clock.monotonic()
        if push.state == PushState.IN_FLIGHT:
            carrier = push.carrier
            if carrier is None or not carrier.abandon(push, Loss.CANCELLED):
                return False
            outcome = self._unknown(push, Loss.CANCELLED, now, "", carrier.number)
        else:
            outcome = self._plain(push, Verdict.NOT_SENT, "cancelled", now)
        if report:
            self._settle(push, outcome)
            self._flush()
        else:
            push.state = PushState.SETTLED
            push.owner.in_hand -= 1
            self.counters.cancelled += 1
        self.wake()
        return True

    def expire(self, push: Push, reason: str = "deadline") -> None:
        """Its own deadline has passed: settle it as NOT_SENT or, when it is out, as UNKNOWN."""
        now = self.clock.monotonic()
        if push.state == PushState.SETTLED:
            return
        if push.state == PushState.NEW:
            push.owner.in_hand += 1
        if push.state == PushState.IN_FLIGHT:
            carrier = push.carrier
            if carrier is None or not carrier.abandon(push, Loss.DEADLINE):
                return
            self._settle(push, self._unknown(push, Loss.DEADLINE, now, "", carrier.number))
        elif push.message.useless_at <= self.clock.time():
            self._settle_late(push, Verdict.EXPIRED, "expired", now)
        else:
            self._settle_late(push, Verdict.NOT_SENT, reason, now)
        self._flush()
        self.wake()

    def cancel_waiting(self, attachment: Attachment) -> None:
        """Give up everything of one source that is not on the wire."""
        now = self.clock.monotonic()
        for push in self._waiting_of(attachment):
            self._settle(push, self._plain(push, Verdict.NOT_SENT, "cancelled", now))
        self._flush()

    def _waiting_of(self, attachment: Attachment) -> list[Push]:
        waiting = [push for push in self._ready if push.state == PushState.READY]
        waiting += [push for _, _, push in self._held if push.state == PushState.HELD]
        return [push for push in waiting if push.owner is attachment]

    def _expire(self, attachment: Attachment) -> None:
        """Its deadline has passed: what has not left is NOT_SENT, what is out is UNKNOWN."""
        now = self.clock.monotonic()
        self.detach(attachment)
        if attachment.on_deadline is not None:
            attachment.on_deadline()
        for push in self._waiting_of(attachment):
            self._settle_late(push, Verdict.NOT_SENT, "deadline", now)
        self.abandon_in_flight(attachment, Loss.DEADLINE)
        attachment.set_timer(None)

    def abandon_in_flight(self, attachment: Attachment | None, loss: Loss) -> None:
        """Reset the streams of one source (or of all) and report them as unknown."""
        now = self.clock.monotonic()
        for push in self.transport.in_flight() if self.transport is not None else ():
            carrier = push.carrier
            if attachment is not None and push.owner is not attachment:
                continue
            if carrier is not None and carrier.abandon(push, loss):
                self._settle(push, self._unknown(push, loss, now, "", carrier.number))
        self._flush()

    def close_waiting(self) -> None:
        """Settle everything that has not left: the client is closed."""
        now = self.clock.monotonic()
        waiting = [push for push in self._ready if push.state == PushState.READY]
        waiting += [push for _, _, push in self._held if push.state == PushState.HELD]
        for push in waiting:
            self._settle(push, self._plain(push, Verdict.NOT_SENT, "closed", now))
        self._ready.clear()
        self._held.clear()
        self._flush()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Outcomes

    def _settle(self, push: Push, outcome: Outcome) -> None:
        push.state = PushState.SETTLED
        owner = push.owner
        if not owner.batch:
            self._dirty.append(owner)
        owner.batch.append((push, outcome))
        self.counters.count(outcome)

    def _flush(self) -> None:
        """Hand every source its batch. A source may call back in; its calls are flushed too."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while self._dirty:
                owner = self._dirty.pop()
                batch, owner.batch = owner.batch, []
                owner.in_hand -= len(batch)
                try:
                    owner.source.settled(batch)
                except Exception as error:  # noqa: BLE001 - a source is not ours; the engine goes on
                    self._complain("a source of work raised in settled()", error)
                if owner.detached and not owner.in_hand:
                    owner.set_timer(None)
        finally:
            self._flushing = False
        if self._watcher is not None:
            self._watcher.set()

    def _settle_late(self, push: Push, verdict: Verdict, reason: str, now: float) -> None:
        if push.last is not None and verdict is not Verdict.EXPIRED:
            # It was refused before and waited for another try: that is the better answer.
            answer, step = push.last
            self._settle(push, self._refusal(push, answer, step, now, 0))
            return
        detail = self._why_waiting() if push.attempts == 0 else ""
        self._settle(push, self._plain(push, verdict, reason, now, detail=detail))

    def _why_waiting(self) -> str:
        failure = getattr(self.transport, "last_failure", "")
        return f"No connection took it; the last try failed: {failure}" if failure else ""

    def _plain(
        self,
        push: Push,
        verdict: Verdict,
        reason: str,
        now: float,
        *,
        retry_at: float = 0.0,
        detail: str = "",
    ) -> Outcome:
        return Outcome(
            token=push.token,
            verdict=verdict,
            reason=reason,
            apns_id=push.request_id,
            attempts=push.attempts,
            priority=push.message.priority,
            retry_at=retry_at,
            queue_time=(push.sent_at or now) - push.created,
            elapsed=now - push.created,
            detail=detail,
        )

    def _unknown(
        self, push: Push, loss: Loss, now: float, detail: str, connection_id: int
    ) -> Outcome:
        self.counters.lost += 1
        return Outcome(
            token=push.token,
            verdict=Verdict.UNKNOWN,
            reason=loss.value,
            apns_id=push.request_id,
            attempts=push.attempts,
            may_have_been_sent=True,
            priority=push.message.priority,
            connection_id=connection_id,
            queue_time=push.sent_at - push.created,
            elapsed=now - push.created,
            detail=detail,
        )

    def _refusal(
        self, push: Push, answer: Answer, step: Step, now: float, connection_id: int
    ) -> Outcome:
        row = answer.row
        detail = f"{row.meaning}. {row.remedy}" if row.remedy else row.meaning
        if step.link is Link.RETIRE_AND_BAR:
            detail = _clock_advice(answer)
        retry_at = 0.0
        if step.delay is not None and step.verdict in _WORTH_ANOTHER_TRY:
            retry_at = self.clock.time() + step.delay
        return Outcome(
            token=push.token,
            verdict=step.verdict,
            status=answer.status,
            reason=answer.reason,
            apns_id=push.request_id,
            timestamp=answer.timestamp,
            attempts=push.attempts,
            may_have_been_sent=step.may_have_been_sent,
            priority=push.message.priority,
            check_environment=answer.reason == "BadDeviceToken",
            retry_at=retry_at,
            connection_id=connection_id,
            queue_time=push.sent_at - push.created,
            round_trip=now - push.sent_at,
            elapsed=now - push.created,
            detail=detail,
        )

    def _complain(self, message: str, error: Exception) -> None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"apns_live: {message}", "exception": error}
        )


_WORTH_ANOTHER_TRY = (
    Verdict.RETRY_LATER,
    Verdict.SLOW_DOWN,
    Verdict.REFRESH_CREDENTIALS,
)


def _clock_advice(answer: Answer) -> str:
    if answer.skew is None:
        return (
            "APNs says that a provider token made just now is too old. "
            "Check this machine's clock, and that NTP runs."
        )
    side = "ahead of" if answer.skew > 0 else "behind"
    return (
        "APNs says that a provider token made just now is too old. Check this machine's clock: "
        f"it is {abs(answer.skew):.0f} s {side} the server's."
    )
