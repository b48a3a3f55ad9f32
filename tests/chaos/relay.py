"""A TCP relay in front of PostgreSQL, one for each replica: it cuts connections, refuses them and delays bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LEASES = b"UPDATE leases SET expires_at"
"""What only a connection says that renews leases."""


class Relay:
    """Relays connections to a server's socket. ``delay`` is seconds for each chunk of bytes."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._open: dict[asyncio.StreamWriter, bool] = {}
        """The connections, and whether each renews leases."""
        self.port = 0
        self.delay = 0.0
        self.refusing = False

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Relay]:
        """Relay until the end."""
        listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            self.cut()
            await listener.wait_closed()

    def cut(self, *, leases_only: bool = False) -> int:
        """Drop connections without a word; return how many."""
        cut = [one for one, leases in self._open.items() if leases or not leases_only]
        for one in cut:
            one.transport.abort()
        return len(cut)

    async def _connected(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if self.refusing:
            back.transport.abort()
            return
        self._open[back] = False
        try:
            answers, forth = await asyncio.open_unix_connection(self._server)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(client, forth, back))
                    group.create_task(self._pass(answers, back, None))
            finally:
                forth.transport.abort()
        except* OSError:
            pass
        finally:
            del self._open[back]
            back.transport.abort()

    async def _pass(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        caller: asyncio.StreamWriter | None,
    ) -> None:
        """Pass bytes on until their source ends, which ends both directions."""
        while chunk := await source.read(1 << 16):
            if caller is not None and LEASES in chunk:
                self._open[caller] = True
            if self.delay:
                await asyncio.sleep(self.delay)
            sink.write(chunk)
            await sink.drain()
        raise ConnectionResetError
