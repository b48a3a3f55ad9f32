"""The network of a simulation: byte pipes with delay, cuts, half-open links and pieces, to the fake.

The server's end of each connection is the fake's own wire face (`WireConnection`), so APNs behaves
here as it does over real sockets. Nothing is encrypted: TLS is asyncio's business, not ours.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sqlite3
from collections.abc import Callable
from typing import Any

from apns_live.testing.faults import Target
from apns_live.testing.listener import FaceOptions, WireFace
from apns_live.testing.wire import WireConnection

HIGH_WATER = 65_536


class _Tls:
    """What the engine reads of an SSL object."""

    def __init__(self, protocol: str | None) -> None:
        self._protocol = protocol

    def selected_alpn_protocol(self) -> str | None:
        return self._protocol

    def version(self) -> str:
        return "TLSv1.3"


class SimulatedTransport(asyncio.Transport):
    """One end of a link. Bytes reach the other end in order, ``link.delay()`` seconds later."""

    def __init__(self, link: Link, name: str) -> None:
        super().__init__()
        self.link = link
        self.name = name
        self.peer: SimulatedTransport = self
        self.protocol: Any = None
        self.closing = False
        self.lost = False
        self.late_writes = 0
        self._reading = True
        self._held: list[bytes] = []
        self._arrival = 0.0
        self._underway = 0
        self._paused = False
        self._high = HIGH_WATER

    def __repr__(self) -> str:
        return f"<{self.name} of link {self.link.number}>"

    # The protocol's side

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return _Tls(self.link.alpn)
        if name in ("peername", "sockname"):
            return ("10.0.0.1", 443)
        return default

    def is_closing(self) -> bool:
        return self.closing

    def get_protocol(self) -> Any:
        return self.protocol

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        if self._held:
            self.link.loop.call_soon(self._release)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = HIGH_WATER if high is None else high

    def get_write_buffer_size(self) -> int:
        return self._underway

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return (self._high // 4, self._high)

    def can_write_eof(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        if not data:
            return
        if self.closing or self.lost:
            self.late_writes += 1
            return
        payload = bytes(data)
        self._underway += len(payload)
        if not self._paused and self._underway > self._high:
            self._paused = True
            self.protocol.pause_writing()
        if self.link.is_deaf(self):
            return
        for piece in self.link.pieces(payload):
            self._deliver_later(piece)

    def writelines(self, lines: Any) -> None:
        self.write(b"".join(lines))

    def close(self) -> None:
        if self.closing:
            return
        self.closing = True
        loop = self.link.loop
        loop.call_soon(self._lose, None)
        if not self.link.is_deaf(self):
            self._at_arrival(self.peer._hear_end)

    def abort(self) -> None:
        if self.lost:
            return
        self.closing = True
        self.link.loop.call_soon(self._lose, None)
        if not self.link.is_deaf(self):
            self._at_arrival(self.peer._hear_reset)

    # The link's side

    def _at_arrival(self, call: Callable[..., object], *arguments: object) -> None:
        loop = self.link.loop
        # A heap of timers keeps no order among equal times, and bytes must keep theirs.
        self._arrival = max(self._arrival + 1e-6, loop.time() + self.link.delay())
        loop.call_at(self._arrival, call, *arguments)

    def _deliver_later(self, piece: bytes) -> None:
        self._at_arrival(self._arrived, piece)

    def _arrived(self, piece: bytes) -> None:
        if self.link.is_deaf(self):
            return
        self._underway -= len(piece)
        if self._paused and self._underway <= self._high // 4 and not self.lost:
            self._paused = False
            self.protocol.resume_writing()
        self.peer._receive(piece)

    def _receive(self, piece: bytes) -> None:
        if self.lost or self.closing:
            return
        if not self._reading:
            self._held.append(piece)
            return
        self.protocol.data_received(piece)

    def _release(self) -> None:
        while self._held and self._reading and not self.closing and not self.lost:
            self.protocol.data_received(self._held.pop(0))

    def _hear_end(self) -> None:
        if not self.closing and not self.lost:
            self._release()
            if self.closing:
                return
            self.protocol.eof_received()
            self.closing = True
            self._lose(None)

    def _hear_reset(self) -> None:
        self.closing = True
        self._lose(ConnectionResetError(104, "Connection reset by peer"))

    def _lose(self, error: Exception | None) -> None:
        if self.lost:
            return
        self.lost = True
        self.protocol.connection_lost(error)


class Link:
    """One connection and its weather."""

    def __init__(
        self, number: int, loop: asyncio.AbstractEventLoop, weather: Weather, alpn: str | None
    ) -> None:
        self.number = number
        self.loop = loop
        self.alpn = alpn
        self.random = random.Random(f"{weather.seed}/{number}")
        self._weather = weather
        self._deaf: set[str] = set()
        self.client = SimulatedTransport(self, "client")
        self.server = SimulatedTransport(self, "server")
        self.client.peer, self.server.peer = self.server, self.client

    def delay(self) -> float:
        weather = self._weather
        return weather.delay + weather.jitter * self.random.random()

    def pieces(self, data: bytes) -> list[bytes]:
        if len(data) < 2 or self.random.random() >= self._weather.splitting:
            return [data]
        cut = self.random.randrange(1, len(data))
        return [data[:cut], data[cut:]]

    def is_deaf(self, sender: SimulatedTransport) -> bool:
        """Whether nothing that this end sends arrives any more."""
        return sender.name in self._deaf

    def half_open(self, *silent: str) -> None:
        self._deaf.update(silent)

    def cut(self) -> None:
        """Break the link for both ends at once; what is under way is lost."""
        self.half_open("client", "server")
        for end in (self.client, self.server):
            end.closing = True
            self.loop.call_soon(end._lose, ConnectionResetError(104, "Connection reset by peer"))


class Weather:
    """What the network is like now; changed as a simulation goes on. Times are seconds."""

    def __init__(self, seed: str) -> None:
        self.seed = seed
        self.delay = 0.002
        self.jitter = 0.0
        self.splitting = 0.0
        self.connect_delay = 0.01
        self.refuse = False
        self.black_hole = False
        self.alpn: str | None = "h2"


class Network:
    """Connects clients to one face of the fake. ``weather`` holds for what comes next."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, engine: Any, options: FaceOptions, weather: Weather
    ) -> None:
        self.loop = loop
        self.weather = weather
        self.links: list[Link] = []
        self.late_writes = 0
        self.disk_fails = False
        self.disk_delay = 0.0005
        self._blocking: set[asyncio.TimerHandle] = set()
        self.face = WireFace(engine, "device", None, options, untrusted=lambda: None)  # type: ignore[arg-type, return-value]
        self._numbers = 0

    async def tcp_connect(self, address: object) -> None:
        del address
        await asyncio.sleep(self.weather.connect_delay)
        if self.weather.black_hole:
            await asyncio.sleep(3600.0)
        if self.weather.refuse:
            raise ConnectionRefusedError(111, "Connection refused")

    async def connect(self, make_protocol: Callable[[], asyncio.Protocol]) -> Any:
        await asyncio.sleep(self.weather.connect_delay)
        engine = self.face.engine
        number = engine.next_connection_id()
        target = Target(number, self.face.kind)
        struck = (
            tuple(engine.faults.choose(target, number)) if engine.faults.for_connections else ()
        )
        for active in struck:
            if active.fault.action == "refuse_connection":
                raise ConnectionResetError(104, "Connection reset by peer")
            if active.fault.action == "fail_tls":
                raise ConnectionAbortedError(103, "TLS handshake failed")
        self._numbers += 1
        link = Link(self._numbers, self.loop, self.weather, self.weather.alpn)
        self.links = [each for each in self.links if not (each.client.lost and each.server.lost)]
        self.links.append(link)
        protocol = make_protocol()
        link.client.protocol = protocol
        link.server.protocol = WireConnection(self.face, number, struck)
        self.loop.call_later(link.delay(), self._serve, link)
        protocol.connection_made(link.client)
        return link.client, protocol

    def _serve(self, link: Link) -> None:
        if not link.server.lost:
            link.server.protocol.connection_made(link.server)

    def count_late_writes(self) -> int:
        return sum(each.client.late_writes for each in self.links)

    async def resolve(
        self, host: str, port: int
    ) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
        del host
        return [(socket.AF_INET, ("10.0.0.1", port))]

    def blocking_call(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Do what a thread would do, after the disk's delay. Cancelling the waiter does not stop it."""
        answer: asyncio.Future[Any] = self.loop.create_future()
        handle = self.loop.call_later(self.disk_delay, self._do, work, answer)
        self._blocking = {
            each
            for each in self._blocking
            if not each.cancelled() and each.when() > self.loop.time()
        }
        self._blocking.add(handle)
        return answer

    def _do(self, work: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        try:
            if self.disk_fails:
                raise sqlite3.OperationalError("database or disk is full")
            result = work()
        except Exception as error:  # noqa: BLE001 - a thread hands on whatever is raised
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(result)

    def kill_blocking_calls(self) -> None:
        """Stop the threads of a process that dies: what they had not begun never happens."""
        for handle in self._blocking:
            handle.cancel()
        self._blocking.clear()
