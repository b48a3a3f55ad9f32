"""A gateway before the fake's phones, and a server that was written for FCM's HTTP v1 API."""

from __future__ import annotations

import functools
import json
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives import serialization

from apns_live.gateway import create_app
from apns_live.gateway.scopes import SENDING
from tests.gateway.braze.world import TYPE, VendorWorld

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
PROJECT = "scores-1f2e3"
SEND = f"/v1/projects/{PROJECT}/messages:send"
REGISTRATION = "dGhpcyBpcyBhIHJlZ2lzdHJhdGlvbg:APA91b"


@functools.cache
def _loaded(pem: str) -> Any:
    """Return a key to sign with: each time that one is read, it is checked for 40 ms."""
    return serialization.load_pem_private_key(pem.encode(), None)


class FcmWorld(VendorWorld):
    """Nothing is stored of an activity, so phones hand in no tokens."""

    account: dict[str, Any]
    bearer: str

    def _on_token(self, device: Any, activity: Any, token: str) -> None:
        """The server learns of it some other way."""

    async def open_gateway(self) -> None:
        self.app = await self.add_app(settings={"fcm_project_id": PROJECT})
        self.api = create_app(self.service, dialects=("fcm",))
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.api, client=("192.0.2.1", 4242)),
            base_url="http://gateway.example",
        )
        self.account = await self.make_account()
        self.bearer = await self.sign_in()

    async def make_account(self, app: Any = None) -> dict[str, Any]:
        _, text = await self.gateway.keys.create(
            app or self.app, dialect="fcm", scopes=SENDING, name="server"
        )
        made: dict[str, Any] = json.loads(text)
        return made

    def assertion(self, account: dict[str, Any] | None = None, **claims: Any) -> str:
        account = account or self.account
        now = int(self.clock.time())
        said = {
            "iss": account["client_email"],
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "aud": "https://oauth2.googleapis.com/token",
            "iat": now,
            "exp": now + 3600,
            **claims,
        }
        return jwt.encode(said, _loaded(account["private_key"]), algorithm="RS256")

    async def ask_token(self, assertion: str, grant: str = GRANT) -> httpx.Response:
        form = {"grant_type": grant, "assertion": assertion}
        return await self.http.post("/token", data=form)

    async def sign_in(self, account: dict[str, Any] | None = None) -> str:
        answer = await self.ask_token(self.assertion(account))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def send(
        self, message: Any, *, path: str = SEND, bearer: str | None = None, **beside: Any
    ) -> httpx.Response:
        """Send a message while time passes."""
        call = self.http.post(
            path,
            json={"message": message, **beside},
            headers={"authorization": f"Bearer {bearer or self.bearer}"},
        )
        answer: httpx.Response = await self.result_of(call)
        return answer

    def aps(self, event: str, **state: Any) -> dict[str, Any]:
        aps: dict[str, Any] = {
            "timestamp": int(self.clock.time()),
            "event": event,
            "content-state": state,
        }
        if event == "start":
            aps |= {
                "attributes-type": TYPE,
                "attributes": {"game": "Boccia"},
                "alert": {"title": "Kick-off", "body": "It begins"},
                "input-push-token": 1,
            }
        return aps

    def live(self, token: str, event: str, **state: Any) -> dict[str, Any]:
        payload = {"aps": self.aps(event, **state)}
        return {"token": REGISTRATION, "apns": {"live_activity_token": token, "payload": payload}}

    def pushes(self) -> list[Any]:
        """Return what came to the push port."""
        return [record.push for record in self.fake.log.pushes]

    @staticmethod
    def token_of(phone: Any, kind: str = "start") -> str:
        return next(token.text for token in phone.tokens if token.kind == kind)
