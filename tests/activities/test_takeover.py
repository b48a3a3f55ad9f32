"""Workers over one PostgreSQL are stopped past their lease and killed -9; afterwards every phone is right.

A process that accepts, two that send, one fake APNs. Safety alone is asserted: every phone at the newest
state, every end arrived, no start twice, nothing hangs. One round; ``APNS_LIVE_TAKEOVERS=30`` for more.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select

from apns_live.activities import (
    AlertText,
    App,
    Audience,
    DeviceRecord,
    End,
    Key,
    Presentation,
    Sealer,
    Service,
    Start,
    TokenRecord,
    Update,
)
from apns_live.activities.store import schema
from apns_live.activities.store.sealing import new_key
from apns_live.errors import Busy, StoreError
from apns_live.testing import FakeApns
from apns_live.testing.phones import PhoneSettings

ROUNDS = int(os.environ.get("APNS_LIVE_TAKEOVERS", "1"))
SEED = int(os.environ.get("APNS_LIVE_TAKEOVER_SEED", "1"))
LEASE = 2.0
PHONES, ACTIVITIES, FOLLOWERS = 8, 6, 4
PATIENCE = 60.0
LAWS = PhoneSettings(token_delay=(0.02, 0.6), budget=None, start_budget=None)


async def again(call: Callable[[], Awaitable[Any]]) -> None:
    """Repeat a call until the database takes it."""
    while True:
        try:
            await call()
        except (Busy, StoreError):
            await asyncio.sleep(0.1)
        else:
            return


class Cast:
    """One fake with phones, a service that accepts, and the processes that send."""

    def __init__(self, fake: FakeApns, front: Service, app: App, plan: Path) -> None:
        self.fake = fake
        self.front = front
        self.app = app
        self.plan = plan
        self.draw = random.Random(SEED)
        self.newest: dict[str, tuple[str, int]] = {}
        """Status and state of each activity, as its caller was answered."""
        self.starts: Counter[tuple[str, str]] = Counter()
        self.states: dict[str, int] = {}
        """The newest state that was pushed to each token."""
        self.history: Counter[str] = Counter()
        self.tokens: asyncio.Queue[TokenRecord] = asyncio.Queue()
        self.over = False
        fake.devices.on_token.append(self._on_token)
        fake.listen(self._on_push)

    def _on_token(self, device: Any, activity: Any, token: str) -> None:
        self.tokens.put_nowait(
            TokenRecord(
                device=device.id,
                kind="activity",
                token=token,
                registered_at=int(self.fake.clock.time() * 1000),
                scope=json.loads(activity.attributes)["name"],
            )
        )

    def _on_push(self, happening: Any) -> None:
        body = getattr(happening, "body", b"")
        if b'"event":' not in body:
            return
        aps = json.loads(body)["aps"]
        self.history[f"{aps['event']} pushes"] += 1
        if aps["event"] == "start":
            self.starts[happening.token, aps["attributes"]["name"]] += 1
            return
        n, before = aps["content-state"]["n"], self.states.get(happening.token, -1)
        self.states[happening.token] = max(n, before)
        self.history["repeated"] += n == before
        self.history["overtaken"] += n < before

    # Callers.

    async def register(self) -> None:
        """Hand in what phones got, to the process that does not send."""
        while True:
            record = await self.tokens.get()
            register = self.front.tokens.register_activity_tokens
            await again(partial(register, self.app, [record]))

    async def live(self, number: int) -> None:
        """Start, update and end activities one after the other; at the end one goes on living."""
        first = number * FOLLOWERS % PHONES
        users = tuple(f"user-{one % PHONES}" for one in range(first, first + FOLLOWERS))
        activities, life = self.front.activities, 0
        while True:
            name, n = f"match-{number}-{life}", 0
            start = Start(
                id=name,
                attributes_type="Match",
                attributes={"name": name},
                content_state={"n": 0},
                presentation=Presentation(alert=AlertText(title="Kick-off", body="It begins")),
                audience=Audience(users=users),
            )
            key = Key(caller="test", key=name)
            await again(partial(activities.start, self.app, start, key=key))
            self.history["calls"] += 1
            self.newest[name] = ("active", 0)
            for n in range(1, self.draw.randint(3, 20)):
                await asyncio.sleep(self.draw.uniform(0.0, 0.5))
                update = Update(id=name, content_state={"n": n})
                await again(partial(activities.update, self.app, update))
                self.history["calls"] += 1
                self.newest[name] = ("active", n)
                if self.over:
                    return
            end = End(id=name, content_state={"n": n + 1})
            await again(partial(activities.end, self.app, end))
            self.history["calls"] += 1
            self.newest[name] = ("ended", n + 1)
            life += 1

    # Those who send.

    async def worker(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.activities.takeover_worker",
            str(self.plan),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"serving\n"
        return process

    async def one_round(self, workers: list[asyncio.subprocess.Process]) -> None:
        """Stop one worker past its lease, kill the other while it has everything, go on with the first."""
        stopped, killed = self.draw.sample(range(2), 2)
        await asyncio.sleep(self.draw.uniform(0.2, 1.0))
        workers[stopped].send_signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE * self.draw.uniform(0.5, 2.0))
        workers[killed].kill()
        await asyncio.sleep(LEASE * self.draw.uniform(0.0, 1.5))
        workers[stopped].send_signal(signal.SIGCONT)
        await workers[killed].wait()
        workers[killed] = await self.worker()

    # What is to hold.

    def wrong(self) -> list[tuple[str, str, tuple[str, int], tuple[str, int]]]:
        """Cards that do not say what they should: device, activity, what it says, what it should."""
        found = []
        for card in self.fake.devices.activities.values():
            name = json.loads(card.attributes)["name"]
            says = card.state, json.loads(card.content)["n"]
            if name in self.newest and says != self.newest[name]:
                found.append((card.device.id, name, says, self.newest[name]))
        return found

    async def open_operations(self) -> list[tuple[str, str, int]]:
        table = schema.operations
        async with self.front.database.read() as connection:
            rows = await connection.execute(
                select(table.c.kind, table.c.status, table.c.activity_id).where(
                    table.c.finished_at.is_(None)
                )
            )
            return [(row.kind, row.status, row.activity_id) for row in rows]

    async def come_to_rest(self) -> None:
        give_up = asyncio.get_running_loop().time() + PATIENCE
        while self.wrong() or not self.tokens.empty() or await self.open_operations():
            assert asyncio.get_running_loop().time() < give_up, (
                f"seed {SEED}: {self.wrong()[:5]}, open: {(await self.open_operations())[:5]}"
            )
            await asyncio.sleep(0.05)


@asynccontextmanager
async def a_cast(address: str, folder: Path) -> AsyncIterator[Cast]:
    sealing = new_key()
    async with (
        FakeApns(devices="strict", phone_settings=LAWS, latency=0.005, spread=0.01) as fake,
        Service.open(address, sealing=Sealer(sealing), send=False) as front,
    ):
        app = await front.apps.create(
            name="A", id="scores", bundle_id=fake.bundle_id, environment="sandbox"
        )
        await front.apps.add_key(
            app,
            fake.key_file.read_text(),
            key_id=fake.key_id,
            team_id=fake.team_id,
            environment="any",
        )
        phones = [
            fake.devices.add_device(f"phone-{n}", attributes_types=["Match"]) for n in range(PHONES)
        ]
        await front.devices.tell(
            app, [DeviceRecord(id=f"phone-{n}", user=f"user-{n}") for n in range(PHONES)]
        )
        now = int(fake.clock.time() * 1000)
        await front.devices.register(
            app,
            [
                TokenRecord(
                    device=phone.id,
                    kind="start",
                    token=token.text,
                    registered_at=now,
                    scope="Match",
                )
                for phone in phones
                for token in phone.tokens
                if token.kind == "start"
            ],
        )
        plan = folder / "plan.json"
        plan.write_text(
            json.dumps(
                {
                    "address": address,
                    "sealing": sealing,
                    "lease": LEASE,
                    "endpoint": fake.endpoint._asdict(),
                }
            )
        )
        yield Cast(fake, front, app, plan)


async def test_workers_that_are_stopped_and_killed_leave_every_phone_right(
    postgres_store: str, tmp_path: Path
) -> None:
    async with a_cast(postgres_store, tmp_path) as cast:
        workers = [await cast.worker(), await cast.worker()]
        registering = asyncio.create_task(cast.register())
        callers = [asyncio.create_task(cast.live(number)) for number in range(ACTIVITIES)]
        try:
            for _ in range(ROUNDS):
                await cast.one_round(workers)
                for task in (registering, *callers):
                    if task.done():
                        task.result()
            cast.over = True
            await asyncio.wait_for(asyncio.gather(*callers), PATIENCE)
            await cast.come_to_rest()
            assert not registering.done()
        finally:
            registering.cancel()
            for task in callers:
                task.cancel()
            for worker in workers:
                if worker.returncode is None:
                    worker.kill()
                    await worker.wait()
        cast.history["cards"] = len(cast.fake.devices.activities)
        print(f"{ROUNDS} rounds, seed {SEED}: {dict(cast.history)}")
        assert max(cast.starts.values()) == 1, "a start was sent twice"
        assert not cast.history["overtaken"], "an older state was pushed behind a newer one"
