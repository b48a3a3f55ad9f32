"""What Braze's dialect refuses, and how it says so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apns_live.gateway import GatewaySettings, Limit
from apns_live.gateway.braze import NOT_JSON
from tests.gateway.braze.test_life import Caller, start_body, update_body
from tests.gateway.braze.world import VendorWorld


@pytest.fixture
async def caller(world: VendorWorld) -> Caller:
    return Caller(world, await world.key("braze"))


async def test_nothing_happens_without_a_key(world: VendorWorld) -> None:
    native = await world.key("native")
    for headers in (
        {},
        {"authorization": "Bearer braze_0123456789ab_" + "0" * 64},
        {"authorization": "Basic abc"},
        {"authorization": f"Bearer {native}"},
    ):
        answer = await world.http.post(
            "/messages/live_activity/start", json=start_body(), headers=headers
        )
        assert answer.status_code == 401
        assert answer.json()["message"] == "Unauthorized"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert await world.operations() == []


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("activities:start", {"start"}), ("activities:update", {"update", "end"})],
)
async def test_each_permission_is_one_call(
    world: VendorWorld, caller: Caller, scope: str, allowed: set[str]
) -> None:
    """messages.live_activity.start and .update; ending is a part of the second, as there."""
    await world.add_users(1)
    await caller.start(activity_id="running", external_user_ids=["user-0"])
    narrow = Caller(world, await world.key("braze", scopes={scope}))
    answers = {
        "start": await narrow.start(external_user_ids=["user-0"]),
        "update": await narrow.update(1, 0, activity_id="running"),
        "end": await narrow.update(1, 0, activity_id="running", end_activity=True),
    }
    for name, answer in answers.items():
        if name in allowed:
            assert answer.status_code == 201
        else:
            assert answer.status_code == 403
            assert answer.json()["message"] == "Access Denied"


async def test_a_key_for_groups_reaches_those_alone(world: VendorWorld, caller: Caller) -> None:
    await world.add_users(2)
    await world.service.people.add_group(world.app, "demo")
    await caller.start()
    narrow = Caller(world, await world.key("braze", groups={"demo"}))
    answer = await narrow.start(activity_id="other")
    assert answer.status_code == 403
    answer = await narrow.update(1, 0)
    assert (answer.status_code, answer.json()["message"]) == (201, "success")
    assert "No device" in answer.json()["errors"][0]
    assert len(await world.operations()) == 1


BODIES: list[tuple[Any, int, str]] = [
    ({"external_user_ids": []}, 400, "No Recipients"),
    (
        {"external_user_ids": [f"u{n}" for n in range(51)]},
        400,
        "The max number of ids per request was exceeded",
    ),
    (
        {"notification": {"alert": {"title": "t", "body": "b"}, "extra": {"ab": 1}}},
        400,
        "Invalid Extra Push Payload",
    ),
    ({"content_state": {"text": "x" * 5000}}, 400, "Apple Push Length Exceeded"),
    ({"stale_date": "soon"}, 400, "Bad Request"),
    ({"app_id": "another"}, 400, "Bad Request"),
    ({"content_state": {"when": 1e400}}, 400, ""),
]


@pytest.mark.parametrize(("changes", "status", "message"), BODIES)
async def test_what_a_start_is_refused_for(
    world: VendorWorld, caller: Caller, changes: Any, status: int, message: str
) -> None:
    await world.add_users(2)
    text = json.dumps(start_body(**changes))
    answer = await world.http.post(
        "/messages/live_activity/start",
        content=text,
        headers={**caller.headers, "content-type": "application/json"},
    )
    assert answer.status_code == status
    if message:
        assert answer.json()["message"] == message
        assert answer.json()["errors"]
    else:
        assert answer.json() == {"error": NOT_JSON}
    assert await world.operations() == []


@pytest.mark.parametrize(
    ("content", "media_type", "status", "key"),
    [
        (b"{", "application/json", 400, "error"),
        (b"", "application/json", 400, "error"),
        (b"[]", "application/json", 400, "error"),
        (b"\xff\xfe", "application/json", 400, "error"),
        (b"[" * 5000, "application/json", 400, "error"),
        (b"{}", "text/plain", 415, "message"),
        (b"{}", "", 415, "message"),
        (b" " * 4_194_305, "application/json", 413, "message"),
    ],
)
async def test_a_body_that_cannot_be_read(
    caller: Caller, content: bytes, media_type: str, status: int, key: str
) -> None:
    for path in ("start", "update"):
        answer = await caller.world.http.post(
            f"/messages/live_activity/{path}",
            content=content,
            headers={**caller.headers, "content-type": media_type},
        )
        assert answer.status_code == status
        assert key in answer.json()


async def test_other_addresses_and_methods(world: VendorWorld, caller: Caller) -> None:
    for path in ("/messages/live_activity/end", "/messages/live_activity/start/", "/messages/"):
        answer = await world.http.post(path, json={}, headers=caller.headers)
        assert (answer.status_code, answer.json()["message"]) == (404, "Not Found")
    answer = await world.http.get("/messages/live_activity/start", headers=caller.headers)
    assert (answer.status_code, answer.json()["message"]) == (405, "Method Not Allowed")


async def test_what_is_accepted_and_reaches_nobody_says_so(
    world: VendorWorld, caller: Caller
) -> None:
    answer = await caller.start()
    assert answer.status_code == 201
    [said] = answer.json()["errors"]
    assert "push-to-start token" in said
    await world.add_users(1)
    answer = await caller.start(activity_id="b", external_user_ids=["user-9"])
    [said] = answer.json()["errors"]
    assert "None of the recipients" in said
    await world.settled()
    row = (await world.operations())[-1]
    assert (row.status, row.targeted) == ("done", 0)
    assert "push-to-start token for Match" in (row.reason or "")
    answer = await caller.update(1, 0, activity_id="unknown")
    assert (answer.status_code, answer.json()["message"]) == (201, "success")
    [said] = answer.json()["errors"]
    assert "unknown" in said
    await caller.start(activity_id="c", external_user_ids=["user-0"])
    assert (await caller.update(1, 0, activity_id="c", end_activity=True)).json() == {
        "message": "success"
    }
    answer = await caller.update(1, 0, activity_id="c")
    assert (answer.status_code, answer.json()["message"]) == (201, "success")
    [said] = answer.json()["errors"]
    assert "has ended" in said


async def test_an_unknown_segment_is_refused(world: VendorWorld, caller: Caller) -> None:
    body = start_body(segment_id="nothing")
    del body["external_user_ids"]
    answer = await caller.call("start", body)
    assert (answer.status_code, answer.json()["message"]) == (400, "Bad Request")


async def test_segments_and_audiences_reach_whom_they_name(
    world: VendorWorld, caller: Caller
) -> None:
    red, blue, green = await world.add_users(3)
    people = world.service.people
    for number, team in enumerate(("red", "blue", "green")):
        await people.set_attributes(world.app, "user", f"user-{number}", {"team": team})
    rule = {"field": "custom", "key": "team", "relation": "=", "value": "blue"}
    segment = await world.service.segments.save(world.app, "The blues", rule)
    body = start_body(segment_id=segment.id, activity_id="blue")
    del body["external_user_ids"]
    assert (await caller.call("start", body)).json() == {"message": "success"}
    body = start_body(
        activity_id="not-blue",
        custom_audience={
            "AND": [
                {
                    "custom_attribute": {
                        "custom_attribute_name": "team",
                        "comparison": "does_not_equal",
                        "value": "blue",
                    }
                },
                {"push_subscription_status": {"comparison": "is", "value": "subscribed"}},
            ]
        },
    )
    del body["external_user_ids"]
    assert (await caller.call("start", body)).json() == {"message": "success"}
    await world.shows([red, blue, green], "active", teamOneScore=0)
    await world.settled()
    assert [len(phone.activities) for phone in (red, blue, green)] == [1, 1, 1]
    assert b'"blue"' in blue.activities[0].attributes
    assert b'"not-blue"' in red.activities[0].attributes


async def test_the_limit_is_250_000_an_hour_in_one_bucket(
    world: VendorWorld, caller: Caller
) -> None:
    answer = await caller.update(1, 0)
    begun = world.clock.time()
    assert answer.headers["x-ratelimit-limit"] == "250000"
    assert answer.headers["x-ratelimit-remaining"] == "249999"
    assert 0 <= int(answer.headers["x-ratelimit-reset"]) - int(begun) <= 1
    key = await world.gateway.keys.find(caller.headers["authorization"].removeprefix("Bearer "))
    assert key is not None
    for _ in range(5_000):  # more than a minute's share at once
        with world.gateway.limits.enter(key):
            pass
    assert (await caller.update(1, 0)).headers["x-ratelimit-remaining"] == "244998"


async def test_the_limit_and_its_headers(world: VendorWorld) -> None:
    await world.http.aclose()
    world.serve(GatewaySettings(limits={"braze": Limit(per_minute=2)}))
    caller = Caller(world, await world.key("braze"))
    left = []
    for _ in range(2):
        answer = await caller.update(1, 0)
        assert answer.status_code == 201
        assert answer.headers["x-ratelimit-limit"] == "2"
        left.append(answer.headers["x-ratelimit-remaining"])
    assert left == ["1", "0"]
    answer = await caller.update(1, 0)
    assert (answer.status_code, answer.json()["message"]) == (429, "Rate Limited")
    assert int(answer.headers["retry-after"]) == 30
    assert int(answer.headers["x-ratelimit-reset"]) == int(world.clock.time()) + 60
    await world.clock.advance(30)
    assert (await caller.update(1, 0)).status_code == 201


async def test_the_limit_of_ids_is_a_setting_of_the_app(world: VendorWorld, caller: Caller) -> None:
    await world.service.apps.configure(
        world.app, {"braze_max_external_ids": 60, "braze_app_id": ["old-id", "older-id"]}
    )
    await world.clock.advance(6)  # a key's app is remembered for five seconds
    ids = [f"u{n}" for n in range(51)]
    answer = await caller.start(app_id="older-id", external_user_ids=ids)
    assert answer.status_code == 201


async def test_a_defect_is_answered_in_the_dialects_shape(
    world: VendorWorld, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(world.service.activities, "update", broken)
    answer = await caller.call("update", update_body(1, 0))
    assert (answer.status_code, answer.json()) == (500, {"message": "Internal Server Error"})


async def test_a_state_that_the_app_does_not_decode(world: VendorWorld, caller: Caller) -> None:
    source = """struct Match: ActivityAttributes { struct ContentState: Codable, Hashable {
        var teamOneScore: Int; var teamTwoScore: Int }
        var gameType: String }"""
    contract = {"versions": {"1.0": {"Match.swift": source}}}
    await world.add_users(1)
    world.app = await world.service.apps.configure(world.app, {"contract": contract})
    world.gateway.keys.forget()
    assert (await caller.start(external_user_ids=["user-0"])).status_code == 201
    answer = await caller.update("1", 0)
    assert answer.status_code == 400
    assert "teamOneScore: Swift needs Int and finds a string" in answer.text
    answer = await caller.start(
        activity_id="other", activity_attributes={}, external_user_ids=["user-0"]
    )
    assert answer.status_code == 400
    assert "gameType is missing" in answer.text
    warned = {"contract": contract | {"mode": "warn"}}
    world.app = await world.service.apps.configure(world.app, warned)
    world.gateway.keys.forget()
    assert (await caller.update("1", 0)).status_code == 201
