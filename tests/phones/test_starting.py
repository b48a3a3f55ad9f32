import pytest

from apns_live.testing.phones.decoding import DATA_LIMIT
from apns_live.testing.state import TokenCondition

from .conftest import ALERT, BUNDLE, GAME, TOPIC


def test_a_start_is_shown_and_its_token_arrives_later(sender):
    phone = sender.phones.add_device("phone", attributes_types=[GAME])
    seen = []
    sender.phones.on_token.append(lambda *arguments: seen.append(arguments))
    record = sender.start(phone.token_of("start").text, {"score": 3})
    assert (record.state, record.event, record.device) == ("delivered", "start", "phone")
    (activity,) = phone.activities
    assert activity.content_state == {"score": 3}
    assert activity.attributes_type == GAME
    assert activity.token is None
    assert seen == []
    sender.clock.advance_sync(3)
    assert seen == [(phone, activity, activity.token.text)]
    assert len(activity.token.text) == 160
    assert sender.is_live(activity.token.text)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"alert": None}, "no alert"),
        ({"alert": {}}, "no alert"),
        ({"alert": ""}, "no alert"),
        ({"attributes_type": None}, "undecodable"),
        ({"attributes": None}, "undecodable"),
        ({"attributes": []}, "undecodable"),
        ({"content_state": None}, "undecodable"),
        ({"content_state": 7}, "undecodable"),
        ({"timestamp": None}, "undecodable"),
        ({"timestamp": "now"}, "undecodable"),
        ({"event": "begin"}, "undecodable"),
        ({"event": None}, "undecodable"),
        ({"attributes_type": "App.GameAttributes"}, "wrong token"),
        ({"content_state": {"text": "x" * DATA_LIMIT}}, "too large"),
    ],
)
def test_a_start_that_iphones_ignore(sender, changes, why):
    phone = sender.phones.add_device(attributes_types=[GAME])
    record = sender.start(phone.token_of("start").text, **changes)
    assert (record.state, record.why) == ("discarded", why)
    assert phone.activities == []


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'"aps"', b"{}", b'{"aps": 1}', b"\xff", b"[" * 5000]
)
def test_bodies_that_are_no_payload(sender, body):
    _phone, activity = sender.started()
    record = sender.push(activity.token.text, body)
    assert (record.state, record.why) == ("discarded", "undecodable")
    assert activity.content_state == {"score": 0}


@pytest.mark.parametrize(
    ("device", "why"),
    [({"low_power": True}, "low power"), ({"live_activities_enabled": False}, "disabled")],
)
def test_phones_that_start_nothing(sender, device, why):
    phone = sender.phones.add_device(attributes_types=[GAME], **device)
    assert sender.start(phone.token_of("start").text).why == why


def test_an_old_system_has_no_push_to_start_token(sender):
    phone = sender.phones.add_device(attributes_types=[GAME], os_version="17.1")
    assert phone.token_of("start") is None
    assert sender.phones.add_device(attributes_types=[GAME], os_version="17.2").token_of("start")


def test_ios_18_gives_no_token_unless_it_was_asked_for(sender):
    new = sender.phones.add_device(attributes_types=[GAME])
    old = sender.phones.add_device(attributes_types=[GAME], os_version="17.4")
    for phone in (new, old):
        sender.start(phone.token_of("start").text, input_push_token=None)
    sender.clock.advance_sync(60)
    assert new.activities[0].token is None
    assert old.activities[0].token is not None


def test_a_token_that_never_comes_arrives_when_the_app_is_opened(make_sender):
    sender = make_sender(token_never=1.0)
    phone = sender.phones.add_device(attributes_types=[GAME])
    sender.start(phone.token_of("start").text)
    sender.clock.advance_sync(3600)
    (activity,) = phone.activities
    assert activity.token is None
    sender.phones.open_app(phone)
    assert sender.update(activity.token.text).state == "delivered"


def test_the_start_budget_is_spent_after_ten_and_refills(sender):
    phone = sender.phones.add_device(attributes_types=[GAME])
    token = phone.token_of("start").text
    for _ in range(10):
        assert sender.start(token).state == "delivered"
        sender.phones.dismiss(phone.activities[-1])
        sender.clock.advance_sync(10)
    assert sender.start(token).why == "start budget"
    sender.phones.open_app(phone)
    assert sender.start(token).state == "delivered"
    sender.clock.advance_sync(2 * 86_400)
    assert sender.phones.start_budget_of(phone, BUNDLE).remaining(sender.now) == 10


def test_an_app_runs_five_activities(sender):
    phone = sender.phones.add_device(attributes_types=[GAME])
    token = phone.token_of("start").text
    assert [sender.start(token).why for _ in range(6)] == [""] * 5 + ["limit"]


