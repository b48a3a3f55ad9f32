"""Tokens, channel ids and bundle ids that cannot stand in a path or a header."""

from __future__ import annotations

import pytest

from apns_live.errors import InvalidSetting, InvalidToken
from apns_live.payload import (
    ActivityToken,
    Alert,
    Background,
    ChannelId,
    DeviceToken,
    End,
    Notification,
    Start,
    StartToken,
    Update,
    check_bundle_id,
    check_channel,
    check_token,
    encode,
)

from .table import BadInput, check

GOOD = "0a" * 32
START = Start(
    content_state={}, attributes_type="A", attributes={}, alert=Alert(title="a", body="b")
)
UPDATE = Update(content_state={})

TOKENS = [
    BadInput(f"{kind.__name__}: {name}", lambda k=kind, t=text: k(t), InvalidToken, "token", remedy)
    for kind in (check_token, DeviceToken, StartToken, ActivityToken)
    for name, text, remedy in (
        ("empty", "", "in hex"),
        ("CR LF", GOOD + "\r\n", "Strip it"),
        ("header injection", GOOD + "\r\nx: y", "Strip it"),
        ("NUL", GOOD + "\0", "Strip it"),
        ("byte order mark", "\ufeff" + GOOD, "Strip it"),
        ("tab", GOOD + "\t", "Strip it"),
        ("path", "../../" + GOOD, "in hex"),
        ("query", GOOD + "?a=b", "in hex"),
        ("odd", GOOD[1:], "leading zeros"),
        ("base64", "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=", "in hex"),
        ("description of Data", "<0a0a0a0a 0a0a0a0a>", "spaces and angle brackets"),
        ("far too long", "ab" * 513, "in hex"),
        ("Arabic digits", "٠١٢٣", "in hex"),
        ("bytes", bytes.fromhex(GOOD), "token.hex()"),
        ("None", None, "in hex"),
        ("number", 10**63, "in hex"),
    )
]

KINDS = [
    BadInput(
        f"{type(token).__name__} for {type(message).__name__}",
        lambda t=token, m=message: check_token(t, message=m),
        InvalidToken,
        "token",
        remedy,
    )
    for message, wanted, remedy in (
        (START, StartToken, "pushToStartTokenUpdates"),
        (UPDATE, ActivityToken, "pushTokenUpdates"),
        (End(), ActivityToken, "pushTokenUpdates"),
        (encode(UPDATE, now=1.8e9), ActivityToken, "pushTokenUpdates"),
        (Notification(body="x"), DeviceToken, "UIKit"),
        (Background(), DeviceToken, "UIKit"),
    )
    for token in (StartToken(GOOD), ActivityToken(GOOD), DeviceToken(GOOD))
    if not isinstance(token, wanted)
]

CHANNELS = [
    BadInput(f"{kind.__name__}: {name}", lambda k=kind, t=text: k(t), InvalidToken, "channel", part)
    for kind in (check_channel, ChannelId)
    for name, text, part in (
        ("empty", "", "channels.create()"),
        ("CR LF", "dHN0LXNyY2g=\r\n", "Strip it"),
        ("words", "my channel", "channels.create()"),
        ("padding inside", "dHN0=XNyY2g", "channels.create()"),
        ("too long", "A" * 257, "channels.create()"),
        ("bytes", b"dHN0", "channels.create()"),
    )
] + [
    BadInput(
        "a token as channel",
        lambda: check_channel(ActivityToken(GOOD)),
        InvalidToken,
        "channel",
        "Use send() for tokens",
    ),
    BadInput(
        "a channel as token",
        lambda: check_token(ChannelId("abcd")),
        InvalidToken,
        "token",
        "broadcast()",
    ),
]

BUNDLE_IDS = [
    BadInput(
        f"bundle id: {name}", lambda t=t: check_bundle_id(t), InvalidSetting, "bundle_id", part
    )
    for name, t, part in (
        ("empty", "", "com.example.scores"),
        ("None", None, "com.example.scores"),
        ("suffixed", "com.example.scores.push-type.liveactivity", "'com.example.scores'"),
        (
            "suffixed, other case",
            "com.example.scores.Push-Type.LiveActivity",
            "'com.example.scores'",
        ),
        ("other suffix", "com.example.scores.push-type.widgets", "'com.example.scores'"),
        ("CR LF", "com.example.scores\r\n", "Strip it"),
        ("NUL", "com.example\0.scores", "Strip it"),
        ("space", "com.example scores", "letters, digits"),
        ("slash", "com.example/scores", "letters, digits"),
        ("wildcard", "com.example.*", "explicit bundle id"),
        ("dot at the end", "com.example.", "letters, digits"),
        ("two dots", "com..example", "letters, digits"),
        ("team in front", "DEF123GHIJ.com.example.scores", "'com.example.scores'"),
        ("too long", "a" * 256, "com.example.scores"),
        ("not ASCII", "com.exämple.scores", "letters, digits"),
    )
]


@pytest.mark.parametrize("row", [*TOKENS, *KINDS, *CHANNELS, *BUNDLE_IDS], ids=lambda row: row.name)
def test_it_is_refused_with_its_field_and_a_remedy(row):
    check(row)


@pytest.mark.parametrize("row", TOKENS, ids=lambda row: row.name)
def test_no_message_holds_more_than_eight_digits_of_a_token(row):
    with pytest.raises(InvalidToken) as caught:
        row.call()
    assert GOOD[:9] not in str(caught.value)
