"""SETTINGS in the middle of the work (RFC 9113, section 6.5)."""

from __future__ import annotations

import pytest

from apns_live.errors import Http2Error, InvalidSetting
from apns_live.http2 import (
    ClientConnection,
    ErrorCode,
    FrameType,
    ServerConnection,
    Setting,
    SettingsAcknowledged,
    SettingsReceived,
    StreamReset,
)

from .support import (
    ACK,
    AUTHORITY,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    REQUEST_BLOCK,
    answer_all,
    connected,
    frames_of,
    headers,
    pump,
    push,
    ready_client,
    ready_server,
    settings,
    table_size,
)

STREAMS = Setting.MAX_CONCURRENT_STREAMS


def test_p4_streams_1_to_1000_to_1_to_500_with_500_in_flight() -> None:
    client, server = connected(1)
    assert client.available_streams == 1
    push(client)
    answer_all(server, pump(client, server)[1])
    pump(client, server)
    server.change_settings({STREAMS: 1000})
    pump(client, server)
    for number in range(500):
        push(client, number)
    _, requests = pump(client, server)
    assert len(requests) == 500
    server.change_settings({STREAMS: 1})
    events, _ = pump(client, server)
    assert events == [SettingsReceived({STREAMS: 1})]
    assert client.open_streams == server.open_streams == 500
    assert client.available_streams == 0
    assert not client.room_for(0)
    with pytest.raises(Http2Error, match="all 1 streams"):
        push(client)
    answer_all(server, requests[:499])
    events, _ = pump(client, server)
    assert len(events) == 499
    assert client.available_streams == 0  # one is still open, and one is the limit
    server.change_settings({STREAMS: 500})
    pump(client, server)
    assert client.available_streams == 499
    for number in range(499):
        push(client, number)
    _, more = pump(client, server)
    assert [type(event).__name__ for event in more] == ["RequestReceived"] * 499
    answer_all(server, requests[499:] + more)
    events, _ = pump(client, server)
    assert len(events) == 500
    assert client.open_streams == server.open_streams == 0
    assert client.available_streams == 500


def test_nothing_starts_before_the_servers_settings() -> None:
    client = ClientConnection(authority=AUTHORITY)
    client.start()
    assert (client.ready, client.available_streams, client.max_concurrent_streams) == (False, 0, 0)
    assert not client.room_for(0)
    with pytest.raises(Http2Error, match="SETTINGS"):
        push(client)
    client.receive(settings())
    assert client.ready
    assert client.available_streams > 1_000_000


def test_settings_are_acknowledged_and_reported() -> None:
    client = ready_client()
    events = client.receive(settings(MAX_CONCURRENT_STREAMS=7, MAX_HEADER_LIST_SIZE=8000))
    assert events == [SettingsReceived({STREAMS: 7, Setting.MAX_HEADER_LIST_SIZE: 8000})]
    assert frames_of(client.data_to_send()) == [(FrameType.SETTINGS, ACK, 0, b"")]


def test_the_clients_first_bytes() -> None:
    client = ClientConnection(authority=AUTHORITY)
    client.start()
    first = client.data_to_send()
    assert first.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    kinds = [kind for kind, _, _, _ in frames_of(first[24:])]
    assert kinds == [FrameType.SETTINGS, FrameType.WINDOW_UPDATE]
    server = ServerConnection()
    server.start()
    (event,) = server.receive(first)
    assert isinstance(event, SettingsReceived)
    assert event.changed[Setting.ENABLE_PUSH] == 0


@pytest.mark.parametrize("size", [0, 1, 40, 100, 300, 4095, 4096, 65_536])
@pytest.mark.parametrize("before", [0, 2])
def test_the_server_lowers_the_header_table(size: int, before: int) -> None:
    client, server = connected(100)
    for number in range(before):
        push(client, number)
        answer_all(server, pump(client, server)[1])
        pump(client, server)
    # The server's own table stays at 4096 when it says more: we never use more.
    server._ours.announce({Setting.HEADER_TABLE_SIZE: min(size, 4096)})
    server.send_raw(settings(HEADER_TABLE_SIZE=size))
    pump(client, server)
    for number in range(3):
        push(client, number)
        _, (request,) = pump(client, server)
        names = [name for name, _ in request.headers]
        assert names == [
            b":path",
            b":method",
            b":scheme",
            b":authority",
            *(field[0] for field in HEADERS.fields),
            b"apns-id",
        ]
        answer_all(server, [request])
        pump(client, server)
        assert table_size(client._requests) <= min(size, 4096)


