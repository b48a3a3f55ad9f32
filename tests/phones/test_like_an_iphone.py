"""Rules that were seen on iPhones: consent, the observed budget, refreshes, silent token streams."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from apns_live.delivery import budget as sender_side
from apns_live.errors import FakeError
from apns_live.testing import log as words
from apns_live.testing.phones import PhoneSettings
from apns_live.testing.phones.settings import BEFORE_17_2, HOUR, OBSERVED, BudgetLaw, StartBudgetLaw
from apns_live.testing.state import TokenCondition

from .conftest import BUNDLE, GAME, log_lines

NO_LAW = {"seed", "asleep", "offline_cycle", "max_devices", "max_dead_tokens"}


def test_every_rule_has_its_mark_and_source():
    page = Path(__file__).parents[2] / "docs" / "phones.md"
    lines = page.read_text().partition("|---|---|---|---|---|\n")[2].splitlines()
    rules = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert len({what for what, *_ in rules}) == len(rules) > 30
    for what, mark, source, _, _ in rules:
        assert mark in {"D", "F", "O", "I"}
        assert source, what
    assert {each.name for each in fields(PhoneSettings)} - NO_LAW <= {rule[3] for rule in rules}
    known = {word for rule in rules for word in rule[4].split(", ")}
    source = Path(words.__file__).read_text().partition("# Why a push was discarded.")[2]
    discards = set(re.findall(r'^[A-Z_]+ = "(.+)"$', source, re.MULTILINE))
    assert len(discards) > 15
    assert discards <= known


def test_senders_and_phones_presets_do_not_drift():
    """Written twice on purpose: the fake stands apart from the sender."""
    presets = sender_side.PRESETS
    unused, frequent = presets["observed"], presets["observed-frequent"]
    assert OBSERVED == PhoneSettings().budget == BudgetLaw()
    assert (OBSERVED.capacity, OBSERVED.frequent_capacity) == (unused.per_hour, frequent.per_hour)
    assert OBSERVED.kind == str(unused.law) == str(frequent.law)
    assert OBSERVED.pooled
    assert OBSERVED.window == sender_side.HOUR == HOUR
    starts = PhoneSettings().start_budget
    assert starts == StartBudgetLaw()
    assert starts.capacity == unused.starts_per_hour == frequent.starts_per_hour
    assert starts.window == sender_side.HOUR
    before = presets["default"], presets["frequent"]
    assert (BEFORE_17_2.capacity, BEFORE_17_2.frequent_capacity) == tuple(
        b.per_hour for b in before
    )


def test_the_16th_push_to_an_unused_phone_is_delayed_not_dropped(make_sender):
    sender = make_sender(frequent_pushes=False)
    _, activity = sender.started()
    token = activity.token.text
    for number in range(15):
        assert sender.update(token, {"n": number}).state == "delivered"
    late = sender.update(token, {"n": 15})
    assert (late.state, late.why, late.demoted) == ("stored", "budget", True)
    assert activity.content_state == {"n": 14}
    sender.clock.advance_sync(60)
    assert late.state == "delivered from storage"
    assert "delayed" in late.detail
    assert activity.content_state == {"n": 15}


def test_the_window_begins_with_the_first_push_and_does_not_roll(make_sender):
    sender = make_sender(frequent_pushes=False)
    _, activity = sender.started()
    token = activity.token.text
    sender.clock.advance_sync(1800)
    sender.update(token)
    budget = sender.phones.budget_of(activity)
    assert budget.refills_at(sender.now) == sender.now + 3600
    sender.clock.advance_sync(3540)
    for _ in range(14):
        assert sender.update(token).state == "delivered"
    assert sender.update(token).demoted
    sender.clock.advance_sync(60)
    assert budget.remaining(sender.now) == 15


def test_two_activities_of_one_app_share_a_budget(make_sender):
    sender = make_sender(frequent_pushes=False)
    phone = sender.phones.add_device()
    first, second = (sender.phones.start_activity(phone, GAME, {}, {"n": 0}) for _ in range(2))
    for activity, pushes in ((first, 8), (second, 7)):
        for _ in range(pushes):
            assert sender.update(activity.token.text).state == "delivered"
    assert sender.update(first.token.text).demoted
    assert sender.update(second.token.text).demoted
    other = sender.phones.start_activity(phone, GAME, {}, {"n": 0}, bundle_id="org.other")
    topic = "org.other.push-type.liveactivity"
    assert sender.update(other.token.text, push={"topic": topic}).state == "delivered"


def test_a_phone_before_ios_17_2_keeps_to_the_old_figures(sender):
    phone = sender.phones.add_device(os_version="17.0", frequent_pushes=False)
    activity = sender.phones.start_activity(phone, GAME, {}, {"n": 0})
    for _ in range(15):
        sender.update(activity.token.text)
    assert sender.update(activity.token.text).state == "discarded"


def test_fifteen_start_tries_count_ten_down_to_minus_5(sender):
    phone = sender.phones.add_device(attributes_types=[GAME])
    token = phone.token_of("start").text
    for number in range(15):
        record = sender.start(token)
        assert record.why == ("" if number < 10 else "start budget")
        if number < 10:
            sender.phones.dismiss(phone.activities[-1])
    budget = sender.phones.start_budget_of(phone, BUNDLE)
    assert budget.remaining(sender.now) == -5
    sender.clock.advance_sync(3600)
    assert budget.remaining(sender.now) == 10


def test_without_an_answer_a_started_card_has_no_token(make_sender):
    sender = make_sender(consent="none")
    phone = sender.phones.add_device(attributes_types=[GAME])
    sender.start(phone.token_of("start").text)
    sender.clock.advance_sync(3600)
    (activity,) = phone.activities
    assert activity.asks
    sender.phones.open_app(phone)
    sender.phones.consent(phone, "none")
    sender.clock.advance_sync(3)
    assert (activity.asks, activity.token) == (True, None)
    sender.phones.consent(phone, "allow")
    assert not activity.asks
    sender.clock.advance_sync(3)
    token = activity.token
    sender.phones.consent(phone, "always")
    sender.clock.advance_sync(3)
    assert activity.token is token, "a card that does not ask keeps its token"
    assert sender.update(activity.token.text).state == "delivered"


def test_allow_answers_each_card_and_always_every_one(sender):
    for answer, at_once in (("allow", False), ("always", True)):
        phone = sender.phones.add_device(attributes_types=[GAME], consent=answer)
        sender.start(phone.token_of("start").text)
        sender.clock.advance_sync(3)
        assert (phone.activities[0].token is not None) is at_once
        sender.clock.advance_sync(30)
        assert phone.activities[0].token is not None


def test_dont_allow_takes_cards_away_and_refuses_more(make_sender):
    sender = make_sender(consent="none")
    phone = sender.phones.add_device(attributes_types=[GAME])
    sender.start(phone.token_of("start").text)
    sender.phones.consent(phone, "deny")
    assert phone.activities[0].state == "dismissed"
    assert phone.activities[0].ended_by == "denied"
    assert not phone.activities[0].asks
    assert sender.start(phone.token_of("start").text).why == "denied"
    with pytest.raises(FakeError, match="always"):
        sender.phones.consent(phone, "yes")


def test_what_the_app_starts_and_what_names_a_channel_needs_no_consent(make_sender):
    sender = make_sender(consent="none")
    phone = sender.phones.add_device(attributes_types=[GAME])
    assert sender.phones.start_activity(phone, GAME, {}, {}).token is not None
    channel = "dHN0LXNyY2gtY2hubA=="
    record = sender.start(phone.token_of("start").text, input_push_channel=channel)
    assert record.state == "delivered"
    sender.broadcast(
        channel,
        {"aps": {"event": "update", "timestamp": int(sender.now) + 1, "content-state": {"n": 7}}},
    )
    assert phone.activities[-1].content_state == {"n": 7}
    assert not phone.activities[-1].asks


def test_a_channel_in_a_start_fails_on_ios_17(sender):
    phone = sender.phones.add_device(attributes_types=[GAME], os_version="17.4")
    record = sender.start(phone.token_of("start").text, input_push_channel="dHN0LXNyY2gtY2hubA==")
    assert (record.why, phone.activities) == ("channel", [])


def test_refreshes_are_coalesced(make_sender):
    sender = make_sender(refresh_interval=10)
    _, activity = sender.started()
    token = activity.token.text
    for number in range(4):
        assert sender.update(token, {"n": number}).state == "delivered"
        sender.clock.advance_sync(1)
    assert activity.content_state == {"score": 0}
    sender.clock.advance_sync(5)
    assert activity.content_state == {"n": 3}
    sender.update(token, {"n": 4})
    assert activity.content_state == {"n": 3}
    sender.end(token, {"n": 5})
    assert activity.content_state == {"n": 5}
    old = sender.phones.add_device(os_version="17.4")
    shown = sender.phones.start_activity(old, GAME, {}, {"n": 0})
    sender.update(shown.token.text, {"n": 1})
    assert shown.content_state == {"n": 1}


def test_a_refresh_that_is_due_is_not_waited_for(make_sender):
    sender = make_sender(refresh_interval=10)
    _, activity = sender.started()
    sender.clock.advance_sync(activity.started_at + 10 - sender.clock.time())
    sender.update(activity.token.text, {"n": 1})
    assert activity.content_state == {"n": 1}


def test_an_end_without_a_state_shows_the_last_one_before_any_refresh(make_sender):
    sender = make_sender(refresh_interval=10)
    _, activity = sender.started()
    sender.end(activity.token.text)
    assert (activity.state, activity.content_state) == ("ended", {"score": 0})


def test_a_start_token_that_rotates_rarely_stays(make_sender):
    sender = make_sender(rotate_start_token=1e-9)
    phone = sender.phones.add_device(attributes_types=[GAME])
    before = phone.token_of("start").text
    sender.start(before)
    sender.clock.advance_sync(5)
    assert phone.token_of("start").text == before


@pytest.mark.parametrize("alert", [{"sound": "default"}, {"body": "1-0"}, {"title": ""}])
def test_an_alert_without_a_title_announces_nothing(sender, alert):
    _, activity = sender.started()
    record = sender.update(activity.token.text, {"n": 1}, alert=alert)
    assert record.state == "delivered"
    assert "no title" in record.detail
    assert (activity.alerts, activity.content_state) == (1, {"n": 1})


def test_a_silent_stream_leaves_the_app_with_a_dead_token(make_sender):
    sender = make_sender(rotate_start_token=1.0, silent_stream=1.0)
    phone = sender.phones.add_device(attributes_types=[GAME])
    issued = []
    sender.phones.registry.on_issue.append(issued.append)
    old = phone.token_of("start").text
    sender.start(old)
    assert [token.kind for token in issued if token.kind == "start"] == []
    assert sender.is_live(old)
    assert sender.start(old).why == "silent token"
    sender.phones.open_app(phone, reads_tokens=False)
    assert [token.kind for token in issued if token.kind == "start"] == []
    sender.phones.open_app(phone)
    (new,) = [token for token in issued if token.kind == "start"]
    assert sender.start(new.text).state == "delivered"
    # Only streams of push-to-start tokens were seen to be silent.
    assert sender.phones.rotate(phone.token_of("device")).told


def test_a_rotated_token_is_given_back(sender):
    _, activity = sender.started()
    old = activity.token
    assert sender.phones.rotate(old) is activity.token is not old


def test_widgets_and_controls_have_tokens_of_their_own(sender):
    phone = sender.phones.add_device(os_version="26.0", widgets=True, controls=["Lamp"])
    for kind in ("widgets", "controls"):
        topic = f"{BUNDLE}.push-type.{kind}"
        token = phone.token_of(kind).text
        assert sender.condition(token, topic) is TokenCondition.LIVE
        assert sender.condition(token, BUNDLE) is TokenCondition.WRONG_TOPIC
        body = {"aps": {"content-changed": True}}
        assert sender.push(token, body, topic=topic, push_type=kind).state == "delivered"
        assert sender.push(token, {"aps": {}}, topic=topic, push_type=kind).why == "undecodable"
    old = sender.phones.add_device(os_version="17.0", widgets=True, controls=["Lamp"])
    assert [token.kind for token in old.tokens] == ["device"]


def test_the_log_says_why_a_push_was_late(make_sender):
    sender = make_sender(budget=BudgetLaw(frequent_capacity=0))
    _, activity = sender.started()
    record = sender.update(activity.token.text)
    sender.clock.advance_sync(60)
    rows = [json.loads(line) for line in log_lines(sender.log).splitlines()]
    assert [(row["state"], row["why"]) for row in rows if row["push"] == record.number] == [
        ("received", ""),
        ("stored", "budget"),
        ("delivered from storage", ""),
    ]
