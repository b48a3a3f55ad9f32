"""CONNECT proxies (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import asyncio
import base64
import socket
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ..errors import ConnectFailed, InvalidSetting
from ..refusals import refused

_HEAD_LIMIT = 16_384


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that opens tunnels. The repr hides user and password."""

    host: str
    port: int
    authorization: bytes = b""

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
        return cls(host, port or 80, authorization)

    def __repr__(self) -> str:
        return f"<Proxy {self.host}:{self.port}>"

    async def ask(self, sock: socket.socket, host: str, port: int) -> None:
        """Ask for a tunnel to ``host:port``. Raise `ConnectFailed` when it is refused."""
        loop = asyncio.get_running_loop()
        name = f"[{host}]" if ":" in host else host
        target = f"{name}:{port}".encode("ascii")
        request = b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n"
        if self.authorization:
            request += b"Proxy-Authorization: " + self.authorization + b"\r\n"
        try:
            await loop.sock_sendall(sock, request + b"\r\n")
            head = b""
            # A TLS server waits for us to speak, so nothing can follow the head.
            while b"\r\n\r\n" not in head:
                chunk = await loop.sock_recv(sock, 4096)
                head += chunk
                if not chunk or len(head) > _HEAD_LIMIT:
                    raise ConnectFailed(
                        f"proxy {self.host}:{self.port}: it closed, or talks nonsense"
                    )
        except OSError as error:
            raise ConnectFailed(f"proxy {self.host}:{self.port}: {error}") from error
        line = head.split(b"\r\n", 1)[0].decode("latin-1")
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise ConnectFailed(
                f"proxy {self.host}:{self.port}: this is not an HTTP answer: {line[:80]!r}"
            )
        if not 200 <= int(words[1]) < 300:
            hint = "; give it user:password@" if words[1] == "407" else ""
            raise ConnectFailed(
                f"proxy {self.host}:{self.port} refused a tunnel to {host}:{port}: {line[:80]}{hint}",
                permanent=words[1] in ("403", "407"),
            )
