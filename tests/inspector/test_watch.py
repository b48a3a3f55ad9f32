"""What the page is for: watch a push arrive, break something, move the clock, see the end."""

import re

import pytest
from playwright.async_api import expect

from apns_live import Alert, Verdict
from apns_live.contracts import Contract
from apns_live.testing.faults import ACTIONS

from .scene import MATCH, ordinary_day

pytestmark = [pytest.mark.external("chromium"), pytest.mark.asyncio(loop_scope="package")]


async def started(play):
    """Start a match on a phone through our client; return the activity's token."""
    outcome = await play.start(
        play.phone("anna"), MATCH | {"home": 0}, attributes={"home": "Hamburg", "away": "Porto"}
    )
    assert outcome.verdict is Verdict.ACCEPTED
    await play.clock.advance(5)
    (activity,) = play.fake.devices.activities.values()
    return activity.token.text


async def test_a_push_arrives(play, open_page):
    page = await open_page()
    await expect(page.locator("#phones-empty")).to_contain_text("No phones yet")
    await expect(page.locator("#phones-empty")).to_contain_text(play.fake.url)
    token = await started(play)
    phone = page.locator(".phone-item[data-id=anna]")
    await expect(phone.locator(".card")).to_contain_text("Hamburg")
    await expect(phone.locator(".card .tiles dd").first).to_have_text("0")
    await phone.locator(".island.expanded").click()  # open because of the start's alert
    await expect(phone.locator(".island.compact .glance")).to_have_text("0:1")
    await play.update(token, MATCH | {"home": 4}, priority=10)
    await expect(phone.locator(".card .tiles dd").first).to_have_text("4")
    await expect(phone.locator(".island.compact .glance")).to_have_text("4:1")
    await expect(phone.locator(".meter")).to_have_attribute("aria-valuetext", "14 of 15 left")
    rows = page.locator(".push-row")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("update")
    await expect(rows.first).to_contain_text("Delivered")
    await expect(rows.last).to_contain_text("start")


async def test_a_state_that_the_app_cannot_decode_names_its_field(play, open_page):
    page = await open_page()
    token = await started(play)
    source = """struct MatchAttributes: ActivityAttributes {
        struct ContentState: Codable, Hashable { var home: Int; var away: Int }
    }"""
    play.fake.devices.schemas.contracts = {"": Contract({"Match.swift": source})}
    await play.update(token, {"home": "one", "away": 0})
    await play.update(token, {"home": 1})
    phone = page.locator(".phone-item[data-id=anna]")
    await expect(phone.locator(".caption-last")).to_have_text("Ignored: undecodable")
    # Two mistakes look different in the list, and a search finds each.
    await expect(page.locator(".push-row").first).to_contain_text("away is missing")
    await page.get_by_label("Search pushes").fill("Swift needs Int")
    row = page.locator(".push-row")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("home: Swift needs Int and finds a string.")
    await row.click()
    said = page.locator("#detail .verdict p:not(.faint)").last
    await expect(said).to_have_text(re.compile("^home: Swift needs Int .* without quotes.$"))
    await expect(page.locator("#detail .log-row").last).to_contain_text("home: Swift needs Int")


async def test_a_push_that_is_ignored_says_why(play, open_page):
    page = await open_page()
    token = await started(play)
    await play.update(token, MATCH, timestamp=play.clock.time() - 60)
    phone = page.locator(".phone-item[data-id=anna]")
    await expect(phone.locator(".caption-last")).to_have_text("Ignored: older timestamp")
    row = page.locator(".push-row").first
    await expect(row).to_contain_text("Older than what is shown.")
    await page.get_by_role("radio", name="Ignored").click()
    await expect(page.locator(".push-row")).to_have_count(1)
    await row.click()
    detail = page.locator("#detail")
    await expect(detail.locator("h2")).to_have_text("Push #2")
    await expect(detail.locator(".log-row").last).to_contain_text("discarded")
    await expect(detail).to_contain_text("is not after")
    await expect(detail.locator("pre")).to_contain_text('"content-state"')
    assert token not in await detail.inner_text()
    assert token[:8] in await detail.inner_text()
    await detail.get_by_role("button", name="anna").click()
    await expect(detail.locator("h2")).to_have_text("anna")


async def test_an_alert_opens_the_dynamic_island(play, open_page):
    page = await open_page()
    token = await started(play)
    await expect(page.locator(".island.expanded")).to_contain_text("Hamburg")
    await expect(page.locator(".island.compact")).to_be_visible()  # after some seconds
    await play.update(token, MATCH | {"home": 5}, alert=Alert(title="Goal", body="5-1"))
    await expect(page.locator(".island.expanded .tiles dd").first).to_have_text("5")


