"""The page beside the fake: walked through in Chromium for each API, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import async_playwright, expect

from apns_live.cli.trying.recording import dialect_of
from apns_live.cli.with_fake import Place, trying
from tests.gateway.quick import quick_phones  # noqa: F401 - the fixture
from tests.inspector.conftest import FLAGS
from tests.programs import program

PATIENCE = 30_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture
async def ready(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    async with trying(Place(directory=tmp_path)) as facts:
        yield facts


async def test_the_page_is_for_this_machine_and_its_own_scripts(ready: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=ready["url"]) as client:
        for path in ("/try", "/try/try.css", "/try/try.js", "/try/state"):
            answer = await client.get(path)
            assert answer.status_code == 200, path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            for key in ready["keys"].values():
                assert key not in answer.text
            refused = await client.get(path, headers={"host": "evil.example"})
            assert refused.status_code == 403
        body = {"vendor": "native", "step": "start"}
        origin = {"origin": "https://evil.example"}
        assert (await client.post("/try/send", json=body, headers=origin)).status_code == 403
        text = {"content-type": "text/plain"}
        refused = await client.post("/try/send", content=b'{"vendor":"native"}', headers=text)
        assert refused.status_code == 415
        for bad in ({}, {"vendor": "x", "step": "start"}, {"vendor": "native", "step": "x"}, []):
            assert (await client.post("/try/send", json=bad)).status_code == 400
        for path in ("/try/../cli.py", "/try/nope", "/try/index.html"):
            assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize("vendor", ["native", "activitysmith", "braze", "onesignal"])
async def test_each_sample_goes_from_start_to_end(ready: dict[str, Any], vendor: str) -> None:
    async with httpx.AsyncClient(base_url=ready["url"], timeout=20) as client:

        async def state() -> dict[str, Any]:
            found: dict[str, Any] = (await client.get("/try/state")).json()
            return found

        async def shown(wanted: str) -> bool:
            cards = [phone["activities"][-1:] for phone in (await state())["phones"]]
            return all(card and card[0]["state"] == wanted and card[0]["token"] for card in cards)

        async def pushed() -> bool:
            return all(
                sum(len(operation["pushes"]) for operation in call["operations"]) >= 5
                for call in (await state())["calls"]
            )

        for step, wanted in (("start", "active"), ("update", "active"), ("end", "ended")):
            sent = await client.post("/try/send", json={"vendor": vendor, "step": step})
            call = (await state())["calls"][0]
            assert sent.json()["status"] < 300, call
            # Each step has left before the next one: a newer state would take its place.
            async with asyncio.timeout(20):
                while not (await shown(wanted) and await pushed()):
                    await asyncio.sleep(0.1)
        calls = (await state())["calls"]
        assert [call["dialect"] for call in calls] == [vendor] * 3
        for call in calls:
            for operation in call["operations"]:
                for push in operation["pushes"]:
                    assert push["became"]["apns_id"] == push["apns_id"]
                    assert push["became"]["device"] == push["device"]


async def joined(ready: dict[str, Any]) -> None:
    """Wait until every phone has handed in the token of every card that lives."""
    headers = {"authorization": f"Bearer {ready['keys']['native']}"}
    async with (
        httpx.AsyncClient(base_url=ready["url"], headers=headers) as gateway,
        asyncio.timeout(20),
    ):
        while True:
            page = await gateway.get("/v1/activities", params={"status": "active"})
            found = [
                await gateway.get(f"/v1/activities/{one['id']}") for one in page.json()["items"]
            ]
            if all(one.json()["devices"] == 5 for one in found):
                return
            await asyncio.sleep(0.1)


@pytest.mark.external("chromium")
async def test_walked_through_in_a_browser(
    quick_phones: None,  # noqa: F811
    ready: dict[str, Any],
    tmp_path: Path,
) -> None:
    problems: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        driver = await stack.enter_async_context(async_playwright())
        browser = await driver.chromium.launch(executable_path=program("chromium"), args=FLAGS)
        stack.push_async_callback(browser.close)
        page = await browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.on(
            "console",
            lambda said: problems.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        outside: list[str] = []
        page.on(
            "request",
            lambda request: (
                outside.append(request.url)
                if not request.url.startswith((ready["url"], "data:"))
                else None
            ),
        )
        await page.goto(f"{ready['url']}/try")
        await expect(page.locator("#link")).to_have_attribute("data-state", "live")
        await expect(page.locator(".phone")).to_have_count(5)
        for number, name in enumerate(("Native", "ActivitySmith", "Braze", "OneSignal"), 1):
            await page.get_by_role("tab", name=name, exact=True).click()
            for step in ("start", "update", "end"):
                await expect(page.get_by_role("button", name=step, exact=True)).to_have_attribute(
                    "aria-pressed", "true"
                )
                await page.get_by_role("button", name="Send", exact=True).click()
                call = page.locator(".call").first
                await expect(call.locator(".vendor")).to_have_text(name)
                await expect(call.locator(".call-head .status")).to_have_text(re.compile("20[0-9]"))
                wanted = "ended" if step == "end" else "active"
                await expect(
                    page.locator(f'.phone .name + .card[data-state="{wanted}"]')
                ).to_have_count(5)
                await expect(call.locator('.became[data-good="true"]')).to_have_count(5)
                await joined(ready)
            await expect(page.locator(".call")).to_have_count(number * 3)
        await page.screenshot(path=str(tmp_path / "try.png"), full_page=True)
        for width in (390, 820):
            await page.set_viewport_size({"width": width, "height": 800})
            wide = await page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width
    assert problems == []
    assert outside == []


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/activities", "native"),
        ("/v1/streams/x", "native"),
        ("/live-activity/start", "activitysmith"),
        ("/api/live-activity/stream/x", "activitysmith"),
        ("/messages/live_activity/start", "braze"),
        ("/apps/x/activities/activity/T", "onesignal"),
        ("/api/v1/apps/x/live_activities/y/notifications", "onesignal"),
    ],
)
def test_whose_call_it_is(path: str, dialect: str) -> None:
    assert dialect_of(path) == dialect


async def test_with_a_contract_the_demo_shows_the_apps_own_type(tmp_path: Path) -> None:
    game = Path(__file__).parents[2] / "contracts" / "Game.swift"
    async with (
        trying(Place(directory=tmp_path, contract=(game,))) as facts,
        httpx.AsyncClient(base_url=facts["url"], timeout=30) as http,
    ):
        for vendor in ("native", "braze", "onesignal"):
            for step in ("start", "update"):
                asked = {"vendor": vendor, "step": step}
                answer = await http.post("/try/send", json=asked)
                assert answer.json()["status"] in {201, 202}, (vendor, step, answer.text)
        state = (await http.get("/try/state")).json()
        body = state["samples"]["native"]["steps"]["start"]["body"]
        assert "GameAttributes" in str(body)
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
