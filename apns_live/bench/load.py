"""A closed loop of HTTP/1.1 requests over keep-alive connections, cheap enough not to be the bottleneck."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec

Make = Callable[[], bytes | None]
"""Returns the next request of a connection, or None to close it."""

_END = b"\r\n\r\n"
_REFUSALS = (429, 503)
_GRACE = 15.0


@dataclass(slots=True)
class Seen:
    """The results of a loop: answers by status, and the seconds that each took."""

    answers: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    lost: int = 0
    timeline: list[tuple[float, int]] = field(default_factory=list)
    wall: float = 0.0


@dataclass(eq=False)
class _Connection(asyncio.Protocol):
    """One keep-alive connection. It sends the next request after the last answer, or when it is due.

    ``each`` is the time between two requests in seconds, 0 for none; ``due`` is the next one's time.
    """

    make: Make
    seen: Seen
    each: float
    due: float
    buffer: bytes = b""
    sent: float = 0.0

    def __post_init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._ask()

    def _ask(self) -> None:
        if self.transport.is_closing():
            return
        if (request := self.make()) is None:
            self.transport.close()
            return
        self.sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(_END)
        if end < 0:
            return
        head = self.buffer[:end].lower()
        mark = head.find(b"content-length:")
        length = int(head[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        self.buffer = b""  # one request at a time, so nothing can follow
        seen, took, status = self.seen, time.perf_counter() - self.sent, int(head[9:12])
        seen.answers[status] += 1
        if status in _REFUSALS:
            seen.refusals.append(took)
            seen.without_retry_after += b"retry-after:" not in head
        else:
            seen.times.append(took)
        self.due += self.each
        pause = self.due - self.loop.time() if self.each else 0.0
        if pause > 0:
            self.loop.call_later(pause, self._ask)
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self.seen.lost += error is not None
        if not self.done.done():
            self.done.set_result(None)


async def closed_loop(
    host: str,
    port: int,
    makers: Sequence[Make],
    *,
    seconds: float,
    rate: float = 0.0,
    tell: Callable[[float, Seen], None] | None = None,
) -> Seen:
    """Run one connection for each maker, until its maker returns None or ``seconds`` have passed.

    ``rate`` limits the answers a second of all connections together.
    """
    seen = Seen()
    loop = asyncio.get_running_loop()
    begin, until = time.perf_counter(), loop.time() + seconds
    each = len(makers) / rate if rate else 0.0
    connections: set[asyncio.Future[None]] = set()
    for index, make in enumerate(makers):
        made = _Connection(
            lambda make=make: make() if loop.time() < until else None,  # type: ignore[misc]
            seen,
            each,
            loop.time() + each * index / len(makers),
        )
        await loop.create_connection(lambda made=made: made, host, port)  # type: ignore[misc]
        connections.add(made.done)
    last = loop.time() + seconds + _GRACE
    while connections and loop.time() < last:
        _, connections = await asyncio.wait(connections, timeout=0.25)
        now = time.perf_counter() - begin
        seen.timeline.append((round(now, 4), sum(seen.answers.values())))
        if tell is not None:
            tell(now, seen)
    seen.lost += len(connections)
    seen.wall = time.perf_counter() - begin
    return seen


def post(path: str, content: object, authorization: str) -> bytes:
    """Return the bytes of a POST with a JSON body."""
    body = msgspec.json.encode(content)
    return (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: {authorization}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body
