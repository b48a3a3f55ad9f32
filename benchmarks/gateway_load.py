"""A closed loop of requests over keep-alive connections, cheap enough not to be the bottleneck."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_END = b"\r\n\r\n"


@dataclass(slots=True)
class Load:
    """What the loop saw: answers by status, and how long each took, in seconds."""

    answers: Counter[int] = field(default_factory=Counter)
    times: list[float] = field(default_factory=list)
    late_refusals: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    lost: int = 0
    began: float = 0.0
    ended: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return sum(self.answers.values()) / max(self.ended - self.began, 1e-9)

    def quantile(self, share: float) -> float:
        """Return the time that this share of the answers took at most."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class _Connection(asyncio.Protocol):
    """One keep-alive connection: asks again as soon as it was answered, or when it is told to."""

    def __init__(
        self,
        next_request: Callable[[], bytes | None],
        answered: Callable[[bytes], None] | None,
        load: Load,
        pause: Callable[[], float],
    ) -> None:
        self._next = next_request
        self._answered = answered
        self._load = load
        self._pause = pause
        self._buffer = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        request = self._next()
        if request is None:
            self._transport.close()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while True:
            end = self._buffer.find(_END)
            if end < 0:
                return
            head = self._buffer[:end].lower()
            mark = head.find(b"content-length:")
            length = int(head[mark + 15 :].split(b"\r\n", 1)[0]) if mark >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._take(int(head[9:12]), head, body)

    def _take(self, status: int, head: bytes, body: bytes) -> None:
        load, took = self._load, time.perf_counter() - self._sent
        load.answers[status] += 1
        if status in (429, 503):
            load.late_refusals.append(took)
            load.without_retry_after += b"retry-after:" not in head
        else:
            load.times.append(took)
            if self._answered is not None:
                self._answered(body)
        pause = self._pause()
        if pause > 0:
            asyncio.get_running_loop().call_later(pause, self._ask)
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._load.lost += 1
        if not self.done.done():
            self.done.set_result(None)


async def run(
    host: str,
    port: int,
    requests: Sequence[Callable[[], bytes]],
    *,
    seconds: float,
    answered: Callable[[int, bytes], None] | None = None,
    rate: float | None = None,
) -> Load:
    """Run one connection for each of ``requests`` for ``seconds``.

    ``rate``: answers a second of all together, by pausing between; else as fast as they come.
    """
    load = Load()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    each = len(requests) / rate if rate else 0.0
    connections = []
    for index, make in enumerate(requests):
        due = loop.time() + each * index / len(requests)

        def next_request(make: Callable[[], bytes] = make) -> bytes | None:
            return make() if loop.time() < until else None

        def pause(state: list[float] = [due]) -> float:  # noqa: B006 - the loop's own
            if not each:
                return 0.0
            state[0] += each
            return max(0.0, state[0] - loop.time())

        taken = None
        if answered is not None:

            def taken(body: bytes, index: int = index) -> None:
                answered(index, body)

        _, connection = await loop.create_connection(
            lambda n=next_request, t=taken, p=pause: _Connection(n, t, load, p), host, port
        )
        connections.append(connection)
    load.began = time.perf_counter()
    try:
        async with asyncio.timeout(seconds + 15):
            await asyncio.gather(*(connection.done for connection in connections))
    except TimeoutError:
        load.lost += sum(not connection.done.done() for connection in connections)
    load.ended = time.perf_counter()
    return load


def post(path: str, body: bytes, key: str, host: str = "localhost") -> bytes:
    """Return a POST request, ready to be written."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body
