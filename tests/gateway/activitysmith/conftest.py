"""A world for each test, on SQLite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apns_live.activities.store.database import Database
from apns_live.cli.with_fake import Place, trying
from apns_live.testing import FakeApns, SimulatedClock
from tests.activities.databases import database, store_address  # noqa: F401 - fixtures
from tests.activities.send.world import phone_settings
from tests.gateway.activitysmith.live import Live
from tests.gateway.activitysmith.world import TYPE, SmithWorld
from tests.gateway.quick import quick_phones  # noqa: F401 - the fixture


@pytest.fixture
def store_kind() -> str:
    return "sqlite"


@pytest.fixture
async def world(database: Database) -> AsyncIterator[SmithWorld]:  # noqa: F811
    clock = SimulatedClock()
    async with FakeApns(clock=clock, devices="strict", phone_settings=phone_settings()) as fake:
        world = SmithWorld(fake, clock, database)
        world.phones = []
        await world.open()
        world.app = await world.add_app(settings={"activitysmith": {"attributes_type": TYPE}})
        await world.serve()
        yield world
        await world.http.aclose()
        await world.close()


@pytest.fixture
async def live(quick_phones: None, tmp_path: Path) -> AsyncIterator[Live]:  # noqa: F811
    """The gateway beside its fake, over real sockets and in real time."""
    async with trying(Place(directory=tmp_path)) as facts:
        live = Live(facts)
        yield live
        await live.aclose()
