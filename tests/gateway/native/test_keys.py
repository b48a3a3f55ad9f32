"""API keys: shown once, stored as digests; scopes, groups, limits, rotation, revocation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from apns_live.activities.apps import App, Apps
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import Sealer, new_key
from apns_live.errors import Conflict, InvalidInput, NotFound, TooManyRequests
from apns_live.gateway import GatewaySettings, Keys, Limit
from apns_live.gateway.audit import Audit
from apns_live.gateway.limits import Limits
from apns_live.gateway.scopes import ALL, SCOPES
from apns_live.testing.clock import SimulatedClock

from .conftest import ALERT, TYPE, Live


class Room:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = SimulatedClock()
        numbers = iter(range(1, 1_000))
        self.new_id = lambda: f"id-{next(numbers)}"
        self.keys = Keys(database, self.clock, self.new_id)
        self.app: App


@pytest.fixture
async def room(store_address: str) -> Any:
    async with Database.open(store_address) as database:
        room = Room(database)
        apps = Apps(database, Sealer(new_key()), room.clock, room.new_id)
        room.app = await apps.create(name="A", bundle_id="com.example.a", id="a")
        yield room


async def test_a_secret_is_found_and_nothing_else_is(room: Room) -> None:
    key, secret = await room.keys.create(room.app, scopes=["activities:update"], name="scores")
    found = await room.keys.find(secret)
    assert found == key
    assert found is not None
    assert found.app == room.app
    assert found.may("activities:update")
    assert not found.may("admin")
    head, lookup, rest = secret.rsplit("_", 2)
    assert head == "apnslive"
    wrong = [
        "",
        "x",
        secret[:-1],
        secret + "0",
        f"{head}_{lookup}_{'0' * 64}",
        f"{head}_{'0' * 12}_{rest}",
        f"{head}_{lookup.upper()}_{rest}",
        "\ud800",
        "é" * 500,
        f"{head}_{lookup}_",
    ]
    for other in set(wrong) - {secret}:  # a look-up of digits alone has no upper case
        assert await room.keys.find(other) is None


async def test_no_secret_is_in_the_store(room: Room) -> None:
    _, secret = await room.keys.create(room.app, scopes=ALL, name="scores")
    async with room.database.read() as connection:
        rows = (await connection.execute(select(schema.api_keys))).all()
    rest = secret.rsplit("_", 1)[1]
    assert len(rows) == 1
    assert rest not in repr(rows)
    assert len(rows[0].secret_hash) == 32


async def test_rotation_overlaps_and_ends(room: Room) -> None:
    key, secret = await room.keys.create(room.app, scopes=ALL, name="scores")
    newer, fresh = await room.keys.rotate(room.app, key.id, overlap=600)
    assert newer.id != key.id
    assert newer.caller == key.caller
    for each in (secret, fresh):
        found = await room.keys.find(each)
        assert found is not None
        assert found.caller == key.caller
    await room.clock.advance(599)
    assert await room.keys.find(secret) is not None
    await room.clock.advance(2)
    assert await room.keys.find(secret) is None
    assert await room.keys.find(fresh) is not None
    with pytest.raises(Conflict):
        await room.keys.rotate(room.app, key.id)


async def test_revocation_is_at_once_here_and_soon_elsewhere(room: Room) -> None:
    key, secret = await room.keys.create(room.app, scopes=ALL, name="scores")
    elsewhere = Keys(room.database, room.clock, room.new_id)
    assert await elsewhere.find(secret) is not None
    await room.keys.revoke(room.app, key.id)
    assert await room.keys.find(secret) is None
    await room.clock.advance(6)
    assert await elsewhere.find(secret) is None
    with pytest.raises(NotFound):
        await room.keys.revoke(room.app, "nobody")


async def test_last_use_is_written_now_and_then(room: Room) -> None:
    key, secret = await room.keys.create(room.app, scopes=ALL, name="scores")
    await room.keys.find(secret)
    assert not room.keys.usage_is_due()
    assert (await room.keys.get(room.app, key.id))["last_used_at"] is None
    await room.clock.advance(61)
    await room.keys.find(secret)
    assert room.keys.usage_is_due()
    await room.keys.write_usage()
    assert (await room.keys.get(room.app, key.id))["last_used_at"] == int(room.clock.time() * 1000)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"dialect": "firebase"}, "dialect"),
        ({"name": ""}, "name"),
        ({"groups": ["no spaces"]}, "groups"),
        ({"per_minute": 0}, "per_minute"),
        ({"concurrent": -1}, "concurrent"),
    ],
)
async def test_keys_that_cannot_be(room: Room, values: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as found:
        await room.keys.create(room.app, **{"scopes": ALL, "name": "x", **values})
    assert found.value.field == field


async def test_the_bucket_refills_with_the_clock(room: Room) -> None:
    key, _ = await room.keys.create(room.app, scopes=ALL, name="x", per_minute=3)
    limits = Limits(GatewaySettings(), room.clock)
    for _ in range(3):
        with limits.enter(key):
            pass
    with pytest.raises(TooManyRequests, match="more than 3 requests a minute") as found:
        limits.enter(key)
    assert found.value.retry_after == pytest.approx(20.0)
    await room.clock.advance(20)
    with limits.enter(key):
        pass
    await room.clock.advance(15.5)
    with pytest.raises(TooManyRequests) as found:
        limits.enter(key)
    assert found.value.retry_after == pytest.approx(4.5)
    assert limits.remaining(key) == (3, 0, pytest.approx(44.5))


async def test_what_is_left_of_an_hour_and_when_it_is_full_again(room: Room) -> None:
    key, _ = await room.keys.create(room.app, dialect="braze", scopes=ALL, name="x")
    limits = Limits(GatewaySettings(limits={"braze": Limit(per_hour=1800)}), room.clock)
    assert limits.remaining(key) == (1800, 1800, 0.0)
    for _ in range(3):
        with limits.enter(key):
            pass
    assert limits.remaining(key) == (1800, 1797, 6.0)
    await room.clock.advance(2)
    assert limits.remaining(key) == (1800, 1798, 4.0)
    own, _ = await room.keys.create(room.app, dialect="braze", scopes=ALL, name="x", per_minute=3)
    assert limits.remaining(own) == (3, 3, 0.0)
    once = Limits(GatewaySettings(limits={"braze": Limit(per_hour=1)}), room.clock)
    once.enter(key)
    with pytest.raises(TooManyRequests, match="more than 1 requests an hour") as found:
        once.enter(key)
    assert found.value.retry_after == pytest.approx(3600.0)


async def test_at_the_same_time(room: Room) -> None:
    key, _ = await room.keys.create(room.app, dialect="activitysmith", scopes=ALL, name="x")
    settings = GatewaySettings(limits={"activitysmith": Limit(per_minute=60, concurrent=2)})
    limits = Limits(settings, room.clock)
    with limits.enter(key), limits.enter(key), pytest.raises(TooManyRequests) as found:
        limits.enter(key)
    assert found.value.retry_after == 1.0
    assert str(found.value) == "this key has 2 requests in progress, and may have 2"
    assert limits.remaining(key) == (60, 58, pytest.approx(2.0))
    # What has ended is counted no longer, and not twice.
    with limits.enter(key), limits.enter(key), pytest.raises(TooManyRequests):
        limits.enter(key)
    alone, _ = await room.keys.create(room.app, scopes=ALL, name="alone", concurrent=1)
    with limits.enter(alone), pytest.raises(TooManyRequests):
        limits.enter(alone)
    assert limits.remaining(alone) == (None, None, 0.0)


async def test_the_audit_log_is_pruned(room: Room) -> None:
    audit = Audit(room.database, room.clock)
    for number in range(3):
        await audit.note(room.app, actor="cli", action="key.create", subject=str(number))
        await room.clock.advance(86_400)
    assert await audit.prune(1.5) == 2
    assert [line["subject"] for line in await audit.page(room.app)] == ["2"]


# Over HTTP.


async def test_every_scope_guards_its_routes(live: Live) -> None:
    calls: dict[str, tuple[str, str, Any]] = {
        "activities:start": (
            "POST",
            "/v1/activities",
            {
                "attributes_type": TYPE,
                "content_state": {},
                "alert": ALERT,
                "audience": {"everyone": True},
            },
        ),
        "activities:update": ("POST", "/v1/activities/x/update", {"content_state": {}}),
        "activities:end": ("POST", "/v1/activities/x/end", None),
        "activities:read": ("GET", "/v1/activities", None),
        "streams:write": ("POST", "/v1/streams/x/resume", None),
        "notifications:send": (
            "POST",
            "/v1/notifications",
            {"audience": {"everyone": True}, "title": "x", "body": "y"},
        ),
        "devices:write": ("POST", "/v1/devices", {"devices": [{"id": "d"}]}),
        "devices:read": ("GET", "/v1/groups", None),
        "audiences:read": ("GET", "/v1/segments", None),
        "audiences:write": ("DELETE", "/v1/segments/x", None),
        "channels:write": ("GET", "/v1/channels", None),
        "operations:read": ("GET", "/v1/operations", None),
        "admin": ("GET", "/v1/audit", None),
    }
    assert calls.keys() == SCOPES.keys()
    for scope, (method, path, body) in calls.items():
        with_it = await live.make_key(scope)
        without = await live.make_key(*(ALL - {scope}))
        async with live.caller(with_it) as caller:
            answer = await caller.request(method, path, json=body)
            assert answer.status_code not in {401, 403}, (scope, answer.text)
        async with live.caller(without) as caller:
            answer = await caller.request(method, path, json=body)
            assert answer.status_code == 403, (scope, answer.text)
            assert answer.json()["code"] == "forbidden"
            assert scope in answer.json()["detail"]


async def test_a_key_may_be_made_rotated_and_revoked(live: Live) -> None:
    made = await live.http.post("/v1/keys", json={"name": "n", "scopes": ["activities:read"]})
    assert made.status_code == 201
    async with live.caller(made.json()["secret"]) as caller:
        assert (await caller.get("/v1/activities")).status_code == 200
        rotated = await live.http.post(f"/v1/keys/{made.json()['id']}/rotate", json={"overlap": 0})
        assert rotated.status_code == 201
        assert (await caller.get("/v1/activities")).status_code == 401
    async with live.caller(rotated.json()["secret"]) as caller:
        assert (await caller.get("/v1/activities")).status_code == 200
        gone = await live.http.delete(f"/v1/keys/{rotated.json()['id']}")
        assert gone.status_code == 204
        assert (await caller.get("/v1/activities")).status_code == 401
    audit = (await live.http.get("/v1/audit")).json()["items"]
    assert [line["action"] for line in audit] == ["key.create", "key.rotate", "key.revoke"]
    assert made.json()["secret"] not in str(audit)
    listed = (await live.http.get("/v1/keys")).text
    for answer in (made, rotated):
        assert answer.json()["secret"].rsplit("_", 1)[1] not in listed


async def test_a_key_gives_no_more_than_it_has(live: Live) -> None:
    admin = await live.make_key("admin")
    async with live.caller(admin) as caller:
        for body in ({"scopes": ["activities:start"]}, {"scopes": sorted(ALL)}):
            answer = await caller.post("/v1/keys", json={"name": "n", **body})
            assert answer.status_code == 403
        strong = (await live.http.get("/v1/keys")).json()["items"][0]["id"]
        assert (await caller.post(f"/v1/keys/{strong}/rotate")).status_code == 403


async def test_a_key_for_groups_reaches_nothing_else(live: Live) -> None:
    for group in ("red", "blue"):
        await live.http.put(f"/v1/groups/{group}")
    red = await live.make_key(groups=["red"])
    await live.start("ours", audience={"groups": ["red"]})
    await live.start("theirs", audience={"groups": ["blue"]})
    await live.start("all", audience={"everyone": True})
    stream = {"attributes_type": TYPE, "content_state": {}, "alert": ALERT}
    await live.http.put("/v1/streams/s-blue", json={**stream, "audience": {"groups": ["blue"]}})
    start = {**stream, "attributes": {}}
    async with live.caller(red) as caller:
        for audience, status in (
            ({"groups": ["red"]}, 202),
            ({"groups": ["red", "blue"]}, 403),
            ({"groups": ["red"], "users": ["u"]}, 403),
            ({"everyone": True}, 403),
            ({"filter": {"field": "language", "relation": "=", "value": "en"}}, 403),
        ):
            answer = await caller.post("/v1/activities", json={**start, "audience": audience})
            assert answer.status_code == status, audience
        for name, status in (("ours", 202), ("theirs", 404), ("all", 404), ("nope", 404)):
            path = f"/v1/activities/{name}"
            update = await caller.post(f"{path}/update", json={"content_state": {"n": 1}})
            assert update.status_code == status
            assert (await caller.get(path)).status_code == (200 if status == 202 else 404)
            assert (await caller.get(f"{path}/history")).status_code == (
                200 if status == 202 else 404
            )
        bulk = await caller.post(
            "/v1/activities/bulk", json={"items": [{"do": "end", "id": "theirs"}]}
        )
        assert bulk.json()["items"][0]["problem"]["code"] == "not_found"
        taken = await caller.put(
            "/v1/streams/s-blue", json={**stream, "audience": {"groups": ["red"]}}
        )
        assert taken.status_code == 404
        assert (await caller.request("DELETE", "/v1/streams/s-blue")).status_code == 404
        mine = await caller.put(
            "/v1/streams/s-red", json={**stream, "audience": {"groups": ["red"]}}
        )
        assert mine.status_code == 200
        for path in ("/v1/activities", "/v1/operations", "/v1/devices/d", "/v1/keys", "/v1/groups"):
            assert (await caller.get(path)).status_code == 403
    assert (await live.http.get("/v1/activities/theirs")).json()["version"] == 1


async def test_over_the_rate_is_429_with_the_time_to_wait(live: Live) -> None:
    secret = await live.make_key(per_minute=2)
    async with live.caller(secret) as caller:
        answers = [await caller.get("/v1/apps") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert answers[2].json()["code"] == "too_many_requests"


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> GatewaySettings:
    return GatewaySettings(refused_per_minute=5)


async def test_whoever_tries_keys_is_slowed_down(live: Live) -> None:
    async with live.caller("apnslive_000000000000_" + "0" * 64) as caller:
        answers = await asyncio.gather(*(caller.get("/v1/apps") for _ in range(8)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [401] * 5 + [429] * 3
    # A valid key from the same address goes on.
    assert (await live.http.get("/v1/apps")).status_code == 200


def test_the_command_makes_lists_rotates_and_revokes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from apns_live.cli import run

    monkeypatch.setenv("APNS_LIVE_STORE", str(tmp_path / "live.db"))

    def said(*words: str) -> Any:
        assert run([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    said("store", "upgrade")
    said("apps", "add", "--id", "a", "--bundle-id", "com.example.a")
    made = said("keys", "create", "--app", "a", "--name", "n", "--scope", "activities:read")
    assert made["secret"].startswith("apnslive_")
    listed = said("keys", "list", "--app", "a")["keys"]
    assert [key["id"] for key in listed] == [made["id"]]
    assert made["secret"] not in json.dumps(listed)
    rotated = said("keys", "rotate", made["id"], "--app", "a")
    assert rotated["secret"] != made["secret"]
    assert said("keys", "revoke", rotated["id"], "--app", "a")["revoked"]
    assert run(["keys", "create", "--app", "a", "--name", "n", "--scope", "all"]) == 2
    assert "is not a valid scope" in capsys.readouterr().err


def test_limits_forget_who_was_quiet_longest_and_nobody_whose_request_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("apns_live.gateway.limits._REMEMBERED", 10)
    clock = SimulatedClock()
    limits = Limits(GatewaySettings(), clock)
    running = limits.enter_as("running", 1)
    for number in range(100):
        with limits.enter_as(f"address {number}", 1):
            pass
    assert len(limits._states) <= 11
    # The newest are remembered, and so is the one whose request runs.
    for known in ("running", "address 99"):
        with pytest.raises(TooManyRequests):
            limits.enter_as(known, 1)
    with running:
        limits.enter_as("address 0", 1)


def test_a_key_that_gets_a_limit_has_all_of_it() -> None:
    limits = Limits(GatewaySettings(), SimulatedClock())
    with limits.enter_as(who="key 1", limit=None):
        pass
    for _ in range(3):
        limits.enter_as("key 1", 3)
    with pytest.raises(TooManyRequests):
        limits.enter_as("key 1", 3)


def test_a_lower_limit_of_concurrent_requests_counts_those_that_run() -> None:
    limits = Limits(GatewaySettings(), SimulatedClock())
    for _ in range(2):
        limits.enter_as("key 1", None, 3)
    with pytest.raises(TooManyRequests):
        limits.enter_as("key 1", None, 1)


def test_fifty_thousand_callers_are_remembered_at_a_time() -> None:
    """One caller fewer, and a large fleet of phones would have no limits; more would fill the memory."""
    limits = Limits(GatewaySettings(), SimulatedClock())
    for number in range(50_001):
        with limits.enter_as(f"address {number}", 1):
            pass
    with pytest.raises(TooManyRequests):
        limits.enter_as("address 1", 1)
    limits.enter_as("address 0", 1)


async def test_many_first_calls_of_a_key_look_it_up_a_few_times(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that opens a hundred streams at once is no hundred strangers."""
    secret = await live.make_key(*ALL)
    keys = live.gateway.keys
    keys.forget()
    load, asked = keys._known.load, 0

    async def counted(lookup: str) -> Any:
        nonlocal asked
        asked += 1
        return await load(lookup)

    monkeypatch.setattr(keys._known, "load", counted)
    # Looking up may take long on a busy machine.
    monkeypatch.setattr(live.gateway.admission.strangers, "_patience", 60.0)
    found = await asyncio.gather(*(keys.find(secret) for _ in range(100)))
    assert None not in found
    assert asked <= 16
    # What is known is looked up again after some seconds, by one of the calls.
    [(name, (known, _))] = keys._known.entries.items()
    keys._known.entries[name] = known, 0.0
    asked = 0
    found = await asyncio.gather(*(keys.find(secret) for _ in range(100)))
    assert None not in found
    assert asked == 1
