"""The second, slow transport, on httpx: for proxies that break ours, and for comparison in tests.

It knows less than ours: httpx opens at most 100 streams, loses answers after GOAWAY and hides the
codes of RST_STREAM. So it may report UNKNOWN where ours would send again; never the reverse.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from ..channels import http2_client
from ..clock import Clock, timeout
from ..credentials import ProviderToken, ProviderTokens
from ..http2 import ResponseReceived
from ..pool import Feed, LinkStatistics, Loss, Push, Transport
from ..pool.connect import Connector
from ..pool.link_parts import LinkRecord

_STREAMS = 100


@dataclass(eq=False)
class _Carrier:
    """An httpx client with at most one connection, and one provider token."""

    number: int
    client: httpx.AsyncClient
    clock: Clock
    tokens: ProviderTokens
    token: ProviderToken
    address: str
    record: LinkRecord
    retired: str = ""
    in_flight: dict[Push, asyncio.Task[None]] = field(default_factory=dict)

    def statistics(self) -> LinkStatistics:
        """Return a frozen snapshot (httpx opens the connection itself)."""
        return self.record.statistics(
            self.clock.monotonic(),
            connection_id=self.number,
            state="draining" if self.retired else "ready",
            address=self.address,
            open_streams=len(self.in_flight),
            max_streams=_STREAMS,
            stalled_for=0.0,
            provider_token_age=max(0.0, self.clock.time() - self.token.issued_at),
        )

    def retire(self, cause: str) -> None:
        """Accept no new pushes."""
        self.retired = self.retired or cause

    def abandon(self, push: Push) -> bool | None:
        """Give up a push in flight without reporting it; see `Carrier`."""
        task = self.in_flight.pop(push, None)
        if task is None:
            return None
        self.record.losses += 1
        task.cancel()
        return True


class HttpxTransport(Transport):
    """`Transport` over `httpx.AsyncClient`: one task per push, up to 100 at a time."""

    name = "httpx"

    def __init__(
        self, feed: Feed, connector: Connector, tokens: ProviderTokens, **common: Any
    ) -> None:
        super().__init__(feed, tokens, **common)
        endpoint, proxy = connector.endpoint, connector.proxy
        self._address = f"{endpoint.host}:{endpoint.port}"
        self._open = partial(
            http2_client,
            endpoint.host,
            endpoint.port,
            connector.ssl_context,
            proxy=None if proxy is None else proxy.url,
            timeout=httpx.Timeout(None, connect=self._options.connect_timeout),
        )
        self._links: list[_Carrier] = []
        """The newest carrier accepts pushes unless it is retired; the others wait for answers."""
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<HttpxTransport {self._address} in flight {len(self.in_flight())}>"

    def in_flight(self) -> list[Push]:
        """Return the pushes in flight."""
        return [push for carrier in self._links for push in carrier.in_flight]

    async def aclose(self, deadline: float) -> None:
        """Close; pushes still in flight are lost."""
        self._closing = True
        self._alarm.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for carrier in self._links:
            await carrier.client.aclose()
        self._links.clear()

    # Work

    def _pump(self) -> None:
        self._wake_scheduled = False
        now = self._clock.monotonic()
        if self.opening.is_over(now):
            self._tell_bar()
        while not self._closing and now >= self.opening.backoff_until:
            carrier = self._current()
            room = _STREAMS - len(carrier.in_flight)
            pushes = self._feed.take(room, now) if room > 0 else ()
            if not pushes:
                break
            for push in pushes:
                push.leaves(carrier, 0, now)
                carrier.in_flight[push] = self._spawn(self._send(push, carrier))
        if now < self.opening.backoff_until:
            self._feed.has_work()  # lets the feed settle pushes that cannot wait

    def _current(self) -> _Carrier:
        if not self._links or self._links[-1].retired:
            if self._links:
                self._spawn(self._close_retired())
            self._numbers += 1
            self._links.append(
                _Carrier(
                    self._numbers,
                    self._open(),
                    self._clock,
                    self._tokens,
                    self._tokens.for_connection(self._preferred),
                    self._address,
                    LinkRecord(self._clock.monotonic()),
                )
            )
        carrier = self._links[-1]
        carrier.token = carrier.tokens.for_connection(carrier.token)
        return carrier

    async def _close_retired(self) -> None:
        for carrier in [one for one in self._links if one.retired and not one.in_flight]:
            self._links.remove(carrier)
            await carrier.client.aclose()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send(self, push: Push, carrier: _Carrier) -> None:
        message = push.message
        path = message.folder + ("" if message.to_channel else push.token)
        loss, detail = Loss.CONNECTION, ""
        response: httpx.Response | None = None
        try:
            async with timeout(self._clock, push.owner.response_timeout):
                response = await carrier.client.post(
                    path,
                    headers=message.headers.plain(carrier.token, push.request_id),
                    content=message.body,
                )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            self._not_connected(push, carrier, str(error) or type(error).__name__)
            return
        except httpx.HTTPError as error:
            detail = f"{type(error).__name__}: {error}"
            carrier.retire(detail)
        except TimeoutError:
            loss = Loss.RESPONSE_TIMEOUT
        if carrier.in_flight.pop(push, None) is None:
            return
        now = self._clock.monotonic()
        if response is None:
            carrier.record.losses += 1
            self._feed.lost(carrier, [push], loss, now, detail)
        else:
            self._answered(push, carrier, response, now)
        self.wake()

    def _answered(
        self, push: Push, carrier: _Carrier, response: httpx.Response, now: float
    ) -> None:
        accepted = response.status_code == 200
        if not carrier.record.answered:
            self.opening.opened += 1
        if accepted and not carrier.record.accepted:
            self.works()
        carrier.record.answers(1, int(accepted), now - push.sent_at, now)
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        event = ResponseReceived(0, response.status_code, headers, response.content)
        self._feed.answered(carrier, [(push, event)], now)

    def _not_connected(self, push: Push, carrier: _Carrier, message: str) -> None:
        if carrier.in_flight.pop(push, None) is None:
            return
        carrier.retire(message)
        now = self._clock.monotonic()
        self._feed.give_back([push])
        if now >= self.opening.backoff_until:
            delay = self.opening.ended_unused(message)
            self.opening.connect_failed(message, permanent=False)
            self._alarm.set(self.opening.backoff_until)
            self._hooks.call("connect_failed", message, delay)
