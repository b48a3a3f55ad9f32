"""A world for each test, on both databases; with ``APNS_LIVE_WORKERS=3`` on PostgreSQL with three workers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from apns_live.activities.store.database import Database
from apns_live.testing import FakeApns, SimulatedClock
from tests.activities.send.cluster import Cluster, ThreeWorkers, a_cluster
from tests.activities.send.world import World, phone_settings

THREE = os.environ.get("APNS_LIVE_WORKERS") == "3"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With three workers, leave out the tests that need one process, or have their own."""
    if THREE:
        kept = [
            one
            for one in items
            if "world" in getattr(one, "fixturenames", ())
            and one.get_closest_marker("one_process") is None
        ]
        config.hook.pytest_deselected(items=[one for one in items if one not in kept])
        items[:] = kept


@pytest.fixture(params=["three workers"] if THREE else ["sqlite", "postgresql"])
def store_kind(request: pytest.FixtureRequest) -> str:
    """Which database; see tests/activities/databases.py."""
    return str(request.param)


@pytest.fixture
async def world(store_address: str, store_kind: str) -> AsyncIterator[World]:
    if store_kind == "three workers":
        async with a_cluster(store_address, ThreeWorkers) as cluster:
            yield cluster
        return
    clock = SimulatedClock()
    async with (
        Database.open(store_address) as database,
        FakeApns(clock=clock, devices="strict", phone_settings=phone_settings()) as fake,
    ):
        world = World(fake, clock, database)
        await world.open()
        world.app = await world.add_app()
        await world.rest()
        yield world
        await world.close()


@pytest.fixture
async def cluster(postgres_store: str) -> AsyncIterator[Cluster]:
    async with a_cluster(postgres_store) as cluster:
        yield cluster
