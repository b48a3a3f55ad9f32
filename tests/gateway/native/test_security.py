"""OWASP's API Security Top 10 (2023), one section each where it applies."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from apns_live.gateway import GatewaySettings, create_app
from apns_live.gateway.app import FACES, FOLDER
from apns_live.gateway.native import NATIVE, describe
from apns_live.gateway.scopes import ALL

from .conftest import ALERT, TYPE, Live

PROBLEM = "application/problem+json"


# API1: broken object level authorisation.

PROVIDER_KEY = {"pem": "x", "key_id": "ABC123DEFG", "team_id": "DEF123GHIJ"}
MADE_BY_NAMING = {
    "put_stream",
    "tell_device",
    "mint_credential",
    "revoke_credentials",
    "withdraw_start_token",
    "put_user",
    "put_group",
    "save_segment",
    "get_channel",
    "delete_channel",
}
"""What makes the caller's own thing of that name, or looks it up at Apple's under the app's key."""


def operation_of(method: str, path: str) -> str:
    """Return the name of the operation that a call comes to."""
    plain = path.partition("?")[0]
    for one in NATIVE.operations:
        pattern = re.sub(r"{\w+(:path)?}", "[^/]+", one.path)
        if one.method == method and re.fullmatch(pattern, plain):
            return one.handler.__name__
    raise AssertionError(f"{method} {path} is no operation")


async def test_another_apps_things_are_not_there(live: Live) -> None:
    await live.add_phones(1)
    started = await live.start("m1")
    await live.http.put("/v1/groups/ops")
    stream = {
        "attributes_type": TYPE,
        "content_state": {},
        "alert": ALERT,
        "audience": {"groups": ["ops"]},
    }
    await live.http.put("/v1/streams/backup", json=stream)
    await live.http.put(
        "/v1/segments/mine", json={"filter": {"field": "language", "relation": "exists"}}
    )
    key = (await live.http.get("/v1/keys")).json()["items"][0]["id"]
    await live.service.settled()
    before = (await live.http.get("/v1/activities/m1")).json()
    update = {"content_state": {"stolen": True}}
    calls: list[tuple[str, str, Any]] = [
        ("GET", "/v1/activities/m1", None),
        ("GET", "/v1/activities/m1/history", None),
        ("GET", "/v1/activities/m1/events", None),
        ("POST", "/v1/activities/m1/update", update),
        ("POST", "/v1/activities/m1/end", None),
        ("GET", f"/v1/operations/{started['operation']}", None),
        ("GET", f"/v1/operations/{started['operation']}/outcomes", None),
        ("GET", f"/v1/operations/{started['operation']}/outcomes.jsonl", None),
        ("GET", f"/v1/operations/{started['operation']}/events", None),
        ("GET", "/v1/operations?activity=m1", None),
        ("GET", "/v1/receipts?activity=m1", None),
        ("GET", "/v1/devices/phone-1", None),
        ("GET", "/v1/devices/phone-1/tokens", None),
        ("GET", "/v1/devices/phone-1/doctor", None),
        ("GET", "/v1/devices?user=user-1", None),
        ("GET", "/v1/users/user-1", None),
        ("GET", "/v1/groups/ops/users", None),
        ("GET", "/v1/groups/ops", None),
        ("DELETE", "/v1/groups/ops", None),
        ("GET", "/v1/segments/mine", None),
        ("GET", "/v1/streams/backup", None),
        ("GET", "/v1/activities/m1/devices", None),
        ("DELETE", "/v1/groups/ops/users/user-1", None),
        ("PATCH", "/v1/devices/phone-1/attributes", {"attributes": {"a": "b"}}),
        ("POST", "/v1/apps/a/provider-keys", PROVIDER_KEY),
        ("DELETE", "/v1/devices/phone-1", None),
        ("PATCH", "/v1/devices/phone-1/tags", {"tags": {"a": "b"}}),
        ("DELETE", "/v1/activities/m1/devices/phone-1", None),
        ("DELETE", "/v1/users/user-1", None),
        ("PUT", "/v1/groups/ops/users/user-1", None),
        ("DELETE", "/v1/segments/mine", None),
        ("DELETE", "/v1/streams/backup", None),
        ("POST", "/v1/streams/backup/pause", None),
        ("POST", "/v1/streams/backup/resume", None),
        ("GET", "/v1/apps/a", None),
        ("PATCH", "/v1/apps/a", {"settings": {"x": 1}}),
        ("GET", "/v1/apps/a/provider-keys", None),
        ("POST", f"/v1/keys/{key}/rotate", None),
        ("DELETE", f"/v1/keys/{key}", None),
    ]
    tried = {operation_of(method, path) for method, path, _ in calls}
    named = {
        one.handler.__name__ for one in NATIVE.operations if "{" in one.path and one.who == "key"
    }
    assert named - tried == MADE_BY_NAMING
    async with live.caller(live.other_key) as other:
        for method, path, body in calls:
            answer = await other.request(method, path, json=body)
            assert answer.status_code == 404, (method, path, answer.status_code)
            assert answer.headers["content-type"] == PROBLEM
        # Names that two apps share are two things.
        assert (await other.put("/v1/groups/ops")).status_code == 204
        for path in ("/v1/activities", "/v1/operations", "/v1/segments", "/v1/receipts"):
            assert (await other.get(path)).json()["items"] == []
        for audience in ({"users": ["user-1"]}, {"devices": ["phone-1"]}, {"everyone": True}):
            counted = await other.post("/v1/audience", json={"audience": audience})
            assert counted.json()["devices"] == 0
        # What names the same id there is a thing of its own here.
        assert (await other.put("/v1/devices/phone-1", json={"language": "xx"})).status_code == 204
        assert (await other.delete(f"/v1/devices/phone-1/start-tokens/{TYPE}")).status_code == 204
        assert (await other.delete("/v1/devices/phone-1/credentials")).status_code == 204
        assert (await other.put("/v1/users/user-1", json={"tags": {"a": "b"}})).status_code == 200
        assert (await other.put("/v1/streams/backup", json=stream)).status_code == 200
    assert (await live.http.get("/v1/activities/m1")).json() == before
    device = (await live.http.get("/v1/devices/phone-1")).json()
    assert device["language"] is None
    assert len(device["start_tokens"]) == 1
    assert (await live.http.get("/v1/users/user-1")).json()["tags"] == {}


