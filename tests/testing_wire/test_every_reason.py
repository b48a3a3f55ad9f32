"""Every reason of the table, produced over real HTTP/2 on both faces with an independent client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from apns_live.errors import FakeError
from apns_live.testing import FakeApns, SimulatedClock, TokenCondition, TokenStatus
from apns_live.testing.channels import LIMIT
from apns_live.testing.reasons import ROWS, TABLE, Reason

from .wire_client import BODY, bearer, token_of

ASGI_CANNOT: dict[str, str] = {}
"""Reasons that hypercorn's face cannot give, and why. None: what is not a matter of frames works."""

TOKEN = token_of(7)


@dataclass
class Asking:
    """One fake, one client, and what is needed to produce any reason."""

    fake: FakeApns
    client: httpx.AsyncClient
    clock: SimulatedClock
    answers: list[httpx.Response] = field(default_factory=list)
    token: str = ""

    async def push(
        self, token: str = TOKEN, *, body: bytes = BODY, **headers: Any
    ) -> httpx.Response:
        return await self._send("POST", f"{self.fake.url}/3/device/{token}", body, headers, True)

    async def broadcast(
        self, channel: str, *, body: bytes = BODY, **headers: Any
    ) -> httpx.Response:
        url = f"{self.fake.url}/4/broadcasts/apps/{self.fake.bundle_id}"
        wanted = {
            "apns_channel_id": channel,
            "apns_priority": "10",
            "apns_expiration": "0",
            "apns_topic": None,
            **headers,
        }
        return await self._send("POST", url, body, wanted, True)

    async def manage(
        self, method: str, *, body: bytes = b"", bundle_id: str = "", **headers: Any
    ) -> httpx.Response:
        url = f"{self.fake.manage_url}/1/apps/{bundle_id or self.fake.bundle_id}/channels"
        return await self._send(method, url, body, headers, False)

    async def _send(
        self, method: str, url: str, body: bytes, headers: dict[str, Any], is_push: bool
    ) -> httpx.Response:
        # Signed once: a second signature is another token, and APNs counts those.
        self.token = self.token or bearer(self.fake)
        wanted: dict[str, Any] = {"authorization": self.token}
        if is_push:
            wanted["apns-topic"] = f"{self.fake.bundle_id}.push-type.liveactivity"
            wanted["apns-push-type"] = "liveactivity"
        wanted.update({name.replace("_", "-"): value for name, value in headers.items()})
        sent = [(name, value) for name, value in wanted.items() if value is not None]
        answer = await self.client.request(method, url, headers=sent, content=body)
        self.answers.append(answer)
        return answer


@contextlib.asynccontextmanager
async def asking(face: Any, **options: Any) -> AsyncIterator[Asking]:
    clock = SimulatedClock()
    async with (
        FakeApns(face=face, clock=clock, **options) as fake,
        httpx.AsyncClient(
            http2=True, http1=False, verify=fake.certificates.client_context(), timeout=30
        ) as client,
    ):
        yield Asking(fake, client, clock)


async def bad_environment(it: Asking) -> None:
    it.fake.add_key("PRODUCTION", environment="production")
    await it.push(authorization=bearer(it.fake, key_id="PRODUCTION"))


async def unrelated_key(it: Asking) -> None:
    it.fake.add_key("SECONDKEY1")
    await it.push()
    await it.push(authorization=bearer(it.fake, key_id="SECONDKEY1"))


async def second_team(it: Asking) -> None:
    it.fake.add_key("OTHERTEAMK", team_id="XYZ987WVUT")
    await it.push()
    original = it.fake.team_id
    it.fake.team_id = "XYZ987WVUT"
    try:
        await it.push(authorization=bearer(it.fake, key_id="OTHERTEAMK"))
    finally:
        it.fake.team_id = original


async def token_updates(it: Asking) -> None:
    await it.push()
    await it.push(authorization=bearer(it.fake, age=1))


async def expired_device(it: Asking) -> None:
    it.fake.state.overrides[TOKEN] = TokenStatus(TokenCondition.EXPIRED, 1_799_999_000_123)
    answer = await it.push()
    assert answer.json()["timestamp"] == 1_799_999_000_123


