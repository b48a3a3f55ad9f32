"""Clients that nobody here wrote, unchanged, against both faces."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from aioapns import APNs, NotificationRequest, PushType

from apns_live.testing import FakeApns
from tests.programs import program

from .wire_client import BODY, bearer, push_headers, token_of

CREATE = b'{"message-storage-policy":1,"push-type":"LiveActivity"}'


@pytest.fixture(params=["wire", "asgi"])
async def fake(request: pytest.FixtureRequest) -> AsyncIterator[FakeApns]:
    async with FakeApns(face=request.param) as running:
        yield running


@pytest.fixture
async def wire_fake() -> AsyncIterator[FakeApns]:
    async with FakeApns() as running:
        yield running


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    return output.decode()


def header_options(fake: FakeApns, separator: str = ": ") -> list[str]:
    return [part for item in push_headers(fake).items() for part in ("-H", separator.join(item))]


async def test_httpx_pushes_manages_channels_and_broadcasts(fake: FakeApns) -> None:
    context = fake.certificates.client_context()
    async with httpx.AsyncClient(http2=True, http1=False, verify=context) as client:
        headers = push_headers(fake)
        answers = await asyncio.gather(
            *[
                client.post(f"{fake.url}/3/device/{token_of(n)}", headers=headers, content=BODY)
                for n in range(150)
            ]
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.headers["apns-id"] for answer in answers}) == 150
        authorization = {"authorization": headers["authorization"]}
        channels = f"{fake.manage_url}/1/apps/{fake.bundle_id}/channels"
        created = await client.post(channels, headers=authorization, content=CREATE)
        channel = created.headers["apns-channel-id"]
        sent = await client.post(
            f"{fake.url}/4/broadcasts/apps/{fake.bundle_id}",
            headers={
                **authorization,
                "apns-channel-id": channel,
                "apns-push-type": "liveactivity",
                "apns-priority": "5",
                "apns-expiration": "0",
            },
            content=BODY,
        )
        assert (created.status_code, sent.status_code) == (201, 200)
    assert fake.pushes.total == 151


async def test_aioapns(wire_fake: FakeApns) -> None:
    # On the wire face only: hypercorn ends an answer without a body in an empty DATA frame, which
    # is legal and which aioapns 4.0 takes for JSON; its connection breaks on the first success.
    fake = wire_fake
    sender = APNs(
        key=fake.key_file.read_text(),
        key_id=fake.key_id,
        team_id=fake.team_id,
        topic=fake.bundle_id,
        use_sandbox=True,
        ssl_context=fake.certificates.client_context(),
    )
    # Host and port are constants of its connection class; a subclass is the documented way out.
    sender.pool.protocol_class = type(
        "Local", (sender.pool.protocol_class,), {"APNS_SERVER": "localhost", "APNS_PORT": fake.port}
    )
    requests = [
        NotificationRequest(
            device_token=token_of(number),
            message={"aps": {"alert": "Kick-off", "sound": "default"}},
            notification_id=str(uuid4()),
            time_to_live=3600,
            push_type=PushType.ALERT,
            collapse_key=f"game-{number}",
        )
        for number in range(50)
    ]
    results = await asyncio.gather(*[sender.send_notification(each) for each in requests])
    assert {result.status for result in results} == {"200"}
    assert {push.collapse_id for push in fake.pushes} == {f"game-{n}" for n in range(50)}
    bad = NotificationRequest(device_token="nonsense", message={"aps": {"alert": "x"}})
    refused = await sender.send_notification(bad)
    assert (refused.status, refused.description) == ("400", "BadDeviceToken")
    sender.pool.close()
    await asyncio.sleep(0)


@pytest.mark.external("curl")
async def test_curl(fake: FakeApns) -> None:
    output = await run(
        program("curl"), "-sS", "-i", "--http2", "--cacert", str(fake.ca_file),
        *header_options(fake), "-d", BODY.decode(), f"{fake.url}/3/device/{token_of(1)}",
    )  # fmt: skip
    assert output.startswith("HTTP/2 200")
    assert "apns-unique-id" in output
    refused = await run(
        program("curl"), "-sS", "-i", "--http2", "--cacert", str(fake.ca_file),
        "-X", "DELETE", "-H", f"authorization: {bearer(fake)}",
        "-H", "apns-channel-id: dHN0LXNyY2gtY2hubC0wMQ==",
        f"{fake.manage_url}/1/apps/{fake.bundle_id}/channels",
    )  # fmt: skip
    assert refused.startswith("HTTP/2 404")
    assert '{"reason":"BadPath"}' in refused


@pytest.mark.external("nghttp")
async def test_nghttp(fake: FakeApns, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(BODY)
    output = await run(
        program("nghttp"), "-v", "-m", "5", "--data", str(body),
        *header_options(fake), f"{fake.url}/3/device/{token_of(1)}",
    )  # fmt: skip
    assert output.count(":status: 200") == 5
    assert "PROTOCOL_ERROR" not in output


@pytest.mark.external("h2load")
async def test_h2load(fake: FakeApns, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_bytes(BODY)
    count = 2000 if fake.face_name == "wire" else 300
    output = await run(
        program("h2load"), "-n", str(count), "-c", "2", "-m", "50", "-d", str(body),
        *header_options(fake), f"{fake.url}/3/device/{token_of(1)}",
    )  # fmt: skip
    assert re.search(rf"{count} done, {count} succeeded, 0 failed, 0 errored, 0 timeout", output)
    assert re.search(rf"status codes: {count} 2xx", output)
    assert fake.pushes.total == count


@pytest.mark.external("node-apn")
async def test_node_apn_pushes_manages_channels_and_broadcasts(fake: FakeApns) -> None:
    options = {
        "module": program("node-apn"),
        "key_file": str(fake.key_file),
        "key_id": fake.key_id,
        "team_id": fake.team_id,
        "ca_file": str(fake.ca_file),
        "port": fake.port,
        "manage_port": fake.manage_port,
        "bundle_id": fake.bundle_id,
        "tokens": [token_of(number) for number in range(20)],
    }
    script = Path(__file__).with_name("node_client.js")
    found = json.loads(await run(program("node"), str(script), json.dumps(options)))
    assert len(found["alert"]["sent"]) == 20
    assert found["alert"]["failed"] == []
    assert len(found["update"]["sent"]) == 20
    (failed,) = found["update"]["failed"]
    assert (failed["status"], failed["response"]["reason"]) == (400, "BadDeviceToken")
    channel = found["channel"]
    for step in ("create", "read", "list", "broadcast", "remove"):
        assert len(found[step]["sent"]) == 1, (step, found[step])
        assert found[step]["failed"] == []
    assert found["read"]["sent"][0]["message-storage-policy"] == 1
    assert found["list"]["sent"][0]["channels"] == [channel]
    assert found["again"]["failed"][0]["response"]["reason"] == "BadPath"
    assert fake.pushes.total == 41
    assert [push.channel_id for push in fake.pushes if push.channel_id] == [channel]
