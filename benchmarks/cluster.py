"""What one large start costs over one PostgreSQL: CPU a push with several workers against one.

Each worker is a process with a service that sends, on the event loop of ``apns-live worker``; the sink answers in
Apple's place. The CPU counted is that of all workers, from the call until the operation is done, without their start.
The database's CPU stands beside it.
Workers take turns in every round, and the ratio is that of the medians. In every turn the same workers send two starts: the
first one after their own start, when they still open connections and prepare statements, and a second one.

Apple is not on the same machine, so the aim for several workers is measured through a relay that keeps every byte for 40 ms
each way. Without it a lone worker has a processor and its caches to itself, and several workers share them with the
database. Workers that share no start, with a database each, show how much of the difference comes from that.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from hashlib import blake2b
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from apns_live.activities import AlertText, Audience, Presentation, Service, Start
from apns_live.activities.people.records import TokenRecord
from apns_live.activities.store.sealing import Sealer, new_key
from apns_live.bench.gateway import run_served
from apns_live.bench.processes import (
    Sink,
    SinkOptions,
    Worker,
    answer_until_closed,
    cores,
    relayed,
    say,
    sink,
    worker,
)
from apns_live.bench.senders import provider_key
from apns_live.bench.service import BATCH, TYPE, Place, new_app, opened
from apns_live.gateway.serving import calm_collector
from benchmarks.pages import Bar, figures, finish, options, result
from tests.postgres import postgres

APP = "bench"
_TICKS = os.sysconf("SC_CLK_TCK")
_LOG = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
_SIZE = "SELECT pg_total_relation_size('activity_devices') + pg_total_relation_size('outcomes')"
_TOKENS, _SECONDS = 50_000_000, 60
"""The start that is computed on paper."""
_TURNS = ("first start", "second start")
_ROUND_TRIP = 0.080
"""Seconds."""


async def _register(connection: Connection, place: Place, devices: int) -> None:
    async with opened(*place) as service:
        app = await new_app(service, APP, provider_key())
        for first in range(0, devices, BATCH):
            numbers = range(first, min(first + BATCH, devices))
            tokens = (blake2b(f"{number}".encode(), digest_size=32) for number in numbers)
            records = [
                TokenRecord(
                    device=f"device-{number}",
                    kind="start",
                    scope=TYPE,
                    token=token.hexdigest(),
                    registered_at=1_700_000_000_000 + number,
                )
                for number, token in zip(numbers, tokens, strict=True)
            ]
            await service.devices.register(app, records)
    say(connection, "registered")


def _send(connection: Connection, place: Place, workers: int) -> None:
    run_served(_sending(connection, place, workers))


async def _sending(connection: Connection, place: Place, workers: int) -> None:
    async with opened(*place) as service:
        share = -(-256 // workers)
        while len(service.ownership.partitions) > share:  # noqa: ASYNC110 - leases tell nobody
            await asyncio.sleep(0.1)
        say(connection, "ready")
        with calm_collector():  # as `apns-live worker` does
            await answer_until_closed(connection)


async def _call(connection: Connection, place: Place) -> None:
    async with Service.open(place[0], sealing=Sealer(place[1]), send=False) as service:
        app = await service.apps.get(APP)
        say(connection, "ready")
        await asyncio.to_thread(connection.recv)
        begun = time.perf_counter()
        request = Start(
            attributes_type=TYPE,
            attributes={"match": secrets.token_hex(4)},
            content_state={"home": 0, "away": 0, "pad": "x" * 100},
            presentation=Presentation(alert=AlertText(title="Kick-off", body="It begins.")),
            audience=Audience(everyone=True),
        )
        operation = (await service.activities.start(app, request)).answer.operation
        first = 0.0
        while True:
            known = await service.operations.get(app, operation)
            if known["targeted"] and not first:
                first = time.perf_counter() - begun
            if known["finished_at"]:
                break
            await asyncio.sleep(0.02)
        say(connection, (time.perf_counter() - begun, first, known["accepted"], known["failed"]))


def _database_cpu(data: Path) -> float:
    """Return the CPU seconds of a server and its processes, also of those that are gone."""
    postmaster = (data / "postmaster.pid").read_text().split()[0]
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if stat.parent.name == postmaster:
            total += sum(map(int, fields[11:15]))  # with its children that have ended
        elif fields[1] == postmaster:
            total += sum(map(int, fields[11:13]))
    return total / _TICKS


async def _vacuum(address: str) -> int:
    """Empty what starts fill; return the place in the write-ahead log."""
    connection = await asyncpg.connect(address)
    await connection.execute("TRUNCATE outcomes, activity_devices")
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("CHECKPOINT")
    place: int = await connection.fetchval(_LOG)
    await connection.close()
    return place


async def _bytes(address: str) -> tuple[int, int]:
    """Return the place in the write-ahead log, and the size of what a start fills."""
    connection = await asyncpg.connect(address)
    place, size = await connection.fetchval(_LOG), await connection.fetchval(_SIZE)
    await connection.close()
    return place, size


def _round(
    places: list[Place], data: Path, running: Sink, count: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the figures of the first start of new workers at each place, and those of their second one."""
    with ExitStack() as stack:
        senders: list[Worker] = [
            stack.enter_context(worker(f"worker {number}", _send, place, count))
            for place in places
            for number in range(count)
        ]
        for one in senders:
            one.receive()
        first, second = (_start(places, data, running, senders) for _ in range(2))
        return first, second


