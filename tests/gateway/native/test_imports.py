"""A file of devices, users or tokens as the body of a request."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from apns_live.gateway import GatewaySettings

from .conftest import TYPE, Live

CSV = {"content-type": "text/csv; charset=utf-8"}
LINES = {"content-type": "application/x-ndjson"}
TOKEN = "80e1ad44" * 8


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> GatewaySettings:
    small = "bounded" in request.node.name
    return GatewaySettings(import_bytes=65_536, imports=1) if small else GatewaySettings()


async def send(http: httpx.AsyncClient, path: str, body: Any, headers: Any, **query: Any) -> Any:
    content = body if isinstance(body, bytes) else body.encode()
    return await http.post(
        f"/v1/imports/{path}", content=content, headers=headers, params=query, timeout=60
    )


async def test_devices_users_and_tokens(both: Live) -> None:
    rows = (
        "id,user,language,start_token.Match,tag.team,groups\n"
        f"d1,u1,de,{TOKEN},red,ops;press\n"
        "d2,u2,Klingon!,,,\n"
        "d3,u3,en,,blue,ops\n"
    )
    answer = await send(both.http, "devices", rows, CSV)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    [problem] = said.pop("problems")
    assert said == {
        "dry_run": False,
        "lines": 4,
        "accepted": 2,
        "refused": 1,
        "skipped": 0,
        "devices": 2,
        "users": 0,
        "tokens": 1,
        "ignored": [],
    }
    assert (problem["line"], problem["field"]) == (3, "language")
    assert problem["problem"]
    assert problem["remedy"]
    device = (await both.http.get("/v1/devices/d1")).json()
    assert (device["user"], device["tags"], device["groups"]) == (
        "u1",
        {"team": "red"},
        ["ops", "press"],
    )
    assert [token["attributes_type"] for token in device["start_tokens"]] == [TYPE]
    assert (await both.http.get("/v1/devices/d2")).status_code == 404

    people = b'{"id": "u1", "aliases": {"crm": "C-1"}, "tags": {"vip": true}}\n{"id": 7}\n[]\n'
    said = (await send(both.http, "users", people, LINES)).json()
    assert (said["accepted"], said["refused"], said["users"]) == (1, 2, 1)
    assert [one["line"] for one in said["problems"]] == [2, 3]
    assert (await both.http.get("/v1/users/u1")).json()["aliases"] == {"crm": ["C-1"]}

    tokens = f'{{"device": "d3", "attributes_type": "Match", "token": "{TOKEN[::-1]}"}}\n'
    moment = {"registered_at": "2026-01-31T20:00:00Z"}
    said = (await send(both.http, "tokens", tokens, LINES, **moment)).json()
    assert (said["accepted"], said["tokens"]) == (1, 1)
    [token] = (await both.http.get("/v1/devices/d3/tokens")).json()["items"]
    assert token["registered_at"] == "2026-01-31T20:00:00.000Z"

    audit = (await both.http.get("/v1/audit")).json()["items"]
    imports = [(one["subject"], one["detail"]) for one in audit if one["action"] == "import"]
    assert imports == [
        ("devices", {"accepted": 2, "refused": 1}),
        ("users", {"accepted": 1, "refused": 2}),
        ("tokens", {"accepted": 1, "refused": 0}),
    ]


async def test_again_changes_nothing_and_a_dry_run_neither(live: Live) -> None:
    rows = "id,user\nd1,u1\n"
    dry = (await send(live.http, "devices", rows, CSV, dry_run="true")).json()
    assert (dry["dry_run"], dry["accepted"]) == (True, 1)
    assert (await live.http.get("/v1/devices")).json()["items"] == []
    first = await send(live.http, "devices", rows, CSV)
    before = (await live.http.get("/v1/devices")).json()
    assert (await send(live.http, "devices", rows, CSV)).json() == first.json()
    assert (await live.http.get("/v1/devices")).json() == before


async def test_a_vendors_own_export(live: Live) -> None:
    rows = "id,identifier,device_os,external_user_id,extra\nd1,x,17,u1,5\n"
    answer = await send(live.http, "devices", rows, CSV, ignore_unknown="true")
    assert answer.json()["ignored"] == ["device_os", "external_user_id", "extra", "identifier"]
    refused = await send(live.http, "users", rows, CSV, vendor="braze")
    assert (refused.status_code, refused.json()["field"]) == (422, "vendor")


NO_FILES: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"", CSV, 400, "bad_body"),
    (gzip.compress(b"id\nd1\n"), CSV, 400, "bad_body"),
    (b"id\nd1\n", {**CSV, "content-encoding": "gzip"}, 415, "media_type"),
    (b"id\nd1\n", {"content-type": "application/json"}, 415, "media_type"),
    (b"id\nd1\n", {"content-type": ""}, 415, "media_type"),
    (b'id,"\nd1\n', CSV, 422, "invalid"),
    (b"id,id\nd1,d2\n", CSV, 422, "invalid"),
    (b"\n\n", CSV, 422, "invalid"),
    (b"id\n" + b"\n".join(b"\xff%d" % n for n in range(1_000)), CSV, 422, "invalid"),
]


async def test_what_is_no_file_is_refused(live: Live) -> None:
    for body, headers, status, code in NO_FILES:
        answer = await send(live.http, "devices", body, headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body[:40]
    assert (await live.http.get("/v1/devices")).json()["items"] == []


HOSTILE = [
    b"{" * 200_000,
    b'{"id": NaN}',
    b'{"id": "a\\u0000b"}',
    b'{"id": "\\ud800"}',
    b'{"id": "' + b"x" * 1_100_000 + b'"}',
    b'{"id": 123456789012345678901234567890}',
    b'{"id": "d", "session_count": 1e400}',
    b'{"id": "d", "tags": {"a": {"b": 1}}}',
    b'{"id": "d", "groups": ["../x"]}',
    b'{"id": "d", "unknown": 1}',
    b"\x00",
    b"null",
]


async def test_hostile_lines_are_refused_one_by_one(both: Live) -> None:
    for number, line in enumerate(HOSTILE):
        body = b'{"id": "good-%d"}\n' % number + line + b"\n"
        answer = await send(both.http, "devices", body, LINES)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert (said["accepted"], said["refused"]) == (1, 1), line[:40]
        [problem] = said["problems"]
        assert problem["line"] == 2
        assert problem["problem"]
    stored = (await both.http.get("/v1/devices")).json()["items"]
    assert len(stored) == len(HOSTILE)


async def test_size_and_number_are_bounded(live: Live) -> None:
    large = b"id\n" + b"d\n" * 65_536
    refused = await send(live.http, "devices", large, CSV)
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")
    assert (await live.http.get("/v1/devices")).json()["items"] == []

    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"id\n"
        await go_on.wait()
        yield b"d1\n"

    one = asyncio.create_task(
        live.http.post("/v1/imports/devices", content=slow(), headers=CSV, timeout=60)
    )
    await live.until(lambda: live.gateway.importing.total() == 1)
    busy = await send(live.http, "devices", "id\nd2\n", CSV)
    assert busy.status_code == 503
    assert busy.headers["retry-after"] == "5"
    # What is not complete has done nothing, and keeps nobody else waiting.
    assert (await live.http.put("/v1/devices/d3", json={})).status_code == 204
    go_on.set()
    assert (await one).json()["accepted"] == 1
    assert live.gateway.importing.total() == 0


async def test_one_app_leaves_a_place_to_the_others(live: Live) -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"id\n"
        await go_on.wait()
        yield b"d1\n"

    one = asyncio.create_task(
        live.http.post("/v1/imports/devices", content=slow(), headers=CSV, timeout=60)
    )
    await live.until(lambda: live.gateway.importing.total() == 1)
    assert (await send(live.http, "devices", "id\nd2\n", CSV)).status_code == 503
    async with live.caller(live.other_key) as other:
        assert (await send(other, "devices", "id\nd2\n", CSV)).status_code == 200
    go_on.set()
    assert (await one).status_code == 200
    assert not live.gateway.importing


async def test_a_key_without_the_scope_imports_nothing(live: Live) -> None:
    async with live.caller(await live.make_key("devices:read")) as reader:
        answer = await send(reader, "devices", "id\nd1\n", CSV)
    assert answer.status_code == 403
    async with live.caller(await live.make_key(groups=["ops"])) as grouped:
        answer = await send(grouped, "devices", "id\nd1\n", CSV)
    assert answer.status_code == 403
