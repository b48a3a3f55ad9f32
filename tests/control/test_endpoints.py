import asyncio
import json

import pytest

from .conftest import GAME


async def started(stage):
    phone = await stage.post(
        "/v1/devices", {"id": "phone-1", "attributes_types": [GAME]}, status=201
    )
    token = next(each["token"] for each in phone["tokens"] if each["kind"] == "start")
    stage.push(token, "start", {"score": 0})
    await stage.post("/v1/clock/advance", {"seconds": 5})
    return (await stage.get("/v1/activities"))["items"][0]


async def test_it_says_what_runs_here(stage):
    found = await stage.get("/v1/fake")
    assert found["endpoint"] == stage.fake.url
    assert found["bundle_id"] == "com.example.scores"
    assert found["clock"]["simulated"] is True
    assert found["counts"]["delivered from storage"] == 0


async def test_a_phone_its_tokens_and_an_activity(stage):
    activity = await started(stage)
    assert activity["content_state"] == {"score": 0}
    assert activity["state"] == "active"
    assert len(activity["token"]) == 160
    stage.push(activity["token"], "update", {"score": 1})
    phone = await stage.get("/v1/devices/phone-1")
    assert phone["activities"][0]["content_state"] == {"score": 1}
    assert phone["activities"][0]["budget"]["remaining"] == 228
    tokens = (await stage.get("/v1/tokens", kind="activity"))["items"]
    assert [each["token"] for each in tokens] == [activity["token"]]
    assert tokens[0]["activity"] == activity["id"]


async def test_pushes_with_verdict_and_log(stage):
    activity = await started(stage)
    stage.push(activity["token"], "update", {"n": 1})
    stage.push(activity["token"], "update", {"n": 2}, timestamp=5)
    found = (await stage.get("/v1/pushes", event="update"))["items"]
    assert [(each["state"], each["why"]) for each in found] == [
        ("delivered", ""),
        ("discarded", "older timestamp"),
    ]
    assert "payload" not in found[0]
    one = await stage.get(f"/v1/pushes/{found[0]['number']}")
    assert one["payload"]["aps"]["content-state"] == {"n": 1}
    assert [entry["state"] for entry in one["log"]] == ["received", "delivered"]
    log = (await stage.get("/v1/log", why="older timestamp"))["items"]
    assert [entry["push"] for entry in log] == [found[1]["number"]]
    newest = (await stage.get("/v1/pushes", newest=1, limit=1))["items"]
    assert newest[0]["number"] == found[1]["number"]
    assert (await stage.get("/v1/pushes", apns_id="id-2"))["items"][0]["number"] == 2


async def test_lists_have_pages(stage):
    for number in range(25):
        await stage.post("/v1/devices", {"id": f"p{number}"}, status=201)
    seen, after = [], 0
    while after is not None:
        page = await stage.get("/v1/devices", after=after, limit=10)
        seen += [each["id"] for each in page["items"]]
        after = page["next"]
    assert seen == [f"p{number}" for number in range(25)]
    seen, after = [], 0
    while after is not None:
        page = await stage.get("/v1/tokens", after=after, limit=7)
        seen += [each["token"] for each in page["items"]]
        after = page["next"]
    assert len(set(seen)) == 25


async def test_switches_and_storage(stage):
    activity = await started(stage)
    await stage.post("/v1/devices/phone-1", {"online": False}, method="PATCH")
    stage.push(activity["token"], "update", {"n": 1})
    phone = await stage.get("/v1/devices/phone-1")
    assert (phone["online"], phone["stored"]) == (False, 1)
    phone = await stage.post("/v1/devices/phone-1", {"online": True}, method="PATCH")
    assert phone["activities"][0]["content_state"] == {"n": 1}
    phone = await stage.post("/v1/devices/phone-1", {"offline_for": 60}, method="PATCH")
    assert phone["online"] is False
    await stage.post("/v1/clock/advance", {"seconds": 61})
    assert (await stage.get("/v1/devices/phone-1"))["online"] is True


