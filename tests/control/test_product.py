"""What makes the fake a product for any language: health, verify, consent, explain, typed faults."""

from __future__ import annotations

from typing import get_args

from apns_live.testing.faults import Action

from .conftest import GAME


async def test_it_says_that_it_is_well(stage):
    assert await stage.get("/v1/health") == {"status": "ok"}


async def test_exactly_so_many_pushes_or_the_closest(stage):
    token = "ab" * 80
    stage.push(token, "update", {"home": 1})
    stage.push(token, "update", {"home": 2})
    where = {"event": "update", "content_state": {"home": 1}}
    good = await stage.post("/v1/pushes/verify", {"where": where})
    assert (good["ok"], good["numbers"], good["closest"]) == (True, [1], None)
    many = await stage.post("/v1/pushes/verify", {"where": {"event": "update"}, "count": 1})
    assert (many["ok"], many["found"]) == (False, 2)
    assert "expected one push" in many["text"]
    where["content_state"] = {"home": 3}
    none = await stage.post("/v1/pushes/verify", {"where": where})
    assert (none["ok"], none["found"], none["closest"]) == (False, 0, 2)
    (difference,) = none["differences"]
    assert difference == {"field": "content_state", "expected": {"home": 3}, "found": {"home": 2}}
    assert (await stage.post("/v1/pushes/verify", {"where": where, "count": 0}))["ok"]
    after = await stage.post("/v1/pushes/verify", {"where": {"event": "update"}, "after": 1})
    assert after["numbers"] == [2]
    wrong = await stage.post("/v1/pushes/verify", {"where": {"evnt": 1}}, 400)
    assert wrong["field"] == "where"
    assert "event" in wrong["remedy"]


async def test_the_owner_answers(stage):
    phone = await stage.post(
        "/v1/devices", {"id": "shy", "attributes_types": [GAME], "consent": "none"}, 201
    )
    stage.push(phone["tokens"][1]["token"], "start")
    await stage.post("/v1/clock/advance", {"seconds": 60})
    (activity,) = (await stage.get("/v1/activities"))["items"]
    assert (activity["asks"], activity["token"]) == (True, None)
    phone = await stage.post("/v1/devices/shy/consent", {"answer": "always"})
    assert phone["consent"] == "always"
    await stage.post("/v1/clock/advance", {"seconds": 5})
    (activity,) = (await stage.get("/v1/activities"))["items"]
    assert activity["token"]
    assert await stage.post("/v1/devices/shy/consent", {"answer": "yes"}, 400)


async def test_an_ignored_push_leads_to_its_explanation(stage):
    stage.push("ab" * 80, "update", {"n": 1}, timestamp=5_000_000_000)
    (push,) = (await stage.get("/v1/pushes", state="discarded"))["items"]
    assert (push["why"], push["explain"]) == ("future timestamp", "future timestamp")
    found = await stage.get(f"/v1/explain/{push['explain']}")
    assert "milliseconds" in found["remedy"]
    await stage.get("/v1/explain/gargle", 404)


async def test_widgets_and_a_quiet_rotation(stage):
    order = {
        "os_version": "26.0",
        "widgets": True,
        "controls": ["Lamp"],
        "attributes_types": [GAME],
    }
    phone = await stage.post("/v1/devices", order, 201)
    assert {token["kind"] for token in phone["tokens"]} == {
        "device", "start", "widgets", "controls",
    }  # fmt: skip
    start = next(each["token"] for each in phone["tokens"] if each["kind"] == "start")
    new = await stage.post(f"/v1/tokens/{start}/rotate", {"quietly": True})
    assert new["told"] is False
    path = f"/v1/devices/{phone['id']}/open-app"
    phone = await stage.post(path, {"reads_tokens": False})
    assert not all(token["told"] for token in phone["tokens"])
    phone = await stage.post(path)
    assert all(token["told"] for token in phone["tokens"])


async def test_faults_and_scenarios_are_typed(stage):
    schemas = (await stage.get("/v1/openapi.json"))["components"]["schemas"]
    fault = schemas["Fault"]
    assert set(fault["properties"]["action"]["enum"]) == set(get_args(Action))
    assert fault["required"] == ["action"]
    assert {"type": "string"} in fault["properties"]["after"]["anyOf"]
    scenario = schemas["ScenarioFile"]["properties"]
    assert scenario["fault"]["items"] == {"$ref": "#/components/schemas/Fault"}
    assert "consent" in schemas["PhoneSettings"]["properties"]
    made = await stage.post("/v1/faults", {"action": "delay", "delay": "40ms"}, 201)
    assert made["delay"] == 0.04
    for wrong in (
        {"action": "explode"},
        {"action": "delay", "delay": []},
        {"action": "answer", "status": "x"},
    ):
        assert await stage.post("/v1/faults", wrong, 400)
