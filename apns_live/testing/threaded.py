"""The fake APNs on its own thread, for synchronous code and tests."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any, Self, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from apns_live.errors import FakeError

from .fake import FakeApns

T = TypeVar("T")


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
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def fake(self) -> FakeApns:
        """The fake itself. Read from any thread; change it through ``call``."""
        if self._fake is None:
            raise FakeError("this fake APNs does not run: use it in a with, or start it")
        return self._fake

    @property
    def runs(self) -> bool:
        """Whether it was started and not closed."""
        return self._portal is not None

    def start(self) -> None:
        """Start the thread and return when the fake listens. Raises what starting it raised."""
        if self._portal is not None:
            raise FakeError("this fake APNs runs already")
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="fake-apns"))
            fake = portal.call(lambda: FakeApns(**self._options))
            stack.enter_context(portal.wrap_async_context_manager(fake))
            self._fake, self._portal, self._stack = fake, portal, stack.pop_all()

    def close(self) -> None:
        """Stop the fake and wait for its thread."""
        self._portal = None
        self._stack.close()

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter ``manager`` in the fake's thread. It exits before the fake stops."""
        return self._stack.enter_context(self._open().wrap_async_context_manager(manager))

    def call(
        self, function: Callable[[FakeApns], Awaitable[T] | T], *, timeout: float | None = 30.0
    ) -> T:
        """Call ``function`` with the fake in its thread. Return its result, awaited if it is awaitable.

        Raises TimeoutError after ``timeout`` seconds, and the function's own error.
        """

        async def run() -> T:
            result = function(self.fake)
            return await result if isinstance(result, Awaitable) else result

        return self._open().start_task_soon(run).result(timeout)

    def _open(self) -> BlockingPortal:
        if self._portal is None:
            raise FakeError("this fake APNs does not run: use it in a with, or start it")
        return self._portal
