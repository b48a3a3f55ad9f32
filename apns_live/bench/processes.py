"""Child processes of a benchmark: each has one task and one core, and a pipe to the parent.

A worker is a function, or a coroutine function, whose first argument is its end of the pipe. It sends
messages with `say` and stops when the parent closes the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from ..errors import BenchError

_SPAWN = multiprocessing.get_context("spawn")
START_TIMEOUT = 180.0
STOP_TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A child process, and our end of its pipe."""

    name: str
    connection: Any

    def receive(self, timeout: float = START_TIMEOUT) -> Any:
        """Return its next message. Raises BenchError if it fails or exceeds ``timeout`` seconds."""
        try:
            if not self.connection.poll(timeout):
                raise BenchError(f"{self.name} said nothing for {timeout:.0f} s")
            kind, said = self.connection.recv()
        except (EOFError, ConnectionError):
            raise BenchError(f"{self.name} ended without a word") from None
        if kind == "failed":
            raise BenchError(f"{self.name} failed: {said}")
        return said

    def usage(self) -> tuple[float, int]:
        """Return CPU seconds used and peak memory in bytes, from a worker that answers questions."""
        self.connection.send("usage")
        used: tuple[float, int] = self.receive()
        return used

    def cpu(self) -> float:
        """Return the CPU seconds used, from a worker that answers questions."""
        return self.usage()[0]


@contextlib.contextmanager
def worker(
    name: str, work: Callable[..., Any], *arguments: Any, core: int | None = None
) -> Iterator[Worker]:
    """Run ``work`` in a child process, pinned to ``core``, until the block ends."""
    ours, theirs = _SPAWN.Pipe()
    started = Worker(name, ours)
    process = _SPAWN.Process(target=_run, args=(theirs, core, work, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield started
    finally:
        ours.close()
        process.join(STOP_TIMEOUT)
        if process.is_alive():
            process.kill()
            process.join()


def _run(connection: Connection, core: int | None, work: Callable[..., Any], given: Any) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        done = work(connection, *given)
        if inspect.iscoroutine(done):
            asyncio.run(done)
    except (KeyboardInterrupt, EOFError, BrokenPipeError):
        return
    except Exception as error:  # noqa: BLE001 - the parent reports it
        text = "".join(traceback.format_exception(error)[-3:])
        with contextlib.suppress(OSError):
            connection.send(("failed", text[-3000:]))


def say(connection: Connection, said: Any) -> None:
    """Send a message to the parent, from inside a worker."""
    connection.send(("said", said))


async def answer_until_closed(connection: Connection) -> None:
    """Answer each question for `Worker.usage` until the parent closes its end."""
    closed = asyncio.Event()

    def asked() -> None:
        try:
            connection.recv()
            say(connection, (time.process_time(), peak_bytes()))
        except (EOFError, OSError):
            closed.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(connection.fileno(), asked)
    try:
        await closed.wait()
    finally:
        loop.remove_reader(connection.fileno())


def peak_bytes() -> int:
    """Return this process's highest resident memory so far; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cores() -> tuple[int | None, int | None]:
    """Return the cores for servers and for the sender; None if processes cannot be pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)
