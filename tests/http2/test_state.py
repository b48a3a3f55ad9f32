"""What a connection keeps, at its limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from apns_live.errors import Http2ConnectionError, InvalidSetting
from apns_live.http2 import ClientConnection, FrameType, ServerConnection, Setting, frame
from apns_live.http2.state import (
    ClosedStreams,
    Ending,
    FloodGuard,
    ReceiveWindow,
    SendQueue,
    Stream,
)

from .support import ACK, ready_client, ready_server, settings

PING = frame(FrameType.PING, 0, 0, b"12345678")


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        (Setting.HEADER_TABLE_SIZE, 0, None),
        (Setting.HEADER_TABLE_SIZE, 4096, None),
        (1, 4097, "4096"),  # the setting's number serves as its name
        (Setting.ENABLE_PUSH, -1, "SETTINGS_ENABLE_PUSH -1 is not 0 to 0"),
        (Setting.ENABLE_PUSH, 0, None),
        (2, 1, "SETTINGS_ENABLE_PUSH 1 is not 0 to 0"),
        (Setting.MAX_CONCURRENT_STREAMS, -1, "-1 does not fit 32 bits"),
        (Setting.MAX_CONCURRENT_STREAMS, 0, None),
        (0xFF, -1, "-1 does not fit 32 bits"),
        (Setting.MAX_CONCURRENT_STREAMS, 2**32 - 1, None),
        (Setting.MAX_CONCURRENT_STREAMS, 2**32, "4294967296 does not fit 32 bits"),
        (Setting.MAX_CONCURRENT_STREAMS, 2**33, "8589934592 does not fit 32 bits"),
        (Setting.INITIAL_WINDOW_SIZE, -1, "is not 0 to 2147483647"),
        (Setting.INITIAL_WINDOW_SIZE, 0, None),
        (Setting.INITIAL_WINDOW_SIZE, 2**31 - 1, None),
        (Setting.INITIAL_WINDOW_SIZE, 2**31, "is not 0 to 2147483647"),
        (Setting.MAX_FRAME_SIZE, 16_383, "is not 16384 to 16777215"),
        (Setting.MAX_FRAME_SIZE, 16_384, None),
        (Setting.MAX_FRAME_SIZE, 2**24 - 1, None),
        (Setting.MAX_FRAME_SIZE, 2**24, "is not 16384 to 16777215"),
        (Setting.NO_RFC7540_PRIORITIES, -1, "is not 0 to 1"),
        (Setting.NO_RFC7540_PRIORITIES, 0, None),
        (Setting.NO_RFC7540_PRIORITIES, 1, None),
        (Setting.NO_RFC7540_PRIORITIES, 2, "is not 0 to 1"),
    ],
)
def test_a_setting_of_ours_is_announced_within_its_limits_alone(
    setting: int, value: int, problem: str | None
) -> None:
    server = ready_server()
    if problem is None:
        server.change_settings({setting: value})
        assert server.data_to_send().endswith(value.to_bytes(4, "big"))
        return
    with pytest.raises(InvalidSetting, match=problem):
        server.change_settings({setting: value})
    assert server.data_to_send() == b""


@pytest.mark.parametrize("value", [0, 1, 2])
@pytest.mark.parametrize(
    ("setting", "connection", "most"),
    [
        ("ENABLE_PUSH", ready_client, 0),  # a server may only switch it off
        ("ENABLE_PUSH", ready_server, 1),
        ("NO_RFC7540_PRIORITIES", ready_client, 1),
        ("NO_RFC7540_PRIORITIES", ready_server, 1),
    ],
)
def test_a_switch_of_the_peer_is_taken_within_its_limits_alone(
    setting: str,
    connection: Callable[[], ClientConnection | ServerConnection],
    most: int,
    value: int,
) -> None:
    ready = connection()
    if value <= most:
        assert ready.receive(settings(**{setting: value}))
    else:
        with pytest.raises(Http2ConnectionError, match=f"{value} is not 0 to {most}"):
            ready.receive(settings(**{setting: value}))


def test_a_thousand_settings_may_wait_for_their_acknowledgement() -> None:
    server = ready_server()
    for _ in range(1000):
        server.change_settings({Setting.MAX_CONCURRENT_STREAMS: 1})
    for _ in range(2):
        with pytest.raises(InvalidSetting, match="1000 SETTINGS"):
            server.change_settings({Setting.MAX_CONCURRENT_STREAMS: 1})
        server.receive(frame(FrameType.SETTINGS, ACK, 0))
        server.change_settings({Setting.MAX_CONCURRENT_STREAMS: 1})


@pytest.mark.parametrize(
    ("available", "granted"), [(80, 0), (71, 0), (70, 10), (60, 20), (30, 50), (-20, 100)]
)
def test_a_window_is_refilled_from_seven_eighths_on(available: int, granted: int) -> None:
    window = ReceiveWindow(80)
    window.available = available
    assert window.refill() == granted
    assert window.available == available + granted


def test_a_body_in_tiny_frames_is_joined_at_every_64th() -> None:
    stream, sent, pieces = Stream(ReceiveWindow(100)), b"", []
    for number in range(200):
        assert stream.whole_body() == sent
        stream.add(bytes([number]))
        sent += bytes([number])
        pieces.append(len(stream.body))
    assert max(pieces) == 63
    assert pieces[62:64] == [63, 1]


def test_a_queue_counts_the_bodies_that_are_ready_and_those_that_wait() -> None:
    queue = SendQueue()
    for stream_id in (1, 3, 5, 7):
        queue.add(stream_id, memoryview(b"x" * stream_id))
    queue.stalled[7] = queue.ready.pop(7)
    assert (len(queue), queue.waiting_bytes) == (4, 16)
    assert all(stream_id in queue for stream_id in (1, 7))
    queue.discard(1)
    queue.discard(7)
    queue.discard(9)
    assert (len(queue), queue.waiting_bytes) == (2, 8)


def test_a_quiet_connection_has_ten_thousand_useless_frames() -> None:
    for client in (ready_client(), ready_server()):
        for _ in range(10):
            client.receive(b"")  # the account is full, and stays so
        client.receive(PING * 10_000)
        client.data_to_send()
        client.receive(PING)
        with pytest.raises(Http2ConnectionError, match="too many PING frames"):
            client.receive(PING * 2)


@pytest.mark.parametrize(
    ("used", "exchanges", "left"), [(100, 1, 4), (92, 2, 16), (50, 3, 62), (2, 1, 100)]
)
def test_an_exchange_pays_for_four_useless_frames_up_to_the_budget(
    used: int, exchanges: int, left: int
) -> None:
    guard = FloodGuard(100)
    guard.heard()  # a full account stays as it is
    guard.spend("PING", used)
    guard.earn(exchanges)
    guard.spend("PING", left)
    guard.earn()
    guard.spend("PING", 4)
    with pytest.raises(Http2ConnectionError, match="too many PING frames"):
        guard.spend("PING")


def test_replies_are_limited_from_the_first_on() -> None:
    guard = FloodGuard(2)
    for _ in range(2):
        guard.reply("PING")
        guard.heard()
    with pytest.raises(Http2ConnectionError, match="none of the answers was read"):
        guard.reply("PING")


def test_the_last_ten_thousand_resets_are_remembered_and_older_ones_forgiven() -> None:
    closed = ClosedStreams()
    for stream_id in range(3, 20_003, 2):
        closed.remember(stream_id, Ending.PEERS)
    assert (len(closed), closed.ending(3)) == (10_000, Ending.PEERS)
    assert closed.ending(1) is Ending.COMPLETE
    closed.remember(20_003, Ending.PEERS)
    assert len(closed) == 10_000
    assert [closed.ending(each) for each in (1, 3, 4, 5, 20_005)] == [
        Ending.OURS,
        Ending.OURS,
        Ending.COMPLETE,
        Ending.PEERS,
        Ending.COMPLETE,
    ]
