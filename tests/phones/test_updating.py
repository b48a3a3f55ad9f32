import pytest

from apns_live.errors import FakeError
from apns_live.testing.phones import BudgetLaw
from apns_live.testing.state import TokenCondition, TokenStatus

from .conftest import GAME


def test_the_newest_timestamp_wins(make_sender):
    sender = make_sender(equal_timestamp="discard")
    _, activity = sender.started()
    now = int(sender.now)
    token = activity.token.text
    assert sender.update(token, {"n": 1}, timestamp=now).state == "delivered"
    record = sender.update(token, {"n": 0}, timestamp=now - 1)
    assert (record.state, record.why) == ("discarded", "older timestamp")
    assert sender.update(token, {"n": 2}, timestamp=now).why == "older timestamp"
    assert activity.content_state == {"n": 1}
    assert activity.ignored == 2


def test_equal_timestamps_are_not_older(sender):
    _, activity = sender.started()
    for number in (1, 2):
        assert sender.update(activity.token.text, {"n": number}).state == "delivered"
    assert activity.content_state == {"n": 2}


def test_milliseconds_lie_in_the_future(sender):
    phone, activity = sender.started()
    record = sender.update(activity.token.text, timestamp=int(sender.now * 1000))
    assert (record.state, record.why) == ("discarded", "future timestamp")
    assert sender.update(activity.token.text).state == "delivered"
    sender.start(phone.token_of("start").text, timestamp=int(sender.now * 1000))
    sender.clock.advance_sync(5)
    assert sender.update(phone.activities[-1].token.text).why == "older timestamp"


def test_eight_hours_ahead_is_the_limit_and_an_end_is_exempt(sender):
    _, activity = sender.started()
    token, now = activity.token.text, int(sender.now)
    assert sender.update(token, timestamp=now + 8 * 3600).state == "delivered"
    assert sender.update(token, timestamp=now + 8 * 3600 + 60).why == "future timestamp"
    assert sender.end(token, {"final": 1}, timestamp=now - 100).state == "delivered"
    assert (activity.state, activity.content_state) == ("ended", {"final": 1})


def test_a_stale_date_passes_and_is_moved_by_the_next_update(sender):
    _, activity = sender.started()
    token = activity.token.text
    sender.update(token, stale_date=int(sender.now) + 60)
    assert not activity.stale
    sender.clock.advance_sync(61)
    assert activity.stale
    sender.update(token, stale_date=int(sender.now) + 60)
    assert not activity.stale
    sender.clock.advance_sync(10)
    sender.update(token)
    sender.clock.advance_sync(3600)
    assert not activity.stale
    sender.update(token, stale_date=int(sender.now) - 1)
    assert activity.stale


def test_an_end_stays_for_four_hours(sender):
    _, activity = sender.started()
    token = activity.token.text
    sender.end(token, {"final": 1})
    assert (activity.state, activity.ended_by) == ("ended", "push")
    assert activity.content_state == {"final": 1}
    sender.clock.advance_sync(4 * 3600 - 1)
    assert activity.state == "ended"
    sender.clock.advance_sync(1)
    assert activity.state == "dismissed"


@pytest.mark.parametrize(
    ("offset", "shown_for"), [(-10, 0), (600, 600), (5 * 3600, 4 * 3600), (None, 4 * 3600)]
)
def test_dismissal_dates(sender, offset, shown_for):
    _, activity = sender.started()
    dismissal_date = None if offset is None else int(sender.now) + offset
    sender.end(activity.token.text, dismissal_date=dismissal_date)
    if shown_for:
        sender.clock.advance_sync(shown_for - 1)
        assert activity.state == "ended"
        sender.clock.advance_sync(1)
    assert activity.state == "dismissed"


def test_an_end_without_a_state_leaves_the_last_one(sender):
    _, activity = sender.started()
    sender.end(activity.token.text)
    assert activity.content_state == {"score": 0}
    assert activity.state == "ended"


def test_nothing_changes_an_ended_activity(sender):
    _, activity = sender.started()
    token = activity.token.text
    sender.end(token, {"final": 1})
    sender.clock.advance_sync(5)
    for push in (sender.update, sender.end):
        record = push(token, {"late": 1})
        assert (record.state, record.why) == ("discarded", "ended")
    assert activity.content_state == {"final": 1}


def test_eight_hours_then_four(sender):
    _, activity = sender.started()
    token = activity.token.text
    started = activity.started_at
    sender.clock.advance_sync(started + 8 * 3600 - sender.now - 1)
    assert activity.state == "active"
    sender.clock.advance_sync(1)
    assert (activity.state, activity.ended_by) == ("ended", "system")
    assert sender.condition(token) is TokenCondition.EXPIRED
    status = sender.phones.token_status(token, activity.token.topic)
    assert status.since == int((started + 8 * 3600) * 1000)
    sender.clock.advance_sync(4 * 3600)
    assert activity.state == "dismissed"


