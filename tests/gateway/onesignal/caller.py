"""A server that was written for OneSignal, and the bodies of its documentation with our values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.gateway.braze.world import TYPE, VendorWorld

Sdk = Callable[..., Any]
"""Calls a method of an SDK by its name."""
ACTIVITY = "0f4e6f1e-6f0c-4a55-9d37-2d1a4f3c1a11"


def start_body(**changes: Any) -> dict[str, Any]:
    """The fields and shapes of the example of a start."""
    body = {
        "event": "start",
        "activity_id": ACTIVITY,
        "name": "Boccia final",
        "event_attributes": {"ground": "Hall 3"},
        "event_updates": {"home": 0, "away": 0},
        "contents": {"en": "It begins", "de": "Es beginnt"},
        "headings": {"en": "Kick-off", "de": "Anpfiff"},
        "include_aliases": {"external_id": ["user-0", "user-1"]},
    }
    return {**body, **changes}


def without(body: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in names}


def change_body(event: str = "update", **changes: Any) -> dict[str, Any]:
    body = {"event": event, "name": "Boccia final", "event_updates": {"home": 1, "away": 0}}
    return {**body, **changes}


class Caller:
    """A server that was written for OneSignal."""

    def __init__(self, world: VendorWorld, secret: str) -> None:
        self.world = world
        self.headers = {"authorization": f"Key {secret}"}
        self.app_id = "scores"

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        if body is not None:
            options["json"] = body
        return await self.world.http.request(
            method, f"/apps/{self.app_id}{path}", headers=self.headers, **options
        )

    async def message(self, method: str, name: str) -> Any:
        """Ask for a notification by its id, as the SDKs do."""
        return await self.world.http.request(
            method, f"/notifications/{name}?app_id={self.app_id}", headers=self.headers
        )

    async def start(self, activity_type: str = TYPE, **changes: Any) -> Any:
        return await self.start_with(start_body(**changes), activity_type)

    async def start_with(self, body: Any, activity_type: str = TYPE) -> Any:
        return await self.call("POST", f"/activities/activity/{activity_type}", body)

    async def change(
        self, event: str = "update", *, activity: str = ACTIVITY, **changes: Any
    ) -> Any:
        return await self.call(
            "POST", f"/live_activities/{activity}/notifications", change_body(event, **changes)
        )
