import pytest

from .conftest import BUNDLE, GAME


def states(sender, record):
    return [(entry.state, entry.why) for entry in sender.log.entries_of(record.number)]


def test_an_offline_phone_gets_the_newest_message_later(sender):
    phone, activity = sender.started()
    token = activity.token.text
    sender.phones.configure(phone, {"online": False})
    older = sender.update(token, {"n": 1})
    newer = sender.update(token, {"n": 2}, timestamp=int(sender.now) + 1)
    assert activity.content_state == {"score": 0}
    assert older.why == "replaced"
    sender.clock.advance_sync(60)
    sender.phones.configure(phone, {"online": True})
    assert activity.content_state == {"n": 2}
    assert states(sender, newer) == [
        ("received", ""),
        ("stored", "device offline"),
        ("delivered from storage", ""),
    ]


def test_one_message_is_stored_for_an_app_or_for_a_token(make_sender):
    for storage, shown in (("app", [0, 2]), ("token", [1, 2])):
        sender = make_sender(storage=storage)
        phone = sender.phones.add_device()
        activities = [sender.phones.start_activity(phone, GAME, {}, {"n": 0}) for _ in range(2)]
        sender.phones.configure(phone, {"online": False})
        for number, activity in enumerate(activities, 1):
            sender.update(activity.token.text, {"n": number})
        sender.phones.configure(phone, {"online": True})
        assert [activity.content_state["n"] for activity in activities] == shown


def test_an_alert_is_stored_beside_another_app(sender):
    phone = sender.phones.add_device(bundle_id="org.other")
    sender.phones.configure(phone, {"online": False})
    record = sender.push(
        phone.token_of("device").text, {"aps": {}}, topic="org.other", push_type="alert"
    )
    assert phone.waiting == 1
    sender.phones.configure(phone, {"online": True})
    assert phone.notifications == [record]


def test_expiration_is_respected(sender):
    phone, activity = sender.started()
    token = activity.token.text
    sender.phones.configure(phone, {"online": False})
    once = sender.update(token, push={"expiration": 0})
    assert (once.state, once.why) == ("discarded", "offline")
    past = sender.update(token, push={"expiration": 300})
    assert (past.state, past.why) == ("discarded", "expired")
    kept = sender.update(token, push={"expiration": int(sender.now) + 60})
    assert kept.state == "stored"
    sender.clock.advance_sync(61)
    sender.phones.configure(phone, {"online": True})
    assert (kept.state, kept.why) == ("discarded", "expired")
    assert activity.content_state == {"score": 0}
    assert sender.update(token, push={"expiration": 0}).state == "delivered"


def test_an_offline_stretch_ends_by_itself(sender):
    phone, activity = sender.started()
    sender.phones.go_offline(phone, 300)
    record = sender.update(activity.token.text, {"n": 1})
    assert record.state == "stored"
    sender.clock.advance_sync(299)
    assert record.state == "stored"
    sender.clock.advance_sync(1)
    assert record.state == "delivered from storage"


def test_drawn_offline_stretches_end_by_themselves(make_sender):
    sender = make_sender(offline=0.5, offline_cycle=600)
    found = []
    for number in range(40):
        token = f"{number:064x}"
        found.append(sender.update(token, {"n": number}))
    stored = [record for record in found if record.state == "stored"]
    assert 8 < len(stored) < 32
    sender.clock.advance_sync(600)
    assert {record.state for record in stored} == {"delivered from storage"}


def test_a_sleeping_phone_takes_priority_5_in_bursts(sender):
    _phone, activity = sender.started(awake=False)
    token = activity.token.text
    quiet = sender.update(token, {"n": 1}, push={"priority": 5})
    assert (quiet.state, quiet.why) == ("stored", "power")
    loud = sender.update(token, {"n": 2}, timestamp=int(sender.now) + 1)
    assert loud.state == "delivered"
    sender.clock.advance_sync(60)
    assert (quiet.state, quiet.why) == ("discarded", "older timestamp")
    several = [
        sender.update(token, {"n": n}, timestamp=int(sender.now) + n, push={"priority": 5})
        for n in range(3, 6)
    ]
    sender.clock.advance_sync(60)
    assert [record.state for record in several] == ["delivered from storage"] * 3
    assert activity.content_state == {"n": 5}


def test_waking_up_brings_what_was_held(sender):
    phone, activity = sender.started(awake=False)
    record = sender.update(activity.token.text, {"n": 1}, push={"priority": 5, "expiration": 0})
    sender.phones.configure(phone, {"awake": True})
    assert record.state == "delivered from storage"