def test_the_table_lowered_and_raised_in_one_go() -> None:
    client, server = connected(100)
    push(client)
    pump(client, server)
    server.change_settings({Setting.HEADER_TABLE_SIZE: 0})
    server.change_settings({Setting.HEADER_TABLE_SIZE: 4096})
    pump(client, server)
    assert table_size(client._requests) == 0
    for number in range(3):
        push(client, number)
        _, (request,) = pump(client, server)
        assert dict(request.headers)[b"apns-topic"].endswith(b"liveactivity")
    assert table_size(client._requests) > 0


def test_settings_bind_the_client_once_acknowledged() -> None:
    server = ready_server(settings={STREAMS: 3})
    server.change_settings({STREAMS: 1})
    opened = b"".join(headers(stream_id, REQUEST_BLOCK) for stream_id in (1, 3, 5))
    assert server.receive(opened) == []
    assert server.open_streams == 3  # it had not seen the new limit
    acknowledged = server.receive(bytes.fromhex("000000040100000000"))
    assert acknowledged == [SettingsAcknowledged({STREAMS: 1})]
    server.data_to_send()
    assert server.receive(headers(7, REQUEST_BLOCK, END_HEADERS | END_STREAM)) == []
    assert frames_of(server.data_to_send()) == [
        (FrameType.RST_STREAM, 0, 7, ErrorCode.REFUSED_STREAM.to_bytes(4, "big"))
    ]
    assert server.open_streams == 3


def test_streams_are_bounded_before_the_first_acknowledgement() -> None:
    server = ready_server(acknowledge=False, settings={STREAMS: 1})
    opened = b"".join(headers(stream_id, REQUEST_BLOCK) for stream_id in range(1, 2001, 2))
    server.receive(opened)
    assert server.open_streams == 100


def test_a_refused_stream_was_not_processed() -> None:
    client, server = connected(5)
    for number in range(5):
        push(client, number)
    pump(client, server)
    client._limit = 10  # a client that breaks the rule
    push(client, 5)
    events, _ = pump(client, server)
    assert events == [StreamReset(11, ErrorCode.REFUSED_STREAM, processed=False)]


def test_a_changed_initial_window_of_the_server() -> None:
    client, server = connected(10, automatic_windows=False)
    server.change_settings({Setting.INITIAL_WINDOW_SIZE: 10})
    pump(client, server)
    first = push(client, 0, b"x" * 25)
    assert pump(client, server)[1] == []
    server.change_settings({Setting.INITIAL_WINDOW_SIZE: 25})
    _, events = pump(client, server)
    assert [event.stream_id for event in events if hasattr(event, "body")] == [first]


@pytest.mark.parametrize(
    "bad",
    [
        {Setting.MAX_FRAME_SIZE: 1},
        {Setting.INITIAL_WINDOW_SIZE: 2**31},
        {Setting.HEADER_TABLE_SIZE: 4097},
        {Setting.ENABLE_PUSH: 1},
        {STREAMS: -1},
        {STREAMS: 2**32},
    ],
)
def test_our_own_bad_settings_are_refused(bad: dict) -> None:
    server = ready_server()
    with pytest.raises(InvalidSetting):
        server.change_settings(bad)
    assert server.data_to_send() == b""


def test_a_setting_has_32_bits() -> None:
    server = ready_server()
    with pytest.raises(InvalidSetting, match="4294967296 does not fit 32 bits"):
        server.change_settings({STREAMS: 2**32})
    server.change_settings({STREAMS: 2**32 - 1})
    assert server.data_to_send().endswith(b"\xff\xff\xff\xff")
