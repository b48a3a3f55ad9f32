"""A scene, and Chromium in front of its inspector. Every test ends with: the console had no errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.programs import program

from .scene import Scene, scene

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 30_000
"""How long a condition may take to come true, in milliseconds: a shared machine is slow at times."""

LIVE = '#link-state[data-state="live"]'
expect.set_options(timeout=PATIENCE)


class Inspector:
    """Opens pages and keeps what their consoles said."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.contexts: list[BrowserContext] = []
        self.problems: list[str] = []
        self.dialogs: list[str] = []
        self.requests: list[str] = []
        self.tolerated: re.Pattern[str] | None = None

    async def open(
        self, url: str, *, width: int = 1440, height: int = 900, until: str = LIVE, **options: Any
    ) -> Page:
        """Open the page at an address and wait until it shows ``until``: it has heard of the fake."""
        context = await self.browser.new_context(
            viewport={"width": width, "height": height}, timezone_id="UTC", **options
        )
        self.contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: self._hear(said.type, said.text))
        page.on("pageerror", lambda error: self._hear("error", str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("dialog", self._dismiss)
        await page.goto(url)
        await expect(page.locator(until)).to_be_visible()
        return page

    def _hear(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not (self.tolerated and self.tolerated.search(text)):
            self.problems.append(f"{kind}: {text}")

    async def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        await dialog.dismiss()


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=program("chromium"), args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates and keys are made once."""
    return tmp_path_factory.mktemp("inspector")


@pytest_asyncio.fixture(loop_scope="package")
async def play(directory: Path) -> AsyncIterator[Scene]:
    async with scene(directory) as play:
        yield play


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests; each has a context of its own in it."""
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="package")
async def inspector(browser: Browser) -> AsyncIterator[Inspector]:
    inspector = Inspector(browser)
    yield inspector
    for context in inspector.contexts:
        await context.close()
    assert inspector.problems == []
    assert inspector.dialogs == []


Open = Callable[..., Awaitable[Page]]


@pytest.fixture
def open_page(inspector: Inspector, play: Scene) -> Open:
    """Open the inspector of the scene."""

    async def open_it(**options: Any) -> Page:
        return await inspector.open(play.url, **options)

    return open_it
