"""Who may stay connected: connections are counted before anything of them is read.

A connection is idle (no request), has begun a head, is busy (a request is under way), or still sends
a body that was refused. All but busy ones have a time by which something must happen, and make room
for new ones when the house is full: the one that did nothing for longest goes first.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import islice
from typing import Protocol, cast

from ..logs import Seldom

logger = logging.getLogger("apns_live.gateway")

HANDSHAKE_SECONDS = 10.0
DRAIN_BYTES = 16 * 1_048_576
DRAIN_SECONDS = 5.0
"""What is read of a body that is still sent behind its refusal, so that the client sees the answer."""
STUCK_SECONDS = 30.0
"""A peer that reads nothing for so long, while there is something for it, is cut off."""
_LOOKED_AT = 1_000
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLimits:
    """Connections in all and of one address; times in seconds.

    ``idle`` is how long a connection stays without a request, ``head`` how long the head of a
    request may take. Addresses in ``proxies`` speak for many and are not counted one by one.
    """

    connections: int = 10_000
    per_address: int = 8_000
    idle: float = 75.0
    head: float = 10.0
    proxies: Sequence[IPv4Network | IPv6Network] = ()

    def speaks_for_many(self, address: str) -> bool:
        """Whether an address is a proxy's."""
        return any(ip_address(address) in network for network in self.proxies)


class Connection(Protocol):
    """What the door asks of a connection."""

    address: str
    deadline: float

    def close_now(self) -> None:
        """Close without waiting for the peer."""


@dataclass(slots=True)
class DoorStatistics:
    """``open`` connections now; how many were opened, and turned away or closed, by reason."""

    open: int = 0
    opened: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Door:
    """Counts connections and closes those that have nothing to say."""

    def __init__(self, limits: DoorLimits, statistics: DoorStatistics | None = None) -> None:
        self._limits = limits
        self.statistics = statistics or DoorStatistics()
        self._addresses: Counter[str] = Counter()
        self._waiting: OrderedDict[Connection, None] = OrderedDict()
        self._said = Seldom(logger, "connections were refused or closed to make room")

    def enter(self, address: str) -> bool:
        """Count a connection of an address; False when there is no room for it."""
        limits, statistics = self._limits, self.statistics
        if (
            self._addresses[address] >= limits.per_address
            and not limits.speaks_for_many(address)
            and not self._make_room(address)
        ):
            self.note("connections of one address", address)
            return False
        if statistics.open >= limits.connections and not self._make_room(None):
            self.note("connections", address)
            return False
        self._addresses[address] += 1
        statistics.open += 1
        statistics.opened += 1
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection that was let in."""
        self._waiting.pop(connection, None)
        address = connection.address
        self.statistics.open -= 1
        self._addresses[address] -= 1
        if self._addresses[address] <= 0:
            del self._addresses[address]

    def waits(self, connection: Connection, seconds: float | None = None) -> None:
        """Note that a connection has no request under way; by default it is idle."""
        seconds = self._limits.idle if seconds is None else seconds
        connection.deadline = time.monotonic() + seconds
        self._waiting[connection] = None
        self._waiting.move_to_end(connection)

    def heads(self, connection: Connection) -> None:
        """Note that a connection has begun the head of a request."""
        self.waits(connection, self._limits.head)

    def works(self, connection: Connection) -> None:
        """Note that a request of a connection is under way."""
        self._waiting.pop(connection, None)

    def sweep(self) -> None:
        """Close what is over its time; for once a second."""
        now = time.monotonic()
        for connection in [one for one in self._waiting if one.deadline <= now]:
            self._waiting.pop(connection, None)
            connection.close_now()
        self._said.flush()

    def note(self, reason: str, address: str) -> None:
        """Count a connection that was refused, or closed to make room, and say so seldom."""
        self.statistics.refused[reason] += 1
        self._said.say(f"{reason}, {address}")

    def _make_room(self, address: str | None) -> bool:
        """Close the connection that did nothing for longest; of an address if one is named."""
        for connection in islice(self._waiting, _LOOKED_AT):
            if address is None or connection.address == address:
                del self._waiting[connection]
                self.note("idle", connection.address)
                connection.close_now()
                return True
        return False


class Arrival(asyncio.Protocol):
    """A new connection: let in or turned away, and taken through the TLS handshake if there is TLS.

    ``speak`` makes the protocol that goes on, from the protocol's name that ALPN agreed on.
    """

    def __init__(
        self,
        door: Door,
        context: Callable[[], ssl.SSLContext | None],
        speak: Callable[[str | None], asyncio.Protocol],
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._door = door
        self._context = context
        self._speak = speak
        self._tasks = tasks
        self._transport: asyncio.Transport | None = None
        self._early = b""
        self._inside = False
        self.address = ""
        self.deadline = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Turn the connection away, or go on with it."""
        self._transport = transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        context = self._context()
        if not self._door.enter(self.address):
            if context is None:
                transport.write(_BUSY)
            transport.close()
            return
        if context is None:
            self._go_on(transport, None)
            return
        self._inside = True
        self._door.waits(self, HANDSHAKE_SECONDS + 1)
        transport.pause_reading()  # until TLS reads
        task = asyncio.get_running_loop().create_task(self._secure(transport, context))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _secure(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(
                transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=DRAIN_SECONDS,
            )
        except (OSError, asyncio.CancelledError):
            secured = None
        if secured is None:  # what is no TLS, or was not complete in time; nobody to tell
            self._gone()
            transport.abort()
            return
        tls = secured.get_extra_info("ssl_object")
        self._inside = False
        self._door.works(self)
        self._go_on(secured, None if tls is None else tls.selected_alpn_protocol())

    def _go_on(self, transport: asyncio.Transport, agreed: str | None) -> None:
        protocol = self._speak(agreed)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._early:
            protocol.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        """Keep what comes right behind the handshake."""
        self._early += data

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        self._gone()

    def _gone(self) -> None:
        if self._inside:
            self._inside = False
            self._door.leave(self)

    def close_now(self) -> None:
        """Close without waiting for the peer."""
        if self._transport is not None:
            self._transport.abort()
