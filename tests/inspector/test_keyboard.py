"""Everything works without a mouse, and the place of the focus can be seen."""

import pytest
from playwright.async_api import expect

from .scene import ordinary_day

pytestmark = [pytest.mark.external("chromium"), pytest.mark.asyncio(loop_scope="package")]


async def test_tab_reaches_every_part_and_shows_where_it_is(play, open_page):
    await ordinary_day(play)
    page = await open_page()
    await expect(page.locator(".phone-item").first).to_be_visible()
    reached = []
    for _ in range(40):
        await page.keyboard.press("Tab")
        place = await page.evaluate(
            """() => {
                const node = document.activeElement;
                const drawn = node.classList.contains("phone-item") ? node.querySelector(".phone") : node;
                const style = getComputedStyle(drawn);
                return {name: node.id || node.className, body: node === document.body,
                        seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2};
            }"""
        )
        if place["body"] or reached.count("skip") > 2:
            break
        assert place["seen"], place
        reached.append(place["name"])
    parts = ["endpoint", "theme", "add-phone", "search", "which", "phone-0", "tab-pushes"]
    assert [name for name in reached if name in parts] == parts
    assert "push-row" in reached
    assert len(reached) < 35


async def test_skip_links_lead_to_the_parts(play, open_page):
    page = await open_page()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the phones")).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(page.locator("#phones")).to_be_focused()


async def test_a_walk_through_phones_panels_and_detail(play, open_page):
    await ordinary_day(play)
    page = await open_page()
    first = page.locator(".phone-item[data-id=anna-iphone]")
    await first.focus()
    await page.keyboard.press("ArrowRight")
    ben = page.locator(".phone-item[data-id=ben-iphone]")
    await expect(ben).to_be_focused()
    await page.keyboard.press("e")
    await expect(ben.locator(".island.expanded")).to_be_visible()
    await page.keyboard.press("e")
    await expect(ben.locator(".island.compact")).to_be_visible()
    await page.keyboard.press("ArrowDown")
    await expect(page.locator(".phone-item[data-id=emil-iphone]")).to_be_focused()
    await expect(page.locator(".phone-item[data-id=emil-iphone]")).to_be_in_viewport()
    await page.keyboard.press("End")
    last = page.locator(".phone-item[data-id=ines-iphone]")
    await expect(last).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#detail-title")).to_be_focused()
    await expect(page.locator("#detail-title")).to_have_text("ines-iphone")
    await expect(last).to_have_attribute("aria-selected", "true")
    await page.keyboard.press("Escape")
    await expect(page.locator("#detail")).to_be_hidden()
    await expect(last).to_be_focused()
    await page.keyboard.press("/")
    await expect(page.locator("#search")).to_be_focused()
    await page.keyboard.type("goran")
    await expect(page.locator(".phone-item")).to_have_count(1)
    await page.keyboard.press("Escape")
    await expect(page.locator("#search")).to_have_value("")


async def test_tabs_and_the_list_of_pushes(play, open_page):
    await ordinary_day(play)
    page = await open_page()
    await page.locator("#tab-pushes").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("tab", name="Faults")).to_be_focused()
    await expect(page.locator("#panel-faults")).to_be_visible()
    await page.keyboard.press("End")
    await expect(page.locator("#panel-connections")).to_be_visible()
    await page.keyboard.press("Home")
    await expect(page.locator("#panel-pushes")).to_be_visible()
    rows = page.locator(".push-row")
    newest = await rows.first.get_attribute("data-number")
    await rows.first.focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(page.locator(f"[data-number='{int(newest) - 2}']")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#detail-title")).to_have_text(f"Push #{int(newest) - 2}")
    await page.keyboard.press("Escape")
    await expect(page.locator(f"[data-number='{int(newest) - 2}']")).to_be_focused()


async def test_a_fault_and_the_clock_with_the_keyboard_alone(play, open_page):
    page = await open_page()
    await page.locator("#tab-pushes").focus()
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Tab")
    await expect(page.locator("#fault-action")).to_be_focused()
    await page.keyboard.press("End")
    await page.locator("#panel-faults input").first.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".fault")).to_contain_text("Small, slow windows")
    await expect(page.locator("#live")).to_contain_text("is in force")
    await page.get_by_role("button", name="Remove fault").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".fault")).to_have_count(0)
    await expect(page.locator("#fault-action")).to_be_focused()
    before = play.clock.time()
    await page.get_by_role("button", name="Advance 1 h").focus()
    await page.keyboard.press("Space")
    await expect(page.locator("#live")).to_contain_text("The clock moved by 1 h")
    assert play.clock.time() == before + 3600


async def test_focus_survives_what_arrives(play, open_page):
    token = play.activity("phone", {"n": 0})
    page = await open_page()
    phone = page.locator(".phone-item")
    await phone.focus()
    for number in range(1, 4):
        await play.clock.advance(1)
        await play.update(token, {"n": number})
        await expect(phone.locator(".tiles dd")).to_have_text(str(number))
    await expect(phone).to_be_focused()


async def test_radios_move_with_arrows(play, open_page):
    page = await open_page()
    await page.get_by_role("radio", name="Compact").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("radio", name="Expanded")).to_be_focused()
    await expect(page.get_by_role("radio", name="Expanded")).to_have_attribute(
        "aria-checked", "true"
    )
    await page.get_by_role("radio", name="All", exact=True).focus()
    await page.keyboard.press("ArrowLeft")
    await expect(page.get_by_role("radio", name="Refused")).to_be_focused()
