"""One TLS connection to APNs, as an asyncio protocol around the sans-I/O HTTP/2 connection.

A link pulls work when it has room (streams and windows), writes once per turn of the event loop,
and reports answers in batches. There is no task, future or timer per push.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Sequence
from typing import Protocol, cast

from ..clock import Clock, Timer
from ..credentials import ProviderToken, ProviderTokens
from ..errors import Http2ConnectionError
from ..http2 import (
    ClientConnection,
    ErrorCode,
    GoAwayReceived,
    PingAcknowledged,
    ResponseReceived,
    SettingsReceived,
    StreamReset,
)
from .decision import LinkView
from .options import PoolOptions
from .push import Push, PushState
from .timeouts import ResponseTimeouts
from .transport import Feed, LinkStatistics, Loss

logger = logging.getLogger("apns_live.pool")

_CHUNK = 256
"""How many pushes are taken at a time; bounds what has to be given back."""

_SMOOTHING = 0.2

STEADY_AFTER = 10.0
WORTHWHILE = 100
"""A connection that lasted so many seconds, or brought so many answers, was worth opening."""

PROBE_PATIENCE = 1.0
"""Seconds after which others take over from a link that was idle and does not answer its PING."""


class LinkState(enum.Enum):
    """What a link is doing. Draining takes no new pushes and waits for answers."""

    CONNECTING = "connecting"
    WAITING_FOR_SETTINGS = "waiting for settings"
    READY = "ready"
    PROBING = "probing"
    """It was idle for long, or is silent: a PING is out, and no push leaves before its answer."""
    DRAINING = "draining"
    CLOSED = "closed"


class LinkOwner(Protocol):
    """The pool, as a link sees it."""

    def link_ready(self, link: Link) -> None:
        """Note that a link may carry pushes."""

    def link_accepted(self, link: Link) -> None:
        """Note a link's first accepted push."""

    def link_full(self, link: Link, now: float) -> None:
        """Think of growing: a link has no room while work waits."""

    def link_idle(self, link: Link) -> None:
        """Think of closing a link later."""

    def link_going_away(self, link: Link, event: GoAwayReceived) -> None:
        """Look at the reason of a GOAWAY, before its pushes are reported."""

    def link_unusable(self, link: Link) -> None:
        """Let other links take over."""

    def link_closed(self, link: Link, cause: str) -> None:
        """Forget a link that is gone."""


