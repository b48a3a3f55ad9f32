"""What a sender sends is text: it runs nothing, hides nothing, and breaks no layout."""

import json

import pytest
from playwright.async_api import expect

from apns_live.testing.state import Push

pytestmark = [pytest.mark.external("chromium"), pytest.mark.asyncio(loop_scope="package")]

SCRIPT = "<script>window.struck = 1; alert(1)</script>"
IMAGE = "<img src=x onerror='window.struck = 1; alert(2)'>"


def deep(levels):
    state = {"end": SCRIPT}
    for _ in range(levels):
        state = {"a": state}
    return state


def lists(levels):
    state = []
    for _ in range(levels):
        state = [state]
    return state


STATES = {
    "markup": {"title": SCRIPT, "html": IMAGE, "link": "javascript:alert(3)", SCRIPT: 1, IMAGE: 2},
    "typed markup": {
        "type": "metrics",
        "title": SCRIPT,
        "subtitle": IMAGE,
        "color": "red; background: url(//example.com)",
        "metrics": [{"label": IMAGE, "value": SCRIPT, "unit": IMAGE, "color": SCRIPT}],
        "icon": {"symbol": f"bolt.{SCRIPT}", "color": SCRIPT},
        "badge": {"title": IMAGE, "color": "__proto__"},
    },
    "typed alert": {"type": "alert", "title": "x" * 900, "message": "m" * 2000},
    "prototype names": json.loads(
        '{"__proto__": {"struck": 1}, "constructor": {"prototype": {"struck": 1}},'
        ' "toString": "no", "hasOwnProperty": 0, "valueOf": null, "length": -1, "type": "__proto__"}'
    ),
    "long without a gap": {"word": "W" * 3500, "K" * 300: "v"},
    "wide numbers": {"n": 1e300, "small": 1e-300, "negative": -123456789012345, "i": 2**63},
    "bidi controls": {"home": "\u202e\u2066\u2067abc\u202d", "\u202ekey": "\u200f\u061cvalue"},
    "control characters": {"text": "a\u0000b\u0007c\nd\u2028e\ufeff"},
    "stacked accents": {"zalgo": "e" + "\u0301\u0310\u0330" * 300},
    "many keys": {f"key{number}": number for number in range(280)},
    "a long list": {"list": list(range(400)), "objects": [{"a": 1}] * 150},
    "nested": deep(60),
    "nested to the limit": {"a": lists(950)},
    "nested beyond the limit": {"a": lists(1400)},
    "emoji": {"who": "👩‍👩‍👧‍👦" * 60, "flag": "🏴󠁧󠁢󠁥󠁮󠁧󠁿"},
}


@pytest.mark.parametrize("name", STATES)
async def test_a_hostile_state_is_text(play, open_page, name):
    page = await open_page()
    await send(play, STATES[name])
    card = page.locator(".phone-item .card")
    await expect(card).to_be_visible()
    assert await page.evaluate("window.struck === undefined && ({}).struck === undefined")
    assert await page.locator(".card script, .card img, .card a, .island img").count() == 0
    await expect(card).to_be_visible()
    await within(page, card)
    await page.get_by_role("radio", name="Expanded").click()
    await within(page, page.locator(".phone-item .island.expanded"))
    await page.set_viewport_size({"width": 390, "height": 844})
    await within(page, card)
    await within(page, page.locator(".phone-item .island.expanded"))
    await page.locator(".phone-item .caption").click()
    detail = page.locator("#detail")
    await expect(detail.locator(".presentation .card")).to_be_visible()
    await detail.get_by_text("Content state and attributes").click()
    await expect(detail.locator("pre")).to_be_visible()
    await fits(page)
    await detail.locator("[data-open-push]").first.click()
    await expect(detail.locator("pre")).to_be_visible()
    await fits(page)
    assert await page.evaluate("window.struck === undefined && ({}).struck === undefined")


async def test_markup_is_shown_as_it_was_written(play, open_page):
    page = await open_page()
    await send(play, {"title": SCRIPT, "<b>key</b>": "x", "__proto__": "y"})
    card = page.locator(".phone-item .card")
    for text in ("<script>window.struck", "<b>key</b>", "__proto__"):
        await expect(card).to_contain_text(text)


async def test_what_cannot_be_seen_is_visible_in_the_json(play, open_page):
    page = await open_page()
    await send(play, STATES["bidi controls"])
    await page.locator(".phone-item .caption").click()
    await page.get_by_text("Content state and attributes").click()
    text = await page.locator("#detail pre").inner_text()
    assert "\\u202e\\u2066\\u2067abc\\u202d" in text
    assert "\u202e" not in text


async def test_names_of_others_choosing_are_text_too(play, open_page):
    """Ids, attributes types, collapse ids, alerts."""
    page = await open_page()
    phone = f"{IMAGE}\u202e" + "p" * 40
    token = play.phone(phone.replace("/", ""), kind=SCRIPT)
    await send(play, {"a": 1}, token=token, kind=SCRIPT, alert={"title": IMAGE, "body": SCRIPT})
    await expect(page.locator(".phone-item .card")).to_be_visible()
    await page.locator(".phone-item .caption").click()
    await expect(page.locator("#detail h2")).to_contain_text("<img src=x")
    await fits(page)
    assert await page.evaluate("window.struck === undefined")
    assert await page.locator("img, #detail script").count() == 0


async def test_a_body_that_is_no_json(play, open_page):
    page = await open_page()
    await send(play, None, body=b'{"aps": \xff<script>window.struck = 1</script>')
    row = page.locator(".push-row")
    await expect(row).to_contain_text("Ignored")
    await row.click()
    await expect(page.locator("#detail pre")).to_contain_text("<script>window.struck = 1</script>")
    assert await page.evaluate("window.struck === undefined")


async def test_the_policy_forbids_what_is_not_ours(play, inspector, open_page):
    page = await open_page()
    response = await page.request.get(play.url)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert {url.split("/")[2] for url in inspector.requests} == {play.url.split("/")[2]}
    inline = "document.querySelectorAll('script:not([src]), style, [onclick], [onload]').length"
    assert await page.evaluate(inline) == 0


async def send(play, state, *, token="ab" * 32, body=None, kind="GameAttributes", alert=None):
    """Push as any client might: our own one would refuse some of these states."""
    now = play.fake.clock.time()
    aps = {"event": "start", "timestamp": int(now), "content-state": state}
    aps |= {"attributes-type": kind, "attributes": {"name": IMAGE}, "alert": alert or "Begins"}
    push = Push(
        1,
        "ID-1",
        "",
        token,
        f"{play.fake.bundle_id}.push-type.liveactivity",
        "liveactivity",
        10,
        None,
        None,
        body or written({"aps": aps}).encode(),
        now,
        1,
    )
    play.fake.phones.receive(push)


def written(value):
    """JSON as compact as can be, however deep: json.dumps stops at a depth of its own."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{written(v)}" for k, v in value.items()) + "}"
    opening = 0
    while isinstance(value, list) and len(value) == 1:
        opening, value = opening + 1, value[0]
    return "[" * opening + json.dumps(value, ensure_ascii=False) + "]" * opening


async def fits(page):
    """The page does not scroll sideways."""
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def within(page, locator):
    """An element stays inside the screen of its phone, and the page fits."""
    await fits(page)
    assert await locator.evaluate(
        """node => {
            const inner = node.getBoundingClientRect();
            const outer = node.closest('.screen').getBoundingClientRect();
            return inner.left >= outer.left && inner.right <= outer.right + 0.5
                && inner.top >= outer.top && inner.bottom <= outer.bottom + 0.5 && inner.height < 310;
        }"""
    )
