"""Channels and broadcasts against the pure rules: life cycle, checks, and their order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apns_live.testing.channels import LIMIT, Channels
from apns_live.testing.state import ApnsState, ConnectionIdentity, Push, QuietPhones

from .requests import (
    APNS_ID,
    BODY,
    BUNDLE_ID,
    MISSING,
    NOW,
    OTHER_TEAM_ID,
    Signer,
    answer,
    broadcast_request,
    device_request,
    header,
    manage_request,
    verdict,
)

CREATE = b'{"message-storage-policy":1,"push-type":"LiveActivity"}'
ACCEPTED = (200, "")


class Listening(QuietPhones):
    def __init__(self) -> None:
        super().__init__()
        self.received: list[Push] = []

    def receive_broadcast(self, push: Push) -> None:
        self.received.append(push)


@pytest.fixture
def channel(state: ApnsState) -> str:
    made = state.channels.create(BUNDLE_ID, 0)
    assert made is not None
    return made.channel_id


@pytest.fixture
def storing(state: ApnsState) -> str:
    made = state.channels.create(BUNDLE_ID, 1)
    assert made is not None
    return made.channel_id


def test_the_life_of_a_channel(state: ApnsState, sign: Signer) -> None:
    jwt, connection = sign(), ConnectionIdentity(1, "manage")

    def ask(method: str, **arguments: Any) -> Any:
        return answer(manage_request(jwt, method, **arguments), state, connection)

    created = ask("POST", body=CREATE, apns_request_id=APNS_ID)
    assert (created.status, created.body) == (201, b"")
    assert header(created, "apns-request-id") == APNS_ID
    assert header(created, "apns-id") is None
    channel_id = header(created, "apns-channel-id")
    assert channel_id is not None
    assert len(channel_id) == 24

    read = ask("GET", apns_channel_id=channel_id)
    assert read.status == 200
    assert json.loads(read.body) == {"message-storage-policy": 1, "push-type": "LiveActivity"}
    listed = ask("GET", resource="all-channels")
    assert json.loads(listed.body) == {"channels": [channel_id]}
    assert verdict(answer(broadcast_request(jwt, channel_id), state)) == ACCEPTED

    deleted = ask("DELETE", apns_channel_id=channel_id)
    assert (deleted.status, deleted.body) == (204, b"")
    assert verdict(ask("DELETE", apns_channel_id=channel_id)) == (404, "BadPath")
    assert verdict(ask("GET", apns_channel_id=channel_id)) == (404, "BadPath")
    assert json.loads(ask("GET", resource="all-channels").body) == {"channels": []}
    gone = answer(broadcast_request(jwt, channel_id), state)
    assert verdict(gone) == (400, "ChannelNotRegistered")
    again = header(ask("POST", body=CREATE), "apns-channel-id")
    assert again != channel_id


BROADCASTS: list[tuple[str, dict[str, Any], tuple[int, str]]] = [
    ("a plain broadcast", {}, ACCEPTED),
    ("a request id", {"apns_request_id": APNS_ID}, ACCEPTED),
    ("a bad request id", {"apns_request_id": "1"}, (400, "BadMessageId")),
    ("an apns-id", {"apns_id": APNS_ID}, ACCEPTED),
    ("a bad apns-id", {"apns_id": "1"}, (400, "BadMessageId")),
    ("no push type", {"apns_push_type": MISSING}, (400, "MissingPushType")),
    ("an alert", {"apns_push_type": "alert"}, (400, "InvalidPushType")),
    ("the spelling of one page", {"apns_push_type": "Liveactivity"}, ACCEPTED),
    ("the spelling of another", {"apns_push_type": "LiveActivity"}, ACCEPTED),
    ("priority 5", {"apns_priority": "5"}, ACCEPTED),
    ("priority 1", {"apns_priority": "1"}, ACCEPTED),
    ("priority 2", {"apns_priority": "2"}, (400, "BadPriority")),
    ("no priority", {"apns_priority": MISSING}, (400, "BadPriority")),
    ("no expiration", {"apns_expiration": MISSING}, (400, "BadExpirationDate")),
    ("an empty expiration", {"apns_expiration": ""}, (400, "BadExpirationDate")),
    ("no number", {"apns_expiration": "soon"}, (400, "BadExpirationDate")),
    (
        "an expiration where nothing is stored",
        {"apns_expiration": str(int(NOW) + 60)},
        (400, "BadExpirationDate"),
    ),
    ("a topic, which is not needed", {"apns_topic": BUNDLE_ID}, ACCEPTED),
    ("no body", {"body": b""}, (400, "PayloadEmpty")),
    ("5120 bytes", {"body": b"x" * 5120}, ACCEPTED),
    ("5121 bytes", {"body": b"x" * 5121}, (413, "PayloadTooLarge")),
    ("no channel", {"channel": MISSING}, (400, "MissingChannelId")),
    ("an empty channel", {"channel": ""}, (400, "MissingChannelId")),
    ("no base64", {"channel": "not base64!"}, (400, "BadChannelId")),
    ("too long", {"channel": "QUJD" * 100}, (400, "BadChannelId")),
    ("never existed", {"channel": "dHN0LXNyY2gtY2hubC0wMQ=="}, (400, "BadChannelId")),
    (
        "an app with a suffix",
        {"bundle_id": f"{BUNDLE_ID}.push-type.liveactivity"},
        (400, "TopicDisallowed"),
    ),
    ("another team's app", {"bundle_id": "com.other.app"}, (403, "TopicMismatch")),
    ("an unknown app", {"bundle_id": "com.example.unknown"}, (403, "TopicMismatch")),
    (
        "an app without the capability",
        {"bundle_id": "com.example.silent"},
        (400, "BroadcastFeatureNotEnabled"),
    ),
    ("GET", {"method": "GET"}, (405, "MethodNotAllowed")),
    ("version 3", {"path": f"/3/broadcasts/apps/{BUNDLE_ID}"}, (404, "BadPath")),
]


@pytest.mark.parametrize(
    ("change", "expected"), [case[1:] for case in BROADCASTS], ids=[c[0] for c in BROADCASTS]
)
def test_each_check_of_a_broadcast(
    change: dict[str, Any], expected: tuple[int, str], state: ApnsState, sign: Signer, channel: str
) -> None:
    phones = state.phones = Listening()
    arguments = {"channel": channel, **change}
    response = answer(broadcast_request(sign(), arguments.pop("channel"), **arguments), state)
    assert verdict(response) == expected
    assert len(phones.received) == (expected == ACCEPTED)
    assert bool(header(response, "apns-unique-id")) == (expected == ACCEPTED)
    if not change.get("path"):
        assert header(response, "apns-request-id")


def test_a_storing_channel_takes_both_kinds_of_expiration(
    state: ApnsState, sign: Signer, storing: str
) -> None:
    for expiration in ("0", str(int(NOW) + 3600)):
        request = broadcast_request(sign(), storing, apns_expiration=expiration)
        assert verdict(answer(request, state)) == ACCEPTED


def test_channels_of_elsewhere(state: ApnsState, sign: Signer, channel: str) -> None:
    elsewhere = Channels(environment="production", seed=state.channels._seed).create(BUNDLE_ID, 0)
    assert elsewhere is not None
    foreign = elsewhere.channel_id
    other_app = broadcast_request(sign(), channel, bundle_id="com.example.second")
    assert verdict(answer(broadcast_request(sign(), foreign), state)) == (
        400,
        "ChannelNotRegistered",
    )
    assert verdict(answer(other_app, state)) == (400, "BadChannelId")


def test_a_broadcast_has_a_unique_id_in_production_too(
    state: ApnsState, sign: Signer, channel: str
) -> None:
    state.environment = "production"
    assert header(answer(broadcast_request(sign(), channel), state), "apns-unique-id")


def test_what_the_phones_get_of_a_broadcast(state: ApnsState, sign: Signer, storing: str) -> None:
    phones = state.phones = Listening()
    answer(broadcast_request(sign(), storing, apns_priority="5", apns_request_id=APNS_ID), state)
    (push,) = phones.received
    assert (push.token, push.channel_id, push.storage_policy) == ("", storing, 1)
    assert (push.topic, push.bundle_id) == (f"{BUNDLE_ID}.push-type.liveactivity", BUNDLE_ID)
    assert (push.priority, push.expiration, push.body, push.apns_id) == (5, 0, BODY, APNS_ID)


# Everything is wrong at once; what is mended first shows which check comes first.
def test_the_order_of_broadcast_checks(state: ApnsState, sign: Signer, channel: str) -> None:
    change: dict[str, Any] = {
        "authorization": "bearer wrong",
        "channel": "never!",
        "apns_request_id": "bad",
        "apns_expiration": MISSING,
        "body": b"",
    }
    steps: list[tuple[str, dict[str, Any]]] = [
        ("InvalidProviderToken", {}),
        ("BadChannelId", {"authorization": b"bearer " + sign()}),
        ("BadMessageId", {"channel": channel}),
        ("BadExpirationDate", {"apns_request_id": APNS_ID}),
        ("PayloadEmpty", {"apns_expiration": "0"}),
        ("", {"body": BODY}),
    ]
    for reason, mended in steps:
        change.update(mended)
        arguments = dict(change)
        request = broadcast_request(b"", arguments.pop("channel"), **arguments)
        assert answer(request, state).reason == reason


def made(**content: Any) -> bytes:
    return json.dumps(content).encode()


GOOD = {"message-storage-policy": 0, "push-type": "LiveActivity"}

CREATES: list[tuple[str, bytes, tuple[int, str]]] = [
    ("nothing stored", made(**GOOD), (201, "")),
    ("newest stored", made(**{**GOOD, "message-storage-policy": 1}), (201, "")),
    ("push type in lower case", made(**{**GOOD, "push-type": "liveactivity"}), (201, "")),
    ("no body", b"", (400, "PayloadEmpty")),
    ("no JSON", b"policy=1", (400, "BadRequestPayload")),
    ("half a JSON", b'{"push-type":', (400, "BadRequestPayload")),
    ("a list", b"[]", (400, "BadRequestPayload")),
    ("not UTF-8", b'{"push-type":"\xff"}', (400, "BadRequestPayload")),
    ("an unknown attribute", made(**GOOD, name="x"), (400, "BadRequestParams")),
    ("a third policy", made(**{**GOOD, "message-storage-policy": 2}), (400, "BadRequestParams")),
    ("policy as text", made(**{**GOOD, "message-storage-policy": "1"}), (400, "BadRequestParams")),
    ("policy is true", made(**{**GOOD, "message-storage-policy": True}), (400, "BadRequestParams")),
    ("no policy", made(**{"push-type": "LiveActivity"}), (400, "BadRequestParams")),
    ("no push type", made(**{"message-storage-policy": 1}), (400, "MissingPushType")),
    ("push type is null", made(**{**GOOD, "push-type": None}), (400, "MissingPushType")),
    ("another push type", made(**{**GOOD, "push-type": "alert"}), (400, "InvalidPushType")),
    ("push type is a number", made(**{**GOOD, "push-type": 5}), (400, "InvalidPushType")),
    ("far too long", made(**GOOD) + b" " * 5120, (413, "PayloadTooLarge")),
]


@pytest.mark.parametrize(
    ("body", "expected"), [case[1:] for case in CREATES], ids=[case[0] for case in CREATES]
)
def test_each_check_of_a_creation(
    body: bytes, expected: tuple[int, str], state: ApnsState, sign: Signer
) -> None:
    response = answer(manage_request(sign(), "POST", body=body), state)
    assert verdict(response) == expected
    assert bool(header(response, "apns-channel-id")) == (expected[0] == 201)
    assert len(state.channels.of(BUNDLE_ID)) == (expected[0] == 201)


MANAGED: list[tuple[str, dict[str, Any], tuple[int, str]]] = [
    ("read without an id", {"method": "GET"}, (400, "MissingChannelId")),
    ("delete without an id", {"method": "DELETE"}, (400, "MissingChannelId")),
    ("read what cannot be", {"method": "GET", "apns_channel_id": "??"}, (400, "BadChannelId")),
    ("delete what cannot be", {"method": "DELETE", "apns_channel_id": "??"}, (400, "BadChannelId")),
    (
        "delete what never was",
        {"method": "DELETE", "apns_channel_id": "dHN0LXNyY2gtY2hubC0wMQ=="},
        (404, "BadPath"),
    ),
    ("put", {"method": "PUT"}, (405, "MethodNotAllowed")),
    ("post to the list", {"method": "POST", "resource": "all-channels"}, (405, "MethodNotAllowed")),
    ("an unknown resource", {"method": "GET", "resource": "channel"}, (404, "BadPath")),
    ("no app", {"method": "GET", "path": "/1/apps//channels"}, (404, "BadPath")),
    ("a push", {"method": "POST", "path": "/3/device/" + "ab" * 32}, (404, "BadPath")),
    (
        "a broadcast",
        {"method": "POST", "path": f"/4/broadcasts/apps/{BUNDLE_ID}"},
        (404, "BadPath"),
    ),
    ("version 2", {"method": "GET", "path": f"/2/apps/{BUNDLE_ID}/channels"}, (404, "BadPath")),
    ("a suffix", {"method": "GET", "bundle_id": f"{BUNDLE_ID}.voip"}, (400, "TopicDisallowed")),
    ("another team", {"method": "GET", "bundle_id": "com.other.app"}, (403, "TopicMismatch")),
    (
        "no capability",
        {"method": "POST", "bundle_id": "com.example.silent", "body": CREATE},
        (400, "BroadcastFeatureNotEnabled"),
    ),
    ("a bad id", {"method": "POST", "body": CREATE, "apns_request_id": "x"}, (400, "BadMessageId")),
    ("no token", {"method": "GET", "authorization": MISSING}, (403, "MissingProviderToken")),
]


@pytest.mark.parametrize(
    ("change", "expected"), [case[1:] for case in MANAGED], ids=[case[0] for case in MANAGED]
)
def test_each_check_of_management(
    change: dict[str, Any], expected: tuple[int, str], state: ApnsState, sign: Signer
) -> None:
    arguments = dict(change)
    request = manage_request(sign(), arguments.pop("method"), **arguments)
    assert verdict(answer(request, state)) == expected


def test_an_app_has_ten_thousand_channels(state: ApnsState, sign: Signer) -> None:
    made_channels = [state.channels.create(BUNDLE_ID, 0) for _ in range(LIMIT)]
    assert len({each.channel_id for each in made_channels if each}) == LIMIT == 10_000
    create = manage_request(sign(), "POST", body=CREATE)
    assert verdict(answer(create, state)) == (400, "CannotCreateChannelConfig")
    other = manage_request(sign(), "POST", body=CREATE, bundle_id="com.example.second")
    assert verdict(answer(other, state)) == (201, "")
    assert made_channels[0] is not None
    state.channels.delete(BUNDLE_ID, made_channels[0].channel_id)
    assert verdict(answer(create, state)) == (201, "")


def test_documented_spelling_of_the_capability(state: ApnsState, sign: Signer) -> None:
    state.spelling = "documented"
    request = manage_request(sign(), "POST", body=CREATE, bundle_id="com.example.silent")
    assert verdict(answer(request, state)) == (400, "FeatureNotEnabled")


def test_each_port_serves_only_its_own(state: ApnsState, sign: Signer, channel: str) -> None:
    at_push_port = manage_request(sign(), "POST", body=CREATE)
    moved = type(at_push_port)(at_push_port.headers, at_push_port.body, "device")
    assert verdict(answer(moved, state)) == (404, "BadPath")
    push = device_request(sign())
    assert verdict(answer(type(push)(push.headers, push.body, "manage"), state)) == (404, "BadPath")


def test_another_teams_channels_are_its_own(state: ApnsState, sign: Signer, channel: str) -> None:
    jwt = sign(key_id="OTHERTEAMK", team_id=OTHER_TEAM_ID)
    listed = answer(
        manage_request(jwt, "GET", resource="all-channels", bundle_id="com.other.app"), state
    )
    assert json.loads(listed.body) == {"channels": []}


def test_ids_repeat_with_the_seed_and_say_what_they_are() -> None:
    one, two, other = Channels(seed=5), Channels(seed=5), Channels(seed=6)
    ids = [channels.create("app", 0).channel_id for channels in (one, two, other)]  # type: ignore[union-attr]
    assert ids[0] == ids[1] != ids[2]
    assert one.was_issued("app", ids[0])
    assert one.delete("app", ids[0])
    assert one.was_issued("app", ids[0])
    assert not one.was_issued("other", ids[0])
    assert not one.was_issued("app", ids[2])
    elsewhere = Channels(environment="production", seed=5).create("app", 0)
    assert elsewhere is not None
    assert one.was_issued("app", elsewhere.channel_id)
