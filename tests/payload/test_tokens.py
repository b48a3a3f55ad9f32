"""Tokens and ids that are taken; what is refused stands in the bad-input tables."""

from __future__ import annotations

import copy
import pathlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.errors import InvalidToken
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
    check_collapse_id,
    check_token,
    encode,
)

FIXTURES = pathlib.Path(__file__).parents[2] / "fixtures" / "tokens"
START = Start(
    content_state={}, attributes_type="A", attributes={}, alert=Alert(title="a", body="b")
)
KINDS = [DeviceToken, StartToken, ActivityToken]


@pytest.mark.parametrize("digits", [2, 64, 96, 108, 160, 1024])
def test_no_length_is_assumed(digits):
    token = "aB" * (digits // 2)
    assert check_token(token) is token
    for kind in KINDS:
        assert kind(token) == token


def test_a_typed_token_is_a_string_that_shows_eight_digits():
    token = StartToken("0123456789abcdef")
    assert isinstance(token, str)
    assert repr(token) == "StartToken(01234567...)"
    assert f"/3/device/{token}" == "/3/device/0123456789abcdef"
    assert pickle.loads(pickle.dumps(token)) == token
    assert type(pickle.loads(pickle.dumps(token))) is StartToken
    assert type(copy.deepcopy(token)) is StartToken
    assert {token: 1}["0123456789abcdef"] == 1


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (START, StartToken),
        (Update(content_state={}), ActivityToken),
        (End(), ActivityToken),
        (Notification(body="x"), DeviceToken),
        (Background(), DeviceToken),
    ],
)
def test_each_message_takes_its_kind_and_plain_strings(message, kind):
    for what in (message, encode(message, now=1.8e9)):
        for token in (kind("ab12"), "ab12"):
            assert check_token(token, message=what) is token


def test_a_typed_token_of_any_kind_passes_without_a_message():
    for kind in KINDS:
        assert check_token(kind("ab12")) == "ab12"


@pytest.mark.parametrize("channel", ["dHN0LXNyY2gtY2hubA==", "a/b+c=", "abc", "a-b_c"])
def test_channels(channel):
    assert check_channel(channel) is channel
    assert check_channel(ChannelId(channel)) == channel
    assert type(pickle.loads(pickle.dumps(ChannelId(channel)))) is ChannelId


@pytest.mark.parametrize(
    "bundle_id", ["com.example.scores", "a", "com.Example-2.Scores_Live", "TENLETTERS.x.y"]
)
def test_bundle_ids(bundle_id):
    assert check_bundle_id(bundle_id) is bundle_id


@pytest.mark.parametrize("text", ["a", "game 7", "x" * 64, "~!@#"])
def test_collapse_ids(text):
    assert check_collapse_id(text) == text


@given(st.binary(min_size=1, max_size=512))
def test_every_token_of_bytes_is_taken(raw):
    assert check_token(raw.hex()) == raw.hex()
    assert check_token(raw.hex().upper()) == raw.hex().upper()


@given(st.text())
def test_nothing_else_is_taken(text):
    try:
        check_token(text)
    except InvalidToken as error:
        assert error.field == "token"
        assert error.remedy
    else:
        assert bytes.fromhex(text).hex() == text.lower()


def test_the_fixtures_are_tokens():
    for name in ("activity-tokens.txt", "device-tokens.txt"):
        for line in (FIXTURES / name).read_text().splitlines():
            check_token(line)