async def test_a_fault_is_injected_and_taken_away(play, open_page):
    page = await open_page()
    token = await started(play)
    await page.get_by_role("tab", name="Faults").click()
    await page.get_by_label("What goes wrong").select_option("answer")
    await page.get_by_label("Reason").select_option("TopicDisallowed")
    await page.get_by_text("Whom, when, how often").click()
    await page.get_by_label("Token begins with").fill(token[:8])
    await page.get_by_role("button", name="Inject fault").click()
    await expect(page.locator(".fault")).to_contain_text("TopicDisallowed")
    outcome = await play.update(token, MATCH | {"home": 9})
    assert (outcome.status, outcome.reason) == (400, "TopicDisallowed")
    await expect(page.locator(".fault-count")).to_have_text("1 struck")
    await page.get_by_role("tab", name="Pushes").click()
    row = page.locator(".push-row").first
    await expect(row).to_contain_text("400")
    await expect(row).to_contain_text("TopicDisallowed")
    await expect(page.locator(".summary [data-kind=refused] dd")).to_contain_text("1")
    await page.get_by_role("tab", name="Faults").click()
    await page.get_by_role("button", name="Remove fault").click()
    await expect(page.locator(".faults")).to_contain_text("A good day")
    await play.clock.advance(1)
    assert (await play.update(token, MATCH | {"home": 9})).status == 200
    await expect(page.locator(".card .tiles dd").first).to_have_text("9")


async def test_each_kind_of_fault_can_be_injected_as_offered(play, open_page):
    page = await open_page()
    await page.get_by_role("tab", name="Faults").click()
    for action in sorted(ACTIONS - {"settings"}):  # its numbers are for scenario files
        await page.get_by_label("What goes wrong").select_option(action)
        await page.get_by_role("button", name="Inject fault").click()
        await expect(page.locator(".fault"), action).to_have_count(1)
        (fault,) = play.fake.faults
        assert fault.fault.action == action
        await page.get_by_role("button", name="Remove fault").click()
        await expect(page.locator(".fault"), action).to_have_count(0)


async def test_the_clock_moves_an_activity_to_its_end(play, open_page):
    page = await open_page()
    token = await started(play)
    await play.update(token, MATCH, stale_date=play.clock.time() + 600)
    phone = page.locator(".phone-item[data-id=anna]")
    await expect(phone).to_have_attribute("data-look", "active")
    await expect(page.locator(".clock-next")).to_contain_text("goes stale in 10 min")
    await page.get_by_role("button", name="Advance 15 min").click()
    await expect(phone).to_have_attribute("data-look", "stale")
    await expect(phone.locator(".card .look")).to_have_text("Stale")
    await page.get_by_role("button", name="Advance 8 h").click()
    await expect(phone).to_have_attribute("data-look", "ended")
    await expect(phone.locator(".card .look")).to_have_text("Ended")
    await expect(phone.locator(".island.compact")).to_have_count(0)
    await expect(page.locator(".clock-next")).to_contain_text("leaves the Lock Screen")
    await page.get_by_role("button", name="Go there").click()
    await expect(phone).to_have_attribute("data-look", "dismissed")
    await expect(phone.locator(".card.ghost")).to_contain_text("Dismissed")


async def test_a_budget_refills_as_the_clock_moves(play, open_page):
    page = await open_page()
    token = await started(play)
    for _ in range(16):
        await play.update(token, MATCH, priority=10)
        await play.clock.advance(1)
    meter = page.locator(".phone-item .meter")
    await expect(meter).to_have_attribute("aria-valuenow", "0")
    await expect(meter).to_have_attribute("data-level", "spent")
    await expect(page.locator(".caption-last")).to_have_text("Delayed: budget")
    await page.get_by_label("How far to move the clock").fill("2")
    await page.get_by_label("Unit").select_option("h")
    await page.get_by_role("button", name="Advance", exact=True).click()
    await expect(meter).to_have_attribute("aria-valuenow", "15")


async def test_an_end_is_shown(play, open_page):
    page = await open_page()
    token = await started(play)
    await play.end(token, MATCH | {"home": 3})
    phone = page.locator(".phone-item[data-id=anna]")
    await expect(phone).to_have_attribute("data-look", "ended")
    await expect(phone.locator(".card .tiles dd").first).to_have_text("3")


async def test_connections_show_streams_and_windows(play, open_page):
    page = await open_page()
    await started(play)
    await page.get_by_role("tab", name="Connections").click()
    row = page.locator(".connection")
    await expect(row).to_have_count(1)
    await expect(row).to_contain_text("Streams")
    await expect(row).to_contain_text("1,000")
    await expect(row).to_contain_text("65,535")
    await expect(row).to_contain_text("1 accepted")
    await page.get_by_role("button", name="Send GOAWAY").click()
    await expect(row.first.locator(".state")).not_to_have_text("open")


