"""Windows in both directions (RFC 9113, section 5.2)."""

from __future__ import annotations

import pytest

from apns_live.errors import Http2Error
from apns_live.http2 import (
    ErrorCode,
    FrameType,
    RequestReceived,
    ResponseReceived,
    Setting,
    StreamReset,
)
from apns_live.http2.state import FloodGuard, ReceiveWindow
from tests.counts import count

from .support import (
    APNS_ID,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PATH,
    REQUEST_BLOCK,
    answer_all,
    apns_id,
    connected,
    data,
    expect_connection_error,
    frames_of,
    headers,
    literal,
    pump,
    push,
    ready_client,
    ready_server,
    reset,
    settings,
    window_update,
)

FLOW = ErrorCode.FLOW_CONTROL_ERROR


REASON = b'{"reason":"Unregistered","timestamp":1700000000000}'


def test_p8_many_error_bodies_on_one_connection() -> None:
    client = ready_client(connection_window=65_535)
    block = b"\x08\x03410" + literal(b"apns-id", APNS_ID)
    window = 65_535
    for _ in range(count(20, soak=100)):
        streams = [push(client) for _ in range(client.available_streams)]
        assert len(streams) == 1000
        client.receive(window_update(0, 2 * len(streams)))
        for some in (streams[:500], streams[500:]):
            window -= len(some) * len(REASON)
            assert window >= 0, "the client does not let its answers come"
            answers = client.receive(
                b"".join(headers(one, block) + data(one, REASON, END_STREAM) for one in some)
            )
            assert [answer.stream_id for answer in answers] == some
            assert all(type(answer) is ResponseReceived for answer in answers)
            assert all(answer.body == REASON for answer in answers)
            for kind, _, stream, payload in frames_of(client.data_to_send()):
                if kind == FrameType.WINDOW_UPDATE and stream == 0:
                    window += int.from_bytes(payload, "big")
    assert client.open_streams == 0


def test_p8_thousands_of_error_bodies_from_our_server() -> None:
    client, server = connected(1000)
    for _ in range(10):
        for number in range(client.available_streams):
            push(client, number)
        client_events, requests = pump(client, server)
        assert not client_events
        answer_all(server, requests, 410, REASON)
        answers, _ = pump(client, server)
        assert len(answers) == len(requests) == 1000
        assert all(type(answer) is ResponseReceived for answer in answers)
        assert all(answer.body == REASON for answer in answers)
    assert client.open_streams == server.open_streams == 0


def test_windows_are_refilled_when_an_eighth_is_used() -> None:
    client = ready_client(connection_window=65_535)
    push(client)
    client.data_to_send()
    client.receive(headers(1, b"\x88") + data(1, b"x" * 8_000))
    assert frames_of(client.data_to_send()) == []
    client.receive(data(1, b"x" * 192))
    increment = (8_192).to_bytes(4, "big")
    assert frames_of(client.data_to_send()) == [
        (FrameType.WINDOW_UPDATE, 0, 1, increment),
        (FrameType.WINDOW_UPDATE, 0, 0, increment),
    ]


def test_padding_and_late_data_count_against_the_connection() -> None:
    client = ready_client(connection_window=65_535)
    stream_id = push(client)
    client.reset_stream(stream_id)
    client.data_to_send()
    late = headers(1, b"\x88") + data(1, b"\xff" + b"x" * 600, PADDED) * 55
    assert client.receive(late) == []
    ((kind, _, stream, payload),) = frames_of(client.data_to_send())
    assert (kind, stream) == (FrameType.WINDOW_UPDATE, 0)
    assert int.from_bytes(payload, "big") == 55 * 601


