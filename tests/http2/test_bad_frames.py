"""Frames that break RFC 9113: each with the error that the RFC prescribes."""

from __future__ import annotations

import pytest

from apns_live.http2 import (
    CLIENT_PREFACE,
    ClientConnection,
    ErrorCode,
    FrameType,
    PingAcknowledged,
    ResponseReceived,
    ServerConnection,
    StreamReset,
    frame,
)

from .support import (
    ACK,
    AUTHORITY,
    END_HEADERS,
    END_STREAM,
    PADDED,
    PRIORITY,
    REQUEST_BLOCK,
    data,
    expect_connection_error,
    frames_of,
    headers,
    literal,
    push,
    ready_client,
    ready_server,
    reset,
    settings,
    window_update,
)

PROTOCOL = ErrorCode.PROTOCOL_ERROR
SIZE = ErrorCode.FRAME_SIZE_ERROR
FLOW = ErrorCode.FLOW_CONTROL_ERROR

# Bad in both roles. The client has stream 1 open, the server has it half open.
BOTH = {
    "data on stream 0": (data(0, b"x"), PROTOCOL),
    "headers on stream 0": (headers(0, b"\x88"), PROTOCOL),
    "priority on stream 0": (frame(FrameType.PRIORITY, 0, 0, b"\0" * 5), PROTOCOL),
    "priority of 4 bytes": (frame(FrameType.PRIORITY, 0, 1, b"\0" * 4), SIZE),
    "reset on stream 0": (reset(0, 8), PROTOCOL),
    "reset of 3 bytes": (frame(FrameType.RST_STREAM, 0, 1, b"\0" * 3), SIZE),
    "reset of an idle stream": (reset(99, 8), PROTOCOL),
    "settings on a stream": (frame(FrameType.SETTINGS, 0, 1), PROTOCOL),
    "settings of 5 bytes": (frame(FrameType.SETTINGS, 0, 0, b"\0" * 5), SIZE),
    "settings ack with payload": (frame(FrameType.SETTINGS, ACK, 0, b"\0" * 6), SIZE),
    "initial window above 2^31-1": (settings(INITIAL_WINDOW_SIZE=2**31), FLOW),
    "frame size below 16384": (settings(MAX_FRAME_SIZE=16_383), PROTOCOL),
    "frame size above 2^24-1": (settings(MAX_FRAME_SIZE=2**24), PROTOCOL),
    "enable push 2": (settings(ENABLE_PUSH=2), PROTOCOL),
    "priorities 2": (settings(NO_RFC7540_PRIORITIES=2), PROTOCOL),
    "push promise": (frame(FrameType.PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2\x88"), PROTOCOL),
    "ping on a stream": (frame(FrameType.PING, 0, 1, b"\0" * 8), PROTOCOL),
    "ping of 7 bytes": (frame(FrameType.PING, 0, 0, b"\0" * 7), SIZE),
    "goaway on a stream": (frame(FrameType.GOAWAY, 0, 1, b"\0" * 8), PROTOCOL),
    "goaway of 7 bytes": (frame(FrameType.GOAWAY, 0, 0, b"\0" * 7), SIZE),
    "window update of 3 bytes": (frame(FrameType.WINDOW_UPDATE, 0, 0, b"\0" * 3), SIZE),
    "window update by 0": (window_update(0, 0), PROTOCOL),
    "window update of an idle stream": (window_update(99, 1), PROTOCOL),
    "connection window above 2^31-1": (window_update(0, 2**31 - 1), FLOW),
    "continuation without headers": (frame(FrameType.CONTINUATION, 4, 1, b"\x88"), PROTOCOL),
    "data on an idle stream": (data(99, b"x"), PROTOCOL),
    "data with too much padding": (data(1, b"\x05abc", PADDED), PROTOCOL),
    "data without its pad length": (data(1, b"", PADDED), SIZE),
    "headers without its pad length": (headers(1, b"", END_HEADERS | PADDED), SIZE),
    "headers with too much padding": (headers(1, b"\x02\x88", END_HEADERS | PADDED), PROTOCOL),
    "headers with half a priority": (headers(1, b"\0\0", END_HEADERS | PRIORITY), SIZE),
    "a frame inside a header block": (headers(1, b"\x88", 0) + data(1, b"x"), PROTOCOL),
    "a continuation of another stream": (
        headers(1, b"\x88", 0) + frame(FrameType.CONTINUATION, 4, 3, b""),
        PROTOCOL,
    ),
    "an unknown frame inside a header block": (headers(1, b"\x88", 0) + frame(77, 0, 0), PROTOCOL),
    "a frame of 16385 bytes": (data(1, b"x" * 16_385), SIZE),
    "a header block that cannot be decoded": (headers(1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
}
CLIENT = {
    "headers on an even stream": (headers(2, b"\x88"), PROTOCOL),
    "headers on an idle stream": (headers(3, b"\x88"), PROTOCOL),
    "push switched on": (settings(ENABLE_PUSH=1), PROTOCOL),
}
SERVER = {
    "headers on an even stream": (headers(2, REQUEST_BLOCK), PROTOCOL),
    "data on an even stream": (data(2, b"x"), PROTOCOL),
}


@pytest.mark.parametrize("name", [*BOTH, *CLIENT])
def test_client_ends_the_connection(name: str) -> None:
    received, code = (BOTH | CLIENT)[name]
    client = ready_client()
    push(client)
    expect_connection_error(client, received, code)
    assert client.available_streams == 0


@pytest.mark.parametrize("name", [*BOTH, *SERVER])
def test_server_ends_the_connection(name: str) -> None:
    received, code = (BOTH | SERVER)[name]
    server = ready_server()
    server.receive(headers(1, REQUEST_BLOCK))
    expect_connection_error(server, received, code)


def test_an_oversized_frame_is_refused_before_it_has_arrived() -> None:
    expect_connection_error(ready_client(), data(1, b"x" * 16_385)[:9], SIZE)


def test_answers_before_the_error_are_kept() -> None:
    client = ready_client()
    push(client)
    push(client)
    received = headers(1, b"\x88", END_STREAM | END_HEADERS) + window_update(0, 0)
    error = expect_connection_error(client, received, PROTOCOL)
    assert error.events == (ResponseReceived(1, 200, [], b""),)


@pytest.mark.parametrize(
    "first",
    [
        data(1, b"x"),
        window_update(0, 1),
        frame(FrameType.SETTINGS, ACK, 0),
        b"HTTP/1.1 400 Bad\r\n",
    ],
)
def test_the_first_frame_must_be_settings(first: bytes) -> None:
    client = ClientConnection(authority=AUTHORITY)
    client.start()
    error = expect_connection_error(client, first, PROTOCOL)
    assert ("HTTP/1" in str(error)) is first.startswith(b"HTTP")
    server = ServerConnection()
    server.start()
    expect_connection_error(server, CLIENT_PREFACE + first, PROTOCOL)


@pytest.mark.parametrize("cut", [0, 5, 23])
def test_a_wrong_preface(cut: int) -> None:
    server = ServerConnection()
    server.start()
    server.receive(CLIENT_PREFACE[:cut])
    expect_connection_error(server, b"GET / HTTP/1.1\r\n\r\n", PROTOCOL)


def test_what_must_be_ignored_is_ignored() -> None:
    for connection in (ready_client(), ready_server()):
        if isinstance(connection, ClientConnection):
            push(connection)
        else:
            connection.receive(headers(1, REQUEST_BLOCK))
        connection.data_to_send()
        ignored = (
            frame(0xA, 0, 1, b"\0\x05https")  # ALTSVC
            + frame(0xC, 0, 0, b"")  # ORIGIN
            + frame(0xFF, 0xFF, 12345, b"whatever")
            + frame(FrameType.PRIORITY, 0, 1, b"\0" * 5)
            + frame(FrameType.PRIORITY, 0, 777, b"\0" * 5)
            + frame(FrameType.SETTINGS, ACK, 0)  # none is waited for
            + frame(FrameType.PING, 0xFE, 0, b"12345678")
        )
        assert connection.receive(ignored) == []
        assert frames_of(connection.data_to_send()) == [(FrameType.PING, ACK, 0, b"12345678")]


def test_the_reserved_bit_of_a_stream_id_is_ignored() -> None:
    client = ready_client()
    push(client)
    received = bytearray(headers(1, b"\x88", END_STREAM | END_HEADERS))
    received[5] |= 0x80
    assert client.receive(bytes(received)) == [ResponseReceived(1, 200, [], b"")]


def test_ping_and_its_acknowledgement() -> None:
    client, server = ready_client(), ready_server()
    client.ping(b"abcdefgh")
    assert server.receive(client.data_to_send()) == []
    assert client.receive(server.data_to_send()) == [PingAcknowledged(b"abcdefgh")]
    with pytest.raises(ValueError, match="8 bytes"):
        client.ping(b"short")


def test_a_window_update_by_0_on_a_stream_resets_the_stream() -> None:
    client = ready_client()
    push(client)
    (event,) = client.receive(window_update(1, 0))
    assert isinstance(event, StreamReset)
    assert (event.stream_id, event.error_code, event.local) == (1, PROTOCOL, True)
    assert frames_of(client.data_to_send())[-1][:3] == (FrameType.RST_STREAM, 0, 1)
    assert client.receive(window_update(1, 0)) == []  # over: ignored


def test_the_error_names_no_header_values() -> None:
    client = ready_client()
    push(client)
    (event,) = client.receive(headers(1, b"\x88" + literal(b"Bad", b"secret-value")))
    assert isinstance(event, StreamReset)
    assert "secret-value" not in event.message
