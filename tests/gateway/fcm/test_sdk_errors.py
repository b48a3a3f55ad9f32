"""Every error code of FCM's table, typed as Google's SDKs type it, on simulated time over real sockets.

Go's and Java's SDKs are met here too, where they are (see `tests.programs`): a start, an update and an
end on a phone, and every code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import firebase_admin
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    PKCS12Certificate,
    serialize_java_truststore,
)
from firebase_admin import credentials, exceptions, messaging
from urllib3.util import retry

from apns_live.activities.store.database import Database
from apns_live.cli.store_access import connect_proxy
from apns_live.gateway.keys import with_token_uri
from apns_live.gateway.serving import serving
from apns_live.gateway.wire.certificates import Certificates
from apns_live.testing import FakeApns, SimulatedClock
from apns_live.testing.certificates import LOCAL_NAMES, certificates_in
from tests.activities.send.world import phone_settings
from tests.aside import aside
from tests.gateway.fcm.world import FcmWorld
from tests.programs import program

HERE = Path(__file__).parent
GOOGLE = ("fcm.googleapis.com", "oauth2.googleapis.com")
LIVE = ["activities:start", "activities:update", "activities:end"]
CODES: dict[str, tuple[int, str, type[Exception], str]] = {
    "INVALID_ARGUMENT": (
        400,
        "BadDeviceToken",
        exceptions.InvalidArgumentError,
        "invalid-argument",
    ),
    "UNREGISTERED": (
        410,
        "Unregistered",
        messaging.UnregisteredError,
        "registration-token-not-registered",
    ),
    # An ordinary message, which the account may not send.
    "SENDER_ID_MISMATCH": (0, "", messaging.SenderIdMismatchError, "mismatched-credential"),
    "QUOTA_EXCEEDED": (
        429,
        "TooManyRequests",
        messaging.QuotaExceededError,
        "message-rate-exceeded",
    ),
    "INTERNAL": (500, "InternalServerError", exceptions.InternalError, "internal-error"),
    "THIRD_PARTY_AUTH_ERROR": (
        403,
        "InvalidProviderToken",
        messaging.ThirdPartyAuthError,
        "third-party-auth-error",
    ),
    # The last: after a 503 all pushes wait a while.
    "UNAVAILABLE": (503, "ServiceUnavailable", exceptions.UnavailableError, "server-unavailable"),
}
"""What APNs says, and what it is in Python and in Node; in Go and Java it has the code's own name."""
TOKENS = {code: f"{number:02x}" * 32 for number, code in enumerate(CODES, 0xA0)}