def _start(
    places: list[Place], data: Path, running: Sink, senders: list[Worker]
) -> dict[str, float]:
    logged = [asyncio.run(_vacuum(place[0])) for place in places][-1]
    with ExitStack() as stack:
        callers = [stack.enter_context(worker("caller", _call, place)) for place in places]
        for calling in callers:
            calling.receive()
        before = [one.usage() for one in senders]
        answered, stored = running.cpu(), _database_cpu(data)
        for calling in callers:
            calling.connection.send("go")
        seconds, first, counts, failed = zip(*(one.receive(600) for one in callers), strict=True)
        accepted = sum(counts)
        after = [one.usage() for one in senders]
        written = [asyncio.run(_bytes(place[0])) for place in places]
        spent = [end[0] - begin[0] for begin, end in zip(before, after, strict=True)]
        return {
            "pushes": accepted,
            "failed": sum(failed),
            "seconds": max(seconds),
            "intended_ms": max(first) * 1e3,
            "us_a_push": sum(spent) / accepted * 1e6,
            "database_us_a_push": (_database_cpu(data) - stored) / accepted * 1e6,
            "WAL_bytes_a_push": (written[-1][0] - logged) / accepted,
            "table_bytes_a_push": sum(size for _, size in written) / accepted,
            "sink_us_a_push": (running.cpu() - answered) / accepted * 1e6,
            "smallest_share": min(spent) / sum(spent),
            "peak_MB": max(end[1] for end in after) / 1e6,
        }


async def _databases(address: str, count: int) -> list[str]:
    """Make further databases on a server; return their addresses."""
    connection = await asyncpg.connect(address)
    for number in range(count):
        await connection.execute(f"CREATE DATABASE apart_{number}")
    await connection.close()
    return [urlsplit(address)._replace(path=f"/apart_{number}").geturl() for number in range(count)]


def _on_paper(row: dict[str, float]) -> str:
    rate = _TOKENS / _SECONDS
    return (
        f"By the second start of several workers, a start of {_TOKENS:,} devices within {_SECONDS} s takes, on paper, "
        f"{rate * row['us_a_push'] / 1e6:.0f} cores for workers and "
        f"{rate * row['database_us_a_push'] / 1e6:.0f} cores for databases like this one, which write "
        f"{rate * row['WAL_bytes_a_push'] / 1e6:,.0f} MB of write-ahead log a second and grow by "
        f"{_TOKENS * row['table_bytes_a_push'] / 1e9:.0f} GB."
    )


def main(words: list[str]) -> int:
    """Measure and print the report."""
    parser = options("cluster", __doc__)
    parser.add_argument("--devices", type=int, default=300_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(words)
    page = result(
        "cluster",
        f"One start of {given.devices:,} devices, and its workers",
        {
            "database": "postgresql",
            "rounds": f"{given.rounds}, in turns",
            "relay": f"at a distance: keeps every byte for {_ROUND_TRIP * 500:g} ms each way",
        },
    )
    several = f"{given.workers} workers"
    apart = f"{several} with a database each"
    far = ("1 workers at a distance", f"{several} at a distance")
    names = ("1 workers", several, apart, *far)
    rows: dict[tuple[str, str], list[dict[str, float]]] = {
        (name, turn): [] for name in names for turn in _TURNS
    }
    with tempfile.TemporaryDirectory(prefix="apns-live-bench-") as folder:
        data = Path(folder) / "data"
        with (
            postgres(data, runtime=Path(folder)) as address,
            sink(SinkOptions(), cores()[0]) as running,
            relayed(running, _ROUND_TRIP, cores()[0]) as beyond,
        ):
            addresses = [address, *asyncio.run(_databases(address, given.workers))]
            shared, *own = [(one, new_key(), running.port, running.ca_file) for one in addresses]
            distant = (*shared[:2], beyond.port, beyond.ca_file)
            for place in (shared, *own):
                devices = given.devices if place is shared else given.devices // given.workers
                with worker("register", _register, place, devices) as registering:
                    registering.receive(3_600)
            for _ in range(given.rounds):
                for name, places, count in (
                    (names[0], [shared], 1),
                    (several, [shared], given.workers),
                    (apart, own, 1),
                    (far[0], [distant], 1),
                    (far[1], [distant], given.workers),
                ):
                    turns = _round(places, data, running, count)
                    for turn, found in zip(_TURNS, turns, strict=True):
                        rows[name, turn].append(found)
                        print(f"{name}, {turn}: {found}", file=sys.stderr, flush=True)
    medians: dict[tuple[str, str], dict[str, Any]] = {
        key: {name: statistics.median(row[name] for row in found) for name in found[0]}
        for key, found in rows.items()
    }
    one, many, alone, far_one, far_many = (medians[name, "second start"] for name in names)
    page.runs += [figures(", ".join(key), **row) for key, row in medians.items()]
    page.notes.append(_on_paper(many))
    bars = [
        Bar("CPU a push of one worker", one["us_a_push"], 12, at_least=False, unit="us"),
        Bar("CPU a push with several workers against one, at a distance", far_many["us_a_push"] / far_one["us_a_push"], 1.15, at_least=False),
        Bar("the same on one machine", many["us_a_push"] / one["us_a_push"], 1.15, at_least=False),
        Bar("the same against workers with a database each", many["us_a_push"] / alone["us_a_push"], 1.15, at_least=False),
        Bar("first devices intended", medians[several, "first start"]["intended_ms"], 1_000, at_least=False, unit="ms"),
        Bar("memory of a worker", many["peak_MB"], 300, at_least=False, unit="MB"),
    ]  # fmt: skip
    return finish(page, bars, given)
