"""Phones that hand in their activity token after a start: one token a call, over HTTP.

The activity is on every phone before the load begins, as after a start; each call names another phone.
CPU is that of the gateway's process alone. A FastAPI route that only parses the same body stands beside.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import literal, select

from apns_live.activities.accept.activities import Activities
from apns_live.activities.apps import App, Apps
from apns_live.activities.people.devices import Devices
from apns_live.activities.people.records import DeviceRecord
from apns_live.activities.requests import AlertText, Presentation, Start
from apns_live.activities.requests.audience import Audience
from apns_live.activities.store import schema
from apns_live.activities.store.database import Database
from apns_live.activities.store.upgrade import upgrade
from apns_live.activities.times import milliseconds
from apns_live.cli.gateway import embedded_sealer
from apns_live.clock import SystemClock
from apns_live.testing import FakeApns
from benchmarks.conditions import conditions
from benchmarks.gateway import Bench, place, server
from benchmarks.gateway_load import Load, post, run
from benchmarks.gateway_servers import APP, BUNDLE_ID, TYPE
from benchmarks.report import Bar, Report

ACTIVITY = "match"
STARTED = 300_000
"""Phones of the start that the bar speaks of."""
NOT_MISSED = 3_600_000
"""Milliseconds that the start lies ahead, so that no phone is reported for its missing token."""


async def fill(directory: Path, fake: FakeApns, phones: int) -> None:
    """Make the app, the phones, and an activity that was started on all of them."""
    clock = SystemClock()
    async with Database.open(directory / "live.db") as database:
        await upgrade(database)
        apps = Apps(database, embedded_sealer(directory), clock, lambda: APP)
        app = await apps.create(id=APP, name=APP, bundle_id=BUNDLE_ID, environment="sandbox")
        await apps.add_key(
            app,
            fake.key_file.read_text(),
            key_id=fake.key_id,
            team_id=fake.team_id,
            environment="any",
        )
        devices = Devices(database, clock)
        for first in range(0, phones, 1_000):
            numbers = range(first, min(first + 1_000, phones))
            await devices.tell(app, [DeviceRecord(id=f"phone-{number}") for number in numbers])
        await _start(database, app)


async def _start(database: Database, app: App) -> None:
    numbers = itertools.count()
    activities = Activities(database, SystemClock(), lambda: f"operation-{next(numbers)}")
    request = Start(
        id=ACTIVITY,
        attributes_type=TYPE,
        content_state={"n": 0},
        presentation=Presentation(alert=AlertText(title="Kick-off", body="It begins")),
        audience=Audience(everyone=True),
    )
    await activities.start(app, request)
    members, owners = schema.activity_devices, schema.devices
    async with database.write() as connection:
        activity = await connection.scalar(select(schema.activities.c.id))
        values = {
            "app_id": owners.c.app_id,
            "activity_id": literal(activity),
            "device_id": owners.c.id,
            "environment": literal("sandbox"),
            "started_at": literal(milliseconds(SystemClock()) + NOT_MISSED),
            "acknowledged_version": literal(1),
        }
        await connection.execute(
            members.insert().from_select(list(values), select(*values.values()))
        )


def calls(key: str, connections: int, numbers: itertools.count[int]) -> list[Callable[[], bytes]]:
    """Return a maker of requests for each connection: every request is another phone's."""

    def make() -> bytes:
        number = next(numbers)
        token = {
            "device": f"phone-{number}",
            "kind": "activity",
            "activity": ACTIVITY,
            "token": f"{number:064x}",
        }
        return post("/v1/tokens", json.dumps({"tokens": [token]}).encode(), key)

    return [make] * connections


class Round:
    """One round of load on one process: what it answered, and what that took of its CPU."""

    def __init__(self, load: Load, cpu: float) -> None:
        self.load = load
        done = load.answers[200] + load.answers[202]
        self.each = cpu / max(done, 1) * 1000
        """CPU for each call that was answered with 200 or 202, milliseconds."""


async def measured(pid: int, work: Any) -> Round:
    """Run the load; take the process's CPU before and after."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    load = await work
    after = process.cpu_times()
    return Round(load, after.user + after.system - before.user - before.system)


async def rounds(given: argparse.Namespace, directory: Path) -> tuple[list[Round], list[Round]]:
    """Return the rounds on the empty route and those on the gateway; they alternate."""
    plain: list[Round] = []
    ours: list[Round] = []
    async with FakeApns(directory=directory / "fake", bundle_id=BUNDLE_ID) as fake:
        await fill(directory, fake, given.phones)
        bench = Bench(fake, directory, given.connections)
        async with server("empty") as (other, empty), server(*bench.arguments) as (process, ready):
            beside = bench.requests("")
            numbers = itertools.count()
            for _ in range(given.rounds):
                work = run(*place(empty), beside, seconds=given.seconds)
                plain.append(await measured(other.pid, work))
                requests = calls(ready["key"], given.connections, numbers)
                work = run(*place(ready), requests, seconds=given.seconds)
                ours.append(await measured(process.pid, work))
    return plain, ours


def main(arguments: list[str]) -> int:
    """Run the rounds and print the report."""
    parser = argparse.ArgumentParser(prog="benchmarks registrations", description=__doc__)
    parser.add_argument("--phones", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="apns-live-bench-") as name:
        plain, ours = asyncio.run(rounds(given, Path(name)))
    report = Report("registrations", "Activity tokens, one a call", conditions())
    report.settings = {
        "server": "one process, uvicorn with httptools and uvloop, HTTP/1.1 on loopback, SQLite (WAL, synchronous NORMAL)",
        "load": f"POST /v1/tokens with one token on {given.connections} keep-alive connections in a closed "
        f"loop; {given.phones:,} phones that have the activity, each call another one; the rounds after "
        "these tell of new phones",
        "beside": "a FastAPI route that takes a body as JSON and answers, same server",
        "rounds": f"{given.rounds} of {given.seconds:g} s, alternating; CPU is user and system of the process",
    }
    report.columns = ("round", "empty route ms", "calls/s", "CPU ms a call", "p99")
    report.rows = [
        (
            str(number),
            f"{one.each:.3f}",
            f"{other.load.rate:,.0f}",
            f"{other.each:.3f}",
            f"{other.load.quantile(0.99) * 1000:.0f} ms",
        )
        for number, (one, other) in enumerate(zip(plain, ours, strict=True), 1)
    ]
    rate = statistics.median(one.load.rate for one in ours)
    bad = sum(count for one in ours for status, count in one.load.answers.items() if status != 200)
    report.bars = [
        Bar(
            "CPU a call, median",
            statistics.median(one.each for one in ours),
            0.5,
            at_least=False,
            unit="ms",
        ),
        Bar("calls a second, median", rate, 2_000),
        Bar(f"{STARTED:,} phones", STARTED / rate, 180, at_least=False, unit="s"),
        Bar("answers that were not 200", bad, 0, at_least=False),
    ]
    print(report.json() if given.json else report.text())
    if given.record:
        report.record()
    return 0 if report.met else 1
