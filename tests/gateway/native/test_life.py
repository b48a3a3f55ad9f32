"""From a call to what phones show, over real HTTP, on both databases."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from .conftest import ALERT, TYPE, Live


async def test_an_activity_from_start_to_end(both: Live) -> None:
    await both.add_phones(3)
    started = await both.start()
    assert started["status"] == "accepted"
    assert started["version"] == 1
    await both.shows("active", {"home": 0})
    await both.hand_in()
    updated = await both.http.post("/v1/activities/m1/update", json={"content_state": {"home": 1}})
    assert updated.status_code == 202
    assert updated.json()["devices"] == 3
    await both.shows("active", {"home": 1})
    ended = await both.http.post(
        "/v1/activities/m1/end", json={"content_state": {"home": 2}, "dismiss_after": 600}
    )
    assert ended.status_code == 202
    await both.shows("ended", {"home": 2})
    await both.service.settled()

    shown = (await both.http.get("/v1/activities/m1")).json()
    assert shown["status"] == "ended"
    assert shown["version"] == 3
    assert shown["ended_at"].endswith("Z")
    history = (await both.http.get("/v1/activities/m1/history")).json()
    assert [one["kind"] for one in history["items"]] == ["start", "update", "end"]
    assert history["next"] is None
    assert [one["accepted"] for one in history["items"]] == [3, 3, 3]

    again = await both.http.post("/v1/activities/m1/end")
    assert again.json()["status"] == "ignored"
    late = await both.http.post("/v1/activities/m1/update", json={"content_state": {}})
    assert late.status_code == 409
    assert late.json()["code"] == "activity_ended"


async def test_outcomes_in_pages_and_as_lines(live: Live) -> None:
    await live.add_phones(3)
    started = await live.start()
    await live.service.settled()
    path = f"/v1/operations/{started['operation']}"
    operation = (await live.http.get(path)).json()
    assert (operation["kind"], operation["status"], operation["accepted"]) == ("start", "done", 3)
    first = (await live.http.get(f"{path}/outcomes", params={"limit": 2})).json()
    assert [one["verdict"] for one in first["items"]] == ["accepted", "accepted"]
    rest = (await live.http.get(f"{path}/outcomes", params={"after": first["next"]})).json()
    assert len(rest["items"]) == 1
    assert rest["next"] is None
    lines = await live.http.get(f"{path}/outcomes.jsonl")
    assert lines.headers["content-type"] == "application/x-ndjson"
    outcomes = [json.loads(line) for line in lines.text.splitlines()]
    assert outcomes == first["items"] + rest["items"]
    pushed = {push.apns_id for push in live.fake.recorder.pushes}
    assert {one["apns_id"] for one in outcomes} <= pushed


async def test_a_stream_from_put_to_delete(both: Live) -> None:
    await both.add_phones(2)
    await both.http.put("/v1/groups/ops")
    for number in (1, 2):
        answer = await both.http.put(f"/v1/groups/ops/users/user-{number}")
        assert answer.status_code == 204, answer.text
    body: dict[str, Any] = {
        "attributes_type": TYPE,
        "content_state": {"done": 1},
        "alert": ALERT,
        "audience": {"groups": ["ops"]},
    }
    put = await both.http.put("/v1/streams/backup", json=body)
    assert put.json()["result"] == "started"
    await both.shows("active", {"done": 1})
    await both.hand_in()
    same = await both.http.put("/v1/streams/backup", json={**body, "content_state": {"done": 1.0}})
    assert same.json()["result"] == "noop"
    other = await both.http.put("/v1/streams/backup", json={**body, "content_state": {"done": 2}})
    assert other.json()["result"] == "updated"
    await both.shows("active", {"done": 2})
    paused = await both.http.post("/v1/streams/backup/pause")
    assert paused.json()["key"] == "backup"
    assert (await both.http.put("/v1/streams/backup", json=body)).json()["result"] == "paused"
    await both.until(lambda: all(phone.activities[-1].state != "active" for phone in both.phones))
    assert (await both.http.post("/v1/streams/backup/resume")).status_code == 204
    assert (await both.http.put("/v1/streams/backup", json=body)).json()["result"] == "started"
    ended = await both.http.request("DELETE", "/v1/streams/backup")
    assert ended.json()["result"] == "ended"
    gone = await both.http.request("DELETE", "/v1/streams/backup")
    assert gone.status_code == 404


async def test_many_writes_in_one_call(live: Live) -> None:
    await live.add_phones(1)
    start = {
        "do": "start",
        "attributes_type": TYPE,
        "content_state": {"n": 0},
        "alert": ALERT,
        "audience": {"everyone": True},
    }
    begun = await live.http.post(
        "/v1/activities/bulk", json={"items": [{**start, "id": f"b{n}"} for n in range(20)]}
    )
    assert begun.json()["accepted"] == 20
    changes = [
        {"do": "update", "id": "b1", "content_state": {"n": 1}},
        {"do": "update", "id": "nope", "content_state": {"n": 1}},
        {"do": "end", "id": "b2"},
        {**start, "id": "b3"},
    ]
    done = (await live.http.post("/v1/activities/bulk", json={"items": changes})).json()
    assert (done["accepted"], done["refused"]) == (2, 2)
    assert [item.get("problem", {}).get("code") for item in done["items"]] == [
        None,
        "not_found",
        None,
        "conflict",
    ]
    pages = []
    after = 0
    while after is not None:
        page = (await live.http.get("/v1/activities", params={"limit": 7, "after": after})).json()
        pages += [one["id"] for one in page["items"]]
        after = page["next"]
    assert sorted(pages) == sorted(f"b{n}" for n in range(20))


@pytest.mark.parametrize("quoted", [False, True])
async def test_the_same_key_twice_is_done_once(live: Live, quoted: bool) -> None:
    await live.start()
    body = {"content_state": {"home": 1}}
    first = await live.http.post(
        "/v1/activities/m1/update", json=body, headers={"idempotency-key": "k1"}
    )
    assert "idempotent-replayed" not in first.headers
    key = '"k1"' if quoted else "k1"
    again = await live.http.post(
        "/v1/activities/m1/update", json=body, headers={"idempotency-key": key}
    )
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = await live.http.post(
        "/v1/activities/m1/update",
        json={"content_state": {"home": 2}},
        headers={"idempotency-key": key},
    )
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"
    assert (await live.http.get("/v1/activities/m1")).json()["version"] == 2


async def test_the_same_key_at_the_same_moment_is_done_once(both: Live) -> None:
    await both.start()
    starts = {
        "attributes_type": TYPE,
        "content_state": {},
        "alert": ALERT,
        "audience": {"everyone": True},
    }
    calls: list[tuple[str, dict[str, Any], str]] = []
    calls += [("/v1/activities/m1/update", {"content_state": {"n": 1}}, "u")] * 16
    calls += [("/v1/activities", starts, "s")] * 16
    answers = await asyncio.gather(
        *(
            both.http.post(path, json=body, headers={"idempotency-key": key})
            for path, body, key in calls
        )
    )
    assert {answer.status_code for answer in answers} == {202}
    for some in (answers[:16], answers[16:]):
        assert len({answer.text for answer in some}) == 1
        assert sum("idempotent-replayed" in answer.headers for answer in some) == 15
    assert len((await both.http.get("/v1/activities")).json()["items"]) == 2


async def test_older_revisions_are_dropped(live: Live) -> None:
    await live.start(revision=5)
    for revision, status in (
        (7, "accepted"),
        (6, "superseded"),
        (7, "superseded"),
        (8, "accepted"),
    ):
        answer = await live.http.post(
            "/v1/activities/m1/update",
            json={"content_state": {"r": revision}, "revision": revision},
        )
        assert answer.json()["status"] == status
    assert (await live.http.get("/v1/activities/m1")).json()["content_state"] == {"r": 8}


async def test_updates_that_share_a_commit_keep_their_order_and_errors(both: Live) -> None:
    await both.start("a1")
    await both.start("a2")
    await both.http.post("/v1/activities/a2/end")
    answers = await asyncio.gather(
        *(
            both.http.post(f"/v1/activities/{name}/update", json={"content_state": {"n": n}})
            for n in range(20)
            for name in ("a1", "a2", "a3")
        )
    )
    by_status = [answer.status_code for answer in answers]
    assert by_status.count(202) == by_status.count(409) == by_status.count(404) == 20
    versions = sorted(a.json()["version"] for a in answers if a.status_code == 202)
    assert versions == list(range(2, 22))
    shown = (await both.http.get("/v1/activities/a1")).json()
    newest = next(a for a in answers if a.status_code == 202 and a.json()["version"] == 21)
    sent = json.loads(newest.request.content)["content_state"]
    assert shown["content_state"] == sent


async def test_scheduled_and_dated(live: Live) -> None:
    scheduled = await live.start("later", start_at=4_000_000_000)
    assert scheduled["status"] == "scheduled"
    dated = await live.start("dated", start_at="2096-10-02T07:06:40+00:00")
    assert dated["status"] == "scheduled"
    shown = (await live.http.get("/v1/activities/dated")).json()
    assert shown["start_at"] == "2096-10-02T07:06:40.000Z"
    updated = await live.http.post("/v1/activities/later/update", json={"content_state": {"n": 1}})
    assert updated.status_code == 202
    ended = await live.http.post("/v1/activities/later/end")
    assert ended.json()["status"] == "accepted"


async def test_notifications_reach_device_tokens(live: Live) -> None:
    [phone] = await live.add_phones(1)
    token = phone.token_of("device", None)
    await live.http.post(
        "/v1/tokens", json={"tokens": [{"device": phone.id, "kind": "device", "token": token.text}]}
    )
    sent = await live.http.post(
        "/v1/notifications",
        json={"audience": {"users": ["user-1"]}, "title": "News", "body": "It is out"},
    )
    assert sent.status_code == 202, sent.text
    await live.until(lambda: bool(phone.notifications))


async def test_http2_is_spoken(live: Live) -> None:
    async with httpx.AsyncClient(
        http1=False, http2=True, base_url=live.url, headers={"authorization": f"Bearer {live.key}"}
    ) as client:
        answer = await client.get("/v1/apps")
    assert answer.http_version == "HTTP/2"
    assert answer.json()["items"][0]["id"] == "a"


async def test_an_activity_may_follow_a_channel(both: Live) -> None:
    made = await both.http.post("/v1/channels", json={"name": "match"})
    assert made.status_code == 201, made.text
    channel = made.json()["id"]
    for phone in await both.add_phones(3):
        told = {"os_version": "18.3"}
        assert (await both.http.put(f"/v1/devices/{phone.id}", json=told)).status_code == 204
    await both.start(channel=channel)
    await both.shows("active", {"home": 0})
    assert (await both.http.get("/v1/activities/m1")).json()["by_channel"] == 3
    updated = await both.http.post("/v1/activities/m1/update", json={"content_state": {"home": 1}})
    assert updated.status_code == 202
    await both.shows("active", {"home": 1})
    assert len([push for push in both.fake.recorder.pushes if push.channel_id]) == 1
    listed = (await both.http.get("/v1/channels")).json()["items"]
    assert [one["id"] for one in listed] == [channel]
    path = f"/v1/channels/{quote(channel, safe='')}"
    assert (await both.http.get(path)).json()["name"] == "match"
    assert (await both.http.post("/v1/channels/compare")).json()["channels"] == 1
    assert (await both.http.delete(path)).status_code == 204
    assert (await both.http.get("/v1/channels")).json()["items"] == []
    async with both.caller(both.other_key) as other:
        refused = await other.post("/v1/channels")
        assert refused.status_code == 409  # no provider key
        assert "provider key" in refused.json()["detail"]


async def test_a_quiet_start_has_priority_5_and_no_update_changes_a_start(both: Live) -> None:
    """What a start says of its urgency is its own, whatever updates said before or since."""
    await both.add_phones(2)
    for name, urgency, priority in (
        ("usual", None, 10),
        ("urgent", "urgent", 10),
        ("quiet", "quiet", 5),
    ):
        await both.start(name, urgency=urgency)
        await both.service.settled()
        assert [push.priority for push in list(both.fake.pushes)[-2:]] == [priority] * 2
    # An update that is quiet goes ahead of the moment of a start that is not, and the other way.
    for name, first, then, priority in (("l1", None, "quiet", 10), ("l2", "quiet", "urgent", 5)):
        sent = len(both.fake.pushes)
        await both.start(name, urgency=first, start_at=both.service.clock.time() + 1)
        update = {"content_state": {"n": 1}, "urgency": then}
        assert (
            await both.http.post(f"/v1/activities/{name}/update", json=update)
        ).status_code == 202
        await both.until(lambda sent=sent: len(both.fake.pushes) >= sent + 2)
        assert [push.priority for push in list(both.fake.pushes)[-2:]] == [priority] * 2
    outcomes = await both.http.get("/v1/activities/quiet/history")
    operation = outcomes.json()["items"][0]["id"]
    found = (await both.http.get(f"/v1/operations/{operation}/outcomes")).json()["items"]
    assert [one["priority"] for one in found] == [5, 5]


async def test_a_state_that_the_app_does_not_decode_is_refused(live: Live) -> None:
    """Held to every version of the app in use; the field is the path of Swift's own error."""
    source = "struct Match: ActivityAttributes { struct ContentState: Codable { var home: Int } }"
    newer = source.replace("home: Int", "home: Int; var away: Int?")
    contract = {"versions": {"1.0": {"Match.swift": source}, "2.0": {"Match.swift": newer}}}

    async def configure(value: Any) -> Any:
        return await live.http.patch("/v1/apps/a", json={"settings": {"contract": value}})

    for bad, field in [
        ({}, "settings.contract"),
        (contract | {"mode": "strict"}, "settings.contract.mode"),
        ({"versions": {"1.0": {"A.swift": "struct A {}"}}}, "settings.contract.versions.1.0"),
        ({"versions": {"1.0": "struct A {}"}}, "settings.contract.versions.1.0"),
    ]:
        answer = await configure(bad)
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert (await configure(contract)).status_code == 200
    await live.start()
    path = "/v1/activities/m1/update"
    for state, field, said in [
        ({"home": "1"}, "content_state.home", "typeMismatch"),
        ({}, "content_state.home", "keyNotFound"),
        ({"home": 1, "away": []}, "content_state.away", "version 2.0"),
        ({"home": 74.59}, "content_state", "dataCorrupted"),
    ]:
        answer = await live.http.post(path, json={"content_state": state})
        assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
        assert said in answer.text
    assert (await live.http.post(path, json={"content_state": {"home": 2}})).status_code == 202
    assert (await configure(None)).status_code == 200
    answer = await live.http.post(path, json={"content_state": {"home": "3"}})
    assert answer.status_code == 202
