"""The gateway under load: update calls beside an empty route, latency at half load, overload, kill -9."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

from apns_live.testing import FakeApns
from benchmarks.conditions import conditions
from benchmarks.gateway_load import Load, post, run
from benchmarks.gateway_servers import BUNDLE_ID, TYPE
from benchmarks.report import Bar, Report

STATE = {
    "home": {"name": "FCB", "score": 1, "cards": [3, 17]},
    "away": {"name": "BVB", "score": 0, "cards": []},
    "minute": 12,
    "period": "first half",
    "headline": "A shot from far away, and the keeper has it",
}


@contextlib.asynccontextmanager
async def server(
    *arguments: str,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """Run one of the servers; yields process and ready line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.gateway_servers",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield process, json.loads(line)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


class Bench:
    """A fake APNs in this process, and one activity with one phone for each connection."""

    def __init__(self, fake: FakeApns, directory: Path, count: int) -> None:
        self.fake = fake
        self.directory = directory
        self.count = count
        self.asked = [0] * count
        self.accepted = [0] * count
        self.phones: list[Any] = []

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the gateway's process is started with."""
        fake = self.fake
        return (
            "gateway",
            str(self.directory),
            str(fake.endpoint.port),
            str(fake.ca_file),
            str(fake.key_file),
            fake.key_id,
            fake.team_id,
        )

    async def fill(self, ready: dict[str, Any], verify: str | bool = True) -> None:
        """Let every phone start an activity itself and hand its token in."""
        tokens: list[dict[str, str]] = []
        for index in range(self.count):
            name = f"phone-{index}"
            phones = self.fake.devices
            phone = phones.add_device(name, bundle_id=BUNDLE_ID, attributes_types=[TYPE])
            phones.start_activity(phone, TYPE, {"activityId": f"a{index}"}, {"n": 0})
            token = phone.token_of("activity", TYPE)
            assert token is not None
            self.phones.append(phone)
            tokens.append(
                {
                    "device": name,
                    "kind": "activity",
                    "activity": f"a{index}",
                    "attributes_type": TYPE,
                    "token": token.text,
                }
            )
        async with self.client(ready, verify) as client:
            for first in range(0, self.count, 500):
                body = {"tokens": tokens[first : first + 500]}
                (await client.post("/v1/tokens", json=body)).raise_for_status()

    def client(self, ready: dict[str, Any], verify: str | bool = True) -> httpx.AsyncClient:
        """Return a client of the gateway; ``verify`` names the authority to trust."""
        trust = ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify
        return httpx.AsyncClient(
            base_url=ready["url"],
            headers={"authorization": f"Bearer {ready['key']}"},
            timeout=30,
            verify=trust,
        )

    def requests(self, key: str, count: int | None = None) -> list[Callable[[], bytes]]:
        """Return a maker of requests for each connection: each its own activity, states in order."""

        def maker(index: int) -> Callable[[], bytes]:
            path = f"/v1/activities/a{index}/update"

            def make() -> bytes:
                self.asked[index] += 1
                number = self.asked[index]
                body = {"content_state": {**STATE, "n": number}, "revision": number}
                return post(path, json.dumps(body).encode(), key)

            return make

        return [maker(index) for index in range(count or self.count)]

    def answered(self, index: int, _: bytes) -> None:
        """Remember the newest state that was accepted: one request a connection is under way."""
        self.accepted[index] = self.asked[index]

    async def shown(self, within: float) -> int:
        """Wait until every phone shows the newest accepted state; return how many do not."""
        until = time.monotonic() + within
        while True:
            behind = sum(
                phone.activities[-1].content_state["n"] < accepted
                for phone, accepted in zip(self.phones, self.accepted, strict=True)
            )
            if not behind or time.monotonic() > until:
                return behind
            await asyncio.sleep(0.25)


def place(ready: dict[str, Any]) -> tuple[str, int]:
    """Return host and port of a ready line."""
    url = httpx.URL(ready["url"])
    return url.host, int(url.port or 80)


