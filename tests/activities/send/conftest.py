"""A world for each test, on both databases."""

from collections.abc import AsyncIterator

import pytest

from apns_live.activities.store.database import Database
from apns_live.testing import FakeApns, SimulatedClock
from tests.activities.send.cluster import Cluster, a_cluster
from tests.activities.send.world import World, phone_settings


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    clock = SimulatedClock()
    async with FakeApns(clock=clock, devices="strict", phone_settings=phone_settings()) as fake:
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
