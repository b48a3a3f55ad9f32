"""The gateway over real HTTP before a real store, with the fake's phones behind it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from apns_live import Endpoint
from apns_live.activities import Sealer, Service
from apns_live.activities.apps import App
from apns_live.activities.store.sealing import new_key
from apns_live.gateway import Gateway, GatewaySettings, create_app
from apns_live.gateway.scopes import ALL
from apns_live.gateway.serving import serving
from apns_live.testing import FakeApns
from apns_live.testing.phones import PhoneSettings
from tests.activities.databases import store_address, store_kind  # noqa: F401 - fixtures

TYPE = "Match"
BUNDLE_ID = "com.example.scores"
ALERT = {"title": "Kick-off", "body": "It begins"}


class Live:
    """A gateway that listens, its service, and the phones."""

    def __init__(self, fake: FakeApns, service: Service) -> None:
        self.fake = fake
        self.service = service
        self.phones: list[Any] = []
        self.app: App
        self.other: App
        self.key: str
        self.other_key: str
        self.api: FastAPI
        self.http: httpx.AsyncClient
        self.url: str

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.api.state.gateway
        return gateway

    async def fill(self) -> None:
        """Make two apps that push with the fake's key, and an API key of each."""
        apps = self.service.apps
        self.app = await apps.create(name="A", bundle_id=BUNDLE_ID, environment="sandbox", id="a")
        self.other = await apps.create(name="B", bundle_id="com.example.b", id="b")
        await apps.add_key(
            self.app,
            self.fake.key_file.read_text(),
            key_id=self.fake.key_id,
            team_id=self.fake.team_id,
            environment="any",
        )
        self.key = await self.make_key()
        _, self.other_key = await self.gateway.keys.create(self.other, scopes=ALL, name="other")

    async def make_key(self, *scopes: str, **changes: Any) -> str:
        """Make a key of the first app; with every scope if none is named."""
        values: dict[str, Any] = {"scopes": scopes or ALL, "name": "server", **changes}
        _, secret = await self.gateway.keys.create(self.app, **values)
        return secret

    def caller(self, secret: str = "") -> httpx.AsyncClient:
        """A client that calls with a key, or with none."""
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)

    async def add_phones(self, count: int) -> list[Any]:
        """Phones phone-1, ... of users user-1, ... whose push-to-start tokens are registered."""
        tokens = []
        for number in range(len(self.phones) + 1, len(self.phones) + count + 1):
            phone = self.fake.devices.add_device(
                f"phone-{number}", bundle_id=BUNDLE_ID, attributes_types=[TYPE]
            )
            self.phones.append(phone)
            token = phone.token_of("start", TYPE)
            assert token is not None
            tokens.append(
                {"device": phone.id, "kind": "start", "attributes_type": TYPE, "token": token.text}
            )
            body = {"user": f"user-{number}"}
            assert (await self.http.put(f"/v1/devices/{phone.id}", json=body)).status_code == 204
        answer = await self.http.post("/v1/tokens", json={"tokens": tokens})
        assert answer.json() == {"count": count}
        return self.phones[-count:]

    async def start(self, name: str = "m1", **changes: Any) -> dict[str, Any]:
        """Start an activity for everyone."""
        body = {
            "id": name,
            "attributes_type": TYPE,
            "content_state": {"home": 0},
            "alert": ALERT,
            "audience": {"everyone": True},
            **changes,
        }
        answer = await self.http.post("/v1/activities", json=body)
        assert answer.status_code == 202, answer.text
        accepted: dict[str, Any] = answer.json()
        return accepted

    async def hand_in(self) -> None:
        """Let the app on every phone hand in its cards' tokens, with a credential of its own."""
        await self.until(lambda: all(phone.activities for phone in self.phones))
        await self.until(lambda: all(phone.activities[-1].token for phone in self.phones))
        for phone in self.phones:
            tokens = [
                {
                    "kind": "activity",
                    "activity": json.loads(card.attributes)["activityId"],
                    "attributes_type": TYPE,
                    "token": card.token.text,
                }
                for card in phone.activities
                if card.token
            ]
            minted = await self.http.post(f"/v1/devices/{phone.id}/credentials")
            async with self.caller(minted.json()["credential"]) as app:
                answer = await app.post("/v1/device/tokens", json={"tokens": tokens})
                assert answer.status_code == 200, answer.text

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that the wire brings about."""
        async with asyncio.timeout(120):  # on a busy machine
            while not holds():
                await asyncio.sleep(0.02)

    async def shows(self, state: str, content: dict[str, Any]) -> None:
        """Wait until every phone's newest card shows this."""
        await self.until(
            lambda: all(
                phone.activities
                and phone.activities[-1].state == state
                and json.loads(phone.activities[-1].content) == content
                for phone in self.phones
            )
        )


@pytest.fixture
def settings() -> GatewaySettings:
    """What a test's gateway is set to; to be replaced."""
    return GatewaySettings()


async def opened(address: str, settings: GatewaySettings, folder: Path) -> AsyncIterator[Live]:
    """Run everything over a database."""
    # In real time: by default a card's token takes up to two seconds.
    quick = PhoneSettings(token_delay=(0.0, 0.05))
    async with FakeApns(
        directory=folder / "fake", bundle_id=BUNDLE_ID, devices="strict", phone_settings=quick
    ) as fake:
        endpoint = Endpoint(**fake.endpoint._asdict())
        async with Service.open(
            address,
            sealing=Sealer(new_key()),
            endpoints={"production": endpoint, "sandbox": endpoint},
        ) as service:
            live = Live(fake, service)
            live.api = create_app(service, settings=settings, dialects=())
            await live.fill()
            async with (
                serving(live.api, host="127.0.0.1", drain=1.0) as live.url,
                live.caller(live.key) as live.http,
            ):
                yield live


@pytest.fixture
async def live(
    settings: GatewaySettings, sqlite_template: Path, tmp_path: Path
) -> AsyncIterator[Live]:
    """Everything over SQLite."""
    shutil.copy(sqlite_template, tmp_path / "live.db")
    async for one in opened(str(tmp_path / "live.db"), settings, tmp_path):
        yield one


@pytest.fixture
async def both(
    settings: GatewaySettings,
    store_address: str,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> AsyncIterator[Live]:
    """Everything over SQLite, and over PostgreSQL."""
    async for one in opened(store_address, settings, tmp_path):
        yield one
