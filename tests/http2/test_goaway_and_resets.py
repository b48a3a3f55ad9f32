"""The ends of streams and connections: GOAWAY, RST_STREAM, used-up ids, late frames."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.errors import Http2Error
from apns_live.http2 import (
    ErrorCode,
    FrameType,
    GoAwayReceived,
    RequestReceived,
    ResponseReceived,
    StreamReset,
)

from .support import (
    END_HEADERS,
    END_STREAM,
    REQUEST_BLOCK,
    answer_all,
    connected,
    data,
    expect_connection_error,
    frames_of,
    goaway,
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

WHOLE = END_HEADERS | END_STREAM
CLOSED = ErrorCode.STREAM_CLOSED


@given(in_flight=st.integers(0, 30), served=st.integers(0, 30), second=st.integers(0, 30))
def test_p1_every_request_is_answered_or_known_unprocessed(
    in_flight: int, served: int, second: int
) -> None:
    client, server = connected(100)
    sent = {push(client, number) for number in range(in_flight)}
    _, requests = pump(client, server)
    unprocessed: list[int] = []
    for last in sorted({min(served, in_flight), min(served, second, in_flight)}, reverse=True):
        last_id = 2 * last - 1 if last else 0
        server.goaway(0, b'{"reason":"Shutdown"}', last_stream_id=last_id)
        events, _ = pump(client, server)
        (event,) = events
        assert isinstance(event, GoAwayReceived)
        assert (event.last_stream_id, event.error_code) == (last_id, 0)
        assert event.debug_data == b'{"reason":"Shutdown"}'
        assert all(stream_id > last_id for stream_id in event.unprocessed)
        unprocessed += event.unprocessed
    assert client.going_away
    assert client.available_streams == 0
    assert not client.room_for(0)
    with pytest.raises(Http2Error, match="going away"):
        push(client)
    answer_all(server, requests)
    answers, _ = pump(client, server)
    answered = [event.stream_id for event in answers]
    assert sorted(answered + unprocessed) == sorted(sent)  # nothing lost, nothing twice
    assert client.open_streams == server.open_streams == 0


def test_a_settings_frame_after_goaway_opens_nothing() -> None:
    client = ready_client()
    client.receive(goaway(0) + settings(MAX_CONCURRENT_STREAMS=500))
    assert client.available_streams == 0


def test_a_larger_last_stream_id_in_a_second_goaway_revives_nothing() -> None:
    client = ready_client()
    for number in range(3):
        push(client, number)
    (first,) = client.receive(goaway(1))
    assert first.unprocessed == [3, 5]
    (again,) = client.receive(goaway(2**31 - 1, 2, b"null"))
    assert (again.unprocessed, again.debug_data) == ([], b"null")
    # The server answers what it said it would not: nobody waits for that any more.
    assert client.receive(headers(3, b"\x88", WHOLE)) == []
    assert client.receive(headers(1, b"\x88", WHOLE)) == [ResponseReceived(1, 200, [], b"")]


def test_requests_behind_the_servers_goaway_are_ignored_but_decoded() -> None:
    client, server = connected(10)
    server.goaway()
    late = push(client)  # the client has not seen it
    to_server = client.data_to_send()
    assert server.receive(to_server) == []
    assert server.open_streams == 0
    (event,) = client.receive(server.data_to_send())
    assert event.unprocessed == [late]
    assert server._decoder.decode(b"\xbe")  # the table kept what the ignored request put in


def test_p5_refused_twice_on_one_stream() -> None:
    client = ready_client()
    push(client)
    events = client.receive(reset(1, ErrorCode.REFUSED_STREAM) + reset(1, ErrorCode.STREAM_CLOSED))
    assert events == [StreamReset(1, ErrorCode.REFUSED_STREAM, processed=False)]


@pytest.mark.parametrize("code", [0, 1, 2, 5, 8, 11, 0xFFFFFFFF])
def test_p6_other_resets_may_have_been_processed(code: int) -> None:
    client = ready_client()
    push(client)
    assert client.receive(reset(1, code)) == [StreamReset(1, code, processed=True)]
    assert client.open_streams == 0


def test_p6_a_cancelled_request_gives_its_slot_back() -> None:
    client, server = connected(1)
    stream_id = push(client)
    _, requests = pump(client, server)
    assert client.available_streams == 0
    client.reset_stream(stream_id)
    assert client.available_streams == 1
    client.reset_stream(stream_id)
    client.reset_stream(99)
    _, events = pump(client, server)
    assert events == [StreamReset(1, ErrorCode.CANCEL)]
    answer_all(server, requests)  # too late: ignored
    assert server.data_to_send() == b""
    assert push(client) == 3


def test_ten_thousand_cancelled_requests_leave_nothing_behind() -> None:
    client, server = connected(1000)
    for round_number in range(22):
        streams = [push(client, number) for number in range(1000)]
        _, requests = pump(client, server)
        for stream_id in streams[::2]:
            client.reset_stream(stream_id)
        answer_all(server, requests)  # half of the answers cross the resets
        answers, _ = pump(client, server)
        assert len(answers) == 500, round_number
    assert client.open_streams == server.open_streams == 0
    assert len(client._closed) <= 10_000
    assert len(server._closed) <= 10_000


def test_an_answer_to_a_reset_stream_still_changes_the_table() -> None:
    client = ready_client()
    push(client)
    push(client)
    client.reset_stream(1)
    indexed = b"\x88\x40\x07apns-id\x02id"
    assert client.receive(headers(1, indexed, WHOLE)) == []
    assert client.receive(headers(3, b"\x88\xbe", WHOLE)) == [
        ResponseReceived(3, 200, [(b"apns-id", b"id")], b"")
    ]


LATE = {
    "headers": headers(1, b"\x88", WHOLE),
    "data": data(1, b"late"),
    "trailers": headers(1, literal(b"a", b"b"), WHOLE),
}


@pytest.mark.parametrize("name", LATE)
def test_frames_after_a_complete_answer_end_the_connection(name: str) -> None:
    client = ready_client()
    push(client)
    client.receive(headers(1, b"\x88", WHOLE))
    expect_connection_error(client, LATE[name], CLOSED)


@pytest.mark.parametrize("name", LATE)
def test_frames_after_our_reset_are_ignored(name: str) -> None:
    client = ready_client()
    push(client)
    client.reset_stream(1)
    client.data_to_send()
    assert client.receive(LATE[name] + reset(1, 8) + window_update(1, 5)) == []
    assert client.data_to_send() == b""


@pytest.mark.parametrize("name", LATE)
def test_frames_after_the_peers_reset_are_answered_once(name: str) -> None:
    client = ready_client()
    push(client)
    client.receive(reset(1, 8))
    client.data_to_send()
    assert client.receive(LATE[name] * 3) == []
    assert frames_of(client.data_to_send()) == [
        (FrameType.RST_STREAM, 0, 1, CLOSED.to_bytes(4, "big"))
    ]


def test_resets_and_window_updates_on_closed_streams_are_ignored() -> None:
    client = ready_client()
    push(client)
    client.receive(headers(1, b"\x88", WHOLE))
    client.data_to_send()
    assert client.receive(reset(1, 8) + window_update(1, 2**31 - 1) + window_update(1, 0)) == []
    assert client.data_to_send() == b""


def test_forgotten_resets_are_forgiven() -> None:
    client = ready_client()
    for _ in range(12_000):
        client.reset_stream(push(client))
    client.data_to_send()
    push(client)
    assert client.receive(headers(1, b"\x88", WHOLE)) == []  # too old to be remembered
    assert len(client._closed) == 10_000


def test_p14_stream_ids_run_out() -> None:
    client = ready_client(first_stream_id=2**31 - 5)
    assert client.stream_ids_left == client.available_streams == 3
    streams = []
    while client.room_for(2):
        streams.append(push(client))
    assert streams == [2**31 - 5, 2**31 - 3, 2**31 - 1]
    assert client.stream_ids_left == client.available_streams == 0
    with pytest.raises(Http2Error, match="used up"):
        push(client)
    answers = client.receive(b"".join(headers(stream_id, b"\x88", WHOLE) for stream_id in streams))
    assert [answer.stream_id for answer in answers] == streams
    client.receive(settings(MAX_CONCURRENT_STREAMS=1000))
    assert client.available_streams == 0
    assert not client.going_away


def test_close_lets_open_requests_finish() -> None:
    client, server = connected(10)
    push(client)
    client.close(ErrorCode.NO_ERROR, b"bye")
    client.close()
    assert client.going_away
    assert client.available_streams == 0
    _, events = pump(client, server)
    assert [type(event) for event in events] == [RequestReceived, GoAwayReceived]
    assert events[1].debug_data == b"bye"
    answer_all(server, events)
    answers, _ = pump(client, server)
    assert [answer.status for answer in answers] == [200]
    client.ping(b"still ok")
    assert len(pump(client, server)[0]) == 1


def test_server_frames_on_closed_streams() -> None:
    server = ready_server()
    server.receive(headers(1, REQUEST_BLOCK, WHOLE))
    server.send_response(1, 200)
    server.data_to_send()
    assert server.receive(window_update(1, 1) + reset(1, 0)) == []
    expect_connection_error(server, data(1, b"x"), CLOSED)
    server = ready_server()
    server.receive(headers(1, REQUEST_BLOCK, WHOLE))
    (event,) = server.receive(data(1, b"x"))
    assert (event.error_code, event.local) == (CLOSED, True)  # half closed: a stream error
    server.receive(headers(3, REQUEST_BLOCK))
    server.reset_stream(3)
    assert server.receive(data(3, b"x")) == []
    assert server.receive(headers(3, literal(b"a", b"b"), WHOLE)) == []


def test_a_stream_id_that_is_skipped_is_closed() -> None:
    server = ready_server()
    server.receive(headers(5, REQUEST_BLOCK, WHOLE))
    expect_connection_error(server, headers(3, REQUEST_BLOCK, WHOLE), CLOSED)


def test_the_servers_view_of_its_streams() -> None:
    client, server = connected(10)
    push(client)
    pump(client, server)
    server.receive(headers(3, REQUEST_BLOCK, END_HEADERS))
    assert server.open_requests() == [3]
    assert (server.open_streams, server.last_stream_id) == (2, 3)
