"""A world for each test, on SQLite."""

import pytest

from tests.activities.databases import (  # noqa: F401 - fixtures
    database,
    postgres_address,
    postgres_template,
    sqlite_template,
    store_address,
)
from tests.gateway.braze.conftest import store_kind, world  # noqa: F401 - fixtures
from tests.gateway.braze.world import VendorWorld
from tests.gateway.onesignal.caller import Caller


@pytest.fixture
async def caller(world: VendorWorld) -> Caller:  # noqa: F811
    return Caller(world, await world.key("onesignal"))
