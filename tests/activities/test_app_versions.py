"""States are held to the contracts of those versions that devices run, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from apns_live.activities.people.devices import KEPT
from apns_live.activities.people.records import DeviceRecord
from apns_live.activities.requests import End, Update
from apns_live.activities.store.database import Database
from apns_live.errors import InvalidPayload
from tests.activities.plans import every_query_indexed
from tests.activities.world import Rooms, a_start

SOURCE = "struct Match: ActivityAttributes {{ struct ContentState: Codable {{ var {}: Int }} }}"
VERSIONS = {name: {"Match.swift": SOURCE.format(field)} for name, field in [
    ("1.9", "old"), ("1.10", "middle"), ("2.0", "new")
]}  # fmt: skip


class World(Rooms):
    """An app with three contracts, each with a field of its own that must be there."""

    async def open(self) -> None:
        await self.fill()
        self.app = await self.apps.configure(self.app, {"contract": {"versions": VERSIONS}})

    async def tell(self, *versions: str | None) -> None:
        """Tell of a device for each version, and let what was known before be forgotten."""
        told = [
            DeviceRecord(id=f"d-{version}", app_version=version, language="en")
            for version in versions
        ]
        await self.devices.tell(self.app, told)
        self.clock.advance_sync(KEPT)

    async def held_to(self) -> list[str]:
        """Return the versions whose contract a state must keep to."""
        app = await self.activities.versions.in_use(self.app)
        return list(app.settings["contract"]["versions"])


@pytest.fixture
async def world(database: Database) -> World:
    world = World(database)
    await world.open()
    return world


@pytest.mark.parametrize(
    ("told", "held_to"),
    [
        ([], ["1.9", "1.10", "2.0"]),
        ([None], ["1.9", "1.10", "2.0"]),
        (["2.0"], ["2.0"]),
        (["2.0", None], ["2.0"]),
        (["1.9", "2.0"], ["1.9", "2.0"]),
        (["1.10"], ["1.10"]),
        (["1.10.3"], ["1.10"]),
        (["1.9.9"], ["1.9"]),
        (["1.0"], ["1.9"]),
        (["31.4"], ["2.0"]),
        (["2.0-beta"], ["1.10"]),
        (["1.2", "1.11", "3"], ["1.9", "1.10", "2.0"]),
    ],
)
async def test_devices_say_which_versions_are_in_use(
    world: World, told: list[str | None], held_to: list[str]
) -> None:
    await world.tell(*told)
    assert await world.held_to() == held_to


async def test_devices_of_another_app_say_nothing(world: World) -> None:
    await world.devices.tell(world.other, [DeviceRecord(id="theirs", app_version="1.9")])
    await world.tell("2.0")
    assert await world.held_to() == ["2.0"]


async def test_every_write_is_held_to_the_versions_in_use(world: World) -> None:
    """A state that only an unused version refuses is accepted; a used one refuses it with its name."""
    good, bad = {"new": 1}, {"old": 1}
    activities, streams = world.activities, world.streams
    stream = a_start(id=None, stream_key="final")

    def with_state(state: dict[str, int], request: Any) -> Any:
        return type(request)(**{**_fields(request), "content_state": state})

    with pytest.raises(InvalidPayload, match=r"version 1\.9 of the app"):
        await activities.start(world.app, with_state(good, a_start()))
    await world.tell("2.0")
    await activities.start(world.app, with_state(good, a_start()))
    await activities.update(world.app, Update(id="match-17", content_state=good))
    await streams.put(world.app, with_state(good, stream))
    for refused in (
        activities.start(world.app, with_state(bad, a_start(id="other"))),
        activities.update(world.app, Update(id="match-17", content_state=bad)),
        activities.end(world.app, End(id="match-17", content_state=bad)),
        streams.put(world.app, with_state(bad, stream)),
        streams.end(world.app, "final", End(id="", content_state=bad)),
        streams.pause(world.app, "final", End(id="", content_state=bad)),
    ):
        with pytest.raises(InvalidPayload, match=r"version 2\.0 of the app"):
            await refused
    await streams.end(world.app, "final", End(id="", content_state=good))
    await activities.end(world.app, End(id="match-17", content_state=good))


def _fields(request: Any) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


async def test_a_new_version_is_noticed_within_seconds(world: World) -> None:
    await world.tell("2.0")
    assert await world.held_to() == ["2.0"]
    await world.devices.tell(world.app, [DeviceRecord(id="late", app_version="1.9")])
    world.clock.advance_sync(KEPT / 2)
    assert await world.held_to() == ["2.0"], "it is not asked for every state"
    world.clock.advance_sync(KEPT / 2)
    assert await world.held_to() == ["1.9", "2.0"]


async def test_other_contracts_are_looked_at_at_once(world: World) -> None:
    await world.tell("2.0")
    assert await world.held_to() == ["2.0"]
    fewer = {name: VERSIONS[name] for name in ("1.9", "1.10")}
    world.app = await world.apps.configure(world.app, {"contract": {"versions": fewer}})
    assert await world.held_to() == ["1.10"]


@pytest.mark.parametrize("contract", [None, {"mode": "off", "versions": VERSIONS}])
async def test_an_app_that_checks_nothing_asks_nothing(world: World, contract: Any) -> None:
    app = await world.apps.configure(world.app, {"contract": contract})
    assert await world.activities.versions.in_use(app) is app


async def test_asking_scans_no_table(world: World) -> None:
    async with every_query_indexed(world.database):
        await world.tell("2.0", None)
        await world.held_to()
