"""What Apple silently ignores or caps is said, and the push is still encoded."""

from __future__ import annotations

import datetime

import pytest

from apns_live.payload import Alert, Background, End, Notification, Start, Update, encode

NOW = 1_795_212_000.0
ALERT = Alert(title="a", body="b")


def start(**changes):
    return Start(
        **(
            {
                "content_state": {},
                "attributes_type": "ScoreAttributes",
                "attributes": {},
                "alert": ALERT,
            }
            | changes
        )
    )


def seconds(number):
    return datetime.timedelta(seconds=number)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (start(), []),
        (Update(content_state={}), []),
        (End(), []),
        (Notification(title="x", sound="default"), []),
        (Background(custom={"a": 1}), []),
        (Update(content_state={}, timestamp=seconds(-60)), []),
        (Update(content_state={}, timestamp=seconds(-61)), ["timestamp_old timestamp"]),
        (Update(content_state={}, timestamp=seconds(61)), ["timestamp_ahead timestamp"]),
        (
            Update(content_state={}, alert=Alert(sound="default")),
            ["sound_without_title alert.sound"],
        ),
        (Update(content_state={}, alert=Alert(title="x")), ["alert_incomplete alert.body"]),
        (Update(content_state={}, alert=Alert(body="x")), ["alert_incomplete alert.title"]),
        (Update(content_state={}, stale_date=seconds(-1)), ["stale_date_past stale_date"]),
        (End(dismissal_date=seconds(4 * 3600)), []),
        (End(dismissal_date=seconds(5 * 3600)), ["dismissal_date_capped dismissal_date"]),
        (End(dismissal_date=seconds(-5)), []),
        (End(dismissal_date=0), []),
        (End(expiration=seconds(-5)), ["expiration_past expiration"]),
        (End(expiration=0), []),
        (End(expiration=seconds(31 * 86_400)), ["expiration_capped expiration"]),
        (Notification(body="x", expiration=seconds(-5)), ["expiration_past expiration"]),
        (start(expiration=0), ["start_not_stored expiration"]),
        (start(input_push_token=False), ["no_update_token input_push_token"]),
        (start(input_push_token=False, input_push_channel="dHN0LXNyY2g="), []),
        (Update(content_state={}, custom={"id": 1}), ["custom_undocumented custom"]),
        (Notification(body="x", custom={"badge": 1}), ["misplaced_key custom.badge"]),
        (Notification(sound="default"), ["sound_without_title sound"]),
        (
            Notification(body="x", filter_criteria="a", interruption_level="critical"),
            ["filter_ignored filter_criteria"],
        ),
    ],
)
def test_warnings(message, expected):
    warnings = encode(message, now=NOW).warnings
    assert [f"{warning.code} {warning.field}" for warning in warnings] == expected
    for warning in warnings:
        assert str(warning) == f"{warning.field}: {warning.message}"
        assert warning.message.endswith(".")


def test_a_broadcast_may_be_larger_than_what_a_phone_holds():
    state = {"text": "x" * 4200}
    encoded = encode(Update(content_state=state), now=NOW, target="broadcast")
    (warning,) = encoded.warnings
    assert (warning.code, warning.field) == ("activity_data_too_large", "content_state")
    assert "4211 bytes" in warning.message
    assert not encode(
        Update(content_state={"text": "x" * 4085}), now=NOW, target="broadcast"
    ).warnings


def test_warnings_are_frozen():
    (warning,) = encode(Notification(sound="default"), now=NOW).warnings
    with pytest.raises(AttributeError):
        warning.code = "other"


@pytest.mark.parametrize(("target", "limit"), [("device", 4096), ("broadcast", 5120)])
def test_the_limit_is_exact(target, limit):
    empty = len(encode(Update(content_state={"é": ""}), now=NOW).body)
    fits = encode(Update(content_state={"é": "x" * (limit - empty)}), now=NOW, target=target)
    assert len(fits.body) == limit
    with pytest.raises(
        ValueError, match=rf"{limit + 1} bytes, 1 over the limit of {limit}"
    ) as caught:
        encode(Update(content_state={"é": "x" * (limit - empty + 1)}), now=NOW, target=target)
    error = caught.value
    assert (error.size, error.limit) == (limit + 1, limit)
    # The breakdown's figures are the bytes of the text itself.
    inner = limit - empty + 1
    assert error.breakdown["aps.content-state.é"] == inner + len('"é":""'.encode())
    assert error.breakdown["aps.timestamp"] == len('"timestamp":1795212000')
    assert list(error.breakdown)[:2] == ["aps", "aps.content-state"]
