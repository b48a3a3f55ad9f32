"""When the fake goes away the page says so, keeps what it had, and finds it again."""

import contextlib
import re

import pytest
from playwright.async_api import expect

from apns_live.testing import FakeApns, SimulatedClock
from apns_live.testing.control import serve_control
from tests.servers import free_port

pytestmark = [pytest.mark.external("chromium"), pytest.mark.asyncio(loop_scope="package")]


async def test_disconnected_and_back(inspector, directory):
    # The browser itself writes to the console that the address does not answer.
    inspector.tolerated = re.compile(r"net::ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING)")
    port = free_port()
    async with FakeApns(directory=directory, clock=SimulatedClock()) as fake:
        fake.devices.add_device("before")
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(serve_control(fake, port=port))
            page = await inspector.open(url)
            await expect(page.locator(".phone-item")).to_have_count(1)
            await expect(page.locator("#banner")).to_be_hidden()
        await expect(page.locator("#banner")).to_be_visible()
        await expect(page.locator("#banner")).to_contain_text("Disconnected")
        await expect(page.locator("#link-state")).to_have_text("Disconnected")
        await expect(page.locator(".phone-item")).to_have_count(1)
        await page.get_by_role("button", name="Advance 1 min").click()
        await expect(page.locator(".toast")).to_contain_text("does not answer")
        async with serve_control(fake, port=port):
            fake.devices.add_device("after")
            # The page may find the fake by itself before a click would reach the button.
            await page.locator("#banner button").dispatch_event("click")
            await expect(page.locator("#link-state")).to_have_text("Live")
            await expect(page.locator("#banner")).to_be_hidden()
            await expect(page.locator(".phone-item")).to_have_count(2)
            await expect(page.locator("#live")).to_have_text("Connected again.")
            await page.close()


async def test_it_comes_back_by_itself(inspector, directory):
    inspector.tolerated = re.compile(r"net::ERR_(CONNECTION_REFUSED|INCOMPLETE_CHUNKED_ENCODING)")
    port = free_port()
    async with FakeApns(directory=directory, clock=SimulatedClock()) as fake:
        async with serve_control(fake, port=port) as url:
            page = await inspector.open(url)
        await expect(page.locator("#banner")).to_be_visible()
        async with serve_control(fake, port=port):
            await expect(page.locator("#link-state")).to_have_text("Live")
            await page.close()


async def test_with_a_token_the_page_opens_by_its_link(inspector, directory):
    async with (
        FakeApns(directory=directory, clock=SimulatedClock()) as fake,
        serve_control(fake, token="a-long-secret") as url,
    ):
        page = await inspector.open(f"{url}/?token=a-long-secret")
        assert page.url == f"{url}/"
        await page.get_by_role("button", name="Add a phone").click()
        await expect(page.locator(".phone-item")).to_have_count(1)
        await page.close()
