"""Writes the bytes of one connection: the asyncio transport from opening to closing."""

from __future__ import annotations

import asyncio
from typing import cast


class Wire:
    """Writes while that makes sense; knows when the socket takes no more, and when it is gone."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self.leaving: asyncio.Transport | None = None
        """Closed by us, and not gone yet; see ``gone``."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the connection is gone."""
        self.address = ""
        self.paused = False
        """The socket does not take what we wrote."""

    def open(self, transport: asyncio.BaseTransport, write_buffer: int) -> None:
        """Take the transport of a new connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=write_buffer)
        peer = transport.get_extra_info("peername")
        self.address = f"{peer[0]}:{peer[1]}" if peer else ""

    def is_open(self) -> bool:
        """Whether anything that is written now can arrive."""
        return self._transport is not None and not self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Write; only while it is open."""
        if data and self._transport is not None:
            self._transport.write(data)

    def close(self, *, at_once: bool) -> None:
        """Close, ``at_once`` without a goodbye."""
        transport, self._transport = self._transport, None
        if transport is not None:
            self.leaving = transport
            if at_once:
                transport.abort()
            else:
                transport.close()

    def lost(self) -> None:
        """Note that the connection is gone."""
        self._transport = self.leaving = None
        if not self.gone.done():
            self.gone.set_result(None)
