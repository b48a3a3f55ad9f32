"""What the tests of this room share: prepared headers, pumps, peers made of the h2 library."""

from __future__ import annotations

import pytest

from apns_live.errors import Http2ConnectionError
from apns_live.http2 import (
    CLIENT_PREFACE,
    ClientConnection,
    ErrorCode,
    FrameType,
    Indexing,
    PreparedHeaders,
    RequestReceived,
    ServerConnection,
    Setting,
    frame,
)
from apns_live.http2.headers import HeaderEncoder

AUTHORITY = b"api.push.example:443"
APNS_ID = b"EC1BF194-B3B2-424A-89A9-5A918A6E6B5D"
PATH = b"/3/device/" + b"ab" * 32
HEADERS = PreparedHeaders(
    [
        (b"authorization", b"bearer " + b"x" * 200, Indexing.VALUE),
        (b"apns-topic", b"com.example.scores.push-type.liveactivity", Indexing.VALUE),
        (b"apns-push-type", b"liveactivity", Indexing.VALUE),
        (b"apns-priority", b"10", Indexing.VALUE),
        (b"apns-expiration", b"1700000000", Indexing.NAME),
    ]
)


def apns_id(number: int) -> bytes:
    return b"00000000-0000-0000-0000-%012d" % number


def pump(client: ClientConnection, server: ServerConnection) -> tuple[list, list]:
    """Carry bytes both ways until both are silent; return the events of client and server."""
    client_events, server_events = [], []
    while True:
        to_server, to_client = client.data_to_send(), server.data_to_send()
        if not to_server and not to_client:
            return client_events, server_events
        if to_server:
            server_events += server.receive(to_server)
        if to_client:
            client_events += client.receive(to_client)


def connected(
    streams: int = 1000, client_options: dict | None = None, **server_options
) -> tuple[ClientConnection, ServerConnection]:
    settings = {Setting.MAX_CONCURRENT_STREAMS: streams, **server_options.pop("settings", {})}
    client = ClientConnection(authority=AUTHORITY, **(client_options or {}))
    server = ServerConnection(settings=settings, **server_options)
    client.start()
    server.start()
    pump(client, server)
    return client, server


def push(client: ClientConnection, number: int = 0, body: bytes = b"{}") -> int:
    return client.send_request(HEADERS, PATH, apns_id(number), body)


def answer_all(
    server: ServerConnection, events: list, status: int = 200, body: bytes = b""
) -> None:
    for event in events:
        if isinstance(event, RequestReceived):
            given = dict(event.headers)[b"apns-id"]
            server.send_response(event.stream_id, status, [(b"apns-id", given)], body)


END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20


def headers(stream_id: int, block: bytes, flags: int = END_HEADERS) -> bytes:
    return frame(FrameType.HEADERS, flags, stream_id, block)


def data(stream_id: int, content: bytes, flags: int = 0) -> bytes:
    return frame(FrameType.DATA, flags, stream_id, content)


def settings(**values: int) -> bytes:
    payload = b"".join(
        Setting[name].to_bytes(2, "big") + value.to_bytes(4, "big")
        for name, value in values.items()
    )
    return frame(FrameType.SETTINGS, 0, 0, payload)


def window_update(stream_id: int, increment: int) -> bytes:
    return frame(FrameType.WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def reset(stream_id: int, code: int) -> bytes:
    return frame(FrameType.RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway(last: int, code: int = 0, debug: bytes = b"") -> bytes:
    payload = last.to_bytes(4, "big") + code.to_bytes(4, "big") + debug
    return frame(FrameType.GOAWAY, 0, 0, payload)


def literal(name: bytes, value: bytes) -> bytes:
    """A field as a literal without indexing, with a new name (both shorter than 127 bytes)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


REQUEST_BLOCK = b"\x83\x87\x84" + literal(b":authority", b"a")


def ready_client(**options) -> ClientConnection:
    """A client whose peer is the test itself: SETTINGS of 1000 streams have arrived."""
    client = ClientConnection(authority=AUTHORITY, **options)
    client.start()
    client.receive(settings(MAX_CONCURRENT_STREAMS=1000) + frame(FrameType.SETTINGS, ACK, 0))
    client.data_to_send()
    return client


def ready_server(acknowledge: bool = True, **options) -> ServerConnection:
    """A server whose peer is the test itself."""
    server = ServerConnection(**options)
    server.start()
    acknowledgement = frame(FrameType.SETTINGS, ACK, 0) if acknowledge else b""
    server.receive(CLIENT_PREFACE + settings() + acknowledgement)
    server.data_to_send()
    return server


def frames_of(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Take bytes apart: type, flags, stream id, payload of each frame."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        assert len(data) >= 9 + size
        data = data[9 + size :]
    return found


def expect_connection_error(
    connection: ClientConnection | ServerConnection, received: bytes, code: ErrorCode
) -> Http2ConnectionError:
    """Feed bytes that end the connection; the GOAWAY with the same code must be there."""
    connection.data_to_send()
    with pytest.raises(Http2ConnectionError) as caught:
        connection.receive(received)
    assert ErrorCode(caught.value.code) is code, str(caught.value)
    last = frames_of(connection.data_to_send())[-1]
    assert last[0] == FrameType.GOAWAY
    assert last[3][4:8] == code.to_bytes(4, "big")
    assert connection.closed
    with pytest.raises(Http2ConnectionError):
        connection.receive(b"")
    assert connection.data_to_send() == b""
    return caught.value


def table_size(encoder: HeaderEncoder) -> int:
    """Return the bytes in an encoder's dynamic table (RFC 7541, section 4.1)."""
    entries = encoder.table.dynamic_entries
    return sum(len(name) + len(value) + 32 for name, value in entries)
