"""A gateway over a service over the fake's phones, and a client that speaks to it as a vendor's would."""

from __future__ import annotations

import itertools
import json
import uuid
from typing import Any

import httpx
from fastapi import FastAPI

from apns_live.activities import DeviceRecord, TokenRecord
from apns_live.activities.store.database import Database
from apns_live.gateway import Gateway, GatewaySettings, create_app
from apns_live.gateway.scopes import ALL
from apns_live.testing import FakeApns, SimulatedClock
from tests.activities.send.world import World

TYPE = "Match"


class VendorWorld(World):
    """Phones hand in their tokens as an app with a vendor's attributes would."""

    http: httpx.AsyncClient
    api: FastAPI

    def __init__(self, fake: FakeApns, clock: SimulatedClock, database: Database) -> None:
        super().__init__(fake, clock, database)
        numbers = itertools.count(1)
        self.new_id = lambda: str(uuid.UUID(int=next(numbers), version=4))

    def _on_token(self, device: Any, activity: Any, token: str) -> None:
        attributes = json.loads(activity.attributes)
        scope = attributes.get("brazeActivityId") or attributes["onesignal"]["activityId"]
        self.handed_in.append(
            TokenRecord(
                device=device.id,
                kind="activity",
                token=token,
                registered_at=self.now(),
                scope=scope,
            )
        )

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.api.state.gateway
        return gateway

    def serve(self, settings: GatewaySettings | None = None) -> None:
        """Put a gateway before the service, and a client before the gateway."""
        self.api = create_app(self.service, settings=settings, dialects=("braze", "onesignal"))
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.api, client=("192.0.2.1", 4242)),
            base_url="http://gateway.example",
        )

    async def key(self, dialect: str, **changes: Any) -> str:
        """Make a key with every permission and return its secret."""
        values: dict[str, Any] = {"dialect": dialect, "scopes": ALL, "name": "server"}
        _, secret = await self.gateway.keys.create(self.app, **{**values, **changes})
        return secret

    async def add_users(self, count: int, **told: Any) -> list[Any]:
        """Add phones scores-0, scores-1, ... of the users user-0, user-1, ..."""
        phones = await self.add_phones(count)
        await self.service.devices.tell(
            self.app,
            [DeviceRecord(id=phone.id, user=f"user-{n}", **told) for n, phone in enumerate(phones)],
        )
        return phones

    async def shows(self, phones: list[Any], state: str, **content: Any) -> None:
        """Let time pass until phones show this content, whatever else is in it."""

        def there() -> bool:
            return all(
                phone.activities
                and phone.activities[-1].state == state
                and content.items() <= json.loads(phone.activities[-1].content).items()
                for phone in phones
            )

        await self.until(there)

    async def have_tokens(self, phones: list[Any]) -> None:
        """Let time pass until the phones' cards have handed in their tokens."""
        await self.until(lambda: all(phone.activities[-1].token for phone in phones))
        await self.settled()
