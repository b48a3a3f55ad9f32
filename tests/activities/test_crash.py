"""kill -9 at random points of mixed traffic, on both databases; afterwards everything is in order.

Five kills a database; ``APNS_LIVE_KILLS=100`` for the full count.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from apns_live.activities import Database, DeviceRecord, Sealer, Service, TokenRecord
from apns_live.activities.store import schema
from apns_live.activities.store.sealing import new_key
from apns_live.testing import FakeApns
from apns_live.testing.phones import PhoneSettings
from tests.activities.crash_roles import TYPE
from tests.warm import WarmCommand

KILLS = int(os.environ.get("APNS_LIVE_KILLS", "5"))
KILLS_A_RUN = 20
PHONES = 60
ACTIVITIES, STREAMS, SENDERS = 30, 10, 10
FOLLOWERS = 6
"""Phones of one activity: each phone has three activities and one stream."""
PATIENCE = 60.0
LAWS = PhoneSettings(token_delay=(0.02, 0.2), budget=None, start_budget=None)


class Run:
    """One fake with phones, one app, and the servers that are killed one after another."""

    def __init__(self, folder: Path, address: str, fake: FakeApns, seed: int) -> None:
        self.folder = folder
        self.address = address
        self.fake = fake
        self.draw = random.Random(seed)
        self.seed = seed
        self.sealing = new_key()
        self.app = f"run-{seed}"
        self.kills = 0
        self.starts: Counter[tuple[str, str]] = Counter()
        self.phone_of: dict[str, str] = {}
        # Counted here: a phone keeps its last notifications only.
        self.arrived: dict[str, dict[tuple[str, int], list[str]]] = {}
        self.activities = {
            **{f"match-{n}": self.followers(n) for n in range(ACTIVITIES)},
            **{f"stream-{n}": self.followers(n) for n in range(STREAMS)},
        }
        self.senders = {f"news-{n}": self.followers(n) for n in range(SENDERS)}
        fake.devices.on_token.append(self.on_token)
        fake.listen(self.on_push)

    @staticmethod
    def followers(number: int) -> list[str]:
        first = number * FOLLOWERS % PHONES
        return [f"user-{one}" for one in range(first, first + FOLLOWERS)]

    def on_token(self, device: Any, activity: Any, token: str) -> None:
        entry = {
            "device": device.id,
            "token": token,
            "registered_at": int(self.fake.clock.time() * 1000),
            "name": json.loads(activity.attributes)["name"],
        }
        with (self.folder / "tokens").open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def on_push(self, happening: Any) -> None:
        body = getattr(happening, "body", b"")
        if b'"event":"start"' in body:
            name = json.loads(body)["aps"]["attributes"]["name"]
            self.starts[happening.token, name] += 1
        elif phone := self.phone_of.get(getattr(happening, "token", "") if body else ""):
            told = json.loads(body)
            place = told["aps"]["alert"]["title"], told["n"]
            self.arrived[phone].setdefault(place, []).append(happening.collapse_id)

    async def prepare(self) -> None:
        """Register the app and its phones."""
        async with Service.open(self.address, sealing=Sealer(self.sealing)) as service:
            app = await service.apps.create(
                name="A", id=self.app, bundle_id=self.fake.bundle_id, environment="sandbox"
            )
            await service.apps.add_key(
                app,
                self.fake.key_file.read_text(),
                key_id=self.fake.key_id,
                team_id=self.fake.team_id,
                environment="any",
            )
            phones = [
                self.fake.devices.add_device(f"phone-{n}", attributes_types=[TYPE])
                for n in range(PHONES)
            ]
            self.arrived = {phone.id: {} for phone in phones}
            self.phone_of = {
                token.text: phone.id
                for phone in phones
                for token in phone.tokens
                if token.kind == "device"
            }
            await service.devices.tell(
                app, [DeviceRecord(id=f"phone-{n}", user=f"user-{n}") for n in range(PHONES)]
            )
            now = int(self.fake.clock.time() * 1000)
            await service.devices.register(
                app,
                [
                    TokenRecord(
                        device=phone.id,
                        kind=token.kind,
                        token=token.text,
                        registered_at=now,
                        scope=TYPE if token.kind == "start" else "",
                    )
                    for phone in phones
                    for token in phone.tokens
                    if token.kind in ("start", "device")
                ],
            )
        plan = {
            "folder": str(self.folder),
            "address": self.address,
            "sealing": self.sealing,
            "app": self.app,
            "seed": self.seed,
            "endpoint": self.fake.endpoint._asdict(),
            "activities": self.activities | self.senders,
        }
        (self.folder / "plan.json").write_text(json.dumps(plan))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[WarmCommand]:
        words = ["-m", "tests.activities.crash_roles", self.folder / "plan.json"]
        with WarmCommand(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            try:
                assert await asyncio.to_thread(process.stdout.readline) == b"serving\n"
                yield process
            finally:
                process.kill()
                await asyncio.to_thread(process.wait)

    async def kill(self) -> None:
        """Serve for a moment and be killed."""
        async with self.serving() as process:
            await asyncio.sleep(self.draw.uniform(0.0, 1.0))
            assert process.poll() is None, "it ended by itself"
        self.kills += 1

    async def finish(self) -> None:
        """Serve until every phone shows what it should, and end politely."""
        (self.folder / "enough").touch()
        give_up = asyncio.get_running_loop().time() + PATIENCE
        async with self.serving() as process:
            while not (self.finished() and await self.in_order()):
                assert process.poll() is None, "it ended by itself"
                assert asyncio.get_running_loop().time() < give_up, self.explain()
                await asyncio.sleep(0.05)
            process.stdin.close()
            assert await asyncio.to_thread(process.wait) == 0

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def explain(self) -> str:
        """Say what is still wrong."""
        cards = self.cards()
        wrong = [
            (place, (card.state, card.content, card.timestamp) if card else None)
            for place in sorted(self.not_shown())
            for card in [cards.get(place)]
        ]
        return (
            f"all asked: {self.finished()}; {len(wrong)} wrong: {wrong[:10]}; "
            f"not told: {sorted(self.not_told())[:10]}"
        )

    def finished(self) -> bool:
        return b'"finished"' in (self.folder / "log").read_bytes()

    def cards(self) -> dict[tuple[str, str], Any]:
        """The activities on phones, by phone and name."""
        return {
            (activity.device.id, json.loads(activity.attributes)["name"]): activity
            for activity in self.fake.devices.activities.values()
        }

    async def in_order(self) -> bool:
        """Whether each phone shows what it should.

        Missing are only cards whose start was reported as unknown, and did not come.
        """
        missing = self.not_shown()
        if missing & set(self.cards()) or not missing <= await self.unknown():
            return False
        return self.not_told() <= await self.unknown_notifications()

    def not_told(self) -> set[tuple[str, str]]:
        """Phones and operations of accepted notifications that have not arrived on them."""
        told: dict[str, list[str]] = {}
        for entry in self.log():
            if entry["what"] == "answered" and entry["name"] in self.senders:
                told.setdefault(entry["name"], []).append(entry["operation"])
        return {
            (phone, operation)
            for name, operations in told.items()
            for phone in (user.replace("user", "phone") for user in self.senders[name])
            for number, operation in enumerate(operations)
            if (name, number) not in self.arrived[phone]
        }

    def not_shown(self) -> set[tuple[str, str]]:
        """Phones and names whose card is not as it should be at the end."""
        asked: dict[str, list[str]] = {}
        for entry in self.log():
            if entry["what"] == "asked":
                asked.setdefault(entry["name"], []).append(entry["kind"])
        cards = self.cards()
        wrong = set()
        for name, users in self.activities.items():
            kinds = asked.get(name, [])
            for user in users:
                place = (user.replace("user", "phone"), name)
                card = cards.get(place)
                living = kinds[-1:] != ["end"]
                if card is None:
                    # One that was ended before it was started is nowhere, and stays so.
                    if living:
                        wrong.add(place)
                    continue
                state = json.loads(card.content)["n"]
                if (card.state == "active") != living or state != len(kinds) - 1:
                    wrong.add(place)
        return wrong

    async def unknown(self) -> set[tuple[str, str]]:
        """Phones and names whose start was reported as unknown."""
        outcomes, operations = schema.outcomes, schema.operations
        devices, activities = schema.devices, schema.activities
        query = (
            select(devices.c.public_id, activities.c.attributes)
            .select_from(outcomes)
            .join(operations, operations.c.id == outcomes.c.operation_id)
            .join(activities, activities.c.id == operations.c.activity_id)
            .join(devices, devices.c.id == outcomes.c.device_id)
            .join(schema.apps, schema.apps.c.id == outcomes.c.app_id)
            .where(
                schema.apps.c.public_id == self.app,
                operations.c.kind == "start",
                outcomes.c.verdict == "unknown",
            )
        )
        async with Database.open(self.address) as database, database.read() as connection:
            found = await connection.execute(query)
            return {(device, json.loads(attributes)["name"]) for device, attributes in found}

    async def unknown_notifications(self) -> set[tuple[str, str]]:
        """Phones and operations of notifications that were reported as unknown."""
        outcomes, operations, devices = schema.outcomes, schema.operations, schema.devices
        query = (
            select(devices.c.public_id, operations.c.public_id)
            .select_from(outcomes)
            .join(operations, operations.c.id == outcomes.c.operation_id)
            .join(devices, devices.c.id == outcomes.c.device_id)
            .where(operations.c.activity_id.is_(None), outcomes.c.verdict == "unknown")
        )
        async with Database.open(self.address) as database, database.read() as connection:
            return {(phone, row) for phone, row in await connection.execute(query)}

    async def operations(self) -> list[Any]:
        table = schema.operations
        async with Database.open(self.address) as database, database.read() as connection:
            found = await connection.execute(
                select(table)
                .join(schema.apps, schema.apps.c.id == table.c.app_id)
                .where(schema.apps.c.public_id == self.app)
            )
            return list(found.all())

    async def check(self) -> None:
        """Hold everything against what was asked and answered."""
        entries = self.log()
        asked = [entry["name"] for entry in entries if entry["what"] == "asked"]
        answered = [entry for entry in entries if entry["what"] == "answered"]
        assert Counter(asked) == Counter(entry["name"] for entry in answered)
        operations = await self.operations()
        promised = [entry["operation"] for entry in answered]
        assert len(set(promised)) == len(promised), "two requests got one answer"
        assert sorted(promised) == sorted(row.public_id for row in operations), (
            "an accepted operation was lost, or one was done twice"
        )
        assert {row.status for row in operations} <= {"done", "superseded"}
        assert max(self.starts.values()) == 1, "a start was sent twice"
        assert await self.in_order(), self.explain()
        self.check_repeats()

    def check_repeats(self) -> None:
        """No notification arrives twice, and few are in doubt."""
        assert all(len(ids) == 1 for told in self.arrived.values() for ids in told.values())
        assert len(self.not_told()) <= self.kills * SENDERS * FOLLOWERS


async def test_kills_at_random_points_lose_nothing_and_double_nothing(
    store_address: str, tmp_path: Path
) -> None:
    left = KILLS
    while left > 0:
        kills = min(left, KILLS_A_RUN)
        folder = tmp_path / f"run-{left}"
        folder.mkdir()
        async with FakeApns(
            devices="strict", phone_settings=LAWS, latency=0.005, spread=0.01
        ) as fake:
            run = Run(folder, store_address, fake, seed=left)
            await run.prepare()
            for _ in range(kills):
                await run.kill()
            await run.finish()
            await run.check()
        left -= kills
