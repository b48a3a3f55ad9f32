"""The wire face: listens, does or breaks the TLS handshake, and keeps the connections."""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
import struct
from collections.abc import Callable

from apns_live.errors import FakeError

from .engine import Engine
from .faults import Target
from .state import Face
from .wire import Connections, FaceOptions, WireConnection

_BACKLOG = 512
_AT_ONCE = 64
"""Connections accepted before others have their turn on the event loop."""
_HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"
"""A TLS alert: fatal, handshake_failure (RFC 8446, section 6)."""


class WireFace(Connections):
    """One listening port of the wire face. ``kind`` says what it serves."""

    def __init__(
        self,
        engine: Engine,
        kind: Face,
        context: ssl.SSLContext,
        options: FaceOptions,
        *,
        untrusted: Callable[[], ssl.SSLContext],
    ) -> None:
        super().__init__(engine, kind, options)
        self.port = 0
        self._context = context
        self._untrusted = untrusted
        self._listeners: list[socket.socket] = []
        self._addresses: list[tuple[socket.AddressFamily, tuple[str, int]]] = []
        self._handshakes: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen. Port 0 takes a free one; ``localhost`` means both 127.0.0.1 and ::1."""
        self._listeners = listening_sockets(host, self.port or port)
        self.port = self._listeners[0].getsockname()[1]
        self._addresses = [
            (each.family, (each.getsockname()[0], self.port)) for each in self._listeners
        ]
        self._accept()

    def stop_listening(self) -> None:
        """Refuse new connections, as a host without a server does. Open ones continue."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            # Before the number can be given to another socket.
            loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    def listen_again(self) -> None:
        """Listen on the same port as before."""
        if not self._listeners:
            for family, (address, port) in self._addresses:
                self._listeners.append(_listen(family, address, port))
            self._accept()

    async def close(self) -> None:
        """Stop listening and break every connection."""
        self.stop_listening()
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)
        for connection in list(self.connections.values()):
            connection.abort()
        for _ in range(100):
            if not self.connections:
                break
            await asyncio.sleep(0)

    # --- accepting -----------------------------------------------------------------------------

    def _accept(self) -> None:
        for listener in self._listeners:
            self._watch(listener)

    def _watch(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            loop = asyncio.get_running_loop()
            loop.add_reader(listener.fileno(), self._accept_from, listener)

    def _accept_from(self, listener: socket.socket) -> None:
        # Not the loop's sock_accept: if it is cancelled, an accepted socket is lost.
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener.fileno())
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    loop.call_later(0.1, self._watch, listener)
                return
            accepted.setblocking(False)
            self._admit(accepted)

    def _admit(self, accepted: socket.socket) -> None:
        connection_id = self.engine.next_connection_id()
        if len(self.connections) + len(self._handshakes) >= self.options.connection_limit:
            _break(accepted)
            return
        struck = tuple(self.engine.faults.choose(Target(connection_id, self.kind), connection_id))
        for active in struck:
            self.engine.record_strike(active, connection_id, "", connection_id)
        context = self._context
        for active in struck:
            if active.fault.action == "refuse_connection":
                _break(accepted)
                return
            if active.fault.action == "fail_tls":
                if not active.fault.untrusted:
                    with contextlib.suppress(OSError):
                        accepted.send(_HANDSHAKE_FAILURE)
                    accepted.close()
                    return
                context = self._untrusted()
        taken = False

        def make() -> WireConnection:
            nonlocal taken
            taken = True
            return WireConnection(self, connection_id, struck)

        def done(task: asyncio.Task[None]) -> None:
            self._handshakes.discard(task)
            # A protocol's transport owns the socket and closes it. Without one, the task may have been
            # cancelled before it began.
            if not taken:
                accepted.close()

        task = asyncio.get_running_loop().create_task(self._shake_hands(accepted, make, context))
        self._handshakes.add(task)
        task.add_done_callback(done)

    async def _shake_hands(
        self, accepted: socket.socket, make: Callable[[], WireConnection], context: ssl.SSLContext
    ) -> None:
        # Ignore clients that give up, do not use TLS, or do not trust the certificate.
        with contextlib.suppress(OSError, EOFError):
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                make,
                accepted,
                ssl=context,
                ssl_handshake_timeout=self.options.handshake_timeout,
                ssl_shutdown_timeout=1.0,
            )


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen; ``localhost`` means both 127.0.0.1 and ::1, on one port.

    Port 0 takes a free one. Raises FakeError if the port is taken.
    """
    listeners: list[socket.socket] = []
    for family, address in _addresses(host):
        try:
            listener = _listen(family, address, port)
        except OSError as error:
            if listeners:
                continue  # no IPv6 here, or its port is taken: IPv4 is enough
            raise FakeError(
                f"cannot listen on {address}, port {port}: {error.strerror or error}"
            ) from error
        listeners.append(listener)
        port = listener.getsockname()[1]
    return listeners


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_reach(host: str, token: str | None) -> None:
    """Raise FakeError if other machines can reach the address and no token guards it."""
    if not token and not is_loopback(host):
        raise FakeError(
            f"{host} can be reached from other machines: give a token, or serve on localhost"
        )


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    if host == "localhost":
        return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FakeError(f"{host} is not an address of this machine: {error}") from error
    family, _, _, _, address = found[0]
    return [(family, str(address[0]))]


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _break(accepted: socket.socket) -> None:
    """Close with a TCP reset."""
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    accepted.close()
