"""A world for each test, on SQLite."""

from collections.abc import AsyncIterator
from typing import Any

import onesignal
import pytest
from onesignal.api.default_api import DefaultApi

from tests.activities.databases import database, store_address  # noqa: F401 - fixtures
from tests.gateway.braze.conftest import store_kind, world  # noqa: F401 - fixtures
from tests.gateway.braze.serving import served
from tests.gateway.braze.world import VendorWorld
from tests.gateway.onesignal.caller import Caller, Sdk


@pytest.fixture
async def caller(world: VendorWorld) -> Caller:  # noqa: F811
    return Caller(world, await world.key("onesignal"))


@pytest.fixture
async def sdk(world: VendorWorld) -> AsyncIterator[Sdk]:  # noqa: F811
    """Call a method of the SDK in a thread, as a server would."""
    secret = await world.key("onesignal")
    async with served(world) as (host, port, run):

        async def call(method: str, *arguments: Any, key: str = secret, **options: Any) -> Any:
            def work() -> Any:
                configuration = onesignal.Configuration(
                    host=f"http://{host}:{port}", rest_api_key=key
                )
                with onesignal.ApiClient(configuration) as client:
                    return getattr(DefaultApi(client), method)(*arguments, **options)

            return await run(work)

        yield call
