"""``apns-live doctor --device`` over a database: what keeps one phone from showing something."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from apns_live.activities.people.records import DeviceRecord, TokenRecord
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.upgrade import upgrade
from apns_live.cli import run
from apns_live.delivery.budget import PRESETS
from tests.activities.world import Rooms, a_start

HOUR = 3_600_000
UNUSED, FREQUENT = PRESETS["observed"], PRESETS["observed-frequent"]


class Store:
    """A database with one phone, `phone`, that lacks nothing."""

    def __init__(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file, self.capsys = file, capsys
        self.now = int(time.time() * 1000)
        self.fill(self._phone)

    def fill(self, work: Callable[[Rooms], Any]) -> None:
        async def filling() -> None:
            async with Database.open(self.file) as database:
                await upgrade(database)
                rooms = Rooms(database)
                if work != self._phone:
                    rooms.app = await rooms.apps.get("scores")
                await work(rooms)

        asyncio.run(filling())

    async def _phone(self, rooms: Rooms) -> None:
        rooms.app = await rooms.apps.create(id="scores", name="Scores", bundle_id="com.example.a")
        facts = DeviceRecord(id="phone", os_version="18.1", app_version="2.0")
        await rooms.devices.tell(rooms.app, [facts])
        token = TokenRecord(
            device="phone", kind="start", token="aa", registered_at=self.now, scope="Match"
        )
        await rooms.devices.register(rooms.app, [token])

    def tell(self, **facts: Any) -> None:
        async def tell(rooms: Rooms) -> None:
            await rooms.devices.tell(rooms.app, [DeviceRecord(id="phone", **facts)])

        self.fill(tell)

    def cards(self, count: int, **values: Any) -> None:
        """Put cards on the phone that were started a moment ago."""

        async def put(rooms: Rooms) -> None:
            for number in range(count):
                name = f"card-{number}"
                await rooms.activities.start(rooms.app, a_start(id=name))
                given = {"started_at": self.now - 1000, "token": f"{number:02x}", **values}
                await rooms.put_on(name, "phone", **given)

        self.fill(put)

    def outcomes(self, count: int, **values: Any) -> None:
        """Note what APNs answered to pushes of a moment ago."""

        async def put(rooms: Rooms) -> None:
            [device] = await rooms.device_rows("phone")
            given = {
                "app_id": rooms.app.row,
                "operation_id": 1,
                "device_id": device,
                "verdict": "accepted",
                "status": 200,
                "reason": "",
                "apns_id": "",
                "priority": 10,
                "created_at": self.now - 1000,
            }
            async with rooms.database.write() as connection:
                await connection.execute(insert(schema.outcomes), [given | values] * count)

        self.fill(put)

    def doctor(self) -> list[dict[str, str]]:
        """Return what the command finds that is not fine; everything of it has a remedy."""
        words = ["doctor", "--database", str(self.file), "--app", "scores", "--device", "phone"]
        code = run([*words, "--json"])
        findings = json.loads(self.capsys.readouterr().out)["findings"]
        wrong = [each for each in findings if each["state"] != "ok"]
        assert code == int(any(each["state"] == "fail" for each in wrong))
        assert all(each["remedy"] for each in wrong), wrong
        return wrong

    def broken(self, check: str, state: str = "fail") -> dict[str, str]:
        [found] = self.doctor()
        assert (found["check"], found["state"]) == (check, state), found
        return found


@pytest.fixture
def store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Store:
    return Store(tmp_path / "live.db", capsys)


def test_a_phone_that_lacks_nothing(store: Store) -> None:
    store.cards(1)
    store.outcomes(UNUSED.per_hour - 1)
    assert store.doctor() == []


@pytest.mark.parametrize(
    ("count", "frequent", "state"),
    [
        (FREQUENT.per_hour, None, "fail"),
        (FREQUENT.per_hour - 1, None, "warn"),
        (UNUSED.per_hour, None, "warn"),
        (UNUSED.per_hour, True, "warn"),
        (UNUSED.per_hour, False, "fail"),
    ],
)
def test_a_spent_budget(store: Store, count: int, frequent: bool | None, state: str) -> None:
    store.tell(frequent_updates=frequent)
    store.outcomes(count)
    found = store.broken("budget", state)
    assert f"{count} pushes of priority 10 within an hour" in found["said"]
    assert "priority 5" in found["remedy"]


@pytest.mark.parametrize(
    "values", [{"priority": 5}, {"created_at": int(time.time() * 1000) - HOUR - 1}]
)
def test_what_costs_no_budget_any_more(store: Store, values: dict[str, int]) -> None:
    store.outcomes(FREQUENT.per_hour, **values)
    assert store.doctor() == []


@pytest.mark.parametrize("gone", [False, True])
def test_a_spent_budget_of_starts(store: Store, gone: bool) -> None:
    """A card that was swiped away since was charged all the same."""
    swiped = {"retired_at": store.now, "retired_reason": "dismissed"} if gone else {}
    store.cards(UNUSED.starts_per_hour, **swiped)
    assert "Start less often" in store.broken("start budget")["remedy"]


def test_a_suspect_start_token(store: Store) -> None:
    async def silent(rooms: Rooms) -> None:
        marked = update(schema.start_tokens).values(unanswered=2, suspect_at=store.now)
        await rooms.database.change(marked)

    store.fill(silent)
    assert "2 starts brought neither" in store.broken("start token")["said"]


def test_no_start_token(store: Store) -> None:
    async def withdrawn(rooms: Rooms) -> None:
        await rooms.devices.withdraw(rooms.app, "phone", "Match")

    store.fill(withdrawn)
    assert "no living push-to-start token" in store.broken("start token")["said"]


def test_an_old_start_token_is_a_warning(store: Store) -> None:
    async def age(rooms: Rooms) -> None:
        old = store.now - 31 * 24 * HOUR
        await rooms.database.change(update(schema.start_tokens).values(registered_at=old))

    store.fill(age)
    assert "31 days old" in store.broken("start token", "warn")["said"]


def test_a_card_without_an_activity_token(store: Store) -> None:
    store.cards(1, token=None)
    assert "no token came" in store.broken("token")["said"]


def test_a_card_that_is_over_eight_hours_old(store: Store) -> None:
    store.cards(1, started_at=store.now - 9 * HOUR)
    assert "over 8 hours ago" in store.broken("activity")["said"]


@pytest.mark.parametrize(
    ("facts", "check", "state"),
    [
        ({"os_version": "17.1"}, "ios version", "fail"),
        ({"os_version": "17.4"}, "ios version", "warn"),
        ({"push_enabled": False}, "switches", "fail"),
    ],
)
def test_a_phone_that_cannot(store: Store, facts: dict[str, Any], check: str, state: str) -> None:
    store.tell(**facts)
    store.broken(check, state)


def test_what_apns_refused(store: Store) -> None:
    refused = {"verdict": "drop_token", "status": 400, "reason": "BadDeviceToken"}
    store.outcomes(2, **refused)
    assert "400 BadDeviceToken" in store.broken("outcome")["said"]
