"""The service for synchronous code: scripts, Django, Celery.

It runs on the background event loop of `apns_live.blocking`. Every part of the asynchronous service
has the same name and the same methods without ``await``::

    from apns_live.activities.blocking import Service

    with Service("backup.db") as service:
        app = service.apps.get("operations")
        service.streams.put(app, "nightly", state)

These methods have no static types. `Service.call` runs any method of the asynchronous service with types.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ActivitiesError
from ..portal import Portal, current_portal, open_objects, process_lock
from .service import Service as AsyncService
from .store.database import Database
from .store.upgrade import upgrade as migrate

T = TypeVar("T")
_END = object()


def upgrade(database: str | Path) -> str:
    """Create the tables of a database, or migrate them; return the new version.

    Raises `StoreError`, also for a database with a newer, unsupported version.
    """

    async def work() -> str:
        async with Database.open(database) as opened:
            return await migrate(opened)

    return current_portal().call(work)


class Service:
    """The service of `apns_live.activities`, without ``await``; any thread may use it.

    It has the arguments of `Service.open`. It opens at first use, so you may create it before a server
    forks. With SQLite only one process can use it; others get `Conflict`. After it was used, a forked
    child gets `ActivitiesError`, because the parent still uses it. ``close()``, or the end of the
    ``with`` block, sends accepted calls first. At the end of the interpreter an open service is closed.
    """

    def __init__(self, database: Any, **options: Any) -> None:
        self._arguments = (database, options)
        self._opened: tuple[AsyncService, Portal, Any] | None = None
        self._closed = False
        open_objects.add(self)

    def __repr__(self) -> str:
        used = "not used yet" if self._opened is None else "open"
        return f"<blocking Service, {'closed' if self._closed else used}>"

    def __enter__(self) -> Service:
        self._started()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        service, portal = self._started()
        value = getattr(service, name)
        return _wrapped(value, portal) if callable(value) else ServicePart(value, portal)

    def call(self, work: Callable[[AsyncService], Coroutine[Any, Any, T]]) -> T:
        """Run ``work`` with the asynchronous service on its loop, and return its result.

        ``service.call(lambda inner: inner.activities.start(app, request))``
        """
        service, portal = self._started()
        return portal.call(lambda: work(service))

    def close(self) -> None:
        """Send accepted calls for up to ``settings.drain`` seconds, and close. May be repeated."""
        with process_lock():
            opened, self._opened, self._closed = self._opened, None, True
        open_objects.discard(self)
        if opened is not None and opened[1].process == os.getpid():
            _, portal, context = opened
            portal.call(lambda: context.__aexit__(None, None, None))

    def _started(self) -> tuple[AsyncService, Portal]:
        with process_lock():
            if self._closed:
                raise ActivitiesError("this service was closed: open another one")
            if self._opened is None:
                database, options = self._arguments
                context, portal = AsyncService.open(database, **options), current_portal()
                self._opened = portal.call(context.__aenter__), portal, context
            service, portal, _ = self._opened
            if portal.process != os.getpid():
                raise ActivitiesError(
                    "this service was opened before the fork and is still used by the parent: "
                    "make it before the fork, and use it after"
                )
            return service, portal


class ServicePart:
    """A part of the service: its methods without ``await``, its async iterators as plain ones."""

    def __init__(self, part: Any, portal: Portal) -> None:
        self._part = part
        self._portal = portal

    def __repr__(self) -> str:
        return f"blocking.{type(self._part).__name__}"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return _wrapped(getattr(self._part, name), self._portal)


def _wrapped(value: Any, portal: Portal) -> Any:
    if not callable(value):
        return value

    def method(*arguments: Any, **named: Any) -> Any:
        async def run() -> Any:
            # On the loop's own thread, where the service's parts must be used.
            result = value(*arguments, **named)
            return await result if inspect.isawaitable(result) else result

        result = portal.call(run)
        return _Reader(result, portal) if isinstance(result, AsyncIterator) else result

    method.__name__ = getattr(value, "__name__", "method")
    method.__doc__ = value.__doc__
    return method


class _Reader(Iterator[Any]):
    """An asynchronous iterator, read in the caller's thread. Close it, or read it to its end."""

    def __init__(self, reader: Any, portal: Portal) -> None:
        self._reader = reader
        self._portal = portal

    def __next__(self) -> Any:
        async def step() -> Any:
            return await anext(self._reader, _END)

        if (value := self._portal.call(step)) is _END:
            raise StopIteration
        return value

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading."""
        if hasattr(self._reader, "aclose"):
            self._portal.call(self._reader.aclose)