def test_p9_no_request_starts_without_window_for_all_of_it() -> None:
    client, server = connected(1000, automatic_windows=False)
    sent = 0
    while client.room_for(4000):
        push(client, sent, b"x" * 4000)
        sent += 1
    assert sent == 16  # 64,000 of 65,535
    assert client.connection_window == 1535
    assert client.available_streams == 984
    assert client.room_for(1535)
    with pytest.raises(Http2Error, match="window"):
        push(client, sent, b"x" * 4000)
    _, requests = pump(client, server)
    assert len(requests) == 16  # every HEADERS came with all of its body
    server.grant_window(0, 2465)
    pump(client, server)
    assert client.room_for(4000)
    push(client, sent, b"x" * 4000)
    _, requests = pump(client, server)
    assert [len(request.body) for request in requests] == [4000]


def test_a_small_stream_window_delays_that_stream_alone() -> None:
    client, server = connected(
        1000, settings={Setting.INITIAL_WINDOW_SIZE: 100}, automatic_windows=False
    )
    slow = push(client, 0, b"s" * 250)
    quick = push(client, 1, b"q" * 100)
    _, requests = pump(client, server)
    assert [request.stream_id for request in requests] == [quick]
    assert client.connection_window == 65_535 - 350  # what waits is reserved
    server.grant_window(slow, 149)
    assert pump(client, server)[1] == []
    server.grant_window(slow, 1)
    _, requests = pump(client, server)
    assert [(request.stream_id, request.body) for request in requests] == [(slow, b"s" * 250)]


def test_waiting_bodies_take_turns() -> None:
    client = ready_client()
    client.receive(settings(INITIAL_WINDOW_SIZE=0))
    for number in range(3):
        push(client, number, b"x" * 20_000)
    assert data_bytes(client) == 0
    client.receive(b"".join(window_update(stream_id, 20_000) for stream_id in (1, 3, 5)))
    order = [
        (stream, len(payload))
        for kind, _, stream, payload in frames_of(client.data_to_send())
        if kind == FrameType.DATA
    ]
    assert order == [(1, 16_384), (3, 16_384), (5, 16_384), (1, 3616), (3, 3616), (5, 3616)]


def test_a_window_update_costs_only_what_it_unblocks(monkeypatch: pytest.MonkeyPatch) -> None:
    client = ready_client()
    client.receive(settings(INITIAL_WINDOW_SIZE=0))
    streams = [push(client, number, b"x" * 20) for number in range(500)]
    looks: list[int] = []
    send_piece = client._send_piece

    def look(stream_id: int, body: memoryview, *, end: bool) -> int:
        looks.append(stream_id)
        return send_piece(stream_id, body, end=end)

    monkeypatch.setattr(client, "_send_piece", look)
    for stream_id in streams:
        client.receive(window_update(stream_id, 10))
    assert data_bytes(client) == 500 * 10
    client.receive(window_update(0, 100))
    assert len(looks) <= 3 * len(streams)
    looks.clear()
    client.receive(settings(INITIAL_WINDOW_SIZE=5))
    assert data_bytes(client) == 500 * 5
    assert len(looks) <= 3 * len(streams)


def test_a_changed_initial_window_moves_open_streams() -> None:
    client = ready_client()
    client.receive(settings(INITIAL_WINDOW_SIZE=1000))
    push(client, 0, b"x" * 1500)
    assert data_bytes(client) == 1000
    client.receive(settings(INITIAL_WINDOW_SIZE=400))  # 600 below zero now
    client.receive(window_update(1, 600))
    assert data_bytes(client) == 0
    client.receive(window_update(1, 1))
    assert data_bytes(client) == 1
    client.receive(settings(INITIAL_WINDOW_SIZE=500))
    assert data_bytes(client) == 100
    client.receive(settings(INITIAL_WINDOW_SIZE=65_535))
    assert data_bytes(client) == 399


def data_bytes(connection) -> int:
    frames = frames_of(connection.data_to_send())
    return sum(len(payload) for kind, _, _, payload in frames if kind == FrameType.DATA)