@pytest.mark.parametrize(
    ("law", "at_once", "later"),
    [
        ("8 hours", TokenCondition.LIVE, TokenCondition.EXPIRED),
        ("silent", TokenCondition.LIVE, TokenCondition.LIVE),
        ("410", TokenCondition.EXPIRED, TokenCondition.EXPIRED),
    ],
)
def test_what_the_token_of_an_ended_activity_answers(make_sender, law, at_once, later):
    sender = make_sender(after_end=law)
    _, activity = sender.started()
    token = activity.token.text
    sender.end(token)
    assert sender.condition(token) is at_once
    sender.clock.advance_sync(8 * 3600)
    assert sender.condition(token) is later


def test_a_user_swipes_it_away(sender):
    _, activity = sender.started()
    sender.phones.dismiss(activity)
    assert (activity.state, activity.ended_by) == ("dismissed", "user")
    assert sender.update(activity.token.text).why == "ended"
    swiped_at = activity.dismissal_date
    sender.clock.advance_sync(60)
    sender.phones.dismiss(activity)
    assert activity.dismissal_date == swiped_at


def test_dismissed_activities_are_forgotten_but_their_tokens_answer(sender):
    phone = sender.phones.add_device(attributes_types=[GAME])
    tokens = []
    for _ in range(8):
        sender.start(phone.token_of("start").text)
        sender.clock.advance_sync(5)
        activity = phone.activities[-1]
        tokens.append(activity.token.text)
        sender.phones.dismiss(activity)
    assert len(phone.activities) == 3
    assert len(sender.phones.activities) == 3
    # A token that is to expire is kept until then.
    assert {one.text for one in phone.tokens if one.kind == "activity"} == set(tokens)
    assert sender.update(tokens[0]).why == "ended"


def test_the_hourly_budget_is_spent_and_priority_5_is_free(make_sender):
    sender = make_sender(budget=BudgetLaw(kind="rolling"), frequent_pushes=False)
    _, activity = sender.started()
    token = activity.token.text
    for _ in range(15):
        sender.clock.advance_sync(1)
        assert sender.update(token).state == "delivered"
    sender.clock.advance_sync(1)
    record = sender.update(token, {"lost": 1})
    assert (record.state, record.why) == ("discarded", "budget")
    assert sender.update(token, {"free": 1}, push={"priority": 5}).state == "delivered"
    assert activity.content_state == {"free": 1}
    sender.clock.advance_sync(3600)
    assert sender.update(token).state == "delivered"


def test_frequent_updates_have_a_larger_budget_until_the_user_turns_them_off(sender):
    phone, activity = sender.started()
    token = activity.token.text
    for _ in range(229):
        sender.clock.advance_sync(1)
        assert sender.update(token).state == "delivered"
    sender.clock.advance_sync(1)
    assert sender.update(token).why == "budget"
    sender.phones.configure(phone, {"frequent_pushes": False})
    assert sender.phones.capacity_of(activity, sender.phones.settings.budget) == 15


@pytest.mark.parametrize("kind", ["rolling", "clock hour", "bucket"])
def test_budget_laws(make_sender, kind):
    sender = make_sender(
        budget=BudgetLaw(kind=kind, capacity=4, window=3600), frequent_pushes=False
    )
    _, activity = sender.started()
    sender.clock.advance_sync(3000)
    shown = []
    for _ in range(40):
        sender.clock.advance_sync(60)
        shown.append(sender.update(activity.token.text).state == "delivered")
    first_hour = shown[:9]  # 3000 + 60 * 9 s: the clock hour turns after that
    assert sum(first_hour) == 4
    expected = {"rolling": 4, "clock hour": 8, "bucket": 6}
    assert sum(shown) == expected[kind]
    assert sender.phones.budget_of(activity).remaining(sender.now) >= 0


def test_a_capacity_is_drawn_for_each_activity(make_sender):
    law = BudgetLaw(capacity=(12, 19))
    sender = make_sender(budget=law, seed=3, frequent_pushes=False)
    found = {sender.phones.capacity_of(sender.started()[1], law) for _ in range(60)}
    assert found == set(range(12, 20))


def test_no_budget_law_means_no_budget(make_sender):
    sender = make_sender(budget=None)
    _, activity = sender.started()
    for _ in range(200):
        sender.clock.advance_sync(1)
        assert sender.update(activity.token.text).state == "delivered"


def test_an_end_may_be_exempt(make_sender):
    for exempt, state in ((False, "discarded"), (True, "delivered")):
        sender = make_sender(
            budget=BudgetLaw(kind="rolling", frequent_capacity=0, exempt_end=exempt)
        )
        _, activity = sender.started()
        assert sender.end(activity.token.text).state == state


