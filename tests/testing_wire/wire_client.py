"""A bare HTTP/2 client for tests that must see frames: events, settings, resets, GOAWAY."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Any, Self

import jwt

from apns_live.http2 import (
    ClientConnection,
    Event,
    GoAwayReceived,
    Indexing,
    PreparedHeaders,
    ResponseReceived,
    StreamReset,
)
from apns_live.testing import FakeApns

BODY = b'{"aps":{"timestamp":1800000000,"event":"update","content-state":{}}}'
PATIENCE = 20.0


def bearer(fake: FakeApns, *, key_id: str = "", age: float = 0.0) -> str:
    """Return an authorization header, signed now on the clock that tokens are held against."""
    key_id = key_id or fake.key_id
    token = jwt.encode(
        {"iss": fake.team_id, "iat": int(fake.engine.wall() - age)},
        (fake.directory / f"AuthKey_{key_id}.p8").read_text(),
        algorithm="ES256",
        headers={"kid": key_id},
    )
    return f"bearer {token}"


def push_headers(fake: FakeApns, **extra: str) -> dict[str, str]:
    return {
        "authorization": bearer(fake),
        "apns-topic": f"{fake.bundle_id}.push-type.liveactivity",
        "apns-push-type": "liveactivity",
        **{name.replace("_", "-"): value for name, value in extra.items()},
    }


def token_of(number: int) -> str:
    return f"{number:0160x}"


class WireClient(asyncio.Protocol):
    """One connection to a fake. ``events`` is everything that was heard."""

    def __init__(self, fake: FakeApns) -> None:
        self.fake = fake
        self.http = ClientConnection(authority=b"localhost")
        self.events: list[Event] = []
        self.closed = False
        self.error: Exception | None = None
        self._changed = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._headers: dict[tuple[tuple[str, str], ...], PreparedHeaders] = {}

    @classmethod
    async def connect(cls, fake: FakeApns, *, port: int | None = None) -> Self:
        client = cls(fake)
        context = fake.certificates.client_context()
        await asyncio.wait_for(
            asyncio.get_running_loop().create_connection(
                lambda: client,
                "127.0.0.1",
                port or fake.port,
                ssl=context,
                server_hostname="localhost",
            ),
            PATIENCE,
        )
        return client

    async def __aenter__(self) -> Self:
        await self.until(lambda: self.http.ready)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.abort()
        await self.until(lambda: self.closed)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.http.start()
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.events += self.http.receive(data)
        self.flush()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed, self.error = True, exc
        self._changed.set()

    def flush(self) -> None:
        data = self.http.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def send_raw(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until ``condition`` holds; fail after a while."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), 0.02)
            except TimeoutError:
                assert time.monotonic() < deadline, f"did not come true; heard {self.events}"

    def push(self, token: str, headers: dict[str, str] | None = None, body: bytes = BODY) -> int:
        """Queue one device push and return its stream id; ``flush`` sends it."""
        fields = dict(headers if headers is not None else push_headers(self.fake))
        apns_id = fields.pop("apns-id", "8a6f1d3e-5b7c-4f2a-9d1e-0c4b3a2f1e5d")
        key = tuple(fields.items())
        if key not in self._headers:
            self._headers[key] = PreparedHeaders(
                [(name.encode(), value.encode(), Indexing.VALUE) for name, value in key]
            )
        path = f"/3/device/{token}".encode()
        return self.http.send_request(self._headers[key], path, apns_id.encode(), body)

    async def answer(self, stream_id: int) -> ResponseReceived:
        """Wait for the answer on a stream."""
        await self.until(lambda: self.find(ResponseReceived, stream_id))
        found = self.find(ResponseReceived, stream_id)
        assert isinstance(found, ResponseReceived)
        return found

    async def exchange(
        self, token: str, headers: dict[str, str] | None = None, body: bytes = BODY
    ) -> ResponseReceived:
        """Send one push and wait for its answer."""
        stream_id = self.push(token, headers, body)
        self.flush()
        return await self.answer(stream_id)

    def find(self, kind: type[Event], stream_id: int | None = None) -> Event | None:
        for event in self.events:
            if isinstance(event, kind) and stream_id in (None, getattr(event, "stream_id", None)):
                return event
        return None

    def answered(self) -> list[int]:
        return [event.stream_id for event in self.events if isinstance(event, ResponseReceived)]

    def resets(self) -> list[StreamReset]:
        return [event for event in self.events if isinstance(event, StreamReset)]

    def goaways(self) -> list[GoAwayReceived]:
        return [event for event in self.events if isinstance(event, GoAwayReceived)]


def trusting(fake: FakeApns) -> ssl.SSLContext:
    return fake.certificates.client_context()
