"""One background event loop per process, for synchronous callers.

The thread starts at first use. It is paused during ``os.fork``, because a child inherits every lock in
its current state, so this thread must hold none (such as an import lock). Threads that work in a C
library with locks of its own do so inside `native_work`, which waits during a fork. After the fork the child must
not use the parent's TLS sessions. So its copies of the loop's descriptors are redirected to
``/dev/null`` (the parent's connections stay open), the inherited objects are kept from being
finalized, and the next call starts a new loop in the child.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import encodings.idna  # noqa: F401 - else imported by name resolution, in a thread of its own
import os
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .errors import ApnsLiveError, ClientClosed

T = TypeVar("T")

_PATIENCE = 10.0
"""Seconds that a fork waits for the loop, and for native work. A busy machine needs several."""


class _Gate:
    """Lets threads work in a C library, but not during a fork: its locks would stay held in the child.

    SQLite takes one for each piece of memory, the C library for name resolution.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._active = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._active += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._active -= 1
            self._changed.notify_all()

    def shut(self, timeout: float) -> None:
        """Let nothing begin, and wait up to ``timeout`` seconds for what has begun."""
        with self._changed:
            self._shut = True
            self._changed.wait_for(lambda: self._active == 0, timeout)

    def open(self) -> None:
        """Let work begin again."""
        with self._changed:
            self._shut = False
            self._changed.notify_all()


class _Workers(ThreadPoolExecutor):
    """The loop's threads, for name resolution: none works during a fork."""

    def __init__(self) -> None:
        super().__init__(max_workers=4, thread_name_prefix="apns_live")

    def submit(
        self, function: Callable[..., T], /, *args: Any, **named: Any
    ) -> concurrent.futures.Future[T]:
        """Run ``function`` on a thread, but not during a fork."""

        def run() -> T:
            with native_work():
                return function(*args, **named)

        return super().submit(run)


class Portal:
    """An event loop on a daemon thread, and the way into it. Use `current_portal`."""

    def __init__(self) -> None:
        self.process = os.getpid()
        # Keep the selector, because a forked child must know its descriptors.
        self._selector = selectors.DefaultSelector()
        self.loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(self._selector)
        self._workers = _Workers()
        self.loop.set_default_executor(self._workers)
        self._go_on: threading.Event | None = None
        self._thread = threading.Thread(target=self._run, name="apns_live", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work()`` on the loop and return its result; any thread but the loop's may call.

        KeyboardInterrupt (or another exception in the waiting thread) cancels the work and passes.
        """
        if threading.current_thread() is self._thread:
            raise ApnsLiveError(
                "a blocking call was made on apns_live's own thread (a hook, perhaps). "
                "Hand the work to another thread."
            )
        if self.process != os.getpid() or self.loop.is_closed():
            raise ClientClosed("this event loop belongs to another process or has ended")
        future = asyncio.run_coroutine_threadsafe(work(), self.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise ClientClosed("the call was cancelled because the client was closed") from None
        except BaseException:
            future.cancel()
            raise

    def call_plain(self, work: Callable[[], T]) -> T:
        """Run a plain function on the loop and return its result; as `call`."""

        async def do() -> T:
            return work()

        return self.call(do)

    def stop(self, timeout: float) -> None:
        """Stop the loop and wait for its thread, ``timeout`` seconds at most."""
        if self.process == os.getpid() and not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            pending = asyncio.all_tasks(self.loop)
            for task in pending:
                task.cancel()
            if pending:
                self.loop.run_until_complete(asyncio.wait(pending, timeout=1.0))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self._workers.shutdown(wait=False, cancel_futures=True)
            self.loop.close()

    def hold_still(self) -> None:
        """Pause the loop between two callbacks until `go_on`.

        Gives up after some seconds, because a hook may hang in a callback.
        """
        if threading.current_thread() is self._thread or self.process != os.getpid():
            return
        still, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            still.set()
            go_on.wait()

        try:
            self.loop.call_soon_threadsafe(hold)
        except RuntimeError:
            return  # the loop has ended
        still.wait(_PATIENCE)
        self._go_on = go_on

    def go_on(self) -> None:
        """Resume the loop."""
        if self._go_on is not None:
            self._go_on.set()
            self._go_on = None

    def let_go(self) -> None:
        """In a forked child, release the inherited descriptors without writing to them."""
        descriptors = {key.fd for key in (self._selector.get_map() or {}).values()}
        if hasattr(self._selector, "fileno"):
            descriptors.add(self._selector.fileno())
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            for descriptor in descriptors:
                # Replace descriptors; after closing them a late finaliser could close a reused number.
                with contextlib.suppress(OSError):
                    os.dup2(null, descriptor, inheritable=False)
        finally:
            os.close(null)


@dataclass(slots=True)
class _Process:
    """The portal of this process, its lock, and the gate for native work."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    gate: _Gate = field(default_factory=_Gate)
    portal: Portal | None = None
    inherited: list[Portal] = field(default_factory=list)
    """Portals of its parents, kept so that their objects are never finalised here."""


_process = _Process()
open_objects: weakref.WeakSet[Any] = weakref.WeakSet()
"""Objects that are closed at the end of the interpreter, before the loop stops; also in children."""


def current_portal() -> Portal:
    """Return this process's portal; start it if there is none."""
    with _process.lock:
        portal = _process.portal
        if portal is None or portal.loop.is_closed() or portal.process != os.getpid():
            portal = _process.portal = Portal()
        return portal


def process_lock() -> threading.RLock:
    """Return this process's lock. A forked child has a new, free one."""
    return _process.lock


def native_work() -> contextlib.AbstractContextManager[None]:
    """Return a block for a thread's work in a C library that has locks; a fork waits for its end."""
    return _process.gate


def _before_fork() -> None:
    # Hold the lock during a fork, so that no portal is half created. Both sides release it.
    _process.lock.acquire()
    if _process.portal is not None:
        _process.portal.hold_still()
    _process.gate.shut(_PATIENCE)


def _after_fork_in_parent() -> None:
    _process.gate.open()
    if _process.portal is not None:
        _process.portal.go_on()
    _process.lock.release()


def _after_fork_in_child() -> None:
    global _process  # noqa: PLW0603 - the one thing that a process has one of
    old = _process
    _process = _Process(inherited=old.inherited)
    if old.portal is not None:
        old.portal.let_go()
        _process.inherited.append(old.portal)


def _at_exit() -> None:
    for each in list(open_objects):
        with contextlib.suppress(Exception):
            each.close()
    if _process.portal is not None:
        _process.portal.stop(5.0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
atexit.register(_at_exit)
