"""Each rule of the phones at its limit: one case inside, one outside."""

import json

import pytest

from apns_live.testing.phones import BudgetLaw
from apns_live.testing.phones.decoding import DATA_LIMIT

from .conftest import BUNDLE, GAME

LATER = "26.0"
"""An iOS after all that brought a rule."""


@pytest.mark.parametrize(("version", "why"), [("17.1", "disabled"), ("17.2", ""), (LATER, "")])
def test_push_to_start_needs_ios_17_2_even_with_a_token(make_sender, version, why):
    sender = make_sender(os_version=version)
    assert sender.start("aa" * 32).why == why


@pytest.mark.parametrize("version", ["17.2", LATER])
def test_the_observed_budget_holds_from_ios_17_2_on(make_sender, version):
    sender = make_sender(os_version=version, frequent_pushes=False)
    _, activity = sender.started()
    for _ in range(15):
        assert sender.update(activity.token.text).state == "delivered"
    assert sender.update(activity.token.text).state == "stored"


def test_what_came_with_ios_18_holds_later_too(make_sender):
    sender = make_sender(os_version=LATER, refresh_interval=10)
    phone, activity = sender.started()
    record = sender.update(activity.token.text, {"n": 1})
    assert (activity.content_state, record.detail) == (
        {"score": 0},
        "shown with the next refresh, in 5 s",
    )
    token = phone.token_of("start").text
    sender.start(token, input_push_token=None)
    assert sender.start(token, input_push_channel="Y2g=").state == "delivered"
    sender.clock.advance_sync(60)
    assert [each.token is None for each in phone.activities] == [False, True, True]


@pytest.mark.parametrize("other", ["Apple", "Zebra", "Z" * 100])
def test_a_token_learns_its_attributes_type_from_the_first_start(sender, other):
    token = "aa" * 32
    for _ in range(2):
        assert sender.start(token).state == "delivered"
    refused = sender.start(token, attributes_type=other)
    assert refused.why == "wrong token"
    assert refused.detail == f"the token is for {GAME}, not {other[:80]}"


@pytest.mark.parametrize("shown", [0, 1])
def test_a_timestamp_of_0_is_as_good_as_any(sender, shown):
    phone = sender.phones.add_device(attributes_types=[GAME])
    sender.start(phone.token_of("start").text, timestamp=0)
    sender.clock.advance_sync(5)
    (activity,) = phone.activities
    assert activity.timestamp == 0
    assert sender.update(activity.token.text, {"n": 1}, timestamp=shown).state == "delivered"
    assert (activity.timestamp, activity.updates) == (shown, 1)
    record = sender.update(activity.token.text, {"n": 2}, timestamp=0)
    assert record.why == ("older timestamp" if shown else "")
    assert (activity.content_state, activity.updates) == ({"n": 2 - shown}, 2 - shown)


def test_the_log_says_by_how_much_a_timestamp_may_be_ahead(make_sender):
    sender = make_sender(future_limit=5400)
    _, activity = sender.started()
    record = sender.update(activity.token.text, timestamp=int(sender.now) + 5401)
    assert record.why == "future timestamp"
    assert record.detail.endswith("is more than 1.5 h ahead of the phone's clock")
    record = sender.update(activity.token.text, timestamp=int(sender.now) + 5400)
    assert record.state == "delivered"


@pytest.mark.parametrize(("seconds", "stale"), [(0, True), (1, False)])
def test_a_card_is_stale_from_its_date_on(sender, seconds, stale):
    _, activity = sender.started()
    sender.update(activity.token.text, stale_date=int(sender.now) + seconds)
    assert activity.stale is stale


def test_attributes_and_content_state_have_4096_bytes_together(sender):
    phone = sender.phones.add_device(attributes_types=[GAME])
    token, attributes = phone.token_of("start").text, {"a": "x" * 991}
    size = DATA_LIMIT - len(json.dumps(attributes)) - len('{"n": ""}')
    assert sender.start(token, {"n": "x" * size}, attributes=attributes).state == "delivered"
    record = sender.start(token, {"n": "x" * (size + 1)}, attributes=attributes)
    assert (record.why, record.detail) == (
        "too large",
        "attributes and content state are 4097 bytes, over 4096",
    )


