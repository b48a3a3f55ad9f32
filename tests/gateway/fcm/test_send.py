"""Messages as FCM's HTTP v1 API has them: what the phone shows, and what the answer is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.fcm.world import PROJECT, REGISTRATION, SEND, FcmWorld

FCM = "type.googleapis.com/google.firebase.fcm.v1"


def error_of(answer: Any) -> tuple[int, str, str, dict[str, Any]]:
    """Return code, status, errorCode and the APNs error of a refusal in Google's shape."""
    error = answer.json()["error"]
    assert error["code"] == answer.status_code
    assert error.keys() <= {"code", "message", "status", "details"}
    details = {one["@type"].rpartition(".")[2]: one for one in error.get("details", [])}
    code = details.get("FcmError", {}).get("errorCode", "")
    return error["code"], error["status"], code, details.get("ApnsError", {})


async def test_start_update_end(world: FcmWorld) -> None:
    [phone] = await world.add_phones(1)
    answer = await world.send(world.live(world.token_of(phone), "start", home=0))
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"name"}
    head, _, number = answer.json()["name"].rpartition("/")
    assert head == f"projects/{PROJECT}/messages"
    assert number.isdecimal()
    await world.shows([phone], "active", home=0)
    await world.until(lambda: phone.activities[-1].token)
    card = phone.activities[-1]
    await world.clock.advance(2)
    assert (await world.send(world.live(card.token.text, "update", home=1))).is_success
    await world.shows([phone], "active", home=1)
    await world.clock.advance(2)
    ended = world.live(card.token.text, "end", home=2)
    ended["apns"]["payload"]["aps"]["dismissal-date"] = 1
    assert (await world.send(ended)).is_success
    await world.shows([phone], "dismissed", home=2)
    for push in world.pushes():
        assert push.push_type == "liveactivity"
        assert push.topic == f"{world.app.bundle_id}.push-type.liveactivity"
        assert push.priority == 10
        assert abs(push.expiration - world.clock.time() - 30 * 86_400) < 60


async def test_nothing_within_the_payload_is_renamed_or_dropped(world: FcmWorld) -> None:
    [phone] = await world.add_phones(1)
    payload = {
        "aps": {
            **world.aps("start"),
            "content-state": {"home": 1.0, "none": None, "list": [], "deep": {"camelCase": {}}},
        },
        "custom_key": {"snake_case": None, "camelCase": [1, {"b": 2, "a": 1}]},
    }
    message = {
        "token": REGISTRATION,
        "apns": {
            "headers": {"apns-priority": "5", "apns-collapse-id": "c", "APNS-Expiration": "0"},
            "payload": payload,
            "liveActivityToken": world.token_of(phone),
            "fcmOptions": {"analyticsLabel": "x"},
        },
        "android": {"anything": {"at": ["all"]}},
        "webpush": {},
        "fcm_options": None,
    }
    answer = await world.send(message, validateOnly=False)
    assert answer.status_code == 200, answer.text
    [push] = world.pushes()
    assert push.body == json.dumps(payload, separators=(",", ":")).encode()
    assert (push.priority, push.collapse_id, push.expiration) == (5, "c", 0)


@pytest.mark.parametrize("name", ["token", "fid"])
async def test_an_ordinary_message(world: FcmWorld, name: str) -> None:
    [phone] = await world.add_phones(1)
    answer = await world.send(
        {
            name: world.token_of(phone, "device"),
            "notification": {"title": "Goal", "body": "1:0"},
            "data": {"match": "17"},
            "apns": {"payload": {"aps": {"sound": "default"}}},
        }
    )
    assert answer.status_code == 200, answer.text
    [push] = world.pushes()
    assert json.loads(push.body) == {
        "match": "17",
        "aps": {"sound": "default", "alert": {"title": "Goal", "body": "1:0"}},
    }
    assert (push.push_type, push.topic) == ("alert", world.app.bundle_id)