async def test_a_key_for_groups_calls_what_is_about_groups_and_no_more(live: Live) -> None:
    """From the description: a new operation is closed to such keys until it looks to groups."""
    await live.http.put("/v1/groups/red")
    started = await live.start("theirs", audience={"everyone": True})
    secret = await live.make_key(groups=["red"])
    ids = {"activity": "theirs", "operation": started["operation"], "stream": "none", "app": "a"}
    open_to_all = set()
    async with live.caller(secret) as caller:
        for method, path, one in operations(live):
            if one.get("security") is not None:
                continue
            filled = re.sub(r"{(\w+)}", lambda found: ids.get(found[1], "x"), path)
            answer = await caller.request(method, filled, json=BODIES.get((method, path)))
            if answer.status_code != 403:
                open_to_all.add(f"{method} {path}")
                if "theirs" in filled or started["operation"] in filled:
                    assert answer.status_code == 404, (method, path)
    assert open_to_all == OPEN_TO_GROUPS
    assert (await live.http.get("/v1/activities/theirs")).json()["version"] == 1


_SHOWN: dict[str, Any] = {"attributes_type": TYPE, "content_state": {}, "alert": ALERT}
_RED = {"audience": {"groups": ["red"]}}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/activities"): {**_SHOWN, **_RED},
    ("POST", "/v1/activities/{activity}/update"): {"content_state": {}},
    ("POST", "/v1/activities/bulk"): {"items": [{"do": "end", "id": "theirs"}]},
    ("PUT", "/v1/streams/{stream}"): {**_SHOWN, **_RED},
    ("POST", "/v1/audience"): _RED,
    ("POST", "/v1/notifications"): {**_RED, "title": "x", "body": "y"},
}
OPEN_TO_GROUPS = {
    "POST /v1/activities",
    "POST /v1/activities/bulk",
    "POST /v1/activities/{activity}/update",
    "POST /v1/activities/{activity}/end",
    "GET /v1/activities/{activity}",
    "GET /v1/activities/{activity}/history",
    "GET /v1/activities/{activity}/devices",
    "GET /v1/streams/{stream}",
    "GET /v1/activities/{activity}/events",
    "GET /v1/operations/{operation}",
    "GET /v1/operations/{operation}/outcomes",
    "GET /v1/operations/{operation}/outcomes.jsonl",
    "GET /v1/operations/{operation}/events",
    "PUT /v1/streams/{stream}",
    "DELETE /v1/streams/{stream}",
    "POST /v1/streams/{stream}/pause",
    "POST /v1/streams/{stream}/resume",
    "POST /v1/audience",
    "POST /v1/notifications",
}


