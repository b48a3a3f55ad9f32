"""Requests and answers in every legal dress, and the malformed ones (RFC 9113, section 8)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.http2 import (
    ClientConnection,
    ErrorCode,
    FrameType,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    frame,
)

from .support import (
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
)

WHOLE = END_HEADERS | END_STREAM
ANSWER = b"\x8c" + literal(b"apns-id", b"the-id")
REASON = b'{"reason":"BadDeviceToken"}'
EXPECTED = ResponseReceived(1, 400, [(b"apns-id", b"the-id")], REASON)


def continuation(stream_id: int, block: bytes, flags: int = 0) -> bytes:
    return frame(FrameType.CONTINUATION, flags, stream_id, block)


@given(
    cuts=st.lists(st.integers(0, len(ANSWER)), max_size=6),
    body_cuts=st.lists(st.integers(0, len(REASON)), max_size=6),
    padding=st.lists(st.integers(0, 255), min_size=16, max_size=16),
    weight=st.booleans(),
    end_apart=st.booleans(),
)
def test_p19_bodies_in_pieces_padding_and_continuation(
    cuts: list[int], body_cuts: list[int], padding: list[int], weight: bool, end_apart: bool
) -> None:
    edges = [0, *sorted(cuts), len(ANSWER)]
    pieces = [ANSWER[start:stop] for start, stop in itertools.pairwise(edges)]
    first = pieces[0] + b"\0" * padding[0]
    flags = PADDED
    if weight:
        first = b"\0\0\0\0\x10" + first
        flags |= PRIORITY
    if len(pieces) == 1:
        flags |= END_HEADERS
    received = headers(1, bytes([padding[0]]) + first, flags)
    for number, piece in enumerate(pieces[1:], 2):
        received += continuation(1, piece, END_HEADERS if number == len(pieces) else 0)
    edges = [0, *sorted(body_cuts), len(REASON)]
    for number, (start, stop) in enumerate(itertools.pairwise(edges), 1):
        pad = padding[number]
        last = number == len(edges) - 1 and not end_apart
        flags = PADDED | (END_STREAM if last else 0)
        received += data(1, bytes([pad]) + REASON[start:stop] + b"\0" * pad, flags)
    if end_apart:
        received += data(1, b"", END_STREAM)
    client = ready_client()
    push(client)
    assert client.receive(received) == [EXPECTED]
    assert client.open_streams == 0


def test_interim_answers_are_skipped_and_trailers_dropped() -> None:
    client = ready_client()
    push(client)
    interim = literal(b":status", b"103") + literal(b"link", b"x")
    received = headers(1, literal(b":status", b"100")) + headers(1, interim)
    received += headers(1, ANSWER) + data(1, REASON)
    received += headers(1, literal(b"grpc-status", b"0"), WHOLE)
    assert client.receive(received) == [EXPECTED]


STATUS_200 = b"\x88"
BAD_ANSWERS = {
    "no fields": headers(1, b"", WHOLE),
    "no status": headers(1, literal(b"apns-id", b"x"), WHOLE),
    "two statuses": headers(1, b"\x88\x88", WHOLE),
    "status behind a header": headers(1, literal(b"a", b"b") + b"\x88", WHOLE),
    "request pseudo-header": headers(1, b"\x88\x84", WHOLE),
    "status not a number": headers(1, literal(b":status", b"2o0"), WHOLE),
    "status of two digits": headers(1, literal(b":status", b"20"), WHOLE),
    "status with a newline": headers(1, literal(b":status", b"200\n"), WHOLE),
    "status below 100": headers(1, literal(b":status", b"099"), WHOLE),
    "interim that ends": headers(1, literal(b":status", b"100"), WHOLE),
    "101": headers(1, literal(b":status", b"101")),
    "upper case": headers(1, b"\x88" + literal(b"Apns-Id", b"x"), WHOLE),
    "empty name": headers(1, b"\x88" + literal(b"", b"x"), WHOLE),
    "space in a name": headers(1, b"\x88" + literal(b"a b", b"x"), WHOLE),
    "colon in a name": headers(1, b"\x88" + literal(b"a:b", b"x"), WHOLE),
    "newline in a value": headers(1, b"\x88" + literal(b"apns-id", b"a\nb"), WHOLE),
    "nul in a value": headers(1, b"\x88" + literal(b"a", b"a\0b"), WHOLE),
    "space around a value": headers(1, b"\x88" + literal(b"apns-id", b" a"), WHOLE),
    "connection": headers(1, b"\x88" + literal(b"connection", b"close"), WHOLE),
    "transfer-encoding": headers(1, b"\x88" + literal(b"transfer-encoding", b"chunked"), WHOLE),
    "keep-alive": headers(1, b"\x88" + literal(b"keep-alive", b"1"), WHOLE),
    "upgrade": headers(1, b"\x88" + literal(b"upgrade", b"h2c"), WHOLE),
    "data before headers": data(1, b"x", END_STREAM),
    "body too short": headers(1, b"\x88" + literal(b"content-length", b"5"))
    + data(1, b"1234", END_STREAM),
    "body too long": headers(1, b"\x88" + literal(b"content-length", b"3"))
    + data(1, b"1234", END_STREAM),
    "no body at all": headers(1, b"\x88" + literal(b"content-length", b"5"), WHOLE),
    "no body, in trailers": headers(1, b"\x88" + literal(b"content-length", b"5"))
    + headers(1, b"", WHOLE),
    "length not a number": headers(1, b"\x88" + literal(b"content-length", b"-5"), WHOLE),
    "two lengths": headers(
        1, b"\x88" + literal(b"content-length", b"0") + literal(b"content-length", b"1"), WHOLE
    ),
    "trailers that do not end": headers(1, b"\x88") + headers(1, literal(b"a", b"b")),
    "pseudo-header in trailers": headers(1, b"\x88") + headers(1, b"\x88", WHOLE),
    "bad name in trailers": headers(1, b"\x88") + headers(1, literal(b"A", b"b"), WHOLE),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_malformed_answers_reset_their_stream_alone(name: str) -> None:
    client = ready_client()
    push(client)
    push(client)
    client.data_to_send()
    (event,) = client.receive(BAD_ANSWERS[name])
    assert isinstance(event, StreamReset)
    assert (event.stream_id, event.error_code) == (1, ErrorCode.PROTOCOL_ERROR)
    assert event.local
    assert event.processed
    assert event.message
    resets = [f for f in frames_of(client.data_to_send()) if f[0] == FrameType.RST_STREAM]
    assert resets == [(FrameType.RST_STREAM, 0, 1, b"\0\0\0\1")]
    assert client.receive(headers(3, ANSWER) + data(3, REASON, END_STREAM))[0].status == 400


@pytest.mark.parametrize(
    ("block", "status", "flags"),
    [
        (b"\x88" + literal(b"content-length", b"0"), 200, WHOLE),
        (b"\x89" + literal(b"content-length", b"5"), 204, WHOLE),
        (b"\x8b" + literal(b"content-length", b"5"), 304, WHOLE),
        (literal(b":status", b"999"), 999, WHOLE),
        (b"\x88" + literal(b"x", b"") + literal(b"apns-id", b"a b\xff"), 200, WHOLE),
        (b"\x88" + literal(b"content-length", b"2") + literal(b"content-length", b"2"), 200, 4),
    ],
)
def test_unusual_answers_that_are_well_formed(block: bytes, status: int, flags: int) -> None:
    client = ready_client()
    push(client)
    received = headers(1, block, flags)
    if not flags & END_STREAM:
        received += data(1, b"ok", END_STREAM)
    (event,) = client.receive(received)
    assert isinstance(event, ResponseReceived)
    assert event.status == status


GET = literal(b":method", b"GET") + b"\x87\x84"
A = literal(b":authority", b"a")
GOOD_REQUESTS = {
    "usual": GET + A,
    "host instead of authority": GET + literal(b"host", b"a"),
    "neither": GET,
    "both": GET + A + literal(b"host", b"b"),
    "lower-case method": literal(b":method", b"post") + b"\x87\x84",
    "te trailers": GET + literal(b"te", b"trailers"),
    "connect": literal(b":method", b"CONNECT") + A,
    "empty value": GET + literal(b"x", b""),
    "length 0": GET + literal(b"content-length", b"0"),
    "strange scheme": literal(b":method", b"GET") + literal(b":scheme", b"x") + b"\x84",
}
BAD_REQUESTS = {
    "no fields": b"",
    "no method": b"\x87\x84",
    "empty method": literal(b":method", b"") + b"\x87\x84",
    "no scheme": b"\x83\x84",
    "no path": b"\x83\x87",
    "empty path": b"\x83\x87" + literal(b":path", b""),
    "two paths": GET + b"\x84",
    "unknown pseudo-header": GET + literal(b":protocol", b"x"),
    "status": GET + b"\x88",
    "pseudo-header behind a header": b"\x83\x87" + literal(b"a", b"b") + b"\x84",
    "upper case": GET + literal(b"Host", b"a"),
    "te": GET + literal(b"te", b"gzip"),
    "connection": GET + literal(b"connection", b"close"),
    "newline": GET + literal(b"apns-topic", b"a\r\nb"),
    "newline in the path": b"\x83\x87" + literal(b":path", b"/\n"),
    "connect with a path": literal(b":method", b"CONNECT") + b"\x87\x84" + A,
    "connect without authority": literal(b":method", b"CONNECT"),
    "length without a body": GET + literal(b"content-length", b"3"),
    "length not a number": GET + literal(b"content-length", b"x"),
}


@pytest.mark.parametrize("name", GOOD_REQUESTS)
def test_well_formed_requests(name: str) -> None:
    server = ready_server()
    for stream_id in (1, 3):  # the second time, what passed before is remembered
        (event,) = server.receive(headers(stream_id, GOOD_REQUESTS[name], WHOLE))
        assert isinstance(event, RequestReceived)
        assert event.stream_id == stream_id


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_malformed_requests_are_reset(name: str) -> None:
    server = ready_server()
    for number, good in enumerate(GOOD_REQUESTS.values()):  # what passed must not help
        server.receive(headers(101 + 2 * number, good, WHOLE))
    server.receive(headers(151, literal(b":method", b"GET") + b"\x87\x84" + A, WHOLE))
    server.data_to_send()
    for stream_id in (201, 203):
        assert server.receive(headers(stream_id, BAD_REQUESTS[name], WHOLE)) == []
        assert frames_of(server.data_to_send()) == [
            (FrameType.RST_STREAM, 0, stream_id, ErrorCode.PROTOCOL_ERROR.to_bytes(4, "big"))
        ]
    (event,) = server.receive(headers(205, GET + A, WHOLE))
    assert isinstance(event, RequestReceived)


def test_a_request_body_of_another_length_is_reset() -> None:
    server = ready_server()
    block = REQUEST_BLOCK + literal(b"content-length", b"3")
    (event,) = server.receive(headers(1, block) + data(1, b"1234", END_STREAM))
    assert isinstance(event, StreamReset)
    (event,) = server.receive(headers(3, block) + data(3, b"123", END_STREAM))
    assert isinstance(event, RequestReceived)


def test_request_trailers() -> None:
    server = ready_server()
    server.receive(headers(1, REQUEST_BLOCK) + data(1, b"abc"))
    (event,) = server.receive(headers(1, literal(b"checksum", b"1"), WHOLE))
    assert event == RequestReceived(
        1, [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"a")],
        b"abc",
    )  # fmt: skip
    server.receive(headers(3, REQUEST_BLOCK))
    (event,) = server.receive(headers(3, literal(b"checksum", b"1")))
    assert isinstance(event, StreamReset)


def test_the_authorization_header_may_hold_a_space_and_change() -> None:
    server = ready_server()
    for number in range(1500):  # more than are remembered
        block = REQUEST_BLOCK + literal(b"authorization", b"bearer %d" % number)
        (event,) = server.receive(headers(2 * number + 1, block, WHOLE))
        assert event.headers[-1] == (b"authorization", b"bearer %d" % number)
        server.send_response(event.stream_id, 200)
    assert len(server._passed) <= 512


def test_a_header_list_above_the_servers_limit_is_reset() -> None:
    server = ready_server(settings={6: 200})
    block = REQUEST_BLOCK + literal(b"x", b"y" * 100)
    assert server.receive(headers(1, block, WHOLE)) == []
    (kind, _, stream_id, code) = frames_of(server.data_to_send())[0]
    assert (kind, stream_id) == (FrameType.RST_STREAM, 1)
    assert code == ErrorCode.ENHANCE_YOUR_CALM.to_bytes(4, "big")


def test_a_header_list_that_unfolds_to_megabytes_ends_the_connection() -> None:
    large = b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000  # one entry of 4001 bytes, then pointers to it
    for connection in (ready_server(), ready_client()):
        if isinstance(connection, ClientConnection):
            push(connection)
        bomb = headers(1, large + b"\xbe" * 12_000, WHOLE)
        expect_connection_error(connection, bomb, ErrorCode.ENHANCE_YOUR_CALM)
