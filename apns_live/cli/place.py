"""Where a gateway runs: its address, certificates and proxy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..activities.settings import ServiceSettings
from ..gateway.settings import GatewaySettings
from .store_access import make_directory

if TYPE_CHECKING:
    from ..gateway.wire.certificates import Certificates
    from ..pool.endpoint import Endpoint


@dataclass(slots=True, kw_only=True)
class Place:
    """A gateway's address and resources. ``facts`` are the TLS facts of the ready line."""

    directory: Path | None = None
    database: str | None = None
    host: str = "localhost"
    port: int = 0
    certificates: Certificates | None = None
    hostnames: tuple[str, ...] = ()
    proxy_port: int | None = None
    settings: GatewaySettings | None = None
    service: ServiceSettings | None = None
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    contract: tuple[Path, ...] = ()
    send: bool = True
    facts: dict[str, str] = field(default_factory=dict)

    def make_certificates(self, directory: Path) -> None:
        """Make certificates for ``hostnames`` in the directory's folder ``tls``."""
        if not self.hostnames:
            return
        from ..gateway.wire.certificates import Certificates
        from ..testing.certificates import LOCAL_NAMES, certificates_in

        make_directory(directory / "tls")
        made = certificates_in(directory / "tls", (*LOCAL_NAMES, *self.hostnames))
        self.certificates = Certificates(made.certificate_file, made.key_file)
        self.facts["ca_file"] = str(made.ca_file)

    def serving(self, app: Any, gateway: Any) -> contextlib.AbstractAsyncContextManager[str]:
        """Serve the app of a gateway; the context yields its URL."""
        from ..gateway.serving import serving

        at: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "certificates": self.certificates,
        }
        return serving(app, gateway=gateway, **at)

    @contextlib.asynccontextmanager
    async def proxy(self, url: str) -> AsyncIterator[None]:
        """Run a CONNECT proxy to the gateway's URL if ``proxy_port`` is given."""
        if self.proxy_port is None:
            yield
            return
        parts = urlsplit(url)
        target = parts.hostname or "localhost", parts.port or 443
        async with connect_proxy(self.proxy_port, target) as address:
            self.facts["proxy"] = address
            yield


@contextlib.asynccontextmanager
async def connect_proxy(port: int, target: tuple[str, int]) -> AsyncIterator[str]:
    """Run a CONNECT proxy (RFC 9110, 9.3.6) on localhost that connects every host to ``target``.

    Yields its URL; port 0 takes a free port. For SDKs with a hard-coded host that respect ``HTTPS_PROXY``.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10.0)
            if not head.startswith(b"CONNECT "):
                writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: CONNECT\r\n\r\n")
                return
            there, back = await asyncio.open_connection(*target)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        writer.close()

    server = await asyncio.start_server(serve, "localhost", port)
    async with server:
        yield f"http://localhost:{server.sockets[0].getsockname()[1]}"


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while part := await source.read(65_536):
            target.write(part)
            await target.drain()
    finally:
        target.close()
