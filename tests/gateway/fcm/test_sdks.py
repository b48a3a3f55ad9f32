"""Google's own SDKs against ``apns-live gateway --with-fake``, judged by what the phones show."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import firebase_admin
import httpx
import pytest
from firebase_admin import credentials, exceptions, messaging
from google.auth.transport.requests import AuthorizedSession
from google.oauth2 import service_account

from apns_live.cli.with_fake import Place, trying
from apns_live.gateway.wire.certificates import Certificates
from apns_live.testing.certificates import LOCAL_NAMES, certificates_in
from tests.programs import program

HERE = Path(__file__).parent
GOOGLE = ("fcm.googleapis.com", "oauth2.googleapis.com", "iid.googleapis.com")
REGISTRATION = "cm9b:APA91b"


class Live:
    """Where the gateway is, and what its phones show."""

    def __init__(self, facts: dict[str, Any], ca_file: Path | None = None) -> None:
        self.url: str = facts["url"]
        self.project: str = facts["fcm"]["project_id"]
        self.account = Path(facts["fcm"]["service_account"])
        self.ca_file = ca_file
        self.fake = httpx.AsyncClient(base_url=facts["inspector"], timeout=60.0)

    async def tokens(self, kind: str = "start") -> list[str]:
        answer = await self.fake.get("/v1/tokens", params={"limit": 500})
        return [one["token"] for one in answer.json()["items"] if one["kind"] == kind]

    async def cards(self) -> list[dict[str, Any]]:
        answer = await self.fake.get("/v1/activities", params={"limit": 500})
        cards: list[dict[str, Any]] = answer.json()["items"]
        return cards

    async def card(self, n: int, state: str = "active") -> dict[str, Any]:
        """Wait until one phone shows this content, and has a token; return its card."""
        async with asyncio.timeout(30.0):
            while True:
                for card in await self.cards():
                    shown = card["content_state"] == {"n": n} and card["state"] == state
                    if shown and (card["token"] or state != "active"):
                        return card
                await asyncio.sleep(0.05)

    async def fault(self, **fault: Any) -> None:
        answer = await self.fake.post("/v1/faults", json={"action": "answer", **fault})
        answer.raise_for_status()

    async def pushes(self) -> int:
        """Return how many requests came to the push port; refused ones count."""
        answer = await self.fake.get("/v1/pushes", params={"limit": 1, "newest": 1})
        return max((int(one["number"]) for one in answer.json()["items"]), default=0)


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with trying(Place(directory=tmp_path)) as facts:
        live = Live(facts)
        yield live
        await live.fake.aclose()


@pytest.fixture
def sdk(live: Live, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """Point firebase-admin for Python here: the file names our token endpoint, the address is private."""
    monkeypatch.setattr(
        messaging._MessagingService, "FCM_URL", f"{live.url}/v1/projects/{{0}}/messages:send"
    )
    app = firebase_admin.initialize_app(credentials.Certificate(str(live.account)))
    yield live
    firebase_admin.delete_app(app)


def aps(event: str, n: int) -> messaging.Aps:
    custom: dict[str, Any] = {
        "timestamp": int(time.time()) + n,
        "event": event,
        "content-state": {"n": n},
    }
    alert = None
    if event == "start":
        custom |= {
            "attributes-type": "DemoAttributes",
            "attributes": {"x": 1},
            "input-push-token": 1,
        }
        alert = messaging.ApsAlert(title="Kick-off", body="It begins")
    return messaging.Aps(alert=alert, custom_data=custom)


def a_message(token: str, event: str, n: int) -> messaging.Message:
    return messaging.Message(
        fid=REGISTRATION,
        apns=messaging.APNSConfig(
            live_activity_token=token, payload=messaging.APNSPayload(aps=aps(event, n))
        ),
    )


async def test_firebase_admin_for_python(sdk: Live) -> None:
    [token, *_] = await sdk.tokens()
    name = await asyncio.to_thread(messaging.send, a_message(token, "start", 1))
    assert name.startswith(f"projects/{sdk.project}/messages/")
    card = await sdk.card(1)
    batch = await messaging.send_each_async([a_message(card["token"], "update", 2)])
    assert batch.responses[0].success, batch.responses[0].exception
    await sdk.card(2)
    dry = await asyncio.to_thread(
        messaging.send_each, [a_message(card["token"], "end", 3)], dry_run=True
    )
    assert dry.success_count == 1
    await asyncio.to_thread(messaging.send, a_message(card["token"], "end", 3))
    await sdk.card(3, "ended")


async def test_errors_are_typed_as_the_sdk_types_them(sdk: Live) -> None:
    [token, *_] = await sdk.tokens()
    before = await sdk.pushes()
    for reason, kind, calls in (
        ("BadDeviceToken", exceptions.InvalidArgumentError, 1),
        # The SDK renews its token and sends again, twice.
        ("InvalidProviderToken", messaging.ThirdPartyAuthError, 3),
    ):
        await sdk.fault(reason=reason, times=calls)
        with pytest.raises(kind):
            await asyncio.to_thread(messaging.send, a_message(token, "update", 1))
    assert await sdk.pushes() - before == 4
    with pytest.raises(exceptions.InvalidArgumentError):
        await asyncio.to_thread(
            messaging.send,
            messaging.Message(fid="x", notification=messaging.Notification(title="x")),
        )


async def test_plain_calls_with_google_auth(live: Live) -> None:
    signed = service_account.Credentials.from_service_account_file(
        str(live.account), scopes=["https://www.googleapis.com/auth/firebase.messaging"]
    )
    [token, *_] = await live.tokens()
    payload = {
        "aps": {
            "timestamp": int(time.time()),
            "event": "start",
            "content-state": {"n": 1},
            "attributes-type": "DemoAttributes",
            "attributes": {},
            "input-push-token": 1,
            "alert": {"title": "a", "body": "b"},
        }
    }
    body = {"token": REGISTRATION, "apns": {"liveActivityToken": token, "payload": payload}}
    with AuthorizedSession(signed) as session:
        answer = await asyncio.to_thread(
            session.post,
            f"{live.url}/v1/projects/{live.project}/messages:send",
            json={"message": body},
        )
    assert answer.status_code == 200, answer.text
    await live.card(1)


@pytest.fixture
async def google(tmp_path: Path) -> AsyncIterator[Live]:
    """A gateway whose certificate has Google's names."""
    made = certificates_in(_folder(tmp_path / "tls"), (*LOCAL_NAMES, *GOOGLE))
    certificates = Certificates(made.certificate_file, made.key_file)
    async with trying(Place(directory=tmp_path, certificates=certificates)) as facts:
        live = Live(facts, made.ca_file)
        yield live
        await live.fake.aclose()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def node_message(token: str, event: str, n: int) -> dict[str, Any]:
    aps: dict[str, Any] = {
        "timestamp": int(time.time()) + n,
        "event": event,
        "content-state": {"n": n},
    }
    if event == "start":
        aps |= {
            "attributes-type": "DemoAttributes",
            "attributes": {"camelCase": {"snake_case": None}},
            "input-push-token": 1,
            "alert": {"title": "Kick-off", "body": "It begins"},
        }
    return {
        "token": REGISTRATION,
        "apns": {
            "liveActivityToken": token,
            "headers": {"apns-priority": "10"},
            "payload": {"aps": aps},
        },
    }


