"""axe-core finds nothing serious on any view, at both widths and in both colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page

from tests.programs import program

from .scene import ordinary_day
from .views import OF_THE_FAKE, OF_THE_GATEWAY, SCHEMES, SIZES, make_call, show

pytestmark = [
    pytest.mark.external("chromium", "axe-core"),
    pytest.mark.asyncio(loop_scope="package"),
]

HIDE = "hidden => { document.getElementById('phones-list').hidden = hidden; }"
RUN = """async only => (await axe.run(document,
        {resultTypes: ["violations"], preload: false, iframes: false,
         ...(only ? {runOnly: {type: "rule", values: [only]}} : {})})).violations
    .filter(each => ["serious", "critical"].includes(each.impact))
    .map(each => [each.id, each.help, each.nodes.slice(0, 4).map(node => [node.html.slice(0, 160),
        node.any.concat(node.all, node.none).map(check => check.message).join("; ").slice(0, 240)])])"""


@pytest.fixture(scope="module")
def axe() -> str:
    return (Path(program("axe-core")) / "axe.min.js").read_text("utf-8")


async def found(page: Page, axe: str, views: tuple[str, ...]) -> list[Any]:
    """Return what axe finds, with the view in which it finds it."""
    await page.evaluate(axe)
    problems = []
    for view in views:
        await page.set_viewport_size({"width": 1440, "height": 900})
        await page.evaluate(HIDE, False)
        await show(page, view)
        # The phones are the same in every view, and most of the page: one view has them.
        await page.evaluate(HIDE, view != views[0])
        for width, height in SIZES:
            await page.set_viewport_size({"width": width, "height": height})
            for scheme in SCHEMES:
                await page.emulate_media(color_scheme=scheme)
                # Colours change nothing but the contrast.
                only = "color-contrast" if scheme == "dark" else None
                run = await page.evaluate(RUN, only)
                problems += [(view, width, scheme, *each) for each in run]
    return problems


async def test_of_the_fake(play, open_page, axe):
    await ordinary_day(play)
    page = await open_page(reduced_motion="reduce")
    problems = await found(page, axe, OF_THE_FAKE)
    assert problems == [], json.dumps(problems, indent=1)


async def test_of_the_gateway(ready, inspector, axe):
    page = await inspector.open(ready["inspector"], reduced_motion="reduce")
    await make_call(page)
    problems = await found(page, axe, OF_THE_GATEWAY)
    assert problems == [], json.dumps(problems, indent=1)
