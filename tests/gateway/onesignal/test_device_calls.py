"""What phones call without a key: off, signed, open."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from apns_live.activities import TokenRecord
from apns_live.activities.store import schema
from apns_live.gateway import GatewaySettings
from tests.gateway.braze.world import TYPE, VendorWorld
from tests.gateway.onesignal.caller import ACTIVITY, Caller

START_TOKEN = "a1" * 40
OTHER = "b2" * 40


async def set_mode(world: VendorWorld, mode: str) -> None:
    await world.service.apps.configure(world.app, {"onesignal_device_calls": mode})


class Phone:
    """An app with OneSignal's SDK."""

    def __init__(self, world: VendorWorld, name: str = "phone", **headers: str) -> None:
        self.world = world
        self.name = name
        self.headers = headers
        self.app_id = "scores"

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        return await self.world.http.request(method, path, json=body, headers=self.headers)

    async def one(self, name: str, token: str = START_TOKEN) -> Any:
        """Make one call, by the name that `calls` gives it."""
        return await self.makers(token)[name]()

    async def calls(self, token: str = START_TOKEN) -> dict[str, Any]:
        """Make every call that there is, once."""
        return {name: await make() for name, make in self.makers(token).items()}

    def makers(self, token: str) -> dict[str, Any]:
        start = f"/apps/{self.app_id}/activities/tokens/start/{TYPE}/subscriptions/{self.name}"
        live = f"/apps/{self.app_id}/live_activities/{ACTIVITY}/token"
        token_body = {"push_token": token, "subscription_id": self.name, "device_type": 0}
        receipt = {
            "app_id": self.app_id,
            "player_id": self.name,
            "device_type": 0,
            "live_activity_id": ACTIVITY,
            "live_activity_type": TYPE,
        }
        start_body = {"activity_token": token, "device_type": 0}
        received = "/notifications/n-1/report_received"
        return {
            "start token": lambda: self.call("PUT", start, start_body),
            "enter": lambda: self.call("POST", live, token_body),
            "received": lambda: self.call("PUT", received, receipt),
            "exit": lambda: self.call("DELETE", f"{live}/{self.name}"),
            "withdraw": lambda: self.call("DELETE", start),
        }


def statuses(answers: dict[str, Any]) -> dict[str, int]:
    return {name: answer.status_code for name, answer in answers.items()}


ALL_TAKEN = dict.fromkeys(("start token", "enter", "received", "exit", "withdraw"), 200)
ALL_REFUSED = dict.fromkeys(ALL_TAKEN, 403)


async def stored(world: VendorWorld) -> tuple[int, int, int]:
    return (
        await world.count(schema.start_tokens),
        await world.count(schema.activity_devices),
        await world.count(schema.receipts),
    )


async def credential(world: VendorWorld, device: str, **changes: Any) -> str:
    values: dict[str, Any] = {"seconds": 600.0, **changes}
    text, _ = await world.gateway.credentials.mint(world.app, device, **values)
    return text


