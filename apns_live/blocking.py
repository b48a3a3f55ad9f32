"""The same client for synchronous code: Django, Celery, scripts.

All threads may share a `Client`. It works after ``os.fork``: the child starts a new event loop and new
connections at its first call, and does not touch the parent's. Nothing starts before the first call, so
a pre-fork server may create the client before it forks.

In a fan-out, tokens and outcomes pass between the caller's thread and the event loop's thread in two
deques, which are safe to use from both ends, a batch at a time. Rules of all fan-outs: docs/fan-out.md.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator
from time import perf_counter
from typing import Any

from . import client as _async
from .channels import BroadcastChannel
from .client.reading import IN_MEMORY, AheadReader, shown
from .client.run import WATERMARK, Life
from .credentials import ProviderKey
from .errors import ClientClosed
from .guard import RAISED
from .outcome import Outcome
from .payload import Message
from .portal import Portal, T, current_portal, open_objects, process_lock

TOKENS_AHEAD = 1_024
"""Tokens read from the caller's iterable before the engine asks for them."""
HAND_OVER = 512
"""Outcomes taken at once by the caller's thread."""
PATIENCE = 0.02
"""Seconds that reading tokens may keep waiting outcomes from the caller."""
Listing = list[BroadcastChannel]


class Client:
    """`apns_live.Client` for synchronous code, with the same arguments and the same methods.

    Every method may be called from any thread, but not from a hook: hooks run on the event
    loop's own thread. ``close()``, or leaving the ``with`` block, waits for pushes in flight. So does
    the end of the interpreter for a client that is still open.
    """

    def __init__(self, key: ProviderKey, *, bundle_id: str, **options: Any) -> None:
        self._key = key
        self._options = {"bundle_id": bundle_id, **options}
        self._closed = False
        self._portal: Portal | None = None
        # Create the client now and start it later, so that wrong arguments are refused here.
        self._client = self._make()
        self._process = os.getpid()
        self._inherited: list[_async.Client] = []
        open_objects.add(self)

    def __repr__(self) -> str:
        return f"blocking.{self._client!r}"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.close(drain=None if kind is None else 0.0)

    def send(self, message: Message, token: str, *, deadline: float | None = None) -> Outcome:
        """Send one push and return its outcome; as `apns_live.Client.send`."""
        return self.do(lambda client: client.send(message, token, deadline=deadline))

    def broadcast(
        self, message: Message, channel: str, *, deadline: float | None = None
    ) -> Outcome:
        """Send one push to a channel and return its outcome; as `apns_live.Client.broadcast`."""
        return self.do(lambda client: client.broadcast(message, channel, deadline=deadline))

    def fan_out(
        self, message: Message, tokens: Iterable[str] | AsyncIterable[str], **options: Any
    ) -> Run:
        """Send one message to many tokens; a context manager and an iterator of outcomes.

        Takes the options of `apns_live.Client.fan_out`. The iterable is read in the thread that
        iterates the outcomes, a little ahead of what is sent, so a database cursor may be given.
        Nothing starts before the first outcome is asked for, or ``run.wait()``.
        """
        return Run(*self.started(), message, tokens, options)

    @property
    def channels(self) -> Channels:
        """Channel management; as `apns_live.Client.channels`."""
        return Channels(self)

    def replace_key(self, key: ProviderKey) -> None:
        """Use another key from now on, without a restart."""
        client, portal = self.started()
        portal.call_plain(lambda: client.replace_key(key))
        # A child that forks later uses the new key too.
        self._key = key

    def statistics(self) -> _async.Statistics:
        """Return a frozen snapshot of this process's connections and counts."""
        client, portal = self.started()
        return portal.call_plain(client.statistics)

    def close(self, *, drain: float | None = None) -> None:
        """Wait up to ``drain`` seconds for pushes in flight, and close. May be repeated."""
        with process_lock():
            if self._closed:
                return
            self._closed = True
            client, portal = self._client, self._portal
        open_objects.discard(self)
        if portal is not None and self._process == os.getpid():
            portal.call(lambda: client.aclose(drain=drain))

    def do(self, work: Callable[[_async.Client], Coroutine[Any, Any, T]]) -> T:
        """Run ``work`` with the asynchronous client on its event loop and return its result."""
        client, portal = self.started()
        return portal.call(lambda: work(client))

    def _make(self) -> _async.Client:
        return _async.Client(self._key, **self._options)

    def started(self) -> tuple[_async.Client, Portal]:
        """Return the asynchronous client of this process and the portal to its event loop."""
        with process_lock():
            if self._closed:
                raise ClientClosed("this client was closed")
            portal = current_portal()
            if self._process != os.getpid():
                # After a fork even an unused client is created anew, because its request ids would
                # repeat the parent's and siblings'. The parent's is kept, so that it is not finalised
                # here.
                self._inherited.append(self._client)
                self._client = self._make()
                self._process = os.getpid()
            self._portal = portal
            return self._client, portal


