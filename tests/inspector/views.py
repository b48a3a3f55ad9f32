"""Every view of the page, for axe-core and for pictures: ``python -m tests.inspector.views FOLDER``."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Page, expect

from apns_live.cli.with_fake import Place, trying

from .conftest import Inspector, chromium
from .scene import ordinary_day, scene

OF_THE_FAKE = ("phones", "phone", "push", "faults", "connections", "legend", "nothing-found")
OF_THE_GATEWAY = ("calls", "wrong-json", "call")
SIZES = ((1440, 900), (390, 844))
SCHEMES = ("light", "dark")


async def show(page: Page, view: str) -> None:
    """Bring a page that shows phones into a view of it."""
    await page.evaluate("location.hash = ''")
    await page.keyboard.press("Escape")
    await page.locator("#search").fill("")
    detail = page.locator("#detail")
    match view:
        case "phones":
            await page.get_by_role("tab", name="Pushes").click()
            await expect(page.locator(".push-row").first).to_be_visible()
        case "phone":
            await page.locator(".phone-item .caption").first.click()
            await expect(detail.locator(".log-row").first).to_be_visible()
        case "push":
            await page.get_by_role("tab", name="Pushes").click()
            await page.locator(".push-row[data-kind=stored]").first.click()
            await expect(detail.locator(".log-row").first).to_be_visible()
        case "faults":
            await page.get_by_role("tab", name="Faults").click()
            await expect(page.locator(".fault")).to_have_count(1)
        case "connections":
            await page.get_by_role("tab", name="Connections").click()
            await expect(page.locator(".connection").first).to_be_visible()
        case "legend":
            await page.locator(".legend").evaluate("legend => legend.open = true")
        case "nothing-found":
            await page.locator("#search").fill("nothing like it")
            await expect(page.locator("#phones-empty")).to_be_visible()
        case "calls":
            await page.get_by_label("Example").select_option("update")
            await expect(page.locator(".call-row").first).to_be_visible()
        case "wrong-json":
            body = page.get_by_label("Request body, JSON")
            await body.fill(
                '{\n  "content_state": {\n    "status": "On its way"\n    "n": 1\n  }\n}'
            )
            await expect(page.locator("#call-problem")).to_contain_text("Line 4")
        case "call":
            await page.locator(".call-row").first.click()
            await expect(detail.locator(".log-row").first).to_be_visible()


async def make_call(page: Page) -> None:
    """Send the example that is in the editor and wait until its five pushes are seen."""
    rows = page.locator(".call-row")
    known = await rows.count()
    await page.get_by_role("button", name="Send", exact=True).click()
    await expect(rows).to_have_count(known + 1)
    await expect(rows.first).to_contain_text("5 pushes: 5 delivered")


async def make(folder: Path) -> None:
    """Write a picture of every view at both widths and in both colours."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        gateway = trying(Place(directory=Path(place)))
        async with scene() as play, gateway as facts, chromium() as browser:
            await ordinary_day(play)
            inspector = Inspector(browser)
            pages = [
                (await inspector.open(play.url, reduced_motion="reduce"), OF_THE_FAKE),
                (await inspector.open(facts["inspector"], reduced_motion="reduce"), OF_THE_GATEWAY),
            ]
            await make_call(pages[1][0])
            for page, views in pages:
                for view in views:
                    await show(page, view)
                    for scheme in SCHEMES:
                        await page.emulate_media(color_scheme=scheme)
                        for width, height in SIZES:
                            await page.set_viewport_size({"width": width, "height": height})
                            await page.screenshot(
                                path=folder / f"{view}-{width}-{scheme}.png", full_page=True
                            )
            for context in inspector.contexts:
                await context.close()
            print(inspector.problems)


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
