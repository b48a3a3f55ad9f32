"""Gateways behind HAProxy over one database, with a fake APNs and phones whose apps register their tokens."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from apns_live.activities import DeviceRecord, Sealer, Service, TokenRecord
from apns_live.activities.store.sealing import new_key
from apns_live.gateway import create_app
from apns_live.gateway.scopes import ALL
from apns_live.testing import FakeApns
from tests.programs import program
from tests.servers import free_port
from tests.warm import WarmCommand

PATIENCE = 240.0
REPLICAS = 3
PROXY = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"


class Cluster:
    """The gateways, the load balancer before them, and a client of it.

    ``addresses`` are of the database, one as each gateway sees it; ``words`` are further options of a gateway.
    """

    def __init__(
        self,
        fake: FakeApns,
        addresses: Sequence[str],
        sealing: str,
        secret: str,
        words: Sequence[str],
    ) -> None:
        self.fake = fake
        self.ports = [free_port() for _ in addresses]
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.client = httpx.AsyncClient(headers={"authorization": f"Bearer {secret}"}, timeout=30)
        self._addresses = dict(zip(self.ports, addresses, strict=True))
        self._sealing = sealing
        self._words = ["--apns", fake.url, "--apns-ca", str(fake.ca_file), *words]
        self.registered: dict[str, float] = {}
        """When the first token of an activity, by its attribute ``name``, was registered."""
        self._names: dict[str, str] = {}
        self._tokens: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        fake.devices.on_token.append(self._on_token)

    # Gateways.

    def environment(self, port: int) -> dict[str, str]:
        """Return the environment of a gateway's process."""
        store = {"APNS_LIVE_STORE": self._addresses[port], "APNS_LIVE_STORE_KEY": self._sealing}
        return {**os.environ, **store}

    async def start(
        self, port: int, module: Sequence[str] = (), cold: Mapping[str, str] | None = None
    ) -> None:
        """Start a gateway; return when it serves.

        ``module`` runs instead of the command; with ``cold``, variables of the environment, Python itself is started.
        """
        words = ["gateway", "--host", "127.0.0.1", "--port", str(port), "--json", *self._words]
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
        # In a thread: the first command starts the process that forks, which takes a while.
        if cold is None:
            begin: Callable[[], subprocess.Popen[str]] = partial(
                WarmCommand, [*module, *words], env=self.environment(port), **options
            )
        else:
            command = [sys.executable, "-m", "apns_live.cli", *words]
            begin = partial(
                subprocess.Popen, command, env={**self.environment(port), **cold}, **options
            )
        process = await asyncio.to_thread(begin)
        self.processes[port] = process
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline), "the gateway did not start"

    async def stop(self, port: int) -> None:
        """Stop a gateway as an orchestrator does."""
        process = self.processes.pop(port)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE) == 0
        process.communicate()

    async def kill(self, port: int) -> None:
        """Kill a gateway."""
        process = self.processes.pop(port)
        process.kill()
        await asyncio.to_thread(process.communicate)

    @asynccontextmanager
    async def balanced(
        self, folder: Path, *, check: str, cold: Mapping[str, str] | None = None
    ) -> AsyncIterator[None]:
        """Run HAProxy with the configuration of deploy/ before the gateways, which `start` starts.

        ``check`` is the timeout of its health checks.
        """
        front = free_port()
        text = PROXY.read_text("utf-8").replace("bind :8080", f"bind 127.0.0.1:{front}")
        text = text.replace("maxconn 20000", "maxconn 500")
        text, servers = re.sub(r"(?m)^    server .*\n", "", text), f"    timeout check {check}\n"
        for port in self.ports:
            servers += f"    server s{port} 127.0.0.1:{port} check inter 200ms fall 2 rise 1\n"
        file = folder / "haproxy.cfg"
        file.write_text(text + servers)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = await asyncio.create_subprocess_exec(
            program("haproxy"), "-db", "-f", file, **quiet
        )
        self.client.base_url = httpx.URL(f"http://127.0.0.1:{front}")
        registering = asyncio.create_task(self._register())
        try:
            async with self.client:
                await asyncio.gather(*(self.start(port, cold=cold) for port in self.ports))
                yield
                assert not registering.done(), registering
        finally:
            registering.cancel()
            process.terminate()
            await process.wait()
            for port in [*self.processes]:
                self.processes[port].send_signal(signal.SIGCONT)
                await self.kill(port)

    # What phones do.

    def _on_token(self, device: Any, activity: Any, token: str) -> None:
        name = json.loads(activity.attributes)["activityId"]
        card = {"device": device.id, "kind": "activity", "activity": name, "token": token}
        self._names[token] = json.loads(activity.attributes)["name"]
        self._tokens.put_nowait({"attributes_type": "Match", **card})

    async def _register(self) -> None:
        """Hand in the tokens of cards, as their apps do."""
        while True:
            given = [await self._tokens.get()]
            while not self._tokens.empty():
                given.append(self._tokens.get_nowait())
            while not await self._registered(given):
                await asyncio.sleep(0.1)

    async def _registered(self, given: list[dict[str, Any]]) -> bool:
        with suppress(httpx.TransportError):
            answer = await self.client.post("/v1/tokens", json={"tokens": given}, timeout=2)
            assert answer.status_code in {200, 502, 503, 504}, answer.text
            if answer.status_code == 200:
                for one in given:
                    name = self._names.pop(one["token"])
                    self.registered.setdefault(name, asyncio.get_running_loop().time())
                return True
        return False


async def set_up(
    fake: FakeApns, address: str, phones: int, *, budget: str | None = None
) -> tuple[str, str]:
    """Make an app with phones, each of a user of its own; return the sealing key and the secret of an API key."""
    sealing = new_key()
    async with Service.open(address, sealing=Sealer(sealing), send=False) as service:
        app = await service.apps.create(
            name="A", id="scores", bundle_id=fake.bundle_id, environment="sandbox"
        )
        key = fake.key_file.read_text()
        await service.apps.add_key(
            app, key, key_id=fake.key_id, team_id=fake.team_id, environment="any"
        )
        if budget is not None:
            app = await service.apps.configure(app, {"budget": budget})
        _, secret = await create_app(service).state.gateway.keys.create(
            app, scopes=ALL, name="server"
        )
        people, tokens = [], []
        now = int(fake.clock.time() * 1000)
        for number in range(phones):
            phone = fake.devices.add_device(f"phone-{number}", attributes_types=["Match"])
            people.append(DeviceRecord(id=phone.id, user=f"user-{number}"))
            tokens += [
                TokenRecord(
                    device=phone.id,
                    kind=kind,
                    token=token.text,
                    registered_at=now,
                    scope=token.attributes_type or "",
                )
                for kind in ("start", "device")
                if (token := phone.token_of(kind)) is not None
            ]
        await service.devices.tell(app, people)
        await service.devices.register(app, tokens)
    return sealing, secret
