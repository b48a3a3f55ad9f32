"""Opens a connection: DNS, TCP or a CONNECT proxy (RFC 9110, section 9.3.6), TLS, ALPN."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ConnectFailed, InvalidSetting
from ..refusals import refused
from .endpoint import Endpoint

_HEAD_START = 0.25
"""Seconds after which the next address is tried in parallel (RFC 8305, section 5)."""

_HEAD_LIMIT = 16_384
"""The most bytes of a proxy's answer."""

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
"""Family and socket address, as `socket.getaddrinfo` gives them."""

Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Resolves a name: takes host and port, returns addresses. Called for each connection."""


async def system_resolver(host: str, port: int) -> Sequence[Address]:
    """Ask the operating system, without our own cache (Apple: look up before each connection)."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )
    return [(family, address) for family, _, _, _, address in found]


def make_ssl_context(
    ca_file: str | os.PathLike[str] | None, given: ssl.SSLContext | None = None
) -> ssl.SSLContext:
    """Return a context with TLS 1.2 or newer, ALPN h2, and verification on.

    ``ca_file`` replaces the system's roots. A given context is used unchanged. Raises
    `InvalidSetting` for a context that does not verify, and for a file without certificates.
    """
    if given is not None:
        if given.verify_mode is not ssl.CERT_REQUIRED or not given.check_hostname:
            raise refused(InvalidSetting, "ssl_context", "ssl_context")
        context = given
    else:
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            words = {"ca_file": ca_file, "value": error}
            raise refused(InvalidSetting, "ca_file_unusable", "ca_file", **words) from error
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    context.set_alpn_protocols(["h2"])
    return context


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that opens tunnels. The repr hides user and password."""

    host: str
    port: int
    authorization: bytes = b""
    url: str = ""

    @classmethod
    def from_url(cls, url: str) -> Proxy:
        """Read ``http://[user:password@]host:port``. Raise `InvalidSetting`."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = None, None, None
        if parts is None or parts.scheme != "http" or not host or parts.path not in ("", "/"):
            raise refused(InvalidSetting, "proxy", "proxy")
        authorization = b""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            authorization = b"Basic " + base64.b64encode(pair)
        return cls(host, port or 80, authorization, url)

    def __repr__(self) -> str:
        return f"<Proxy {self.host}:{self.port}>"

    async def ask(self, sock: socket.socket, host: str, port: int) -> None:
        """Request a tunnel to ``host:port``. Raise `ConnectFailed` if it is refused."""
        loop = asyncio.get_running_loop()
        here = f"proxy {self.host}:{self.port}"
        name = f"[{host}]" if ":" in host else host
        target = f"{name}:{port}".encode("ascii")
        request = b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n"
        if self.authorization:
            request += b"Proxy-Authorization: " + self.authorization + b"\r\n"
        try:
            await loop.sock_sendall(sock, request + b"\r\n")
            head = b""
            # A TLS server waits for the client to begin, so no bytes can follow the head.
            while b"\r\n\r\n" not in head:
                chunk = await loop.sock_recv(sock, 4096)
                head += chunk
                if not chunk or len(head) > _HEAD_LIMIT:
                    raise ConnectFailed(f"{here}: it closed, or talks nonsense")
        except OSError as error:
            raise ConnectFailed(f"{here}: {error}") from error
        line = head.split(b"\r\n", 1)[0].decode("latin-1")
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise ConnectFailed(f"{here}: this is not an HTTP answer: {line[:80]!r}")
        if not 200 <= int(words[1]) < 300:
            hint = "; give it user:password@" if words[1] == "407" else ""
            raise ConnectFailed(
                f"{here} refused a tunnel to {host}:{port}: {line[:80]}{hint}",
                permanent=words[1] in ("403", "407"),
            )


