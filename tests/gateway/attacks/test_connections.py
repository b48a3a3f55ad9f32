"""Connections: opened and closed, opened and left alone, slow, and too many."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from types import SimpleNamespace

import pytest
import uvloop

from apns_live.gateway.wire import door, http1
from apns_live.gateway.wire.door import DoorLimits

from .conftest import Wire, descriptors, size

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Return the head of an answer."""
    async with asyncio.timeout(10):
        return await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("tls", [False, True])
async def test_a_connection_that_its_client_closes_keeps_no_descriptor(
    plain: Wire, secure: Wire, tls: bool
) -> None:
    """hypercorn 0.18 kept each for 75 seconds: 20 new connections a second took the gateway down."""
    wire = secure if tls else plain
    await one_call(wire)
    before = descriptors()
    for _ in range(size(20_000, 200) // 20):
        await asyncio.gather(*(one_call(wire) for _ in range(20)))
    await wire.until(lambda: wire.statistics.open == 0)
    gc.collect()
    assert descriptors() <= before + 2
    assert not wire.statistics.refused


async def one_call(wire: Wire) -> None:
    reader, writer = await wire.connect()
    writer.write(GET)
    assert (await answer(reader)).startswith(b"HTTP/1.1 200")
    writer.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_does_not_wait_for_the_clients_acknowledgement(
    plain: Wire, secure: Wire, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn writes head and body apart: the body then waits 40 ms for a delayed acknowledgement."""
    accepted: list[socket.socket] = []
    loop = asyncio.get_running_loop()
    accept = loop.sock_accept

    async def watched(listener: socket.socket) -> tuple[socket.socket, object]:
        connection, address = await accept(listener)
        accepted.append(connection)
        return connection, address

    monkeypatch.setattr(loop, "sock_accept", watched)
    wire = secure if tls else plain
    await one_call(wire)  # into the call that waited already
    reader, writer = await wire.connect()
    writer.write(GET)
    assert (await answer(reader)).startswith(b"HTTP/1.1 200")
    assert accepted[-1].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()


async def test_head_and_body_of_an_answer_leave_in_one_piece(
    plain: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn writes them apart: a system call and a segment more for each call."""
    pieces: list[bytes] = []

    def watched(made: http1.Http1, transport: asyncio.Transport) -> None:
        class Watched:
            def __getattr__(self, name: str) -> object:
                return getattr(transport, name)

            def write(self, data: bytes) -> None:
                pieces.append(data)
                transport.write(data)

        connect(made, Watched())  # type: ignore[arg-type]

    connect = http1.Http1.connection_made
    monkeypatch.setattr(http1.Http1, "connection_made", watched)
    reader, writer = await plain.connect()
    writer.write(GET)
    await reader.readuntil(b"}")
    assert [piece.partition(b" ")[0] for piece in pieces] == [b"HTTP/1.1"]
    writer.write(GET.replace(b"/x", b"/follow"))
    await answer(reader)
    assert b"data: 0\n" in await reader.readuntil(b"\n\n")


def test_an_answer_to_a_caller_that_has_left_raises_nothing() -> None:
    """Its head waits for the loop's next turn, and uvloop refuses to write to what is closed."""

    async def scene() -> list[dict[str, object]]:
        wrong: list[dict[str, object]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: wrong.append(context))
        here, there = socket.socketpair()
        with there:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=here)
            protocol = SimpleNamespace(transport=transport, loop=loop)
            outlet = http1._Outlet(protocol, closes=False)  # type: ignore[arg-type]
            transport.abort()
            for _ in range(3):
                await asyncio.sleep(0)
            outlet.write(b"HTTP/1.1 200 OK\r\n")
            await asyncio.sleep(0)
            outlet.close()
            await asyncio.sleep(0)
        return wrong

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scene()) == []


async def test_bare_connects_keep_no_descriptor(plain: Wire) -> None:
    before = descriptors()
    for _ in range(size(20_000, 400)):
        _, writer = await plain.connect()
        writer.close()
    await plain.until(lambda: plain.statistics.open == 0)
    assert descriptors() <= before + 2


