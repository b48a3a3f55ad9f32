"""The Calls panel of ``apns-live gateway --with-fake``: edit, send, look, copy, reload, link."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.programs import program

from .views import make_call

pytestmark = [pytest.mark.external("chromium"), pytest.mark.asyncio(loop_scope="package")]


async def test_each_api_is_tried_and_only_this_page_is_asked(ready, inspector):
    page = await inspector.open(ready["inspector"])
    await expect(page.locator(".phone-item")).to_have_count(5)
    for number, name in enumerate(("Native", "ActivitySmith", "Braze", "OneSignal"), 1):
        await page.get_by_label("API").select_option(label=name)
        await make_call(page)
        await expect(page.locator(".call-row")).to_have_count(number)
        await expect(page.locator(".call-row").first).to_contain_text(name)
        await expect(page.get_by_label("Example")).to_have_value("update")
    text = await page.content()
    assert not [key for key in ready["keys"].values() if key in text]
    assert {url.split("/")[2] for url in inspector.requests} == {ready["inspector"].split("/")[2]}


async def test_an_edited_call_changes_the_card_and_survives_a_reload(ready, inspector):
    page = await inspector.open(ready["inspector"])
    await make_call(page)
    body = page.get_by_label("Request body, JSON")
    await body.fill('{"content_state": {"title": "Order", "status": "Edited here"}}')
    await body.press("Control+Enter")
    await expect(page.locator(".phone-item .card").first).to_contain_text("Edited here")
    await page.reload()
    await expect(page.locator(".call-row")).to_have_count(2)
    await expect(body).to_have_value(
        '{"content_state": {"title": "Order", "status": "Edited here"}}'
    )
    await page.locator(".call-row").last.click()
    assert page.url.endswith("#/call/1")
    await page.locator("#detail [data-open-push]").first.click()
    await expect(page.locator("#detail-title")).to_contain_text("Push #")
    link = page.url
    await page.keyboard.press("Escape")
    assert "#" not in page.url
    again = await inspector.open(link)
    await expect(again.locator("#detail-title")).to_contain_text("Push #")
    await again.evaluate("location.hash = '#/phone/phone-3'")
    await expect(again.locator("#detail-title")).to_have_text("phone-3")
    await again.evaluate("location.hash = '#/call/2'")
    await expect(again.locator("#detail")).to_contain_text("Edited here")
    await again.get_by_role("button", name="Put into the editor").click()
    await expect(again.get_by_label("Request body, JSON")).to_have_value(
        '{\n  "content_state": {\n    "title": "Order",\n    "status": "Edited here"\n  }\n}'
    )


MISTAKES = (
    ('{\n "a": 1\n "b": 2\n}', 3, "a comma or } is missing"),
    ('{\n "a": [1, 2,\n ]\n}', 3, "one comma too many"),
    ('{\n "a": "b\n}', 2, "does not end"),
    ("{\n a: 1}", 2, "in double quotation marks"),
    ("[1,\n 2", 2, "the text ends here"),
    ("{}\n{}", 2, "something follows"),
    ("[01]", 1, "a value is missing"),
)


async def test_the_editor_names_the_line_of_an_error(ready, inspector):
    page = await inspector.open(ready["inspector"])
    body = page.get_by_label("Request body, JSON")
    problem = page.locator("#call-problem")
    for text, line, says in MISTAKES:
        await body.fill(text)
        await expect(problem, text).to_contain_text(f"Line {line}: ")
        await expect(problem, text).to_contain_text(says)
        await expect(body, text).to_have_attribute("aria-invalid", "true")
        await expect(page.get_by_role("button", name="Send", exact=True)).to_be_disabled()
        await problem.get_by_role("button").click()
        await expect(body).to_be_focused()
        await body.fill('{"a": 1}')
        await expect(problem, text).to_be_empty()
    await page.get_by_role("button", name="Format").click()
    await expect(body).to_have_value('{\n  "a": 1\n}')


@pytest.mark.external("curl", "node", "activitysmith-node", "onesignal-node")
async def test_what_is_copied_runs_as_it_is(ready, inspector, tmp_path):
    page = await inspector.open(
        ready["inspector"], permissions=["clipboard-read", "clipboard-write"]
    )
    modules = Path(program("activitysmith-node")).parent
    (tmp_path / "node_modules").symlink_to(modules)
    count = 0
    for api in ("native", "activitysmith", "braze", "onesignal"):
        for button in ("Copy as curl", "Copy for Node"):
            await page.get_by_label("API").select_option(api)
            await page.get_by_label("Example").select_option("start")
            await page.get_by_role("button", name=button).click()
            await expect(page.locator(".toast").last).to_have_text("Copied.")
            text = await page.evaluate("navigator.clipboard.readText()")
            assert ready["keys"][api] not in text
            words = ["sh", "-c", text]
            if button == "Copy for Node":
                (tmp_path / "call.mjs").write_text(text)
                words = [program("node"), "call.mjs"]
            environment = {**os.environ, "APNS_LIVE_KEY": ready["keys"][api]}
            done = await asyncio.to_thread(
                subprocess.run,
                words,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                check=False,
            )
            count += 1
            await expect(page.locator(".call-row"), done.stderr.decode()).to_have_count(count)
            status = page.locator(".call-row").first.locator(".push-verdict")
            await expect(status).to_have_attribute("data-kind", "delivered")


async def test_without_a_gateway_there_is_no_such_panel(open_page):
    page = await open_page()
    await expect(page.get_by_role("tab", name="Pushes")).to_be_visible()
    await expect(page.locator("#tab-calls")).to_be_hidden()
