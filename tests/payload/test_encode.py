"""What a message becomes: body, header values and defaults."""

from __future__ import annotations

import datetime
import json

import pytest

from apns_live.payload import (
    Alert,
    Background,
    ChannelId,
    CriticalSound,
    End,
    Localized,
    Notification,
    Start,
    Update,
    encode,
)

NOW = 1_795_212_000.25
UTC = datetime.UTC
ALERT = Alert(title="Tip-off", body="Lakers at Celtics", sound="default")


def start(**changes):
    fields = {
        "content_state": {"home": 0},
        "attributes_type": "ScoreAttributes",
        "attributes": {"teams": "LAL-BOS"},
        "alert": ALERT,
    }
    return Start(**(fields | changes))


def test_a_start():
    encoded = encode(start(activity_id="game-7", relevance_score=100), now=NOW)
    assert json.loads(encoded.body) == {
        "aps": {
            "timestamp": 1_795_212_000,
            "event": "start",
            "content-state": {"home": 0},
            "attributes-type": "ScoreAttributes",
            "attributes": {"teams": "LAL-BOS"},
            "input-push-token": 1,
            "alert": {"title": "Tip-off", "body": "Lakers at Celtics", "sound": "default"},
            "relevance-score": 100,
        }
    }
    assert encoded.push_type == "liveactivity"
    assert encoded.topic_suffix == ".push-type.liveactivity"
    assert (encoded.priority, encoded.expiration) == (10, 1_795_212_601)
    assert encoded.collapse_id == "game-7"
    assert (encoded.event, encoded.timestamp, encoded.has_alert) == ("start", 1_795_212_000, True)
    assert not encoded.replay_safe
    assert encoded.warnings == ()


def test_a_silent_update():
    encoded = encode(Update(content_state={"home": 71}), now=NOW)
    assert encoded.body == (
        b'{"aps":{"timestamp":1795212000,"event":"update","content-state":{"home":71}}}'
    )
    assert (encoded.priority, encoded.expiration) == (5, 1_795_212_901)
    assert encoded.collapse_id is None
    assert encoded.replay_safe
    assert not encoded.has_alert


def test_an_end_without_a_state():
    encoded = encode(End(dismissal_date=0), now=NOW)
    assert encoded.body == b'{"aps":{"timestamp":1795212000,"event":"end","dismissal-date":0}}'
    assert (encoded.priority, encoded.expiration) == (10, 1_795_212_001 + 4 * 3600)


@pytest.mark.parametrize(
    ("message", "expiration"),
    [
        (Update(content_state={}, alert=ALERT), 1_795_215_601),
        (Update(content_state={}, stale_date=datetime.timedelta(minutes=5)), 1_795_212_300),
        (Update(content_state={}, stale_date=datetime.timedelta(hours=5)), 1_795_215_601),
        (Update(content_state={}, stale_date=datetime.timedelta(-1)), 1_795_212_901),
        (Update(content_state={}, expiration=0), 0),
        (Update(content_state={}, expiration=datetime.timedelta(seconds=90)), 1_795_212_090),
        (Notification(body="x"), 1_795_212_001 + 86_400),
        (Background(), 1_795_212_001 + 86_400),
    ],
)
def test_expiration(message, expiration):
    assert encode(message, now=NOW).expiration == expiration


@pytest.mark.parametrize(
    "value",
    [
        1_795_300_000,
        1_795_300_000.9,
        datetime.datetime.fromtimestamp(1_795_300_000, UTC),
        datetime.datetime.fromtimestamp(
            1_795_300_000, datetime.timezone(datetime.timedelta(hours=9))
        ),
        datetime.timedelta(seconds=1_795_300_000 - NOW),
    ],
)
def test_every_form_of_a_date(value):
    encoded = encode(End(dismissal_date=value, stale_date=value), now=NOW)
    aps = json.loads(encoded.body)["aps"]
    assert aps["dismissal-date"] == aps["stale-date"] == encoded.stale_date == 1_795_300_000


def test_the_callers_timestamp_and_priority_give_way_to_deliverys():
    update = Update(content_state={}, timestamp=1_795_211_990, priority=10)
    own = encode(update, now=NOW)
    assert (own.timestamp, own.priority) == (1_795_211_990, 10)
    ruled = encode(update, now=NOW, timestamp=1_795_212_001, priority=5)
    assert (ruled.timestamp, ruled.priority) == (1_795_212_001, 5)
    assert json.loads(ruled.body)["aps"]["timestamp"] == 1_795_212_001


