"""Lists in pages, each along an index; what is shown of a device, a user, a token."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from sqlalchemy import event

from apns_live.activities.store.database import Database
from tests.activities.plans import every_query_indexed

from .conftest import ALERT, TYPE, Live

LISTS = ("/v1/devices", "/v1/users", "/v1/groups")


async def filled(live: Live, count: int = 7) -> None:
    """Devices d-0, ... of two languages; users u-0, ... with two devices each; a group."""
    devices = [
        {
            "id": f"d-{number}",
            "user": f"u-{number // 2}",
            "language": "de" if number % 2 else "en",
            "country": "at",
        }
        for number in range(count)
    ]
    assert (await live.http.post("/v1/devices", json={"devices": devices})).json() == {
        "count": count
    }
    for slug in ("ops", "press"):
        await live.http.put(f"/v1/groups/{slug}", json={"name": slug.upper()})
    for number in range(count):
        await live.http.put(f"/v1/groups/ops/devices/d-{number}")
        await live.http.put(f"/v1/groups/ops/users/u-{number // 2}")
    # Another app's are never among them.
    async with live.caller(live.other_key) as other:
        await other.post("/v1/devices", json={"devices": [{"id": "d-0", "user": "u-0"}]})
        await other.put("/v1/groups/ops")


async def told(live: Live) -> None:
    """Save the segment mine, start the activity m1, put the stream nightly."""
    rule = {"field": "language", "relation": "=", "value": "de"}
    assert (await live.http.put("/v1/segments/mine", json={"filter": rule})).status_code == 200
    await live.start("m1")
    stream = {
        "attributes_type": TYPE,
        "content_state": {"n": 1},
        "alert": ALERT,
        "audience": {"groups": ["ops"]},
        "tags": ["backup"],
    }
    answer = await live.http.put("/v1/streams/nightly", json=stream)
    assert answer.json()["result"] == "started"


async def walked(http: httpx.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    """Read a list to its end, page by page."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        answer = await http.get(path, params={"limit": 2, "after": after, **query})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= 2
        found += page["items"]
        if page["next"] is None:
            return found
        assert page["items"]
        after = page["next"]


async def test_lists_are_walked_in_pages(both: Live) -> None:
    await filled(both)
    ids = [f"d-{number}" for number in range(7)]
    devices = await walked(both.http, "/v1/devices")
    assert [one["id"] for one in devices] == ids
    assert devices[3] | {"created_at": "", "updated_at": ""} == {
        "id": "d-3",
        "user": "u-1",
        "language": "de",
        "country": "AT",
        "latitude": None,
        "longitude": None,
        "app_version": None,
        "os_version": None,
        "first_session": None,
        "last_session": None,
        "session_count": 0,
        "session_time": 0,
        "amount_spent": 0.0,
        "push_enabled": True,
        "frequent_updates": None,
        "created_at": "",
        "updated_at": "",
    }
    german = await walked(both.http, "/v1/devices", language="de")
    assert [one["id"] for one in german] == ids[1::2]
    assert len(await walked(both.http, "/v1/devices", country="at")) == 7
    of_one = await walked(both.http, "/v1/devices", user="u-1")
    assert [one["id"] for one in of_one] == ["d-2", "d-3"]
    assert [one["external_id"] for one in await walked(both.http, "/v1/users")] == [
        "u-0",
        "u-1",
        "u-2",
        "u-3",
    ]
    groups = await walked(both.http, "/v1/groups")
    assert [(one["slug"], one["name"]) for one in groups] == [("ops", "OPS"), ("press", "PRESS")]
    assert [one["id"] for one in await walked(both.http, "/v1/groups/ops/devices")] == ids
    members = await walked(both.http, "/v1/groups/ops/users")
    assert [one["id"] for one in members] == ["u-0", "u-1", "u-2", "u-3"]
    assert await walked(both.http, "/v1/groups/press/users") == []
    async with both.caller(both.other_key) as other:
        assert [one["id"] for one in await walked(other, "/v1/devices")] == ["d-0"]
        assert [one["external_id"] for one in await walked(other, "/v1/users")] == ["u-0"]
        assert await walked(other, "/v1/groups/ops/devices") == []