def test_max_frame_size_is_respected() -> None:
    client = ready_client()
    push(client, 0, b"x" * 40_000)
    sizes = [len(p) for kind, _, _, p in frames_of(client.data_to_send()) if kind == 0]
    assert sizes == [16_384, 16_384, 7232]
    client = ready_client()
    client.receive(settings(MAX_FRAME_SIZE=2**24 - 1))
    push(client, 0, b"x" * 40_000)
    sizes = [len(p) for kind, _, _, p in frames_of(client.data_to_send()) if kind == 0]
    assert sizes == [40_000]


def test_a_body_above_the_default_window_starts_when_that_is_free() -> None:
    client, server = connected(10)
    assert client.room_for(200_000)
    push(client, 0, b"x" * 200_000)
    assert not client.room_for(1)
    _, requests = pump(client, server)
    assert [request.truncated for request in requests] == [True]
    assert client.room_for(4096)


def test_a_stream_window_above_its_maximum_resets_the_stream() -> None:
    client = ready_client()
    push(client, 0, b"x" * 10)
    push(client, 1, b"x" * 10)
    assert client.receive(window_update(1, 2**31 - 1 - 65_535 + 10)) == []
    (event,) = client.receive(window_update(1, 1))
    assert isinstance(event, StreamReset)
    assert (event.stream_id, event.error_code, event.local) == (1, FLOW, True)
    assert client.open_streams == 1


def test_an_initial_window_that_is_too_much_for_a_stream_ends_the_connection() -> None:
    client = ready_client()
    push(client, 0, b"x" * 10)
    client.receive(window_update(1, 100))
    expect_connection_error(client, settings(INITIAL_WINDOW_SIZE=2**31 - 1), FLOW)


def test_more_data_than_we_granted() -> None:
    client = ready_client(initial_window=100)
    push(client)
    events = client.receive(headers(1, b"\x88") + data(1, b"x" * 101))
    assert [(event.error_code, event.local) for event in events] == [(FLOW, True)]
    server = ready_server(automatic_windows=False)
    server.receive(
        headers(1, REQUEST_BLOCK) + headers(3, REQUEST_BLOCK) + data(1, b"x" * 16_000) * 4
    )
    expect_connection_error(server, data(3, b"x" * 16_000), FLOW)


def test_the_servers_answers_wait_for_the_clients_windows() -> None:
    server = ready_server()
    server.receive(headers(1, REQUEST_BLOCK, END_HEADERS | END_STREAM))
    server.receive(headers(3, REQUEST_BLOCK, END_HEADERS | END_STREAM))
    server.send_response(1, 200, [], b"x" * 65_534)  # one byte is left
    server.send_response(3, 200, [], b"y" * 20)
    assert data_bytes(server) == 65_535
    assert server.open_streams == 1
    server.receive(window_update(0, 100))
    assert data_bytes(server) == 19
    assert server.open_streams == 0


def test_a_reset_stream_gives_back_what_it_reserved() -> None:
    client = ready_client()
    client.receive(settings(INITIAL_WINDOW_SIZE=0))
    push(client, 0, b"x" * 4000)
    push(client, 1, b"x" * 4000)
    assert client.connection_window == 65_535 - 8000
    client.reset_stream(1)
    client.receive(reset(3, ErrorCode.REFUSED_STREAM))
    assert client.connection_window == 65_535
    assert client.open_streams == 0


def test_an_answer_before_the_request_is_complete_stops_it() -> None:
    client = ready_client()
    client.receive(settings(INITIAL_WINDOW_SIZE=10))
    push(client, 0, b"x" * 4000)
    client.data_to_send()
    events = client.receive(headers(1, b"\x8d", END_HEADERS | END_STREAM))
    assert events == [ResponseReceived(1, 404, [], b"")]
    assert frames_of(client.data_to_send())[-1][:3] == (FrameType.RST_STREAM, 0, 1)
    assert client.receive(reset(1, 0)) == []
    assert client.connection_window == 65_535 - 10


def test_a_long_body_is_cut_and_marked_by_the_server() -> None:
    client, server = connected(10, max_request_body=5000)
    push(client, 0, b"x" * 5001)
    push(client, 1, b"y" * 5000)
    _, requests = pump(client, server)
    assert [(len(request.body), request.truncated) for request in requests] == [
        (5000, True),
        (5000, False),
    ]


