"""The second, slow transport, on httpx: for odd proxies, and as an independent witness.

It cannot tell as much as ours: httpx keeps at most 100 streams, loses answers after GOAWAY and
hides the codes of RST_STREAM. Where ours replays what was certainly not processed, this one says
UNKNOWN; never the other way round.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from ..clock import Alarm, Clock
from ..credentials import ProviderToken, ProviderTokens
from ..guard import Guarded
from ..http2 import ResponseReceived
from ..pool import Bar, Endpoint, Feed, Hooks, LinkStatistics, Loss, PoolOptions, Push, PushState

_STREAMS = 100
_RETIRED_KEPT = 8


class _Carrier:
    """One httpx client with one connection at most, and one provider token."""

    def __init__(
        self, number: int, client: httpx.AsyncClient, tokens: ProviderTokens, clock: Clock
    ) -> None:
        self.number = number
        self.client = client
        self.tokens = tokens
        self.token: ProviderToken = tokens.for_connection(None)
        self.fresh = True
        self.retired = ""
        self.accepted = 0
        self.answered = 0
        self.lost = 0
        self.opened_at = clock.monotonic()
        self.round_trip = 0.0
        self.in_flight: dict[Push, asyncio.Task[None]] = {}

    def shows_current_token(self) -> bool:
        """Whether a new connection would show the same provider token."""
        return self.tokens.current().value == self.token.value

    def retire(self, cause: str) -> None:
        """Take no new pushes."""
        self.retired = self.retired or cause

    def abandon(self, push: Push) -> bool | None:
        """Give up a push in flight without reporting it; see `Carrier`."""
        task = self.in_flight.pop(push, None)
        if task is None:
            return None
        self.lost += 1
        task.cancel()
        return True


class HttpxTransport:
    """`Transport` over `httpx.AsyncClient`: one task per push, up to 100 at a time."""

    name = "httpx"
    header_decoder = "hpack"

    def __init__(
        self,
        feed: Feed,
        endpoint: Endpoint,
        tokens: ProviderTokens,
        *,
        clock: Clock,
        options: PoolOptions,
        hooks: Hooks,
        ssl_context: ssl.SSLContext,
        proxy: str | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._feed = feed
        self._tokens = tokens
        self._clock = clock
        self._hooks = hooks
        self._address = f"{endpoint.host}:{endpoint.port}"
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        self._open: Callable[[], httpx.AsyncClient] = lambda: httpx.AsyncClient(
            base_url=f"https://{host}:{endpoint.port}",
            http1=False,
            http2=True,
            verify=ssl_context,
            proxy=proxy,
            trust_env=False,
            timeout=httpx.Timeout(None, connect=options.connect_timeout),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        )
        self._carriers: list[_Carrier] = []
        """The newest, if it is not retired, takes pushes; the others wait for answers."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._wake_scheduled = False
        self._backoff = _Backoff(options, clock, uniform, self._after_backoff)
        self._preferred: ProviderToken | None = None
        self._closing = False
        self.opened = 0
        self.failed = 0
        self.last_failure = ""

    def __repr__(self) -> str:
        return f"<HttpxTransport {self._address} in flight {len(self.in_flight())}>"

    def wake(self) -> None:
        """Look for work in this turn of the event loop."""
        if not self._wake_scheduled and not self._closing:
            self._wake_scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def retire_all(self, cause: str, tokens: ProviderTokens | None = None) -> None:
        """Use new connections from here on, with other provider tokens if given."""
        if tokens is not None:
            self._tokens = tokens
            self._preferred = None
            self._backoff.reset()
            self._feed.barred(None)
        if self._carriers:
            self._carriers[-1].retire(cause)
        self.wake()

    def credentials_refused(self, reason: str, detail: str) -> None:
        """Send nothing for a backoff that grows."""
        until = self._backoff.failed()
        self._feed.barred(Bar(until, reason, detail))

    def keep_oldest_token(self, refused: ProviderToken) -> None:
        """Let the next connection start with the oldest provider token that is still valid."""
        held = [carrier.token for carrier in self._carriers[:-1] if carrier.token is not refused]
        valid = [token for token in held if self._tokens.for_connection(token) is token]
        self._preferred = min(valid, key=lambda token: token.issued_at, default=None)

    def in_flight(self) -> list[Push]:
        """Return the pushes that are on the wire."""
        return [push for carrier in self._carriers for push in carrier.in_flight]

    def links(self) -> tuple[LinkStatistics, ...]:
        """Return the connections as they are now (httpx opens them by itself)."""
        now = self._clock.monotonic()
        return tuple(
            LinkStatistics(
                connection_id=carrier.number,
                state="draining" if carrier.retired else "ready",
                address=self._address,
                open_streams=len(carrier.in_flight),
                max_streams=_STREAMS,
                accepted=carrier.accepted,
                answered=carrier.answered,
                lost=carrier.lost,
                age=now - carrier.opened_at,
                round_trip=carrier.round_trip,
                stalled_for=0.0,
                provider_token_age=max(0.0, self._clock.time() - carrier.token.issued_at),
            )
            for carrier in self._carriers
        )

    async def aclose(self, deadline: float) -> None:
        """Close; pushes still in flight are lost."""
        self._closing = True
        self._backoff.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for carrier in self._carriers:
            await carrier.client.aclose()
        self._carriers.clear()

    # Work

    def _pump(self) -> None:
        self._wake_scheduled = False
        now = self._clock.monotonic()
        while not self._closing and now >= self._backoff.until:
            carrier = self._current()
            room = _STREAMS - len(carrier.in_flight)
            pushes = self._feed.take(room, now) if room > 0 else ()
            if not pushes:
                break
            for push in pushes:
                self._start(push, carrier, now)
        if now < self._backoff.until:
            self._feed.has_work()  # lets it settle what cannot wait

    def _current(self) -> _Carrier:
        if not self._carriers or self._carriers[-1].retired:
            if self._carriers:
                self._spawn(self._close_retired())
            self._numbers += 1
            fresh = _Carrier(self._numbers, self._open(), self._tokens, self._clock)
            if self._preferred is not None:
                fresh.token = self._tokens.for_connection(self._preferred)
            self._carriers.append(fresh)
        carrier = self._carriers[-1]
        carrier.token = carrier.tokens.for_connection(carrier.token)
        return carrier

    async def _close_retired(self) -> None:
        for carrier in [one for one in self._carriers if one.retired and not one.in_flight]:
            self._carriers.remove(carrier)
            await carrier.client.aclose()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _start(self, push: Push, carrier: _Carrier, now: float) -> None:
        push.state = PushState.IN_FLIGHT
        push.carrier = carrier
        push.sent_at = now
        push.attempts += 1
        carrier.in_flight[push] = self._spawn(self._send(push, carrier))

    async def _send(self, push: Push, carrier: _Carrier) -> None:
        path = push.message.path(push.token).decode("ascii")
        task = asyncio.current_task()
        overdue = False

        def give_up() -> None:
            nonlocal overdue
            overdue = True
            if task is not None:
                task.cancel()

        timer = self._clock.call_later(push.owner.response_timeout, give_up)
        loss = Loss.CONNECTION
        detail = ""
        response: httpx.Response | None = None
        try:
            response = await carrier.client.post(
                path,
                headers=push.message.headers.plain(carrier.token, push.request_id),
                content=push.message.body,
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            self._not_connected(push, carrier, str(error) or type(error).__name__)
            return
        except httpx.HTTPError as error:
            detail = f"{type(error).__name__}: {error}"
            carrier.retire(detail)
        except asyncio.CancelledError:
            if not overdue:
                raise
            loss = Loss.RESPONSE_TIMEOUT
        finally:
            timer.cancel()
        if carrier.in_flight.pop(push, None) is None:
            return
        now = self._clock.monotonic()
        if response is None:
            carrier.lost += 1
            self._feed.lost(carrier, [push], loss, now, detail)
        else:
            self._answered(push, carrier, response, now)
        self.wake()

    def _answered(
        self, push: Push, carrier: _Carrier, response: httpx.Response, now: float
    ) -> None:
        carrier.answered += 1
        carrier.round_trip = now - push.sent_at
        if carrier.answered == 1:
            self.opened += 1
        if response.status_code == 200:
            carrier.accepted += 1
            carrier.fresh = False
            if self._backoff.failures:
                self._backoff.failures = 0
                self._feed.barred(None)
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        event = ResponseReceived(0, response.status_code, headers, response.content)
        self._feed.answered(carrier, [(push, event)], now)

    def _not_connected(self, push: Push, carrier: _Carrier, message: str) -> None:
        if carrier.in_flight.pop(push, None) is None:
            return
        carrier.retire(message)
        push.attempts -= 1
        push.sent_at = 0.0
        push.state = PushState.READY
        push.carrier = None
        now = self._clock.monotonic()
        self._feed.give_back([push])
        if now >= self._backoff.until:
            self.failed += 1
            self.last_failure = message
            until = self._backoff.failed()
            if self._hooks.connect_failed is not None:
                Guarded(self._hooks.connect_failed, "the hook connect_failed")(message, until - now)

    def _after_backoff(self) -> None:
        self._feed.barred(None)
        self.wake()


class _Backoff:
    """How long nothing connects after failures: growing, with full jitter."""

    def __init__(
        self,
        options: PoolOptions,
        clock: Clock,
        uniform: Callable[[], float],
        over: Callable[[], object],
    ) -> None:
        self._options = options
        self._clock = clock
        self._uniform = uniform
        self._alarm = Alarm(clock, over)
        self.failures = 0
        self.until = float("-inf")

    def failed(self) -> float:
        """Note a failure; return the time until which nothing connects."""
        self.failures += 1
        ceiling = self._options.backoff_first * 2.0 ** min(self.failures - 1, 30)
        delay = self._uniform() * min(ceiling, self._options.backoff_limit)
        self.until = self._clock.monotonic() + delay
        self._alarm.cancel()
        self._alarm.set(self.until)
        return self.until

    def reset(self) -> None:
        """Forget the failures."""
        self.failures = 0
        self.until = float("-inf")

    def cancel(self) -> None:
        """Call nobody any more."""
        self._alarm.cancel()
