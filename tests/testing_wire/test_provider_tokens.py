"""Provider tokens: each fault of a JWT, the lenient ones, the connection's binding and its clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from apns_live.testing.jwt import TokenVerifier
from apns_live.testing.state import ApnsState, ConnectionIdentity

from .requests import (
    BUNDLE_ID,
    KEY_ID,
    MISSING,
    NOW,
    OTHER_KEY_ID,
    OTHER_TEAM_ID,
    TEAM_ID,
    Signer,
    answer,
    base64url,
    device_request,
    verdict,
)

ACCEPTED = (200, "")
INVALID = (403, "InvalidProviderToken")
EXPIRED = (403, "ExpiredProviderToken")
NONE = (403, "MissingProviderToken")

AGO = int(NOW) - 60

# name, arguments for the signer, lenient verdict, strict verdict
SIGNED: list[tuple[str, dict[str, Any], tuple[int, str], tuple[int, str]]] = [
    ("right", {}, ACCEPTED, ACCEPTED),
    ("iat as text", {"issued_at": str(AGO)}, ACCEPTED, INVALID),
    ("iat as a float", {"issued_at": AGO + 0.25}, ACCEPTED, INVALID),
    ("iat as text of a float", {"issued_at": f"{AGO}.25"}, ACCEPTED, INVALID),
    ("padded base64", {"padded": True}, ACCEPTED, INVALID),
    ("a DER signature", {"der": True}, ACCEPTED, INVALID),
    ("typ in the header", {"header": {"typ": "JWT"}}, ACCEPTED, INVALID),
    ("another header member", {"header": {"x5t": "abc"}}, ACCEPTED, INVALID),
    ("further claims", {"claims": {"exp": AGO + 3000, "aud": "apns"}}, ACCEPTED, ACCEPTED),
    ("an hour old to the second", {"issued_at": int(NOW) - 3600}, ACCEPTED, ACCEPTED),
    ("a second over an hour old", {"issued_at": int(NOW) - 3601}, EXPIRED, EXPIRED),
    ("years old", {"issued_at": 1_500_000_000}, EXPIRED, EXPIRED),
    ("from the near future", {"issued_at": int(NOW) + 60}, ACCEPTED, ACCEPTED),
    ("from the far future", {"issued_at": int(NOW) + 3601}, INVALID, INVALID),
    ("iat in milliseconds", {"issued_at": int(NOW) * 1000}, INVALID, INVALID),
    ("iat beyond reason", {"issued_at": 10**300}, INVALID, INVALID),
    ("no iat", {"issued_at": MISSING}, INVALID, INVALID),
    ("iat is true", {"issued_at": True}, INVALID, INVALID),
    ("iat is null", {"issued_at": None}, INVALID, INVALID),
    ("iat is no number", {"issued_at": "yesterday"}, INVALID, INVALID),
    ("iat is infinite", {"issued_at": "inf"}, INVALID, INVALID),
    ("iat is a list", {"issued_at": [AGO]}, INVALID, INVALID),
    ("an unknown kid", {"key_id": "NOSUCHKEY1", "signed_by": KEY_ID}, INVALID, INVALID),
    ("a kid of another key", {"signed_by": OTHER_KEY_ID}, INVALID, INVALID),
    ("a stranger's key", {"signed_by": "STRANGEKEY"}, INVALID, INVALID),
    ("kid is a number", {"key_id": 12345, "signed_by": KEY_ID}, INVALID, INVALID),
    ("kid is null", {"key_id": None, "signed_by": KEY_ID}, INVALID, INVALID),
    ("another team", {"team_id": OTHER_TEAM_ID}, INVALID, INVALID),
    ("no team", {"team_id": MISSING}, INVALID, INVALID),
    ("alg ES384", {"algorithm": "ES384"}, INVALID, INVALID),
    ("alg none", {"algorithm": "none"}, INVALID, INVALID),
    ("alg HS256", {"algorithm": "HS256"}, INVALID, INVALID),
    ("alg in lower case", {"algorithm": "es256"}, INVALID, INVALID),
    ("alg is null", {"algorithm": None}, INVALID, INVALID),
    ("claims are a list", {"payload": b"[1, 2]"}, INVALID, INVALID),
    ("claims are no JSON", {"payload": b"iss=team"}, INVALID, INVALID),
    ("claims are empty", {"payload": b"{}"}, INVALID, INVALID),
    ("claims are not UTF-8", {"payload": b'{"iss":"\xff"}'}, INVALID, INVALID),
]


@pytest.mark.parametrize(
    ("arguments", "lenient", "strict"), [case[1:] for case in SIGNED], ids=[c[0] for c in SIGNED]
)
def test_signed_tokens(
    arguments: dict[str, Any],
    lenient: tuple[int, str],
    strict: tuple[int, str],
    state: ApnsState,
    strict_state: ApnsState,
    sign: Signer,
) -> None:
    request = device_request(sign(**arguments))
    assert verdict(answer(request, state)) == lenient
    assert verdict(answer(request, strict_state)) == strict


def flipped(token: bytes) -> bytes:
    head, _, signature = token.rpartition(b".")
    other = b"A" if signature[:1] != b"A" else b"B"
    return head + b"." + other + signature[1:]


def unsigned(token: bytes) -> bytes:
    return token.rpartition(b".")[0] + b"."


def without_algorithm(token: bytes) -> bytes:
    head = base64url(json.dumps({"alg": "none", "kid": KEY_ID}).encode()).encode()
    return head + b"." + token.split(b".")[1] + b"."


def other_claims(token: bytes) -> bytes:
    first, _, third = token.split(b".")
    claims = base64url(json.dumps({"iss": TEAM_ID, "iat": int(NOW)}).encode()).encode()
    return first + b"." + claims + b"." + third


BROKEN: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("a changed signature", flipped),
    ("no signature", unsigned),
    ("alg none without signature", without_algorithm),
    ("changed claims", other_claims),
    ("two parts", lambda token: token.rpartition(b".")[0]),
    ("four parts", lambda token: token + b".AAAA"),
    ("one part", lambda token: token.replace(b".", b"")),
    ("an empty part", lambda token: b"." + token.partition(b".")[2]),
    ("a space inside", lambda token: token[:20] + b" " + token[20:]),
    ("a plus sign", lambda token: token[:20] + b"+" + token[20:]),
    ("bytes beyond ASCII", lambda token: token[:20] + b"\xc3\xa9" + token[20:]),
    ("three padding signs", lambda token: token + b"==="),
    ("longer than any token", lambda token: token + b"A" * 5000),
    ("not a token at all", lambda _: b"secret"),
    ("zeros for a signature", lambda token: token.rpartition(b".")[0] + b"." + b"A" * 86),
    ("a signature of 63 bytes", lambda token: token.rpartition(b".")[0] + b"." + b"A" * 84),
    ("the token twice", lambda token: token + b", " + token),
]


@pytest.mark.parametrize("broken", [case[1] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_broken_tokens(
    broken: Callable[[bytes], bytes], state: ApnsState, strict_state: ApnsState, sign: Signer
) -> None:
    request = device_request(broken(sign()))
    assert verdict(answer(request, state)) == INVALID
    assert verdict(answer(request, strict_state)) == INVALID


HEADERS: list[tuple[str, Callable[[bytes], Any], tuple[int, str], tuple[int, str]]] = [
    ("bearer", lambda token: b"bearer " + token, ACCEPTED, ACCEPTED),
    ("Bearer", lambda token: b"Bearer " + token, ACCEPTED, NONE),
    ("BEARER", lambda token: b"BEARER " + token, ACCEPTED, NONE),
    ("two spaces", lambda token: b"bearer  " + token, ACCEPTED, ACCEPTED),
    ("no header", lambda _: MISSING, NONE, NONE),
    ("an empty header", lambda _: b"", NONE, NONE),
    ("the scheme alone", lambda _: b"bearer", NONE, NONE),
    ("the scheme and a space", lambda _: b"bearer ", NONE, NONE),
    ("the token alone", lambda token: token, NONE, NONE),
    ("another scheme", lambda token: b"basic " + token, NONE, NONE),
]


@pytest.mark.parametrize(
    ("make", "lenient", "strict"), [case[1:] for case in HEADERS], ids=[c[0] for c in HEADERS]
)
def test_the_authorization_header(
    make: Callable[[bytes], Any],
    lenient: tuple[int, str],
    strict: tuple[int, str],
    state: ApnsState,
    strict_state: ApnsState,
    sign: Signer,
) -> None:
    request = device_request(b"", authorization=make(sign()))
    assert verdict(answer(request, state)) == lenient
    assert verdict(answer(request, strict_state)) == strict


def test_a_token_expires_in_use(state: ApnsState, sign: Signer) -> None:
    connection = ConnectionIdentity(1)
    request = device_request(sign(issued_at=int(NOW)))
    assert verdict(answer(request, state, connection, NOW)) == ACCEPTED
    assert verdict(answer(request, state, connection, NOW + 3600)) == ACCEPTED
    assert verdict(answer(request, state, connection, NOW + 3601)) == EXPIRED


def test_a_revoked_key_is_refused_at_once(state: ApnsState, sign: Signer) -> None:
    connection = ConnectionIdentity(1)
    request = device_request(sign())
    assert verdict(answer(request, state, connection)) == ACCEPTED
    state.verifier.revoke(KEY_ID)
    assert verdict(answer(request, state, connection)) == INVALID
    assert verdict(answer(request, state)) == INVALID


def test_a_new_token_every_twenty_minutes_at_most(state: ApnsState, sign: Signer) -> None:
    connection = ConnectionIdentity(1)
    first, second = sign(issued_at=int(NOW) - 1), sign(issued_at=int(NOW))
    third = sign(issued_at=int(NOW) + 1)

    def push(token: bytes, now: float) -> tuple[int, str]:
        return verdict(answer(device_request(token), state, connection, now))

    too_many = (429, "TooManyProviderTokenUpdates")
    assert push(first, NOW) == ACCEPTED
    assert push(second, NOW + 1199) == too_many
    assert push(first, NOW + 1199) == ACCEPTED
    assert push(second, NOW + 1200) == ACCEPTED
    assert push(first, NOW + 1201) == too_many
    assert push(third, NOW + 2399) == too_many
    assert push(third, NOW + 2400) == ACCEPTED


def test_the_token_clock_is_the_connection_s(state: ApnsState, sign: Signer) -> None:
    for number in range(5):
        token = sign(issued_at=int(NOW) - number)
        assert verdict(answer(device_request(token), state, ConnectionIdentity(number))) == ACCEPTED


def test_another_notation_is_no_new_token(state: ApnsState, sign: Signer) -> None:
    connection, token = ConnectionIdentity(1), sign()
    for scheme in (b"bearer ", b"Bearer ", b"bearer  "):
        request = device_request(b"", authorization=scheme + token)
        assert verdict(answer(request, state, connection)) == ACCEPTED


def test_a_bad_token_does_not_disturb_the_clock(state: ApnsState, sign: Signer) -> None:
    connection, token = ConnectionIdentity(1), sign()
    assert verdict(answer(device_request(token), state, connection)) == ACCEPTED
    assert verdict(answer(device_request(flipped(token)), state, connection)) == INVALID
    assert verdict(answer(device_request(token), state, connection)) == ACCEPTED


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {"key_id": OTHER_KEY_ID}, (403, "UnrelatedKeyIdInToken")),
        ({}, {"key_id": "TOPICKEY01"}, (403, "UnrelatedKeyIdInToken")),
        ({"key_id": "TOPICKEY01"}, {}, (403, "UnrelatedKeyIdInToken")),
        ({"key_id": "TOPICKEY01"}, {"key_id": "TOPICKEY02"}, (400, "TopicDisallowed")),
        ({}, {"key_id": "OTHERTEAMK", "team_id": OTHER_TEAM_ID}, (403, "Forbidden")),
        ({}, {"key_id": "PRODKEY001"}, (403, "BadEnvironmentKeyInToken")),
    ],
)
def test_the_first_token_binds_the_connection(
    first: dict[str, Any],
    second: dict[str, Any],
    expected: tuple[int, str],
    state: ApnsState,
    sign: Signer,
) -> None:
    connection = ConnectionIdentity(1)
    assert verdict(answer(device_request(sign(**first)), state, connection)) == ACCEPTED
    assert verdict(answer(device_request(sign(**second)), state, connection)) == expected
    assert connection.key is not None
    assert connection.key.key_id == first.get("key_id", KEY_ID)


def test_a_related_key_shares_the_connection_each_with_its_topics(
    state: ApnsState, sign: Signer
) -> None:
    connection = ConnectionIdentity(1)
    one, two = sign(key_id="TOPICKEY01"), sign(key_id="TOPICKEY02")
    second_app = {"apns_topic": "com.example.second", "apns_push_type": "alert"}
    for _ in range(3):
        assert verdict(answer(device_request(one), state, connection)) == ACCEPTED
        assert verdict(answer(device_request(two, **second_app), state, connection)) == ACCEPTED
        refused = (400, "TopicDisallowed")
        assert verdict(answer(device_request(one, **second_app), state, connection)) == refused
        assert verdict(answer(device_request(two), state, connection)) == refused


def test_a_new_app_needs_a_new_connection(state: ApnsState, sign: Signer) -> None:
    old, token = ConnectionIdentity(1), sign()
    assert verdict(answer(device_request(token), state, old)) == ACCEPTED
    state.add_app("com.example.new", TEAM_ID)
    request = device_request(token, apns_topic="com.example.new", apns_push_type="alert")
    assert verdict(answer(request, state, old)) == (400, "TopicDisallowed")
    assert verdict(answer(request, state, ConnectionIdentity(2))) == ACCEPTED


def test_tokens_are_held_against_the_given_wall_clock(state: ApnsState, sign: Signer) -> None:
    from apns_live.testing.rules import respond

    request = device_request(sign(issued_at=int(NOW)))
    later = NOW + 86_400
    assert verdict(respond(request, ConnectionIdentity(1), state, later, NOW)) == ACCEPTED
    assert verdict(respond(request, ConnectionIdentity(2), state, later)) == EXPIRED


def test_a_token_is_verified_once(state: ApnsState, sign: Signer) -> None:
    good, bad = sign(), flipped(sign())
    for number in range(20):
        answer(device_request(good), state, ConnectionIdentity(number))
        answer(device_request(bad), state, ConnectionIdentity(number))
    assert state.verifier._verified.cache_info().misses == 2


def test_the_cache_of_tokens_is_bounded(state: ApnsState) -> None:
    verifier = TokenVerifier(cache_size=10)
    for number in range(1000):
        verifier.verify(b"a.b.%d" % number)
    assert verifier._verified.cache_info().currsize == 10


def test_no_secret_shows_in_a_repr(state: ApnsState, sign: Signer) -> None:
    connection, token = ConnectionIdentity(1), sign()
    answer(device_request(token), state, connection)
    assert token.decode() not in repr(connection)
    assert BUNDLE_ID in repr(connection) or KEY_ID in repr(connection)
