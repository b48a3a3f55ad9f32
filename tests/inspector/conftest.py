"""A scene, and Chromium in front of its inspector. Every test ends with: the console had no errors."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from apns_live.cli.with_fake import Place, trying
from tests.gateway.quick import quick_phones  # noqa: F401 - the fixture
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
ColorScheme = Literal["light", "dark"]
ReducedMotion = Literal["reduce", "no-preference"]

expect.set_options(timeout=PATIENCE)


class Inspector:
    """Opens pages and keeps what their consoles said.

    ``shared`` is a page that the tests before left: a new one costs a second of CPU. A test gets it
    for the first page that it opens, if that needs no context of its own.
    """

    def __init__(self, browser: Browser, shared: Page | None = None) -> None:
        self.browser = browser
        self.contexts: list[BrowserContext] = []
        self.problems: list[str] = []
        self.dialogs: list[str] = []
        self.requests: list[str] = []
        self.tolerated: re.Pattern[str] | None = None
        self._shared = shared
        self._leave: Callable[[], Awaitable[None]] | None = None

    async def open(
        self,
        url: str,
        *,
        width: int = 1440,
        height: int = 900,
        color_scheme: ColorScheme = "light",
        reduced_motion: ReducedMotion = "no-preference",
        until: str = LIVE,
        **options: Any,
    ) -> Page:
        """Open the page at an address and wait until it shows ``until``: it has heard of the fake."""
        page, self._shared = (None, self._shared) if options else (self._shared, None)
        if page is None:
            context = await self.browser.new_context(timezone_id="UTC", **options)
            self.contexts.append(context)
            page = await context.new_page()
            self._listen(page)
        else:
            self._leave = functools.partial(_leave, page, self._listen(page))
        page.set_default_timeout(PATIENCE)
        await page.set_viewport_size({"width": width, "height": height})
        await page.emulate_media(color_scheme=color_scheme, reduced_motion=reduced_motion)
        await page.goto(url)
        await expect(page.locator(until)).to_be_visible()
        return page

    def _listen(self, page: Page) -> dict[Any, Callable[[Any], Any]]:
        listeners: dict[Any, Callable[[Any], Any]] = {
            "console": lambda said: self._hear(said.type, said.text),
            "pageerror": lambda error: self._hear("error", str(error)),
            "request": lambda request: self.requests.append(request.url),
            "dialog": self._dismiss,
        }
        for kind, listener in listeners.items():
            page.on(kind, listener)
        return listeners

    def _hear(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not (self.tolerated and self.tolerated.search(text)):
            self.problems.append(f"{kind}: {text}")

    async def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        await dialog.dismiss()

    async def close(self) -> None:
        """Close what was opened, and leave the shared page as it was found."""
        for context in self.contexts:
            await context.close()
        leave, self._leave = self._leave, None
        if leave is not None:
            await leave()


async def _leave(page: Page, listeners: dict[Any, Callable[[Any], Any]]) -> None:
    if not page.is_closed():
        await page.evaluate("try { localStorage.clear(), sessionStorage.clear() } catch {}")
        await page.mouse.move(0, 0)
        await page.goto("about:blank")
    for kind, listener in listeners.items():
        page.remove_listener(kind, listener)


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


@pytest_asyncio.fixture(loop_scope="package")
async def ready(quick_phones: None, tmp_path: Path) -> AsyncIterator[dict[str, Any]]:  # noqa: F811
    """What a gateway beside its fake says when it is ready."""
    async with trying(Place(directory=tmp_path)) as facts:
        yield facts


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests."""
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def pages(browser: Browser) -> list[Page]:
    """Where the page that tests share is kept."""
    return []


@pytest_asyncio.fixture(loop_scope="package")
async def inspector(browser: Browser, pages: list[Page]) -> AsyncIterator[Inspector]:
    if not pages or pages[0].is_closed():
        pages[:] = [await browser.new_page(timezone_id="UTC")]
    inspector = Inspector(browser, pages[0])
    yield inspector
    await inspector.close()
    assert inspector.problems == []
    assert inspector.dialogs == []


Open = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="package")
async def open_page(inspector: Inspector, play: Scene) -> AsyncIterator[Open]:
    """Open the inspector of the scene."""

    async def open_it(**options: Any) -> Page:
        return await inspector.open(play.url, **options)

    yield open_it
    await inspector.close()  # before the scene goes: a page would say that nobody is there
