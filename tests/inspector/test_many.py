"""500 phones and 1,000 pushes a second: the page goes on drawing, and shows the newest state."""

import asyncio

import pytest
from playwright.async_api import expect

pytestmark = [pytest.mark.external("chromium"), pytest.mark.asyncio(loop_scope="package")]

PHONES = 500
ROUNDS = 12
COUNT_FRAMES = """
() => {
    window.frames_drawn = 0;
    const next = () => { window.frames_drawn += 1; requestAnimationFrame(next); };
    requestAnimationFrame(next);
}
"""


async def test_five_hundred_phones(play, open_page):
    tokens = [play.activity(f"phone-{number}", {"n": 0}) for number in range(PHONES)]
    page = await open_page()
    await expect(page.locator("#phones-count")).to_have_text(str(PHONES))
    await page.evaluate(COUNT_FRAMES)
    frames = 0
    for number in range(1, ROUNDS + 1):
        await play.clock.advance(1)
        # All at once, so that whatever this machine can do a second arrives.
        outcomes = await asyncio.gather(*(play.update(token, {"n": number}) for token in tokens))
        assert {outcome.status for outcome in outcomes} == {200}
        if number % 4 == 0:
            await page.wait_for_function(f"window.frames_drawn > {frames}")
            frames = await page.evaluate("window.frames_drawn")
            # Responsive in the midst of it: a key moves the focus, a filter answers.
            await page.get_by_label("Search phones").fill(f"phone-{number}7")
            await expect(page.locator(f".phone-item[data-id=phone-{number}7]")).to_be_visible()
            await page.get_by_label("Search phones").fill("")
    for name in ("phone-0", "phone-1"):
        shown = page.locator(f".phone-item[data-id={name}] .tiles dd")
        await expect(shown).to_have_text(str(ROUNDS))
    await page.locator(".phone-item").first.focus()
    await page.keyboard.press("End")
    last = page.locator(f".phone-item[data-id=phone-{PHONES - 1}]")
    await expect(last).to_be_focused()
    await expect(last.locator(".tiles dd")).to_have_text(str(ROUNDS))
    delivered = page.locator(".summary [data-kind=delivered] dd")
    await expect(delivered).to_have_text(f"{PHONES * ROUNDS:,}")
    # What is drawn and what is kept do not grow with the phones and the pushes.
    assert await page.locator(".phone-item").count() < 30
    assert await page.locator(".push-row").count() < 60
    assert await page.evaluate("document.querySelectorAll('*').length") < 4000
    await expect(page.locator(".push-row").first).to_have_attribute("aria-setsize", "500")


async def test_somebody_who_reads_further_down_is_left_in_peace(play, open_page):
    token = play.activity("phone", {"n": 0})
    for number in range(60):
        await play.update(token, {"n": number})
    page = await open_page()
    viewport = page.locator(".push-list")
    await viewport.evaluate("node => { node.scrollTop = 1200; }")
    row = page.locator(".push-row[data-number='35']")
    await expect(row).to_be_visible()
    before = await row.bounding_box()
    for number in range(20):
        await play.update(token, {"n": number})
    await expect(page.locator(".newer")).to_have_text("20 newer")
    assert await row.bounding_box() == before
    await page.locator(".newer").click()
    await expect(page.locator(".push-row[data-number='80']")).to_be_visible()
    await expect(page.locator(".newer")).to_be_hidden()
