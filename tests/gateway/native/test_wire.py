"""What is not as the framework's own client would send it: old HTTP, pieces, nonsense."""

from __future__ import annotations

import asyncio
import gc

import pytest

from apns_live.gateway import GatewaySettings
from apns_live.gateway.admission import Visit

from .conftest import Live

UPDATE = (
    b"POST /v1/activities/none/update HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
)


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings(body_bytes=4_096)


async def said(live: Live, data: bytes, *, ends: bool = True) -> bytes:
    """Send bytes; return all that comes until the server closes, or one answer."""
    host, _, port = live.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(15):
            if ends:
                writer.write_eof()
                return await reader.read()
            return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()


def key(live: Live) -> bytes:
    return f"Authorization: Bearer {live.key}\r\n".encode()


async def test_http_1_0_is_answered_and_closed(live: Live) -> None:
    for more in (b"", b"Connection: keep-alive\r\n"):
        answer = await said(live, b"GET /v1/apps HTTP/1.0\r\n" + more + key(live) + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()


async def test_requests_in_one_piece_are_answered_in_order(live: Live) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    other = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await said(live, one + other + last, ends=False)
    assert answer.startswith(b"HTTP/1.1 200")
    whole = await said(live, one + other + last)
    assert [part[:3] for part in whole.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]


async def test_a_body_in_pieces_of_one_byte(live: Live) -> None:
    body = b'{"content_state": {"a": 1}}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = UPDATE + key(live) + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await said(live, head + chunks)
    assert answer.startswith(b"HTTP/1.1 404")
    assert b'"code":"not_found"' in answer


NO_HTTP = [
    b"\x00\x01\x02\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nx y: z\r\n\r\n",
    b"GET /v1/devices/\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    UPDATE + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    UPDATE + b"Content-Length: -1\r\n\r\n",
    UPDATE + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n",
    UPDATE + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
    UPDATE + b"Transfer-Encoding: gzip\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
]


async def test_what_is_no_http_is_4xx_or_nothing(live: Live) -> None:
    for data in NO_HTTP:
        try:
            answer = await said(live, data)
        except ConnectionError:
            answer = b""
        # What the server cannot read gets no word of why: it may be no HTTP at all.
        assert not answer or answer.split(b" ")[1][:1] in {b"4", b"5"}, data[:60]
        assert b" 500 " not in answer[:20], data[:60]
        assert (await live.http.get("/healthz")).status_code == 200


async def test_a_body_that_ends_too_early_is_400(live: Live) -> None:
    answer = await said(live, UPDATE + key(live) + b"Content-Length: 50\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"bad_body"' in answer


async def test_a_length_that_nobody_would_read_is_refused_at_once(live: Live) -> None:
    for length, status in ((b"99999999999", 413), (b"9" * 20, 400), (b"16777217", 413)):
        head = UPDATE + key(live) + b"Content-Length: " + length + b"\r\n\r\n"
        answer = await said(live, head, ends=False)
        assert answer.startswith(b"HTTP/1.1 %d" % status)


async def test_what_is_left_of_a_large_body_is_read_and_then_told(live: Live) -> None:
    """A client that writes on must still see why: the rest is read, within bounds."""
    body = b" " * 2_000_000
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    answer = await said(live, UPDATE + key(live) + length + body, ends=False)
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_field_behind_the_body_is_no_header(live: Live) -> None:
    """What a proxy in front took away from the head must not come in by the other door."""
    body = b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n" + key(live) + b"\r\n"
    assert (await said(live, UPDATE + body)).startswith(b"HTTP/1.1 401")
    headed = UPDATE + key(live) + body
    assert (await said(live, headed)).startswith(b"HTTP/1.1 422")


@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"br", b"identity, gzip"])
async def test_an_encoded_body_is_415(live: Live, encoding: bytes) -> None:
    head = UPDATE + key(live) + b"Content-Encoding: %s\r\nContent-Length: 2\r\n\r\n{}" % encoding
    assert (await said(live, head)).startswith(b"HTTP/1.1 415")
    plain = head.replace(encoding, b"identity")
    assert (await said(live, plain)).startswith(b"HTTP/1.1 422")


async def test_a_header_with_two_values_that_has_one_is_refused(live: Live) -> None:
    """Which of them a proxy in front has looked at is not known here."""
    for more in (b"Authorization: Bearer x\r\n", b"Content-Type: text/plain\r\n"):
        answer = await said(live, UPDATE + key(live) + more + b"Content-Length: 2\r\n\r\n{}")
        assert answer.startswith(b"HTTP/1.1 422"), more
        assert b"is given twice" in answer
    again = await said(live, UPDATE + key(live) * 2 + b"Content-Length: 2\r\n\r\n{}")
    assert b"is given twice" not in again


async def test_an_answered_request_does_not_wait_for_the_garbage_collector(live: Live) -> None:
    """A cycle in each kept a hundred objects: collecting them stopped all others for 50 ms."""
    body = {"content_state": {"a": 1}}
    await live.start()
    gc.collect()
    earlier = [one for one in gc.get_objects() if isinstance(one, Visit)]  # of other tests' servers
    gc.disable()
    try:
        answers = [
            await live.http.post("/v1/activities/m1/update", json=body),
            await live.http.post("/v1/activities/none/update", json=body),
            await live.http.post("/v1/activities/m1/update", json={}),
            await live.http.get("/v1/nothing"),
            await live.http.get("/v1/activities"),
        ]
        assert [answer.status_code for answer in answers] == [202, 404, 422, 404, 200]
        await asyncio.sleep(0)
        visits = [one for one in gc.get_objects() if isinstance(one, Visit)]
        assert not [one for one in visits if one not in earlier]
    finally:
        gc.enable()