def test_a_response_above_the_limit_is_reset() -> None:
    client, server = connected(10, {"max_response_body": 1000})
    push(client)
    _, requests = pump(client, server)
    answer_all(server, requests, 200, b"x" * 1001)
    events, _ = pump(client, server)
    assert [(event.error_code, event.local) for event in events] == [(ErrorCode.CANCEL, True)]
    assert client.open_streams == 0


def test_one_byte_frames_do_not_pile_up() -> None:
    client = ready_client()
    push(client)
    client.receive(headers(1, b"\x88"))
    client.receive(data(1, b"x") * 20_000)
    assert len(client._streams[1].body) < 100
    (answer,) = client.receive(data(1, b"", END_STREAM))
    assert answer.body == b"x" * 20_000


def test_requests_without_a_body() -> None:
    client, server = connected(10, settings={Setting.INITIAL_WINDOW_SIZE: 0})
    client.send_request(HEADERS, PATH, apns_id(0), b"")
    _, (request,) = pump(client, server)
    assert isinstance(request, RequestReceived)
    assert request.body == b""


def test_a_window_that_came_before_the_answer_counts_first() -> None:
    client = ready_client()
    client.receive(settings(INITIAL_WINDOW_SIZE=10))
    push(client, 0, b"x" * 30)
    client.data_to_send()
    answer = headers(1, b"\x88", END_HEADERS | END_STREAM)
    assert client.receive(window_update(1, 20) + answer) == [ResponseReceived(1, 200, [], b"")]
    assert [kind for kind, _, _, _ in frames_of(client.data_to_send())] == [FrameType.DATA]


def test_a_stream_without_window_holds_up_no_other() -> None:
    server = ready_server()
    server.receive(settings(INITIAL_WINDOW_SIZE=0))
    for stream_id in (1, 3):
        server.receive(headers(stream_id, REQUEST_BLOCK, END_HEADERS | END_STREAM))
        server.send_response(stream_id, 200, [], b"body")
    server.data_to_send()
    server.receive(window_update(3, 100))
    assert [(frame[0], frame[2]) for frame in frames_of(server.data_to_send())] == [
        (FrameType.DATA, 3)
    ]
    server.receive(window_update(1, 2))
    assert [frame[2:] for frame in frames_of(server.data_to_send())] == [(1, b"bo")]


def test_a_window_of_the_connection_serves_who_waits_for_it_alone() -> None:
    server = ready_server()
    server.receive(settings(INITIAL_WINDOW_SIZE=0))
    for stream_id in (1, 3):
        server.receive(headers(stream_id, REQUEST_BLOCK, END_HEADERS | END_STREAM))
        server.send_response(stream_id, 200, [], b"x" * 65_540)
    server.receive(window_update(3, 100_000))
    server.data_to_send()
    server.receive(window_update(0, 100))
    assert [frame[2:] for frame in frames_of(server.data_to_send())] == [(3, b"xxxxx")]


def test_a_refill_grants_what_is_missing() -> None:
    window = ReceiveWindow(100_000)
    window.available = 50_001
    assert window.refill() == 49_999
    assert window.available == 100_000


def test_the_account_of_useless_frames_is_exact() -> None:
    guard = FloodGuard(2)
    guard.spend("PING", 2)
    guard.heard()
    guard.spend("PING")
    with pytest.raises(Http2Error, match="too many PING frames"):
        guard.spend("PING")


def test_replies_that_were_not_written_are_counted_from_the_last_that_were() -> None:
    one = FloodGuard(1)
    for _ in range(3):
        one.reply("PING")
        one.written()
        one.heard()
    guard = FloodGuard(2)
    guard.reply("PING")
    guard.written()
    guard.heard()
    guard.reply("PING")
    guard.reply("PING")
    guard.heard()
    with pytest.raises(Http2Error, match="none of the answers was read"):
        guard.reply("PING")
