"""Mixed calls through the load balancer for one round, and the history of what became of them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from typing import Any

import httpx

from apns_live.testing.state import Push as FakePush
from tests.chaos.cluster import Cluster
from tests.chaos.history import Card, History, Push, Write

FOLLOWERS = 3
AGAIN = frozenset({408, 429, 502, 503, 504})
"""Statuses after which a caller repeats its call: whether anything was stored is not known."""
TIMEOUT = 4.0
"""Seconds after which a caller gives an attempt up."""


class Traffic:
    """Callers of a cluster; everything that they do follows from ``seed``. ``prefix`` begins each name."""

    def __init__(self, cluster: Cluster, phones: int, seed: str, prefix: str) -> None:
        self.cluster = cluster
        self.history = History(writes=[], pushes=[])
        self.over = False
        self.operations: dict[tuple[str, str], str] = {}
        """The operation of an activity's start, and of others by name and kind the last one."""
        self._phones = phones
        self._seed = seed
        self._prefix = prefix
        self._clock = asyncio.get_running_loop().time
        self._stop_listening = cluster.fake.listen(self._on_push)

    # What arrives at APNs.

    def _on_push(self, happening: Any) -> None:
        mine = f'"{self._prefix}-'.encode()
        if not isinstance(happening, FakePush) or mine not in happening.body:
            return
        body = json.loads(happening.body)
        aps = body["aps"]
        event = aps.get("event", "notification")
        name, state = body.get("name"), 0
        if event != "notification":
            name, state = aps["content-state"]["name"], aps["content-state"]["n"]
        token = self.cluster.fake.devices.token(happening.token)
        self.history.pushes.append(
            Push(
                at=self._clock(),
                device=token.device.id if token else "",
                token=happening.token,
                event=event,
                name=name,
                state=state,
                apns_id=happening.apns_id,
                priority=happening.priority,
                alert="alert" in aps,
            )
        )

    # Callers.

    def callers(self) -> list[Coroutine[Any, Any, None]]:
        """Return the callers: two of activities, two that share one, one of a stream, one of the rest."""
        return [
            self._activities("match-0", random.Random(f"{self._seed} 0")),
            self._activities("match-1", random.Random(f"{self._seed} 1")),
            self._shared(random.Random(f"{self._seed} 2")),
            self._streams(random.Random(f"{self._seed} 3")),
            self._others(random.Random(f"{self._seed} 4")),
        ]

    def _start(self, name: str, number: int) -> dict[str, Any]:
        followers = [(number + one) % self._phones for one in range(FOLLOWERS)]
        return {
            "attributes_type": "Match",
            "attributes": {"name": name},
            "content_state": {"name": name, "n": 0},
            "alert": {"title": "Kick-off", "body": "It begins"},
            "audience": {"users": [f"user-{one}" for one in followers]},
        }

    async def _activities(self, title: str, draw: random.Random) -> None:
        """Start, update and end activities one after the other; the last one goes on living."""
        life = 0
        while not self.over:
            name, path = f"{self._prefix}-{title}-{life}", "/v1/activities"
            start = {"id": name, **self._start(name, draw.randrange(self._phones))}
            await self._write(draw, "start", name, 0, "POST", path, start)
            n = 0
            for n in range(1, draw.randint(4, 25)):
                await asyncio.sleep(draw.uniform(0.0, 0.4))
                await self._update(draw, name, n)
                if self.over:
                    return
            body = {"content_state": {"name": name, "n": n + 1}}
            await self._write(draw, "end", name, n + 1, "POST", f"{path}/{name}/end", body)
            life += 1

    async def _update(self, draw: random.Random, name: str, n: int) -> None:
        body: dict[str, Any] = {"content_state": {"name": name, "n": n}}
        if draw.random() < 0.15:
            body["alert"] = {"title": "Goal", "body": "It is in"}
        await self._write(draw, "update", name, n, "POST", f"/v1/activities/{name}/update", body)

    async def _shared(self, draw: random.Random) -> None:
        """Two callers update one activity at the same time."""
        name = f"{self._prefix}-shared"
        start = {"id": name, **self._start(name, 0)}
        await self._write(draw, "start", name, 0, "POST", "/v1/activities", start)

        async def one(mine: random.Random, n: int) -> None:
            while not self.over:
                await asyncio.sleep(mine.uniform(0.0, 0.5))
                await self._update(mine, name, n)
                n += 2

        async with asyncio.TaskGroup() as group:
            group.create_task(one(random.Random(draw.random()), 1))
            group.create_task(one(random.Random(draw.random()), 2))

    async def _streams(self, draw: random.Random) -> None:
        """Put states of a stream and end it, again and again."""
        life = 0
        while not self.over:
            name = f"{self._prefix}-stream-{life}"
            body = self._start(name, draw.randrange(self._phones))
            n, path = 0, f"/v1/streams/{name}"
            for n in range(draw.randint(2, 12)):
                body["content_state"] = {"name": name, "n": n}
                await self._write(draw, "update" if n else "start", name, n, "PUT", path, body)
                await asyncio.sleep(draw.uniform(0.0, 0.5))
                if self.over:
                    return
            end = {"content_state": {"name": name, "n": n + 1}}
            await self._write(draw, "end", name, n + 1, "DELETE", path, end)
            life += 1

    async def _others(self, draw: random.Random) -> None:
        """Send notifications, and tell of devices."""
        number = 0
        while not self.over:
            name, phone = f"{self._prefix}-news-{number}", draw.randrange(self._phones)
            body = {
                "title": "News",
                "body": "Read on",
                "custom": {"name": name},
                "audience": {"users": [f"user-{phone}"]},
            }
            await self._write(draw, "notification", name, 0, "POST", "/v1/notifications", body)
            device = {"user": f"user-{phone}", "app_version": f"1.{number}"}
            await self.answered("PUT", f"/v1/devices/phone-{phone}", device)
            await asyncio.sleep(draw.uniform(0.1, 0.8))
            number += 1

    async def _write(
        self,
        draw: random.Random,
        kind: str,
        name: str,
        state: int,
        method: str,
        path: str,
        body: Any,
    ) -> None:
        """Make a call until it is answered; now and then twice at once, or again afterwards."""
        users = body.get("audience", {}).get("users", ())
        devices = tuple(one.replace("user", "phone") for one in users)
        write = Write(name=name, kind=kind, state=state, begun=self._clock(), devices=devices)
        self.history.writes.append(write)
        headers = {"idempotency-key": f"{name}-{kind}-{state}"}

        async def attempt() -> None:
            answer = await self.answered(method, path, body, headers)
            write.answered = min(write.until, self._clock())
            write.answers.append(json.dumps(answer))
            self.operations[name, kind] = answer["operation"]

        chance = draw.random()
        if chance < 0.1:
            async with asyncio.TaskGroup() as group:
                group.create_task(attempt())
                group.create_task(attempt())
        else:
            await attempt()
            if chance < 0.2:
                await attempt()

    async def answered(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Any:
        """Make a call until it is answered; fail for an answer that no fault explains."""
        request = self.cluster.client.build_request(
            method, path, json=body, headers=headers, timeout=TIMEOUT
        )
        while True:
            try:
                answer = await self.cluster.client.send(request)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code not in AGAIN:
                assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
                return answer.json() if answer.content else None
            await asyncio.sleep(0.1)

    # The end of the round.

    async def until(self, ready: Callable[[], object]) -> None:
        """Return when something holds."""
        while not ready():
            await asyncio.sleep(0.02)

    def cards(self) -> list[Card]:
        """Return what the phones show."""
        shown = self.cluster.fake.devices.activities.values()
        said = [(card, json.loads(card.content)) for card in shown]
        return [
            Card(
                device=card.device.id,
                name=says["name"],
                ended=card.state != "active",
                state=says["n"],
            )
            for card, says in said
            if says["name"].startswith(f"{self._prefix}-")
        ]

    def close(self) -> None:
        """Hear of no more pushes."""
        self._stop_listening()
