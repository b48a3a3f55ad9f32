"""Dark and light, wide and narrow, with and without movement."""

import pytest
from playwright.async_api import expect

from .scene import ordinary_day

pytestmark = [pytest.mark.external("chromium"), pytest.mark.asyncio(loop_scope="package")]

BACKGROUND = "getComputedStyle(document.body).backgroundColor"
LUMINANCE = """
(() => {
    const parts = text => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
    const linear = part => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
    const light = text => { const [r, g, b] = parts(text).map(linear); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = node => {
        for (let at = node; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor;
            if (/^rgb\\(/.test(color)) return color;
        }
        return getComputedStyle(document.body).backgroundColor;
    };
    return selector => [...document.querySelectorAll(selector)].filter(node => node.offsetParent).map(node => {
        const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
        return [node.className || node.tagName, (a + 0.05) / (b + 0.05)];
    });
})()
"""


async def test_dark_and_light_follow_the_system_until_one_is_chosen(inspector, open_page):
    dark = await open_page(color_scheme="dark")
    light = await open_page(color_scheme="light")
    dark_color, light_color = await dark.evaluate(BACKGROUND), await light.evaluate(BACKGROUND)
    assert dark_color != light_color
    await light.get_by_role("button", name="Change between dark and light").click()
    assert await light.evaluate(BACKGROUND) == dark_color
    await light.reload()
    await expect(light.locator("#link-state")).to_have_attribute("data-state", "live")
    assert await light.evaluate(BACKGROUND) == dark_color
    await light.get_by_role("button", name="Change between dark and light").click()
    assert await light.evaluate(BACKGROUND) == light_color


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_text_can_be_read(play, open_page, scheme):
    """WCAG 2.2, 1.4.3: a contrast of 4.5 for the page's own text."""
    await ordinary_day(play)
    page = await open_page(color_scheme=scheme)
    await expect(page.locator(".push-row").first).to_be_visible()
    selectors = (
        "h1, h2, .link-state, .figures dt, .most, .caption p, .meter-text, .push-verdict, .push-why,"
        " .push-number, time, .clock-day, .tabs button, .faint, .button, .chip-button, .link-button"
    )
    found = await page.evaluate(f"({LUMINANCE})({selectors!r})")
    assert len(found) > 60
    assert [each for each in found if each[1] < 4.5] == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_nothing_scrolls_sideways(play, open_page, scheme):
    await ordinary_day(play)
    page = await open_page(color_scheme=scheme)
    await expect(page.locator(".phone-item").first).to_be_visible()
    parts = ".side, .panel:not([hidden]), .drawer, .summary, .bar, .stage-bar"
    wide = """parts => [...document.querySelectorAll(parts)]
        .filter(node => node.checkVisibility())
        .map(node => [node.className, node.scrollWidth - node.clientWidth])"""

    async def check():
        for width in (2200, 1440, 1080, 1079, 720, 390, 320):
            await page.set_viewport_size({"width": width, "height": 844})
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            found = await page.evaluate(wide, parts)
            assert len(found) >= 3, width
            assert [each for each in found if each[1] > 0] == [], width

    await check()
    for tab in ("Faults", "Connections"):
        await page.get_by_role("tab", name=tab).click()
        await check()
    await page.locator(".phone-item .caption").first.click()
    await check()


async def test_movement_stops_when_asked(play, open_page):
    play.activity("phone", {"n": 1})
    page = await open_page(reduced_motion="reduce")
    await page.get_by_role("radio", name="Expanded").click()
    await expect(page.locator(".island.expanded")).to_be_visible()
    moving = "document.getAnimations().filter(each => each.playState === 'running').length"
    assert await page.evaluate(moving) == 0
    style = "getComputedStyle(document.querySelector('.island.expanded')).animationName"
    assert await page.evaluate(style) == "none"


async def test_landmarks_and_names(play, open_page):
    await ordinary_day(play)
    page = await open_page()
    await expect(page.get_by_role("banner")).to_have_count(1)
    await expect(page.get_by_role("main")).to_have_count(1)
    await expect(page.get_by_role("complementary")).to_have_count(1)
    await expect(page.get_by_role("listbox", name="Phones")).to_have_count(1)
    await page.locator(".phone-item .caption").first.click()
    await expect(page.get_by_role("complementary", name="anna-iphone")).to_be_visible()
    nameless = """
        [...document.querySelectorAll("button, input, select, a")].filter(node => node.offsetParent
            && !(node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length)).length
    """
    assert await page.evaluate(nameless) == 0
