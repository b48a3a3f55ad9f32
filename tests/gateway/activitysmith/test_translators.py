"""Bodies read, states completed, buttons drawn: no store, no network."""

from __future__ import annotations

from typing import Any

import pytest

from apns_live.activities.apps import App
from apns_live.activities.cards.buttons import Button, TapSigner
from apns_live.errors import InvalidInput, InvalidSetting
from apns_live.gateway.activitysmith import live, requests
from apns_live.gateway.activitysmith.buttons import TapLinks, digest_of
from apns_live.gateway.activitysmith.dialect import (
    DialectSettings,
    Refused,
    Result,
    refusal_of,
    settings_of,
)
from apns_live.gateway.activitysmith.sending import audience_of, effective
from apns_live.gateway.keys import ApiKey

NOW = 1_800_000_000.0
STEPS = {"title": "Build", "type": "segmented_progress", "number_of_steps": 5, "current_step": 2}
OPEN = {"title": "Look", "type": "open_url", "url": "https://example.com/run/7"}
HOOK = {"title": "Stop", "type": "webhook", "url": "https://example.com/stop", "body": {"job": 7}}
LIVE = {"content_state": STEPS}

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "segmented_progress": (
        {**STEPS, "step_color": "red", "step_colors": ["lime", "green"], "color": "blue"},
        {**STEPS, "step_color": "red", "step_colors": ["lime", "green"], "color": "blue"},
    ),
    "progress by percentage": (
        {"title": "Charge", "type": "progress", "percentage": 15.0, "value": 3, "upper_limit": 20},
        {"title": "Charge", "type": "progress", "percentage": 15},
    ),
    "progress by value": (
        {"title": "Charge", "type": "progress", "value": 3.5, "upper_limit": 20.0},
        {"title": "Charge", "type": "progress", "value": 3.5, "upper_limit": 20},
    ),
    "metrics": (
        {
            "title": "Host",
            "type": "metrics",
            "metrics": [{"label": "CPU", "value": 9.0, "unit": "%"}],
        },
        {
            "title": "Host",
            "type": "metrics",
            "metrics": [{"label": "CPU", "value": 9, "unit": "%"}],
        },
    ),
    "stats": (
        {
            "title": "Shop",
            "type": "stats",
            "metrics": [{"label": "Sold", "value": "12 k", "color": "gray"}],
        },
        {
            "title": "Shop",
            "type": "stats",
            "metrics": [{"label": "Sold", "value": "12 k", "color": "gray"}],
        },
    ),
    "alert": (
        {
            "title": "Disk",
            "type": "alert",
            "message": "Nearly full",
            "icon": {"symbol": "externaldrive", "color": "red"},
            "badge": {"title": "P1"},
        },
        {
            "title": "Disk",
            "type": "alert",
            "message": "Nearly full",
            "icon": {"symbol": "externaldrive", "color": "red"},
            "badge": {"title": "P1"},
        },
    ),
    "timer down": (
        {"title": "Tea", "type": "timer", "duration_seconds": 240.0},
        {
            "title": "Tea",
            "type": "timer",
            "counts_down": True,
            "is_running": True,
            "started_at": int(NOW),
            "ends_at": int(NOW) + 240,
        },
    ),
    "timer up": (
        {"title": "Run", "type": "timer", "counts_down": False},
        {
            "title": "Run",
            "type": "timer",
            "counts_down": False,
            "is_running": True,
            "started_at": int(NOW),
        },
    ),
    "value as text": (
        {"title": "Till", "type": "value", "value": "$ 1,204.00"},
        {"title": "Till", "type": "value", "value": "$ 1,204.00"},
    ),
    "value as number": (
        {
            "title": "Till",
            "type": "value",
            "value": 7.0,
            "badge": {"title": "new", "color": "lime"},
        },
        {"title": "Till", "type": "value", "value": 7, "badge": {"title": "new", "color": "lime"}},
    ),
    "counter, from former days": (
        {"title": "Old", "type": "counter", "number_of_steps": 3, "current_step": 1},
        {"title": "Old", "type": "counter", "number_of_steps": 3, "current_step": 1},
    ),
    "timer, from former days": (
        {"title": "Old", "type": "timer", "number_of_steps": 3, "current_step": 1},
        {"title": "Old", "type": "countdown", "number_of_steps": 3, "current_step": 1},
    ),
    "defaults of a client's models": ({**STEPS, "counts_down": True, "is_running": True}, STEPS),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_state(name: str) -> None:
    given, shown = KINDS[name]
    read = requests.start({"content_state": given})
    made = live.complete(read.state or {}, phase="start", now=NOW)
    assert made == shown
    assert [type(value) for value in made.values()] == [type(made[key]) for key in made]
    assert live.start_alert(None, made).body, "every start has words for its alert"


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({**STEPS, "subtitle": "copying"}, "copying"),
        (STEPS, "2 / 5"),
        ({"title": "T", "type": "progress", "percentage": 41.5}, "41.5 %"),
        ({"title": "T", "type": "progress", "value": 2, "upper_limit": 8}, "2 / 8"),
        ({"title": "T", "type": "alert", "message": "Now"}, "Now"),
        ({"title": "T", "type": "value", "value": "9 €"}, "9 €"),
        ({"title": "T", "type": "value", "value": ""}, "T"),
        ({"title": "T", "type": "timer", "counts_down": False}, "T"),
        (
            {
                "title": "T",
                "type": "stats",
                "metrics": [{"label": n, "value": 1.5} for n in "abcd"],
            },
            "a 1.5, b 1.5, c 1.5",
        ),
    ],
)
def test_an_alert_without_words_gets_some(given: dict[str, Any], body: str) -> None:
    made = live.complete(given, phase="start", now=NOW)
    words = live.start_alert(None, made)
    assert (words.title, words.body) == (made["title"], body)
    own = live.start_alert(requests.AlertWords("A", "B"), made)
    assert (own.title, own.body) == ("A", "B")
    assert live.start_alert(requests.AlertWords("A"), made).body == body