@pytest.mark.parametrize("store_kind", ["sqlite", "postgresql"])
async def test_a_credential_that_is_minted_meanwhile_is_seen_by_the_write(
    world: VendorWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the write of an open call the device gets a credential of its own."""
    await set_mode(world, "open")
    earlier = world.now() - 60_000
    own = TokenRecord(device="phone", kind="start", scope=TYPE, token=OTHER, registered_at=earlier)
    await world.service.devices.register(world.app, [own])
    before = await stored(world)
    note = world.gateway.audit.note

    async def mint_first(*args: Any, **values: Any) -> None:
        await credential(world, "phone")
        await note(*args, **values)

    for name in ("start token", "enter", "withdraw"):
        async with world.service.database.write() as connection:
            await connection.execute(update(schema.devices).values(secret_hash=None))
        world.gateway.credentials.forget(world.app, "phone")
        with monkeypatch.context() as patched:
            patched.setattr(world.gateway.audit, "note", mint_first)
            answer = await Phone(world).one(name)
        assert answer.status_code == 403, name
        assert await stored(world) == before
    async with world.service.database.read() as connection:
        [token] = await connection.execute(select(schema.start_tokens))
    assert (token.token, token.retired_at) == (OTHER, None)


async def test_off_is_the_default(world: VendorWorld) -> None:
    answers = await Phone(world).calls()
    assert statuses(answers) == ALL_REFUSED
    for answer in answers.values():
        assert "onesignal_device_calls" in answer.json()["errors"][0]
    signed = await credential(world, "phone")
    answers = await Phone(world, authorization=f"Bearer {signed}").calls()
    assert statuses(answers) == ALL_REFUSED
    assert await stored(world) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["off", "signed", "open"])
async def test_a_server_may_speak_for_its_devices(world: VendorWorld, mode: str) -> None:
    await set_mode(world, mode)
    secret = await world.key("onesignal")
    for scheme in ("Key", "Bearer", "Basic", "key"):
        phone = Phone(world, authorization=f"{scheme} {secret}")
        assert statuses(await phone.calls()) == ALL_TAKEN
    narrow = await world.key("onesignal", scopes={"activities:start"})
    assert statuses(await Phone(world, authorization=f"Key {narrow}").calls()) == ALL_REFUSED
    await world.service.people.add_group(world.app, "demo")
    grouped = await world.key("onesignal", groups={"demo"})
    assert statuses(await Phone(world, authorization=f"Key {grouped}").calls()) == ALL_REFUSED
    other = await world.add_app("other", with_key=False)
    _, foreign = await world.gateway.keys.create(
        other, dialect="onesignal", scopes={"devices:write"}, name="server"
    )
    assert statuses(await Phone(world, authorization=f"Key {foreign}").calls()) == ALL_REFUSED


async def test_signed_takes_a_devices_own_credential(world: VendorWorld) -> None:
    await set_mode(world, "signed")
    assert statuses(await Phone(world).calls()) == ALL_REFUSED
    signed = await credential(world, "phone")
    own = Phone(world, authorization=f"Bearer {signed}")
    assert statuses(await own.calls()) == ALL_TAKEN
    assert await stored(world) == (1, 1, 1)
    other = Phone(world, "other", authorization=f"Bearer {signed}")
    assert statuses(await other.calls(OTHER)) == ALL_REFUSED
    forged = Phone(world, authorization=f"Bearer {signed[:-2]}xx")
    assert statuses(await forged.calls()) == ALL_REFUSED
    narrow = await credential(world, "phone", activities=("another",))
    answers = statuses(await Phone(world, authorization=f"Bearer {narrow}").calls())
    assert answers == {**ALL_TAKEN, "enter": 403, "exit": 403, "received": 403}
    await world.clock.advance(601)
    assert statuses(await own.calls()) == ALL_REFUSED


async def test_open_takes_anybody_and_writes_it_down(world: VendorWorld) -> None:
    await set_mode(world, "open")
    assert statuses(await Phone(world).calls()) == ALL_TAKEN
    lines = await world.gateway.audit.page(world.app)
    assert [(line["actor"], line["action"], line["subject"]) for line in lines] == [
        ("address", f"onesignal.{name}", "phone")
        for name in ("start_token", "enter", "received", "exit", "withdraw")
    ]
    assert {line["address"] for line in lines} == {"192.0.2.1"}
    assert START_TOKEN not in str(lines)


async def test_open_leaves_devices_with_a_credential_alone(world: VendorWorld) -> None:
    await set_mode(world, "open")
    await credential(world, "guarded")
    await world.service.devices.register(
        world.app,
        [
            TokenRecord(
                device="guarded",
                kind="start",
                token=START_TOKEN,
                registered_at=world.now(),
                scope=TYPE,
            )
        ],
    )
    before = await stored(world)
    # Under its own name, whatever the token, and under another name with its token.
    for phone, token in ((Phone(world, "guarded"), START_TOKEN), (Phone(world, "guarded"), OTHER)):
        assert statuses(await phone.calls(token)) == ALL_REFUSED
    answers = statuses(await Phone(world, "thief").calls(START_TOKEN.upper()))
    assert (answers["start token"], answers["enter"]) == (403, 403)
    assert await stored(world) == before
    known = await world.service.devices.get(world.app, "guarded")
    assert [token["token"] for token in known["start_tokens"]] == [f"{START_TOKEN[:8]}…"]


async def test_open_is_limited_for_each_address(world: VendorWorld) -> None:
    await world.http.aclose()
    world.serve(GatewaySettings(device_per_minute=3))
    await set_mode(world, "open")
    answers = statuses(await Phone(world).calls())
    assert list(answers.values()) == [200, 200, 200, 429, 429]


async def test_refusals_are_limited_for_each_address(world: VendorWorld) -> None:
    await world.http.aclose()
    world.serve(GatewaySettings(refused_per_minute=3))
    answers = await Phone(world).calls()
    assert list(statuses(answers).values()) == [403, 403, 403, 429, 429]
    assert answers["exit"].headers["retry-after"]


async def test_an_app_is_found_by_its_id_there(world: VendorWorld) -> None:
    await set_mode(world, "open")
    phone = Phone(world)
    phone.app_id = "0a1b2c3d-0000-4000-8000-000000000000"
    assert set(statuses(await phone.calls()).values()) == {404}
    await world.service.apps.configure(world.app, {"onesignal_app_id": phone.app_id})
    assert statuses(await phone.calls()) == ALL_TAKEN


async def test_a_start_token_that_a_phone_handed_in_is_used(
    world: VendorWorld, caller: Caller
) -> None:
    """The whole way with nothing but OneSignal's calls: both tokens from the phone itself."""
    await set_mode(world, "open")
    phone = world.fake.devices.add_device(
        "sub-1", bundle_id=world.app.bundle_id, attributes_types=[TYPE]
    )
    [token] = [token.text for token in phone.tokens if token.kind == "start"]
    world.registering = False
    answer = await caller.start(include_aliases=None, include_subscription_ids=["sub-1"])
    assert answer.status_code == 400
    assert "push-to-start" in answer.json()["errors"][0]
    path = f"/apps/scores/activities/tokens/start/{TYPE}/subscriptions/sub-1"
    body = {"activity_token": token, "device_type": 0}
    assert (await world.http.put(path, json=body)).status_code == 200
    answer = await caller.start(include_aliases=None, include_subscription_ids=["sub-1"])
    assert answer.status_code == 201
    await world.shows([phone], "active", home=0)
    await world.until(lambda: phone.activities[-1].token)
    answer = await caller.change(event_updates={"home": 5})
    assert "activity token" in answer.json()["warnings"][0]
    path = f"/api/v1/apps/scores/live_activities/{ACTIVITY}/token"
    body = {"push_token": phone.activities[-1].token.text, "subscription_id": "sub-1"}
    assert (await world.http.post(path, json=body)).status_code == 200
    await world.shows([phone], "active", home=5)
    answer = await world.http.put(
        "/api/v1/notifications/n-1/report_received",
        json={
            "app_id": "scores",
            "player_id": "sub-1",
            "device_type": 0,
            "live_activity_id": ACTIVITY,
        },
    )
    assert answer.status_code == 200
    counters = await world.service.receipts.counters(world.app, activity=ACTIVITY)
    assert counters["confirmed"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"push_token": "xyz", "subscription_id": "s"}, 400),
        ({"push_token": "a1", "subscription_id": 5}, 400),
        ({"push_token": "a1"}, 400),
        ({"push_token": "a1", "subscription_id": "s" * 65}, 400),
        ({"push_token": "a" * 1000, "subscription_id": "s"}, 400),
        ([], 400),
        ({"push_token": "a1", "subscription_id": "s", "more": "x" * 20_000}, 413),
    ],
)
async def test_bad_tokens(world: VendorWorld, body: Any, status: int) -> None:
    await set_mode(world, "open")
    answer = await Phone(world).call("POST", "/apps/scores/live_activities/a/token", body)
    assert answer.status_code == status
    assert isinstance(answer.json()["errors"], list)
    assert await stored(world) == (0, 0, 0)
