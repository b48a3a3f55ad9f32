"""The gateway beside its fake as ``apns-live gateway --with-fake`` runs them, for real clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx


class Live:
    """Where it is, and what its phones show."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.url: str = facts["url"]
        self.secret: str = facts["keys"]["activitysmith"]
        self.app: str = facts["app_id"]
        self._seen = 0
        self.fake = httpx.AsyncClient(base_url=facts["inspector"], timeout=90.0)
        self.native = httpx.AsyncClient(
            base_url=self.url,
            timeout=30.0,
            headers={"authorization": f"Bearer {facts['keys']['native']}"},
        )

    async def aclose(self) -> None:
        await self.fake.aclose()
        await self.native.aclose()

    async def key(self, **changes: Any) -> str:
        """Make another key of the dialect; return its secret."""
        body = {
            "name": "another",
            "dialect": "activitysmith",
            "scopes": [
                "activities:start",
                "activities:update",
                "activities:end",
                "streams:write",
                "notifications:send",
            ],
        }
        answer = await self.native.post("/v1/keys", json={**body, **changes})
        answer.raise_for_status()
        return str(answer.json()["secret"])

    async def configure(self, **settings: Any) -> None:
        """Change the dialect's settings of the app."""
        chosen = {"attributes_type": "DemoAttributes", "metrics_on_demand": True, **settings}
        answer = await self.native.patch(
            f"/v1/apps/{self.app}", json={"settings": {"activitysmith": chosen}}
        )
        answer.raise_for_status()

    async def cards(self, activity: str) -> list[dict[str, Any]]:
        """Every phone's card of an activity."""
        answer = await self.fake.get("/v1/activities", params={"limit": 500})
        answer.raise_for_status()
        return [
            card
            for card in answer.json()["items"]
            if (card["attributes"] or {}).get("activity_id") == activity
        ]

    async def until(self, activity: str, holds: Callable[[dict[str, Any]], object]) -> list[Any]:
        """Wait, push by push, until all five phones show a card for which this holds."""
        while True:
            cards = await self.cards(activity)
            if len(cards) == 5 and all(holds(card) for card in cards):
                return cards
            answer = await self.fake.get(
                "/v1/pushes/next", params={"after": self._seen, "timeout": 30}
            )
            assert answer.status_code == 200, "no push came that would change it"
            self._seen = answer.json()["number"]

    async def pushes(self, title: str) -> list[dict[str, Any]]:
        """The ordinary pushes that were received with this title."""
        answer = await self.fake.get("/v1/pushes", params={"limit": 500})
        found = []
        for item in answer.json()["items"]:
            if item["push_type"] != "alert":
                continue
            whole = (await self.fake.get(f"/v1/pushes/{item['number']}")).json()
            payload = whole.get("payload") or {}
            if (payload.get("aps", {}).get("alert") or {}).get("title") == title:
                found.append({**item, "payload": payload})
        return found