def test_a_phone_runs_ten_activities(make_sender):
    sender = make_sender(device_limit=2)
    phone = sender.phones.add_device(attributes_types=[GAME])
    token = phone.token_of("start").text
    assert [sender.start(token).why for _ in range(3)] == ["", "", "limit"]


def test_racing_starts_with_one_collapse_id_make_one_activity(sender):
    phone = sender.phones.add_device(attributes_types=[GAME])
    token = phone.token_of("start").text
    for _ in range(2):
        record = sender.start(token, push={"collapse_id": "match-7"})
    assert record.why == "collapsed"
    assert len(phone.activities) == 1
    sender.phones.dismiss(phone.activities[0])
    assert sender.start(token, push={"collapse_id": "match-7"}).state == "delivered"


def test_start_and_update_need_their_own_tokens(sender):
    phone, activity = sender.started()
    record = sender.start(activity.token.text)
    assert record.why == "wrong token"
    record = sender.update(phone.token_of("start").text)
    assert record.why == "wrong token"
    assert record.detail.endswith("this one is a push-to-start token of GameAttributes")


def test_tokens_belong_to_their_topic(sender):
    phone = sender.phones.add_device(attributes_types=[GAME])
    device_token = phone.token_of("device").text
    assert len(device_token) == 64
    assert sender.condition(device_token) is TokenCondition.WRONG_TOPIC
    assert sender.condition(device_token, BUNDLE) is TokenCondition.LIVE
    assert sender.condition(phone.token_of("start").text, BUNDLE) is TokenCondition.WRONG_TOPIC
    assert sender.condition("ab" * 32) is TokenCondition.UNKNOWN


def test_start_tokens_may_rotate_after_use(make_sender):
    sender = make_sender(rotate_start_token=1.0)
    phone = sender.phones.add_device(attributes_types=[GAME])
    old = phone.token_of("start")
    issued = []
    sender.phones.registry.on_issue.append(issued.append)
    sender.start(old.text)
    new = phone.token_of("start")
    assert new is not old
    assert issued[0] is new
    assert sender.is_live(old.text)
    assert sender.start(old.text).why == "silent token"
    assert sender.start(new.text).state == "delivered"


def test_an_alert_push_is_a_notification(sender):
    phone = sender.phones.add_device()
    record = sender.push(
        phone.token_of("device").text, {"aps": {"alert": ALERT}}, topic=BUNDLE, push_type="alert"
    )
    assert record.state == "delivered"
    assert phone.notifications == [record]
    for _ in range(100):
        sender.push(phone.token_of("device").text, {}, topic=BUNDLE, push_type="alert")
    assert len(phone.notifications) == 20


def test_any_token_is_a_phone_made_by_its_first_push(sender):
    start, update, alert = "aa" * 32, "bb" * 80, "cc" * 32
    assert sender.start(start).state == "delivered"
    assert sender.update(update, {"score": 9}).state == "delivered"
    assert sender.push(alert, {"aps": {}}, topic=BUNDLE, push_type="alert").state == "delivered"
    unknown = sender.phones.token(update).activity
    assert unknown.attributes_type is None
    assert unknown.content_state == {"score": 9}
    sender.clock.advance_sync(5)
    (activity,) = sender.phones.token(start).device.activities
    assert sender.update(activity.token.text, {"score": 4}).state == "delivered"
    assert activity.content_state == {"score": 4}
    assert [device.automatic for device in sender.phones.devices.values()] == [True] * 3


def test_an_unknown_token_may_serve_several_topics(sender):
    token = "ab" * 32
    sender.push(token, {"aps": {"alert": "hi"}}, topic=BUNDLE, push_type="alert")
    assert sender.is_live(token)
    assert sender.update(token, {"score": 1}).state == "delivered"
    assert sender.update(token, {"score": 2}, timestamp=int(sender.now) + 1).state == "delivered"
    (phone,) = sender.phones.devices.values()
    assert phone.activities[0].content_state == {"score": 2}
    assert (
        sender.push(token, {"aps": {}}, topic="org.other.push-type.liveactivity").why
        == "undecodable"
    )


def test_automatic_phones_are_bounded(make_sender):
    sender = make_sender(max_devices=50)
    for number in range(200):
        sender.update(f"{number:064x}")
    assert len(sender.phones.devices) == 50
    assert len(sender.phones.registry.tokens) == 50
    assert len(sender.phones.activities) == 50


def test_topic_of_unknown_tokens_is_open(sender):
    assert TOPIC.endswith(".push-type.liveactivity")
    sender.start("aa" * 32)
    assert sender.condition("aa" * 32, "org.other") is TokenCondition.LIVE