def operations(live: Live) -> list[tuple[str, str, dict[str, Any]]]:
    """Every operation of the description: method, path, and what is said of it."""
    return [
        (method.upper(), path, one)
        for path, methods in live.api.openapi()["paths"].items()
        for method, one in methods.items()
    ]


# API2: broken authentication.


async def test_every_route_asks_who_calls(live: Live) -> None:
    phone = (await live.http.post("/v1/devices/p/credentials")).json()["credential"]
    bad = {
        "nothing": {},
        "empty": {"authorization": ""},
        "basic": {"authorization": f"Basic {live.key}"},
        "bare": {"authorization": live.key},
        "in a cookie": {"cookie": f"authorization=Bearer {live.key}"},
        "unknown": {"authorization": f"Bearer {live.key[:-1]}"},
    }
    async with live.caller() as caller:
        for one in NATIVE.operations:
            if one.who == "anyone":
                continue
            path = one.path.replace("{", "").replace(":path}", "").replace("}", "")
            tried = dict(bad)
            # A server's key is nothing on a phone's call, and the other way round.
            wrong = live.key if one.who == "phone" else phone
            tried["the other kind"] = {"authorization": f"Bearer {wrong}"}
            for headers in tried.values():
                answer = await caller.request(one.method, path, headers=headers)
                assert answer.status_code in {401, 429}, (one.path, headers)
                assert answer.headers["content-type"] == PROBLEM
                live.gateway.limits._states.clear()


async def test_a_key_in_the_query_is_no_key(live: Live) -> None:
    async with live.caller() as caller:
        answer = await caller.get("/v1/apps", params={"key": live.key})
    assert answer.status_code == 401


async def test_keys_of_dialects_are_not_for_the_native_api(live: Live) -> None:
    for dialect in ("activitysmith", "braze", "onesignal"):
        secret = await live.make_key(dialect=dialect)
        async with live.caller(secret) as caller:
            assert (await caller.get("/v1/apps")).status_code == 403


# API3: broken object property level authorisation (mass assignment).


async def test_unknown_fields_are_errors_everywhere(live: Live) -> None:
    await live.start("m1")
    bodies = {
        ("POST", "/v1/activities/m1/update"): {"content_state": {}},
        ("POST", "/v1/activities/m1/end"): {},
        ("POST", "/v1/activities"): {
            "attributes_type": TYPE,
            "content_state": {},
            "alert": ALERT,
            "audience": {"everyone": True},
        },
        ("PUT", "/v1/devices/d"): {},
        ("POST", "/v1/devices"): {"devices": [{"id": "d"}]},
        ("POST", "/v1/devices/d/credentials"): {},
        ("PUT", "/v1/users/u"): {},
        ("PATCH", "/v1/apps/a"): {"settings": {}},
        ("POST", "/v1/keys"): {"name": "n", "scopes": ["admin"]},
        ("POST", "/v1/audience"): {"audience": {"everyone": True}},
    }
    smuggled = (
        "app_id",
        "status",
        "version",
        "dialect",
        "caller",
        "row",
        "bundle_id",
        "secret_hash",
    )
    for (method, path), body in bodies.items():
        for name in smuggled:
            if name in body or (name == "dialect" and path == "/v1/keys"):
                continue
            answer = await live.http.request(method, path, json={**body, name: "x"})
            assert answer.status_code == 422, (path, name, answer.text)
            assert answer.json()["field"] == name
    nested = {"devices": [{"id": "d", "secret_hash": "x"}]}
    answer = await live.http.post("/v1/devices", json=nested)
    assert answer.json()["field"].endswith("secret_hash")