def app_token(sender, phone, bundle_id):
    return sender.phones.registry.issue("start", bundle_id, phone, attributes_type=GAME).text


APPS = ["a.example", BUNDLE, "z.example"]


def test_a_collapse_id_collapses_within_its_app_alone(sender):
    phone = sender.phones.add_device()
    tokens = {app: app_token(sender, phone, app) for app in APPS}

    def start(app, match):
        push = {"topic": f"{app}.push-type.liveactivity", "collapse_id": f"match-{match}"}
        return sender.start(tokens[app], push=push).why

    assert [start(BUNDLE, match) for match in (5, 4, 6)] == ["", "", ""]
    assert [start(app, 5) for app in APPS] == ["", "collapsed", ""]


def test_the_activities_of_each_app_are_counted_for_themselves(make_sender):
    sender = make_sender(app_limit=1)
    phone = sender.phones.add_device()
    for app in [BUNDLE, *APPS]:
        push = {"topic": f"{app}.push-type.liveactivity"}
        record = sender.start(app_token(sender, phone, app), push=push)
        first = app not in {each.bundle_id for each in phone.activities[:-1]}
        assert record.why == ("" if first else "limit"), app
    assert [each.bundle_id for each in phone.activities] == [BUNDLE, "a.example", "z.example"]


@pytest.mark.parametrize("limits", [{"app_limit": 2}, {"device_limit": 2}])
def test_nothing_is_started_by_push_where_the_app_itself_started_more_than_the_limit(
    make_sender, limits
):
    sender = make_sender(**limits)
    phone = sender.phones.add_device(attributes_types=[GAME])
    for _ in range(3):
        sender.phones.start_activity(phone, GAME, {}, {})
    assert sender.start(phone.token_of("start").text).why == "limit"


def test_only_an_end_is_exempt_from_the_budget(make_sender):
    law = BudgetLaw(kind="rolling", frequent_capacity=0, exempt_end=True)
    sender = make_sender(budget=law)
    _, activity = sender.started()
    assert sender.update(activity.token.text).why == "budget"


@pytest.mark.parametrize(("pooled", "different"), [(True, 1), (False, 12)])
def test_a_capacity_is_drawn_once_for_what_it_limits(sender, pooled, different):
    law = BudgetLaw(capacity=(1, 10_000), pooled=pooled)
    phone = sender.phones.add_device(frequent_pushes=False)
    cards = [sender.phones.start_activity(phone, GAME, {}, {}) for _ in range(12)]
    assert len({sender.phones.capacity_of(card, law) for card in cards}) == different


def test_a_token_comes_when_its_delay_is_over_and_no_sooner(make_sender):
    sender = make_sender(token_delay=(0.5, 0.5), token_never=1e-9, consent="allow")
    phone = sender.phones.add_device(attributes_types=[GAME], consent="always")
    sender.start(phone.token_of("start").text, stale_date=sender.now + 0.25)
    (activity,) = phone.activities
    for _ in range(2):
        assert activity.token is None
        sender.clock.advance_sync(0.25)
    assert activity.stale
    assert activity.token is not None


def test_a_card_asks_until_it_is_allowed(make_sender):
    sender = make_sender(consent="allow", consent_delay=(10, 10))
    phone = sender.phones.add_device(attributes_types=[GAME])
    sender.start(phone.token_of("start").text)
    (activity,) = phone.activities
    sender.clock.advance_sync(9.5)
    assert (activity.asks, activity.token) == (True, None)
    sender.clock.advance_sync(1)
    assert not activity.asks
    assert activity.token is not None


