"""Makes the pictures of docs/inspector.md: ``python -m tests.inspector.pictures [FOLDER]``.

Needs Chromium. Without a folder it writes docs/images/inspector-light.png and inspector-dark.png.
The pictures show a fake on a simulated clock, so they differ only where the page does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from playwright.async_api import expect

from .conftest import Inspector, chromium
from .scene import ordinary_day, scene

FOLDER = Path(__file__).parents[2] / "docs" / "images"


async def make(folder: Path) -> None:
    """Write both pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    async with scene() as play, chromium() as browser:
        await ordinary_day(play)
        inspector = Inspector(browser)
        light = await inspector.open(play.url, color_scheme="light")
        await expect(light.locator(".push-row").first).to_be_visible()
        await light.screenshot(path=folder / "inspector-light.png")
        dark = await inspector.open(play.url, color_scheme="dark")
        await dark.get_by_role("radio", name="Expanded").click()
        await dark.locator(".push-row[data-kind=discarded]").last.click()
        await expect(dark.locator("#detail pre")).to_be_visible()
        await dark.screenshot(path=folder / "inspector-dark.png")
        for context in inspector.contexts:
            await context.close()


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER))