def test_alerts_are_counted(sender):
    _, activity = sender.started()
    sender.update(activity.token.text, alert={"title": "Goal", "body": "1-0"})
    assert activity.alerts == 2
    assert activity.alerted_at == sender.now
    sender.clock.advance_sync(1)
    sender.update(activity.token.text)
    assert activity.alerts == 2


def test_content_states_are_held_to_their_schema(make_sender):
    schema = {
        "type": "object",
        "required": ["score"],
        "properties": {"score": {"type": "integer"}, "kickoff": {"type": "number"}},
    }
    sender = make_sender(schemas={GAME: schema})
    _, activity = sender.started()
    token = activity.token.text
    for bad in ({"score": "1"}, {}, {"score": 1, "kickoff": "2026-01-01T00:00:00Z"}):
        sender.clock.advance_sync(1)
        record = sender.update(token, bad)
        assert (record.state, record.why) == ("discarded", "undecodable")
    assert "kickoff" in record.detail
    assert sender.update(token, {"score": 2, "extra": [1]}).state == "delivered"
    phone = sender.phones.add_device(attributes_types=[GAME, "Other"])
    assert sender.start(phone.token_of("start", GAME).text, {"score": 0.5}).why == "undecodable"
    other = phone.token_of("start", "Other").text
    assert sender.start(other, {"x": 1}, attributes_type="Other").state == "delivered"
    assert sender.update("ab" * 32, {"score": "x"}).why == "undecodable"


def test_a_schema_that_is_none_is_refused(make_sender):
    with pytest.raises(FakeError, match="not a valid JSON Schema"):
        make_sender(schemas={GAME: {"type": "nonsense"}})


def test_activity_tokens_may_rotate(make_sender):
    sender = make_sender(rotate_activity_token=1800)
    _, activity = sender.started()
    old = activity.token.text
    sender.clock.advance_sync(1800)
    assert activity.token.text != old
    assert sender.is_live(old)
    assert sender.update(old).why == "silent token"
    assert sender.update(activity.token.text).state == "delivered"
    sender.end(activity.token.text, timestamp=int(sender.now) + 1)
    last = activity.token.text
    sender.clock.advance_sync(3600)
    assert activity.token.text == last


def test_a_token_comes_at_once_when_its_delay_is_0(make_sender):
    sender = make_sender(token_delay=(0, 0))
    phone = sender.phones.add_device(attributes_types=[GAME])
    sender.start(phone.token_of("start").text)
    (activity,) = phone.activities
    assert activity.token is not None
    assert sender.update(activity.token.text, timestamp=int(sender.now) + 1).state == "delivered"


def test_what_wakes_an_activity_does_not_rotate_its_token_early(make_sender):
    sender = make_sender(rotate_activity_token=1800)
    _, activity = sender.started()
    old = activity.token.text
    sender.update(old, stale_date=int(sender.now) + 60)
    sender.clock.advance_sync(61)
    assert activity.stale
    assert activity.token.text == old


def test_what_wakes_an_activity_does_not_make_it_stale_early(make_sender):
    sender = make_sender(rotate_activity_token=30)
    _, activity = sender.started()
    old = activity.token.text
    sender.update(old, stale_date=int(sender.now) + 60)
    sender.clock.advance_sync(31)
    assert activity.token.text != old
    assert not activity.stale
    sender.clock.advance_sync(30)
    assert activity.stale


def test_tokens_die(sender):
    _phone, activity = sender.started()
    token = activity.token
    sender.phones.kill(token, "silent")
    assert sender.is_live(token.text)
    assert sender.update(token.text).why == "silent token"
    sender.phones.kill(token, "expired")
    assert sender.condition(token.text) is TokenCondition.EXPIRED
    assert sender.phones.token_status(token.text, "x").since == int(sender.now * 1000)
    with pytest.raises(FakeError):
        sender.phones.kill(token, "gone")


def test_any_token_can_be_made_to_answer_something(sender):
    status = TokenStatus(TokenCondition.OTHER_ENVIRONMENT)
    sender.phones.mark("ef" * 32, status)
    assert sender.condition("ef" * 32) is TokenCondition.OTHER_ENVIRONMENT


def test_deleting_the_app_unregisters_its_tokens(sender):
    phone, activity = sender.started()
    texts = [token.text for token in phone.tokens]
    assert len(texts) == 3
    sender.phones.delete_app(phone)
    topic = activity.token.topic
    for text in texts:
        found = sender.phones.token_status(text, topic).condition
        assert found is TokenCondition.UNREGISTERED, text
    assert len(sender.phones.devices) == 0
    sender.clock.advance_sync(86_400)


def test_an_app_starts_and_ends_an_activity_itself(sender):
    phone = sender.phones.add_device()
    activity = sender.phones.start_activity(phone, GAME, {"home": "A"}, {"score": 0})
    assert sender.update(activity.token.text, {"score": 5}).state == "delivered"
    sender.phones.end_activity(activity, {"score": 6})
    assert activity.content_state == {"score": 6}
    assert activity.ended_by == "app"
