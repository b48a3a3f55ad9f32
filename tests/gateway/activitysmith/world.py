"""A gateway over a service over the fake's phones, spoken to as ActivitySmith's clients do."""

from __future__ import annotations

import json
from typing import Any

import httpx
from fastapi import FastAPI
from sqlalchemy import update

from apns_live.activities import DeviceRecord, TokenRecord
from apns_live.activities.cards.buttons import WebhookRelay
from apns_live.activities.store import schema
from apns_live.gateway.app import create_app
from apns_live.gateway.context import Gateway
from apns_live.gateway.scopes import ALL
from apns_live.gateway.settings import GatewaySettings
from tests.activities.send.world import World

TYPE = "SmithCard"


class SmithWorld(World):
    """Phones whose app reads ``activity_id`` and hands its tokens to the gateway."""

    http: httpx.AsyncClient
    api: FastAPI
    secret: str

    def _on_token(self, device: Any, activity: Any, token: str) -> None:
        self.handed_in.append(
            TokenRecord(
                device=device.id,
                kind="activity",
                token=token,
                registered_at=self.now(),
                scope=json.loads(activity.attributes)["activity_id"],
            )
        )

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.api.state.gateway
        return gateway

    async def serve(
        self, settings: GatewaySettings | None = None, relay: WebhookRelay | None = None
    ) -> None:
        self.api = create_app(self.service, settings=settings, dialects=("activitysmith",))
        self.gateway.address = "http://gateway.example"
        self.gateway.relay = relay
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.api, client=("192.0.2.1", 4242)),
            base_url="http://gateway.example",
        )
        self.secret = await self.key()

    async def configure(self, **settings: Any) -> None:
        known = self.app.settings.get("activitysmith", {})
        merged = {**known, **settings}
        self.app = await self.service.apps.configure(self.app, {"activitysmith": merged})
        self.gateway.keys.forget()

    async def key(self, **changes: Any) -> str:
        values: dict[str, Any] = {"dialect": "activitysmith", "scopes": ALL, "name": "server"}
        _, secret = await self.gateway.keys.create(self.app, **{**values, **changes})
        return secret

    async def add_smith_phones(self, count: int, *, group: str | None = None) -> list[Any]:
        """Add phones of users user-0, user-1, ... with start and device tokens."""
        first = len(self.phones)
        made = [
            self.fake.devices.add_device(
                f"phone-{number}", bundle_id=self.app.bundle_id, attributes_types=[TYPE]
            )
            for number in range(first, first + count)
        ]
        self.phones += made
        await self.service.devices.tell(
            self.app,
            [DeviceRecord(id=phone.id, user=f"user-{first + n}") for n, phone in enumerate(made)],
        )
        await self.service.devices.register(
            self.app,
            [
                TokenRecord(
                    device=phone.id,
                    kind=token.kind,
                    token=token.text,
                    registered_at=self.now(),
                    scope=TYPE if token.kind == "start" else "",
                )
                for phone in made
                for token in phone.tokens
                if token.kind in {"start", "device"}
            ],
        )
        if group is not None:
            await self.service.people.add_group(self.app, group)
            for phone in made:
                await self.service.people.join_group(self.app, group, "device", phone.id)
        return made

    phones: list[Any]

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        secret: str | None = None,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Call the gateway while time passes."""
        sent = {"authorization": f"Bearer {secret or self.secret}", **(headers or {})}
        if content is None and body is not None:
            content = json.dumps(body).encode()
        if content is not None:
            sent.setdefault("content-type", "application/json")
        answer: httpx.Response = await self.result_of(
            self.http.request(method, path, content=content, headers=sent)
        )
        return answer

    async def ok(self, method: str, path: str, body: Any = None, **changes: Any) -> Any:
        answer = await self.call(method, path, body, **changes)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(
        self, status: int, method: str, path: str, body: Any = None, **changes: Any
    ) -> Any:
        answer = await self.call(method, path, body, **changes)
        assert answer.status_code == status, answer.text
        said = answer.json()
        assert isinstance(said["error"], str)
        assert isinstance(said["message"], str)
        return said

    async def tokens(self) -> None:
        """Let every card hand in its token, and what waits for it be sent."""
        await self.until(
            lambda: all(
                card.token is not None
                for phone in self.phones
                for card in phone.activities
                if card.state == "active"
            )
        )
        await self.settled()

    def leaves(self, phone: Any) -> None:
        """Let the app be deleted from a phone; APNs answers 410 at once."""
        for token in list(phone.tokens):
            self.fake.devices.kill(token, "unregistered")

    async def began_earlier(self, activity: str, *, hours: float) -> None:
        """Say that an activity was started that long ago."""
        earlier = int(hours * 3_600_000)
        table, members = schema.activities, schema.activity_devices
        async with self.service.database.write() as connection:
            row = await connection.scalar(
                update(table)
                .where(table.c.public_id == activity)
                .values(
                    started_at=table.c.started_at - earlier,
                    hand_over_at=table.c.hand_over_at - earlier,
                )
                .returning(table.c.id)
            )
            await connection.execute(
                update(members)
                .where(members.c.activity_id == row)
                .values(started_at=members.c.started_at - earlier)
            )

    @staticmethod
    def card(phone: Any) -> Any:
        """The newest card of a phone: its content state."""
        assert phone.activities, f"{phone.id} shows nothing"
        return json.loads(phone.activities[-1].content)

    @staticmethod
    def id_of(card: Any) -> str:
        return str(json.loads(card.attributes)["activity_id"])

    @staticmethod
    def attributes(phone: Any) -> Any:
        return json.loads(phone.activities[-1].attributes)
