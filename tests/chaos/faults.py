"""What goes wrong in a round: each fault strikes one replica or the database, and is healed at the end."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg

from tests.chaos.cluster import Cluster
from tests.chaos.relay import Relay
from tests.postgres import restart

SKEW = 20.0
"""Seconds that a wrong clock is off."""
_FAKETIME = "*/faketime/libfaketime.so.1"


class Stage:
    """What a fault may strike. ``lease`` is seconds; ``long`` holds faults for as long as a machine may be gone."""

    def __init__(
        self, cluster: Cluster, address: str, relays: list[Relay], lease: float, *, long: bool
    ) -> None:
        self.cluster = cluster
        self.address = address
        self.relays = dict(zip(cluster.ports, relays, strict=True))
        self.lease = lease
        self.long = long

    async def owned(self, owners: int) -> None:
        """Return when this many processes hold all leases, so that one of them is known to be gone."""
        query = "SELECT count(DISTINCT owner) FROM leases WHERE expires_at > extract(epoch FROM clock_timestamp()) * 1000"
        connection = await asyncpg.connect(self.address)
        try:
            while await connection.fetchval(query) != owners:
                await asyncio.sleep(0.05)
        finally:
            await connection.close()


Fault = Callable[[Stage, int, random.Random], Awaitable[None]]
"""Strikes the replica at a port and heals it."""


async def kill(stage: Stage, port: int, draw: random.Random) -> None:
    """Kill a replica (-9) and start another in its place once its leases are taken over."""
    await stage.cluster.kill(port)
    await asyncio.sleep(stage.lease * draw.uniform(0.8, 2.0))
    await stage.cluster.start(port)


async def stop(stage: Stage, port: int, draw: random.Random) -> None:
    """Stop a replica (SIGSTOP) past its lease, and let it go on."""
    stage.cluster.processes[port].send_signal(signal.SIGSTOP)
    await asyncio.sleep(10.0 if stage.long else stage.lease * draw.uniform(0.5, 2.0))
    stage.cluster.processes[port].send_signal(signal.SIGCONT)


async def cut_leases(stage: Stage, port: int, draw: random.Random) -> None:
    """Cut the connection that renews the leases, whenever there is one."""
    give_up = asyncio.get_running_loop().time() + stage.lease * draw.uniform(0.5, 2.0)
    while asyncio.get_running_loop().time() < give_up:
        stage.relays[port].cut(leases_only=True)
        await asyncio.sleep(0.02)


async def cut_all(stage: Stage, port: int, draw: random.Random) -> None:
    """Cut every connection of a replica to the database, and refuse new ones for a while."""
    relay, cut = stage.relays[port], 0
    for _ in range(draw.randint(1, 3)):
        relay.refusing = True
        cut += relay.cut()
        await asyncio.sleep(stage.lease * draw.uniform(0.0, 1.0))
        relay.refusing = False
        await asyncio.sleep(draw.uniform(0.1, 0.5))
    assert cut


async def terminate(stage: Stage, port: int, draw: random.Random) -> None:
    """Let the server end every connection (pg_terminate_backend), several times."""
    del port
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    for _ in range(draw.randint(1, 5)):
        connection = await asyncpg.connect(stage.address)
        await connection.execute(query)
        await connection.close()
        await asyncio.sleep(draw.uniform(0.0, 0.5))


async def restart_database(stage: Stage, port: int, draw: random.Random) -> None:
    """Stop PostgreSQL without a checkpoint and start it again; keep everybody out for a while."""
    del port
    for relay in stage.relays.values():
        relay.refusing = True
    await asyncio.to_thread(restart, stage.address)
    await asyncio.sleep(stage.lease * draw.uniform(0.0, 1.5))
    for relay in stage.relays.values():
        relay.refusing = False


async def skew(stage: Stage, port: int, draw: random.Random) -> None:
    """Replace a replica by one whose clock is off by 20 seconds."""
    ahead = draw.choice([SKEW, -SKEW])
    await stage.cluster.kill(port)
    library = next(Path("/usr/lib").glob(_FAKETIME), None)
    if library is None:
        await stage.cluster.start(port, ["-m", "tests.chaos.skewed", str(ahead)])
    else:
        faked = {"LD_PRELOAD": str(library), "FAKETIME": f"{ahead:+.0f}s"}
        await stage.cluster.start(port, cold={**faked, "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    await stage.owned(len(stage.relays))
    await asyncio.sleep(stage.lease * draw.uniform(0.5, 2.0))
    if draw.random() < 0.5:
        await stage.cluster.stop(port)
    else:
        await stage.cluster.kill(port)
    await stage.cluster.start(port)


async def slow(stage: Stage, port: int, draw: random.Random) -> None:
    """Delay everything that is said to the database and back, for one replica more than for the others."""
    for one, relay in stage.relays.items():
        relay.delay = (
            stage.lease * draw.uniform(0.02, 0.2) if one == port else draw.uniform(0, 0.05)
        )
    await asyncio.sleep(stage.lease * draw.uniform(1.0, 3.0))
    for relay in stage.relays.values():
        relay.delay = 0.0


FAULTS: dict[str, Fault] = {
    one.__name__: one
    for one in (kill, stop, cut_leases, cut_all, terminate, restart_database, skew, slow)
}
MOVES = frozenset({"kill", "stop"})
"""Faults after which the lease of one replica has to run out, and nothing else is wrong."""


@asynccontextmanager
async def relayed(address: str, count: int) -> AsyncIterator[tuple[list[Relay], list[str]]]:
    """Run relays before a server; give them, and the address of the database through each."""
    place = urlsplit(address)
    [folder] = parse_qs(place.query)["host"]
    async with AsyncExitStack() as stack:
        relays = [
            await stack.enter_async_context(Relay(f"{folder}/.s.PGSQL.5432").serve())
            for _ in range(count)
        ]
        through = [
            urlunsplit(place._replace(netloc=f"postgres@127.0.0.1:{relay.port}", query=""))
            for relay in relays
        ]
        yield relays, through
