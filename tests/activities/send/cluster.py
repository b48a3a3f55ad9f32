"""Several services over one PostgreSQL, in one process, that phones are pushed to by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import select, text

from apns_live.activities import Service
from apns_live.activities.send.backlog import ActivityBacklog
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.ownership import PARTITIONS
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


Kind = TypeVar("Kind", bound=Cluster)


@asynccontextmanager
async def a_cluster(
    postgres_store: str,
    kind: type[Kind] = Cluster,  # type: ignore[assignment]
) -> AsyncIterator[Kind]:
    clock = SimulatedClock()
    async with (
        Database.open(postgres_store) as database,
        FakeApns(clock=clock, devices="strict", phone_settings=phone_settings()) as fake,
        AsyncExitStack() as stack,
    ):
        cluster = kind(fake, clock, database)
        cluster.address, cluster.stack = postgres_store, stack
        await cluster.open()
        cluster.app = await cluster.add_app()
        yield cluster
        await stack.aclose()
        await cluster.close()


class ThreeWorkers(Cluster):
    """A world whose tests need not know that two more workers share the database."""

    stride = 0.1
    patience = 60.0
    """Seconds of the clock that may pass until everything is sent."""

    def __init__(self, fake: FakeApns, clock: SimulatedClock, database: Database) -> None:
        super().__init__(fake, clock, database)
        self.others: list[Service] = []

    async def open(self, **changes: Any) -> Service:
        service = await super().open(**changes)
        while len(self.others) < 2:
            self.others.append(await self.beside())
        workers = [service, *self.others]
        while not all(80 < len(worker.ownership.partitions) < 90 for worker in workers):
            for worker in workers:
                worker.ownership.look()
            await self.rest()
        return service

    async def settled(self) -> None:
        """Let time pass until no worker has work, and no work waits for one in the store."""
        begun = self.clock.monotonic()
        while True:
            for service in (self.service, *self.others):
                await self.result_of(service.settled())
            if self.handed_in and self.registering:
                await self.hand_in()
            else:
                open_, behind = await self.waiting()
                waited = self.clock.monotonic() - begun
                # A refused token, or one of two devices, stays behind.
                if not open_ and (not behind or waited > self.patience / 6):
                    return
                assert waited < self.patience, open_
                await self.step(begun + self.patience)

    async def waiting(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Return unfinished operations, and activities with a token that lacks the newest state."""
        table = schema.operations
        query = select(table.c.public_id, table.c.kind).where(table.c.finished_at.is_(None))
        open_ = await self.database.rows(query.where(table.c.status != "failed"))
        behind = ActivityBacklog._behind(frozenset(range(PARTITIONS)))
        return open_, await self.database.rows(behind)


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
