"""However bytes arrive, the same happens; whatever arrives, only our errors come out."""

from __future__ import annotations

import itertools
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apns_live.errors import Http2ConnectionError
from apns_live.http2 import (
    CLIENT_PREFACE,
    ClientConnection,
    Event,
    FrameType,
    ServerConnection,
    frame,
)

from .support import (
    END_HEADERS,
    END_STREAM,
    REQUEST_BLOCK,
    data,
    goaway,
    headers,
    literal,
    push,
    ready_client,
    ready_server,
    reset,
    window_update,
)
from .support import settings as settings_frame

WHOLE = END_HEADERS | END_STREAM
STREAMS = st.sampled_from([0, 1, 1, 3, 5, 5, 7, 9, 11, 2, 99])
BLOCKS = st.sampled_from(
    [
        b"\x88",
        b"\x8d" + literal(b"apns-id", b"one"),
        b"\x88\x40\x07apns-id\x03two",
        b"\x88\xbe",
        b"",
        b"\x40",
        REQUEST_BLOCK,
        REQUEST_BLOCK + literal(b"content-length", b"3"),
        literal(b":status", b"103"),
        literal(b"trailer", b"x"),
    ]
)
CODES = st.sampled_from([0, 1, 7, 8, 13, 99])
FRAMES = st.one_of(
    st.builds(headers, STREAMS, BLOCKS, st.sampled_from([WHOLE, WHOLE, END_HEADERS, 0, 1])),
    st.builds(data, STREAMS, st.binary(max_size=40), st.sampled_from([0, 1, 1, 8, 9])),
    st.builds(
        lambda sid, block, flags: frame(FrameType.CONTINUATION, flags, sid, block),
        STREAMS,
        BLOCKS,
        st.sampled_from([0, END_HEADERS]),
    ),
    st.builds(window_update, STREAMS, st.sampled_from([0, 1, 100, 65_535, 2**31 - 1])),
    st.builds(reset, STREAMS, CODES),
    st.builds(goaway, STREAMS, CODES, st.binary(max_size=20)),
    st.builds(
        lambda name, value: settings_frame(**{name: value}),
        st.sampled_from(["MAX_CONCURRENT_STREAMS", "INITIAL_WINDOW_SIZE", "HEADER_TABLE_SIZE"]),
        st.sampled_from([0, 1, 100, 65_535, 2**20]),
    ),
    st.just(frame(FrameType.SETTINGS, 1, 0)),
    st.builds(
        lambda d, f: frame(FrameType.PING, f, 0, d), st.binary(min_size=8, max_size=8), CODES
    ),
    st.builds(frame, st.integers(0, 20), st.integers(0, 255), STREAMS, st.binary(max_size=20)),
    st.binary(min_size=1, max_size=12),
)


def client_with_requests() -> ClientConnection:
    client = ready_client()
    client.receive(settings_frame(INITIAL_WINDOW_SIZE=100))
    for number in range(6):
        push(client, number, b"x" * (1, 100, 150, 30, 400, 2)[number])
    client.reset_stream(7)
    return client


def server_with_requests() -> ServerConnection:
    server = ready_server()
    server.receive(headers(1, REQUEST_BLOCK) + headers(3, REQUEST_BLOCK, WHOLE))
    server.receive(headers(5, REQUEST_BLOCK) + data(5, b"abc"))
    server.send_response(3, 200, [], b"x" * 100_000)
    return server


def outcome(
    connection: ClientConnection | ServerConnection, chunks: list[bytes]
) -> tuple[list[Event], str, bytes]:
    """Feed; return events, the error's text, and what is to be sent but for window refills."""
    events: list = []
    problem = ""
    try:
        for chunk in chunks:
            events += connection.receive(chunk)
    except Http2ConnectionError as error:
        events += error.events
        problem = f"{error.code} {error}"
    return events, problem, connection.data_to_send()


