"""A peer that keeps us busy for nothing is told to calm down, and memory stays bounded."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType

import pytest

from apns_live.errors import Http2ConnectionError
from apns_live.http2 import ErrorCode, FrameType, frame

from .support import (
    ACK,
    END_HEADERS,
    END_STREAM,
    REQUEST_BLOCK,
    answer_all,
    connected,
    data,
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
PING = frame(FrameType.PING, 0, 0, b"12345678")
ENDLESS = b"".join(frame(FrameType.CONTINUATION, 0, 1, b"") for _ in range(300))

CLIENT_FLOODS: dict[str, Callable[[int], bytes]] = {
    "ping": lambda _: PING,
    "ping acknowledgements": lambda _: frame(FrameType.PING, ACK, 0, b"12345678"),
    "settings": lambda _: settings(MAX_CONCURRENT_STREAMS=5),
    "settings acknowledgements": lambda _: frame(FrameType.SETTINGS, ACK, 0),
    "empty data": lambda _: data(1, b""),
    "data of nothing but padding": lambda _: data(1, b"\0", 8),
    "late headers": lambda _: headers(3, b"\x88"),
    "late data": lambda _: data(3, b""),
    "interim answers": lambda _: headers(5, literal(b":status", b"103")),
    "priority": lambda _: frame(FrameType.PRIORITY, 0, 1, b"\0" * 5),
    "unknown frames": lambda _: frame(0xEE, 0, 0, b""),
    "goaway": lambda _: goaway(2**31 - 1),
    "window updates": lambda _: window_update(0, 1),
    "stream window updates": lambda _: window_update(1, 1),
    "resets": lambda _: reset(3, 8),
    "endless continuation": lambda _: headers(1, b"\x88", 0) + ENDLESS,
}
SERVER_FLOODS: dict[str, Callable[[int], bytes]] = {
    "rapid reset": lambda n: headers(2 * n + 1, REQUEST_BLOCK, WHOLE) + reset(2 * n + 1, 8),
    "malformed requests": lambda n: headers(2 * n + 1, b"\x88", WHOLE),
    "ping": lambda _: PING,
    "settings": lambda _: settings(INITIAL_WINDOW_SIZE=5),
    "refused streams": lambda n: headers(2 * n + 1, REQUEST_BLOCK, END_HEADERS),
    "endless continuation": lambda n: (
        headers(2 * n + 1, b"\x88", 0)
        + ENDLESS.replace(b"\0\0\0\1", (2 * n + 1).to_bytes(4, "big"))
    ),
}


SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType)


def held(root: object) -> int:
    """Return the bytes that an object and all that it leads to take, without code."""
    seen, left, size = {id(root)}, [root], 0
    while left:
        one = left.pop()
        size += sys.getsizeof(one)
        for other in gc.get_referents(one):
            if id(other) not in seen and not isinstance(other, SHARED):
                seen.add(id(other))
                left.append(other)
    return size


def test_what_a_connection_holds_is_counted() -> None:
    client = ready_client()
    before = held(client)
    for _ in range(1000):
        client.receive(PING)
    answers = 1000 * len(PING)
    assert answers <= held(client) - before < 20 * answers


def feed(connection, make: Callable[[int], bytes], *, drained: bool) -> None:
    for batch in range(300):
        connection.receive(b"".join(make(batch * 100 + n) for n in range(100)))
        if drained:
            connection.data_to_send()


def flood(connection, make: Callable[[int], bytes], *, drained: bool) -> int:
    """Feed until the connection has had enough; return how many bytes it made us keep."""
    with pytest.raises(Http2ConnectionError) as caught:
        feed(connection, make, drained=drained)
    assert caught.value.code == ErrorCode.ENHANCE_YOUR_CALM, str(caught.value)
    return held(connection)


@pytest.mark.parametrize("drained", [True, False])
@pytest.mark.parametrize("name", CLIENT_FLOODS)
def test_floods_on_the_client(name: str, drained: bool) -> None:
    client = ready_client()
    for _ in range(3):
        push(client)
    client.receive(headers(1, b"\x88"))
    client.reset_stream(3)
    assert flood(client, CLIENT_FLOODS[name], drained=drained) < 8_000_000


@pytest.mark.parametrize("drained", [True, False])
@pytest.mark.parametrize("name", SERVER_FLOODS)
def test_floods_on_the_server(name: str, drained: bool) -> None:
    server = ready_server()
    server.change_settings({3: 10})
    server.receive(frame(FrameType.SETTINGS, ACK, 0))
    assert flood(server, SERVER_FLOODS[name], drained=drained) < 8_000_000


def test_a_quiet_connection_may_be_pinged_for_years() -> None:
    client = ready_client()
    for _ in range(100_000):
        client.receive(PING)
        client.data_to_send()


def one_by_one(client) -> None:
    for _ in range(20_000):
        client.receive(PING)


def test_answers_that_nobody_takes_away_are_bounded_even_one_by_one() -> None:
    client = ready_client()
    with pytest.raises(Http2ConnectionError):
        one_by_one(client)
    assert len(client.data_to_send()) < 200_000


def test_useful_work_pays_for_what_comes_with_it() -> None:
    # Some servers send two WINDOW_UPDATE frames and a PING with every answer.
    client, server = connected(100)
    for _ in range(200):
        for number in range(100):
            push(client, number)
        _, requests = pump(client, server)
        for request in requests:
            server.send_raw(window_update(0, 2) + window_update(request.stream_id, 2) + PING)
        answer_all(server, requests)
        answers, _ = pump(client, server)
        assert len(answers) == 100
