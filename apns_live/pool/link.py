"""One TLS connection to APNs, as an asyncio protocol around the sans-I/O HTTP/2 connection.

The path of a batch of pushes: ``feed`` asks the client for as many pushes as there is room for, ``_pull``
passes them to the HTTP/2 connection, and ``_flush`` writes once. ``data_received`` gets the answers,
``_events`` reports them in batches, and the free room is filled again. There is no task, future or
timer per push.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Protocol

from ..clock import Alarm, Clock
from ..credentials import ProviderToken, ProviderTokens
from ..errors import Http2ConnectionError
from ..http2 import (
    AnswersReceived,
    ClientConnection,
    ErrorCode,
    GoAwayReceived,
    PingAcknowledged,
    ResponseReceived,
    SettingsReceived,
    StreamReset,
)
from .decision import LinkView
from .endpoint import PoolOptions
from .link_parts import PROBE_PATIENCE, LinkRecord, LinkStatistics, Liveness, Wire
from .push import Push, PushState
from .transport import Feed, Loss

logger = logging.getLogger("apns_live.pool")

_CHUNK = 256
"""The most pushes taken at a time; limits how many must be given back."""


class LinkState(enum.Enum):
    """The state of a link. While draining it takes no new pushes and waits for answers."""

    CONNECTING = "connecting"
    WAITING_FOR_SETTINGS = "waiting for settings"
    READY = "ready"
    PROBING = "probing"
    """It was idle for long or is silent: a PING was sent; no push is sent before its answer."""
    DRAINING = "draining"
    CLOSED = "closed"


_together = attrgetter("message", "owner")


class _Owner(Protocol):
    """The methods of the pool that a link uses."""

    def link_ready(self, link: Link) -> None: ...
    def link_full(self, link: Link, now: float) -> None: ...
    def link_idle(self, link: Link) -> None: ...
    def link_going_away(self, link: Link, event: GoAwayReceived) -> None: ...
    def link_closed(self, link: Link, cause: str) -> None: ...
    def works(self) -> None: ...
    def wake(self) -> None: ...


class Link(asyncio.Protocol):
    """One connection. ``number`` is its id in outcomes, ``token`` its provider token."""

    def __init__(
        self,
        number: int,
        *,
        owner: _Owner,
        feed: Feed,
        clock: Clock,
        options: PoolOptions,
        tokens: ProviderTokens,
        held: ProviderToken | None,
        authority: bytes,
    ) -> None:
        self.number = number
        self.state = LinkState.CONNECTING
        self.cause = ""
        self.deliberate = False
        """We ended it for a reason that says nothing about the network path to APNs."""
        self.tokens = tokens
        self.token = tokens.for_connection(held)
        self.record = LinkRecord(clock.monotonic())
        self.wire = Wire()
        self.in_flight: dict[int, Push] = {}
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the link is ready or closed."""
        self._owner = owner
        self._feed = feed
        self._clock = clock
        self._options = options
        self._http2 = ClientConnection(authority=authority, batch_answers=True)
        self._liveness = Liveness(self.record.opened_at, options)
        self._alarm = Alarm(clock, self._tick)

    def __repr__(self) -> str:
        return (
            f"<Link {self.number} {self.state.value} {self.wire.address or 'no address'} "
            f"streams {len(self.in_flight)}/{self._http2.max_concurrent_streams} "
            f"accepted {self.record.accepted} answered {self.record.answered}"
            f"{' cause ' + self.cause if self.cause else ''}>"
        )

    # Methods for the pool.

    def is_closed(self) -> bool:
        """Whether it is closed."""
        return self.state is LinkState.CLOSED

    def is_alive(self) -> bool:
        """Whether it takes pushes now or will."""
        return self.state is not LinkState.DRAINING and self.state is not LinkState.CLOSED

    def is_opening(self) -> bool:
        """Whether the server's SETTINGS have not arrived yet."""
        return self.state in (LinkState.CONNECTING, LinkState.WAITING_FOR_SETTINGS)

    def view(self) -> LinkView:
        """Return the data for the pool's decision."""
        record = self.record
        opening = self.is_opening()
        return LinkView(
            number=self.number,
            connecting=opening,
            usable=self.state is LinkState.READY or self._probe_is_young(),
            draining=not self.is_alive(),
            accepted=record.accepted > 0,
            limit=self._http2.max_concurrent_streams,
            best_limit=record.best_limit,
            refused_last=record.refused_last,
            full_since=record.full_since,
            idle_since=None if self.in_flight or opening else record.idle_since,
            round_trip=record.round_trip,
        )

    def statistics(self) -> LinkStatistics:
        """Return a frozen snapshot."""
        now = self._clock.monotonic()
        return self.record.statistics(
            now,
            connection_id=self.number,
            state=self.state.value,
            address=self.wire.address,
            open_streams=len(self.in_flight),
            max_streams=self._http2.max_concurrent_streams,
            stalled_for=self._stalled_for(now),
            provider_token_age=max(0.0, self._clock.time() - self.token.issued_at),
        )

    # Sending.

    def feed(self) -> None:
        """Take as much work as there is room for, and write it with one call."""
        if self.state is not LinkState.READY or self.wire.paused:
            return
        now = self._clock.monotonic()
        if not self.in_flight and self._liveness.was_idle_for_long(now):
            # A PING is sent first, and the first push waits for its answer.
            if self._feed.has_work():
                self.state = LinkState.PROBING
                self.record.fresh = True
                self._liveness.must_answer = True
                self._ping(now)
            return
        self._pull(now)
        self._flush()
        if self.record.full_since is not None:
            self._owner.link_full(self, now)

    def _pull(self, now: float) -> None:
        token = self.tokens.for_connection(self.token)
        if token.issued_at < self.token.issued_at:
            # A new token would come too soon for this connection (Apple: 20 minutes).
            self.retire("its provider token is from the future: the clock was set back")
            return
        self.token = token
        feed, http2 = self._feed, self._http2
        full = False
        while not full:
            room = http2.room_for(self.record.body_size)
            if room <= 0:
                full = True
                break
            first = http2.next_stream_id
            pushes = feed.take(min(room, _CHUNK), now, self, first)
            if not pushes:
                break
            if pushes[-1].stream_id == first + 2 * (len(pushes) - 1) and pushes[0].carrier is self:
                full = not self._send(pushes, now)  # made for this moment, all alike
                continue
            at = 0
            for _, group in groupby(pushes, _together):
                alike = list(group)
                at += len(alike)
                if not self._send(alike, now):
                    feed.give_back(pushes[at:])
                    full = True
                    break
        if http2.stream_ids_left <= 0:
            self.retire("stream ids used up")
        record = self.record
        if not full or not feed.may_have_work():
            record.full_since = None
        elif record.full_since is None:
            record.full_since = now
        if record.full_since is not None and not self.in_flight:
            self._alarm.set(now + self._options.response_timeout - self._stalled_for(now))

    def _send(self, pushes: Sequence[Push], now: float) -> bool:
        """Send pushes of one message and source; return False, giving back what has no room."""
        message = pushes[0].message
        body = message.body
        self.record.body_size = len(body)
        room = self._http2.room_for(len(body))
        if room < len(pushes):
            self._feed.give_back(pushes[room:])
            pushes = pushes[:room]
            if not pushes:
                return False
        first = self._http2.send_requests(
            message.headers.prepared(self.token),
            message.folder,
            [""] * len(pushes) if message.to_channel else [push.token for push in pushes],
            [push.request_id for push in pushes],
            body,
        )
        streams = range(first, first + 2 * len(pushes), 2)
        if pushes[0].stream_id != first or pushes[0].state != PushState.IN_FLIGHT:
            for push, stream_id in zip(pushes, streams, strict=True):
                push.leaves(self, stream_id, now)
        if not self.in_flight:
            self._liveness.quiet_since = now
        self.in_flight.update(zip(streams, pushes, strict=True))
        timeout = pushes[0].owner.response_timeout
        self.record.idle_since = None
        self._alarm.set(min(self._liveness.next_look(waiting=True), now + timeout))
        return room >= len(pushes)

    def _flush(self) -> None:
        if self.wire.is_open():
            self.wire.write(self._http2.data_to_send())

    # Receiving.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the client preface and wait for the server's SETTINGS."""
        self.wire.open(transport, self._options.write_buffer)
        if self.state is not LinkState.CONNECTING:
            self.wire.close(at_once=True)
            return
        self.state = LinkState.WAITING_FOR_SETTINGS
        self._http2.start()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Process received bytes, report the events, and refill the freed room."""
        if self.state is LinkState.CLOSED:
            return
        now = self._clock.monotonic()
        if self._liveness.heard(now):
            self._no_doubt()
        try:
            self._events(self._http2.receive(data), now)
        except Http2ConnectionError as error:
            logger.warning("connection %d: the peer violated HTTP/2: %s", self.number, error)
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
        """Report events: runs of answers as one batch each, all others one by one."""
        in_flight = self.in_flight
        for kind, run in groupby(events, type):
            if kind is AnswersReceived:
                for batch in run:
                    assert isinstance(batch, AnswersReceived)  # noqa: S101 - groupby says so
                    pushes = [in_flight.pop(stream_id) for stream_id in batch.stream_ids]
                    self._answered(len(pushes), len(pushes), pushes[0], now)
                    self._feed.accepted(self, pushes, batch.unique_ids, now)
            elif kind is ResponseReceived:
                self._responses([one for one in run if isinstance(one, ResponseReceived)], now)
            else:
                for event in run:
                    self._other_event(event, now)

    def _responses(self, responses: list[ResponseReceived], now: float) -> None:
        pushes = [self.in_flight.pop(response.stream_id, None) for response in responses]
        pairs = zip(pushes, responses, strict=True)
        answers = [(push, response) for push, response in pairs if push is not None]
        if answers:
            statuses = [response.status for _, response in answers]
            self._answered(len(answers), statuses.count(200), answers[0][0], now)
            self.record.refused_last = 400 <= statuses[-1] < 500 and statuses[-1] != 410
            self._feed.answered(self, answers, now)

    def _answered(self, count: int, accepted: int, sample: Push, now: float) -> None:
        first = accepted > 0 and self.record.accepted == 0
        self.record.answers(count, accepted, now - sample.sent_at, now)
        if first:
            self._owner.works()

    def _became_idle(self, now: float) -> None:
        if self.record.idle_since is None and self.is_alive():
            self.record.idle_since = now
            self._alarm.set(now + self._options.idle_ping_interval)
            self._owner.link_idle(self)

    def _other_event(self, event: object, now: float) -> None:
        if isinstance(event, SettingsReceived):
            limit = self._http2.max_concurrent_streams
            self.record.best_limit = max(self.record.best_limit, limit)
            if self.state is LinkState.WAITING_FOR_SETTINGS:
                self.state = LinkState.READY
                self._settle()
                self._owner.link_ready(self)
        elif isinstance(event, StreamReset):
            push = self.in_flight.pop(event.stream_id, None)
            if push is not None:
                self.record.losses += 1
                loss = Loss.RESET if event.processed else Loss.REFUSED
                detail = event.message or f"RST_STREAM with error code {event.error_code}"
                self._feed.lost(self, [push], loss, now, detail)
        elif isinstance(event, GoAwayReceived):
            self._drain(f"GOAWAY, error code {event.error_code}")
            # The owner is notified first: the reason decides what happens to the pushes.
            self._owner.link_going_away(self, event)
            lost = [self.in_flight.pop(stream_id, None) for stream_id in event.unprocessed]
            unprocessed = [push for push in lost if push is not None]
            if unprocessed:
                self._feed.lost(self, unprocessed, Loss.UNPROCESSED, now)
        elif isinstance(event, PingAcknowledged):
            self._no_doubt()

    def _no_doubt(self) -> None:
        self._liveness.no_doubt()
        if self.state is LinkState.PROBING:
            self.state = LinkState.READY

    def pause_writing(self) -> None:
        """Stop taking work, because the socket's write buffer is full."""
        self.wire.paused = True

    def resume_writing(self) -> None:
        """Take work again."""
        self.wire.paused = False
        self.feed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report everything in flight as lost."""
        cause = self.cause or (f"connection lost: {exc}" if exc else "closed by the peer")
        self.wire.lost()
        self._end(cause, Loss.CONNECTION)

    # Ends.

    def retire(self, cause: str) -> None:
        """Take no new pushes; close once those in flight are answered."""
        self.deliberate = True
        if self.is_opening():
            self.close(cause)
        else:
            self._drain(cause)
            # While answers are being reported, the set of pushes in flight is incomplete.
            asyncio.get_running_loop().call_soon(self._close_if_drained)

    def _drain(self, cause: str) -> None:
        if self.is_alive():
            self.cause = cause
            self.record.full_since = None
            self.state = LinkState.DRAINING
            logger.info("connection %d accepts no more pushes: %s", self.number, cause)
            self._owner.wake()

    def _close_if_drained(self) -> None:
        if self.state is LinkState.DRAINING and not self.in_flight:
            self.close(self.cause)

    def close(self, cause: str, loss: Loss = Loss.CLOSED) -> None:
        """Send GOAWAY and close now; report pushes in flight as ``loss``."""
        if self.state is LinkState.CLOSED:
            return
        if self.wire.is_open():
            self._http2.close(ErrorCode.NO_ERROR)
            self._flush()
        self._end(cause, loss)

    def _settle(self) -> None:
        if not self.settled.done():
            self.settled.set_result(None)

    def _end(self, cause: str, loss: Loss, detail: str = "") -> None:
        if self.state is LinkState.CLOSED:
            return
        self.state = LinkState.CLOSED
        self.cause = cause
        self._settle()
        self.record.full_since = None
        self._alarm.cancel()
        self.wire.close(at_once=loss is Loss.PEER_SILENT)
        lost = list(self.in_flight.values())
        self.in_flight.clear()
        self._owner.link_closed(self, cause)
        self._lose(lost, loss, Loss.UNPROCESSED, self._clock.monotonic(), detail or cause)

    def _lose(
        self, pushes: list[Push], loss: Loss, unsent: Loss, now: float, detail: str = ""
    ) -> None:
        """Report pushes as lost; those with an incomplete body as ``unsent``."""
        self.record.losses += len(pushes)
        halves: dict[Loss, list[Push]] = {}
        for push in pushes:
            has_left = self._http2.request_has_left(push.stream_id)
            halves.setdefault(loss if has_left else unsent, []).append(push)
        for why, half in halves.items():
            self._feed.lost(self, half, why, now, detail)

    def abandon(self, push: Push) -> bool | None:
        """Reset one stream and forget it; its slot is free, nothing is reported. See `Carrier`."""
        if self.in_flight.get(push.stream_id) is not push:
            return None
        has_left = self._http2.request_has_left(push.stream_id)
        del self.in_flight[push.stream_id]
        self.record.losses += 1
        self._http2.reset_stream(push.stream_id)
        self._flush()
        if self.state is LinkState.DRAINING:
            self._close_if_drained()
        elif not self.in_flight:
            self._became_idle(self._clock.monotonic())
        return has_left

    # Time

    def _probe_is_young(self) -> bool:
        return self.state is LinkState.PROBING and self._liveness.probe_is_young(
            self._clock.monotonic()
        )

    def _ping(self, now: float) -> None:
        self._http2.ping(self._liveness.ping(now))
        self._flush()
        look = self._liveness.next_look(waiting=bool(self.in_flight))
        self._alarm.set(min(look, now + PROBE_PATIENCE) if self._liveness.must_answer else look)

    def _tick(self) -> None:
        if self.state in (LinkState.CLOSED, LinkState.CONNECTING):
            return
        now = self._clock.monotonic()
        liveness = self._liveness
        stalled_for = self._stalled_for(now)
        overdue = [push for push in self.in_flight.values() if _due(push) <= now]
        if overdue:
            self._give_up(overdue, now)
        patience = overdue[0].owner.response_timeout if overdue else self._options.response_timeout
        if stalled_for >= patience and self.is_alive():
            cause = f"the server granted no window for {stalled_for:.0f} s"
            logger.warning("connection %d: %s; another takes over", self.number, cause)
            self._drain(cause)
            self._close_if_drained()
        if self.is_closed():
            return
        if liveness.is_dead(now):
            silent = now - liveness.last_heard
            logger.warning("connection %d: silent for %.1f s, given up", self.number, silent)
            patience = self._options.ping_timeout
            self._end(f"no answer to PING for {patience:g} s", Loss.PEER_SILENT)
            return
        if liveness.must_answer and not self._probe_is_young():
            self._owner.wake()
        if liveness.wants_ping(now, waiting=bool(self.in_flight)):
            if self.in_flight and self.state is LinkState.READY:
                self.state = LinkState.PROBING
                self.record.full_since = None
                self._owner.wake()
            self._ping(now)
        if overdue:
            self.feed()
        if not self.is_closed():
            look = liveness.next_look(waiting=bool(self.in_flight))
            if self.in_flight:
                # In steps of 1/64 of a timeout, so that not every push needs its own check.
                first = min(self.in_flight.values(), key=_due)
                look = min(look, max(_due(first), now + first.owner.response_timeout / 64))
            elif stalled_for:
                look = min(look, now + self._options.response_timeout - stalled_for)
            self._alarm.set(max(look, now))

    def _stalled_for(self, now: float) -> float:
        """Return for how many seconds the peer's windows have blocked sending."""
        since = None
        if not self.in_flight:
            since = self.record.full_since
        elif not self._http2.request_has_left(oldest := next(iter(self.in_flight))):
            since = self.in_flight[oldest].sent_at
        return 0.0 if since is None else max(0.0, now - max(since, self.record.answered_at))

    def _give_up(self, overdue: list[Push], now: float) -> None:
        streams = [push.stream_id for push in overdue]
        for stream_id in streams:
            del self.in_flight[stream_id]
        self._lose(overdue, Loss.RESPONSE_TIMEOUT, Loss.INCOMPLETE, now)
        for stream_id in streams:
            self._http2.reset_stream(stream_id)
        self._flush()
        self._close_if_drained()
        if not self.in_flight:
            self._became_idle(now)


def _due(push: Push) -> float:
    """Return when the answer to a push in flight is overdue."""
    return push.sent_at + float(push.owner.response_timeout)
