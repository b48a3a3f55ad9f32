"""How many fully checked pushes a second the fake APNs answers, with phones behind it.

``python -m benchmarks fake [--seconds 8] [--tokens 100000] [--quiet]``. The fake is a program on
one core; the load comes from this process on another: our own client connection without pool,
retries or outcomes, so that the sender is not what is measured. Every push has its own apns-id
and one of many device tokens, a real signed provider token, and the fake checks all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jwt

from apns_live.http2 import ClientConnection, Indexing, PreparedHeaders, ResponseReceived
from benchmarks.pages import Bar, figures, finish, options, result

BAR = 30_000


class Load(asyncio.Protocol):
    """Keeps one connection as full as its peer allows."""

    def __init__(
        self, headers: PreparedHeaders, paths: list[bytes], body: bytes, statuses: dict[int, int]
    ) -> None:
        self.http = ClientConnection(authority=b"localhost")
        self.headers = headers
        self.paths = itertools.cycle(paths)
        self.body = body
        self.statuses = statuses
        self.serial = itertools.count(1)
        self.running = True
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self.transport = transport  # type: ignore[assignment]
        self.http.start()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Count answers and send as many new requests."""
        for event in self.http.receive(data):
            if isinstance(event, ResponseReceived):
                self.statuses[event.status] = self.statuses.get(event.status, 0) + 1
        http, body = self.http, self.body
        while self.running and http.available_streams and http.room_for(len(body)):
            identifier = b"%08x-0000-4000-8000-000000000000" % next(self.serial)
            http.send_request(self.headers, next(self.paths), identifier, body)
        self._flush()

    def _flush(self) -> None:
        data = self.http.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)


def provider_token(ready: dict[str, str]) -> bytes:
    """Return the authorization header's value."""
    token = jwt.encode(
        {"iss": ready["team_id"], "iat": int(time.time())},
        Path(ready["key_file"]).read_text(),
        algorithm="ES256",
        headers={"kid": ready["key_id"]},
    )
    return f"bearer {token}".encode()


def processor_seconds(process_id: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def payload() -> bytes:
    """Return an update of about 350 bytes."""
    state = {"home": 71, "away": 68, "period": "Q3", "clock": 412.5, "lastPlay": "y" * 200}
    return json.dumps(
        {"aps": {"timestamp": int(time.time()), "event": "update", "content-state": state}}
    ).encode()


async def measure(ready: dict[str, str], given: argparse.Namespace, pid: int) -> dict[str, Any]:
    """Send for a while; return counts, seconds and the server's CPU seconds."""
    headers = PreparedHeaders(
        [
            (b"authorization", provider_token(ready), Indexing.VALUE),
            (
                b"apns-topic",
                f"{ready['bundle_id']}.push-type.liveactivity".encode(),
                Indexing.VALUE,
            ),
            (b"apns-push-type", b"liveactivity", Indexing.VALUE),
            (b"apns-priority", b"10", Indexing.VALUE),
            (b"apns-expiration", str(int(time.time()) + 3600).encode(), Indexing.VALUE),
        ]
    )
    paths = [b"/3/device/%0160x" % (number * 2654435761) for number in range(given.tokens)]
    context = ssl.create_default_context(cafile=ready["ca_file"])
    context.set_alpn_protocols(["h2"])
    port = int(ready["endpoint"].rpartition(":")[2])
    loop = asyncio.get_running_loop()
    statuses: dict[int, int] = {}
    loads = []
    for _ in range(given.connections):
        load = Load(headers, paths, payload(), statuses)
        await loop.create_connection(lambda each=load: each, "localhost", port, ssl=context)
        loads.append(load)
    # Every phone is met once before the clock runs: making a phone is not what is measured.
    while sum(statuses.values()) < given.tokens:  # noqa: ASYNC110 - a benchmark may poll
        await asyncio.sleep(0.05)
    before, begin, cpu = sum(statuses.values()), time.perf_counter(), processor_seconds(pid)
    own = time.process_time()
    await asyncio.sleep(given.seconds)
    seen = {
        "pushes": sum(statuses.values()) - before,
        "seconds": time.perf_counter() - begin,
        "server_cpu": processor_seconds(pid) - cpu,
        "own_cpu": time.process_time() - own,
        "statuses": dict(statuses),
    }
    for load in loads:
        load.running = False
        if load.transport is not None:
            load.transport.abort()
    return seen


def main(arguments: list[str]) -> int:
    """Measure, print, and say whether the bar is met."""
    parser = options("fake", __doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=4)
    given = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "apns_live.testing", "--no-inspector", "--dir", directory]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            ready = json.loads(server.stdout.readline())
            if len(cores) > 1:
                os.sched_setaffinity(server.pid, {cores[0]})
                os.sched_setaffinity(0, {cores[1]})
            seen = asyncio.run(measure(ready, given, server.pid))
            memory = Path(f"/proc/{server.pid}/status").read_text()
        finally:
            server.terminate()
            server.wait(20)
            os.sched_setaffinity(0, set(cores))
    resident = next(line for line in memory.splitlines() if line.startswith("VmRSS"))
    settings = {
        "connections": str(given.connections),
        "device tokens": f"{given.tokens:,}, each a phone with an activity",
        "body": f"{len(payload())} bytes, the same for all; its JSON is decoded by the phones",
        "server": f"exit code {server.returncode}, {resident.split(':')[1].strip()} resident",
        "statuses": json.dumps(seen["statuses"]),
    }
    found = result("fake", "The fake APNs: fully checked pushes a second, phones on", settings)
    run = figures("the fake", server_CPU_us=seen["server_cpu"] / seen["pushes"] * 1e6)
    run.count, run.wall, run.cpu = seen["pushes"], seen["seconds"], seen["own_cpu"]
    run.sink_busy = seen["server_cpu"] / seen["seconds"]
    found.runs = [run]
    bar = Bar("fully checked pushes on one core", run.rate, BAR, unit="pushes/s")
    return finish(found, [bar], given)
