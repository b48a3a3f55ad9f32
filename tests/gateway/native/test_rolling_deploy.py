"""Three gateways behind a load balancer get a new schema and are replaced one at a time, under steady calls.

No call fails, no push is doubled, every phone ends at the newest state. The longest pause of sending is printed, and
asserted with the full load of ``make soak`` (``APNS_LIVE_ROLLING_RATE=200``).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from apns_live.activities import DeviceRecord, Sealer, Service, TokenRecord
from apns_live.activities.store.database import Database
from apns_live.activities.store.sealing import new_key
from apns_live.activities.store.upgrade import OLDEST, check
from apns_live.gateway import create_app
from apns_live.gateway.scopes import ALL
from apns_live.testing import FakeApns
from apns_live.testing.phones import PhoneSettings
from tests.activities.databases import Server
from tests.activities.store.test_upgrade import at
from tests.programs import program
from tests.servers import free_port
from tests.warm import WarmCommand

RATE = int(os.environ.get("APNS_LIVE_ROLLING_RATE", "10"))
"""Calls a second."""
LONGEST = 1.0 if RATE >= 200 else None
"""Seconds that sending may pause."""
ACTIVITIES, REPLICAS = 2 * RATE, 3
PATIENCE = 240.0
LAWS = PhoneSettings(token_delay=(0.0, 0.1), budget=None, start_budget=None)
PROXY = Path(__file__).parents[3] / "deploy" / "haproxy.cfg"


class Deployment:
    """The gateways, what stands before them, and who calls."""

    def __init__(self, fake: FakeApns, address: str, sealing: str) -> None:
        self.fake = fake
        self.environment = {"APNS_LIVE_STORE": address, "APNS_LIVE_STORE_KEY": sealing}
        self.ports = [free_port() for _ in range(REPLICAS)]
        self.replicas: dict[int, subprocess.Popen[str]] = {}
        self.front = free_port()
        self.accepted: dict[str, list[float]] = {}
        """When the call with each state of an activity was answered."""
        self.arrived: dict[str, dict[int, float]] = {}
        """When each state of an activity came to APNs."""
        self.pushes: Counter[tuple[str, str, int]] = Counter()
        self.begun = 0.0
        """When the deploy began."""
        self.over = False
        fake.listen(self._on_push)

    def _on_push(self, happening: Any) -> None:
        body = getattr(happening, "body", b"")
        if b'"content-state"' in body:
            aps = json.loads(body)["aps"]
            name, n = aps["content-state"]["name"], aps["content-state"]["n"]
            self.pushes[aps["event"], name, n] += 1
            now = asyncio.get_running_loop().time()
            self.arrived.setdefault(name, {}).setdefault(n, now)

    # Replicas.

    async def start(self, port: int) -> None:
        """Start a gateway, and return when the load balancer sends calls to it."""
        words = ["gateway", "--host", "127.0.0.1", "--port", str(port), "--json"]
        words += ["--stop-delay", "3", "--drain", "0.5", "--apns", self.fake.url]
        words += ["--apns-ca", str(self.fake.ca_file)]
        process: subprocess.Popen[str] = WarmCommand(
            words, stdout=subprocess.PIPE, text=True, env={**os.environ, **self.environment}
        )
        self.replicas[port] = process
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline)

    async def replace(self, port: int) -> None:
        """Stop a gateway as an orchestrator does, and start another in its place."""
        before = self.replicas[port]
        before.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(before.wait, PATIENCE) == 0
        ended(before)
        await self.start(port)

    async def upgrade(self) -> None:
        words = ["store", "upgrade"]
        with WarmCommand(words, env={**os.environ, **self.environment}) as process:
            assert await asyncio.to_thread(process.wait, PATIENCE) == 0

    @asynccontextmanager
    async def balanced(self, folder: Path) -> AsyncIterator[None]:
        """Run HAProxy with the configuration of deploy/ before the gateways."""
        text = PROXY.read_text("utf-8").replace("bind :8080", f"bind 127.0.0.1:{self.front}")
        text = text.replace("maxconn 20000", "maxconn 500")
        text, servers = re.sub(r"(?m)^    server .*\n", "", text), "    timeout check 10s\n"
        for port in self.ports:
            servers += f"    server s{port} 127.0.0.1:{port} check inter 200ms fall 2 rise 1\n"
        file = folder / "haproxy.cfg"
        file.write_text(text + servers)
        process = await asyncio.create_subprocess_exec(
            program("haproxy"),
            "-db",
            "-f",
            str(file),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.terminate()
            await process.wait()

    # Callers.

    async def live(self, client: httpx.AsyncClient, number: int) -> None:
        """Start an activity and update it steadily. Any call that fails ends the test."""
        name = f"match-{number}"
        loop = asyncio.get_running_loop()
        begun = loop.time() + number / RATE
        body: dict[str, Any] = {
            "id": name,
            "attributes_type": "Match",
            "attributes": {"name": name},
            "alert": {"title": "Kick-off", "body": "It begins"},
            "audience": {"users": [f"user-{number}"]},
        }
        path = "/v1/activities"
        answered = self.accepted[name] = []
        while not self.over:
            n = len(answered)
            await asyncio.sleep(begun + n * ACTIVITIES / RATE - loop.time())
            body["content_state"] = {"name": name, "n": n}
            answer = await client.post(path, json=body)
            assert answer.status_code == 202, answer.text
            answered.append(loop.time())
            path, body = f"/v1/activities/{name}/update", {}

    async def register(self, client: httpx.AsyncClient, tokens: asyncio.Queue[Any]) -> None:
        """Hand in the tokens of cards, as their apps do."""
        while True:
            given = [await tokens.get()]
            while not tokens.empty():
                given.append(tokens.get_nowait())
            answer = await client.post("/v1/tokens", json={"tokens": given})
            assert answer.status_code == 200, answer.text

    # What is to hold.

    def behind(self) -> list[str]:
        """Return the activities whose newest state has not come to their phone."""
        newest = {name: len(answered) - 1 for name, answered in self.accepted.items()}
        return [name for name, n in newest.items() if n not in self.arrived.get(name, {})]

    def longest_pause(self) -> float:
        """Return the most seconds from an accepted call until its state, or a newer one, came to APNs."""
        longest = 0.0
        for name, answered in self.accepted.items():
            soonest = float("inf")
            for n, when in reversed([*enumerate(answered)]):
                soonest = min(soonest, self.arrived[name].get(n, soonest))
                if when >= self.begun:
                    longest = max(longest, soonest - when)
        return longest


def ended(process: subprocess.Popen[str]) -> None:
    """Let go of a process; end it if it runs."""
    if process.poll() is None:
        process.kill()
    process.communicate()


@asynccontextmanager
async def a_deployment(address: str, folder: Path) -> AsyncIterator[tuple[Deployment, str]]:
    """Give a deployment whose database knows an app and a phone for each activity, and an API key."""
    sealing = new_key()
    async with FakeApns(devices="strict", phone_settings=LAWS, latency=0.005) as fake:
        async with Service.open(address, sealing=Sealer(sealing), send=False) as service:
            app = await service.apps.create(
                name="A", id="scores", bundle_id=fake.bundle_id, environment="sandbox"
            )
            await service.apps.add_key(
                app,
                fake.key_file.read_text(),
                key_id=fake.key_id,
                team_id=fake.team_id,
                environment="any",
            )
            keys = create_app(service).state.gateway.keys
            _, secret = await keys.create(app, scopes=ALL, name="server")
            people, tokens = [], []
            for number in range(ACTIVITIES):
                phone = fake.devices.add_device(f"phone-{number}", attributes_types=["Match"])
                people.append(DeviceRecord(id=phone.id, user=f"user-{number}"))
                start = phone.token_of("start", "Match")
                assert start is not None
                tokens.append(
                    TokenRecord(
                        device=phone.id,
                        kind="start",
                        token=start.text,
                        registered_at=int(fake.clock.time() * 1000),
                        scope="Match",
                    )
                )
            await service.devices.tell(app, people)
            await service.devices.register(app, tokens)
        deployment = Deployment(fake, address, sealing)
        async with deployment.balanced(folder):
            try:
                yield deployment, secret
            finally:
                for process in deployment.replicas.values():
                    ended(process)


@pytest.mark.external("haproxy")
async def test_nobody_notices_an_upgrade_and_three_replacements(
    postgres_server: Server, tmp_path: Path
) -> None:
    address = postgres_server.create("rolling")
    async with Database.open(address) as database:
        await at(database, OLDEST)
    async with a_deployment(address, tmp_path) as (deployment, secret):
        tokens: asyncio.Queue[Any] = asyncio.Queue()

        def on_token(device: Any, activity: Any, token: str) -> None:
            name = json.loads(activity.attributes)["name"]
            card = {"device": device.id, "kind": "activity", "activity": name, "token": token}
            tokens.put_nowait({"attributes_type": "Match", **card})

        deployment.fake.devices.on_token.append(on_token)
        client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{deployment.front}",
            headers={"authorization": f"Bearer {secret}"},
            timeout=30,
        )
        await asyncio.gather(*(deployment.start(port) for port in deployment.ports))
        async with client, asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.05)
            registering = group.create_task(deployment.register(client, tokens))
            callers = [group.create_task(deployment.live(client, n)) for n in range(ACTIVITIES)]
            while (
                len({name for event, name, _ in deployment.pushes if event == "update"})
                < ACTIVITIES
            ):
                await asyncio.sleep(0.05)  # until every card is up and its token known
            deployment.begun = asyncio.get_running_loop().time()
            await deployment.upgrade()
            for port in deployment.ports:
                await deployment.replace(port)
            deployment.over = True
            await asyncio.gather(*callers)
            while deployment.behind():
                await asyncio.sleep(0.05)
            registering.cancel()
        async with Database.open(address) as database:
            await check(database)
        calls = sum(map(len, deployment.accepted.values()))
        print(
            f"{calls} calls at {RATE} a second, {len(deployment.pushes)} pushes, "
            f"longest pause {deployment.longest_pause():.3f} s"
        )
        assert [push for push, count in deployment.pushes.items() if count > 1] == []
        if LONGEST is not None:
            assert deployment.longest_pause() < LONGEST
    postgres_server.drop(address)
