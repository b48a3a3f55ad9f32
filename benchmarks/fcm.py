"""firebase-admin's ``sendEach`` of 500 messages beside 500 native POSTs over one HTTP/2 connection.

Needs node, and APNS_LIVE_NODE_MODULES with firebase-admin in it (see .ci/run).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, cast

import httpx

from apns_live.activities.store.sealing import new_key
from apns_live.bench.gateway import APP, STATE, Traffic, run_served, serve_app
from apns_live.bench.processes import SinkOptions, Worker, cores, sink, worker
from apns_live.bench.senders import provider_key
from apns_live.bench.service import new_app, opened
from apns_live.gateway import create_app
from apns_live.gateway.scopes import ALL, SENDING
from apns_live.gateway.wire.certificates import Certificates as GatewayCertificates
from apns_live.testing.certificates import LOCAL_NAMES, Certificates, certificates_in
from benchmarks.pages import Bar, figures, finish, options, result

GOOGLE = ("fcm.googleapis.com", "oauth2.googleapis.com")
HERE = Path(__file__).parent
REDIRECT = HERE.parent / "tests" / "gateway" / "fcm" / "redirect.js"


def serve(connection: Connection, address: str, port: int, ca_file: str, *files: str) -> None:
    """Serve the gateway with TLS, with a native key and a service account."""
    run_served(_serve(connection, address, port, ca_file, *files))


async def _serve(
    connection: Connection, address: str, port: int, ca_file: str, *files: str
) -> None:
    async with opened(address, new_key(), port, ca_file) as service:
        app = await new_app(service, APP, provider_key())
        served = create_app(service)
        keys = served.state.gateway.keys
        facts = {
            dialect: (await keys.create(app, dialect=dialect, scopes=SENDING, name=dialect))[1]
            for dialect in ("native", "fcm")
        }
        facts["registering"] = (await keys.create(app, scopes=ALL, name="registering"))[1]
        tls = {"host": "localhost", "certificates": GatewayCertificates(*map(Path, files))}
        await serve_app(connection, served, facts, **tls)


class Callers:
    """The Node process, and what it is asked for: an update of each of ``count`` activities."""

    def __init__(self, gateway: Worker, facts: dict[str, Any], count: int, node: Any) -> None:
        self._gateway = gateway
        self._facts = facts
        self._count = count
        self._in, self._out = cast("IO[bytes]", node.stdin), cast("IO[bytes]", node.stdout)
        self._number = 0

    def tell(self, asked: dict[str, Any]) -> None:
        """Write a line to the process."""
        self._in.write(json.dumps(asked).encode() + b"\n")

    def fcm(self) -> dict[str, float]:
        """Send an update to each phone with ``sendEach``."""
        self._number += 1
        aps = {"timestamp": int(time.time()) + self._number, "event": "update"}
        payload = {"aps": {**aps, "content-state": {**STATE, "n": self._number}}}
        tokens = (f"{number:064x}" for number in range(self._count))
        apns = [{"liveActivityToken": token, "payload": payload} for token in tokens]
        return self._round({"messages": [{"token": "x", "apns": one} for one in apns]})

    def native(self, count: int | None = None) -> dict[str, float]:
        """Send a POST of an update for each phone, or for ``count`` of them."""
        self._number += 1
        body = {"content_state": {**STATE, "n": self._number}}
        paths = (f"/v1/activities/a{index}/update" for index in range(count or self._count))
        calls = [{"path": path, "body": body} for path in paths]
        facts = self._facts
        return self._round({"url": facts["url"], "key": facts["native"], "calls": calls})

    def _round(self, asked: dict[str, Any]) -> dict[str, float]:
        begun = used = self._gateway.cpu()
        self.tell(asked)
        found: dict[str, float] = json.loads(self._out.readline())
        assert found.pop("count") == len(asked.get("messages") or asked["calls"])
        while (
            now := self._gateway.cpu()
        ) - used > 0.002:  # what is still to be sent is this round's
            used = now
            time.sleep(0.2)
        return {**found, "gateway": used - begun}


def measure(count: int, rounds: int, folder: Path) -> list[tuple[dict[str, float], ...]]:
    """Alternate the two callers, a warm-up of each first."""
    made = certificates_in(folder, (*LOCAL_NAMES, *GOOGLE))
    files = (str(made.certificate_file), str(made.key_file))
    server_core, other_core = cores()
    address = f"sqlite:///{folder}/live.db"
    with (
        sink(SinkOptions(), other_core) as apns,
        worker(
            "the gateway", serve, address, apns.port, apns.ca_file, *files, core=server_core
        ) as gateway,
    ):
        facts = gateway.receive()
        with httpx.Client(base_url=facts["url"], verify=made.client_context()) as client:
            for call in Traffic(count, 1, None).setup(facts["registering"]):
                head, _, body = call.partition(b"\r\n\r\n")
                headers = {"authorization": f"Bearer {facts['registering']}"}
                path = head.split(b" ", 2)[1].decode()
                headers["content-type"] = "application/json"
                client.post(path, content=body, headers=headers).raise_for_status()
        with _node(made, facts["port"]) as node:
            callers = Callers(gateway, facts, count, node)
            callers.tell({"account": json.loads(facts["fcm"])})
            callers.native(1)  # the key is known before a hundred calls come with it
            turns = [(callers.fcm(), callers.native()) for _ in range(rounds + 1)]
            node.kill()
    return turns[1:]


def _node(made: Certificates, port: int) -> subprocess.Popen[bytes]:
    module = Path(os.environ["APNS_LIVE_NODE_MODULES"]) / "firebase-admin"
    environment = {
        "FIREBASE_ADMIN": str(module),
        "NODE_EXTRA_CA_CERTS": str(made.ca_file),
        "NODE_OPTIONS": f"--require {REDIRECT}",
        "GATEWAY_PORT": str(port),
    }
    return subprocess.Popen(
        ["node", str(HERE / "fcm_client.js")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, **environment},
    )


def main(arguments: list[str]) -> int:
    """Measure and print the report."""
    parser = options("fcm", __doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=500)
    given = parser.parse_args(arguments)
    settings = {
        "callers": f"one Node process; each sends {given.count} updates over one HTTP/2 connection with TLS "
        "that it opens for the round, 100 (native: 64) at a time",
        "answers": "FCM's is what APNs said to the push; a native one says that the update is stored",
        "rounds": f"{given.rounds}, alternating",
    }
    found = result("fcm", "sendEach of firebase-admin beside native POSTs", settings)
    with tempfile.TemporaryDirectory(prefix="apns-live-bench-") as name:
        turns = measure(given.count, given.rounds, Path(name))
    for at, caller in enumerate(("sendEach", "native POSTs")):
        for turn, both in enumerate(turns):
            one = both[at]
            run = figures(caller, gateway_CPU_s=one["gateway"], client_CPU_s=one["cpu"])
            run.round, run.count, run.wall = turn, given.count, one["seconds"]
            found.runs.append(run)
    ratios = {
        name: statistics.median(fcm[name] / native[name] for fcm, native in turns)
        for name in ("seconds", "gateway")
    }
    found.notes.append(
        f"CPU of the gateway, pushes included: median of the ratios {ratios['gateway']:.2f}"
    )
    bar = Bar("time, median of the ratios", ratios["seconds"], 1.5, at_least=False)
    return finish(found, [bar], given)
