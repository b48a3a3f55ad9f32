"""HTTP/2 beside HTTP/1.1 on one port: a foreign client is served, floods are bounded."""

from __future__ import annotations

import asyncio
import json
import subprocess

import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset

from .conftest import Wire, size


class Client:
    """An h2 connection; not ours."""

    def __init__(self, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.wire = wire
        self.reader = reader
        self.writer = writer
        self.h2 = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
        self.h2.initiate_connection()
        self.status: dict[int, str] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset: dict[int, int] = {}
        self.goaway: int | None = None
        self.grants = True

    @classmethod
    async def open(cls, wire: Wire) -> Client:
        client = cls(wire, *await wire.connect("h2"))
        client.flush()
        return client

    def request(
        self, path: str, method: str = "GET", scheme: str = "https", end: bool = True
    ) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(
            stream,
            [(":method", method), (":scheme", scheme), (":authority", "h"), (":path", path)],
            end_stream=end,
        )
        return stream

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def read(self) -> bool:
        async with asyncio.timeout(20):
            data = await self.reader.read(65_536)
        for event in self.h2.receive_data(data) if data else ():
            if isinstance(event, ResponseReceived):
                self.status[event.stream_id] = dict(event.headers)[b":status"].decode()
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                if self.grants and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                self.reset[event.stream_id] = event.error_code
            elif isinstance(event, ConnectionTerminated):
                self.goaway = event.error_code
        self.flush()
        return bool(data)

    async def done(self, *streams: int) -> None:
        while not {*streams} <= self.ended | self.reset.keys():
            assert await self.read(), "the connection ended"


async def test_both_protocols_on_one_port(secure: Wire) -> None:
    for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
        async with httpx.AsyncClient(
            base_url=f"https://localhost:{secure.port}", verify=secure.tls, http2=http2
        ) as client:
            for body in (b"", b"x" * 10, b"x" * 500_000):
                answer = await client.post("/a%20b?q=1", content=body)
                assert answer.http_version == version
                assert answer.json() == {
                    "path": "/a b",
                    "query": "q=1",
                    "size": len(body),
                    "host": f"localhost:{secure.port}",
                    "version": version.removeprefix("HTTP/"),
                }
            large = await client.get("/large/3000000")
            assert len(large.content) == 3_000_000
            followed = await client.get("/follow")
            assert followed.text.count("data:") == 2_000
            assert (await client.head("/x")).content == b""
            assert (await client.post("/early", content=b"x" * 300_000)).status_code == 413


@pytest.mark.external("curl")
async def test_curl(secure: Wire) -> None:
    def call(*more: str) -> str:
        command = ["curl", "-s", "--cacert", secure.ca_file, "-w", "%{http_version}", *more]
        return subprocess.run(
            [*command, f"https://localhost:{secure.port}/large/5"],
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        ).stdout

    assert await asyncio.to_thread(call, "--http2") == "xxxxx2"
    assert await asyncio.to_thread(call, "--http1.1") == "xxxxx1.1"


async def test_prior_knowledge_without_tls(plain: Wire) -> None:
    client = await Client.open(plain)
    stream = client.request("/x", scheme="http")
    client.flush()
    await client.done(stream)
    assert json.loads(client.bodies[stream])["version"] == "2"


async def test_a_hundred_streams_and_the_scheme_of_firebase_admin(secure: Wire) -> None:
    """firebase-admin for Node writes the scheme as ``https:``."""
    client = await Client.open(secure)
    for _ in range(5):
        streams = [client.request(f"/{n}", scheme="https:") for n in range(100)]
        client.flush()
        await client.done(*streams)
    assert len(client.ended) == 500
    assert {*client.status.values()} == {"200"}


async def test_a_slow_reader_holds_up_only_its_own_stream(secure: Wire) -> None:
    client = await Client.open(secure)
    client.grants = False
    stuck = client.request("/large/60000")
    follower = client.request("/follow")
    client.flush()
    while len(client.bodies.get(stuck, b"")) + len(client.bodies.get(follower, b"")) < 65_535:
        await client.read()
    client.h2.increment_flow_control_window(1_000_000)
    client.h2.increment_flow_control_window(1_000_000, follower)
    client.flush()
    await client.done(follower)
    assert client.bodies[follower].count(b"data:") == 2_000


async def test_rapid_reset_ends_the_connection(secure: Wire) -> None:
    """Streams that are opened and reset at once: each costs the client less than the server."""
    client = await Client.open(secure)
    await client.read()
    opened = 0
    while client.goaway is None and opened < size(100_000, 10_000):
        for _ in range(50):
            client.h2.reset_stream(client.request("/wait"))
            opened += 1
        client.flush()
        await client.writer.drain()
        try:
            async with asyncio.timeout(0.002):
                await client.read()
        except TimeoutError:
            pass
        except ConnectionError:
            break
    assert opened <= 2_000, "the budget is a thousand resets"
    assert secure.started <= 2_000
    await secure.until(lambda: secure.running == 0)
    await secure.until(lambda: secure.statistics.open == 0)
    other = await Client.open(secure)
    stream = other.request("/x")
    other.flush()
    await other.done(stream)
    assert other.status[stream] == "200"


async def test_no_more_requests_run_than_streams_may_be_open(secure: Wire) -> None:
    client = await Client.open(secure)
    await client.read()
    for _ in range(128):
        client.request("/wait")
    client.flush()
    await secure.until(lambda: secure.running == 128)
    client.h2.remote_settings.max_concurrent_streams = 1_000
    client.h2.remote_settings.acknowledge()
    more = client.request("/wait")
    client.flush()
    await client.done(more)
    assert client.reset[more] == 7  # REFUSED_STREAM
    client.writer.close()
    await secure.until(lambda: secure.running == 0)


async def test_a_closing_server_says_goaway(secure: Wire) -> None:
    client = await Client.open(secure)
    stream = client.request("/x")
    client.flush()
    await client.done(stream)
    assert client.goaway is None
