"""The Calls view beside the fake, over HTTP: samples of each API, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from apns_live.cli.with_fake import SAMPLES, Place, api_of, trying
from tests.gateway.quick import quick_phones  # noqa: F401 - the fixture


@pytest.fixture
async def ready(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    async with trying(Place(directory=tmp_path)) as facts:
        yield facts


def filled(part: Any, values: dict[str, Any]) -> Any:
    """Fill a sample in, as the page does."""
    if isinstance(part, dict):
        return {name: filled(each, values) for name, each in part.items()}
    if not isinstance(part, str) or part.strip("{}") in values:
        return values.get(part.strip("{}"), part) if isinstance(part, str) else part
    for name, value in values.items():
        part = part.replace(f"{{{name}}}", value) if isinstance(value, str) else part
    return part


class Page:
    """Does what the page does."""

    def __init__(self, http: httpx.AsyncClient, setup: dict[str, Any]) -> None:
        self.http, self.setup = http, setup
        self.activity = "demo-1"

    async def send(self, api: str, step: str) -> dict[str, Any]:
        values = self.setup["values"]
        values = values | {"state": values["states"][step], "activity": self.activity}
        sample = filled(self.setup["apis"][api]["steps"][step], values)
        answer = await self.call(api, "POST", sample["path"], sample["body"])
        if isinstance(answer["body"], dict):
            self.activity = answer["body"].get("activity_id", self.activity)
        return answer

    async def call(self, api: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
        text = "" if body is None else json.dumps(body)
        asked = {"api": api, "method": method, "path": path, "body": text}
        answer = await self.http.post("/gateway/send", json=asked)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def test_the_old_addresses_lead_to_the_page(ready: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=ready["url"]) as client:
        for path in ("/", "/try"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["location"]) == (
                307,
                ready["inspector"] + "/",
            )
        page = await client.get("/try", follow_redirects=True)
        assert "Fake APNs" in page.text


async def test_the_page_is_for_this_machine_and_its_own_scripts(ready: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=ready["inspector"]) as client:
        await Page(client, (await client.get("/gateway")).json()).send("native", "start")
        for path in ("/", "/js/main.js", "/gateway", "/gateway/calls"):
            answer = await client.get(path)
            assert answer.status_code == 200, path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            for key in ready["keys"].values():
                assert key not in answer.text
            refused = await client.get(path, headers={"host": "evil.example"})
            assert refused.status_code == 403
        asked = {"api": "native", "method": "GET", "path": "/v1/apps", "body": ""}
        for origin in ("https://evil.example", ready["url"], "null"):
            refused = await client.post("/gateway/send", json=asked, headers={"origin": origin})
            assert refused.status_code == 403, origin
        text = {"content-type": "text/plain"}
        refused = await client.post("/gateway/send", content=json.dumps(asked), headers=text)
        assert refused.status_code == 415
        for bad in (
            {},
            [],
            7,
            {**asked, "api": "x"},
            {**asked, "path": 1},
            {**asked, "path": "/ü"},
            {**asked, "body": {}},
            {**asked, "method": None},
        ):
            assert (await client.post("/gateway/send", json=bad)).status_code == 400, bad
        assert (await client.get("/gateway/calls?after=x")).status_code == 200
        assert (await client.get("/gateway/nope")).status_code == 404


async def test_a_key_goes_to_the_gateway_alone_and_is_not_shown(ready: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=ready["inspector"]) as client:
        page = Page(client, {})
        for path in ("//evil.example/v1/apps", "http://evil.example/v1/apps", "@evil.example/"):
            assert (await page.call("native", "GET", path))["status"] == 404, path
        body = {"name": "new", "dialect": "braze", "scopes": ["activities:start"]}
        made = await page.call("native", "POST", "/v1/keys", body)
        assert made["status"] == 201
        assert made["body"]["secret"] == "<hidden>"
        (call,) = (await client.get("/gateway/calls")).json()
        assert call["response"]["secret"] == "<hidden>"


@pytest.mark.parametrize("api", list(SAMPLES["apis"]))
async def test_each_sample_goes_from_start_to_end(
    quick_phones: None,  # noqa: F811
    ready: dict[str, Any],
    api: str,
) -> None:
    async with httpx.AsyncClient(base_url=ready["inspector"], timeout=20) as client:
        page = Page(client, (await client.get("/gateway")).json())

        async def shown(wanted: str) -> bool:
            devices = (await client.get("/v1/devices", params={"automatic": "false"})).json()
            cards = [phone["activities"][-1:] for phone in devices["items"]]
            return all(card and card[0]["state"] == wanted and card[0]["token"] for card in cards)

        async def pushed(count: int) -> bool:
            found = await page.call("native", "GET", "/v1/operations")
            return sum(each["accepted"] for each in found["body"]["items"]) >= count

        steps = (("start", "active", 5), ("update", "active", 10), ("end", "ended", 15))
        for step, wanted, count in steps:
            sent = await page.send(api, step)
            assert sent["status"] < 300, sent
            # Each step has left before the next one: a newer state would take its place.
            async with asyncio.timeout(20):
                while not (await shown(wanted) and await pushed(count)):
                    await asyncio.sleep(0.05)
        calls = (await client.get("/gateway/calls")).json()
        assert [call["api"] for call in calls] == [api] * 3
        assert (await client.get("/gateway/calls?after=2")).json() == calls[2:]
        pushes = (await client.get("/v1/pushes?limit=100")).json()["items"]
        known = {push["apns_id"]: push["device"] for push in pushes}
        for operation in (await page.call("native", "GET", "/v1/operations"))["body"]["items"]:
            path = f"/v1/operations/{operation['id']}/outcomes"
            for outcome in (await page.call("native", "GET", path))["body"]["items"]:
                assert known[outcome["apns_id"]] == outcome["device"]


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/activities", "native"),
        ("/v1/streams/x", "native"),
        ("/v1/notifications", "native"),
        ("/v1/apps/x", "native"),
        ("/live-activity/start", "activitysmith"),
        ("/api/live-activity/stream/x", "activitysmith"),
        ("/metrics/orders/value", "activitysmith"),
        ("/messages/live_activity/start", "braze"),
        ("/apps/x/activities/activity/T", "onesignal"),
        ("/api/v1/apps/x/live_activities/y/notifications", "onesignal"),
        ("/v1/projects/x/messages:send", "fcm"),
    ],
)
def test_whose_call_it_is(path: str, api: str) -> None:
    assert api_of(path) == api


async def test_with_a_contract_the_demo_shows_the_apps_own_type(tmp_path: Path) -> None:
    game = Path(__file__).parents[2] / "contracts" / "Game.swift"
    async with (
        trying(Place(directory=tmp_path, contract=(game,))) as facts,
        httpx.AsyncClient(base_url=facts["url"], timeout=30) as http,
        httpx.AsyncClient(base_url=facts["inspector"], timeout=30) as inspector,
    ):
        page = Page(inspector, (await inspector.get("/gateway")).json())
        for number, api in enumerate(("native", "braze", "onesignal")):
            page.activity = f"demo-{number}"
            for step in ("start", "update"):
                answer = await page.send(api, step)
                assert answer["status"] in {201, 202}, (api, step, answer)
        assert page.setup["values"]["type"] == "GameAttributes"
        refused = await http.post(
            "/v1/activities",
            headers={"authorization": f"Bearer {facts['keys']['native']}"},
            json={
                "attributes_type": "GameAttributes",
                "content_state": {"home": "1"},
                "attributes": {"title": "Final"},
                "alert": {"title": "Kick-off", "body": "Now"},
                "audience": {"everyone": True},
            },
        )
        assert (refused.status_code, refused.json()["field"]) == (422, "content_state.home")
