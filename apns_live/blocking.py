"""The same client for synchronous code: Django, Celery, scripts.

All threads may share a `Client`. It works after ``os.fork``: the child starts a new event loop and new
connections at its first call, and does not touch the parent's. Nothing starts before the first call, so
a pre-fork server may create the client before it forks.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import Any

from . import client as _async
from .blocking_run import Run
from .channels import BroadcastChannel
from .credentials import ProviderKey
from .errors import ClientClosed
from .outcome import Outcome
from .payload import Message
from .portal import Portal, T, at_exit, current_portal, process_lock

Listing = list[BroadcastChannel]


class Client:
    """`apns_live.Client` for synchronous code, with the same arguments and the same methods.

    Every method may be called from any thread, but not from a hook: hooks run on the event
    loop's own thread. ``close()``, or leaving the ``with`` block, drains what is in flight; a
    client that is still open when the interpreter ends is drained then.
    """

    def __init__(self, key: ProviderKey, *, bundle_id: str, **options: Any) -> None:
        self._key = key
        self._options = {"bundle_id": bundle_id, **options}
        self._closed = False
        self._portal: Portal | None = None
        # Made now, started later: wrong arguments must be refused here.
        self._client = self._make()
        self._process = os.getpid()
        self._inherited: list[_async.Client] = []
        _open_clients.add(self)

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
        return Run(self.started, message, tokens, options)

    @property
    def channels(self) -> Channels:
        """Channel management; as `apns_live.Client.channels`."""
        return Channels(self)

    def replace_key(self, key: ProviderKey) -> None:
        """Sign with another key from now on, without a restart."""

        async def replace(client: _async.Client) -> None:
            client.replace_key(key)

        self.do(replace)
        # Also for a child that forks later.
        self._key = key

    def statistics(self) -> _async.Statistics:
        """Return a frozen snapshot of this process's connections and counts."""

        async def look(client: _async.Client) -> _async.Statistics:
            return client.statistics()

        return self.do(look)

    def close(self, *, drain: float | None = None) -> None:
        """Finish what is in flight, for ``drain`` seconds at most, and close. May be repeated."""
        with process_lock():
            if self._closed:
                return
            self._closed = True
            client, portal = self._client, self._portal
        _open_clients.discard(self)
        if portal is not None and self._process == os.getpid():
            options = {} if drain is None else {"drain": drain}
            portal.call(lambda: client.aclose(**options))

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
                # After a fork. Also a client that was never used is made anew: its request ids
                # would be those of its parent and siblings. The parent's is kept, so that
                # nothing of it is finalised here.
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
        """Delete the channel: True when it was there, False when it was already gone."""
        return self._owner.do(lambda client: client.channels.delete(channel))


_open_clients: weakref.WeakSet[Client] = weakref.WeakSet()


@at_exit
def _drain_open_clients() -> None:
    for client in list(_open_clients):
        with contextlib.suppress(Exception):
            client.close()
