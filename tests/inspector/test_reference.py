"""The gateway's reference page in Chromium: every call is described and can be tried, and nothing comes from elsewhere."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from .test_axe import RUN, axe  # noqa: F401 - the fixture
from .views import SCHEMES, SIZES

pytestmark = [pytest.mark.external("chromium"), pytest.mark.asyncio(loop_scope="package")]


@pytest_asyncio.fixture(loop_scope="package")
async def page(ready, inspector) -> Page:
    return await inspector.open(f"{ready['url']}/reference", until=".call >> nth=0")


def call(page: Page, name: str) -> Any:
    return page.locator(f"#{name}")


async def opened(page: Page, name: str) -> Any:
    found = call(page, name)
    await found.locator("> summary").click()
    await expect(found.locator("form")).to_be_visible()
    return found


async def test_it_shows_every_call_and_asks_this_gateway_alone(ready, page, inspector):
    async with httpx.AsyncClient(base_url=ready["url"]) as http:
        spec = (await http.get("/openapi.json")).json()
    names = [one["operationId"] for path in spec["paths"].values() for one in path.values()]
    await expect(page.locator(".call")).to_have_count(len(names))
    for name in names:
        # Each can be drawn: its parameters, body, examples and answers.
        await page.evaluate("name => document.getElementById(name).open = true", name)
        await expect(call(page, name).locator("form")).to_have_count(1)
    assert {url.split("/")[2] for url in inspector.requests} == {ready["url"].split("/")[2]}
    assert "`" not in await page.locator("#calls").inner_text()


async def test_a_call_is_made_with_the_key_that_stays_in_the_page(ready, page):
    key = ready["keys"]["native"]
    await page.get_by_label("Key", exact=True).fill(key)
    start = await opened(page, "start_activity")
    body = json.loads(await start.get_by_label("Text of the body").input_value())
    body["audience"] = {"users": ["user-1"]}
    await start.get_by_label("Text of the body").fill(json.dumps(body))
    await start.get_by_role("button", name="Send").click()
    await expect(start.get_by_role("status")).to_contain_text("202")
    await expect(start.get_by_label("Answer", exact=True)).to_contain_text('"operation"')
    await start.get_by_text("As curl").click()
    curl = await start.get_by_label("The call as curl").text_content()
    assert "$APNS_LIVE_KEY" in curl
    assert key not in curl
    assert await page.evaluate("Object.keys(localStorage).length + document.cookie.length") == 0
    await page.reload()
    await expect(page.get_by_label("Key", exact=True)).to_have_value("")


async def test_parameters_go_where_they_belong_and_a_refusal_is_shown(ready, page, inspector):
    inspector.tolerated = re.compile("status of 404")  # Chromium's word for the refusal
    await page.get_by_label("Key", exact=True).fill(ready["keys"]["native"])
    users = await opened(page, "list_users")
    await users.get_by_label("limit (query)").fill("2")
    await users.get_by_role("button", name="Send").click()
    await expect(users.get_by_label("Answer", exact=True)).to_contain_text("user-2")
    await expect(users.get_by_label("Answer", exact=True)).not_to_contain_text("user-3")
    one = await opened(page, "get_user")
    await one.get_by_label("user (path)").fill("a/b?c")
    async with page.expect_request(re.compile(r"/v1/users/a%2Fb%3Fc$")):
        await one.get_by_role("button", name="Send").click()
    await expect(one.get_by_role("status")).to_contain_text("404")
    await expect(one.get_by_label("Answer", exact=True)).to_contain_text('"not_found"')


async def test_wrong_json_is_told_while_typing(page):
    start = await opened(page, "start_activity")
    await start.get_by_label("Text of the body").fill('{"a": }')
    await expect(start.get_by_role("alert")).to_contain_text("This is not JSON yet")


async def test_the_search_and_the_address_find_a_call(ready, page, inspector):
    await page.get_by_label("Search").fill("start activity")
    await expect(call(page, "start_activity")).to_be_visible()
    await expect(call(page, "list_users")).to_be_hidden()
    await page.get_by_label("Search").fill("nothing of the kind")
    await expect(page.locator("#count")).to_have_text("No call has these words.")
    linked = f"{ready['url']}/reference#list_users"
    other = await inspector.open(linked, until="#list_users form")
    assert await other.locator("details.call[open]").count() == 1


async def test_a_stream_is_shown_as_it_comes_and_can_be_stopped(ready, page):
    await page.get_by_label("Key", exact=True).fill(ready["keys"]["native"])
    start = await opened(page, "start_activity")
    body = json.loads(await start.get_by_label("Text of the body").input_value())
    body |= {"id": "followed", "audience": {"users": ["user-1"]}}
    await start.get_by_label("Text of the body").fill(json.dumps(body))
    await start.get_by_role("button", name="Send").click()
    await expect(start.get_by_role("status")).to_contain_text("202")
    events = await opened(page, "follow_activity")
    await events.get_by_label("activity (path)").fill("followed")
    await events.get_by_role("button", name="Send").click()
    await expect(events.get_by_label("Answer", exact=True)).to_contain_text("data:")
    await events.get_by_role("button", name="Stop").click()
    await expect(events.get_by_role("status")).to_have_text("Stopped")


@pytest.mark.external("axe-core")
async def test_axe_finds_nothing(page, axe):  # noqa: F811
    await page.evaluate(axe)
    problems = []
    for name in ("start_activity", "import_devices", "list_users"):
        await opened(page, name)
    for width, height in SIZES:
        await page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            problems += [(width, scheme, *each) for each in await page.evaluate(RUN, None)]
        wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"at {width} the page is {wide} too wide"
    assert problems == [], json.dumps(problems, indent=1)
