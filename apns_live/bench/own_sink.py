"""A sink in Python on our own HTTP/2, for where the one in C cannot be built."""

from __future__ import annotations

import asyncio
import ssl
from multiprocessing.connection import Connection
from typing import cast

from ..http2 import RequestReceived, ServerConnection, Setting
from .processes import answer_until_closed, say

FIRST_WINDOW = 65_535
"""What RFC 9113 (6.9.2) gives every connection to begin with."""


class Answering(asyncio.Protocol):
    """One connection. A window below the first is made by not giving back what is too much."""

    def __init__(self, streams: int, window: int) -> None:
        self._http = ServerConnection(
            settings={Setting.MAX_CONCURRENT_STREAMS: streams}, automatic_windows=False
        )
        self._kept = max(0, FIRST_WINDOW - window)
        self._more = max(0, window - FIRST_WINDOW)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello, and widen the window if it is to be wider."""
        self._transport = cast("asyncio.Transport", transport)
        self._http.start()
        if self._more:
            self._http.grant_window(0, self._more)
        self._transport.write(self._http.data_to_send())

    def data_received(self, data: bytes) -> None:
        """Answer, and grant again what was read."""
        read = 0
        for event in self._http.receive(data):
            if isinstance(event, RequestReceived):
                read += len(event.body)
                fields = [field for field in event.headers if field[0] == b"apns-id"]
                self._http.send_response(event.stream_id, 200, fields)
        kept = min(self._kept, read)
        self._kept -= kept
        if read > kept:
            self._http.grant_window(0, read - kept)
        if out := self._http.data_to_send():
            self._transport.write(out)


async def serve(
    connection: Connection, certificate: str, key: str, streams: int, window: int
) -> None:
    """Serve on a free loopback port until the parent closes its end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Answering(streams, window), "127.0.0.1", 0, ssl=context
    )
    say(connection, server.sockets[0].getsockname()[1])
    await answer_until_closed(connection)
    server.close()
