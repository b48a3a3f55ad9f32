"""Three gateways behind a load balancer get a new schema and are replaced one at a time, under steady calls.

No call fails, no push is doubled, every phone ends at the newest state. The longest pauses of sending are printed, with
the step at which they began. The full load of ``make soak`` (``APNS_LIVE_ROLLING_RATE=200``) asserts them, and deploys over the
code of the schema before as well.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tarfile
from collections import Counter
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic.script import ScriptDirectory

from apns_live.activities.store import upgrade as upgrading
from apns_live.activities.store.database import Database
from apns_live.activities.store.upgrade import check, newest_version
from apns_live.testing import FakeApns
from apns_live.testing.phones import PhoneSettings
from tests.activities.databases import Server
from tests.activities.store.test_upgrade import at
from tests.chaos.cluster import PATIENCE, REPLICAS, Cluster, set_up
from tests.warm import WarmCommand

RATE = int(os.environ.get("APNS_LIVE_ROLLING_RATE", "10"))
"""Calls a second."""
LONGEST = 1.0 if RATE >= 200 else None
"""Seconds that sending may pause."""
ACTIVITIES = 2 * RATE
LAWS = PhoneSettings(token_delay=(0.0, 0.1), budget=None, start_budget=None)
DELAY = "5" if RATE >= 200 else "2"
"""Seconds that a stopping gateway still serves; HAProxy notices within two checks."""
WORDS = ("--stop-delay", DELAY, "--drain", "0.5", "--log-level", "warning")
ROOT = Path(__file__).parents[2]
UPGRADE = "apns_live/activities/store/upgrade.py"


class Line:
    """A keep-alive connection that makes calls one after the other: a full client would take most of the CPU."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._host, self._port = client.base_url.host, client.base_url.port
        self._head = f"host: gateway\r\nauthorization: {client.headers['authorization']}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """Make a call; return the status and the body of its answer. Raises OSError or EOFError."""
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        text = json.dumps(body).encode()
        head = f"{self._head}content-type: application/json\r\ncontent-length: {len(text)}"
        writer.write(f"POST {path} HTTP/1.1\r\n{head}\r\n\r\n".encode() + text)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines if line)
        answer = await reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            self.close()
        return int(first.split()[1]), answer

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = None


class Calls:
    """Who calls, and when what they were told to be accepted came to APNs."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.accepted: dict[str, list[float]] = {}
        """When the call with each state of an activity was answered."""
        self.arrived: dict[str, dict[int, float]] = {}
        """When each state of an activity came to APNs."""
        self.pushes: Counter[tuple[str, str, int]] = Counter()
        self.steps: list[tuple[float, str]] = []
        """When each step of the deploy began."""
        self.over = False
        self.time = asyncio.get_running_loop().time
        cluster.fake.listen(self._on_push)

    def _on_push(self, happening: Any) -> None:
        body = getattr(happening, "body", b"")
        if b'"content-state"' in body:
            aps = json.loads(body)["aps"]
            name, n = aps["content-state"]["name"], aps["content-state"]["n"]
            self.pushes[aps["event"], name, n] += 1
            self.arrived.setdefault(name, {}).setdefault(n, self.time())

    def step(self, title: str) -> None:
        """Note that a step of the deploy begins."""
        self.steps.append((self.time(), title))

    async def live(self, number: int) -> None:
        """Start an activity and update it steadily. Any call that fails ends the test."""
        name = f"match-{number}"
        begun = self.time() + 4 * number / RATE  # a start costs more than an update
        body: dict[str, Any] = {
            "id": name,
            "attributes_type": "Match",
            "attributes": {"name": name},
            "alert": {"title": "Kick-off", "body": "It begins"},
            "audience": {"users": [f"user-{number}"]},
        }
        path = "/v1/activities"
        answered = self.accepted[name] = []
        with closing(Line(self.cluster.client)) as line:
            while not self.over:
                n = len(answered)
                await asyncio.sleep(begun + n * ACTIVITIES / RATE - self.time())
                body["content_state"] = {"name": name, "n": n}
                try:
                    status, answer = await line.post(path, body)
                except (OSError, EOFError) as error:
                    status, answer = 0, repr(error).encode()
                assert status == 202, f"{status} {answer!r} in {self.steps[-1:]} at {self.time()}"
                answered.append(self.time())
                path, body = f"/v1/activities/{name}/update", {}

    def everybody_follows(self) -> bool:
        """Whether every card is up and its token known."""
        return len({name for event, name, _ in self.pushes if event == "update"}) == ACTIVITIES

    def behind(self) -> list[str]:
        """Return the activities whose newest state has not come to their phone."""
        newest = {name: len(answered) - 1 for name, answered in self.accepted.items()}
        return [name for name, n in newest.items() if n not in self.arrived.get(name, {})]

    def pauses(self) -> list[tuple[float, str]]:
        """Return the seconds from each accepted call until its state, or a newer one, came to APNs, longest first.

        Each with the step of the deploy in which the call was, and the seconds since that began.
        """
        found = []
        for name, answered in self.accepted.items():
            soonest = float("inf")
            for n, when in reversed([*enumerate(answered)]):
                soonest = min(soonest, self.arrived[name].get(n, soonest))
                if before := [step for step in self.steps if step[0] <= when]:
                    since, title = before[-1]
                    found.append((soonest - when, f"{title} + {when - since:.2f} s"))
        return sorted(found, reverse=True)