def test_an_update_takes_what_it_leaves_out_from_the_card() -> None:
    card = live.complete(STEPS, phase="start", now=NOW)
    made = live.complete(
        {"title": "Build", "current_step": 3}, phase="update", now=NOW, current=card
    )
    assert made == {**STEPS, "current_step": 3}
    grown = live.complete(
        {"title": "Build", "current_step": 6, "number_of_steps": 7},
        phase="update",
        now=NOW,
        current=card,
    )
    assert grown["number_of_steps"] == 7


def test_a_timer_over_its_life() -> None:
    def timer(now: float, current: Any = None, phase: Any = "update", **given: Any) -> Any:
        state = {"title": "Tea", "type": "timer", **given}
        return live.complete(state, phase=phase, now=now, current=current, steady=phase == "update")

    first = timer(NOW, duration_seconds=300)
    assert timer(NOW + 60, first, duration_seconds=300) == first, "put again: goes on"
    assert timer(NOW + 60, first) == first
    retitled = timer(NOW + 60, first, duration_seconds=300, subtitle="green")
    assert retitled["ends_at"] == NOW + 360, "another state with a duration begins anew"
    frozen = timer(NOW + 60, first, is_running=False)
    assert frozen["frozen_remaining"] == 240
    assert timer(NOW + 90, frozen, is_running=False) == frozen, "still frozen: the same"
    assert timer(NOW + 90, frozen, is_running=False, duration_seconds=300) == frozen
    resumed = timer(NOW + 100, frozen)
    assert resumed["ends_at"] == NOW + 340
    ended = timer(NOW + 200, resumed, "end", is_running=True)
    assert ended["is_running"] is False
    assert ended["frozen_remaining"] == 140
    restarted = live.complete(
        {"title": "Tea", "duration_seconds": 300}, phase="update", now=NOW + 60, current=first
    )
    assert restarted["ends_at"] == NOW + 360, "an update with a duration begins anew"


