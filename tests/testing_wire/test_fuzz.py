"""Random and mutated requests and frames: nothing crashes, nothing grows.

5,000 by default; APNS_LIVE_FUZZ sets another number (a million for a soak).
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import tracemalloc
from typing import Any

import pytest

from apns_live.errors import Http2Error
from apns_live.http2 import ClientConnection, Indexing, PreparedHeaders
from apns_live.testing import FakeApns, SimulatedClock
from apns_live.testing.listener import FaceOptions, WireFace
from apns_live.testing.reasons import ROWS
from apns_live.testing.state import ApnsState, ConnectionIdentity, Request
from apns_live.testing.wire import WireConnection

from .requests import NOW, Signer, answer, broadcast_request, device_request, manage_request
from .wire_client import BODY, bearer, token_of

COUNT = int(os.environ.get("APNS_LIVE_FUZZ", "5000"))
SEED = int(os.environ.get("APNS_LIVE_FUZZ_SEED", "1"))
GROWTH = 2_000_000
"""Bytes that may stay behind after the first half, whatever the count."""

SPELLINGS = {row.spelled(each) for row in ROWS for each in (False, True)} | {""}
PIECES = [
    b"", b"0", b"5", b"10", b"-1", b"\x00", b"\xff" * 8, b"a" * 300, b"bearer", b"bearer a.b.c",
    b"/", b"//", b"/3/device/", b"/4/broadcasts/apps/", b"/1/apps/", b"%00", b"null", b"{}", b"[]",
    b"POST", b"GET", b"=" * 40, b"QUJD", b".push-type.liveactivity", b"1e999", b"\r\n", b"\xc3\xa9",
]  # fmt: skip


def mutated(value: bytes, source: random.Random) -> bytes:
    kind = source.randrange(6)
    if kind == 0:
        return source.choice(PIECES)
    if kind == 1:
        return value + source.choice(PIECES)
    if kind == 2:
        return value[: source.randrange(len(value) + 1)]
    data = bytearray(value or b"x")
    for _ in range(source.randrange(1, 4)):
        place = source.randrange(len(data))
        if kind == 3:
            data[place] = source.randrange(256)
        elif kind == 4:
            data[place : place + 1] = b""
            data = data or bytearray(b"x")
        else:
            data[place:place] = source.randbytes(source.randrange(1, 9))
    return bytes(data)


def disturbed(request: Request, source: random.Random) -> Request:
    fields = list(request.headers)
    for _ in range(source.randrange(1, 4)):
        kind, place = source.randrange(5), source.randrange(len(fields))
        name, value = fields[place]
        if kind == 0 and len(fields) > 1:
            del fields[place]
        elif kind == 1:
            fields.insert(place, (name, mutated(value, source)))
        elif kind == 2:
            fields[place] = (mutated(name, source), value)
        else:
            fields[place] = (name, mutated(value, source))
    body = mutated(request.body, source) if source.random() < 0.3 else request.body
    return Request(fields, body, source.choice(("device", "manage", request.face)))


def test_random_requests_to_the_rules(
    state: ApnsState, strict_state: ApnsState, sign: Signer
) -> None:
    source = random.Random(SEED)
    jwt = sign()
    states = (state, strict_state)
    channels = [each.channels.create("com.example.scores", 1) for each in states]
    assert channels[0] is not None
    originals = [
        device_request(jwt, apns_id="8a6f1d3e-5b7c-4f2a-9d1e-0c4b3a2f1e5d", apns_priority="5"),
        broadcast_request(jwt, channels[0].channel_id),
        manage_request(
            jwt, "POST", body=b'{"message-storage-policy":1,"push-type":"LiveActivity"}'
        ),
        manage_request(jwt, "GET", apns_channel_id=channels[0].channel_id),
        manage_request(jwt, "DELETE", apns_channel_id=channels[0].channel_id),
        manage_request(jwt, "GET", resource="all-channels"),
    ]
    connection = ConnectionIdentity(1)
    seen: set[str] = set()
    growth = Growth()
    for number in range(COUNT):
        if number == COUNT // 4:
            growth.trace()
        if number == COUNT // 2:
            growth.begin()
        if number % 500 == 0:
            connection = ConnectionIdentity(number)
            for each in states:
                for channel in each.channels.of("com.example.scores"):
                    each.channels.delete("com.example.scores", channel.channel_id)
                each.channels.create("com.example.scores", 0)
        request = disturbed(source.choice(originals), source)
        response = answer(request, states[number % 2], connection, NOW + number / 1000)
        assert 200 <= response.status < 500
        assert response.reason in SPELLINGS
        assert (response.status < 300) == (response.reason == "") or response.effects
        seen.add(response.reason)
        for name, value in response.headers:
            assert b"\r" not in name + value
            assert b"\n" not in name + value
    growth.check()
    assert len(seen) > 15


class Growth:
    """What stays behind of memory between two moments."""

    def trace(self) -> None:
        """Begin to look, long enough before `begin` that full caches hold nothing older."""
        tracemalloc.start()

    def begin(self) -> None:
        gc.collect()
        if not tracemalloc.is_tracing():
            tracemalloc.start()
        self.before = tracemalloc.get_traced_memory()[0]

    def check(self) -> None:
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - self.before
        tracemalloc.stop()
        assert grown < GROWTH, f"{grown:,} bytes stayed behind"


class Pipe(asyncio.Transport):
    """A transport into memory."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.written = 0
        self.out = bytearray()

    def write(self, data: Any) -> None:
        self.written += len(data)
        self.out += data

    def take(self) -> bytes:
        data = bytes(self.out)
        self.out.clear()
        return data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.mark.parametrize("faulty", [False, True])
