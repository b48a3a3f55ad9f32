"""The pool: links to one endpoint with one provider key, opened and closed by demand."""

import asyncio
import logging
from typing import Any

from ..clock import timeout
from ..credentials import ProviderTokens
from ..errors import ConnectFailed
from ..http2 import GoAwayReceived
from ..outcome import Verdict
from ..reasons import TABLE, normalise, read_answer
from .connect import Connector
from .decision import PoolView, decide
from .link import Link
from .push import Push
from .transport import Feed, Transport

logger = logging.getLogger("apns_live.pool")

_GOODBYE = 0.25
"""Seconds for the TLS goodbye after everything else is done."""


class Pool(Transport):
    """The transport with our own HTTP/2 links."""

    name = "http2"

    def __init__(
        self, feed: Feed, connector: Connector, tokens: ProviderTokens, **common: Any
    ) -> None:
        super().__init__(feed, tokens, **common)
        self._connector = connector
        self._links: list[Link] = []
        self._leaving: list[Link] = []
        self._connecting: dict[int, asyncio.Task[None]] = {}
        self._review_at = float("-inf")
        self._nothing_open: asyncio.Event | None = None

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return f"<Pool {state} {self._connector.endpoint.host} {self._links}>"

    def in_flight(self) -> list[Push]:
        """Return the pushes in flight."""
        return [push for link in self._links for push in link.in_flight.values()]

    async def aclose(self, deadline: float) -> None:
        """Close every connection; those with pushes in flight at ``deadline`` at the latest."""
        self._closing = True
        self._alarm.cancel()
        for task in list(self._connecting.values()):
            task.cancel()
        for link in list(self._links):
            link.retire("the client is closing")
        if self._links:
            self._nothing_open = asyncio.Event()
            left = max(0.0, deadline - self._clock.monotonic())
            timer = self._clock.call_later(left, self._close_all)
            try:
                await self._nothing_open.wait()
            finally:
                timer.cancel()
                self._close_all()
        tasks = list(self._connecting.values())
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        await self._sockets_closed()

    async def _sockets_closed(self) -> None:
        """Return when no socket is open, so that the event loop may end at once.

        It waits for no unanswered TLS goodbye, on the machine's clock: tests simulate no sockets.
        """
        for last in (False, True):
            wires = [link.wire for link in self._leaving if link.wire.leaving]
            for wire in wires if last else ():
                if wire.leaving is not None:
                    wire.leaving.abort()
            if wires:
                await asyncio.wait([wire.gone for wire in wires], timeout=_GOODBYE)
        self._leaving.clear()

    def _close_all(self) -> None:
        for link in list(self._links):
            link.close("the client was closed")

    # Work and growth.

    def _pump(self) -> None:
        self._wake_scheduled = False
        for link in tuple(self._links):
            link.feed()
        self._review()

    def _review(self) -> None:
        if self._closing:
            return
        now = self._clock.monotonic()
        if self.opening.is_over(now):
            self._tell_bar()
        view = PoolView(
            now=now,
            waiting=self._feed.has_work(),
            links=tuple(link.view() for link in self._links),
            last_connect_at=self.opening.last_connect_at,
            backoff_until=self.opening.backoff_until,
            busy=self.opening.busy(now),
        )
        decision = decide(view, self._options)
        for link in tuple(self._links):
            if link.number in decision.close:
                link.retire("idle")
        for _ in range(decision.open):
            self._open_link(now)
        self._review_at = now + self._options.connect_spacing
        if decision.ask_again_at is not None:
            self._alarm.set(decision.ask_again_at)
            self._review_at = min(self._review_at, decision.ask_again_at)

    def _open_link(self, now: float) -> None:
        self._numbers += 1
        self.opening.last_connect_at = now
        link = Link(
            self._numbers,
            owner=self,
            feed=self._feed,
            clock=self._clock,
            options=self._options,
            tokens=self._tokens,
            held=self._preferred,
            authority=self._connector.endpoint.authority,
        )
        self._links.append(link)
        task = asyncio.get_running_loop().create_task(
            self._connect(link), name=f"apns_live connection {link.number}"
        )
        self._connecting[link.number] = task

    async def _connect(self, link: Link) -> None:
        seconds = self._options.connect_timeout
        failure = ""
        permanent = False
        tried: list[str] = []
        try:
            async with timeout(self._clock, seconds):
                await self._connector.open(lambda: link, tried)
                await link.settled
        except ConnectFailed as error:
            failure, permanent = str(error), error.permanent
        except TimeoutError:
            failure = f"no connection to {self._connector.endpoint.host} within {seconds:g} s"
            if tried:
                failure += f" (tried {', '.join(tried[:8])})"
        except asyncio.CancelledError:
            link.close("the client is closing")
            raise
        except Exception as error:
            # The link is closed after any error, because the pool would wait for it forever.
            logger.exception("connection %d could not be opened", link.number)
            failure = f"{type(error).__name__}: {error}"
        finally:
            self._connecting.pop(link.number, None)
        if failure:
            link.close(failure)
            self.opening.connect_failed(failure, permanent=permanent)
            self._tell_bar()

    # Reports of links.

    def link_ready(self, link: Link) -> None:
        """Note that a link can carry pushes."""
        self.opening.opened += 1
        logger.info("connection %d to %s is ready", link.number, link.wire.address)
        self._hooks.call("connection_opened", link.number, link.wire.address)

    def link_full(self, link: Link, now: float) -> None:
        """Check whether to open a link, because this one has no room while work waits."""
        if now >= self._review_at:
            self._review()
        else:
            self._alarm.set(self._review_at)

    def link_idle(self, link: Link) -> None:
        """Check whether to close this link later, because it has nothing in flight."""
        if len(self._links) > self._options.min_connections and not self._closing:
            self._alarm.set(self._clock.monotonic() + self._options.idle_timeout)

    def link_going_away(self, link: Link, event: GoAwayReceived) -> None:
        """Evaluate the reason of a GOAWAY; one that names credentials stops all connecting."""
        reason = read_answer(0, (), event.debug_data, 0.0).reason
        if reason:
            link.cause = f"GOAWAY: {reason}"
        self._hooks.call("going_away", link.number, reason, event.last_stream_id)
        row = TABLE.get(normalise(reason))
        if row is not None and row.verdict in (Verdict.OPERATOR, Verdict.REFRESH_CREDENTIALS):
            self.opening.shut_out(reason, f"{row.meaning}. {row.remedy}")
            self._tell_bar()

    def link_closed(self, link: Link, cause: str) -> None:
        """Forget a closed link."""
        if link in self._links:
            self._links.remove(link)
        self._leaving = [each for each in (*self._leaving, link) if each.wire.leaving]
        task = self._connecting.get(link.number)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        logger.info("connection %d closed: %s", link.number, cause)
        self._hooks.call("connection_closed", link.number, cause)
        if not link.deliberate:
            if not link.record.accepted:
                delay = self.opening.ended_unused(cause)
                self._hooks.call("connect_failed", cause, delay)
            else:
                lasted = link.record.was_worth_opening(self._clock.monotonic())
                self.opening.ended_used(early=not lasted)
        if self._nothing_open is not None and not self._links:
            self._nothing_open.set()
        self.wake()