async def unregistered_device(it: Asking) -> None:
    it.fake.state.overrides[TOKEN] = TokenStatus(TokenCondition.UNREGISTERED, 1_799_999_000_123)
    await it.push()


async def two_priorities(it: Asking) -> None:
    headers = [
        ("authorization", bearer(it.fake)),
        ("apns-topic", f"{it.fake.bundle_id}.push-type.liveactivity"),
        ("apns-push-type", "liveactivity"),
        ("apns-priority", "5"),
        ("apns-priority", "10"),
    ]
    url = f"{it.fake.url}/3/device/{TOKEN}"
    it.answers.append(await it.client.post(url, headers=headers, content=BODY))


async def no_capability(it: Asking) -> None:
    it.fake.add_app("com.example.silent", broadcast=False)
    await it.manage("POST", bundle_id="com.example.silent", body=CREATE)


async def deleted_channel(it: Asking) -> None:
    channel = it.fake.add_channel()
    await it.manage("DELETE", apns_channel_id=channel.channel_id)
    await it.broadcast(channel.channel_id)


async def ten_thousand(it: Asking) -> None:
    for _ in range(LIMIT):
        it.fake.add_channel()
    await it.manage("POST", body=CREATE)


async def by_fault(it: Asking, reason: str) -> None:
    it.fake.fault("answer", reason=reason)
    await it.push()


async def throttled(it: Asking) -> None:
    it.fake.fault("throttle", limit=1, per=60)
    await it.push()
    await it.push()


async def path_of(it: Asking, path: str) -> None:
    answer = await it.client.post(
        f"{it.fake.url}{path}", headers={"authorization": bearer(it.fake)}, content=BODY
    )
    it.answers.append(answer)


CREATE = b'{"message-storage-policy":1,"push-type":"LiveActivity"}'

HOW: dict[str, Any] = {
    "BadCollapseId": lambda it: it.push(apns_collapse_id="c" * 65),
    "BadDeviceToken": lambda it: it.push("nonsense"),
    "BadExpirationDate": lambda it: it.push(apns_expiration="soon"),
    "BadMessageId": lambda it: it.push(apns_id="1"),
    "BadPriority": lambda it: it.push(apns_priority="7"),
    "BadTopic": lambda it: it.push(apns_topic="com example"),
    "DeviceTokenNotForTopic": lambda it: it.push(apns_topic=it.fake.bundle_id),
    "DuplicateHeaders": two_priorities,
    "IdleTimeout": lambda it: by_fault(it, "IdleTimeout"),
    "InvalidPushType": lambda it: it.push(apns_push_type="postcard"),
    "MissingDeviceToken": lambda it: it.push(""),
    "MissingTopic": lambda it: it.push(apns_topic=None),
    "PayloadEmpty": lambda it: it.push(body=b""),
    "TopicDisallowed": lambda it: it.push(apns_topic="com.unknown"),
    "BadCertificate": lambda it: by_fault(it, "BadCertificate"),
    "BadCertificateEnvironment": lambda it: by_fault(it, "BadCertificateEnvironment"),
    "ExpiredProviderToken": lambda it: it.push(authorization=bearer(it.fake, age=3601)),
    "Forbidden": second_team,
    "InvalidProviderToken": lambda it: it.push(authorization="bearer a.b.c"),
    "MissingProviderToken": lambda it: it.push(authorization=None),
    "UnrelatedKeyIdInToken": unrelated_key,
    "BadEnvironmentKeyIdInToken": bad_environment,
    "BadPath": lambda it: path_of(it, "/2/device/"),
    "MethodNotAllowed": lambda it: it._send(
        "GET", f"{it.fake.url}/3/device/{TOKEN}", b"", {}, True
    ),
    "ExpiredToken": expired_device,
    "Unregistered": unregistered_device,
    "PayloadTooLarge": lambda it: it.push(body=b"x" * 4097),
    "TooManyProviderTokenUpdates": token_updates,
    "TooManyRequests": throttled,
    "InternalServerError": lambda it: by_fault(it, "InternalServerError"),
    "ServiceUnavailable": lambda it: by_fault(it, "ServiceUnavailable"),
    "Shutdown": lambda it: by_fault(it, "Shutdown"),
    "FeatureNotEnabled": no_capability,
    "MissingChannelId": lambda it: it.manage("GET"),
    "BadChannelId": lambda it: it.broadcast("dHN0LXNyY2gtY2hubC0wMQ=="),
    "ChannelNotRegistered": deleted_channel,
    "BadRequestParams": lambda it: it.manage("POST", body=b'{"push-type":"LiveActivity","x":1}'),
    "BadRequestPayload": lambda it: it.manage("POST", body=b"nonsense"),
    "CannotCreateChannelConfig": ten_thousand,
    "MissingPushType": lambda it: it.manage("POST", body=b'{"message-storage-policy":1}'),
    "TopicMismatch": lambda it: it.manage("GET", bundle_id="com.unknown"),
}


