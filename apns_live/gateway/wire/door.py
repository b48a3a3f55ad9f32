"""Connection limits. Every connection is counted before any byte of it is read.

A connection is in one of four states: idle (no request), reading a head, busy (a request is running),
or draining a refused body. Each state but busy has a timeout. When the limit is reached, a new
connection replaces the one that has been inactive for the longest time, unless all are busy.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from itertools import islice
from typing import Any, Protocol, cast

from ..logs import Seldom

logger = logging.getLogger("apns_live.gateway")

HANDSHAKE_SECONDS = 10.0
DRAIN_BYTES = 16 * 1_048_576
DRAIN_SECONDS = 5.0
"""Limits for the rest of a refused body. It is read so that the client sees the answer."""
STUCK_SECONDS = 30.0
"""A connection is aborted if the peer does not read waiting data for so long."""
_LOOKED_AT = 1_000
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLimits:
    """Limits of connections, in total and per address. Times are seconds.

    ``idle`` is the limit for a connection without a request, ``head`` for the head of a request.
    Connections of addresses in ``proxies`` have no limit per address.
    """

    connections: int = 10_000
    per_address: int = 8_000
    idle: float = 75.0
    head: float = 10.0
    proxies: Sequence[IPv4Network | IPv6Network] = ()


class Connection(Protocol):
    """The interface of a connection for `Door`."""

    address: str
    deadline: float

    def close_now(self) -> None:
        """Close without waiting for the peer."""


@dataclass(slots=True)
class DoorStatistics:
    """``open`` connections now, and the numbers of opened, refused and closed ones by reason."""

    open: int = 0
    opened: int = 0
    refused: Counter[str] = field(default_factory=Counter)


class Door:
    """Counts connections, refuses those over a limit, and closes idle ones."""

    def __init__(self, limits: DoorLimits, statistics: DoorStatistics | None = None) -> None:
        self.limits = limits
        self.statistics = statistics or DoorStatistics()
        self._addresses: Counter[str] = Counter()
        self._waiting: OrderedDict[Connection, None] = OrderedDict()
        self._said = Seldom(logger, "connections were refused or closed to make room")

    def enter(self, address: str) -> bool:
        """Count a connection of an address; return False if it is over a limit."""
        limits, statistics = self.limits, self.statistics
        if self._addresses[address] >= limits.per_address:
            is_proxy = any(ip_address(address) in network for network in limits.proxies)
            if not is_proxy and not self._make_room(address):
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
        """Stop counting a connection."""
        self._waiting.pop(connection, None)
        address = connection.address
        self.statistics.open -= 1
        self._addresses[address] -= 1
        if self._addresses[address] <= 0:
            del self._addresses[address]

    def waits(self, connection: Connection, seconds: float | None = None) -> None:
        """Note that a connection has no running request. It may wait ``seconds``, else ``idle``."""
        seconds = self.limits.idle if seconds is None else seconds
        connection.deadline = time.monotonic() + seconds
        self._waiting[connection] = None
        self._waiting.move_to_end(connection)

    def works(self, connection: Connection) -> None:
        """Note that a request of a connection is running."""
        self._waiting.pop(connection, None)

    def sweep(self) -> None:
        """Close connections over their time limit; called once a second."""
        now = time.monotonic()
        for connection in [one for one in self._waiting if one.deadline <= now]:
            self._waiting.pop(connection, None)
            connection.close_now()
        self._said.flush()

    def note(self, reason: str, address: str) -> None:
        """Count a refused or closed connection. Log these together, every ten seconds at most."""
        self.statistics.refused[reason] += 1
        self._said.say(f"{reason}, {address}")

    def _make_room(self, address: str | None) -> bool:
        """Close the connection that was inactive for longest, optionally of one address."""
        for connection in islice(self._waiting, _LOOKED_AT):
            if address is None or connection.address == address:
                del self._waiting[connection]
                self.note("idle", connection.address)
                connection.close_now()
                return True
        return False


class Impatient(asyncio.Protocol):
    """A connection that is closed if its peer does not read waiting data for `STUCK_SECONDS`."""

    _stuck: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Begin to wait: the peer does not read."""
        super().pause_writing()
        if self._stuck is None:
            self._stuck = asyncio.get_running_loop().call_later(STUCK_SECONDS, self.close_now)

    def resume_writing(self) -> None:
        """Continue: the peer reads again, or is gone."""
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        super().resume_writing()

    def close_now(self) -> None:
        """Close without waiting for the peer."""
        raise NotImplementedError


class Arrival(asyncio.Protocol):
    """An accepted connection. It does the TLS handshake, if any, and hands over to its protocol.

    ``speak`` creates the protocol for the name that ALPN selected.
    """

    def __init__(
        self, door: Door, address: str, speak: Callable[[str | None], asyncio.Protocol]
    ) -> None:
        self.address = address
        self.deadline = 0.0
        self._door = door
        self._speak = speak
        self._task: asyncio.Task[None] | None = None
        self._speaks = False

    async def welcome(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        """Start an accepted connection; remove it if it ends before a protocol is chosen."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._door.waits(self, HANDSHAKE_SECONDS + 1)
        options: dict[str, Any] = {}
        if context is not None:
            options = {
                "ssl": context,
                "ssl_handshake_timeout": HANDSHAKE_SECONDS,
                "ssl_shutdown_timeout": DRAIN_SECONDS,
            }
        try:
            # Not `start_tls` on an accepted transport: uvloop would read the client's first bytes
            # first.
            await loop.connect_accepted_socket(lambda: self, connection, **options)
        except (OSError, asyncio.CancelledError):  # not TLS, or too slow
            if not self._speaks:
                self._door.leave(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass the connection to its protocol."""
        tls = transport.get_extra_info("ssl_object")
        protocol = self._speak(None if tls is None else tls.selected_alpn_protocol())
        self._speaks = True
        self._door.works(self)
        cast("asyncio.Transport", transport).set_protocol(protocol)
        protocol.connection_made(transport)

    def close_now(self) -> None:
        """Close without waiting for the peer."""
        if self._task is not None:
            self._task.cancel()
