"""The fake APNs on a thread of its own, for code and tests that are not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from apns_live.errors import FakeError

from .fake import FakeApns

T = TypeVar("T")

_START_TIMEOUT = 30.0


class ThreadedFakeApns:
    """Runs a ``FakeApns`` in its own thread and event loop.

    ::

        with ThreadedFakeApns() as running:
            running.fake.url                                  # reading is safe from any thread
            running.call(lambda fake: fake.go_away())         # changing happens in its thread
            running.call(lambda fake: fake.clock.advance(60)) # so does awaiting

    Takes the arguments of ``FakeApns``.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._fake: FakeApns | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def fake(self) -> FakeApns:
        """The fake itself. Read from any thread; change it through ``call``."""
        if self._fake is None:
            raise FakeError("this fake APNs does not run: use it in a with, or start it")
        return self._fake

    def start(self) -> None:
        """Start the thread and return when the fake listens. Raises what starting it raised."""
        if self._thread is not None:
            raise FakeError("this fake APNs runs already")
        self._thread = threading.Thread(target=self._run, name="fake-apns", daemon=True)
        self._thread.start()
        if not self._ready.wait(_START_TIMEOUT):
            raise FakeError(f"the fake APNs did not start within {_START_TIMEOUT:g} s")
        if self._failure is not None:
            self._thread.join()
            self._thread = None
            failure, self._failure = self._failure, None
            raise failure

    def close(self) -> None:
        """Stop the fake and wait for its thread."""
        loop, stop, thread = self._loop, self._stop, self._thread
        if loop is None or stop is None or thread is None:
            return
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        self._loop = self._stop = self._thread = None
        self._ready.clear()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def call(
        self, function: Callable[[FakeApns], Awaitable[T] | T], *, timeout: float | None = 30.0
    ) -> T:
        """Call ``function`` with the fake in its thread and return what it returns, awaited if need be.

        Raises TimeoutError after ``timeout`` seconds, and whatever the function raises.
        """
        if self._loop is None:
            raise FakeError("this fake APNs does not run: use it in a with, or start it")
        fake = self.fake

        async def run() -> T:
            result = function(fake)
            if isinstance(result, Awaitable):
                return await result
            return result

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with FakeApns(**self._options) as fake:
            self._fake = fake
            self._ready.set()
            await self._stop.wait()