async def test_tokens_are_shown_by_their_first_digits_only(live: Live) -> None:
    [phone] = await live.add_phones(1)
    whole = phone.token_of("start", TYPE).text
    shown = await live.http.get(f"/v1/devices/{phone.id}")
    assert whole not in shown.text
    assert whole[:8] in shown.text


# API4: unrestricted resource consumption.


async def test_a_phone_may_call_so_often_and_no_more(live: Live) -> None:
    """Also a sensitive flow (API6): tokens are handed in, at the pace of a phone."""
    minted = await live.http.post("/v1/devices/p/credentials", json={})
    other = await live.http.post("/v1/devices/q/credentials", json={})
    async with live.caller(minted.json()["credential"]) as phone:
        statuses = [(await phone.get("/v1/device")).status_code for _ in range(5)]
        again = await phone.get("/v1/device")
    assert statuses == [200] * 3 + [429] * 2
    assert int(again.headers["retry-after"]) >= 1
    async with live.caller(other.json()["credential"]) as phone:
        assert (await phone.get("/v1/device")).status_code == 200


async def test_an_address_cannot_be_made_up(live: Live) -> None:
    """Limits of an address go by the peer, not by what a header says it is."""
    async with live.caller() as caller:
        statuses = [
            (
                await caller.get("/v1/apps", headers={"x-forwarded-for": f"10.0.0.{number}"})
            ).status_code
            for number in range(8)
        ]
    assert statuses == [401] * 5 + [429] * 3


# API5: broken function level authorisation.


async def test_every_operation_is_closed_to_a_key_without_its_scope(live: Live) -> None:
    """From the description, so that a new operation cannot be forgotten."""
    without = {scope: await live.make_key(*(ALL - {scope})) for scope in ALL}
    unscoped = set()
    async with live.caller() as caller:
        for method, path, one in operations(live):
            if one.get("security") is not None:
                continue  # for phones, or for anyone
            scope = one.get("x-scope")
            if scope is None:
                unscoped.add(f"{method} {path}")
                continue
            assert f"`{scope}`" in one["description"]
            filled = re.sub(r"{\w+}", "x", path)
            answer = await caller.request(
                method, filled, headers={"authorization": f"Bearer {without[scope]}"}
            )
            assert answer.status_code == 403, (method, path)
            assert answer.json()["code"] == "forbidden"
            assert scope in answer.json()["detail"]
    # Any key may see its own app; of a bulk call each item asks for its own scope.
    assert unscoped == {"GET /v1/apps", "GET /v1/apps/{app}", "POST /v1/activities/bulk"}
    items = [{"do": "end", "id": "x"}, {"do": "update", "id": "x", "content_state": {}}]
    items.append({"do": "start", **_SHOWN, "audience": {"everyone": True}})
    async with live.caller(await live.make_key("activities:read")) as reader:
        done = (await reader.post("/v1/activities/bulk", json={"items": items})).json()
    assert [item["problem"]["code"] for item in done["items"]] == ["forbidden"] * 3


async def test_every_operation_of_a_phone_is_closed_to_every_key(live: Live) -> None:
    for method, path, one in operations(live):
        if one.get("security") == [{"device": []}]:
            answer = await live.http.request(method, re.sub(r"{\w+}", "x", path))
            assert answer.status_code in {401, 429}, (method, path)
            live.gateway.limits._states.clear()


# API7: server-side request forgery. The webhooks of buttons are tested with the relay.