async def test_random_and_mutated_frames_to_a_connection(faulty: bool) -> None:
    fake = FakeApns(clock=SimulatedClock(), record_limit=100, scenario={"seed": 3})
    try:
        await attack_many(fake, faulty)
    finally:
        await fake.aclose()


async def attack_many(fake: FakeApns, faulty: bool) -> None:
    source = random.Random(SEED)
    assert fake.certificates
    if faulty:
        for action in ("answer", "stall", "reset", "withhold", "goaway", "silence", "disconnect"):
            fake.fault(action, fraction=0.02, **({"status": 500} if action == "answer" else {}))
        fake.fault("delay", delay=0.01, fraction=0.1)
    authorization = bearer(fake)
    face = WireFace(
        fake.engine, "device", fake.certificates.server_context(), FaceOptions(),
        untrusted=fake._untrusted_context,
    )  # fmt: skip
    growth = Growth()
    done, connections = 0, 0
    began = False
    while done < COUNT // 2:
        if not began and done >= COUNT // 4:
            began = True
            growth.begin()
        connections += 1
        done += await attack(face, fake, authorization, source)
        assert not face.connections
    growth.check()
    assert connections > 10
    assert fake.pushes.total > 50


async def attack(face: WireFace, fake: FakeApns, authorization: str, source: random.Random) -> int:
    """Speak HTTP/2 with mutations on one connection until it ends; return the pieces sent."""
    connection = WireConnection(face, fake.engine.next_connection_id(), ())
    pipe = Pipe()
    connection.connection_made(pipe)
    client = ClientConnection(authority=b"localhost")
    client.start()
    connection.data_received(client.data_to_send())
    client.receive(pipe.take())
    connection.data_received(client.data_to_send())
    headers = PreparedHeaders(
        [
            (b"authorization", authorization.encode(), Indexing.VALUE),
            (b"apns-topic", b"com.example.scores.push-type.liveactivity", Indexing.VALUE),
            (b"apns-push-type", b"liveactivity", Indexing.VALUE),
        ]
    )
    pieces = 0
    for _ in range(40):
        pieces += 1
        if pipe.closed:
            break
        try:
            if client.available_streams and client.room_for(len(BODY)):
                path = b"/3/device/" + token_of(source.randrange(50)).encode()
                client.send_request(headers, path, b"8a6f1d3e-5b7c-4f2a-9d1e-0c4b3a2f1e5d", BODY)
        except Http2Error:
            break
        data = client.data_to_send()
        kind = source.randrange(12)
        if kind == 0:
            data = mutated(data, source)
        elif kind == 1:
            data += random_frame(source)
        elif kind == 2:
            data = source.randbytes(source.randrange(60))
        elif kind == 3 and len(data) > 1:
            cut = source.randrange(1, len(data))
            connection.data_received(data[:cut])
            data = data[cut:]
        connection.data_received(data)
        await fake.clock.advance(0.005)  # type: ignore[attr-defined]
        try:
            client.receive(pipe.take())
        except Http2Error:
            break
    assert pipe.written < 1_000_000
    connection.connection_lost(None)
    return pieces


def random_frame(source: random.Random) -> bytes:
    length = source.choice((0, 4, 5, 6, 8, source.randrange(200)))
    kind = source.randrange(12)
    stream = source.choice((0, 1, 2, 3, 101, 2**31 - 1))
    head = length.to_bytes(3, "big") + bytes((kind, source.randrange(256)))
    return head + stream.to_bytes(4, "big") + source.randbytes(length)