@pytest.mark.parametrize(
    ("changes", "present"),
    [
        ({}, {"input-push-token": 1}),
        ({"input_push_token": True}, {"input-push-token": 1}),
        ({"input_push_token": False}, {}),
        ({"input_push_channel": "dHN0LXNyY2g="}, {"input-push-channel": "dHN0LXNyY2g="}),
        (
            {"input_push_channel": ChannelId("dHN0LXNyY2g="), "input_push_token": False},
            {"input-push-channel": "dHN0LXNyY2g="},
        ),
    ],
)
def test_the_inputs_of_a_start(changes, present):
    aps = json.loads(encode(start(**changes), now=NOW).body)["aps"]
    assert {key: value for key, value in aps.items() if key.startswith("input")} == present


def test_localised_words_are_nested_in_an_activity_and_flat_in_a_notification():
    title, body = Localized("GOAL_%@", ["Ana"]), Localized("GOAL_BODY")
    aps = json.loads(
        encode(Update(content_state={}, alert=Alert(title=title, body=body)), now=NOW).body
    )["aps"]
    assert aps["alert"] == {
        "title": {"loc-key": "GOAL_%@", "loc-args": ["Ana"]},
        "body": {"loc-key": "GOAL_BODY"},
    }
    aps = json.loads(encode(Notification(title=title, subtitle=body, body=body), now=NOW).body)
    assert aps["aps"]["alert"] == {
        "title-loc-key": "GOAL_%@",
        "title-loc-args": ["Ana"],
        "subtitle-loc-key": "GOAL_BODY",
        "loc-key": "GOAL_BODY",
    }


def test_a_full_notification():
    encoded = encode(
        Notification(
            title="Final",
            subtitle="NBA",
            body="101-99",
            launch_image="final.png",
            badge=3,
            sound=CriticalSound(name="horn.caf", volume=0.5),
            category="GAME",
            thread_id="game-7",
            interruption_level="time-sensitive",
            relevance_score=0.5,
            mutable_content=True,
            content_available=True,
            target_content_id="window-1",
            filter_criteria="sport",
            custom={"game": 7},
            collapse_id="game-7",
        ),
        now=NOW,
    )
    assert json.loads(encoded.body) == {
        "aps": {
            "alert": {
                "title": "Final",
                "subtitle": "NBA",
                "body": "101-99",
                "launch-image": "final.png",
            },
            "badge": 3,
            "sound": {"critical": 1, "name": "horn.caf", "volume": 0.5},
            "category": "GAME",
            "thread-id": "game-7",
            "interruption-level": "time-sensitive",
            "relevance-score": 0.5,
            "target-content-id": "window-1",
            "filter-criteria": "sport",
            "mutable-content": 1,
            "content-available": 1,
        },
        "game": 7,
    }
    assert (encoded.push_type, encoded.topic_suffix, encoded.event) == ("alert", "", "alert")
    assert encoded.collapse_id == "game-7"
    assert encoded.replay_safe  # the collapse id merges a second copy
    assert not encode(Notification(body="x"), now=NOW).replay_safe


def test_a_background_push():
    encoded = encode(Background(custom={"sync": True}), now=NOW)
    assert json.loads(encoded.body) == {"aps": {"content-available": 1}, "sync": True}
    assert (encoded.push_type, encoded.priority, encoded.event) == ("background", 5, "background")


@pytest.mark.parametrize(
    ("policy", "expiration"), [(None, 1_795_212_901), (0, 0), (1, 1_795_212_901)]
)
def test_a_broadcast_fills_its_expiration_by_the_channels_policy(policy, expiration):
    encoded = encode(
        Update(content_state={}), now=NOW, target="broadcast", storage_policy=policy, priority=1
    )
    assert (encoded.expiration, encoded.priority, encoded.target) == (expiration, 1, "broadcast")


def test_non_ascii_text_is_not_escaped():
    body = encode(Update(content_state={"título": "¡Gol! ⚽️ 北京"}), now=NOW).body
    assert '"título":"¡Gol! ⚽️ 北京"'.encode() in body


def test_the_callers_key_order_is_kept():
    body = encode(Update(content_state={"b": 1, "a": 2, "c": {"z": 1, "y": 2}}), now=NOW).body
    assert b'{"b":1,"a":2,"c":{"z":1,"y":2}}' in body
