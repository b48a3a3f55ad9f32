"""Doctor and explain over HTTP: the same findings and words as the command line's."""

from __future__ import annotations

import json

import pytest

from apns_live.activities.store.schema import activities, activity_devices, outcomes, start_tokens
from apns_live.cli import run
from tests.activities.plans import every_query_indexed

from .conftest import TYPE, Live


async def test_a_device_says_what_keeps_it_from_showing_anything(live: Live) -> None:
    old = {"id": "d-0", "os_version": "17.0"}
    facts = {"id": "d-1", "os_version": "17.2", "push_enabled": False}
    await live.http.post("/v1/devices", json={"devices": [old, facts]})
    async with every_query_indexed(live.service.database, small={"apps"}):
        answer = await live.http.get("/v1/devices/d-1/doctor")
    assert answer.status_code == 200
    assert answer.json()["ok"] is False
    findings = {each["check"]: each for each in answer.json()["findings"]}
    assert findings["ios version"]["state"] == "warn"
    assert findings["switches"]["state"] == findings["start token"]["state"] == "fail"
    assert all(findings[name]["remedy"] for name in ("switches", "start token"))
    # One that cannot have a start token lacks none.
    answer = await live.http.get("/v1/devices/d-0/doctor")
    [fault] = [each for each in answer.json()["findings"] if each["state"] == "fail"]
    assert (fault["check"], fault["said"]) == ("ios version", "iOS 17.0 has no push-to-start")
    assert fault["remedy"]
    assert findings["device"] == {
        "check": "device",
        "state": "ok",
        "said": "0 outcomes read, no receipt ever came",
        "remedy": "",
    }


async def test_a_device_says_what_apns_answered(live: Live) -> None:
    await live.http.post("/v1/devices", json={"devices": [{"id": "d-0"}, {"id": "d-1"}]})
    refused = {"verdict": "drop_token", "status": 410, "reason": "Unregistered", "apns_id": "x"}
    row = {"app_id": 1, "operation_id": 1, "priority": 10, "created_at": 1, **refused}
    await live.service.database.change(outcomes.insert(), [{**row, "device_id": 1}])
    for device, count in (("d-0", 1), ("d-1", 0)):
        findings = (await live.http.get(f"/v1/devices/{device}/doctor")).json()["findings"]
        said = [each["said"] for each in findings if each["check"] == "outcome"]
        assert [one.partition(": ")[2] for one in said] == ["410 Unregistered"] * count
        assert f"{count} outcomes read" in findings[-1]["said"]


async def test_a_card_without_token_is_named(live: Live) -> None:
    await live.http.post("/v1/devices", json={"devices": [{"id": "d-1"}]})
    token = {"kind": "activity", "activity": "m1", "attributes_type": TYPE, "token": "ab" * 32}
    await live.http.post("/v1/tokens", json={"tokens": [{"device": "d-1", **token}]})
    await live.service.database.change(activity_devices.update().values(token=None))
    findings = (await live.http.get("/v1/devices/d-1/doctor")).json()["findings"]
    assert [each["said"].split()[0] for each in findings if each["check"] == "token"] == ["m1"]
    # One that follows a channel needs no token.
    await live.service.database.change(activity_devices.update().values(by_channel=True))
    findings = (await live.http.get("/v1/devices/d-1/doctor")).json()["findings"]
    assert [each for each in findings if each["check"] == "token"] == []


async def test_a_suspect_start_token_is_shown_wherever_the_device_is(live: Live) -> None:
    token = {"kind": "start", "attributes_type": TYPE, "token": "ab" * 32}
    await live.http.post("/v1/tokens", json={"tokens": [{"device": "d-1", **token}]})
    for unanswered, suspect in ((1, False), (2, True)):
        marked = start_tokens.update().values(unanswered=unanswered, suspect_at=1)
        await live.service.database.change(marked)
        [own] = (await live.http.get("/v1/devices/d-1")).json()["start_tokens"]
        assert (own["unanswered_starts"], own["suspect"]) == (unanswered, suspect)
        [listed] = (await live.http.get("/v1/devices/d-1/tokens")).json()["items"]
        assert listed["suspect"] is suspect
        found = (await live.http.get("/v1/devices/d-1/doctor")).json()
        said = [one["said"] for one in found["findings"] if "is suspect" in one["said"]]
        assert (found["ok"], len(said)) == (not suspect, int(suspect))