async def test_a_start_is_held_to_the_contract_of_the_app(world: FcmWorld) -> None:
    source = (
        "struct Match: ActivityAttributes { struct ContentState: Codable, Hashable "
        "{ var home: Int }\n var game: String }"
    )
    contract = {"versions": {"1.0": {"Match.swift": source}}}
    await world.service.apps.configure(world.app, {**world.app.settings, "contract": contract})
    world.gateway.keys.forget()
    [phone] = await world.add_phones(1)
    token = world.token_of(phone)
    answer = await world.send(world.live(token, "start", home="none"))
    assert error_of(answer)[:3] == INVALID
    assert "content_state.home" in answer.json()["error"]["message"]
    assert (await world.send(world.live(token, "start", home=1))).status_code == 200


async def test_validate_only_sends_nothing(world: FcmWorld) -> None:
    [phone] = await world.add_phones(1)
    message = world.live(world.token_of(phone), "start", home=0)
    for spelling in ("validate_only", "validateOnly"):
        answer = await world.send(message, **{spelling: True})
        assert answer.json() == {"name": f"projects/{PROJECT}/messages/fake_message_id"}
    assert not world.pushes()


INVALID = (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
REASONS = [
    (403, "InvalidProviderToken", (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")),
    (403, "BadEnvironmentKeyInToken", (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR")),
    (400, "TopicDisallowed", INVALID),
    (400, "BadDeviceToken", INVALID),
    (400, "DeviceTokenNotForTopic", INVALID),
    (400, "BadPriority", INVALID),
    (410, "Unregistered", INVALID),
    (410, "ExpiredToken", INVALID),
    (413, "PayloadTooLarge", (400, "INVALID_ARGUMENT", "")),
    (429, "TooManyRequests", (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")),
    (500, "InternalServerError", (500, "INTERNAL", "INTERNAL")),
    (503, "ServiceUnavailable", (503, "UNAVAILABLE", "UNAVAILABLE")),
]


@pytest.mark.parametrize(("status", "reason", "expected"), REASONS, ids=str)
async def test_what_apns_refuses(
    world: FcmWorld, status: int, reason: str, expected: tuple[int, str, str]
) -> None:
    [phone] = await world.add_phones(1)
    world.fake.faults.add(action="answer", reason=reason, status=status)
    answer = await world.send(world.live(world.token_of(phone), "update", home=0))
    *found, apns = error_of(answer)
    assert tuple(found) == expected
    if expected[2]:
        assert (apns["statusCode"], apns["reason"]) == (status, reason)
    else:
        assert "details" not in answer.json()["error"]
    assert ("retry-after" in answer.headers) == (answer.status_code in (429, 503))
    assert ("QuotaFailure" in answer.text) == (answer.status_code == 429)


async def test_a_setting_makes_a_dead_token_unregistered(world: FcmWorld) -> None:
    await world.service.apps.configure(world.app, {**world.app.settings, "fcm_unregistered": True})
    world.gateway.keys.forget()
    [phone] = await world.add_phones(1)
    world.fake.faults.add(action="answer", reason="Unregistered", status=410)
    answer = await world.send(world.live(world.token_of(phone), "update", home=0))
    assert error_of(answer)[:3] == (404, "NOT_FOUND", "UNREGISTERED")


def live(**changes: Any) -> dict[str, Any]:
    apns = {"live_activity_token": "ab" * 32, "payload": {"aps": {}}, **changes}
    return {"token": REGISTRATION, "apns": apns}


UPDATE = {"aps": {"event": "update", "timestamp": 1_800_000_000, "content-state": {}}}
AT = "Invalid JSON payload received. Unknown name "
BAD: list[tuple[Any, str, str]] = [
    ({"toen": "x"}, "message", f"{AT}\"toen\" at 'message': Cannot find field."),
    ({"token": 12}, "message.token", "Invalid value at 'message.token' (TYPE_STRING), 12"),
    (
        {"token": "x", "data": {"a": 12}},
        "message.data[0].value",
        "Invalid value at 'message.data[0].value' (TYPE_STRING), 12",
    ),
    (
        {"token": "x", "apns": {"headers": {"apns-priority": 10}}},
        "message.apns.headers[0].value",
        "Invalid value at 'message.apns.headers[0].value' (TYPE_STRING), 10",
    ),
    (
        {"token": "x", "apns": {"tokn": 1}},
        "message.apns",
        f"{AT}\"tokn\" at 'message.apns': Cannot find field.",
    ),
    ({"apns": {"payload": {}}}, "message", "Recipient of the message is not set."),
    ({"token": "x", "fid": "y"}, "message", "oneof field 'target' is already set"),
    (live(liveActivityToken="cd" * 32), "message.apns", "is set twice"),
    (live(payload={"aps": {"event": "update", "timestamp": 1}}), "", "The Python SDK leaves"),
    (live(payload={"aps": {"event": "move"}}), "", "is none of start, update and end"),
    (live(payload={"aps": {"event": "end"}}), "", "give seconds since 1970"),
    (live(payload=[]), "message.apns.payload", "Struct"),
    (
        live(payload=UPDATE, headers={"apns-channel-id": "x"}),
        "message.apns.headers.apns-channel-id",
        "use the own API",
    ),
    ({**live(), "token": None, "topic": "news"}, "message", "cannot go to a topic"),
    ({"token": "ab" * 32, "data": {"google.a": "b"}}, "message.data", "reserved key google.a"),
    ({"token": REGISTRATION, "data": {}}, "message.token", "not a valid FCM registration token"),
    ("x", "message", "Invalid value at 'message'"),
    (None, "message", "Recipient of the message is not set."),
]


@pytest.mark.parametrize(("message", "field", "text"), BAD, ids=range(len(BAD)))
async def test_what_the_body_is_refused_for(
    world: FcmWorld, message: Any, field: str, text: str
) -> None:
    answer = await world.send(message)
    assert error_of(answer)[:2] == (400, "INVALID_ARGUMENT")
    error = answer.json()["error"]
    assert text in error["message"]
    [bad] = [one for one in error["details"] if one["@type"].endswith("BadRequest")]
    assert field in ("", bad["fieldViolations"][0]["field"])


async def test_headers_are_answered_as_apns_would(world: FcmWorld) -> None:
    for name, value, reason in (
        ("apns-topic", "com.other.app", "TopicDisallowed"),
        ("apns-priority", "high", "BadPriority"),
        ("apns-expiration", "soon", "BadExpirationDate"),
    ):
        aps = world.aps("update", home=1)
        answer = await world.send(live(payload={"aps": aps}, headers={name: value}))
        *found, apns = error_of(answer)
        assert (tuple(found), apns["reason"]) == (INVALID, reason)
    aps = world.aps("update", home=1)
    answer = await world.send({**live(payload={"aps": aps}, live_activity_token="not hex")})
    assert error_of(answer)[3]["reason"] == "BadDeviceToken"
    answer = await world.send(live(payload={"aps": aps, "pad": "x" * 4_096}))
    assert answer.json() == {
        "error": {
            "code": 400,
            "message": "Request contains an invalid argument.",
            "status": "INVALID_ARGUMENT",
        }
    }


async def test_what_is_not_for_apple_devices_is_501(world: FcmWorld) -> None:
    for message in (
        {"topic": "news", "notification": {"title": "x"}},
        {"condition": "'a' in topics", "notification": {"title": "x"}},
        {"token": "ab" * 32, "android": {"priority": "high"}},
        {"token": "ab" * 32, "webpush": {}},
    ):
        answer = await world.send(message)
        assert error_of(answer)[:2] == (501, "UNIMPLEMENTED"), message
    for method, path in (
        ("POST", "/batch"),
        ("POST", "/iid/v1:batchAdd"),
        ("GET", SEND),
        ("POST", f"/v1/projects/{PROJECT}/registrations/x/topicSubscriptions?topic_name=t"),
        ("POST", f"/v1/projects/{PROJECT}/messages:recall"),
    ):
        answer = await world.http.request(method, path, json={})
        assert error_of(answer)[:2] == (501, "UNIMPLEMENTED"), path


async def test_who_may_send(world: FcmWorld) -> None:
    message = world.live("ab" * 32, "update", home=1)
    other = await world.add_app("other", settings={"fcm_project_id": "other-project"})
    theirs = await world.sign_in(await world.make_account(other))
    for path, bearer in (
        ("/v1/projects/nobodys/messages:send", world.bearer),
        (SEND, theirs),
        ("/v1/projects/other-project/messages:send", world.bearer),
    ):
        answer = await world.send(message, path=path, bearer=bearer)
        assert error_of(answer)[:2] == (403, "PERMISSION_DENIED")
        assert "cloudmessaging.messages.create" in answer.json()["error"]["message"]
    head, lookup, ends, mac = world.bearer.split(".")
    for bearer in (
        "x",
        f"{head}.{lookup}.{int(ends) + 1}.{mac}",
        f"{head}.{lookup}.{ends}.{'0' * 64}",
        "..",
        await world.key("native"),
    ):
        answer = await world.send(message, bearer=bearer)
        assert error_of(answer)[:2] == (401, "UNAUTHENTICATED")
    answer = await world.http.post(SEND, json={})
    assert answer.status_code == 401
    assert answer.json()["error"]["details"][0]["reason"] == "CREDENTIALS_MISSING"
    await world.clock.advance(3_601)
    answer = await world.send(message)
    assert answer.json()["error"]["details"][0]["reason"] == "ACCESS_TOKEN_EXPIRED"
    assert not world.pushes()


async def test_the_token_endpoint(world: FcmWorld) -> None:
    answer = await world.ask_token(world.assertion(aud="x", scope="y"))
    assert answer.json().keys() == {"access_token", "expires_in", "token_type"}
    assert 3_000 < answer.json()["expires_in"] <= 3_600
    now = int(world.clock.time())
    forged = {**await world.make_account(), "client_email": world.account["client_email"]}
    for assertion in (
        "x.y.z",
        world.assertion(forged),
        world.assertion(iat=now - 7_300, exp=now - 3_700),
        world.assertion(exp=now + 7_200),
        world.assertion(iat=now + 3_000, exp=now + 6_000),
        world.assertion(exp="soon"),
        world.assertion(iss="nobody@example.com"),
    ):
        answer = await world.ask_token(assertion)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"] == "invalid_grant"
        assert answer.json()["error_description"]
    answer = await world.ask_token("x", grant="password")
    assert (answer.status_code, answer.json()) == (400, {"error": "unsupported_grant_type"})
    # A key that was revoked gives no token, and those that it gave end.
    [row] = [one for one in await world.gateway.keys.page(world.app) if one["dialect"] == "fcm"][:1]
    await world.gateway.keys.revoke(world.app, row["id"])
    assert (await world.ask_token(world.assertion())).status_code == 400
    answer = await world.send(world.live("ab" * 32, "update", home=1))
    assert answer.status_code == 401


async def test_the_limit_of_a_key(world: FcmWorld) -> None:
    _, text = await world.gateway.keys.create(
        world.app, dialect="fcm", scopes=["activities:start"], name="slow", per_minute=1
    )
    bearer = await world.sign_in(json.loads(text))
    message = world.live("ab" * 32, "update", home=1)
    answer = await world.send(message, bearer=bearer, validate_only=True)
    assert error_of(answer)[:2] == (403, "PERMISSION_DENIED")
    answer = await world.send(message, bearer=bearer, validate_only=True)
    assert error_of(answer)[:3] == (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert int(answer.headers["retry-after"]) == 60
    [quota] = [one for one in answer.json()["error"]["details"] if "violations" in one]
    assert quota["violations"][0]["subject"] == "project"