@pytest.mark.external("node", "firebase-admin-node")
async def test_firebase_admin_for_node(google: Live) -> None:
    """``send`` speaks HTTP/1.1, ``sendEach`` nothing but HTTP/2, a hundred streams at a time."""
    [token, *_] = await google.tokens()

    async def node(one: list[Any], many: list[Any]) -> Any:
        given = {"account": json.loads(google.account.read_text()), "one": one, "many": many}
        done = await asyncio.to_thread(
            subprocess.run,
            [program("node"), str(HERE / "node_admin.js")],
            input=json.dumps(given).encode(),
            capture_output=True,
            timeout=90,
            check=False,
            env={
                **os.environ,
                "FIREBASE_ADMIN": program("firebase-admin-node"),
                "NODE_EXTRA_CA_CERTS": str(google.ca_file),
                "NODE_OPTIONS": f"--require {HERE / 'redirect.js'}",
                "GATEWAY_PORT": google.url.rpartition(":")[2],
            },
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    said = await node([node_message(token, "start", 1), {"token": "x"}], [])
    assert said["one"][0]["name"].startswith(f"projects/{google.project}/messages/")
    assert said["one"][1]["code"] == "messaging/invalid-argument"
    card = await google.card(1)
    before = await google.pushes()
    updates = [node_message(card["token"], "update", n) for n in range(2, 502)]
    said = await node([], updates)
    assert [one for one in said["many"] if not isinstance(one, str)] == []
    assert len(set(said["many"])) == 500
    assert await google.pushes() - before == 500
