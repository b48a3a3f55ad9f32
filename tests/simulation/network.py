"""The network of a simulation: byte pipes with delay, cuts, half-open links and pieces, to the fake.

The server's end of each connection is the fake's own wire face (`WireConnection`), so APNs behaves
here as it does over real sockets. Nothing is encrypted: TLS is asyncio's business, not ours. An error
that is raised on purpose is `Provoked`; any other one in the network or the fake fails the world, even
where the client takes it for a failed connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

from apns_live.errors import ApnsLiveError
from apns_live.testing.faults import Target
from apns_live.testing.listener import FaceOptions, WireFace
from apns_live.testing.wire import WireConnection

from .effects import Effects, Provoked, Wiretap, is_provoked

HIGH_WATER = 65_536


class Refused(Provoked, ConnectionRefusedError):
    """No server listens."""


class Reset(Provoked, ConnectionResetError):
    """A connection was broken."""


class TlsFailed(Provoked, ConnectionAbortedError):
    """A handshake failed."""


class DiskFull(Provoked, sqlite3.OperationalError):
    """The journal's disk takes no more."""


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
            self.link.wiretap.late_writes += self is self.link.client
            return
        payload = bytes(data)
        self._underway += len(payload)
        if not self._paused and self._underway > self._high:
            self._paused = True
            self.protocol.pause_writing()
        if self.link.is_deaf(self):
            self.link.swallowed()
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
        self.link.tap(self, piece)
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
        self.link.effects.count("disconnect")
        self.closing = True
        self._lose(Reset(104, "Connection reset by peer"))

    def _lose(self, error: Exception | None) -> None:
        if self.lost:
            return
        self.lost = True
        self.link.lost(self)
        self.protocol.connection_lost(error)


class Link:
    """One connection and its weather."""

    def __init__(
        self, number: int, loop: asyncio.AbstractEventLoop, weather: Weather, effects: Effects
    ) -> None:
        self.number = number
        self.loop = loop
        self.alpn = weather.alpn
        self.wiretap = Wiretap(effects)
        self.effects = effects
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
        if not self.client.lost:
            self.effects.count("cut")
        self.half_open("client", "server")
        for end in (self.client, self.server):
            end.closing = True
            self.loop.call_soon(end._lose, Reset(104, "Connection reset by peer"))

    def tap(self, receiver: SimulatedTransport, data: bytes) -> None:
        """Note what arrives at an end."""
        read = self.wiretap.at_client if receiver is self.client else self.wiretap.at_server
        read(data, self.loop.time())

    def swallowed(self) -> None:
        """Note that an end wrote what never arrives."""
        self.effects.count("half_open")

    def lost(self, end: SimulatedTransport) -> None:
        """Note that an end is lost: by its own will, unless the link broke."""
        if end is self.client and not self._deaf:
            self.wiretap.lost(self.loop.time())
        if end is self.client and self.alpn != "h2":
            self.effects.count(f"ALPN {self.alpn}")


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
    """Connects clients to one face of the fake. ``weather`` holds for what comes next.

    ``complain`` takes every error of the network and the fake that the world did not provoke.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Any,
        options: FaceOptions,
        weather: Weather,
        effects: Effects,
        complain: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.weather = weather
        self.links: list[Link] = []
        self.wiretaps: list[Wiretap] = []
        self._effects = effects
        self._complain = complain
        self.disk_fails = False
        self.disk_delay = 0.0005
        self._blocking: set[asyncio.TimerHandle] = set()
        self.face = WireFace(engine, "device", None, options, untrusted=lambda: None)  # type: ignore[arg-type, return-value]
        self._numbers = 0

    async def tcp_connect(self, address: object) -> None:
        del address
        with self._watched("connect"):
            await asyncio.sleep(self.weather.connect_delay)
            if self.weather.black_hole:
                self._effects.count("black_hole")
                await asyncio.sleep(3600.0)
            if self.weather.refuse:
                self._effects.count("refuse")
                raise Refused(111, "Connection refused")

    async def connect(self, make_protocol: Callable[[], asyncio.Protocol]) -> Any:
        await asyncio.sleep(self.weather.connect_delay)
        with self._watched("accept a connection"):
            link = self._accept()
        protocol = make_protocol()
        link.client.protocol = protocol
        self.loop.call_later(link.delay(), self._serve, link)
        protocol.connection_made(link.client)
        return link.client, protocol

    @contextlib.contextmanager
    def _watched(self, what: str) -> Iterator[None]:
        """Report an error that would pass for weather where it is caught."""
        try:
            yield
        except Exception as error:
            if not is_provoked(error):
                self._complain(f"the simulated network failed to {what}: {error!r}")
            raise

    def _accept(self) -> Link:
        """Return a link with the fake at its end, unless a fault breaks it first."""
        engine = self.face.engine
        number = engine.next_connection_id()
        target = Target(number, self.face.kind)
        struck = tuple(engine.faults.choose(target, number))
        for active in struck:
            if active.fault.action == "refuse_connection":
                self._effects.count("refuse_connection")
                raise Reset(104, "Connection reset by peer")
            if active.fault.action == "fail_tls":
                self._effects.count("fail_tls")
                raise TlsFailed(103, "TLS handshake failed")
        self._numbers += 1
        link = Link(self._numbers, self.loop, self.weather, self._effects)
        link.server.protocol = WireConnection(self.face, number, struck)
        self.links = [each for each in self.links if not (each.client.lost and each.server.lost)]
        self.links.append(link)
        self.wiretaps.append(link.wiretap)
        return link

    def _serve(self, link: Link) -> None:
        if not link.server.lost:
            link.server.protocol.connection_made(link.server)

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
                self._effects.count("full disk")
                raise DiskFull("database or disk is full")
            result = work()
        except Exception as error:  # noqa: BLE001 - a thread hands on whatever is raised
            if not (is_provoked(error) or isinstance(error, ApnsLiveError)):
                self._complain(f"the simulated disk failed: {error!r}")
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
