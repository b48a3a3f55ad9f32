"""Every collected answer of APNs, good or odd, over a real connection, gives the outcome it must."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apns_live import Client, Endpoint, ProviderKey, Update
from apns_live.http2 import RequestReceived, ServerConnection
from tests.servers import make_certificate

ROOT = Path(__file__).resolve().parents[2]
ANSWERS: list[dict[str, Any]] = json.loads(
    (ROOT / "fixtures" / "error_bodies" / "answers.json").read_text()
)


def body_of(answer: dict[str, Any]) -> bytes:
    if "body_base64" in answer:
        return base64.b64decode(answer["body_base64"])
    text: str = answer["body"]
    return text.encode()


class ScriptedServer(asyncio.Protocol):
    """Answers the request for token n with the n-th collected answer."""

    def __init__(self) -> None:
        self.connection = ServerConnection()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connection.start()
        transport.write(self.connection.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.connection.receive(data):
            if isinstance(event, RequestReceived):
                path = dict(event.headers)[b":path"]
                answer = ANSWERS[int(path.rpartition(b"/")[2], 16)]
                headers = [
                    (name.encode(), value.encode()) for name, value in answer["headers"].items()
                ]
                self.connection.send_response(
                    event.stream_id, answer["status"], headers, body_of(answer)
                )
        self.transport.write(self.connection.data_to_send())


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[Endpoint]:
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(ScriptedServer, "127.0.0.1", 0, ssl=context)
    yield Endpoint("localhost", server.sockets[0].getsockname()[1], ca_file=certificate)
    server.close()
    await server.wait_closed()


async def test_every_answer(scripted: Endpoint, provider_key: ProviderKey) -> None:
    wrong = []
    async with Client(provider_key, bundle_id="com.example.scores", environment=scripted) as client:
        for number, answer in enumerate(ANSWERS):
            outcome = await client.send(Update(content_state={"home": 1}), f"{number:064x}")
            expected = answer["outcome"]
            seen = {"verdict": outcome.verdict.value, "reason": outcome.reason}
            if "timestamp_ms" in expected:
                moment = outcome.timestamp
                seen["timestamp_ms"] = moment and round(moment.timestamp() * 1000)
                assert outcome.timestamp is None or outcome.timestamp.tzinfo is datetime.UTC
            if "check_environment" in expected:
                seen["check_environment"] = outcome.check_environment
            if seen != expected:
                wrong.append((answer["name"], expected, seen))
            assert outcome.status == answer["status"]
    assert not wrong


def test_the_collection_is_worth_something() -> None:
    assert len(ANSWERS) >= 30
    assert len({answer["name"] for answer in ANSWERS}) == len(ANSWERS)
    assert all(answer["source"] for answer in ANSWERS)
