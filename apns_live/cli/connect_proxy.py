"""A CONNECT proxy (RFC 9110, 9.3.6) that connects every host to the gateway.

For SDKs with a hard-coded host that respect ``HTTPS_PROXY``. It needs no root rights and no DNS changes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

_HEAD_SECONDS = 10.0
_CHUNK = 65_536


@contextlib.asynccontextmanager
async def connect_proxy(port: int, target: tuple[str, int]) -> AsyncIterator[str]:
    """Listen on localhost until the block ends; yields the proxy's URL. Port 0 takes a free one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
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
        while part := await source.read(_CHUNK):
            target.write(part)
            await target.drain()
    finally:
        target.close()