class Served:
    """A gateway with the names of Google's hosts, and where its files are."""

    def __init__(self, world: FcmWorld, url: str, ca_file: Path, account: Path) -> None:
        self.world = world
        self.url = url
        self.ca_file = ca_file
        self.account = account

    async def run(self, *command: str, given: str, **environment: str) -> str:
        """Return what a program prints."""
        done = await aside(
            subprocess.run,
            command,
            input=given.encode(),
            capture_output=True,
            timeout=240,
            check=False,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[Served]:
    clock = SimulatedClock(time.time())  # SDKs sign with the machine's
    async with FakeApns(clock=clock, devices="strict", phone_settings=phone_settings()) as fake:
        world = FcmWorld(fake, clock, database)
        await world.open()
        await world.open_gateway()
        await world.service.apps.configure(world.app, {"fcm_unregistered": True})
        world.gateway.keys.forget()
        _, text = await world.gateway.keys.create(
            world.app, dialect="fcm", scopes=LIVE, name="live activities only"
        )
        for code, (status, reason, *_) in CODES.items():
            if reason:
                fake.faults.add(action="answer", status=status, reason=reason, token=TOKENS[code])
        (tmp_path / "tls").mkdir()
        made = certificates_in(tmp_path / "tls", (*LOCAL_NAMES, *GOOGLE))
        certificates = Certificates(made.certificate_file, made.key_file)
        async with serving(world.api, gateway=world.gateway, certificates=certificates) as url:
            account = tmp_path / "account.json"
            account.write_text(with_token_uri(text, url))
            passing = asyncio.create_task(_pass(clock))
            yield Served(world, url, made.ca_file, account)
            passing.cancel()
            await asyncio.gather(passing, return_exceptions=True)
        await world.http.aclose()
        await world.close()


async def _pass(clock: SimulatedClock) -> None:
    """Let time pass faster than it does: the gateway tries for twelve seconds where APNs asks for it."""
    while True:
        await asyncio.sleep(0.005)
        await clock.advance(0.5)


def _hurried(seconds: float) -> None:
    """What an SDK waits between two tries, at the pace of `_pass`."""
    time.sleep(seconds / 100)


def python_message(code: str) -> messaging.Message:
    token = TOKENS[code]
    if not CODES[code][1]:
        return messaging.Message(fid=token, notification=messaging.Notification(title="Goal"))
    custom = {"timestamp": int(time.time()), "event": "update", "content-state": {"n": 1}}
    payload = messaging.APNSPayload(aps=messaging.Aps(custom_data=custom))
    return messaging.Message(
        fid="x", apns=messaging.APNSConfig(live_activity_token=token, payload=payload)
    )


async def test_python(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(served.ca_file))
    monkeypatch.setattr(retry, "time", SimpleNamespace(sleep=_hurried, time=time.time))
    address = f"{served.url}/v1/projects/{{0}}/messages:send"
    monkeypatch.setattr(messaging._MessagingService, "FCM_URL", address)
    app = firebase_admin.initialize_app(credentials.Certificate(str(served.account)))

    async def error(code: str) -> BaseException:
        with pytest.raises(exceptions.FirebaseError) as caught:
            await aside(messaging.send, python_message(code))
        return caught.value

    try:
        *others, last = CODES
        found = [*await asyncio.gather(*map(error, others)), await error(last)]
    finally:
        await aside(firebase_admin.delete_app, app)  # it runs a loop of its own
    assert dict(zip(CODES, map(type, found), strict=True)) == {
        code: kind for code, (_, _, kind, _) in CODES.items()
    }


@pytest.mark.external("node", "firebase-admin-node")
async def test_node(served: Served) -> None:
    messages = [json_message(code) for code in CODES]
    given = {"account": json.loads(served.account.read_text()), "one": messages, "many": []}
    text = await served.run(
        program("node"),
        str(HERE / "node_admin.js"),
        given=json.dumps(given),
        FIREBASE_ADMIN=program("firebase-admin-node"),
        NODE_EXTRA_CA_CERTS=str(served.ca_file),
        NODE_OPTIONS=f"--require {HERE / 'redirect.js'} --require {HERE / 'hurry.js'}",
        GATEWAY_PORT=served.url.rpartition(":")[2],
    )
    said = json.loads(text)
    expected = {code: f"messaging/{name}" for code, (_, _, _, name) in CODES.items()}
    assert {code: one["code"] for code, one in zip(CODES, said["one"], strict=True)} == expected


def json_message(code: str) -> dict[str, Any]:
    token = TOKENS[code]
    if not CODES[code][1]:
        return {"token": token, "notification": {"title": "Goal"}}
    aps = {"timestamp": int(time.time()), "event": "update", "content-state": {"n": 1}}
    return {"token": "x", "apns": {"liveActivityToken": token, "payload": {"aps": aps}}}


@contextlib.asynccontextmanager
async def go_command(served: Served, tmp_path: Path) -> AsyncIterator[list[str]]:
    built = str(tmp_path / "sender")
    await aside(
        subprocess.run,
        [program("go"), "build", "-o", built, str(HERE / "sender.go")],
        cwd=program("firebase-admin-go"),
        env={**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=mod"},
        check=True,
        timeout=600,
    )
    yield [built, str(served.account), served.url]


@contextlib.asynccontextmanager
async def java_command(served: Served, tmp_path: Path) -> AsyncIterator[list[str]]:
    authority = x509.load_pem_x509_certificate(served.ca_file.read_bytes())
    store = tmp_path / "trust.p12"
    store.write_bytes(
        serialize_java_truststore(
            [PKCS12Certificate(authority, b"gateway")], BestAvailableEncryption(b"password")
        )
    )
    port = int(served.url.rpartition(":")[2])
    async with connect_proxy(0, ("localhost", port)) as address:
        options = {
            "https.proxyHost": "localhost",
            "https.proxyPort": address.rpartition(":")[2],
            "http.nonProxyHosts": "localhost",
            "javax.net.ssl.trustStore": str(store),
            "javax.net.ssl.trustStorePassword": "password",
        }
        words = [f"-D{name}={value}" for name, value in options.items()]
        jars = f"{program('firebase-admin-java')}/*"
        yield [program("java"), *words, "-cp", jars, str(HERE / "Sender.java"), str(served.account)]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(go_command, marks=pytest.mark.external("go", "firebase-admin-go"), id="go"),
        pytest.param(
            java_command, marks=pytest.mark.external("java", "firebase-admin-java"), id="java"
        ),
    ],
)
async def test_go_and_java(served: Served, tmp_path: Path, command: Any) -> None:
    world = served.world
    [phone] = await world.add_phones(1)
    async with command(served, tmp_path) as words:

        async def send(lines: list[str]) -> dict[str, str]:
            text = await served.run(
                *words, given="\n".join(lines) + "\n", SSL_CERT_FILE=str(served.ca_file)
            )
            return dict(line.split(" ", 1) for line in text.splitlines())

        said = await send([f"started {world.token_of(phone)} start 1"])
        assert said["started"].startswith(f"projects/{world.app.settings['fcm_project_id']}/")
        [card] = phone.activities
        assert json.loads(card.content) == {"n": 1}
        async with asyncio.timeout(30.0):
            while card.token is None:
                await asyncio.sleep(0.01)
        asked = [
            f"{code} {token} {'update' if CODES[code][1] else 'alert'} 1"
            for code, token in TOKENS.items()
        ]
        said = await send([f"updated {card.token.text} update 2", *asked[:-1]])
        assert said.pop("updated").startswith("projects/")
        assert json.loads(card.content) == {"n": 2}
        await send([f"ended {card.token.text} end 3"])
        assert (card.state, json.loads(card.content)) == ("ended", {"n": 3})
        assert said | await send(asked[-1:]) == {code: code for code in CODES}