def memory(pid: int) -> float:
    """Return what a process keeps in memory, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def ratio(bench: Bench, ready: dict[str, Any], rounds: int, seconds: float) -> list[Load]:
    """Alternate rounds on the empty route and on the gateway; return them in that order."""
    loads: list[Load] = []
    async with server("empty") as (_, plain):
        for _ in range(rounds):
            loads.append(await run(*place(plain), bench.requests(""), seconds=seconds))
            loads.append(
                await run(
                    *place(ready),
                    bench.requests(ready["key"]),
                    seconds=seconds,
                    answered=bench.answered,
                )
            )
    return loads


async def accept_path(report: Report, given: argparse.Namespace, directory: Path) -> None:
    """Rate beside the empty route, then latency at half of it."""
    async with FakeApns(directory=directory / "fake", bundle_id=BUNDLE_ID) as fake:
        bench = Bench(fake, directory, given.connections)
        async with server(*bench.arguments) as (process, ready):
            await bench.fill(ready)
            await run(
                *place(ready), bench.requests(ready["key"]), seconds=1, answered=bench.answered
            )
            loads = await ratio(bench, ready, given.rounds, given.seconds)
            plain, ours = loads[::2], loads[1::2]
            for number, (one, other) in enumerate(zip(plain, ours, strict=True), 1):
                report.rows.append(
                    (
                        f"round {number}",
                        f"{one.rate:,.0f}",
                        f"{other.rate:,.0f}",
                        f"{other.rate / one.rate:.3f}",
                        f"{other.quantile(0.99) * 1000:.0f} ms",
                    )
                )
            bad = sum(
                count for load in ours for status, count in load.answers.items() if status != 202
            )
            median = statistics.median(b.rate / a.rate for a, b in zip(plain, ours, strict=True))
            report.bars.append(Bar("rate beside the empty route, median", median, 0.25))
            report.bars.append(Bar("answers that were not 202", bad, 0, at_least=False))
            half = statistics.median(load.rate for load in ours) / 2
            load = await run(
                *place(ready),
                bench.requests(ready["key"]),
                seconds=given.seconds * 2,
                rate=half,
                answered=bench.answered,
            )
            report.rows.append(
                ("half load", "", f"{load.rate:,.0f}", "", f"{load.quantile(0.99) * 1000:.0f} ms")
            )
            report.bars.append(
                Bar("p99 at half load", load.quantile(0.99) * 1000, 150, at_least=False, unit="ms")
            )
            behind = await bench.shown(20)
            report.bars.append(
                Bar("phones behind the newest accepted state", behind, 0, at_least=False)
            )
            report.notes.append(f"memory of the gateway afterwards: {memory(process.pid):.0f} MB")


async def overload(report: Report, given: argparse.Namespace, directory: Path) -> None:
    """Ten times the connections in a closed loop, then kill -9, a restart, and the count."""
    count = given.overload
    async with FakeApns(directory=directory / "fake", bundle_id=BUNDLE_ID) as fake:
        bench = Bench(fake, directory, count)
        async with server(*bench.arguments) as (process, ready):
            await bench.fill(ready)
            loading = asyncio.create_task(
                run(
                    *place(ready),
                    bench.requests(ready["key"]),
                    seconds=given.overload_seconds,
                    answered=bench.answered,
                )
            )
            await asyncio.sleep(10)
            early = memory(process.pid)
            await asyncio.sleep(given.overload_seconds - 12)
            late = memory(process.pid)
            process.kill()
            load = await loading
            await process.wait()
        refused = sum(load.answers[status] for status in (429, 503))
        report.rows.append(
            (
                f"{count} connections",
                "",
                f"{load.answers[202] / (load.ended - load.began):,.0f}",
                f"{refused:,} refused",
                f"{load.quantile(0.99) * 1000:.0f} ms",
            )
        )
        report.bars += [
            Bar(
                "longest refusal", max(load.late_refusals, default=0.0), 1, at_least=False, unit="s"
            ),
            Bar("refusals without Retry-After", load.without_retry_after, 0, at_least=False),
            Bar("refusals", refused, 1),
            Bar("memory growth after 10 s", (late / early - 1) * 100, 20, at_least=False, unit="%"),
        ]
        report.notes.append(
            f"memory under overload: {early:.0f} MB at 10 s, {late:.0f} MB at the end"
        )
        async with server(*bench.arguments):
            behind = await bench.shown(60)
        report.bars.append(
            Bar("phones behind after kill -9 and restart", behind, 0, at_least=False)
        )
        ahead = sum(
            phone.activities[-1].content_state["n"] > asked
            for phone, asked in zip(bench.phones, bench.asked, strict=True)
        )
        report.bars.append(Bar("phones with a state nobody asked for", ahead, 0, at_least=False))


def main(arguments: list[str]) -> int:
    """Run the phases and print the report."""
    parser = argparse.ArgumentParser(prog="benchmarks gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--overload", type=int, default=640)
    parser.add_argument("--overload-seconds", type=float, default=40.0)
    parser.add_argument("--only", choices=("rate", "overload"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args(arguments)
    report = Report("gateway", "The gateway under load", conditions())
    report.settings = {
        "server": "one process, uvicorn with httptools and uvloop, HTTP/1.1 on loopback, SQLite (WAL, synchronous NORMAL)",
        "load": f"{given.connections} keep-alive connections in a closed loop, each updates its own "
        "activity, which one simulated phone follows; client and fake APNs share the other core",
        "beside": "a FastAPI route that takes the same body as JSON and answers, same server",
        "rounds": f"{given.rounds} of {given.seconds:g} s, alternating",
    }
    report.columns = ("phase", "empty route/s", "updates/s", "ratio", "p99")
    with tempfile.TemporaryDirectory(prefix="apns-live-bench-") as name:
        if given.only != "overload":
            asyncio.run(accept_path(report, given, _folder(name, "rate")))
        if given.only != "rate":
            asyncio.run(overload(report, given, _folder(name, "overload")))
    print(report.json() if given.json else report.text())
    if given.record:
        report.record()
    return 0 if report.met else 1


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent) / name
    folder.mkdir()
    return folder