def test_every_row_has_a_way() -> None:
    assert set(HOW) == set(TABLE)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_on_the_wire_face(row: Reason) -> None:
    await produce("wire", row)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.name not in ASGI_CANNOT], ids=lambda row: row.name
)
async def test_on_hypercorn(row: Reason) -> None:
    await produce("asgi", row)


async def produce(face: str, row: Reason) -> None:
    async with asking(face) as it:
        await HOW[row.name](it)
        last = it.answers[-1]
        assert (last.status_code, last.json()["reason"]) == (row.status, row.spelled(False))
        assert last.http_version == "HTTP/2"
        assert last.headers["content-type"] == "application/json"
        assert ("timestamp" in last.json()) == (row.status == 410)
        is_push = "/3/device" in str(last.url) or "/2/device" in str(last.url)
        assert ("apns-id" in last.headers) == is_push
        assert ("apns-request-id" in last.headers) == (not is_push)


@pytest.mark.parametrize("face", ["wire", "asgi"])
async def test_documented_spelling_and_production(face: str) -> None:
    async with asking(face, spelling="documented", environment="production") as it:
        it.fake.add_key("SANDBOXKEY", environment="development")
        answer = await it.push(authorization=bearer(it.fake, key_id="SANDBOXKEY"))
        assert answer.json() == {"reason": "BadEnvironmentKeyIdInToken"}
        assert "apns-unique-id" not in (await it.push()).headers


@pytest.mark.parametrize("face", ["wire", "asgi"])
async def test_the_life_of_a_channel(face: str) -> None:
    async with asking(face) as it:
        created = await it.manage("POST", body=CREATE)
        channel = created.headers["apns-channel-id"]
        assert (created.status_code, created.content) == (201, b"")
        read = await it.manage("GET", apns_channel_id=channel)
        assert read.json() == {"message-storage-policy": 1, "push-type": "LiveActivity"}
        sent = await it.broadcast(channel)
        assert sent.status_code == 200
        assert sent.headers["apns-unique-id"]
        assert it.fake.pushes[-1].channel_id == channel
        deleted = await it.manage("DELETE", apns_channel_id=channel)
        assert (deleted.status_code, deleted.content) == (204, b"")
        assert (await it.manage("DELETE", apns_channel_id=channel)).status_code == 404


async def test_the_asgi_face_refuses_what_it_cannot_do() -> None:
    async with asking("asgi") as it:
        for action in ("goaway", "reset", "silence", "settings", "fail_tls"):
            with pytest.raises(FakeError, match="cannot"):
                it.fake.fault(action)
        with pytest.raises(FakeError, match="wire face"):
            it.fake.go_away()


async def test_latency_and_withheld_answers_on_the_asgi_face() -> None:
    async with asking("asgi") as it:
        it.fake.fault("delay", delay=5.0)
        task = asyncio.create_task(it.push())
        await it.clock.settle(until=lambda: it.fake.recorder.faults.total)
        await it.clock.advance_until(task.done, at_most=30)
        assert (await task).status_code == 200
        it.fake.faults.clear()
        for action in ("withhold", "stall"):
            it.fake.fault(action)
            it.client.timeout = httpx.Timeout(0.2)
            with pytest.raises(httpx.TimeoutException):
                await it.push()
            it.fake.faults.clear()
        it.client.timeout = httpx.Timeout(30)
        assert (await it.push()).status_code == 200
