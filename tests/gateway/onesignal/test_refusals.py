"""What OneSignal's dialect refuses, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest

from apns_live.errors import Busy, StoreError
from apns_live.gateway import GatewaySettings, Limit
from apns_live.gateway.onesignal.words import INVALID_KEY, NO_TARGET, RATE_LIMITED
from tests.gateway.braze.world import TYPE, VendorWorld
from tests.gateway.onesignal.caller import Caller, start_body


def only_error(answer: Any) -> str:
    body = answer.json()
    assert body.keys() == {"errors"}
    [text] = body["errors"]
    return str(text)


async def test_nothing_happens_without_a_key(world: VendorWorld) -> None:
    native = await world.key("native")
    path = f"/apps/scores/activities/activity/{TYPE}"
    for headers in (
        {},
        {"authorization": "Key os_v2_app_0123456789ab_" + "0" * 64},
        {"authorization": "Digest abc"},
        {"authorization": f"Key {native}"},
    ):
        answer = await world.http.post(path, json=start_body(), headers=headers)
        assert answer.status_code == 403
        assert only_error(answer) == INVALID_KEY
    assert await world.operations() == []


@pytest.mark.parametrize("scheme", ["Key", "Bearer", "Basic", "KEY"])
async def test_three_generations_of_keys(world: VendorWorld, caller: Caller, scheme: str) -> None:
    await world.add_users(1)
    secret = caller.headers["authorization"].partition(" ")[2]
    caller.headers = {
        "authorization": f"{scheme} {secret}",
        "OS-Usage-Data": "kind=sdk, sdk-name=onesignal-python, version=5.18.0",
    }
    assert (await caller.start()).status_code == 201


async def test_a_key_is_good_for_its_own_app(world: VendorWorld, caller: Caller) -> None:
    other = await world.add_app("other", with_key=False)
    caller.app_id = other.id
    answer = await caller.start()
    assert answer.status_code == 403
    assert "app_id" in only_error(answer)
    await world.service.apps.configure(world.app, {"onesignal_app_id": "old-id"})
    await world.clock.advance(6)  # a key's app is remembered for five seconds
    await world.add_users(1)
    caller.app_id = "old-id"
    assert (await caller.start()).status_code == 201


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [("activities:start", "start"), ("activities:update", "update"), ("activities:end", "end")],
)
async def test_each_scope_is_one_call(
    world: VendorWorld, caller: Caller, scope: str, allowed: str
) -> None:
    await world.add_users(1)
    await caller.start(activity_id="running")
    narrow = Caller(world, await world.key("onesignal", scopes={scope}))
    answers = {
        "start": await narrow.start(),
        "update": await narrow.change(activity="running"),
        "end": await narrow.change("end", activity="running"),
    }
    for name, answer in answers.items():
        assert answer.status_code == (201 if name == allowed else 403)


async def test_a_key_for_groups_reaches_those_alone(world: VendorWorld, caller: Caller) -> None:
    await world.add_users(2)
    await world.service.people.add_group(world.app, "demo")
    await caller.start(activity_id="running")
    narrow = Caller(world, await world.key("onesignal", groups={"demo"}))
    assert (await narrow.start()).status_code == 403
    assert (await narrow.change(activity="running")).status_code == 404


async def test_what_is_missing_is_said(world: VendorWorld, caller: Caller) -> None:
    answer = await caller.start()
    assert answer.status_code == 400
    assert "push-to-start token" in only_error(answer)
    await world.add_users(1)
    answer = await caller.start(include_aliases={"external_id": ["nobody"]})
    assert answer.status_code == 201
    assert "None of the recipients" in answer.json()["warnings"][0]
    answer = await caller.change(activity="unknown")
    assert answer.status_code == 404
    assert only_error(answer) == "activity_id not found in this app"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"include_aliases": None}, NO_TARGET),
    ({"include_aliases": None, "included_segments": ["Nobody knows"]}, "segment"),
    (
        {"include_aliases": None, "filters": [{"field": "bought_sku", "relation": "="}]},
        "bought_sku",
    ),
    ({"headings": None}, "headings"),
    ({"idempotency_key": "again"}, "UUID"),
    ({"event_updates": {"text": "x" * 5000}}, "bytes"),
    ({"stale_date": 1_800_000_000_000}, "seconds"),
]


@pytest.mark.parametrize(("changes", "said"), BAD)
async def test_what_a_start_is_refused_for(
    world: VendorWorld, caller: Caller, changes: dict[str, Any], said: str
) -> None:
    await world.add_users(2)
    answer = await caller.start(**changes)
    assert answer.status_code == 400
    assert said in only_error(answer)
    assert await world.operations() == []


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 5000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b" " * 4_194_305, "application/json", 413),
    ],
)
async def test_a_body_that_cannot_be_read(
    caller: Caller, content: bytes, media_type: str, status: int
) -> None:
    for path in (f"activities/activity/{TYPE}", "live_activities/a/notifications"):
        answer = await caller.world.http.post(
            f"/apps/scores/{path}",
            content=content,
            headers={**caller.headers, "content-type": media_type},
        )
        assert answer.status_code == status
        assert only_error(answer)


async def test_other_addresses_and_methods(world: VendorWorld, caller: Caller) -> None:
    for method, path, status in (
        ("GET", f"/apps/scores/activities/activity/{TYPE}", 405),
        ("PUT", "/apps/scores/live_activities/a/notifications", 405),
        ("POST", "/apps/scores/live_activities/a", 404),
        ("POST", "/notifications", 404),
        ("GET", "/notifications/n-1", 403),  # a view without the app that its key is for
        ("GET", "/apps/scores", 404),
        ("POST", "/api/v1/apps/scores/nothing", 404),
    ):
        answer = await world.http.request(method, path, headers=caller.headers)
        assert answer.status_code == status
        assert only_error(answer)


async def test_ids_with_a_slash(world: VendorWorld, caller: Caller) -> None:
    [phone] = await world.add_users(1)
    await caller.start(activity_id="cup/final 1")
    await world.shows([phone], "active", home=0)
    await world.have_tokens([phone])
    assert (await caller.change(activity="cup%2Ffinal%201")).status_code == 201
    await world.shows([phone], "active", home=1)


async def test_the_limit(world: VendorWorld) -> None:
    await world.http.aclose()
    world.serve(GatewaySettings(limits={"onesignal": Limit(per_minute=2)}))
    caller = Caller(world, await world.key("onesignal"))
    for _ in range(2):
        assert (await caller.change()).status_code == 404
    answer = await caller.change()
    assert (answer.status_code, only_error(answer)) == (429, RATE_LIMITED)
    assert answer.headers["retry-after"] == "30"
    await world.clock.advance(30)
    assert (await caller.change()).status_code == 404


@pytest.mark.parametrize(
    ("error", "status"),
    [(Busy("full", retry_after=3.0), 503), (StoreError("gone"), 503), (RuntimeError("x"), 500)],
)
async def test_trouble_of_ours(
    world: VendorWorld,
    caller: Caller,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(world.service.activities, "update", broken)
    answer = await caller.change()
    assert (answer.status_code, only_error(answer)) == (status, "Service temporarily unavailable")
    if status == 503:
        assert int(answer.headers["retry-after"]) >= 1


async def test_a_state_that_the_app_does_not_decode(world: VendorWorld, caller: Caller) -> None:
    source = """struct Match: ActivityAttributes {
        struct ContentState: Codable { var home: Int; var away: Int } }"""
    contract = {"versions": {"1.0": {"Match.swift": source}}}
    await world.add_users(1)
    world.app = await world.service.apps.configure(world.app, {"contract": contract})
    world.gateway.keys.forget()
    answer = await caller.start(event_updates={"home": "0", "away": 0})
    assert answer.status_code == 400
    assert "home: Swift needs Int and finds a string" in only_error(answer)
    assert (await caller.start()).status_code == 201