@pytest.mark.parametrize(
    "foreign",
    [
        {"score": 3},
        {"type": 7},
        {"type": "timer"},
        {"type": "timer", "started_at": "noon"},
        {"type": "timer", "started_at": 1, "ends_at": True},
        {"type": "timer", "started_at": 1, "frozen_remaining": [1]},
        {"type": "segmented_progress", "number_of_steps": "many"},
    ],
)
def test_a_card_that_another_api_wrote_gives_nothing(foreign: dict[str, Any]) -> None:
    for given in ({"title": "T", "current_step": 1}, {"title": "T", "is_running": False}):
        with pytest.raises(InvalidInput) as refused:
            live.complete(given, phase="update", now=NOW, current=foreign, steady=True)
        assert refused.value.field == "content_state.type"
    whole = {"title": "T", "type": "timer", "duration_seconds": 9}
    assert (
        live.complete(whole, phase="update", now=NOW, current=foreign, steady=True)["ends_at"]
        == NOW + 9
    )


@pytest.mark.parametrize("name", ["sound", "interruption_level", "target"])
def test_a_replacement_is_silent_and_goes_where_the_first_went(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        requests.notification({"title": "T", name: "x"}, replacement=True)
    assert refused.value.field == name


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com/x?y=1",
        "shortcuts://run-shortcut?name=Lights",
        "spotify:track:123",
        "myapp://open/7",
        "tel:+49301234",
    ],
)
def test_what_a_tap_on_a_notification_may_open(url: str) -> None:
    read = requests.notification(
        {
            "title": "T",
            "redirection": url,
            "actions": [{"title": "a", "type": "open_url", "url": url}],
        }
    )
    assert read.content["custom"] == {"redirection": url}
    assert read.actions == (Button("a", "open_url", url),)


BLOCKED = (
    "about app-prefs blob chrome data file filesystem javascript prefs vbscript view-source "
    "x-apple x-apple.systempreferences itms-services itms-services-x"
)


def test_blocked_schemes_are_blocked_however_they_are_written() -> None:
    for scheme in BLOCKED.split():
        for url in (f"{scheme}://x", f"{scheme.upper()}:x"):
            with pytest.raises(InvalidInput):
                requests.address({"redirection": url}, "redirection", opens_apps=True)
            with pytest.raises(InvalidInput):
                requests.action({**OPEN, "url": url}, "action", any_scheme=True)


def test_clients_send_a_method_with_every_button() -> None:
    read = requests.start({**LIVE, "action": {**OPEN, "method": "POST", "body": None}})
    assert read.buttons == {"action": Button("Look", "open_url", OPEN["url"])}


def test_absent_null_and_empty_are_three_things() -> None:
    absent = requests.update({"activity_id": "a", **LIVE})
    assert (absent.buttons, absent.tags, absent.metadata) == ({}, None, None)
    cleared = requests.update(
        {"activity_id": "a", **LIVE, "tags": [], "metadata": {}, "action": None}
    )
    assert (cleared.buttons, cleared.tags, cleared.metadata) == ({"action": None}, (), {})


def test_channels_of_a_stream_in_both_forms() -> None:
    one = requests.stream({**LIVE, "channels": ["b", "a", "b"], "target": {"channels": ["a", "b"]}})
    assert one.channels == ("a", "b")
    assert requests.stream_end(None) == requests.LiveCall(state=None)


def test_metric_keys() -> None:
    assert requests.metric_key("deploy.success_rate") == "deploy.success_rate"
    for key in ("", "Upper", "-a", ".a", "a" * 65, "a/b", "a\n"):
        with pytest.raises(InvalidInput):
            requests.metric_key(key)
    assert (
        requests.metric({"value": 3, "timestamp": "2026-05-01T12:00:00.500Z"})[1] == 1777636800500
    )
    assert requests.metric({"value": 3, "timestamp": "2026-05-01T12:00:00"})[1] == 1777636800000


def a_key(*groups: str, bound: bool = True) -> ApiKey:
    app = App(
        row=1, id="a", name="A", bundle_id="b", environment="sandbox", settings={}, created_at=0
    )
    return ApiKey(
        id="k",
        app=app,
        dialect="activitysmith",
        scopes=frozenset(),
        name="k",
        caller="k",
        groups=frozenset(groups) if bound else None,
    )


