"""A distance to the sink: a TCP relay that delays every byte by a fixed time in each direction.

It does not limit throughput: what arrives is kept with the time when it is due, and leaves then. Its CPU
is counted with the sink's, whose core it shares: where they are busy, they are the limit.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import cast

from .processes import answer_until_closed, say, worker
from .sinks import Sink, SinkOptions

HIGH_WATER = 256 * 1024 * 1024


def carries(connections: int, body: int, round_trip: float, options: SinkOptions) -> float:
    """Return the pushes a second that so many connections can carry at most.

    That is min(streams / RTT, window / (body x RTT)) for each. ``body`` is bytes, ``round_trip`` seconds.
    """
    return connections * min(options.streams, options.window / body) / round_trip


@contextlib.contextmanager
def relayed(sink: Sink, round_trip: float, core: int | None) -> Iterator[Sink]:
    """Give the sink as it looks from ``round_trip`` seconds away."""
    with worker("the relay", serve, sink.port, round_trip / 2, core=core) as between:
        yield replace(sink, port=between.receive(), cpu=lambda: sink.cpu() + between.cpu())


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

    def __init__(self, out: _Direction, back: _Direction) -> None:
        self.out, self.back = out, back

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.back.open(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self.out.put(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.out.put(b"")


def serve(connection: Connection, to_port: int, delay: float) -> None:
    """Relay to ``to_port`` on loopback, ``delay`` seconds each way, until the parent closes its end."""
    asyncio.run(_serve(connection, to_port, delay))


async def _serve(connection: Connection, to_port: int, delay: float) -> None:
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[object]] = set()

    def accept() -> asyncio.Protocol:
        up, down = _Direction(loop, delay), _Direction(loop, delay)
        coroutine = loop.create_connection(lambda: _Side(down, up), "127.0.0.1", to_port)
        task: asyncio.Task[object] = loop.create_task(coroutine)
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return _Side(up, down)

    server = await loop.create_server(accept, "127.0.0.1", 0)
    say(connection, server.sockets[0].getsockname()[1])
    await answer_until_closed(connection)
    server.close()
