"""A distance to the sink: the relay between, and what it and the windows can carry.

One connection carries at most min(streams / RTT, window / (body x RTT)) pushes a second. Source of the
windows and streams: what APNs is seen to grant (docs/guides/measure.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from . import relay
from .processes import worker
from .sinks import Sink, SinkOptions

REQUEST_EXTRA, ANSWER = 130, 60
"""Bytes that a push takes on the wire beside its body, and its answer: measured through the relay."""
_CHUNK = 262_144


def carries(connections: int, body: int, round_trip: float, options: SinkOptions) -> float:
    """Return the pushes a second that so many connections can carry at most."""
    return connections * min(options.streams, options.window / body) / round_trip


@contextlib.contextmanager
def relayed(sink: Sink, round_trip: float, core: int | None) -> Iterator[Sink]:
    """Give the sink as it looks from ``round_trip`` seconds away."""
    with worker("the relay", relay.serve, sink.port, round_trip / 2, core=core) as between:
        yield replace(sink, port=between.receive(), cpu=lambda: sink.cpu() + between.cpu())


def relay_alone(
    connections: int,
    body: int,
    round_trip: float,
    options: SinkOptions,
    core: int | None,
    seconds: float,
) -> float:
    """Return what the relay carries of plain bytes with the same windows, in pushes a second."""
    unit = body + REQUEST_EXTRA
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answer, args=(listener, unit), daemon=True).start()
        place = Sink("", listener.getsockname()[1], "", lambda: 0.0)
        with relayed(place, round_trip, core) as between:
            in_flight = int(min(options.streams, options.window / body))
            work = _pump(between.port, connections, unit, in_flight, seconds)
            return asyncio.run(work)


def _answer(listener: socket.socket, unit: int) -> None:
    """Answer each ``unit`` bytes with `ANSWER` bytes, on every connection."""

    def serve(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left = 0
            while data := peer.recv(_CHUNK):
                whole, left = divmod(left + len(data), unit)
                if whole:
                    peer.sendall(b"a" * ANSWER * whole)

    with contextlib.suppress(OSError):
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=serve, args=(peer,), daemon=True).start()


async def _pump(port: int, connections: int, unit: int, in_flight: int, seconds: float) -> float:
    """Return push-sized units a second, each connection kept at its window."""
    done, begin = 0, time.perf_counter() + seconds / 4

    async def one() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"r" * unit * in_flight)
        left = 0
        while (now := time.perf_counter()) < begin + seconds:
            answers, left = divmod(left + len(await reader.read(_CHUNK)), ANSWER)
            writer.write(b"r" * unit * answers)
            done += answers if now >= begin else 0
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return done / seconds
