"""What our HTTP/2 costs by itself: in memory, no socket, no TLS, no event loop.

The client writes batches of pushes and reads canned answers, as many in one read as given. The
figures are CPU time, the best of several rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import hpack

from apns_live.http2 import (
    ClientConnection,
    FrameType,
    Indexing,
    PreparedHeaders,
    RequestReceived,
    ServerConnection,
    Setting,
    frame,
)
from benchmarks.pages import Bar, figures, finish, options, result

BATCH = 250
BATCHES = 200
ROUNDS = 5
BODY_BYTES = 350
TARGET = 3.0
SERVER_TARGET = 10.0

HEADERS = PreparedHeaders(
    [
        (b"authorization", b"bearer " + b"e" * 230, Indexing.VALUE),
        (b"apns-topic", b"com.example.scores.push-type.liveactivity", Indexing.VALUE),
        (b"apns-push-type", b"liveactivity", Indexing.VALUE),
        (b"apns-priority", b"10", Indexing.VALUE),
        (b"apns-expiration", b"1700000000", Indexing.NAME),
    ]
)
_END_STREAM, _END_HEADERS = 1, 4

Answer = Callable[[int, bytes], bytes]


def _identifier(number: int) -> bytes:
    return b"4D1F2E60-7A3B-4C5D-8E9F-%012d" % number


def _status_only(stream_id: int, _: bytes) -> bytes:
    return frame(FrameType.HEADERS, _END_HEADERS | _END_STREAM, stream_id, b"\x88")


def _plain(stream_id: int, identifier: bytes) -> bytes:
    block = b"\x88\x00\x07apns-id\x24" + identifier
    return frame(FrameType.HEADERS, _END_HEADERS | _END_STREAM, stream_id, block)


class _Huffman:
    """Answers as a server with a full encoder gives them: name indexed, value Huffman-coded."""

    def __init__(self) -> None:
        self._encoder = hpack.Encoder()

    def __call__(self, stream_id: int, identifier: bytes) -> bytes:
        fields = [(b":status", b"200"), (b"apns-id", identifier)]
        block = self._encoder.encode(fields, huffman=True)
        return frame(FrameType.HEADERS, _END_HEADERS | _END_STREAM, stream_id, block)


def _error(stream_id: int, identifier: bytes) -> bytes:
    block = b"\x8c\x00\x07apns-id\x24" + identifier
    body = b'{"reason":"BadDeviceToken"}'
    return frame(FrameType.HEADERS, _END_HEADERS, stream_id, block) + frame(
        FrameType.DATA, _END_STREAM, stream_id, body
    )


def _client() -> ClientConnection:
    client = ClientConnection(authority=b"api.push.example:443")
    client.start()
    settings = b"\x00\x03\x00\x00\x03\xe8\x00\x04\x00\x00\xff\xff"
    client.receive(frame(FrameType.SETTINGS, 0, 0, settings) + frame(FrameType.SETTINGS, 1, 0))
    client.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")))
    return client


def measure_client(answer: Answer, batches: int) -> tuple[float, float, float]:
    """Return microseconds a push of CPU time: send_request, data_to_send, receive."""
    client = _client()
    path = b"/3/device/" + b"8f" * 32
    body = b"b" * BODY_BYTES
    clock = time.process_time
    sending = draining = receiving = 0.0
    number = 0
    for _ in range(batches):
        identifiers = [_identifier(number + at) for at in range(BATCH)]
        number += BATCH
        begin = clock()
        streams = [client.send_request(HEADERS, path, one, body) for one in identifiers]
        sent = clock()
        client.data_to_send()
        drained = clock()
        canned = b"".join(map(answer, streams, identifiers))
        received = clock()
        events = client.receive(canned)
        receiving += clock() - received
        sending += sent - begin
        draining += drained - sent
        if len(events) != BATCH:
            raise RuntimeError(f"{len(events)} answers came of {BATCH}")
    pushes = batches * BATCH / 1e6
    return sending / pushes, draining / pushes, receiving / pushes


def measure_server(batches: int) -> tuple[float, float]:
    """Return microseconds a push of CPU time: receive, send_response with data_to_send."""
    client = ClientConnection(authority=b"api.push.example:443")
    server = ServerConnection(
        settings={Setting.MAX_CONCURRENT_STREAMS: 1000}, connection_window=2**20
    )
    client.start()
    server.start()
    server.receive(client.data_to_send())
    client.receive(server.data_to_send())
    server.receive(client.data_to_send())
    path = b"/3/device/" + b"8f" * 32
    body = b"b" * BODY_BYTES
    clock = time.process_time
    receiving = answering = 0.0
    for batch in range(batches):
        for at in range(BATCH):
            client.send_request(HEADERS, path, _identifier(batch * BATCH + at), body)
        data = client.data_to_send()
        begin = clock()
        events = server.receive(data)
        received = clock()
        for event in events:
            if type(event) is RequestReceived:
                given = event.headers[-1][1]
                server.send_response(event.stream_id, 200, ((b"apns-id", given),))
        answers = server.data_to_send()
        answering += clock() - received
        receiving += received - begin
        client.receive(answers)
    pushes = batches * BATCH / 1e6
    return receiving / pushes, answering / pushes


def main(arguments: list[str]) -> int:
    """Measure both roles."""
    parser = options("wire", __doc__)
    parser.add_argument("--batches", type=int, default=BATCHES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args(arguments)
    settings = {
        "work": f"batches of {BATCH} pushes of {BODY_BYTES} bytes, answers in one read, "
        f"best of {given.rounds} rounds of {given.batches} batches"
    }
    found = result("wire", "Our HTTP/2 by itself: microseconds of CPU a push", settings)
    bars: list[Bar] = []
    kinds: dict[str, Callable[[], Answer]] = {
        "200, status only": lambda: _status_only,
        "200, apns-id plain": lambda: _plain,
        "200, apns-id Huffman": _Huffman,
        "400 with a body": lambda: _error,
    }
    for kind, make in kinds.items():
        rounds = [measure_client(make(), given.batches) for _ in range(given.rounds)]
        sending, draining, receiving = best = [min(each) for each in zip(*rounds, strict=True)]
        name = f"client, {kind}"
        found.runs.append(
            figures(
                name, send_us=sending, drain_us=draining, receive_us=receiving, sum_us=sum(best)
            )
        )
        if kind == "200, apns-id plain":
            for name, figure in (("send_request", sending), ("an answer", receiving)):
                bars.append(Bar(name, figure, TARGET, at_least=False, unit="us"))
    server = [measure_server(given.batches) for _ in range(given.rounds)]
    receive, respond = (min(each) for each in zip(*server, strict=True))
    total = receive + respond
    found.runs.append(figures("server", send_us=respond, receive_us=receive, sum_us=total))
    bars.append(Bar("server, a push", total, SERVER_TARGET, at_least=False, unit="us"))
    return finish(found, bars, given)