class TestFull:
    """More connections than there may be."""

    @pytest.fixture
    def door_limits(self) -> DoorLimits:
        return DoorLimits(connections=10, per_address=8)

    async def test_an_idle_connection_makes_room(
        self, plain: Wire, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING, "apns_live.gateway")
        idle = [await plain.connect() for _ in range(30)]
        await one_call(plain)
        assert plain.statistics.open <= 10
        assert plain.statistics.refused["idle"] >= 22
        assert len(caplog.records) == 1, "one line for all of it"
        for _, writer in idle:
            writer.close()

    async def test_busy_ones_do_not(self, plain: Wire) -> None:
        busy = []
        for _ in range(8):
            reader, writer = await plain.connect()
            writer.write(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
            busy.append(writer)
        await plain.until(lambda: plain.running == 8)
        reader, writer = await plain.connect()
        refused = await answer(reader)
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"retry-after" in refused
        assert plain.statistics.refused["connections of one address"] == 1
        for one in busy:
            one.close()
        await plain.until(lambda: plain.running == 0)
        await one_call(plain)


class TestSlow:
    """A head that does not end, a handshake that does not begin, a client that does not read."""

    @pytest.fixture
    def door_limits(self) -> DoorLimits:
        return DoorLimits(head=0.0, idle=0.0)

    async def test_a_slow_head_is_closed(self, plain: Wire) -> None:
        reader, writer = await plain.connect()
        writer.write(GET[:20])
        async with asyncio.timeout(10):
            assert await reader.read() == b""

    async def test_a_connection_that_says_nothing_is_closed(self, plain: Wire) -> None:
        reader, _ = await plain.connect()
        async with asyncio.timeout(10):
            assert await reader.read() == b""

    async def test_no_handshake(self, secure: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(door, "HANDSHAKE_SECONDS", 0.1)
        secure.tls = None
        reader, writer = await secure.connect()
        writer.write(b"\x16")
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        await secure.until(lambda: secure.statistics.open == 0)

    async def test_plain_http_to_a_tls_port(self, secure: Wire) -> None:
        secure.tls = None
        reader, writer = await secure.connect()
        writer.write(GET)
        async with asyncio.timeout(10):
            await reader.read()
        await secure.until(lambda: secure.statistics.open == 0)

    async def test_a_client_that_does_not_read_is_cut_off(
        self, plain: Wire, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(door, "STUCK_SECONDS", 0.1)
        _, writer = await plain.connect()
        writer.write(b"GET /large/30000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        await plain.until(lambda: plain.statistics.open == 1)
        await plain.until(lambda: plain.statistics.open == 0)
        writer.close()


async def test_a_refusal_reaches_a_client_that_is_still_sending(plain: Wire) -> None:
    for more in (b"", b"Connection: close\r\n"):
        reader, writer = await plain.connect()
        writer.write(b"POST /early HTTP/1.1\r\nHost: h\r\n%sContent-Length: 3000000\r\n\r\n" % more)
        assert (await answer(reader)).startswith(b"HTTP/1.1 413")
        writer.write(b"x" * 3_000_000)
        await writer.drain()
        if more:
            async with asyncio.timeout(10):
                assert await reader.read() == b"too large"
        else:
            await reader.readexactly(9)
            writer.write(GET)
            assert (await answer(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


REFUSED = [
    b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello",
    b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /x HTTP/1.1\nHost: h\n\n",
    b"GET /x HTTP/1.1\r\nHost: h\nx: y\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: a b/c@d\r\n\r\n",
    b"GET /x HTTP/2.0\r\nHost: h\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: h\r\n y: z\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: h\r\nx: " + b"y" * 40_000 + b"\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: h\r\n" + b"x: y\r\n" * 10_000 + b"\r\n",
]


@pytest.mark.parametrize("request_bytes", REFUSED, ids=lambda data: repr(data[16:60]))
async def test_what_could_be_read_in_two_ways_is_refused(plain: Wire, request_bytes: bytes) -> None:
    reader, writer = await plain.connect()
    writer.write(request_bytes)
    async with asyncio.timeout(10):
        said = await reader.read()
    assert said.split(b" ")[1] in {b"400", b"431"}
    assert said.count(b"HTTP/1.1") == 1
    writer.close()


async def test_the_empty_path_of_a_whole_address_is_the_root(plain: Wire) -> None:
    """RFC 9112, section 3.2.2: proxies write addresses so."""
    reader, writer = await plain.connect()
    writer.write(b"GET http://h HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert b'"path":"/"' in await reader.read()
    writer.close()


async def test_an_upgrade_to_http2_is_not_taken_up(plain: Wire) -> None:
    """Java's client asks for it with every request, bodies included: it gets HTTP/1.1."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    reader, writer = await plain.connect()
    for _ in range(2):
        for head, body in ((b"GET", b""), (b"POST", b"Content-Length: 5\r\n")):
            writer.write(head + b" /x HTTP/1.1\r\nHost: h\r\n" + upgrade + body + b"\r\n")
            writer.write(b"hello" if body else b"")
            assert (await answer(reader)).startswith(b"HTTP/1.1 200")
            assert b'"size":' in await reader.readuntil(b"}")
    writer.close()
