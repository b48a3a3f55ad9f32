"""Device pushes against the pure rules: each check of the protocol, at its exact boundary."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apns_live.testing.state import (
    ApnsState,
    ConnectionIdentity,
    Effect,
    Push,
    QuietPhones,
    TokenCondition,
    TokenStatus,
)

from .requests import (
    APNS_ID,
    BODY,
    BUNDLE_ID,
    LIVE_TOPIC,
    MISSING,
    NOW,
    TOKEN,
    Signer,
    answer,
    device_request,
    header,
    verdict,
)

ACCEPTED = (200, "")


class Listening(QuietPhones):
    def __init__(self) -> None:
        super().__init__()
        self.received: list[Push] = []

    def receive(self, push: Push) -> None:
        self.received.append(push)


CASES: list[tuple[str, dict[str, Any], tuple[int, str]]] = [
    ("a plain push", {}, ACCEPTED),
    # ids
    ("an id", {"apns_id": APNS_ID}, ACCEPTED),
    ("an id in upper case", {"apns_id": APNS_ID.upper()}, ACCEPTED),
    ("an id without hyphens", {"apns_id": APNS_ID.replace("-", "")}, (400, "BadMessageId")),
    ("an id in braces", {"apns_id": "{" + APNS_ID + "}"}, (400, "BadMessageId")),
    ("an id that is too short", {"apns_id": APNS_ID[:-1]}, (400, "BadMessageId")),
    ("an id that is no hex", {"apns_id": "z" + APNS_ID[1:]}, (400, "BadMessageId")),
    ("an empty id", {"apns_id": ""}, (400, "BadMessageId")),
    # collapse ids
    ("a collapse id of 64 bytes", {"apns_collapse_id": "c" * 64}, ACCEPTED),
    ("a collapse id of 65 bytes", {"apns_collapse_id": "c" * 65}, (400, "BadCollapseId")),
    ("64 bytes in 32 characters", {"apns_collapse_id": "é" * 32}, ACCEPTED),
    ("66 bytes in 33 characters", {"apns_collapse_id": "é" * 33}, (400, "BadCollapseId")),
    # topics
    ("no topic", {"apns_topic": MISSING}, (400, "MissingTopic")),
    ("an empty topic", {"apns_topic": ""}, (400, "MissingTopic")),
    ("a topic with a space", {"apns_topic": "com example"}, (400, "BadTopic")),
    ("a topic with a slash", {"apns_topic": "com/example"}, (400, "BadTopic")),
    ("a topic of 256 characters", {"apns_topic": "a" * 256}, (400, "BadTopic")),
    (
        "another team's topic",
        {"apns_topic": "com.other.app.push-type.liveactivity"},
        (400, "TopicDisallowed"),
    ),
    ("an unknown topic", {"apns_topic": "com.unknown.app"}, (400, "TopicDisallowed")),
    (
        "a doubled suffix",
        {"apns_topic": f"{LIVE_TOPIC}.push-type.liveactivity"},
        (400, "TopicDisallowed"),
    ),
    (
        "a live activity without the suffix",
        {"apns_topic": BUNDLE_ID},
        (400, "DeviceTokenNotForTopic"),
    ),
    (
        "another app of the team",
        {"apns_topic": "com.example.second", "apns_push_type": "alert"},
        ACCEPTED,
    ),
    # priorities
    ("priority 10", {"apns_priority": "10"}, ACCEPTED),
    ("priority 5", {"apns_priority": "5"}, ACCEPTED),
    ("priority 1", {"apns_priority": "1"}, ACCEPTED),
    ("priority 0", {"apns_priority": "0"}, (400, "BadPriority")),
    ("priority 11", {"apns_priority": "11"}, (400, "BadPriority")),
    ("priority 010", {"apns_priority": "010"}, (400, "BadPriority")),
    ("priority high", {"apns_priority": "high"}, (400, "BadPriority")),
    ("an empty priority", {"apns_priority": ""}, (400, "BadPriority")),
    # push types
    ("no push type", {"apns_push_type": MISSING}, ACCEPTED),
    ("an unknown push type", {"apns_push_type": "postcard"}, (400, "InvalidPushType")),
    ("a push type in upper case", {"apns_push_type": "LIVEACTIVITY"}, (400, "InvalidPushType")),
    ("an alert on a live activity topic", {"apns_push_type": "alert"}, (400, "InvalidPushType")),
    ("an alert", {"apns_push_type": "alert", "apns_topic": BUNDLE_ID}, ACCEPTED),
    ("a background push", {"apns_push_type": "background", "apns_topic": BUNDLE_ID}, ACCEPTED),
    (
        "a location push",
        {"apns_push_type": "location", "apns_topic": f"{BUNDLE_ID}.location-query"},
        ACCEPTED,
    ),
    ("a VoIP push", {"apns_push_type": "voip", "apns_topic": f"{BUNDLE_ID}.voip"}, ACCEPTED),
    # expirations
    ("no storing", {"apns_expiration": "0"}, ACCEPTED),
    ("an hour", {"apns_expiration": str(int(NOW) + 3600)}, ACCEPTED),
    ("a duration, which is merely long ago", {"apns_expiration": "300"}, ACCEPTED),
    ("a negative expiration", {"apns_expiration": "-1"}, (400, "BadExpirationDate")),
    ("a fraction", {"apns_expiration": "1800000000.5"}, (400, "BadExpirationDate")),
    ("a date as text", {"apns_expiration": "tomorrow"}, (400, "BadExpirationDate")),
    ("an empty expiration", {"apns_expiration": ""}, (400, "BadExpirationDate")),
    ("an expiration without end", {"apns_expiration": "9" * 40}, (400, "BadExpirationDate")),
    # device tokens
    ("64 digits", {"token": "a1" * 32}, ACCEPTED),
    ("160 digits", {"token": "a1" * 80}, ACCEPTED),
    ("200 digits", {"token": "a1" * 100}, ACCEPTED),
    ("upper case", {"token": "A1" * 32}, ACCEPTED),
    ("63 digits", {"token": "a" * 63}, (400, "BadDeviceToken")),
    ("an odd number of digits", {"token": "a" * 65}, (400, "BadDeviceToken")),
    ("62 digits", {"token": "a1" * 31}, (400, "BadDeviceToken")),
    ("too long by far", {"token": "a1" * 257}, (400, "BadDeviceToken")),
    ("no hex", {"token": "xy" * 32}, (400, "BadDeviceToken")),
    (
        "base64",
        {"token": "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=" * 2},
        (400, "BadDeviceToken"),
    ),
    ("spaces between", {"token": "a1 " * 32 + "a1"}, (400, "BadDeviceToken")),
    ("a percent sign", {"token": "%61" * 32}, (400, "BadDeviceToken")),
    ("a query", {"token": "a1" * 32 + "?x=1"}, (400, "BadDeviceToken")),
    ("a slash behind", {"token": "a1" * 32 + "/"}, (400, "BadDeviceToken")),
    ("bytes beyond ASCII", {"path": b"/3/device/" + b"\xc3\xa9" * 40}, (400, "BadDeviceToken")),
    ("no token", {"path": "/3/device/"}, (400, "MissingDeviceToken")),
    ("no token and no slash", {"path": "/3/device"}, (400, "MissingDeviceToken")),
    # paths and methods
    ("the root", {"path": "/"}, (404, "BadPath")),
    ("version 2", {"path": f"/2/device/{TOKEN}"}, (404, "BadPath")),
    ("devices", {"path": f"/3/devices/{TOKEN}"}, (404, "BadPath")),
    ("no app", {"path": "/4/broadcasts/apps/"}, (404, "BadPath")),
    ("the management path", {"path": f"/1/apps/{BUNDLE_ID}/channels"}, (404, "BadPath")),
    ("GET", {"method": "GET"}, (405, "MethodNotAllowed")),
    ("PUT", {"method": "PUT"}, (405, "MethodNotAllowed")),
    ("DELETE", {"method": "DELETE"}, (405, "MethodNotAllowed")),
    ("HEAD", {"method": "HEAD"}, (405, "MethodNotAllowed")),
    ("post, in lower case", {"method": "post"}, ACCEPTED),
    # sizes
    ("no body", {"body": b""}, (400, "PayloadEmpty")),
    ("one byte", {"body": b"{"}, ACCEPTED),
    ("not JSON: a phone judges it", {"body": b"\xff\x00 nonsense"}, ACCEPTED),
    ("4096 bytes", {"body": b"x" * 4096}, ACCEPTED),
    ("4097 bytes", {"body": b"x" * 4097}, (413, "PayloadTooLarge")),
    (
        "5120 bytes of VoIP",
        {"apns_push_type": "voip", "apns_topic": f"{BUNDLE_ID}.voip", "body": b"x" * 5120},
        ACCEPTED,
    ),
    (
        "5121 bytes of VoIP",
        {"apns_push_type": "voip", "apns_topic": f"{BUNDLE_ID}.voip", "body": b"x" * 5121},
        (413, "PayloadTooLarge"),
    ),
    # headers
    ("unknown headers", {"extra": [(b"x-trace", b"1"), (b"user-agent", b"t")]}, ACCEPTED),
    ("a repeated cookie", {"extra": [(b"cookie", b"a=1"), (b"cookie", b"b=2")]}, ACCEPTED),
    ("two priorities", {"extra": [(b"apns-priority", b"5")] * 2}, (400, "DuplicateHeaders")),
    ("two topics", {"extra": [(b"apns-topic", b"other")]}, (400, "DuplicateHeaders")),
    ("host instead of authority", {"authority": False, "host": "localhost"}, ACCEPTED),
]


@pytest.mark.parametrize(
    ("change", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_each_check(
    change: dict[str, Any], expected: tuple[int, str], state: ApnsState, sign: Signer
) -> None:
    phones = state.phones = Listening()
    response = answer(device_request(sign(), **change), state)
    assert verdict(response) == expected
    assert len(phones.received) == (expected == ACCEPTED)
    if expected == ACCEPTED:
        assert response.body == b""
        assert header(response, "content-type") is None
    else:
        assert header(response, "content-type") == "application/json"
        assert header(response, "apns-unique-id") is None
    assert header(response, "apns-id")


STRICT_CASES: list[tuple[str, dict[str, Any], tuple[int, str]]] = [
    ("a plain push", {}, ACCEPTED),
    ("an id in upper case", {"apns_id": APNS_ID.upper()}, (400, "BadMessageId")),
    ("no push type", {"apns_push_type": MISSING}, (400, "InvalidPushType")),
    ("post, in lower case", {"method": "post"}, (405, "MethodNotAllowed")),
    ("priority 1 for a live activity", {"apns_priority": "1"}, (400, "BadPriority")),
    (
        "priority 10 for a background push",
        {"apns_push_type": "background", "apns_topic": BUNDLE_ID, "apns_priority": "10"},
        (400, "BadPriority"),
    ),
    (
        "priority 1 for an alert",
        {"apns_push_type": "alert", "apns_topic": BUNDLE_ID, "apns_priority": "1"},
        ACCEPTED,
    ),
]


@pytest.mark.parametrize(
    ("change", "expected"), [c[1:] for c in STRICT_CASES], ids=[c[0] for c in STRICT_CASES]
)
def test_strict_mode(
    change: dict[str, Any], expected: tuple[int, str], strict_state: ApnsState, sign: Signer
) -> None:
    assert verdict(answer(device_request(sign(), **change), strict_state)) == expected


def test_strict_mode_resets_a_request_without_authority(
    strict_state: ApnsState, sign: Signer
) -> None:
    response = answer(device_request(sign(), authority=False, host="localhost"), strict_state)
    assert response.effects == (Effect.MALFORMED,)


def test_the_given_id_comes_back_as_it_was(state: ApnsState, sign: Signer) -> None:
    for given in (APNS_ID, APNS_ID.upper()):
        assert header(answer(device_request(sign(), apns_id=given), state), "apns-id") == given
        refused = answer(device_request(sign(), apns_id=given, body=b""), state)
        assert header(refused, "apns-id") == given


def test_a_missing_or_bad_id_is_replaced_by_one_in_upper_case(
    state: ApnsState, sign: Signer
) -> None:
    for given in (MISSING, "nonsense"):
        made = header(answer(device_request(sign(), apns_id=given), state), "apns-id")
        assert made is not None
        assert made == made.upper()
        assert len(made) == 36


def test_only_development_gives_a_unique_id(state: ApnsState, sign: Signer) -> None:
    assert header(answer(device_request(sign()), state), "apns-unique-id")
    state.environment = "production"
    assert header(answer(device_request(sign()), state), "apns-unique-id") is None


def test_what_the_phones_get(state: ApnsState, sign: Signer) -> None:
    phones = state.phones = Listening()
    answer(
        device_request(
            sign(),
            token=TOKEN.upper(),
            apns_id=APNS_ID,
            apns_priority="5",
            apns_expiration="1800000900",
            apns_collapse_id="game-7",
        ),
        state,
        ConnectionIdentity(42),
        NOW + 0.5,
    )
    answer(device_request(sign()), state)
    first, second = phones.received
    assert first == Push(
        number=1,
        apns_id=APNS_ID,
        apns_unique_id=first.apns_unique_id,
        token=TOKEN,
        topic=LIVE_TOPIC,
        push_type="liveactivity",
        priority=5,
        expiration=1_800_000_900,
        collapse_id="game-7",
        body=BODY,
        received_at=NOW + 0.5,
        connection_id=42,
    )
    assert first.bundle_id == BUNDLE_ID
    assert (second.number, second.priority, second.expiration, second.collapse_id) == (
        2,
        10,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (TokenCondition.LIVE, ACCEPTED),
        (TokenCondition.UNKNOWN, ACCEPTED),
        (TokenCondition.EXPIRED, (410, "ExpiredToken")),
        (TokenCondition.UNREGISTERED, (410, "Unregistered")),
        (TokenCondition.WRONG_TOPIC, (400, "DeviceTokenNotForTopic")),
        (TokenCondition.OTHER_ENVIRONMENT, (400, "BadDeviceToken")),
    ],
)
def test_conditions_of_tokens(
    condition: TokenCondition, expected: tuple[int, str], state: ApnsState, sign: Signer
) -> None:
    assert isinstance(state.phones, QuietPhones)
    since = 1_799_999_000_123
    state.phones.statuses[TOKEN] = TokenStatus(condition, since)
    response = answer(device_request(sign()), state)
    assert verdict(response) == expected
    if expected[0] == 410:
        assert json.loads(response.body)["timestamp"] == since
    else:
        assert b"timestamp" not in response.body


def test_strict_devices_know_only_what_was_issued(state: ApnsState, sign: Signer) -> None:
    state.devices = "strict"
    assert verdict(answer(device_request(sign()), state)) == (400, "BadDeviceToken")
    assert isinstance(state.phones, QuietPhones)
    state.phones.statuses[TOKEN] = TokenStatus(TokenCondition.LIVE)
    assert verdict(answer(device_request(sign()), state)) == ACCEPTED


def test_an_override_wins_over_the_phones(state: ApnsState, sign: Signer) -> None:
    state.overrides[TOKEN] = TokenStatus(TokenCondition.UNREGISTERED, 1000)
    assert verdict(answer(device_request(sign()), state)) == (410, "Unregistered")


# Everything is wrong at once; what is mended first shows which check comes first.
ORDER: list[tuple[str, dict[str, Any]]] = [
    ("InvalidProviderToken", {}),
    ("MissingTopic", {"authorization": "right"}),
    ("BadDeviceToken", {"apns_topic": LIVE_TOPIC}),
    ("BadCollapseId", {"token": TOKEN}),
    ("BadMessageId", {"apns_collapse_id": "short"}),
]


def test_the_order_of_the_first_checks(state: ApnsState, sign: Signer) -> None:
    change: dict[str, Any] = {
        "authorization": "bearer wrong",
        "apns_topic": MISSING,
        "token": "nonsense",
        "apns_collapse_id": "c" * 100,
        "apns_id": "nonsense",
    }
    for reason, mended in ORDER:
        change.update(mended)
        if change["authorization"] == "right":
            change["authorization"] = b"bearer " + sign()
        assert answer(device_request(b"", **change), state).reason == reason


@pytest.mark.parametrize(
    ("spelling", "reason"),
    [("wire", "BadEnvironmentKeyInToken"), ("documented", "BadEnvironmentKeyIdInToken")],
)
def test_the_spelling_of_a_key_of_the_other_environment(
    spelling: Any, reason: str, state: ApnsState, sign: Signer
) -> None:
    state.spelling = spelling
    assert verdict(answer(device_request(sign(key_id="PRODKEY001")), state)) == (403, reason)


def test_the_first_accepted_token_raises_the_streams(state: ApnsState, sign: Signer) -> None:
    connection = ConnectionIdentity(1)
    assert answer(device_request(b"x"), state, connection).effects == ()
    assert answer(device_request(sign()), state, connection).effects == (Effect.RAISE_STREAMS,)
    assert answer(device_request(sign()), state, connection).effects == ()


def test_a_token_is_accepted_even_if_the_push_is_not(state: ApnsState, sign: Signer) -> None:
    connection = ConnectionIdentity(1)
    response = answer(device_request(sign(), token="nonsense"), state, connection)
    assert response.effects == (Effect.RAISE_STREAMS,)


def test_a_refusal_cuts_the_streams_and_a_success_restores_them(
    state: ApnsState, sign: Signer
) -> None:
    state.cut_streams = True
    jwt, connection = sign(), ConnectionIdentity(1)
    gone = TokenStatus(TokenCondition.EXPIRED, 1)
    assert isinstance(state.phones, QuietPhones)
    state.phones.statuses["ab" * 32] = gone

    def effects(**change: Any) -> tuple[Effect, ...]:
        return answer(device_request(jwt, **change), state, connection).effects

    assert effects() == (Effect.RAISE_STREAMS,)
    assert effects(body=b"") == (Effect.CUT_STREAMS,)
    assert effects(body=b"") == ()
    assert effects() == (Effect.RAISE_STREAMS,)
    assert effects(token="ab" * 32) == ()  # a 410 is no error


def test_too_many_errors_end_the_connection_and_a_bad_token_weighs_most(
    state: ApnsState, sign: Signer
) -> None:
    state.error_limit = 10
    jwt = sign()

    def refusals_until_the_end(**change: Any) -> int:
        connection = ConnectionIdentity(1)
        answer(device_request(jwt), state, connection)
        for number in range(1, 100):
            if answer(device_request(jwt, **change), state, connection).effects:
                return number
        return 0

    assert refusals_until_the_end(body=b"") == 11
    assert refusals_until_the_end(token="nonsense") == 3
    state.overrides[TOKEN] = TokenStatus(TokenCondition.EXPIRED, 1)
    assert refusals_until_the_end(body=b"", token="ab" * 32) == 11
    connection = ConnectionIdentity(1)
    for _ in range(50):
        assert answer(device_request(jwt), state, connection).effects in (
            (),
            (Effect.RAISE_STREAMS,),
        )
