"""Several services over one PostgreSQL, in one process, that phones are pushed to by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import text

from apns_live.activities import Service
from apns_live.activities.store.database import Database
from apns_live.testing import FakeApns, SimulatedClock
from tests.activities.send.world import World, phone_settings


class Cluster(World):
    """A world whose first service sends, with others beside it."""

    address = ""
    stack: AsyncExitStack
    stride = 0.02

    async def step(self, at_most: float) -> None:
        # The services look for each other's work by the machine's clock.
        await asyncio.sleep(0.004)
        await super().step(at_most)

    async def beside(self, *, send: bool = True) -> Service:
        """Open another service over the same database."""
        database = await self.stack.enter_async_context(Database.open(self.address))
        return await self.stack.enter_async_context(
            Service.open(
                database,
                sealing=self.sealing,
                clock=self.clock,
                new_id=self.new_id,
                settings=self.settings,
                endpoints={"production": self.endpoint, "sandbox": self.endpoint},
                send=send,
            )
        )


@asynccontextmanager
async def a_cluster(postgres_store: str) -> AsyncIterator[Cluster]:
    clock = SimulatedClock()
    async with (
        Database.open(postgres_store) as database,
        FakeApns(clock=clock, devices="strict", phone_settings=phone_settings()) as fake,
        AsyncExitStack() as stack,
    ):
        cluster = Cluster(fake, clock, database)
        cluster.address, cluster.stack = postgres_store, stack
        await cluster.open()
        cluster.app = await cluster.add_app()
        yield cluster
        await stack.aclose()
        await cluster.close()


async def share(*services: Service) -> None:
    """Let workers come to their shares at once."""
    for _ in range(3):
        for service in services:
            await service.ownership._renew()  # type: ignore[attr-defined]


async def run_out(cluster: Cluster, service: Service) -> None:
    """Let the leases of a service end as if it had been silent, and others take them."""
    owner = service.ownership._owner  # type: ignore[attr-defined]
    async with cluster.database.write() as connection:
        for statement in (
            "UPDATE leases SET expires_at = 0 WHERE owner = :owner",
            "UPDATE shards SET expires_at = 0 WHERE owner = :owner",
            "DELETE FROM workers WHERE id = :owner",
        ):
            await connection.execute(text(statement), {"owner": owner})
