"""Lint: what it finds in ready payloads, and that it never fails on one."""

from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.errors import InvalidSetting
from apns_live.payload import Alert, End, Notification, Start, Update, encode, lint

NOW = 1_795_212_000.0
FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "payloads"
START = {
    "timestamp": 1_795_212_000,
    "event": "start",
    "content-state": {"home": 0},
    "attributes-type": "ScoreAttributes",
    "attributes": {},
    "input-push-token": 1,
    "alert": {"title": "Tip-off", "body": "Now"},
}
UPDATE = {"timestamp": 1_795_212_000, "event": "update", "content-state": {"home": 1}}
END = UPDATE | {"event": "end"}


def without(aps, *keys):
    return {key: value for key, value in aps.items() if key not in keys}


def found(payload, **options):
    report = lint(payload, **options)
    problems = [f"{item.code} {item.field}".strip() for item in report.problems]
    warnings = [f"{item.code} {item.field}".strip() for item in report.warnings]
    return problems, warnings


@pytest.mark.parametrize("aps", [START, UPDATE, END])
def test_a_good_activity_payload(aps):
    report = lint({"aps": aps}, now=NOW)
    assert (report.kind, report.problems, report.warnings) == (aps["event"], (), ())
    assert report.ok


@pytest.mark.parametrize(
    ("aps", "problem"),
    [
        (without(START, "alert"), "no_alert aps.alert"),
        (START | {"alert": {}}, "no_alert aps.alert"),
        (START | {"alert": "text"}, "bad_alert aps.alert"),
        (START | {"alert": {"title": "x"}}, "alert_incomplete aps.alert.body"),
        (START | {"alert": {"title": 1, "body": "x"}}, "bad_alert aps.alert.title"),
        (
            START | {"alert": {"title": "a", "body": "b", "sound": {"name": "x"}}},
            "bad_sound aps.alert.sound",
        ),
        (without(START, "attributes"), "no_attributes aps.attributes"),
        (without(START, "attributes-type"), "no_attributes_type aps.attributes-type"),
        (
            START | {"attributes-type": "App.ScoreAttributes"},
            "attributes_type_with_module aps.attributes-type",
        ),
        (START | {"attributes-type": "a b"}, "bad_attributes_type aps.attributes-type"),
        (START | {"input-push-channel": "dHN0"}, "both_inputs aps.input-push-token"),
        (START | {"input-push-token": True}, "bad_flag aps.input-push-token"),
        (
            without(START, "input-push-token") | {"input-push-channel": 1},
            "bad_channel aps.input-push-channel",
        ),
        (
            START | {"dismissal-date": 1_795_212_000},
            "dismissal_date_without_end aps.dismissal-date",
        ),
        (without(UPDATE, "timestamp"), "no_timestamp aps.timestamp"),
        (UPDATE | {"timestamp": 1_795_212_000_000}, "milliseconds aps.timestamp"),
        (UPDATE | {"stale-date": 1_795_212_000_000}, "milliseconds aps.stale-date"),
        (UPDATE | {"stale-date": 3600}, "bad_date aps.stale-date"),
        (UPDATE | {"stale-date": "2026-11-20"}, "bad_date aps.stale-date"),
        (UPDATE | {"timestamp": True}, "bad_date aps.timestamp"),
        (without(UPDATE, "event"), "no_event aps.event"),
        (UPDATE | {"event": "Update"}, "bad_event aps.event"),
        (UPDATE | {"event": None}, "bad_event aps.event"),
        (without(UPDATE, "content-state"), "no_content_state aps.content-state"),
        (UPDATE | {"content-state": "{}"}, "bad_content_state aps.content-state"),
        (UPDATE | {"relevance-score": "1"}, "bad_relevance_score aps.relevance-score"),
        ({}, "nothing aps"),
        ({"alert": 7}, "bad_alert aps.alert"),
        ({"alert": "x", "badge": -1}, "bad_badge aps.badge"),
        (
            {"alert": "x", "interruption-level": "loud"},
            "bad_interruption_level aps.interruption-level",
        ),
        ({"alert": "x", "relevance-score": 2}, "bad_relevance_score aps.relevance-score"),
        ({"alert": "x", "mutable-content": True}, "bad_flag aps.mutable-content"),
    ],
)
def test_problems(aps, problem):
    problems, _ = found({"aps": aps}, now=NOW)
    assert problems == [problem]


@pytest.mark.parametrize(
    ("aps", "warning"),
    [
        (without(START, "input-push-token"), "no_update_token aps.input-push-token"),
        (UPDATE | {"attributes": {}}, "only_for_start aps.attributes"),
        (UPDATE | {"alert": {"title": "x"}}, "alert_incomplete aps.alert.body"),
        (
            UPDATE | {"alert": {"title-loc-key": "x", "body": "y"}},
            "flat_localisation aps.alert.title-loc-key",
        ),
        (UPDATE | {"sound": "default"}, "sound_outside_alert aps.sound"),
        (UPDATE | {"badge": 1}, "undocumented_for_activities aps.badge"),
        (UPDATE | {"score": 1}, "unknown_key aps.score"),
        (UPDATE | {"timestamp": 1_795_211_900}, "timestamp_old aps.timestamp"),
        (UPDATE | {"timestamp": 1_795_212_100}, "timestamp_ahead aps.timestamp"),
        (UPDATE | {"stale-date": 1_795_211_999}, "stale_date_past aps.stale-date"),
        (END | {"dismissal-date": 1_795_240_000}, "dismissal_date_capped aps.dismissal-date"),
        (without(END, "content-state"), "no_final_state aps.content-state"),
        (
            UPDATE | {"content-state": {"a": [{"when": "2026-11-20T19:30:00Z"}]}},
            "iso_date aps.content-state.a[0].when",
        ),
        (UPDATE | {"content-state": {"day": "2026-11-20"}}, "iso_date aps.content-state.day"),
        (
            START | {"attributes": {"from": "2026-11-20T19:30:00.123+01:00"}},
            "iso_date aps.attributes.from",
        ),
        (
            UPDATE | {"content-state": {"at": 1_795_212_000_000}},
            "milliseconds aps.content-state.at",
        ),
        ({"sound": "default"}, "sound_without_title aps.sound"),
        ({"alert": "x", "own": 1}, "unknown_key aps.own"),
    ],
)
def test_warnings(aps, warning):
    assert found({"aps": aps}, now=NOW) == ([], [warning])


