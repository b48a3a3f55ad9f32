"""Makes the pictures of docs/inspector.md: ``python -m tests.inspector.pictures [FOLDER]``.

Needs Chromium. Without a folder it writes inspector-light.png, inspector-dark.png and
inspector-calls.png into docs/images. It takes half a minute: the curve of pushes needs seconds.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Page, expect

from .conftest import Inspector, chromium
from .scene import MATCH, Scene, ordinary_day, scene
from .views import gateway, make_call

FOLDER = Path(__file__).parents[2] / "docs" / "images"
BURSTS = (3, 8, 5, 14, 22, 17, 30, 24, 12, 19, 9, 6)
"""Pushes in each of the seconds before the pictures."""


async def make(folder: Path) -> None:
    """Write the pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    async with scene() as play, chromium() as browser:
        await ordinary_day(play)
        inspector = Inspector(browser)
        light = await inspector.open(play.url, color_scheme="light", reduced_motion="reduce")
        dark = await inspector.open(play.url, color_scheme="dark", reduced_motion="reduce")
        await dark.get_by_role("radio", name="Expanded").click()
        await load(play, light)
        await expect(light.locator(".push-row").first).to_be_visible()
        await dark.get_by_label("Search pushes").fill("stored")
        await dark.locator(".push-row", has_text="Stored").first.click()
        await expect(dark.locator("#detail .log-row").first).to_be_visible()
        for page, name in ((light, "inspector-light.png"), (dark, "inspector-dark.png")):
            await page.screenshot(path=folder / name)
        with tempfile.TemporaryDirectory() as place:
            async with gateway(Path(place)) as facts:
                calls = await inspector.open(facts["inspector"], reduced_motion="reduce")
                await make_call(calls)
                await calls.screenshot(path=folder / "inspector-calls.png")
        for context in inspector.contexts:
            await context.close()


async def load(play: Scene, page: Page) -> None:
    """Push to the first phone for some seconds."""
    activity = next(iter(play.fake.devices.activities.values()))
    assert activity.token is not None
    for pushes in BURSTS:
        for _ in range(pushes):
            await play.update(activity.token.text, MATCH)
            await play.clock.advance(1)
        await page.wait_for_timeout(1000)


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