async def test_what_users_and_apps_do(stage):
    activity = await started(stage)
    path = f"/v1/activities/{activity['id']}"
    rotated = await stage.post(f"{path}/rotate-token")
    assert rotated["token"] != activity["token"]
    assert (await stage.get(f"/v1/tokens/{activity['token']}"))["condition"] == "silent"
    assert (await stage.post(f"{path}/dismiss"))["state"] == "dismissed"
    await stage.post(f"{path}/rotate-token", status=409)
    own = await stage.post(
        "/v1/devices/phone-1/activities",
        {"attributes_type": GAME, "attributes": {}, "content_state": {"n": 0}},
        status=201,
    )
    ended = await stage.post(f"/v1/activities/{own['id']}/end", {"content_state": {"n": 9}})
    assert (ended["state"], ended["ended_by"]) == ("ended", "app")
    assert ended["content_state"] == {"n": 9}
    assert (await stage.post("/v1/devices/phone-1/open-app"))["id"] == "phone-1"


async def test_tokens_die_and_rotate(stage):
    activity = await started(stage)
    path = f"/v1/tokens/{activity['token']}"
    dead = await stage.post(f"{path}/kill", {"as": "unregistered"})
    assert dead["condition"] == "unregistered"
    await stage.post(f"{path}/kill", {"as": "cursed"}, status=400)
    await stage.post(f"{path}/kill", {"as": "expired", "since": 1e308}, status=400)
    phone = await stage.get("/v1/devices/phone-1")
    start = next(each for each in phone["tokens"] if each["kind"] == "start")
    new = await stage.post(f"/v1/tokens/{start['token']}/rotate")
    assert new["token"] != start["token"]
    await stage.post("/v1/devices/phone-1", method="DELETE", status=204)
    assert (await stage.get(f"/v1/tokens/{new['token']}"))["condition"] == "unregistered"
    await stage.get("/v1/devices/phone-1", status=404)


async def test_long_poll_for_the_next_push(stage):
    activity = await started(stage)
    waiting = asyncio.create_task(stage.get("/v1/pushes/next", event="update", timeout=20))
    await asyncio.sleep(0)
    while not stage.fake.log.listeners:
        await asyncio.sleep(0)
    stage.push(activity["token"], "end")
    stage.push(activity["token"], "update", {"n": 1})
    found = await waiting
    assert (found["event"], found["why"]) == ("update", "ended")
    assert found["payload"]["aps"]["content-state"] == {"n": 1}
    assert stage.fake.log.listeners == []


async def test_a_long_poll_that_nothing_answers(stage):
    assert await stage.get("/v1/pushes/next", status=204, timeout=0.01) is None
    assert await stage.get("/v1/tokens/next", status=204, timeout=0) is None


async def test_long_poll_for_the_next_token(stage):
    phone = await stage.post("/v1/devices", {"attributes_types": [GAME]}, status=201)
    start = next(each["token"] for each in phone["tokens"] if each["kind"] == "start")
    waiting = asyncio.create_task(stage.get("/v1/tokens/next", kind="activity", timeout=20))
    while not stage.fake.devices.registry.on_issue:
        await asyncio.sleep(0)
    stage.push(start, "start")
    await stage.fake.clock.advance(5)
    token = await waiting
    assert token["kind"] == "activity"
    assert (await stage.get("/v1/tokens/next", after=token["sequence"] - 1)) == token


async def test_faults_come_and_go(stage):
    made = await stage.post(
        "/v1/faults", {"action": "answer", "status": 503, "reason": "Shutdown"}, status=201
    )
    assert made["reason"] == "Shutdown"
    assert (await stage.get("/v1/faults"))["items"] == [made]
    await stage.post(f"/v1/faults/{made['id']}", method="DELETE", status=204)
    await stage.post(f"/v1/faults/{made['id']}", method="DELETE", status=404)
    await stage.post("/v1/faults", {"action": "explode"}, status=400)
    await stage.post("/v1/faults", {"action": "answer", "colour": "red"}, status=400)
    await stage.post("/v1/faults", {"action": "withhold", "self": 1}, status=400)
    await stage.post("/v1/faults", method="DELETE", status=204)


async def test_the_clock_moves_what_is_due(stage):
    activity = await started(stage)
    before = await stage.get("/v1/clock")
    after = await stage.post("/v1/clock/advance", {"seconds": 8 * 3600})
    assert after["now"] - before["now"] == 8 * 3600
    ended = await stage.get(f"/v1/activities/{activity['id']}")
    assert (ended["state"], ended["ended_by"]) == ("ended", "system")
    await stage.post("/v1/clock/advance", {"seconds": -1}, status=400)