@pytest.mark.parametrize("text", ["2026-11-2", "20:15", "1-2", "Game 2026-11-20", "snake_case"])
def test_what_is_no_date_is_left_alone(text):
    assert found({"aps": UPDATE | {"content-state": {"home_score": text}}}) == ([], [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"[1]", "not_object"),
        (b"\xff\xfe{", "not_utf8"),
        (b'{"aps":{"alert":"\\ud800"}}', "bad_value aps.alert"),
        (b'{"aps":{"alert":"x","alert":"y"}}', "duplicate_key alert"),
        (b'{"aps":{"alert":"x","badge":NaN}}', "no_json_number"),
        (b'\xef\xbb\xbf{"aps":{"alert":"x"}}', "byte_order_mark"),
        (b'{"aps":' + b"[" * 200_000, "too_deep"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "bad_value" + " a" + ".a" * 31),
        (b'{"n":' + b"9" * 5000 + b"}", "not_json"),
        (b'{"n":99999999999999999999}', "bad_value n"),
        (b'{"alert":"x"}', "no_aps aps"),
        (b'{"aps":[]}', "no_aps aps"),
    ],
)
def test_texts(text, problem):
    report = lint(text)
    assert f"{report.problems[0].code} {report.problems[0].field}".strip() == problem
    assert not report.ok
    assert report.size == len(text)
    assert report.explanation


def test_sizes():
    text = json.dumps({"aps": UPDATE}, indent=400)
    report = lint(text)
    assert report.size == len(text)
    assert report.compact_size == len(json.dumps({"aps": UPDATE}, separators=(",", ":")))
    big = {"aps": UPDATE | {"content-state": {"t": "x" * 4200}}}
    assert found(big)[0] == ["too_large"]
    assert found(big, target="broadcast") == ([], ["activity_data_too_large aps.content-state"])
    loose = json.dumps({"aps": UPDATE}, indent=900)
    assert found(loose) == ([], ["spaces"])
    assert lint(big).bytes_by_key["aps.content-state.t"] == 4206
    assert lint(big, target="broadcast").limit == 5120


def test_the_limit_of_a_channel_and_what_cannot_go_there():
    assert found({"aps": START}, target="broadcast")[0] == ["not_for_broadcast aps.event"]
    assert found({"aps": {"alert": "x"}}, target="broadcast")[0] == ["not_for_broadcast aps"]
    with pytest.raises(InvalidSetting, match="target"):
        lint({}, target="channel")


def test_the_explanation_speaks_in_sentences():
    report = lint({"aps": UPDATE})
    assert report.explanation == (
        "This updates a live activity; send it to its activity token, or broadcast it.",
        "It has 76 bytes; a device may be sent 4020 more.",
        "Without an alert it changes the card silently; priority 5 spares the hourly budget.",
        "Without a stale date the state is never shown as stale.",
        "Whether the content state fits the app's Swift type cannot be seen here.",
    )


@pytest.mark.parametrize(
    "message",
    [
        Start(
            content_state={"a": 1},
            attributes_type="ScoreAttributes",
            attributes={},
            alert=Alert(title="a", body="b", sound="default"),
            relevance_score=200,
        ),
        Update(content_state={}, alert=Alert(title="a", body="b"), stale_date=1_795_213_000),
        End(content_state={}, dismissal_date=0),
        Notification(title="a", badge=0, interruption_level="passive", relevance_score=1),
    ],
)
def test_what_encode_makes_passes_lint(message):
    report = lint(encode(message, now=NOW).body, now=NOW)
    assert (report.problems, report.warnings) == ((), ())
    assert report.kind == message.event


def test_the_fixtures_hold_what_their_names_say():
    seen = {"good": 0, "bad": 0}
    for path in sorted(FIXTURES.glob("*.json")):
        fate = path.name.partition("-")[0]
        seen[fate] += 1
        assert lint(path.read_bytes()).ok == (fate == "good"), path.name
    assert min(seen.values()) >= 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=10,
)
keys = st.sampled_from([*START, *END, "dismissal-date", "stale-date", "sound", "badge", "own"])


@given(
    aps=st.dictionaries(keys, json_values, max_size=8),
    event=st.sampled_from(["start", "update", "end", None]),
    beside=st.dictionaries(st.text(max_size=5), json_values, max_size=2),
    target=st.sampled_from(["device", "broadcast"]),
)
def test_nothing_in_a_payload_makes_it_fail(aps, event, beside, target):
    payload = beside | {"aps": aps | ({"event": event} if event else {})}
    for data in (payload, json.dumps(payload)):
        report = lint(data, target=target, now=NOW)
        assert report.explanation
        assert all(item.message.endswith(".") for item in (*report.problems, *report.warnings))


@given(st.binary(max_size=60))
def test_no_bytes_make_it_fail(data):
    assert lint(data).size == len(data)