def test_a_state_that_waits_for_its_refresh_is_not_shown_early(make_sender):
    sender = make_sender(refresh_interval=10)
    _, activity = sender.started()
    sender.update(activity.token.text, {"n": 1}, stale_date=int(sender.now) + 2)
    sender.clock.advance_sync(3)
    assert (activity.stale, activity.content_state) == (True, {"score": 0})
    sender.clock.advance_sync(60)
    assert activity.content_state == {"n": 1}
    sender.update(activity.token.text, {"n": 2})
    assert activity.content_state == {"n": 2}, "the last refresh is longer ago than the interval"


def by_push(sender, activity):
    sender.end(activity.token.text)


def by_user(sender, activity):
    sender.phones.dismiss(activity)


def by_app(sender, activity):
    sender.phones.end_activity(activity)


def by_app_with_a_state(sender, activity):
    sender.phones.end_activity(activity, {"n": 2})


@pytest.mark.parametrize(
    ("end", "shown"), [(by_push, 1), (by_user, 1), (by_app, 1), (by_app_with_a_state, 2)]
)
def test_an_ended_card_shows_the_newest_state_though_it_waited_for_a_refresh(
    make_sender, end, shown
):
    sender = make_sender(refresh_interval=10)
    _, activity = sender.started()
    sender.update(activity.token.text, {"n": 1})
    assert activity.content_state == {"score": 0}
    end(sender, activity)
    assert activity.content_state == {"n": shown}
    sender.clock.advance_sync(60)
    assert activity.content_state == {"n": shown}


def test_a_card_ends_once(sender):
    _, activity = sender.started()
    sender.end(activity.token.text, {"final": 1}, dismissal_date=int(sender.now) + 60)
    ended_at = activity.ended_at
    sender.clock.advance_sync(30)
    sender.phones.end_activity(activity, {"late": 1})
    assert (activity.ended_by, activity.ended_at) == ("push", ended_at)
    assert activity.content_state == {"final": 1}
    sender.clock.advance_sync(30)
    assert activity.state == "dismissed"


def test_only_dismissed_cards_are_forgotten(make_sender):
    sender = make_sender(app_limit=50, device_limit=50)
    phone = sender.phones.add_device()
    cards = [sender.phones.start_activity(phone, GAME, {}, {}) for _ in range(7)]
    sender.phones.end_activity(cards[1])
    for card in cards[2:]:
        sender.phones.dismiss(card)
    assert phone.activities == [cards[0], cards[1], *cards[-3:]]


def test_a_stream_that_is_seldom_silent_tells_and_other_kinds_are_never_silent(make_sender):
    sender = make_sender(silent_stream=1e-9, os_version=LATER)
    phone = sender.phones.add_device(attributes_types=[GAME])
    assert sender.phones.rotate(phone.token_of("start")).told
    sender = make_sender(silent_stream=1.0, os_version=LATER)
    phone = sender.phones.add_device(widgets=True, controls=["Lamp"])
    for kind in ("device", "widgets", "controls"):
        assert sender.phones.rotate(phone.token_of(kind)).told, kind


@pytest.mark.parametrize(
    ("consent", "why", "token"),
    [("allow", "", True), ("always", "", True), ("none", "", False), ("deny", "denied", False)],
)
def test_consent_that_was_read_from_a_file(make_sender, consent, why, token):
    sender = make_sender(**json.loads(json.dumps({"consent": consent})))
    assert sender.start("aa" * 32).why == why
    sender.clock.advance_sync(60)
    activities = sender.phones.token("aa" * 32).device.activities
    assert [each.token is not None for each in activities] == ([] if why else [token])


@pytest.mark.parametrize("after_end", ["8 hours", "silent", "410"])
def test_other_rules_that_were_read_from_a_file(make_sender, after_end):
    rules = {"equal_timestamp": "discard", "after_end": after_end}
    sender = make_sender(**json.loads(json.dumps(rules)))
    _, activity = sender.started()
    token = activity.token.text
    sender.update(token)
    assert sender.update(token).why == "older timestamp"
    sender.end(token)
    assert sender.is_live(token) is (after_end != "410")
    sender.clock.advance_sync(activity.started_at + 8 * 3600 - sender.now)
    assert sender.is_live(token) is (after_end == "silent")
