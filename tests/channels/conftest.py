"""A management host that answers from a script, on hypercorn: real TLS and somebody else's HTTP/2."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from apns_live.channels import Channels
from apns_live.credentials import ProviderKey, ProviderTokens
from apns_live.http2 import RequestReceived, ServerConnection
from apns_live.testing.certificates import certificates_in, provider_key_in

CHANNEL = "dHN0LXNyY2gtY2hubg=="


@dataclass
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def refusal(status: int, reason: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, json.dumps({"reason": reason}).encode())


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: object
    http_version: str


class Script:
    """Answers in order, then the last one again; keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.seen: list[Seen] = []
        self.port = 0
        self.ca_file = ""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append(
            Seen(
                scope["method"],
                scope["path"],
                headers,
                body,
                scope["client"],
                scope["http_version"],
            )
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        fields = {"apns-request-id": headers.get("apns-request-id", ""), **answer.headers}
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(k.encode(), v.encode()) for k, v in fields.items()],
            }
        )
        await send({"type": "http.response.body", "body": answer.body})


class PatientClock:
    """Waits in no time, and remembers how long it was asked to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.waits: list[float] = []

    def time(self) -> float:
        return self.now

    monotonic = time

    def call_later(self, delay: float, callback: Callable[[], object]) -> Any:
        raise AssertionError("channel management sets no timers")

    async def sleep(self, delay: float) -> None:
        self.waits.append(delay)
        self.now += delay


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return certificates_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> ProviderKey:
    path, _ = provider_key_in(tmp_path_factory.mktemp("key"), "ABC123DEFG")
    return ProviderKey.from_file(path, team_id="DEF123GHIJ")


@pytest.fixture
async def script(certificates: Any) -> AsyncIterator[Script]:
    script = Script()
    config = Config()
    config.bind = ["localhost:0"]
    config.certfile = str(certificates.certificate_file)
    config.keyfile = str(certificates.key_file)
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 0.2
    config.include_date_header = False
    sockets = config.create_sockets()
    script.port = sockets.secure_sockets[0].getsockname()[1]
    config.create_sockets = lambda: sockets  # type: ignore[method-assign]
    script.ca_file = str(certificates.ca_file)
    stop = asyncio.Event()
    server = asyncio.create_task(serve(script, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    yield script
    stop.set()
    await server


@pytest.fixture
def clock() -> PatientClock:
    return PatientClock()


@pytest.fixture
async def channels(
    script: Script, key: ProviderKey, clock: PatientClock
) -> AsyncIterator[Channels]:
    channels = Channels(
        ProviderTokens(key, clock),
        bundle_id="com.example.scores",
        host="localhost",
        port=script.port,
        ca_file=script.ca_file,
        environment="sandbox",
        clock=clock,
    )
    yield channels
    await channels.aclose()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Vanishing:
    """A host that reads a request and closes the connection instead of answering."""

    def __init__(self) -> None:
        self.requests = 0
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = ServerConnection()
        connection.start()
        writer.write(connection.data_to_send())
        while data := await reader.read(65_536):
            events = connection.receive(data)
            writer.write(connection.data_to_send())
            if any(isinstance(event, RequestReceived) for event in events):
                self.requests += 1
                break
        writer.close()


@pytest.fixture
async def vanishing(certificates: Any) -> AsyncIterator[Vanishing]:
    host = Vanishing()
    server = await asyncio.start_server(
        host, "127.0.0.1", 0, ssl=certificates.server_context(), ssl_shutdown_timeout=0.2
    )
    host.port = server.sockets[0].getsockname()[1]
    async with server:
        yield host


__all__ = ["CHANNEL", "Answer", "refusal"]