async def test_a_phone_in_detail(play, open_page):
    page = await open_page()
    token = await started(play)
    await page.locator(".phone-item .caption").click()
    detail = page.locator("#detail")
    await expect(detail.locator(".presentation .card")).to_contain_text("Hamburg")
    await expect(detail.locator(".island.compact")).to_be_visible()
    await expect(detail.locator(".island.minimal")).to_be_visible()
    await expect(detail.locator(".island.expanded")).to_be_visible()
    await expect(detail.locator(".log-row")).to_have_count(1)
    text = await detail.inner_text()
    assert token[:8] in text
    assert token not in text
    await detail.get_by_role("switch", name="Online").click()
    await expect(detail.get_by_role("switch", name="Online")).to_have_attribute(
        "aria-checked", "false"
    )
    await play.update(token, MATCH | {"home": 6})
    await expect(detail.locator(".log-row").first).to_contain_text("Stored")
    await detail.get_by_role("switch", name="Online").click()
    await expect(detail.locator(".presentation .card .tiles dd").first).to_have_text("6")
    await expect(detail.locator(".log-row").first).to_contain_text("Delivered late")
    await detail.get_by_role("button", name="Swipe away").click()
    await expect(detail.locator(".detail-activity")).to_contain_text("swiped away")


async def test_searching_and_filtering(play, open_page):
    await ordinary_day(play)
    page = await open_page()
    items = page.locator(".phone-item")
    await expect(page.locator("#phones-count")).to_have_text("9")
    await page.get_by_label("Search phones").fill("Okafor")
    await expect(items).to_have_count(1)
    await expect(items).to_have_attribute("data-id", "anna-iphone")
    await expect(page.locator("#phones-count")).to_have_text("1 of 9")
    await page.get_by_label("Search phones").fill("nothing like it")
    await expect(page.locator("#phones-empty")).to_contain_text("No phone fits")
    await page.get_by_label("Search phones").fill("")
    for choice, name in (
        ("stale", "farah-iphone"),
        ("ended", "emil-iphone"),
        ("none", "hana-iphone"),
        ("offline", "goran-iphone"),
    ):
        await page.get_by_label("Which phones").select_option(choice)
        await expect(items).to_have_count(1)
        await expect(items).to_have_attribute("data-id", name)


async def test_pushes_are_searched(play, open_page):
    await ordinary_day(play)
    page = await open_page()
    rows = page.locator(".push-row")
    search = page.get_by_label("Search pushes")
    for text, count in (("goran", 2), ("EXPIREDTOKEN", 1), ("#42", 1), ("nothing like it", 0)):
        await search.fill(text)
        await expect(rows).to_have_count(count)
    await expect(page.locator("#panel-pushes .panel-empty")).to_contain_text("None of these")
    await search.press("Escape")
    await expect(search).to_have_value("")
    await expect(rows.first).to_be_visible()


async def test_an_empty_search_takes_no_room(play, open_page):
    await ordinary_day(play)
    page = await open_page(width=390, height=844)
    await page.get_by_label("Search phones").fill("nothing like it")
    await expect(page.locator("#phones-empty")).to_be_visible()
    assert await page.locator("#phones-view").evaluate("node => node.clientHeight") < 400


async def test_the_legend_explains_the_budget(play, open_page):
    page = await open_page()
    await page.get_by_text("Legend").click()
    await expect(page.locator(".legend")).to_contain_text("Priority 10 is an activity's budget")
    await page.keyboard.press("Escape")
    await expect(page.locator(".legend dl")).to_be_hidden()


async def test_a_reset_empties_the_page(play, open_page):
    await ordinary_day(play)
    page = await open_page()
    await expect(page.locator(".phone-item").first).to_be_visible()
    play.fake.reset()
    await expect(page.locator("#phones-empty")).to_contain_text("No phones yet")
    play.phone("after")
    await expect(page.locator(".phone-item")).to_have_count(1)
    await expect(page.locator(".phone-item")).to_have_attribute("data-id", "after")
    await expect(page.locator(".push-row")).to_have_count(0)


async def test_the_owner_answers_a_card_that_asks(play, open_page):
    page = await open_page()
    await play.start(play.phone("shy", consent="none"), MATCH)
    phone = page.locator(".phone-item")
    await expect(phone.locator(".flag")).to_contain_text("asks for consent")
    await page.locator(".caption").click()
    detail = page.locator("#detail")
    await expect(detail).to_contain_text("waits for consent")
    await detail.get_by_role("button", name="Always Allow").click()
    await play.clock.advance(5)
    await expect(phone.locator(".flag")).to_have_count(0)
    await expect(detail).to_contain_text("Always Allow: update tokens come at once.")
    assert play.fake.devices.devices["shy"].activities[0].token is not None