def version_before() -> str:
    """Return the version of the schema before this one."""
    script = ScriptDirectory.from_config(upgrading._config()).get_revision(newest_version())
    return str(script.down_revision)


def code_before(folder: Path) -> dict[str, str]:
    """Unpack the code that worked on the schema before; return the environment in which Python finds it."""
    git = ["git", "-C", str(ROOT)]
    changed = [*git, "log", "-1", "--format=%H", f"-S{upgrading.OLDEST}", "--", UPGRADE]
    commit = subprocess.check_output(changed, text=True).strip()
    packed = subprocess.check_output([*git, "archive", f"{commit}~1", "apns_live"])
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return {"PYTHONPATH": str(folder)}


async def deploy(calls: Calls, address: str) -> None:
    """Upgrade the schema, and replace the gateways one at a time, as an orchestrator does."""
    cluster = calls.cluster
    calls.step("upgrade")
    environment = {**os.environ, "APNS_LIVE_STORE": address}
    # In a thread: the first one starts the process that forks, which takes a while.
    process = await asyncio.to_thread(WarmCommand, ["store", "upgrade"], env=environment)
    assert await asyncio.to_thread(process.wait, PATIENCE) == 0
    for number, port in enumerate(cluster.ports, start=1):
        calls.step(f"stop {number}")
        await cluster.stop(port)
        calls.step(f"start {number}")
        await cluster.start(port)
    calls.step("end")


@pytest.mark.external("haproxy")
@pytest.mark.parametrize("before", [False, True] if RATE > 10 else [False])
async def test_nobody_notices_an_upgrade_and_three_replacements(
    postgres_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    address = postgres_server.create("rolling")
    version = version_before() if before else newest_version()
    async with Database.open(address) as database:
        await at(database, version)
    async with FakeApns(devices="strict", phone_settings=LAWS, latency=0.005) as fake:
        with monkeypatch.context() as lenient:  # what is set up needs nothing of the new schema
            lenient.setattr(upgrading, "OLDEST", version[:4])
            secrets = await set_up(fake, address, ACTIVITIES)
        cluster = Cluster(fake, [address] * REPLICAS, *secrets, WORDS)
        old = code_before(tmp_path) if before else None
        async with (
            cluster.balanced(tmp_path, check="10s", cold=old),
            asyncio.timeout(PATIENCE),
            asyncio.TaskGroup() as group,
        ):
            calls = Calls(cluster)
            while (await cluster.client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
            callers = [group.create_task(calls.live(number)) for number in range(ACTIVITIES)]
            while not calls.everybody_follows():
                await asyncio.sleep(0.05)
            await deploy(calls, address)
            calls.over = True
            await asyncio.gather(*callers)
            while calls.behind():
                await asyncio.sleep(0.05)
    async with Database.open(address) as database:
        await check(database)
    postgres_server.drop(address)
    count, pauses = sum(map(len, calls.accepted.values())), calls.pauses()
    print(
        f"{count} calls at {RATE} a second from {version}, {len(calls.pushes)} pushes; longest pauses:"
    )
    print(*(f"{seconds:.3f} s after a call at {when}" for seconds, when in pauses[:12]), sep="\n")
    assert [push for push, times in calls.pushes.items() if times > 1] == []
    if LONGEST is not None:
        assert pauses[0][0] < LONGEST