def test_nothing_that_a_caller_says_is_an_address_to_fetch() -> None:
    schemas = describe("0")["components"]["schemas"]
    suspects = re.compile(r"url|uri|host|webhook|callback|endpoint|redirect", re.IGNORECASE)
    found = {
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field in schema.get("properties", {})
        if suspects.search(field)
    }
    assert found == set()


# API3 again: what is answered.


def test_no_answer_has_a_place_for_a_secret_but_those_that_are_for_it() -> None:
    schemas = describe("0")["components"]["schemas"]
    suspects = re.compile(r"secret|hash|sealed|pem|password|credential$|private", re.IGNORECASE)
    found = {
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field in schema.get("properties", {})
        if suspects.search(field)
    }
    assert found == {"ProviderKeyBody.pem", "NewKeyAnswer.secret", "CredentialAnswer.credential"}


# API9: improper inventory management.


async def test_what_is_served_is_described(live: Live) -> None:
    served = {(one.method, re.sub(r":path}", "}", one.path)) for one in NATIVE.operations}
    assert served == {(method, path) for method, path, _ in operations(live)}
    pages = {"/", *(f"/{file.name}" for file in FOLDER.iterdir()), "/reference"} - {"/index.html"}
    assert {getattr(route, "path", "") for route in live.api.routes} == pages
    dialects = {one.path for face in FACES.values() for one in face.operations}
    heads = ("/live-activity/", "/push-notification", "/badge", "/metrics/", "/messages/")
    heads += ("/apps/", "/notifications", "/v1/projects/", "/token", "/batch", "/iid/")
    for path in dialects:
        plain = path.removeprefix("/api/v1").removeprefix("/api")
        assert plain.startswith(heads) or path == "/api/metrics", path
    async with live.caller() as anyone:
        for path in (
            "/docs",
            "/redoc",
            "/openapi.yaml",
            "/admin",
            "/debug",
            "/.env",
            "/try",
            "/index.html",
        ):
            assert (await anyone.get(path)).status_code == 404, path
    assert create_app(live.service).debug is False


# API8: security misconfiguration.


async def test_answers_carry_no_traces_and_no_server(live: Live) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the password is hunter2")

    live.service.activities.get = broken  # type: ignore[method-assign, assignment]
    answer = await live.http.get("/v1/activities/m1")
    assert answer.status_code == 500
    assert answer.json() == {
        "type": "urn:apns-live:problem:internal",
        "title": "A defect of the gateway",
        "status": 500,
        "code": "internal",
    }
    assert "server" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"


async def test_no_page_elsewhere_may_read_answers(live: Live) -> None:
    origin = {"origin": "https://evil.example"}
    for method in ("GET", "OPTIONS"):
        answer = await live.http.request(method, "/v1/apps", headers=origin)
        assert not [name for name in answer.headers if name.startswith("access-control")]


# What is under way is bounded.


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> GatewaySettings:
    name = request.node.name
    if "under_way" in name:
        return GatewaySettings(requests=6)  # one app may have four of them
    if "so_often" in name:
        return GatewaySettings(device_per_minute=3)
    if "made_up" in name:
        return GatewaySettings(refused_per_minute=5)
    return GatewaySettings()


async def test_too_much_under_way_is_503_at_once(live: Live) -> None:
    release = asyncio.Event()

    async def slow(*_: object, **__: object) -> dict[str, Any]:
        await release.wait()
        return {}

    live.service.activities.get = slow  # type: ignore[method-assign]
    waiting = [
        asyncio.create_task(live.http.get("/v1/activities/m1", timeout=20)) for _ in range(4)
    ]
    await live.until(lambda: live.gateway.admission.under_way == 4)
    refused = await live.http.get("/v1/apps")
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["code"] == "busy"
    release.set()
    assert {task.status_code for task in await asyncio.gather(*waiting)} == {200}
    assert (await live.http.get("/v1/apps")).status_code == 200
    await live.until(lambda: live.gateway.admission.under_way == 0)
