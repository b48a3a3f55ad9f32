"""firebase-admin's ``sendEach`` of 500 messages beside 500 native POSTs over one HTTP/2 connection.

Needs node, and APNS_LIVE_NODE_MODULES with firebase-admin in it (see .ci/run).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from apns_live.testing import FakeApns
from apns_live.testing.certificates import LOCAL_NAMES, certificates_in
from benchmarks.conditions import conditions
from benchmarks.gateway import STATE, Bench, server
from benchmarks.gateway_servers import BUNDLE_ID
from benchmarks.report import Bar, Report

GOOGLE = ("fcm.googleapis.com", "oauth2.googleapis.com")
REDIRECT = Path(__file__).parents[1] / "tests" / "gateway" / "fcm" / "redirect.js"
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Callers:
    """The Node process, and what it is asked for."""

    def __init__(
        self, bench: Bench, ready: dict[str, Any], node: asyncio.subprocess.Process
    ) -> None:
        self._bench = bench
        self._ready = ready
        self._node = node
        self._number = 0

    async def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Run a round; return what it took."""
        assert self._node.stdin is not None
        assert self._node.stdout is not None
        self._node.stdin.write(json.dumps(asked).encode() + b"\n")
        if "account" in asked:
            return {}
        line = await self._node.stdout.readline()
        assert line, "the client failed; see above"
        found: dict[str, Any] = json.loads(line)
        return found

    async def fcm(self) -> dict[str, Any]:
        """Send an update to each phone with ``sendEach``."""
        self._number += 1
        messages = []
        for phone in self._bench.phones:
            aps = {
                "timestamp": int(time.time()) + self._number,
                "event": "update",
                "content-state": {**STATE, "n": self._number},
            }
            token = phone.activities[-1].token.text
            messages.append(
                {"token": "x", "apns": {"liveActivityToken": token, "payload": {"aps": aps}}}
            )
        return await self._round({"messages": messages})

    async def native(self) -> dict[str, Any]:
        """Send a POST of an update for each phone."""
        self._number += 1
        calls = [
            {
                "path": f"/v1/activities/a{index}/update",
                "body": {"content_state": {**STATE, "n": self._number}},
            }
            for index in range(self._bench.count)
        ]
        return await self._round(
            {"url": self._ready["url"], "key": self._ready["key"], "calls": calls}
        )

    async def _round(self, asked: dict[str, Any]) -> dict[str, Any]:
        pushes = self._bench.fake.log.pushes
        before = len(pushes)
        begun = cpu(self._ready["pid"])
        found = await self.ask(asked)
        assert found["count"] == self._bench.count
        async with asyncio.timeout(60):  # what is still to be sent is not the next round's work
            while len(pushes) - before < self._bench.count:  # noqa: ASYNC110 - another process sends
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        return {**found, "gateway": cpu(self._ready["pid"]) - begun}


async def measure(report: Report, given: argparse.Namespace, directory: Path) -> None:
    """Alternate the two callers, a warm-up of each first."""
    module = Path(os.environ["APNS_LIVE_NODE_MODULES"]) / "firebase-admin"
    certificates = certificates_in(directory, (*LOCAL_NAMES, *GOOGLE))
    files = (str(certificates.certificate_file), str(certificates.key_file))
    async with FakeApns(directory=directory / "fake", bundle_id=BUNDLE_ID) as fake:
        bench = Bench(fake, directory, given.count)
        async with server(*bench.arguments, *files) as (process, ready):
            await bench.fill(ready, verify=str(certificates.ca_file))
            node = await asyncio.create_subprocess_exec(
                "node",
                str(Path(__file__).with_name("fcm_client.js")),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=2**24,
                env={
                    **os.environ,
                    "FIREBASE_ADMIN": str(module),
                    "NODE_EXTRA_CA_CERTS": str(certificates.ca_file),
                    "NODE_OPTIONS": f"--require {REDIRECT}",
                    "GATEWAY_PORT": ready["url"].rpartition(":")[2],
                },
            )
            callers = Callers(bench, {**ready, "pid": process.pid}, node)
            try:
                await callers.ask({"account": ready["account"]})
                await callers.fcm()
                await callers.native()
                rounds = [
                    (await callers.fcm(), await callers.native()) for _ in range(given.rounds)
                ]
            finally:
                node.kill()
                await node.wait()
    for number, (fcm, native) in enumerate(rounds, 1):
        report.rows.append(
            (
                f"round {number}",
                *(
                    f"{one[name]:.2f} s"
                    for one in (fcm, native)
                    for name in ("seconds", "gateway", "cpu")
                ),
                f"{fcm['seconds'] / native['seconds']:.2f}",
            )
        )
    for name, what in (("seconds", "time"), ("gateway", "CPU of the gateway, pushes included")):
        ratio = statistics.median(fcm[name] / native[name] for fcm, native in rounds)
        if name == "seconds":
            report.bars.append(Bar(f"{what}, median of the ratios", ratio, 1.5, at_least=False))
        else:
            report.notes.append(f"{what}: median of the ratios {ratio:.2f}")


def main(arguments: list[str]) -> int:
    """Measure and print the report."""
    parser = argparse.ArgumentParser(prog="benchmarks fcm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args(arguments)
    report = Report("fcm", "sendEach of firebase-admin beside native POSTs", conditions())
    report.settings = {
        "callers": f"one Node process; each sends {given.count} updates over one HTTP/2 connection with TLS "
        "that it opens for the round, 100 (native: 90) at a time",
        "answers": "FCM's is what APNs said to the push; a native one says that the update is stored",
        "rounds": f"{given.rounds}, alternating",
    }
    report.columns = (
        "round",
        "sendEach",
        "its gateway CPU",
        "its client CPU",
        "native",
        "its gateway CPU",
        "its client CPU",
        "ratio",
    )
    with tempfile.TemporaryDirectory(prefix="apns-live-bench-") as name:
        asyncio.run(measure(report, given, Path(name)))
    print(report.json() if given.json else report.text())
    if given.record:
        report.record()
    return 0 if report.met else 1