SWIFT = """
struct Match: ActivityAttributes {
    struct ContentState: Codable, Hashable { var home: Int }
}
"""


async def test_a_state_that_the_devices_version_of_the_app_does_not_decode_is_named(
    live: Live,
) -> None:
    versions = {
        "1.0": {"Match.swift": SWIFT},
        "2.0": {"Match.swift": SWIFT.replace("var home: Int", "var home: Int?")},
    }
    contract = {"mode": "warn", "versions": versions}
    await live.service.apps.configure(live.app, {"contract": contract})
    token = {"kind": "activity", "activity": "m1", "attributes_type": TYPE}
    devices = [{"id": "d-1", "app_version": "1.0"}, {"id": "d-2", "app_version": "2.1"}]
    await live.http.post("/v1/devices", json={"devices": devices})
    tokens = [
        {"device": "d-1", "token": "ab" * 32, **token},
        {"device": "d-2", "token": "cd" * 32, **token},
    ]
    await live.http.post("/v1/tokens", json={"tokens": tokens})
    update = {"content_state": {"home": None}}
    assert (await live.http.post("/v1/activities/m1/update", json=update)).status_code == 202
    said = {}
    for device in ("d-1", "d-2"):
        findings = (await live.http.get(f"/v1/devices/{device}/doctor")).json()["findings"]
        said[device] = [each for each in findings if each["check"] == "contract"]
    [fault] = said["d-1"]
    assert fault["said"].startswith("m1: version 1.0 of the app does not decode the newest state: ")
    assert "home" in fault["said"]
    assert said["d-2"] == []


async def test_a_card_that_was_not_confirmed_or_whose_token_was_refused_is_named(
    live: Live,
) -> None:
    """Confirmations say something once the app sends any; APNs' own refusal always does."""
    database = live.service.database
    token = {"kind": "activity", "attributes_type": TYPE}
    tokens = [
        {"device": "d-1", "activity": name, "token": name * 32, **token} for name in ("a1", "b2")
    ]
    await live.http.post("/v1/tokens", json={"tokens": tokens})

    async def checks() -> dict[str, tuple[str, str]]:
        async with every_query_indexed(database, small={"apps"}):
            answer = await live.http.get("/v1/devices/d-1/doctor")
        cards = (each for each in answer.json()["findings"] if each["check"] in {"card", "token"})
        return {each["said"][:2]: (each["check"], each["state"]) for each in cards}

    assert await checks() == {}
    receipt = {"device": "d-1", "activity": "a1", "event": "received"}
    await live.http.post("/v1/receipts", json={"receipts": [receipt]})
    assert await checks() == {"a1": ("card", "ok"), "b2": ("card", "ok")}
    old = activities.c.updated_at - 600_000
    await database.change(activities.update().values(updated_at=old))
    await database.change(activity_devices.update().values(acknowledged_version=9))
    assert await checks() == {"a1": ("card", "ok"), "b2": ("card", "warn")}
    gone = {"retired_at": activity_devices.c.registered_at, "retired_reason": "Unregistered"}
    await database.change(activity_devices.update().values(gone))
    assert await checks() == {"a1": ("token", "fail"), "b2": ("token", "fail")}


async def test_a_device_of_nobody_or_of_another_app_is_not_found(live: Live) -> None:
    async with live.caller(live.other_key) as other:
        await other.post("/v1/devices", json={"devices": [{"id": "theirs"}]})
    for device in ("nobody", "theirs"):
        assert (await live.http.get(f"/v1/devices/{device}/doctor")).status_code == 404
    async with live.caller(await live.make_key("activities:read")) as reader:
        assert (await reader.get("/v1/devices/nobody/doctor")).status_code == 403


@pytest.mark.parametrize("word", ["BadDeviceToken", "two cards", "unknown"])
async def test_a_word_is_explained_as_on_the_command_line(
    live: Live, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", word, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    answer = await live.http.get("/v1/explain", params={"about": word})
    assert answer.json()["items"] == [said]


async def test_what_is_not_known_names_what_is_near(live: Live) -> None:
    answer = await live.http.get("/v1/explain", params={"about": "BadDeviceTokn"})
    assert answer.status_code == 422
    assert "about" in answer.text
    assert "Did you mean" in answer.text
    every = (await live.http.get("/v1/explain")).json()["items"]
    assert {"reason", "outcome", "phone", "symptom"} == {each["kind"] for each in every}
