"""A TCP relay that delays every byte by a fixed time in each direction.

It does not limit throughput: it queues data with the time at which it is due. It shares the sink's core,
and its CPU time is counted with the sink's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
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


class _Direction:
    """One direction of one connection: each chunk leaves ``delay`` seconds after it came."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        self._loop = loop
        self._delay = delay
        self._due = 0.0
        self._early: list[bytes] = []
        self._target: asyncio.Transport | None = None

    def put(self, data: bytes) -> None:
        # A heap of timers keeps no order among equal times, and bytes must keep theirs.
        self._due = max(self._due + 1e-6, self._loop.time() + self._delay)
        self._loop.call_at(self._due, self._release, data)

    def open(self, target: asyncio.Transport) -> None:
        target.set_write_buffer_limits(high=HIGH_WATER)
        self._target = target
        for data in self._early:
            self._release(data)

    def _release(self, data: bytes) -> None:
        if self._target is None:
            self._early.append(data)
        elif not data:  # the end of the stream, which is delayed like the bytes
            self._target.close()
        elif not self._target.is_closing():
            self._target.write(data)


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


async def serve(connection: Connection, to_port: int, delay: float) -> None:
    """Relay to ``to_port`` on loopback, ``delay`` seconds each way, until the parent closes its end."""
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