async def test_no_list_reads_a_whole_table(both: Live) -> None:
    await filled(both, 3)
    await told(both)
    directory, app = both.service.directory, both.app
    async with every_query_indexed(both.service.database):
        await directory.devices(app, after="d-0")
        await directory.devices(app, user="u-0")
        await directory.devices(app, language="de")
        await directory.devices(app, country="AT", after="1")
        await directory.tokens(app, "d-0")
        await directory.belongings(app, "d-0")
        await directory.users(app)
        await directory.user(app, "u-0")
        await directory.groups(app)
        await directory.members(app, "ops", "device")
        await directory.members(app, "ops", "user", after="1")
        await directory.group(app, "ops")
        await directory.segments(app)
        await directory.segment(app, "mine")
        await directory.streams(app)
        await directory.stream(app, "nightly")
        await directory.followers(app, "m1", after="1")


async def test_each_list_goes_along_the_index_that_fits(live: Live) -> None:
    """An index of another order would sort, or pass over, every row of the app for each page."""
    await filled(live, 3)
    database, directory = live.service.database, live.service.directory
    plans = {
        "devices": await plan(database, directory.devices(live.app)),
        "language": await plan(database, directory.devices(live.app, language="de")),
        "country": await plan(database, directory.devices(live.app, country="AT")),
        "user": await plan(database, directory.devices(live.app, user="u-0")),
        "users": await plan(database, directory.users(live.app)),
        "groups": await plan(database, directory.groups(live.app)),
        "members": await plan(database, directory.members(live.app, "ops", "device")),
    }
    for name, lines in plans.items():
        if name != "user":  # a user's few devices are sorted
            assert not [line for line in lines if "TEMP B-TREE" in line], (name, lines)
    assert "(user_id=?)" in plans["user"][0]
    assert "(app_id=? AND language=? AND id>?)" in plans["language"][0]
    assert "(app_id=? AND country=? AND id>?)" in plans["country"][0]
    assert "(app_id=? AND public_id>?)" in plans["devices"][0]
    assert "(app_id=? AND external_id>?)" in plans["users"][0]
    assert "(app_id=? AND slug>?)" in plans["groups"][0]
    assert "(group_id=? AND device_id>?)" in plans["members"][0]


