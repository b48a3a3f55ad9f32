"""Opening connections: proxy, ALPN, trust; and the pool that grows and shrinks by need."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest

from apns_live import Endpoint, Update, Verdict
from apns_live.errors import InvalidSetting
from apns_live.pool.connect import Address, Connector, make_ssl_context, system_resolver
from apns_live.testing import FakeApns, SimulatedClock
from tests.client.conftest import client_for, pass_time, token, tokens
from tests.servers import make_certificate

pytestmark = pytest.mark.wire
UPDATE = Update(content_state={"home": 71})


@contextlib.asynccontextmanager
async def proxy(answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n"):
    """A CONNECT proxy; yields its port and the heads of the requests that it got."""
    heads: list[bytes] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head)
        writer.write(answer)
        if b" 200 " not in answer:
            writer.close()
            return
        host, _, port = head.split(b" ")[1].partition(b":")
        inner_reader, inner_writer = await asyncio.open_connection(host.decode(), int(port))
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))
        inner_writer.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


@contextlib.asynccontextmanager
async def silent_server(context: ssl.SSLContext):
    """A server that takes connections and says nothing; yields its port."""
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(
        lambda _, writer: held.append(writer), "127.0.0.1", 0, ssl=context
    )
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in held:
            writer.transport.abort()


@pytest.mark.http
async def test_pushes_go_through_a_connect_proxy(fake: FakeApns, transport: str) -> None:
    async with proxy() as (port, heads):
        url = f"http://user:p%40ss@127.0.0.1:{port}"
        async with client_for(fake, proxy=url, transport=transport) as client:
            assert (await client.send(UPDATE, token(1))).accepted
            assert "p@ss" not in repr(client)
            assert "p%40ss" not in repr(client)
    (head,) = heads
    assert head.startswith(f"CONNECT localhost:{fake.port} HTTP/1.1\r\n".encode())
    assert base64.b64encode(b"user:p@ss") in head


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "user:password@"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "refused a tunnel"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not an HTTP answer"),
        (b"", "it closed"),
    ],
)
async def test_a_proxy_that_refuses_is_named(
    timed_fake: FakeApns, clock: SimulatedClock, answer: bytes, expected: str
) -> None:
    async with proxy(answer) as (port, _):
        url = f"http://127.0.0.1:{port}"
        async with client_for(timed_fake, clock=clock, proxy=url, uniform=lambda: 1.0) as client:
            outcome = await pass_time(client, clock, client.send(UPDATE, token(1), deadline=1.0))
    assert outcome.verdict is Verdict.NOT_SENT
    assert f"proxy 127.0.0.1:{port}" in outcome.detail
    assert expected in outcome.detail


@pytest.mark.parametrize(
    "url",
    ["https://host:1", "host:8080", "http://", "ftp://host", "http://host:port", "http://h/x"],
)
async def test_a_bad_proxy_address_is_refused(fake: FakeApns, url: str) -> None:
    with pytest.raises(InvalidSetting, match="proxy"):
        client_for(fake, proxy=url)


@pytest.mark.parametrize("protocols", [["http/1.1"], []])
async def test_alpn_other_than_h2_names_a_proxy_as_the_likely_cause(
    fake: FakeApns, tmp_path: Path, clock: SimulatedClock, protocols: list[str]
) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    if protocols:
        context.set_alpn_protocols(protocols)
    async with silent_server(context) as port:
        endpoint = Endpoint("localhost", port, ca_file=certificate)
        async with client_for(
            fake, environment=endpoint, clock=clock, uniform=lambda: 1.0
        ) as client:
            outcome = await pass_time(client, clock, client.send(UPDATE, token(1), deadline=1.0))
    assert outcome.verdict is Verdict.NOT_SENT
    assert "ALPN" in outcome.detail
    assert "proxy" in outcome.detail


async def test_tls_older_than_1_2_is_not_spoken(fake: FakeApns) -> None:
    client = client_for(fake)
    assert client.ssl_context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert client.ssl_context.verify_mode is ssl.CERT_REQUIRED
    assert client.ssl_context.check_hostname


async def test_a_context_that_does_not_verify_is_refused(fake: FakeApns) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(InvalidSetting, match="ssl_context"):
        client_for(fake, ssl_context=context)


async def test_a_server_that_never_sends_settings_is_given_up(
    fake: FakeApns, tmp_path: Path, clock: SimulatedClock
) -> None:
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    async with silent_server(context) as port:
        endpoint = Endpoint("localhost", port, ca_file=certificate)
        async with client_for(fake, environment=endpoint, clock=clock) as client:
            task = asyncio.ensure_future(client.send(UPDATE, token(1), deadline=11.0))
            await clock.settle(
                until=lambda: (
                    [
                        link.state == "waiting for settings"
                        for link in client.statistics().connections
                    ]
                    == [True]
                )
            )
            await clock.advance_until(task.done)
    assert task.result().verdict is Verdict.NOT_SENT
    assert "within 10 s" in task.result().detail


async def test_the_pool_grows_to_its_limit_under_load_and_shrinks_when_idle(
    fake_directory: Path, clock: SimulatedClock
) -> None:
    async with (
        FakeApns(directory=fake_directory, clock=clock, latency=0.2, max_streams=10) as fake,
        client_for(fake, clock=clock, max_connections=4) as client,
    ):
        task = asyncio.ensure_future(client.fan_out(UPDATE, tokens(600)).wait())
        seen = 0
        while not task.done():
            await clock.settle(30)
            seen = max(seen, len(client.statistics().connections))
            await clock.advance(0.05)
        assert seen == 4
        assert task.result().accepted == 600
        assert 3 <= task.result().connections <= 4
        await clock.advance(299)
        assert len(client.statistics().connections) == 4
        await clock.advance(5)
        await clock.settle()
        assert len(client.statistics().connections) == 1
        opened = client.statistics().connections_opened
        await pass_time_over_latency(clock, client.send(UPDATE, token(1)))
        assert client.statistics().connections_opened == opened == 4


async def test_the_pool_does_not_grow_while_links_are_penalised(
    fake_directory: Path, clock: SimulatedClock
) -> None:
    async with (
        FakeApns(directory=fake_directory, clock=clock, latency=0.05, cut_streams=True) as fake,
        client_for(fake, clock=clock) as client,
    ):
        assert (await pass_time_over_latency(clock, client.send(UPDATE, token(1)))).accepted
        fake.fault("answer", reason="BadDeviceToken")
        await pass_time_over_latency(clock, client.fan_out(UPDATE, tokens(1100)).wait())
        assert client.statistics().connections_opened == 1


async def pass_time_over_latency(clock: SimulatedClock, work):
    task = asyncio.ensure_future(work)
    while not task.done():
        await clock.settle(20)
        await clock.advance(0.05)
    return task.result()


class GivesUp(asyncio.Protocol):
    """Cancels whoever opens its connection in the moment in which TLS is complete."""

    def __init__(self, opening: list[asyncio.Task[str]]) -> None:
        self._opening = opening
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opening[0].cancel()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()


async def test_a_socket_is_not_closed_under_its_transport(fake: FakeApns) -> None:
    # Its number would go to the next connection, and the event loop takes the two for one.
    endpoint = Endpoint(**fake.endpoint._asdict())
    connector = Connector(endpoint, ssl_context=make_ssl_context(endpoint.ca_file))
    opening: list[asyncio.Task[str]] = []
    protocol = GivesUp(opening)
    opening.append(asyncio.ensure_future(connector.open(lambda: protocol)))
    with pytest.raises(asyncio.CancelledError):
        await opening[0]
    loop = asyncio.get_running_loop()
    for _ in range(3):
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", endpoint.port))
    await protocol.lost.wait()


async def test_whatever_goes_wrong_in_opening_a_connection_it_is_tried_again(
    timed_fake: FakeApns, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    async def resolver(host: str, port: int) -> Sequence[Address]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RuntimeError("a bad moment")
        return await system_resolver(host, port)

    async with client_for(timed_fake, clock=clock, resolver=resolver) as client:
        outcome = await pass_time(client, clock, client.send(UPDATE, token(1)))
    assert outcome.accepted
    assert asked == 2
    assert "connection 1 could not be opened" in caplog.text
