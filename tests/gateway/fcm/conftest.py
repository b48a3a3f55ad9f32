"""A world for each test, on SQLite."""

from collections.abc import AsyncIterator

import pytest

from apns_live.activities.store.database import Database
from apns_live.testing import FakeApns, SimulatedClock
from tests.activities.databases import database, store_address  # noqa: F401 - fixtures
from tests.activities.send.world import phone_settings
from tests.gateway.fcm.world import FcmWorld


@pytest.fixture
def store_kind() -> str:
    return "sqlite"


@pytest.fixture
async def world(database: Database) -> AsyncIterator[FcmWorld]:  # noqa: F811
    clock = SimulatedClock()
    async with FakeApns(clock=clock, devices="strict", phone_settings=phone_settings()) as fake:
        world = FcmWorld(fake, clock, database)
        await world.open()
        await world.open_gateway()
        yield world
        await world.http.aclose()
        await world.close()