async def plan(database: Database, work: Any) -> list[str]:
    """Return SQLite's plan of the last statement of some work; the service reads beside it."""
    seen: list[tuple[str, Any]] = []
    task = asyncio.current_task()

    def remember(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.lstrip().startswith("SELECT") and asyncio.current_task() is task:
            seen.append((statement, parameters))

    engine = database._reader.sync_engine
    event.listen(engine, "before_cursor_execute", remember)
    try:
        await work
    finally:
        event.remove(engine, "before_cursor_execute", remember)
    statement, parameters = seen[-1]
    async with database.read() as connection:
        rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return [row[-1] for row in rows]


async def test_a_device_and_a_user_with_all_that_was_told(both: Live) -> None:
    http = both.http
    await http.put("/v1/users/u", json={"aliases": {"crm": "C-1"}, "tags": {"level": 1234567}})
    await http.put("/v1/devices/d", json={"user": "u"})
    attributes = {
        "plan": "gold",
        "visits": 12,
        "vip": True,
        "renewal": {"date": "2027-01-31"},
        "teams": ["red", "blue"],
    }
    assert (
        await http.patch("/v1/devices/d/attributes", json={"attributes": attributes})
    ).status_code == 204
    await http.patch("/v1/devices/d/tags", json={"tags": {"team": "red", "level": "12"}})
    await http.put("/v1/groups/ops")
    await http.put("/v1/groups/ops/devices/d")
    await http.put("/v1/groups/ops/users/u")
    device = (await http.get("/v1/devices/d")).json()
    assert device["attributes"] == attributes
    assert device["tags"] == {"team": "red", "level": "12"}
    assert device["groups"] == ["ops"]
    user = (await http.get("/v1/users/u")).json()
    del user["id"], user["created_at"]
    assert user == {
        "external_id": "u",
        "aliases": {"crm": ["C-1"]},
        "tags": {"level": 1234567},
        "attributes": {},
        "groups": ["ops"],
        "devices": ["d"],
    }


async def test_tokens_of_a_device_by_their_first_digits(both: Live) -> None:
    [phone] = await both.add_phones(1)
    await both.start("m1")
    await both.hand_in()
    text = phone.token_of("start", TYPE).text
    answer = await both.http.get(f"/v1/devices/{phone.id}/tokens")
    tokens = {one["kind"]: one for one in answer.json()["items"]}
    assert set(tokens) == {"start", "activity"}
    assert tokens["start"]["token"] == f"{text[:8]}…"
    assert tokens["start"]["attributes_type"] == TYPE
    assert tokens["activity"]["activity"] == "m1"
    assert tokens["activity"]["retired_at"] is None
    assert text not in answer.text
    assert phone.activities[-1].token.text not in answer.text
    await both.http.delete(f"/v1/devices/{phone.id}/start-tokens/{TYPE}")
    again = (await both.http.get(f"/v1/devices/{phone.id}/tokens")).json()["items"]
    [start] = [one for one in again if one["kind"] == "start"]
    assert start["retired_reason"] == "withdrawn"
    assert start["retired_at"]


async def test_segments_streams_and_groups_one_by_one(both: Live) -> None:
    await filled(both, 1)
    await told(both)
    http = both.http
    [listed] = await walked(http, "/v1/segments")
    for name in ("mine", listed["id"]):
        assert (await http.get(f"/v1/segments/{name}")).json() == listed
    [stream] = await walked(http, "/v1/streams")
    assert stream == (await http.get("/v1/streams/nightly")).json()
    assert (stream["key"], stream["tags"], stream["paused_at"]) == ("nightly", ["backup"], None)
    running = (await http.get(f"/v1/activities/{stream['activity']}")).json()
    assert running["stream_key"] == "nightly"
    await http.post("/v1/streams/nightly/pause")
    paused = (await http.get("/v1/streams/nightly")).json()
    assert paused["activity"] is None
    assert paused["paused_at"]
    assert (await http.get("/v1/groups/ops")).json()["name"] == "OPS"
    assert (await http.delete("/v1/groups/ops")).status_code == 204
    assert (await http.delete("/v1/groups/ops")).status_code == 404
    assert (await http.get("/v1/devices/d-0")).json()["groups"] == []


async def test_the_devices_of_an_activity(both: Live) -> None:
    phones = await both.add_phones(3)
    await both.start("m1")
    await both.hand_in()
    await both.http.post("/v1/activities/m1/update", json={"content_state": {"home": 1}})
    await both.shows("active", {"home": 1})
    await both.service.settled()
    followers = await walked(both.http, "/v1/activities/m1/devices")
    assert [one["device"] for one in followers] == [phone.id for phone in phones]
    for phone, one in zip(phones, followers, strict=True):
        assert one["token"] == f"{phone.activities[-1].token.text[:8]}…"
        assert (one["acknowledged_version"], one["retired_at"]) == (2, None)
        assert one["started_at"]
    await both.http.delete(f"/v1/activities/m1/devices/{phones[0].id}")
    gone, *_ = await walked(both.http, "/v1/activities/m1/devices")
    assert gone["retired_at"]
    assert gone["retired_reason"]
    assert (await both.http.get("/v1/activities/none/devices")).status_code == 404


async def test_a_stream_of_other_groups_is_not_there(live: Live) -> None:
    await filled(live, 1)
    await told(live)
    for group, status in (("ops", 200), ("press", 404)):
        async with live.caller(await live.make_key(groups=[group])) as caller:
            assert (await caller.get("/v1/streams/nightly")).status_code == status
            assert (await caller.get("/v1/streams")).status_code == 403
    await live.http.post("/v1/streams/nightly/pause")
    async with live.caller(await live.make_key(groups=["press"])) as caller:
        assert (await caller.get("/v1/streams/nightly")).status_code == 404


REFUSED: list[tuple[str, dict[str, str]]] = [
    ("/v1/devices", {"user": "u", "language": "de"}),
    ("/v1/devices", {"language": "de", "after": "d-1"}),
    ("/v1/devices", {"language": "de", "after": "9" * 40}),
    ("/v1/devices", {"language": "de", "after": "٣"}),
    ("/v1/devices", {"language": "%"}),
    ("/v1/devices", {"country": "Germany"}),
    ("/v1/devices", {"user": "a\x00b"}),
    ("/v1/devices", {"after": "\x00"}),
    ("/v1/devices", {"after": "x" * 256}),
    ("/v1/devices", {"limit": "1001"}),
    ("/v1/devices", {"sort": "id"}),
    ("/v1/users", {"after": "\x00"}),
    ("/v1/groups", {"after": "\x00"}),
    ("/v1/groups/ops/users", {"after": "u-1"}),
]


async def test_what_cannot_be_asked_is_422(both: Live) -> None:
    await both.http.put("/v1/groups/ops")
    for path, query in REFUSED:
        answer = await both.http.get(path, params=query)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), (path, query)


async def test_what_is_not_there_is_404(both: Live) -> None:
    for path in (
        "/v1/devices?user=nobody",
        "/v1/devices/none/tokens",
        "/v1/devices/none",
        "/v1/users/nobody",
        "/v1/groups/none/users",
        "/v1/groups/none/people",
    ):
        assert (await both.http.get(path)).status_code == 404, path