class Channels:
    """Channel management for synchronous code; see `apns_live.channels.Channels`."""

    def __init__(self, client: Client) -> None:
        self._owner = client

    def create(self, storage_policy: int = 1) -> BroadcastChannel:
        """Create a channel and return it."""
        return self._owner.do(lambda client: client.channels.create(storage_policy))

    def read(self, channel: str) -> BroadcastChannel:
        """Return the channel with its storage policy."""
        return self._owner.do(lambda client: client.channels.read(channel))

    def list(self) -> Listing:
        """Return every channel of the app in this environment."""
        return self._owner.do(lambda client: client.channels.list())

    def delete(self, channel: str) -> bool:
        """Delete the channel. Return False if it did not exist."""
        return self._owner.do(lambda client: client.channels.delete(channel))


class _Handed(AheadReader):
    """Tokens that the caller's thread reads and hands over to the event loop.

    A generator or a cursor may not be thread-safe, so the caller's thread reads it.
    """

    def __init__(self, tokens: Iterable[str], *, dedupe: bool) -> None:
        super().__init__(dedupe=dedupe)
        self._tokens = tokens
        self._iterator: Iterator[str] | None = None
        self.on_wanted: Callable[[], object] | None = None
        """Called on the event loop when it can take more tokens."""

    def wanted(self) -> bool:
        """Return whether the caller's thread should read more tokens."""
        return not (self._over or self.stopped) and len(self._ahead) < TOKENS_AHEAD // 2

    def read_on(self) -> None:
        """Read tokens in the caller's thread until there are enough or a time limit is reached."""
        until = perf_counter() + PATIENCE
        try:
            if self._iterator is None:
                self._iterator = iter(self._tokens)
            while len(self._ahead) < TOKENS_AHEAD and not self.stopped and perf_counter() < until:
                token = next(self._iterator, self)
                if token is self:
                    self._over = True
                    break
                self._ahead.append(token)
        except RAISED as error:
            self._failure = shown(error)
            self._over = True

    def _next(self, limit: int) -> list[str]:
        tokens = super()._next(limit)
        if self.on_wanted is not None and self.wanted():
            self.on_wanted()
        return tokens


class Run:
    """A fan-out in progress: iterate it for outcomes, or ``wait()`` for the report.

    Every token that was read from the iterable gets exactly one outcome. Leaving the iteration or the
    ``with`` block early cancels unsent pushes; the block also waits for the answers to sent ones. One
    thread at a time may use it.
    """

    def __init__(
        self,
        client: _async.Client,
        portal: Portal,
        message: Message,
        tokens: Iterable[str] | AsyncIterable[str],
        options: dict[str, Any],
    ) -> None:
        self._portal = portal
        self._handed: _Handed | None = None
        if isinstance(tokens, Iterable) and not isinstance(tokens, (*IN_MEMORY, str, bytes)):
            self._handed = _Handed(tokens, dedupe=bool(options.get("dedupe")))
        source = tokens if self._handed is None else self._handed
        # Create the run now, so that a wrong message or option raises in the caller's line.
        self._run: _async.Run = portal.call_plain(
            lambda: client.fan_out(message, source, **options)  # type: ignore[arg-type]
        )
        if self._handed is not None:
            self._handed.on_wanted = self._run.outbox.tell
        self._ready: deque[Outcome] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return f"blocking.{self._run!r}"

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Outcome]:
        """Yield outcomes as they come, not in the order of the tokens.

        An error of the iterable of tokens is raised after the outcomes of its tokens.
        """
        try:
            while (outcome := next(self, None)) is not None:
                yield outcome
        finally:
            # The caller left early: stop without waiting.
            if self._portal.process == os.getpid() and self._run.life is not Life.OVER:
                with contextlib.suppress(RuntimeError):  # the event loop has ended
                    self._portal.loop.call_soon_threadsafe(self._run.stop)

    def __next__(self) -> Outcome:
        if not self._ready:
            self._fill()
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def wait(self) -> _async.Report:
        """Send to all tokens, drop the outcomes that were not read, and return the report."""
        self._run.outbox.discard()
        self._ready.clear()
        for _ in self:
            pass
        return self.report

    @property
    def report(self) -> _async.Report:
        """The report so far: counts, latencies, first drops."""
        return self._run.report

    def close(self) -> None:
        """Cancel unsent pushes, and wait for the answers to sent ones. May be repeated."""
        if not self._closed and self._portal.process == os.getpid():
            self._portal.call(self._run.aclose)
        self._closed = True

    def _fill(self) -> None:
        """Wait for outcomes and read tokens meanwhile. Returns without outcomes at the end."""
        unread = self._run.outbox.unread
        while not (self._closed or self._ready):
            if self._handed is not None and self._handed.wanted():
                self._handed.read_on()
            over = self._portal.call(self._next)
            self._ready.extend(unread.popleft() for _ in range(min(len(unread), HAND_OVER)))
            if over and not self._ready:
                self._closed = True
                self._portal.call(self._run.finish)

    async def _next(self) -> bool:
        """On the event loop, wait until the caller's thread has work. Return True at the end."""
        run, outbox, handed = self._run, self._run.outbox, self._handed
        run.start()
        if handed is not None:
            handed.wake()  # the caller's thread has read tokens
        if len(outbox) < WATERMARK:
            run.resume()
        while True:
            while len(outbox.unread) < HAND_OVER and outbox.unpack():
                pass
            if outbox.unread:
                return False
            if run.life is Life.OVER:
                # Tokens that the caller's thread has read since the end also get outcomes.
                run.halt(run.end)
                return True
            if handed is not None and handed.wanted():
                return False
            await outbox.changed()