@dataclass(eq=False)
class Connector:
    """Opens connections to one endpoint.

    Several addresses are used in turn: each connection begins with the next one. If that fails, or
    does not answer within 250 ms, the others are tried in parallel, the other address family first.
    The first to answer wins (Happy Eyeballs, RFC 8305).
    """

    endpoint: Endpoint
    ssl_context: ssl.SSLContext
    resolver: Resolver = system_resolver
    proxy: Proxy | None = None
    _turn: int = 0

    async def open(
        self, make_protocol: Callable[[], asyncio.Protocol], tried: list[str] | None = None
    ) -> str:
        """Open one connection and return the peer's address as text. Raise `ConnectFailed`.

        The tried addresses are added to ``tried``, also if the call is cancelled.
        """
        host, port = self.endpoint.host, self.endpoint.port
        first_hop = (host, port) if self.proxy is None else (self.proxy.host, self.proxy.port)
        sock, where = await self._open_socket(*first_hop, [] if tried is None else tried)
        taken = False

        def make() -> asyncio.Protocol:
            # From here the transport owns the socket: it sends the TLS goodbye and closes it. If we
            # closed it, its number could belong to another connection while the transport uses it.
            nonlocal taken
            taken = True
            return make_protocol()

        try:
            if self.proxy is not None:
                await self.proxy.ask(sock, host, port)
            loop = asyncio.get_running_loop()
            # The pool has the only time limit, on its own clock.
            transport, _ = await loop.create_connection(
                make,
                sock=sock,
                ssl=self.ssl_context,
                server_hostname=host,
                ssl_handshake_timeout=3600.0,
            )
        except BaseException as error:
            if not taken:
                sock.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise ConnectFailed(
                    f"TLS to {host}:{port} ({where}): the certificate was refused: "
                    f"{error.verify_message}. A proxy that opens TLS, or a missing ca_file?",
                    permanent=True,
                ) from error
            if isinstance(error, (OSError, EOFError)):
                raise ConnectFailed(f"TLS to {host}:{port} ({where}): {error}") from error
            raise
        chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if chosen != "h2":
            transport.abort()
            raise ConnectFailed(
                f"ALPN: {host}:{port} ({where}) chose {chosen or 'nothing'} instead of h2. "
                "Something between here and APNs that opens TLS, most likely a proxy, speaks no HTTP/2.",
                permanent=True,
            )
        return where

    async def _open_socket(
        self, host: str, port: int, tried: list[str]
    ) -> tuple[socket.socket, str]:
        try:
            addresses = list(await self.resolver(host, port))
        except OSError as error:
            raise ConnectFailed(f"DNS: no address for {host}: {error}") from error
        if not addresses:
            raise ConnectFailed(f"DNS: no address for {host}")
        start = self._turn % len(addresses)
        self._turn += 1
        left = deque(_alternate(addresses[start:] + addresses[:start]))
        racing: dict[asyncio.Task[socket.socket], str] = {}
        failures: list[str] = []
        try:
            while left or racing:
                if left:
                    address = left.popleft()
                    tried.append(f"{address[1][0]}:{address[1][1]}")
                    racing[asyncio.ensure_future(_connect(*address))] = tried[-1]
                done, _ = await asyncio.wait(
                    racing,
                    timeout=_HEAD_START if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    where = racing.pop(task)
                    problem = task.exception()
                    if problem is None:
                        return task.result(), where
                    if not isinstance(problem, OSError):
                        raise problem
                    failures.append(f"{where}: {problem.strerror or problem}")
        finally:
            for task in racing:
                task.cancel()
            for late in await asyncio.gather(*racing, return_exceptions=True):
                if isinstance(late, socket.socket):
                    late.close()
        raise ConnectFailed(f"TCP to {host}: " + "; ".join(failures[:8]))


def _alternate(addresses: Sequence[Address]) -> list[Address]:
    """Return the addresses with alternating families (RFC 8305, section 4)."""
    families: dict[socket.AddressFamily, list[Address]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    rows = zip_longest(*families.values())
    return [address for row in rows for address in row if address is not None]


async def _connect(family: socket.AddressFamily, address: tuple[Any, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
