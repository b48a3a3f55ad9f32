"""A TCP relay that delays every byte by a fixed time in each direction, in a process of its own.

``python -m benchmarks.relay --to PORT --delay 0.040`` prints ``{"port": ...}`` and relays until its
standard input closes; then it prints how many bytes it carried. It does not limit throughput: what
arrives is kept with the time when it is due, and leaves then.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.programs import find_program

HIGH_WATER = 256 * 1024 * 1024


@dataclass(slots=True)
class Carried:
    """Bytes relayed so far: towards the server, and back."""

    up: int = 0
    down: int = 0
    connections: int = 0


@dataclass(slots=True)
class _Direction:
    """One direction of one connection: chunks that wait until they are due."""

    loop: asyncio.AbstractEventLoop
    delay: float
    waiting: collections.deque[tuple[float, bytes]] = field(default_factory=collections.deque)
    target: asyncio.Transport | None = None
    armed: bool = False

    def put(self, data: bytes) -> None:
        self.waiting.append((self.loop.time() + self.delay, data))
        self._arm()

    def open(self, target: asyncio.Transport) -> None:
        target.set_write_buffer_limits(high=HIGH_WATER)
        self.target = target
        self._arm()

    def _arm(self) -> None:
        if self.waiting and not self.armed and self.target is not None:
            self.armed = True
            self.loop.call_at(self.waiting[0][0], self._release)

    def _release(self) -> None:
        self.armed = False
        # asyncio runs a timer that is due within its clock's resolution.
        now = self.loop.time() + 1e-4
        due = []
        while self.waiting and self.waiting[0][0] <= now:
            due.append(self.waiting.popleft()[1])
        if due and self.target is not None and not self.target.is_closing():
            # An empty chunk stands for the end of the stream, which is delayed like the bytes.
            self.target.write(b"".join(due))
            if not due[-1]:
                self.target.close()
        self._arm()


class _Side(asyncio.Protocol):
    """One end of a relayed connection."""

    def __init__(self, out: _Direction, back: _Direction, carried: Carried, up: bool) -> None:
        self.out, self.back, self.carried, self.up = out, back, carried, up

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.back.open(transport)

    def data_received(self, data: bytes) -> None:
        if self.up:
            self.carried.up += len(data)
        else:
            self.carried.down += len(data)
        self.out.put(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.out.put(b"")


async def serve(to_port: int, delay: float) -> None:
    """Relay to ``to_port`` on loopback, ``delay`` seconds each way, until standard input closes."""
    loop = asyncio.get_running_loop()
    carried = Carried()
    connecting: set[asyncio.Task[object]] = set()

    def accept() -> asyncio.Protocol:
        up, down = _Direction(loop, delay), _Direction(loop, delay)
        carried.connections += 1
        task: asyncio.Task[object] = loop.create_task(
            loop.create_connection(  # type: ignore[arg-type]
                lambda: _Side(down, up, carried, up=False), "127.0.0.1", to_port
            )
        )
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return _Side(up, down, carried, up=True)

    server = await loop.create_server(accept, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    print(
        json.dumps({"up": carried.up, "down": carried.down, "connections": carried.connections}),
        flush=True,
    )


@dataclass(slots=True)
class Relay:
    """A running relay. ``carried`` is filled when it has ended."""

    port: int
    carried: Carried


@contextlib.contextmanager
def relay(to_port: int, delay: float, core: int | None = None) -> Iterator[Relay]:
    """Run a relay in its own process, pinned to ``core`` if one is given."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.relay",
        "--to",
        str(to_port),
        "--delay",
        str(delay),
    ]
    taskset = find_program("taskset")
    if core is not None and taskset is not None:
        command = [taskset, "-c", str(core), *command]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        running = Relay(json.loads(process.stdout.readline())["port"], Carried())
        try:
            yield running
        finally:
            process.stdin.close()
            last = json.loads(process.stdout.readline() or "{}")
            process.stdout.read()
            process.wait(30)
            running.carried = Carried(**last)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--delay", type=float, required=True)
    given = parser.parse_args()
    asyncio.run(serve(given.to, given.delay))
