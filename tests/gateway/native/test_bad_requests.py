"""Requests that are malformed, too large, or about odd names: refused, and nothing changes."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

from tests.gateway.braze.fuzz import Asgi

from .conftest import ALERT, TYPE, Live
from .test_security import PROBLEM, operations

_SHOWN: dict[str, Any] = {"attributes_type": TYPE, "content_state": {}, "alert": ALERT}


async def test_bodies_are_bounded(live: Live) -> None:
    path = "/v1/activities/m1/update"
    large = b'{"content_state": {"text": "' + b"x" * 1_048_576 + b'"}}'
    headers = {"content-type": "application/json"}
    refused = await live.http.post(path, content=large, headers=headers)
    assert refused.status_code == 413
    assert refused.json()["code"] == "body_too_large"

    async def chunks() -> Any:
        for _ in range(64):
            yield b" " * 65_536

    streamed = await live.http.post(path, content=chunks(), headers=headers)
    assert streamed.status_code == 413
    for deep in (
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"content_state":' + b"[" * 60 + b"]" * 60 + b"}",
    ):
        refused = await live.http.post(path, content=deep, headers=headers)
        assert refused.status_code == 400, deep[:30]
        assert refused.json()["code"] == "bad_body"


async def test_lists_are_bounded(live: Live) -> None:
    item = {"do": "end", "id": "x"}
    calls = [
        ("/v1/activities/bulk", {"items": [item] * 501}),
        ("/v1/activities/bulk", {"items": []}),
        ("/v1/devices", {"devices": [{"id": "d"}] * 1_001}),
        ("/v1/tokens", {"tokens": []}),
        ("/v1/receipts", {"receipts": [{"device": "d", "event": "clicked"}] * 1_001}),
        ("/v1/audience", {"audience": {"users": [f"u{n}" for n in range(20_001)]}}),
    ]
    for path, body in calls:
        answer = await live.http.post(path, json=body)
        assert answer.status_code == 422, path
    for limit in ("0", "1001", "-1", "x", "1.5"):
        answer = await live.http.get("/v1/activities", params={"limit": limit})
        assert answer.status_code == 422


async def test_methods_that_are_not_there_are_405(live: Live) -> None:
    for method, path in (
        ("TRACE", "/v1/apps"),
        ("PUT", "/v1/activities"),
        ("DELETE", "/healthz"),
        ("POST", "/metrics"),
    ):
        answer = await live.http.request(method, path)
        assert answer.status_code == 405, (method, path)
        assert answer.headers["allow"]
        assert answer.json()["code"] == "method_not_allowed"
    answer = await live.http.options("/v1/activities/bulk")
    assert answer.headers["allow"] == "POST"
    answer = await live.http.options("/v1/users/u")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT", "DELETE"}


async def test_bodies_must_be_declared(live: Live) -> None:
    body = b'{"content_state": {}}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"):
        answer = await live.http.post(
            "/v1/activities/m1/update", content=body, headers={"content-type": kind}
        )
        assert answer.status_code == 415, kind


BAD_BODIES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"NaN",
    b'{"content_state": NaN}',
    b'{"content_state": {"a": Infinity}}',
    b'{"content_state": {}} x',
    b"\xff\xfe",
    b'{"content_state": {"a": "\xed\xa0\x80"}}',
    b'{"content_state": {"a": "\\ud800"}}',
    b'{"content_state": {"a": 1e999}}',
    b'{"content_state": {"a": 123456789012345678901234567890}}',
    b'{"content_state": null}',
    b'{"content_state": []}',
    b'{"content_state": {"a": 1}, "revision": 99999999999999999999}',
    b'{"content_state": {"a": 1}, "revision": -1}',
    b'{"content_state": {"a": 1}, "stale_date": 1e300}',
    b'{"content_state": {"a": 1}, "stale_after": -5}',
    b'{"content_state": {"a": 1}, "relevance_score": "high"}',
    b'{"content_state": {"a": 1}, "alert": {"title": {"de": "x"}, "body": "y"}}',
    b'{"content_state": {"a": 1}, "tags": ["' + b"x" * 65 + b'"]}',
    b'{"content_state": {"a": 1}, "metadata": {"a": {"b": 1}}}',
    b'{"content_state": {"a": "' + b"x" * 5_000 + b'"}}',
]


async def test_bad_bodies_are_4xx_and_change_nothing(live: Live) -> None:
    await live.start("m1")
    headers = {"content-type": "application/json"}
    for body in BAD_BODIES:
        answer = await live.http.post("/v1/activities/m1/update", content=body, headers=headers)
        assert 400 <= answer.status_code < 500, (body, answer.text)
        assert answer.headers["content-type"] == PROBLEM, body
        assert answer.json()["code"] in {"invalid", "bad_body", "payload_too_large"}, body
        assert (await live.http.get("/v1/activities/m1")).json()["version"] == 1, body


async def test_ids_that_mean_a_folder_in_a_path_are_none(live: Live) -> None:
    """Clients and proxies take dots away: what is called so could never be asked for."""
    body = {**_SHOWN, "audience": {"everyone": True}}
    for name in (".", "..", "a/b", ""):
        answer = await live.http.post("/v1/activities", json={**body, "id": name})
        assert (answer.status_code, answer.json()["field"]) == (422, "id"), name
        answer = await live.http.post("/v1/devices", json={"devices": [{"id": name}]})
        assert answer.status_code == 422, name
    for name in ("...", ".a", "a.", "é", "💩", "a b", "%2F"):
        answer = await live.http.post("/v1/activities", json={**body, "id": name})
        assert answer.status_code == 202, name
        shown = await live.http.get(f"/v1/activities/{quote(name, safe='')}")
        assert shown.json()["id"] == name


async def test_users_may_have_slashes_in_their_ids(both: Live) -> None:
    """Identity providers make such ids, and a device may name any."""
    name = "google-oauth2/1234"
    path = f"/v1/users/{quote(name, safe='')}"
    await both.http.put("/v1/devices/d", json={"user": name})
    assert (await both.http.get(path)).json()["devices"] == ["d"]
    assert (await both.http.put(path, json={"tags": {"a": "b"}})).status_code == 200
    await both.http.put("/v1/groups/ops")
    member = f"/v1/groups/ops/users/{quote(name, safe='')}"
    assert (await both.http.put(member)).status_code == 204
    assert (await both.http.get("/v1/groups/ops/users")).json()["items"] == [{"id": name}]
    assert (await both.http.delete(member)).status_code == 204
    assert (await both.http.delete(path)).status_code == 204
    assert (await both.http.get("/v1/users/")).status_code == 404


ODD_IDS = ["%00", "a%0Ab", "%F0%9F%92%A3", "..%2f..%2fetc", "%ff", "a" * 300, "%2e%2e", "' OR 1=1"]


async def test_odd_ids_are_not_there(both: Live) -> None:
    for name in ODD_IDS:
        for path in (f"/v1/activities/{name}", f"/v1/devices/{name}", f"/v1/operations/{name}"):
            answer = await both.http.get(path)
            assert answer.status_code in {404, 422}, path
        answer = await both.http.put(f"/v1/users/{name}", json={})
        assert answer.status_code < 500, name


async def test_no_text_of_a_query_is_a_defect(both: Live) -> None:
    """PostgreSQL refuses a NUL that SQLite takes; from the description, for every query there is."""
    await both.http.put("/v1/groups/x")
    call = Asgi(both.api, {"authorization": f"Bearer {both.key}"})
    for method, path, one in operations(both):
        fields = [field["name"] for field in one["parameters"] if field["in"] == "query"]
        for field in fields:
            for value in ("\x00", "a\x00b", "%", "'", "\u2028", "9" * 400, "", "-1", "NaN", "1e3"):
                query = urlencode({field: value})
                status, _ = await call(method, re.sub(r"{\w+}", "x", path), b"", query=query)
                assert status < 500, (method, path, field, value)
