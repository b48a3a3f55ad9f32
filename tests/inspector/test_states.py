"""A content state of each kind, and states of no kind, in every presentation."""

import pytest
from playwright.async_api import expect

from .scene import FLIGHT, MORNING, TYPED

pytestmark = [pytest.mark.external("chromium"), pytest.mark.asyncio(loop_scope="package")]

GLANCES = {
    "progress": "64 %",
    "segmented_progress": "3/5",
    "metrics": "5:12/km",
    "stats": "18/20",
    "alert": "B17",
    "timer": "27:45",
    "value": "82 %",
}
BODIES = {
    "progress": (".bar-track", ".figure", "64 %"),
    "segmented_progress": (".step-track", ".figure", "3 of 5"),
    "metrics": (".metrics", ".metrics > div:nth-child(2) dd", "7.4km"),
    "stats": (".stats", ".row:nth-child(3)", "p95184ms"),
    "alert": (".message", ".message", "Flight 2044 now boards at gate B17."),
    "timer": (".bar-track", ".timer", "27:45"),
    "value": (".huge", ".huge", "82 %"),
}


async def shown(play, open_page, state, **options):
    """Let a phone's app start an activity and return its page."""
    play.activity("phone", state, **options)
    page = await open_page()
    await expect(page.locator(".phone-item .card").first).to_be_visible()
    return page


@pytest.mark.parametrize("kind", TYPED)
async def test_a_typed_state(play, open_page, kind):
    page = await shown(play, open_page, TYPED[kind])
    card = page.locator(".phone-item .card")
    part, where, text = BODIES[kind]
    await expect(card.locator(part)).to_be_visible()
    await expect(card.locator(where)).to_contain_text(text)
    await expect(card.locator(".title")).to_have_text(TYPED[kind]["title"])
    await expect(card.locator(".sign svg")).to_be_visible()
    await expect(page.locator(".island.compact .glance")).to_have_text(GLANCES[kind])
    await page.get_by_role("radio", name="Expanded").click()
    await expect(page.locator(".island.expanded")).to_contain_text(TYPED[kind]["title"])
    await expect(page.locator(".island.expanded").locator(part)).to_be_visible()


async def test_segments_are_as_many_as_the_steps(play, open_page):
    state = TYPED["segmented_progress"] | {"step_colors": ["red", "green", "blue"]}
    page = await shown(play, open_page, state)
    segments = page.locator(".card .step-track i")
    await expect(segments).to_have_count(5)
    await expect(page.locator(".card .step-track .done")).to_have_count(3)
    await expect(segments.first).to_have_class("done tint-red")


async def test_very_many_steps_become_a_bar(play, open_page):
    state = TYPED["segmented_progress"] | {"number_of_steps": 4000, "current_step": 1000}
    page = await shown(play, open_page, state)
    await expect(page.locator(".card .bar-track")).to_be_visible()
    await expect(page.locator(".card .figure")).to_have_text("1,000 of 4,000")


async def test_a_timer_runs_with_the_clock_and_stands_when_paused(play, open_page):
    page = await shown(play, open_page, TYPED["timer"])
    await play.clock.advance(60)
    await play.update(next(iter(play.fake.devices.activities.values())).token.text, TYPED["timer"])
    await expect(page.locator(".card .timer")).to_have_text("26:45")
    paused = TYPED["timer"] | {"is_running": False, "frozen_remaining": 300.0}
    await play.clock.advance(60)
    await play.update(next(iter(play.fake.devices.activities.values())).token.text, paused)
    await expect(page.locator(".card .timer")).to_have_text("5:00")
    await expect(page.locator(".card .pill")).to_have_text("Paused")


async def test_any_other_state_is_laid_out_by_its_values(play, open_page):
    page = await shown(
        play, open_page, FLIGHT, kind="FlightAttributes", attributes={"flight": "LH 2044"}
    )
    card = page.locator(".phone-item .card")
    await expect(card.locator(".title")).to_have_text("Flight")
    await expect(card.locator(".subtitle")).to_have_text("LH 2044")
    await expect(card.locator(".tiles")).to_contain_text("B17")
    departure = card.locator(".row", has_text="Departure")
    await expect(departure).to_contain_text("10:35:00")
    await expect(departure).to_contain_text("in 54 min")
    await expect(card.locator(".row", has_text="Delayed")).to_contain_text("Yes")
    await expect(card.locator(".row", has_text="Seats").locator(".chip")).to_have_count(2)
    await page.locator(".caption").click()
    detail = page.locator("#detail .card")
    await expect(detail.locator(".row.head", has_text="Aircraft")).to_be_visible()
    await expect(detail.locator(".row", has_text="Registration")).to_contain_text("D-AINX")


async def test_dates_of_every_spelling(play, open_page):
    state = {
        "kickOffDate": MORNING - 978_307_200 + 600,  # as Swift's Codable writes it
        "ends_at": MORNING + 1200,
        "eta": "2027-01-15T10:11:00Z",
        "arrivalTime": (MORNING + 2400) * 1000,
        "distance": MORNING,
    }
    page = await shown(play, open_page, state)
    rows = page.locator(".phone-item .card .row")
    await expect(rows.filter(has_text="Kick off date")).to_contain_text("in 10 min")
    await expect(rows.filter(has_text="Ends at")).to_contain_text("in 20 min")
    await expect(rows.filter(has_text="Eta")).to_contain_text("in 30 min")
    await expect(rows.filter(has_text="Arrival time")).to_contain_text("in 40 min")
    await expect(page.locator(".card .tiles dd")).to_have_text("1,800,006,060")
    # Swift counts a Date from 2001: what was meant as Unix time is 31 years late on the phone.
    await expect(rows.filter(has_text="Ends at")).to_contain_text("as a Swift Date: 15 Jan 2058")
    await expect(rows.filter(has_text="Arrival time")).to_contain_text("as a Swift Date: ")
    for name in ("Kick off date", "Eta"):
        await expect(rows.filter(has_text=name)).not_to_contain_text("Swift")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"type": "progress", "title": "No figures"},
        {"type": "progress", "title": "Text", "percentage": "half"},
        {"type": "metrics", "title": "No list", "metrics": {"label": 1}},
        {"type": "metrics", "title": "Odd", "metrics": [None, 1, [], {"label": 1, "value": {}}]},
        {"type": "segmented_progress", "title": "None", "number_of_steps": 0, "current_step": 0},
        {"type": "timer", "title": "When?", "started_at": "noon"},
        {"type": "constructor", "title": "Nobody knows it"},
        {"type": ["progress"], "title": 7},
    ],
    ids=lambda state: f"{state.get('type')}-{state.get('title')}",
)
async def test_a_typed_state_that_is_none_is_drawn_like_any_other(play, open_page, state):
    page = await shown(play, open_page, state)
    await expect(page.locator(".phone-item .card .card-body")).not_to_be_empty()
    await expect(page.locator(".island.compact .glance")).not_to_be_empty()
    await page.locator(".caption").click()
    await expect(page.locator("#detail .presentation .card")).to_be_visible()


async def test_two_activities_share_the_dynamic_island(play, open_page):
    play.activity("phone", TYPED["progress"])
    page = await shown(play, open_page, TYPED["timer"])
    await expect(page.locator(".phone-item .card")).to_have_count(2)
    await expect(page.locator(".phone-item .island.compact")).to_have_count(1)
    await expect(page.locator(".phone-item .island.minimal")).to_have_count(1)
