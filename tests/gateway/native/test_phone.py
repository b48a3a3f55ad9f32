"""What a phone may do with a credential, and how long."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest

from apns_live.activities.apps import App, Apps
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import Sealer, new_key
from apns_live.errors import InvalidInput, NotAllowed
from apns_live.gateway.credentials import DeviceCredentials
from apns_live.testing.clock import SimulatedClock

from .conftest import TYPE, Live


class Room:
    def __init__(self, database: Database, sealer: Sealer) -> None:
        self.database = database
        self.clock = SimulatedClock()
        self.sealer = sealer
        self.credentials = DeviceCredentials(database, self.clock, sealer)
        self.app: App


@pytest.fixture
async def room(store_address: str) -> Any:
    async with Database.open(store_address) as database:
        room = Room(database, Sealer(new_key()))
        apps = Apps(database, room.sealer, room.clock, lambda: "x")
        room.app = await apps.create(name="A", bundle_id="com.example.a", id="a")
        yield room


def forged(credential: str, **changes: Any) -> str:
    head, payload, mac = credential.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    text = json.dumps({**claims, **changes}).encode()
    return f"{head}.{base64.urlsafe_b64encode(text).rstrip(b'=').decode()}.{mac}"


async def test_a_credential_is_for_one_device_and_a_while(room: Room) -> None:
    credential, ends = await room.credentials.mint(room.app, "p1", seconds=600)
    phone = await room.credentials.check(credential)
    assert phone is not None
    assert (phone.device, phone.app) == ("p1", room.app)
    assert ends == int(room.clock.time() + 600)
    bad = [
        "",
        "x.y.z",
        credential[:-1],
        credential + "A",
        credential.replace(".", "", 1),
        forged(credential, device="p2"),
        forged(credential, app="b"),
        forged(credential, expires_at=ends + 1),
        forged(credential, activities=None),
        credential.replace("apnsdev1", "apnsdev2"),
        "apnsdev1." + "A" * 5_000 + ".A",
    ]
    for other in bad:
        assert await room.credentials.check(other) is None, other
    await room.clock.advance(601)
    with pytest.raises(NotAllowed, match="has ended"):
        await room.credentials.check(credential)
    assert await room.credentials.check(credential[:-2]) is None


async def test_revoking_ends_them_here_and_soon_elsewhere(room: Room) -> None:
    elsewhere = DeviceCredentials(room.database, room.clock, room.sealer)
    stranger = DeviceCredentials(room.database, room.clock, Sealer(new_key()))
    first, _ = await room.credentials.mint(room.app, "p1", seconds=600)
    other, _ = await room.credentials.mint(room.app, "p2", seconds=600)
    assert await elsewhere.check(first) is not None
    assert await stranger.check(first) is None  # another installation's store key
    assert await room.credentials.revoke(room.app, "p1")
    assert not await room.credentials.revoke(room.app, "p1")
    assert await room.credentials.check(first) is None
    assert await room.credentials.check(other) is not None
    await room.clock.advance(6)
    assert await elsewhere.check(first) is None
    again, _ = await room.credentials.mint(room.app, "p1", seconds=600)
    assert await room.credentials.check(again) is not None
    assert await room.credentials.check(first) is None


@pytest.mark.parametrize("seconds", [0, -1, 700_000, float("inf")])
async def test_no_credential_for_ever(room: Room, seconds: float) -> None:
    with pytest.raises(InvalidInput):
        await room.credentials.mint(room.app, "p1", seconds=seconds)


# Over HTTP.


async def phone_of(live: Live, device: str, **body: Any) -> httpx.AsyncClient:
    minted = await live.http.post(f"/v1/devices/{device}/credentials", json=body)
    assert minted.status_code == 201, minted.text
    assert minted.json()["expires_at"].endswith("Z")
    return live.caller(minted.json()["credential"])


async def test_a_phone_tells_registers_reports_and_goes(both: Live) -> None:
    device = both.fake.devices.add_device(
        "phone-1", bundle_id="com.example.scores", attributes_types=[TYPE]
    )
    both.phones.append(device)
    async with await phone_of(both, "phone-1", user="user-1") as phone:
        told = {"language": "de", "country": "AT", "app_version": "4.2", "frequent_updates": True}
        assert (await phone.put("/v1/device", json=told)).status_code == 204
        token = {
            "kind": "start",
            "attributes_type": TYPE,
            "token": device.token_of("start", TYPE).text,
        }
        assert (await phone.post("/v1/device/tokens", json={"tokens": [token]})).status_code == 200
        own = (await phone.get("/v1/device")).json()
        assert told.items() <= own.items()
        assert own["user"] == "user-1"
        assert [one["attributes_type"] for one in own["start_tokens"]] == [TYPE]

        await both.start(audience={"users": ["user-1"]})
        await both.shows("active", {"home": 0})
        await both.hand_in()
        state = (await phone.get("/v1/device/activities/m1")).json()
        assert state["content_state"] == {"home": 0}

        receipts = {"receipts": [{"event": "received", "activity": "m1"}]}
        assert (await phone.post("/v1/device/receipts", json=receipts)).json() == {"count": 1}
        listed = (await both.http.get("/v1/receipts", params={"activity": "m1"})).json()
        assert [one["event"] for one in listed["items"]] == ["received"]

        assert (await phone.delete("/v1/device/activities/m1")).status_code == 204
        left = await both.http.post("/v1/activities/m1/update", json={"content_state": {}})
        assert left.json()["devices"] == 0
        assert (await phone.delete(f"/v1/device/start-tokens/{TYPE}")).status_code == 204
        assert (await phone.get("/v1/device")).json()["start_tokens"] == []
        assert (await phone.delete("/v1/device")).status_code == 204
        assert (await phone.get("/v1/device")).status_code == 401
    assert (await both.http.get("/v1/devices/phone-1")).status_code == 404


async def test_a_phone_speaks_for_itself_only(live: Live) -> None:
    await live.add_phones(2)
    await live.start(audience={"users": ["user-2"]})
    await live.service.settled()
    token = {"kind": "device", "token": "ab" * 32}
    async with await phone_of(live, "phone-1") as phone:
        for body in (
            {"tokens": [{**token, "device": "phone-2"}]},
            {"tokens": [token], "device": "x"},
        ):
            assert (await phone.post("/v1/device/tokens", json=body)).status_code == 422
        assert (await phone.put("/v1/device", json={"user": "user-2"})).status_code == 422
        receipt = {"event": "clicked", "activity": "m1", "device": "phone-2"}
        refused = await phone.post("/v1/device/receipts", json={"receipts": [receipt]})
        assert refused.status_code == 422
        # Not followed by this phone: its state is nobody else's business.
        assert (await phone.get("/v1/device/activities/m1")).status_code == 404
        for method, path in (
            ("GET", "/v1/devices/phone-2"),
            ("GET", "/v1/activities"),
            ("POST", "/v1/activities/m1/end"),
            ("POST", "/v1/devices/phone-1/credentials"),
        ):
            answer = await phone.request(method, path)
            assert answer.status_code == 401, path


async def test_a_credential_may_be_narrowed_to_activities(live: Live) -> None:
    token = {"kind": "activity", "attributes_type": TYPE, "token": "ab" * 32, "card": "card-1"}
    async with await phone_of(live, "p", activities=["m1"]) as phone:
        for activity, status in (("m1", 200), ("m2", 403)):
            body = {"tokens": [{**token, "activity": activity}]}
            assert (await phone.post("/v1/device/tokens", json=body)).status_code == status
            body = {"receipts": [{"event": "clicked", "activity": activity}]}
            assert (await phone.post("/v1/device/receipts", json=body)).status_code == status
        assert (await phone.get("/v1/device/activities/m2")).status_code == 403
        # Another card of the activity is gone.
        for card, left in (("card-0", 1), ("card-1", 0)):
            body = {"receipts": [{"event": "ended", "activity": "m1", "card": card}]}
            assert (await phone.post("/v1/device/receipts", json=body)).status_code == 200
            assert (await live.http.get("/v1/activities/m1")).json()["devices"] == left


async def test_a_late_joiner_gets_the_newest_state(live: Live) -> None:
    [phone] = await live.add_phones(1)
    devices = live.fake.devices
    devices.start_activity(phone, TYPE, {"activityId": "own"}, {"n": 0})
    await live.hand_in()
    shown = (await live.http.get("/v1/activities/own")).json()
    assert (shown["status"], shown["attributes_type"]) == ("active", TYPE)
    updated = await live.http.post("/v1/activities/own/update", json={"content_state": {"n": 5}})
    assert updated.json()["devices"] == 1
    await live.shows("active", {"n": 5})


async def test_revoking_a_phone(live: Live) -> None:
    async with await phone_of(live, "p") as phone:
        assert (await phone.put("/v1/device", json={})).status_code == 204
        assert (await live.http.delete("/v1/devices/p/credentials")).status_code == 204
        assert (await phone.put("/v1/device", json={})).status_code == 401


async def test_an_old_registration_does_not_replace_a_newer_one(live: Live) -> None:
    async with await phone_of(live, "p") as phone:

        async def hand_in(token: str, at: int) -> None:
            one = {"kind": "start", "attributes_type": TYPE, "token": token, "registered_at": at}
            answer = await phone.post("/v1/device/tokens", json={"tokens": [one]})
            assert answer.status_code == 200

        await asyncio.gather(*(hand_in(f"{n:08x}", 1_700_000_000 + n) for n in (3, 1, 9, 2)))
        [token] = (await phone.get("/v1/device")).json()["start_tokens"]
        assert token["token"].startswith("00000009")