class Link(asyncio.Protocol):
    """One connection. ``number`` is its id in outcomes; ``token`` the provider token it shows."""

    def __init__(
        self,
        number: int,
        *,
        owner: LinkOwner,
        feed: Feed,
        clock: Clock,
        options: PoolOptions,
        tokens: ProviderTokens,
        held: ProviderToken | None,
        authority: bytes,
    ) -> None:
        self.number = number
        self.state = LinkState.CONNECTING
        self.tokens = tokens
        self.token = tokens.for_connection(held)
        self.accepted = 0
        self.answered = 0
        self.losses = 0
        self.opened_at = clock.monotonic()
        self.full_since: float | None = None
        self.idle_since: float | None = None
        self.round_trip = 0.0
        self.best_limit = 0
        self.refused_last = False
        self.fresh = True
        """Nothing was accepted since it was opened or was idle for long."""
        self.address = ""
        self.cause = ""
        self.in_flight: dict[int, Push] = {}
        self._owner = owner
        self._feed = feed
        self._clock = clock
        self._options = options
        self._http2 = ClientConnection(authority=authority)
        self._transport: asyncio.Transport | None = None
        self.leaving: asyncio.Transport | None = None
        """Closed by us, and not gone yet; see ``gone``."""
        self._timeouts = ResponseTimeouts()
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._last_heard = self.opened_at
        self._quiet_since = self.opened_at
        """When the present wait for an answer began: the later of last heard and first sent."""
        self._ping_sent_at: float | None = None
        self._pings = 0
        self._waits_for_ack = False
        """It was idle for long: only the PING's answer makes it usable again."""
        self._paused = False
        self._feeding = False
        self.deliberate = False
        """It was ended for a reason of ours, which says nothing about the way to APNs."""
        loop = asyncio.get_running_loop()
        self.settled: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done once the link is ready or gone."""

    def __repr__(self) -> str:
        return (
            f"<Link {self.number} {self.state.value} {self.address or 'no address'} "
            f"streams {len(self.in_flight)}/{self._http2.max_concurrent_streams} "
            f"accepted {self.accepted} answered {self.answered}"
            f"{' cause ' + self.cause if self.cause else ''}>"
        )

    # What it can do

    def is_available(self) -> bool:
        """Whether it may take pushes (it may still be full)."""
        return self.state is LinkState.READY and not self._paused

    def is_closed(self) -> bool:
        """Whether it is gone."""
        return self.state is LinkState.CLOSED

    def is_alive(self) -> bool:
        """Whether it takes pushes now or will."""
        return self.state is not LinkState.DRAINING and self.state is not LinkState.CLOSED

    def failed(self) -> bool:
        """Whether it ended, not by our wish, before a push was accepted on it."""
        return self.is_closed() and not self.accepted and not self.deliberate

    def was_dropped(self) -> bool:
        """Whether it ended, not by our wish, before it was of much use."""
        age = self._clock.monotonic() - self.opened_at
        return (
            self.is_closed()
            and not self.deliberate
            and age < STEADY_AFTER
            and self.answered < WORTHWHILE
        )

    def shows_current_token(self) -> bool:
        """Whether a new connection would show the same provider token."""
        return self.tokens.current().value == self.token.value

    def view(self) -> LinkView:
        """Return what the pool's decision needs to know."""
        connecting = self.state in (LinkState.CONNECTING, LinkState.WAITING_FOR_SETTINGS)
        return LinkView(
            number=self.number,
            connecting=connecting,
            usable=self.state is LinkState.READY or self._probe_is_young(),
            draining=not self.is_alive(),
            accepted=self.accepted > 0,
            limit=self._http2.max_concurrent_streams,
            best_limit=self.best_limit,
            refused_last=self.refused_last,
            full_since=self.full_since,
            idle_since=None if self.in_flight or connecting else self.idle_since,
            round_trip=self.round_trip,
        )

    def _probe_is_young(self) -> bool:
        """Whether it was idle and its PING may still be answered any moment."""
        return (
            self.state is LinkState.PROBING
            and self._waits_for_ack
            and self._ping_sent_at is not None
            and self._clock.monotonic() - self._ping_sent_at < PROBE_PATIENCE
        )

    def statistics(self) -> LinkStatistics:
        """Return a frozen snapshot."""
        now = self._clock.monotonic()
        return LinkStatistics(
            connection_id=self.number,
            state=self.state.value,
            address=self.address,
            open_streams=len(self.in_flight),
            max_streams=self._http2.max_concurrent_streams,
            accepted=self.accepted,
            answered=self.answered,
            lost=self.losses,
            age=now - self.opened_at,
            round_trip=self.round_trip,
            provider_token_age=max(0.0, self._clock.time() - self.token.issued_at),
        )

    # Work out

    def feed(self) -> None:
        """Pull as much work as there is room for, and write it in one go."""
        if self.state is not LinkState.READY or self._paused or self._feeding:
            return
        now = self._clock.monotonic()
        if not self.in_flight and self._needs_probe(now):
            return
        self._feeding = True
        try:
            self._pull(now)
        finally:
            self._feeding = False
        self._flush()
        if self.full_since is not None:
            self._owner.link_full(self, now)

    def _pull(self, now: float) -> None:
        http2, feed, in_flight = self._http2, self._feed, self.in_flight
        token = self.tokens.for_connection(self.token)
        if token.issued_at < self.token.issued_at:
            # Another token would come too soon for this connection (Apple: 20 minutes).
            self.retire("its provider token is from the future: the clock was set back")
            return
        self.token = token
        message = headers = owner = None
        timeout = 0.0
        first = last = 0
        send_request, has_room_for = http2.send_request, http2.has_room_for
        full = False
        if not in_flight:
            self._quiet_since = now
        while not full:
            room = http2.available_streams
            if room <= 0:
                full = True
                break
            pushes = feed.take(room if room < _CHUNK else _CHUNK, now)
            if not pushes:
                break
            for at, push in enumerate(pushes):
                if push.message is not message:
                    message = push.message
                    headers = message.headers.prepared(self.token)
                    body, fixed_path = message.body, message.fixed_path
                    size = len(body)
                if not has_room_for(size):
                    feed.give_back(pushes[at:])
                    full = True
                    break
                last = send_request(
                    headers,  # type: ignore[arg-type]
                    fixed_path or b"/3/device/" + push.token.encode(),
                    push.request_id.encode(),
                    body,
                )
                in_flight[last] = push
                push.carrier = self
                push.stream_id = last
                push.sent_at = now
                push.attempts += 1
                push.state = PushState.IN_FLIGHT
                if push.owner is not owner:
                    if owner is not None:
                        self._timeouts.started(now, timeout, first, last - 2)
                    owner, first = push.owner, last
                    timeout = owner.response_timeout
        if owner is not None:
            self._timeouts.started(now, timeout, first, last)
            self.idle_since = None
            silence = self._quiet_since + self._options.silence_before_ping
            self._arm(min(silence, now + timeout))
        if http2.stream_ids_left <= 0:
            self.retire("stream ids used up")
        if not full or not feed.has_work():
            self.full_since = None
        elif self.full_since is None:
            self.full_since = now

    def _flush(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            data = self._http2.data_to_send()
            if data:
                transport.write(data)

    # Bytes in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our preface and wait for the server's SETTINGS."""
        if self.state is not LinkState.CONNECTING:
            cast("asyncio.Transport", transport).abort()
            return
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._options.write_buffer)
        peer = transport.get_extra_info("peername")
        self.address = f"{peer[0]}:{peer[1]}" if peer else ""
        self.state = LinkState.WAITING_FOR_SETTINGS
        self._http2.start()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take in what the server sent, report it, and fill the room that it made."""
        if self.state is LinkState.CLOSED:
            return
        now = self._clock.monotonic()
        self._last_heard = self._quiet_since = now
        if self._ping_sent_at is not None and not self._waits_for_ack:
            self._alive_again()
        try:
            self._events(self._http2.receive(data), now)
        except Http2ConnectionError as error:
            logger.warning("connection %d: the peer broke HTTP/2: %s", self.number, error)
            self._events(error.events, now)
            self._flush()
            self._end(f"protocol error: {error}", Loss.PROTOCOL, str(error))
            return
        if self.state is LinkState.DRAINING and not self.in_flight:
            self._flush()
            self._end(self.cause, Loss.CONNECTION)
            return
        if not self.in_flight:
            self._became_idle(now)
        self.feed()
        self._flush()

    def _events(self, events: Sequence[object], now: float) -> None:
        in_flight = self.in_flight
        answers: list[tuple[Push, ResponseReceived]] = []
        accepted = 0
        for event in events:
            if type(event) is ResponseReceived:
                push = in_flight.pop(event.stream_id, None)
                if push is None:
                    continue
                if event.status == 200:
                    accepted += 1
                    self.refused_last = False
                elif 400 <= event.status < 500 and event.status != 410:
                    self.refused_last = True
                answers.append((push, event))
            else:
                self._other_event(event, now)
        if answers:
            self._report(answers, accepted, now)

    def _became_idle(self, now: float) -> None:
        if self.idle_since is None and self.is_alive():
            self.idle_since = now
            self._arm(now + self._options.idle_ping_interval)
            self._owner.link_idle(self)

    def _report(
        self, answers: list[tuple[Push, ResponseReceived]], accepted: int, now: float
    ) -> None:
        self.answered += len(answers)
        sample = now - answers[0][0].sent_at
        if self.round_trip:
            self.round_trip += _SMOOTHING * (sample - self.round_trip)
        else:
            self.round_trip = sample
        if accepted:
            first = self.accepted == 0
            self.accepted += accepted
            self.fresh = False
            if first:
                self._owner.link_accepted(self)
        self._feed.answered(self, answers, now)

    def _other_event(self, event: object, now: float) -> None:
        if isinstance(event, SettingsReceived):
            self.best_limit = max(self.best_limit, self._http2.max_concurrent_streams)
            if self.state is LinkState.WAITING_FOR_SETTINGS:
                self.state = LinkState.READY
                self._settle()
                self._owner.link_ready(self)
        elif isinstance(event, StreamReset):
            push = self.in_flight.pop(event.stream_id, None)
            if push is not None:
                self.losses += 1
                loss = Loss.RESET if event.processed else Loss.REFUSED
                detail = event.message or f"RST_STREAM with error code {event.error_code}"
                self._feed.lost(self, [push], loss, now, detail)
        elif isinstance(event, GoAwayReceived):
            self._going_away(event, now)
        elif isinstance(event, PingAcknowledged):
            self._alive_again()

    def _alive_again(self) -> None:
        self._ping_sent_at = None
        self._waits_for_ack = False
        if self.state is LinkState.PROBING:
            self.state = LinkState.READY

    def _going_away(self, event: GoAwayReceived, now: float) -> None:
        self._drain(f"GOAWAY, error code {event.error_code}")
        # The owner first: what the reason means decides what becomes of the pushes.
        self._owner.link_going_away(self, event)
        lost = [self.in_flight.pop(stream_id, None) for stream_id in event.unprocessed]
        unprocessed = [push for push in lost if push is not None]
        if unprocessed:
            self._feed.lost(self, unprocessed, Loss.UNPROCESSED, now)

    def pause_writing(self) -> None:
        """Stop pulling work: the socket does not take what we wrote."""
        self._paused = True

    def resume_writing(self) -> None:
        """Pull work again."""
        self._paused = False
        self.feed()

    def eof_received(self) -> bool:
        """Let the transport close; what is in flight is lost then."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Report everything in flight as lost."""
        cause = self.cause or (f"connection lost: {exc}" if exc else "closed by the peer")
        self._transport = self.leaving = None
        self._end(cause, Loss.CONNECTION)
        if not self.gone.done():
            self.gone.set_result(None)

    # Ends

    def retire(self, cause: str) -> None:
        """Take no new pushes; close when those in flight are answered."""
        self.deliberate = True
        if self.state in (LinkState.CONNECTING, LinkState.WAITING_FOR_SETTINGS):
            self.close(cause)
        else:
            self._drain(cause)
            # While answers are being reported, what is in flight is not complete.
            asyncio.get_running_loop().call_soon(self._close_if_drained)

    def _drain(self, cause: str) -> None:
        if self.is_alive():
            self.cause = cause
            self.full_since = None
            self.state = LinkState.DRAINING
            logger.info("connection %d takes no more pushes: %s", self.number, cause)
            self._owner.link_unusable(self)

    def _close_if_drained(self) -> None:
        if self.state is LinkState.DRAINING and not self.in_flight:
            self.close(self.cause)

    def _settle(self) -> None:
        if not self.settled.done():
            self.settled.set_result(None)

    def close(self, cause: str, loss: Loss = Loss.CLOSED) -> None:
        """Say GOAWAY and close now; what is in flight is reported as ``loss``."""
        if self.state is LinkState.CLOSED:
            return
        if self._transport is not None:
            self._http2.close(ErrorCode.NO_ERROR)
            self._flush()
        self._end(cause, loss)

    def _end(self, cause: str, loss: Loss, detail: str = "") -> None:
        if self.state is LinkState.CLOSED:
            return
        self.state = LinkState.CLOSED
        self.cause = cause
        self._settle()
        self.full_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        transport, self._transport = self._transport, None
        if transport is not None:
            self.leaving = transport
            if loss is Loss.PEER_SILENT:
                transport.abort()
            else:
                transport.close()
        lost = list(self.in_flight.values())
        self.in_flight.clear()
        self._owner.link_closed(self, cause)
        self._lose(lost, loss, Loss.UNPROCESSED, self._clock.monotonic(), detail or cause)

    def _lose(
        self, pushes: list[Push], loss: Loss, unsent: Loss, now: float, detail: str = ""
    ) -> None:
        """Report pushes as lost: as ``unsent`` those whose body has not all left."""
        self.losses += len(pushes)
        halves: dict[Loss, list[Push]] = {}
        for push in pushes:
            has_left = self._http2.request_has_left(push.stream_id)
            halves.setdefault(loss if has_left else unsent, []).append(push)
        for why, half in halves.items():
            self._feed.lost(self, half, why, now, detail)

    def abandon(self, push: Push) -> bool | None:
        """Reset one stream and forget it: the slot returns, nothing is reported; see `Carrier`."""
        if self.in_flight.get(push.stream_id) is not push:
            return None
        has_left = self._http2.request_has_left(push.stream_id)
        del self.in_flight[push.stream_id]
        self.losses += 1
        self._http2.cancel(push.stream_id, ErrorCode.CANCEL)
        if not self._feeding:
            self._flush()
        if self.state is LinkState.DRAINING:
            self._close_if_drained()
        elif not self.in_flight:
            self._became_idle(self._clock.monotonic())
        return has_left

    # Time

    def _needs_probe(self, now: float) -> bool:
        """PING before reuse after a long idle time; the first push goes behind its answer."""
        if now - self._last_heard < self._options.idle_before_probe:
            return False
        if not self._feed.has_work():
            return True
        self.state = LinkState.PROBING
        self.fresh = True
        self._waits_for_ack = True
        self._ping(now)
        return True

    def _ping(self, now: float) -> None:
        self._pings += 1
        self._http2.ping(self._pings.to_bytes(8, "big"))
        self._flush()
        if self._ping_sent_at is None:
            self._ping_sent_at = now
        patience = self._options.silence_before_ping
        if self._waits_for_ack:
            patience = PROBE_PATIENCE
        self._arm(now + min(patience, self._options.ping_timeout))

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._clock.call_later(max(0.0, at - self._clock.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self.state in (LinkState.CLOSED, LinkState.CONNECTING):
            return
        now = self._clock.monotonic()
        options = self._options
        overdue = self._timeouts.due(now, self.in_flight)
        if overdue:
            streams = [push.stream_id for push in overdue]
            for stream_id in streams:
                del self.in_flight[stream_id]
            self._lose(overdue, Loss.RESPONSE_TIMEOUT, Loss.INCOMPLETE, now)
            for stream_id in streams:
                self._http2.cancel(stream_id, ErrorCode.CANCEL)
            self._flush()
            self._close_if_drained()
            if not self.in_flight:
                self._became_idle(now)
            if self.is_closed():
                return
        ping_sent_at = self._ping_sent_at
        if ping_sent_at is not None and now - ping_sent_at >= options.ping_timeout:
            silent = now - self._last_heard
            logger.warning("connection %d: silent for %.1f s, given up", self.number, silent)
            self._end(f"no answer to PING for {options.ping_timeout:g} s", Loss.PEER_SILENT)
            return
        if self._waits_for_ack and not self._probe_is_young():
            self._owner.link_unusable(self)
        if self.in_flight and now - self._quiet_since >= options.silence_before_ping:
            if self.state is LinkState.READY:
                self.state = LinkState.PROBING
                self.full_since = None
                self._owner.link_unusable(self)
            self._quiet_since = now
            self._ping(now)
        elif not self.in_flight and now - self._last_heard >= options.idle_ping_interval:
            self._ping(now)
        if overdue:
            self.feed()
        self._rearm(now)

    def _rearm(self, now: float) -> None:
        if self.state is LinkState.CLOSED:
            return
        moments = []
        if self.in_flight:
            moments.append(self._quiet_since + self._options.silence_before_ping)
            deadline = self._timeouts.next_deadline()
            if deadline is not None:
                moments.append(deadline)
        elif self._ping_sent_at is None:
            moments.append(self._last_heard + self._options.idle_ping_interval)
        if self._ping_sent_at is not None:
            moments.append(self._ping_sent_at + self._options.ping_timeout)
        self._arm(max(min(moments), now))