def test_channels_against_the_keys_scope() -> None:
    everyone = a_key(bound=False)
    assert effective(everyone, None) is None
    assert effective(everyone, ("a",)) == ("a",)
    bound = a_key("b", "a")
    assert effective(bound, None) == ("a", "b")
    assert effective(bound, ("b",)) == ("b",)
    with pytest.raises(Refused) as refused:
        effective(bound, ("a", "c"))
    assert (refused.value.status, refused.value.body["error"]) == (403, "Invalid channel targeting")
    assert audience_of(None).everyone
    assert audience_of(("a",)).groups == ("a",)


def links(now: float = NOW, *, place: str = "stream:k", secret: bytes = b"s" * 32) -> TapLinks:
    return TapLinks(
        TapSigner(secret),
        base="https://live.example/",
        app="a",
        place=place,
        now=now,
        seconds=86_400,
    )


def test_a_webhook_never_reaches_the_phone() -> None:
    made = links()
    button = requests.action(HOOK, "action")
    state = made.drawn(STEPS, {"action": button}, None)
    shown = state["action"]
    assert shown["title"] == "Stop"
    assert shown["type"] == "webhook"
    assert shown["url"].startswith("https://live.example/live-activity/taps/")
    assert "example.com" not in shown["url"]
    assert made.used == {digest_of(button): button}


def test_a_button_keeps_its_address_while_it_is_the_same() -> None:
    button = requests.action(HOOK, "action")
    first = links().drawn(STEPS, {"action": button}, None)
    for later, place, other, same in (
        (3600.0, "stream:k", button, True),
        (43_199.0, "stream:k", button, True),
        (43_201.0, "stream:k", button, False),
        (60.0, "stream:other", button, False),
        (60.0, "stream:k", requests.action({**HOOK, "body": {}}, "action"), False),
    ):
        again = links(NOW + later, place=place).drawn(STEPS, {"action": other}, first)
        assert (again == first) is same, (later, place)
    forged = links(secret=b"t" * 32).drawn(STEPS, {"action": button}, first)
    assert forged != first


def test_a_button_that_is_not_mentioned_stays_and_null_removes_it() -> None:
    card = {**STEPS, "action": OPEN, "secondary_action": OPEN}
    assert links().drawn(STEPS, {}, card) == card
    assert "action" not in links().drawn(STEPS, {"action": None}, card)
    metrics = {"title": "T", "type": "metrics", "metrics": []}
    kept = links().drawn(metrics, {}, card)
    assert kept == {**metrics, "action": OPEN}
    with pytest.raises(InvalidInput) as refused:
        links().drawn(metrics, {"secondary_action": requests.action(OPEN, "x")}, None)
    assert refused.value.field == "secondary_action"


def test_dismissal() -> None:
    assert live.dismissal(None, 120) == 120
    assert live.dismissal({}, 180) == 180
    assert live.dismissal({"auto_dismiss_minutes": 0}, 180) == 0
    assert live.dismissal({"auto_dismiss_minutes": 5.0}, 180) == 300
    assert live.dismissal({"auto_dismiss_minutes": 5, "auto_dismiss_seconds": 7}, 180) == 7


@pytest.mark.parametrize(
    "given",
    [
        {"answer_wait": -1},
        {"answer_wait": 61},
        {"live_activities": 0},
        {"counted": "x"},
        {"x": 1},
        [],
    ],
)
def test_bad_settings(given: Any) -> None:
    app = a_key().app
    changed = App(
        **{name: getattr(app, name) for name in app.__struct_fields__ if name != "settings"},
        settings={"activitysmith": given},
    )
    with pytest.raises(InvalidSetting) as refused:
        settings_of(changed)
    assert refusal_of(refused.value).status == 500
    assert settings_of(app) == DialectSettings()


@pytest.mark.parametrize(
    ("accepted", "failed", "told"),
    [(5, 0, (5, 1)), (6, 0, (6, 0)), (4, 1, (4, 1)), (5, 1, (5, 1)), (0, 0, (5, 1))],
)
def test_a_device_is_notified_or_queued(accepted: int, failed: int, told: tuple[int, int]) -> None:
    """A device whose token comes while the answer waits for APNs is no longer queued."""
    result = Result(finished=True, targeted=6, accepted=accepted, failed=failed, persons=6)
    said = result.counts(devices=5, queued=1)
    assert (said["devices_notified"], said["devices_queued"]) == told
