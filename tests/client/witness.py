"""A small server on the h2 library: a witness that shares no HTTP/2 code with our client."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

from apns_live import Endpoint
from tests.servers import make_certificate

Handler = Callable[["WitnessConnection", int, dict[str, str], bytes], None]


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big")
        + bytes((kind, flags))
        + stream_id.to_bytes(4, "big")
        + payload
    )


def reset(stream_id: int, code: int) -> bytes:
    return frame(3, 0, stream_id, code.to_bytes(4, "big"))


class WitnessConnection(asyncio.Protocol):
    """One connection; ``served`` lists the paths of whole requests in order."""

    def __init__(self, server: Witness) -> None:
        self.server = server
        self.number = len(server.connections) + 1
        server.connections.append(self)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.requests: dict[int, tuple[dict[str, str], bytearray]] = {}
        self.resets: list[tuple[int, int]] = []
        self.served: list[str] = []
        self.pings = 0
        self.last_served: int | None = None
        self.errors: list[str] = []
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.h2.update_settings(
            {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.server.streams}
        )
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def flush(self) -> None:
        if self.transport is not None and (data := self.h2.data_to_send()):
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self.errors.append(repr(error))
            self.flush()
            return
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                self.requests[event.stream_id] = (headers, bytearray())
            elif isinstance(event, h2.events.DataReceived):
                self.requests[event.stream_id][1].extend(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.resets.append((event.stream_id, int(event.error_code)))
            elif isinstance(event, h2.events.PingReceived):
                self.pings += 1
            elif isinstance(event, h2.events.StreamEnded):
                headers, body = self.requests.pop(event.stream_id)
                if self.last_served is None or event.stream_id <= self.last_served:
                    self.server.handler(self, event.stream_id, headers, bytes(body))
        self.flush()

    def accept(self, stream_id: int, headers: dict[str, str]) -> None:
        self.served.append(headers[":path"])
        answer = [(":status", "200"), ("apns-id", headers.get("apns-id", ""))]
        self.h2.send_headers(stream_id, answer, end_stream=True)

    def go_away(self, last: int, debug: bytes = b"") -> None:
        """Send GOAWAY by hand: h2 would refuse to answer what is still open after its own."""
        self.last_served = last
        payload = last.to_bytes(4, "big") + (0).to_bytes(4, "big") + debug
        self.raw(frame(7, 0, 0, payload))

    def raw(self, data: bytes) -> None:
        self.flush()
        if self.transport is not None:
            self.transport.write(data)


class Witness:
    """The server: what its ``handler`` does decides each request."""

    def __init__(self, handler: Handler, streams: int = 1000) -> None:
        self.handler = handler
        self.streams = streams
        self.connections: list[WitnessConnection] = []
        self.endpoint: Endpoint | None = None

    @property
    def served(self) -> list[str]:
        return [path for connection in self.connections for path in connection.served]

    @contextlib.asynccontextmanager
    async def run(self, folder: Path) -> AsyncIterator[Witness]:
        certificate, key = folder / "server.pem", folder / "server.key"
        if not certificate.exists():
            make_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["h2"])
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: WitnessConnection(self), "127.0.0.1", 0, ssl=context
        )
        port = server.sockets[0].getsockname()[1]
        self.endpoint = Endpoint("localhost", port, ca_file=certificate)
        try:
            yield self
        finally:
            server.close()
            for connection in self.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await server.wait_closed()
            await asyncio.sleep(0)
