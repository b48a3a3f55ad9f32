"""Three gateways over one PostgreSQL under mixed calls, one fault a round; afterwards the history keeps its rules.

``APNS_LIVE_TAKEOVERS`` is the number of rounds. Eight of them have each fault once; above that, leases and faults last
as long as in real operation. ``APNS_LIVE_TAKEOVER_ROUND=N`` runs round N alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select

from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.testing import FakeApns
from apns_live.testing.phones import PhoneSettings
from tests.activities.databases import Server
from tests.chaos.cluster import REPLICAS, Cluster, set_up
from tests.chaos.faults import FAULTS, MOVES, Stage, relayed
from tests.chaos.history import pauses, violations
from tests.chaos.traffic import Traffic

ROUNDS = int(os.environ.get("APNS_LIVE_TAKEOVERS", "2"))
ONLY = os.environ.get("APNS_LIVE_TAKEOVER_ROUND")
SEED = os.environ.get("APNS_LIVE_TAKEOVER_SEED", "1")
LONG = len(FAULTS) < ROUNDS
LEASE = 3.0 if LONG else 1.0
TAKEOVER = float(os.environ.get("APNS_LIVE_TAKEOVER_SECONDS", "inf"))
"""Seconds within which what a dead process should have sent leaves, on a machine that has the CPU for it."""
PHONES, PATIENCE = 6, 600.0 if LONG else 90.0
LAWS = PhoneSettings(
    token_delay=(0.02, 0.2), budget=None, start_budget=None, app_limit=10_000, device_limit=10_000
)


@asynccontextmanager
async def a_stage(server: Server, folder: Path) -> AsyncIterator[Stage]:
    """Give a cluster whose gateways reach the database through relays."""
    address = server.create("chaos", newest=True)
    # A restart without a checkpoint may lose what was not flushed to the operating system.
    server.configure(address, "ALTER DATABASE chaos SET synchronous_commit = on")
    words = ["--lease", str(LEASE), "--drain", "0.5", "--stop-delay", "0.5", "--log-level", "error"]
    async with (
        FakeApns(devices="strict", phone_settings=LAWS, latency=0.005, spread=0.01) as fake,
        relayed(address, REPLICAS) as (relays, through),
    ):
        cluster = Cluster(
            fake, through, *await set_up(fake, address, PHONES, budget="observed"), words
        )
        async with cluster.balanced(folder, check="500ms"):
            yield Stage(cluster, address, relays, LEASE, long=LONG)
    server.drop(address)


async def unfinished(database: Database) -> list[str]:
    """Return the operations that are not finished."""
    table = schema.operations
    query = select(table.c.kind, table.c.public_id).where(table.c.finished_at.is_(None))
    return [f"{row.kind} {row.public_id}" for row in await database.rows(query)]


async def reported(traffic: Traffic) -> list[tuple[str, str]]:
    """Return the devices of starts and notifications that the service reported as failed or unknown."""
    found = []
    arrived = {one.name for one in traffic.history.pushes if one.event == "notification"}
    for (name, kind), operation in traffic.operations.items():
        if kind == "start" or (kind == "notification" and name not in arrived):
            answer = await traffic.answered("GET", f"/v1/operations/{operation}/outcomes")
            items = answer["items"]
            found += [(one["device"], name) for one in items if one["verdict"] != "accepted"]
    return found


async def strike(stage: Stage, traffic: Traffic, title: str, draw: random.Random) -> float:
    """Let the callers work, strike, heal, let them work on, and end them; return when it struck."""
    writes, pushes = traffic.history.writes, traffic.history.pushes
    callers = [asyncio.create_task(one) for one in traffic.callers()]
    try:
        async with asyncio.timeout(PATIENCE):
            await traffic.until(lambda: len(pushes) > 20 or any(one.done() for one in callers))
            struck = asyncio.get_running_loop().time()
            await FAULTS[title](stage, draw.choice(stage.cluster.ports), draw)
            enough = len(writes) + 20
            await traffic.until(lambda: len(writes) > enough or any(one.done() for one in callers))
            traffic.over = True
            await asyncio.gather(*callers)
    finally:
        for caller in callers:
            caller.cancel()
    return struck


async def come_to_rest(stage: Stage, traffic: Traffic) -> None:
    """Wait until the history keeps its rules, or for `PATIENCE`: the rules say what is wrong then."""
    history = traffic.history
    async with Database.open(stage.address) as database:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    history.open = await unfinished(database)
                    history.cards = traffic.cards()
                    history.reported = await reported(traffic)
                    if not violations(history):
                        return
                    await asyncio.sleep(0.1)


async def one_round(stage: Stage, number: int) -> Counter[str]:
    """Strike once under traffic; return counts of the history. Fail with what a history does wrong."""
    seed, title = f"{SEED} {number}", [*FAULTS][number % len(FAULTS)]
    traffic = Traffic(stage.cluster, PHONES, seed, f"r{number}")
    history = traffic.history
    history.takeovers = 1
    try:
        async with asyncio.timeout(PATIENCE):
            await stage.owned(REPLICAS)
        struck = await strike(stage, traffic, title, random.Random(seed))
        await come_to_rest(stage, traffic)
    finally:
        traffic.close()
    history.registered = stage.cluster.registered
    found = violations(history)
    waits = [wait for wait in pauses(history) if wait[1].until >= struck]
    if found or (title in MOVES and waits[0][0] > TAKEOVER):
        file = Path(tempfile.mkdtemp(prefix="chaos-")) / "history.json"
        file.write_bytes(msgspec.json.encode(history))
        variables = {"TAKEOVERS": ROUNDS, "TAKEOVER_SEED": SEED, "TAKEOVER_ROUND": number}
        again = " ".join(f"APNS_LIVE_{name}={value}" for name, value in variables.items())
        pytest.fail(
            f"{title}: {found[:8] or waits[:3]}\n"
            f"history: python -m tests.chaos.history {file}\n"
            f"the round again: {again} pytest -s tests/chaos/test_chaos.py"
        )
    counts = Counter(one.kind for one in history.writes)
    counts.update(f"{one.event} pushes" for one in history.pushes)
    counts["answers"] = sum(len(one.answers) for one in history.writes)
    counts["cards"] = len(history.cards)
    counts["unknown"] = len(history.reported)
    print(f"round {number}: {title}, longest pause {waits[0][0]:.2f} s, {dict(counts)}", flush=True)
    return counts


@pytest.mark.external("haproxy")
async def test_every_phone_is_right_after_each_fault(
    postgres_server: Server, tmp_path: Path
) -> None:
    counts: Counter[str] = Counter()
    async with a_stage(postgres_server, tmp_path) as stage:
        for number in range(ROUNDS) if ONLY is None else [int(ONLY)]:
            counts += await one_round(stage, number)
    print(f"seed {SEED}: {dict(counts)}")
