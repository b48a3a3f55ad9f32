"""Senders that nobody here wrote complete against our server."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from aioapns import APNs, NotificationRequest, PushType

from apns_live.testing.fake import FakeApns
from tests.interop.conftest import bearer
from tests.programs import program

BODY = {"aps": {"timestamp": 1_763_676_000, "event": "update", "content-state": {"home": 71}}}
TOKEN = "a1" * 32


def headers_for(fake: FakeApns) -> dict[str, str]:
    return {
        "authorization": bearer(fake),
        "apns-topic": f"{fake.bundle_id}.push-type.liveactivity",
        "apns-push-type": "liveactivity",
        "apns-priority": "10",
        "apns-expiration": "0",
    }


async def run(*command: str, timeout: float = 120) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    return output.decode()


def header_options(fake: FakeApns) -> list[str]:
    return [part for item in headers_for(fake).items() for part in ("-H", ": ".join(item))]


@pytest.mark.external("curl")
async def test_curl(wire_fake: FakeApns) -> None:
    output = await run(
        program("curl"),
        *("-sS", "-i", "--http2", "--cacert", str(wire_fake.ca_file)),
        *header_options(wire_fake),
        *("-d", json.dumps(BODY), f"https://localhost:{wire_fake.port}/3/device/{TOKEN}"),
    )
    assert output.startswith("HTTP/2 200")
    assert re.search(r"^apns-id: [0-9A-Fa-f-]{36}", output, re.MULTILINE)


@pytest.mark.external("curl")
async def test_curl_shows_a_refusal(wire_fake: FakeApns) -> None:
    output = await run(
        program("curl"),
        *("-sS", "-i", "--http2", "--cacert", str(wire_fake.ca_file)),
        *header_options(wire_fake),
        *("-d", json.dumps(BODY), f"https://localhost:{wire_fake.port}/3/device/nothex"),
    )
    assert output.startswith("HTTP/2 400")
    assert '"BadDeviceToken"' in output


@pytest.mark.external("h2load")
@pytest.mark.parametrize(("connections", "streams"), [(1, 1), (1, 500), (4, 100)])
async def test_h2load(wire_fake: FakeApns, tmp_path: Path, connections: int, streams: int) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps(BODY))
    output = await run(
        program("h2load"),
        *(f"-c{connections}", f"-m{streams}", "-n2000", f"-d{body}"),
        *header_options(wire_fake),
        f"https://localhost:{wire_fake.port}/3/device/{TOKEN}",
    )
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in output
    assert "status codes: 2000 2xx" in output


@pytest.mark.external("nghttp")
async def test_nghttp_finds_no_protocol_error(wire_fake: FakeApns, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps(BODY))
    output = await run(
        program("nghttp"),
        *("--verbose", "--no-dep", f"--data={body}"),
        *header_options(wire_fake),
        f"https://localhost:{wire_fake.port}/3/device/{TOKEN}",
    )
    assert ":status: 200" in output
    assert not re.search(r"PROTOCOL_ERROR|FLOW_CONTROL_ERROR|FRAME_SIZE_ERROR|invalid", output)


async def test_httpx(wire_fake: FakeApns) -> None:
    context = ssl.create_default_context(cafile=wire_fake.ca_file)
    headers = headers_for(wire_fake)
    async with httpx.AsyncClient(
        http1=False, http2=True, verify=context, headers=headers
    ) as client:

        async def send(number: int) -> httpx.Response:
            return await client.post(
                f"https://localhost:{wire_fake.port}/3/device/{number:064x}",
                json=BODY,
                headers={"apns-id": str(uuid.UUID(int=number))},
            )

        await send(0)
        answers = await asyncio.gather(*(send(number) for number in range(1, 501)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.http_version for answer in answers} == {"HTTP/2"}
    echoed = [uuid.UUID(answer.headers["apns-id"]).int for answer in answers]
    assert echoed == list(range(1, 501))


def aioapns_for(fake: FakeApns) -> APNs:
    context = ssl.create_default_context(cafile=fake.ca_file)
    sender = APNs(
        key=fake.key_file.read_text(),
        key_id=fake.key_id,
        team_id=fake.team_id,
        topic=f"{fake.bundle_id}.push-type.liveactivity",
        max_connections=2,
        ssl_context=context,
    )
    sender.pool.protocol_class = type(
        "Local", (sender.pool.protocol_class,), {"APNS_SERVER": "localhost", "APNS_PORT": fake.port}
    )
    return sender


async def test_aioapns(wire_fake: FakeApns) -> None:
    sender = aioapns_for(wire_fake)

    async def send(token: str) -> Any:
        request = NotificationRequest(
            device_token=token, message=BODY, priority=10, push_type=PushType.LIVEACTIVITY
        )
        return await sender.send_notification(request)

    assert (await send(TOKEN)).is_successful
    results = await asyncio.gather(*(send(f"{number:064x}") for number in range(500)))
    assert all(result.is_successful for result in results)
    refused = await send("nothex")
    assert (refused.status, refused.description) == ("400", "BadDeviceToken")
    sender.pool.close()
    await asyncio.sleep(0)
