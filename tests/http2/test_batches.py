"""Requests that are queued together are, byte for byte, those that are queued one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.errors import Http2Error
from apns_live.http2 import ClientConnection, RequestReceived

from .support import HEADERS, apns_id, connected, pump

FOLDER = "/3/device/"


def one_by_one(client: ClientConnection, names: list[str], ids: list[str], body: bytes) -> bytes:
    for name, request_id in zip(names, ids, strict=True):
        client.send_request(HEADERS, (FOLDER + name).encode(), request_id.encode(), body)
    return client.data_to_send()


def together(client: ClientConnection, names: list[str], ids: list[str], body: bytes) -> bytes:
    client.send_requests(HEADERS, FOLDER, names, ids, body)
    return client.data_to_send()


@given(
    sizes=st.lists(st.sampled_from([2, 64, 64, 160, 600]), min_size=1, max_size=8),
    id_sizes=st.sampled_from([(36,), (36, 1), (200,)]),
    body=st.sampled_from([b"", b"{}", b"x" * 4096]),
    warm=st.integers(0, 3),
)
def test_a_batch_is_the_same_bytes(
    sizes: list[int], id_sizes: tuple[int, ...], body: bytes, warm: int
) -> None:
    names = ["a" * size for size in sizes]
    ids = ["1" * id_sizes[at % len(id_sizes)] for at in range(len(sizes))]
    written = []
    for send in (one_by_one, together):
        client, server = connected()
        for number in range(warm):
            client.send_request(HEADERS, b"/", apns_id(number), b"{}")
        pump(client, server)
        written.append(send(client, names, ids, body))
        events = server.receive(written[-1])
        paths = [dict(e.headers)[b":path"] for e in events if isinstance(e, RequestReceived)]
        assert paths == [(FOLDER + name).encode() for name in names]
        assert client.open_streams == warm + len(names)
    assert written[0] == written[1]


def test_a_batch_without_room_is_refused_whole() -> None:
    client, _ = connected(streams=3)
    with pytest.raises(Http2Error, match="streams"):
        client.send_requests(HEADERS, FOLDER, ["aa"] * 4, ["1"] * 4, b"{}")
    assert client.data_to_send() == b""
    assert client.open_streams == 0


def test_room_is_counted_in_whole_requests() -> None:
    client, _ = connected(streams=1000)
    assert client.room_for(0) == client.room_for(65) == 1000
    assert client.room_for(4096) == 15
    assert client.room_for(65_535) == client.room_for(200_000) == 1
    client.send_requests(HEADERS, FOLDER, ["aa"] * 15, ["1"] * 15, b"x" * 4096)
    assert client.room_for(4096) == 0
    assert client.room_for(4095) == 1
    assert client.room_for(4) == 985