async def test_reset_forgets_all_or_a_part(stage):
    await started(stage)
    await stage.post("/v1/reset", {"devices": False, "faults": False}, status=204)
    assert (await stage.get("/v1/pushes"))["items"] == []
    assert len((await stage.get("/v1/devices"))["items"]) == 1
    await stage.post("/v1/reset", status=204)
    counts = await stage.get("/v1/counts")
    assert (counts["devices"], counts["received"]) == (0, 0)


async def test_exports_are_json_lines(stage):
    await started(stage)
    for kind, lines in (("pushes", 1), ("log", 2), ("devices", 1)):
        answer = await stage.client.get(f"/v1/export/{kind}")
        rows = [json.loads(line) for line in answer.text.splitlines()]
        assert len(rows) == lines, kind
    await stage.get("/v1/export/secrets", status=404)


async def test_connections(stage):
    assert await stage.get("/v1/connections") == {"items": [], "next": None}
    await stage.post("/v1/connections/7/goaway", status=404)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/devices", '{"colour": 1}', 400),
        ("POST", "/v1/devices", '{"id": 7}', 400),
        ("POST", "/v1/devices", '{"id": ""}', 400),
        ("POST", "/v1/devices", '{"os_version": "new"}', 400),
        ("POST", "/v1/devices", "{", 400),
        ("POST", "/v1/devices", "[" * 20_000, 400),
        ("POST", "/v1/devices", '"\xff', 400),
        ("POST", "/v1/devices", "x" * 70_000, 413),
        ("POST", "/v1/clock/advance", "{}", 400),
        ("POST", "/v1/clock/advance", '{"seconds": 1e300}', 400),
        ("GET", "/v1/pushes?limit=0", None, 400),
        ("GET", "/v1/pushes?limit=many", None, 400),
        ("GET", "/v1/pushes?colour=red", None, 400),
        ("GET", "/v1/pushes/next?timeout=1e9", None, 400),
        ("GET", "/v1/pushes/next?timeout=nan", None, 400),
        ("GET", "/v1/pushes/abc", None, 404),
        ("GET", "/v1/pushes/1", None, 404),
        ("GET", "/v1/tokens/zz", None, 404),
        ("GET", "/v1/activities/none", None, 404),
        ("GET", "/v1/nothing", None, 404),
        ("PUT", "/v1/clock", "{}", 405),
        ("DELETE", "/v1/clock", None, 405),
    ],
)
async def test_requests_that_are_refused(stage, method, path, body, status):
    content = body.encode("latin-1") if body else None
    answer = await stage.client.request(
        method, path, content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "field", "remedy"}


async def test_the_openapi_document_names_every_endpoint(stage):
    document = await stage.get("/v1/openapi.json")
    assert document["openapi"] == "3.1.0"
    assert "/v1/pushes/next" in document["paths"]
    assert set(document["paths"]["/v1/faults"]) == {"get", "post", "delete"}
    names = document["components"]["schemas"]
    assert {"DeviceRow", "ActivityRow", "PushRow"} <= set(names)
    activity = await started(stage)
    assert set(names["ActivityRow"]["properties"]) == set(activity)


async def test_hostile_states_pass_as_data(stage):
    hostile = {"text": "<script>alert(1)</script>\u2028\n\ndata: x", "n": 2**63}
    activity = await started(stage)
    stage.push(activity["token"], "update", hostile)
    found = await stage.get(f"/v1/activities/{activity['id']}")
    assert found["content_state"]["text"] == hostile["text"]
    for body in (
        b'{"aps":{"event":"update","timestamp":1e400,"content-state":{"n":1e999}}}',
        b'{"aps":{"event":"update","timestamp":1900000000,"content-state":{"a":"\\ud800"}}}',
        b'{"aps":{"event":"update","timestamp":1900000001,"content-state":{"a":"\xff"}}}',
        b"\xff\xfe",
    ):
        stage.push(activity["token"], body=body)
        await stage.get("/v1/devices")
        await stage.get("/v1/pushes", payload=1)