def frames_set(sent: bytes) -> list[bytes]:
    """The frames sent, sorted: a body goes on at the end of a read, so the order may differ."""
    found = []
    while sent:
        size = 9 + int.from_bytes(sent[:3], "big")
        if sent[3] != FrameType.DATA:
            found.append(sent[:size])
        sent = sent[size:]
    return sorted(found)


@pytest.mark.parametrize("make", [client_with_requests, server_with_requests])
@given(frames=st.lists(FRAMES, max_size=25), seed=st.integers(0, 2**32))
def test_bytes_in_any_pieces_give_the_same_events(make, frames: list[bytes], seed: int) -> None:
    received = b"".join(frames)
    whole = outcome(make(), [received])
    single = outcome(make(), [received[at : at + 1] for at in range(len(received))])
    rng = random.Random(seed)
    cuts = sorted(rng.randrange(len(received) + 1) for _ in range(4))
    edges = [0, *cuts, len(received)]
    pieces = outcome(make(), [received[a:b] for a, b in itertools.pairwise(edges)])
    memory = outcome(make(), [memoryview(bytearray(received))])
    assert whole[:2] == single[:2] == pieces[:2] == memory[:2]
    assert frames_set(whole[2]) == frames_set(single[2]) == frames_set(pieces[2])


@given(received=st.binary(max_size=3000), greeted=st.booleans())
def test_random_bytes_raise_only_our_errors(received: bytes, greeted: bool) -> None:
    client, server = ClientConnection(authority=b"a"), ServerConnection()
    for connection in (client, server):
        connection.start()
        if greeted:
            if connection is server:
                connection.receive(CLIENT_PREFACE)
            connection.receive(settings_frame())
        outcome(connection, [received])
        assert len(connection._rest) <= len(received)


def mutated(rng: random.Random, frames: list[bytes]) -> bytes:
    found = bytearray()
    for one in frames:
        changed = bytearray(one)
        for _ in range(rng.choice([0, 0, 0, 1, 2])):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        found += changed
    return bytes(found)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), frames=st.lists(FRAMES, min_size=1, max_size=12))
def test_mutated_frames_raise_only_our_errors(seed: int, frames: list[bytes]) -> None:
    rng = random.Random(seed)
    for make in (client_with_requests, server_with_requests):
        for _ in range(5):
            connection = make()
            outcome(connection, [mutated(rng, frames) for _ in range(3)])
            state = connection._waiting if isinstance(connection, ClientConnection) else {}
            assert len(connection._streams) + len(state) <= 60
            assert connection._queue.waiting_bytes >= 0


def test_memory_stays_bounded_under_a_long_hostile_stream() -> None:
    rng = random.Random(7)
    tracemalloc.start()
    try:
        for make in (client_with_requests, server_with_requests):
            connection = make()
            base = tracemalloc.get_traced_memory()[0]
            for number in range(3000):
                kind = rng.randrange(5)
                stream_id = rng.choice([1, 3, 5, 7])
                hostile = (
                    data(1, b"x" * rng.randrange(300)),
                    window_update(stream_id, rng.randrange(1, 50)),
                    frame(FrameType.PING, 0, 0, number.to_bytes(8, "big")),
                    frame(0xEE, 0, 0, b"y" * 100),
                    reset(7, 8) if make is client_with_requests else b"",
                )[kind]
                half = len(hostile) // 2
                outcome(connection, [hostile[:half], hostile[half:]])
            grown = tracemalloc.get_traced_memory()[0] - base
            assert grown < 3_000_000, make.__name__
    finally:
        tracemalloc.stop()


def test_a_frame_that_never_ends_is_kept_only_up_to_its_length() -> None:
    client = ready_client()
    push(client)
    client.receive(headers(1, b"\x88"))
    head = data(1, b"x" * 16_384)
    for at in range(len(head) - 1):
        client.receive(head[at : at + 1])
    assert len(client._rest) == len(head) - 1
    client.receive(head[-1:])
    assert client._rest == b""
    assert client._streams[1].length == 16_384