def test_bursts_and_at_once_as_laws(make_sender):
    for law, awake, state in (("bursts", True, "stored"), ("at once", False, "delivered")):
        sender = make_sender(priority_5=law)
        _, activity = sender.started(awake=awake)
        assert sender.update(activity.token.text, push={"priority": 5}).state == state


def test_a_burst_that_finds_no_network_is_stored(sender):
    phone, activity = sender.started(awake=False)
    records = [
        sender.update(
            activity.token.text, {"n": n}, timestamp=int(sender.now) + n, push={"priority": 5}
        )
        for n in range(2)
    ]
    sender.phones.go_offline(phone, 500)
    sender.clock.advance_sync(100)
    assert [(record.state, record.why) for record in records] == [
        ("discarded", "replaced"),
        ("stored", "device offline"),
    ]
    sender.clock.advance_sync(500)
    assert records[1].state == "delivered from storage"


def test_what_waits_on_one_phone_is_bounded(sender):
    phone, activity = sender.started(awake=False)
    for n in range(100):
        sender.update(activity.token.text, timestamp=int(sender.now) + n, push={"priority": 5})
    assert phone.waiting == 32


def channel_activity(sender, **device):
    phone = sender.phones.add_device(attributes_types=[GAME], **device)
    record = sender.start(
        phone.token_of("start").text, input_push_channel="Y2g=", input_push_token=None
    )
    return record, phone.activities[0] if phone.activities else None


def body(sender, n, event="update", **more):
    state = {"content-state": {"n": n}}
    return {"aps": {"event": event, "timestamp": int(sender.now) + n, **state, **more}}


def test_a_broadcast_reaches_every_listener(sender):
    activities = [channel_activity(sender)[1] for _ in range(5)]
    sender.clock.advance_sync(10)
    assert [activity.token for activity in activities] == [None] * 5
    record = sender.broadcast("Y2g=", body(sender, 1))
    assert (record.subscribers, record.delivered) == (5, 5)
    assert {activity.content_state["n"] for activity in activities} == {1}
    sender.broadcast("Y2g=", body(sender, 2, "end"))
    assert {activity.state for activity in activities} == {"ended"}
    assert sender.broadcast("Y2g=", body(sender, 3)).subscribers == 0


def test_a_broadcast_start_starts_nothing(sender):
    _, activity = channel_activity(sender)
    record = sender.broadcast(
        "Y2g=",
        body(
            sender, 1, "start", attributes={}, **{"attributes-type": GAME, "alert": {"title": "x"}}
        ),
    )
    assert record.delivered == 0
    assert [entry.why for entry in sender.log.entries_of(record.number)] == ["", "wrong token"]
    assert activity.content_state == {"score": 0}


@pytest.mark.parametrize(("policy", "shown"), [(0, {"score": 0}), (1, {"n": 1})])
def test_latecomers_get_the_stored_message(sender, policy, shown):
    expiration = int(sender.now) + 3600 if policy else 0
    sender.broadcast("Y2g=", body(sender, 1), policy=policy, expiration=expiration)
    sender.clock.advance_sync(0.5)
    _, activity = channel_activity(sender)
    assert activity.content_state == shown


def test_a_stored_broadcast_expires(sender):
    sender.broadcast("Y2g=", body(sender, 1), policy=1, expiration=int(sender.now) + 600)
    sender.clock.advance_sync(600)
    assert channel_activity(sender)[1].content_state == {"score": 0}


@pytest.mark.parametrize(("policy", "state"), [(0, "discarded"), (1, "stored")])
def test_an_offline_listener(sender, policy, state):
    _, activity = channel_activity(sender)
    sender.phones.configure(activity.device, {"online": False})
    expiration = int(sender.now) + 3600 if policy else 0
    record = sender.broadcast("Y2g=", body(sender, 1), policy=policy, expiration=expiration)
    assert sender.log.entries_of(record.number)[-1].state == state
    sender.phones.configure(activity.device, {"online": True})
    assert record.delivered == policy
    assert activity.content_state == ({"n": 1} if policy else {"score": 0})


def test_channels_need_ios_18_and_must_exist(sender):
    record, activity = channel_activity(sender, os_version="17.5")
    assert (record.why, activity) == ("channel", None)
    sender.phones.channel_exists = lambda bundle_id, channel: (
        (bundle_id, channel) != (BUNDLE, "Y2g=")
    )
    assert channel_activity(sender)[0].why == "channel"


def test_a_dismissed_activity_no_longer_listens(sender):
    _, activity = channel_activity(sender)
    sender.phones.dismiss(activity)
    assert sender.broadcast("Y2g=", body(sender, 1)).subscribers == 0
