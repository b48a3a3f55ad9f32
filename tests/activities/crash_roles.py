"""The server of the kill test: a service with callers that ask again what was not answered.

``python -m tests.activities.crash_roles PLAN.json`` prints a line when it serves. It asks for starts,
updates, ends, stream puts and notifications with idempotency keys, registers the tokens that phones
handed in, and writes down what was asked and answered, each line before the next step. With ``enough``
in its folder each activity gets its last state or its end, and each sender of notifications its last. When its standard input closes it settles and ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import select

from apns_live import Endpoint
from apns_live.activities import (
    AlertText,
    Audience,
    End,
    Key,
    Notify,
    Presentation,
    Sealer,
    Service,
    ServiceSettings,
    Start,
    TokenRecord,
    Update,
)
from apns_live.activities.store import schema

TYPE = "Match"
ALERT = Presentation(alert=AlertText(title="Kick-off", body="It begins"))
PACE = (0.0, 0.06)


class Log:
    """What was asked and answered, also by those who were killed before."""

    def __init__(self, path: Path) -> None:
        self.asked: dict[str, list[str]] = {}
        self.answered: dict[str, list[str]] = {}
        self.registered = 0
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            match entry["what"]:
                case "asked":
                    self.asked.setdefault(entry["name"], []).append(entry["kind"])
                case "answered":
                    self.answered.setdefault(entry["name"], []).append(entry["operation"])
                case "registered":
                    self.registered = entry["lines"]
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, **entry: Any) -> None:
        os.write(self._file, json.dumps(entry).encode() + b"\n")


class Caller:
    """One activity's caller, or one sender of notifications: one request at a time, each with its key."""

    def __init__(self, service: Service, app: Any, name: str, users: list[str], log: Log) -> None:
        self.service = service
        self.app = app
        self.name = name
        self.users = tuple(users)
        self.log = log

    async def live(self, enough: Path, draw: random.Random) -> None:
        asked = self.log.asked.setdefault(self.name, [])
        answered = self.log.answered.setdefault(self.name, [])
        if answered:
            again = await self.ask(len(answered) - 1, asked[len(answered) - 1])
            assert again == (answered[-1], True), "an answered request was done again"
        while True:
            number = len(answered)
            if number == len(asked):
                last = asked[-1:] in (["end"], ["last"])
                if last:
                    return
                kind = "start" if number == 0 else "update"
                if self.name.startswith("news"):
                    kind = "last" if enough.exists() else "notification"
                elif number and enough.exists():
                    kind = "end" if self.name.endswith(("0", "2", "4", "6", "8")) else "last"
                self.log.write(what="asked", name=self.name, kind=kind)
                asked.append(kind)
            operation, _ = await self.ask(number, asked[number])
            self.log.write(what="answered", name=self.name, operation=operation)
            answered.append(operation)
            await asyncio.sleep(draw.uniform(*PACE))

    async def ask(self, number: int, kind: str) -> tuple[str, bool]:
        key = Key(caller=self.name, key=f"{self.name}-{number}")
        state = {"n": number}
        if self.name.startswith("news"):
            told = Notify(
                audience=Audience(users=self.users), title=self.name, custom={"n": number}
            )
            sent = await self.service.notifications.send(self.app, told, key=key)
            return sent.answer.operation, sent.replayed
        if self.name.startswith("stream"):
            if kind == "end":
                ended = End(id="", content_state=state)
                done = await self.service.streams.end(self.app, self.name, ended, key=key)
            else:
                done = await self.service.streams.put(self.app, self.begin(state), key=key)
            return done.answer.id, done.replayed
        activities = self.service.activities
        if kind == "start":
            answer = await activities.start(self.app, self.begin(state), key=key)
        elif kind == "end":
            answer = await activities.end(self.app, End(id=self.name, content_state=state), key=key)
        else:
            answer = await activities.update(
                self.app, Update(id=self.name, content_state=state), key=key
            )
        return answer.answer.operation, answer.replayed

    def begin(self, state: dict[str, int]) -> Start:
        stream = self.name.startswith("stream")
        return Start(
            id=None if stream else self.name,
            stream_key=self.name if stream else None,
            attributes_type=TYPE,
            attributes={"name": self.name},
            content_state=state,
            presentation=ALERT,
            audience=Audience(users=self.users),
        )


async def register_tokens(service: Service, app: Any, path: Path, log: Log) -> None:
    """Register what phones handed in, from where the last one stopped."""
    at = log.registered
    while True:
        lines = path.read_text().splitlines()[at:] if path.exists() else []
        if not lines:
            await asyncio.sleep(0.01)
            continue
        records = []
        for line in lines:
            entry = json.loads(line)
            scope = entry.pop("name")
            if scope.startswith("stream"):
                scope = await activity_of(service, app, scope)
            records.append(TokenRecord(kind="activity", scope=scope, **entry))
        await service.tokens.register_activity_tokens(app, records)
        at += len(lines)
        log.write(what="registered", lines=at)


async def activity_of(service: Service, app: Any, stream: str) -> str:
    table = schema.activities
    async with service.database.read() as connection:
        found = await connection.execute(
            select(table.c.public_id).where(table.c.app_id == app.row, table.c.stream_key == stream)
        )
        return str(found.scalar_one())


async def main(path: str) -> None:
    plan = json.loads(Path(path).read_text())
    folder = Path(plan["folder"])
    log = Log(folder / "log")
    draw = random.Random(plan["seed"] + len(log.asked))
    endpoint = Endpoint(**plan["endpoint"])
    async with Service.open(
        plan["address"],
        sealing=Sealer(plan["sealing"]),
        endpoints={"sandbox": endpoint},
        settings=ServiceSettings(client={"max_connections": 1}),
    ) as service:
        app = await service.apps.get(plan["app"])
        print("serving", flush=True)
        registering = asyncio.create_task(register_tokens(service, app, folder / "tokens", log))
        async with asyncio.TaskGroup() as group:
            for name, users in plan["activities"].items():
                caller = Caller(service, app, name, users, log)
                group.create_task(caller.live(folder / "enough", draw))
        log.write(what="finished")
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await asyncio.wait([ended, registering], return_when=asyncio.FIRST_COMPLETED)
        assert ended.done(), registering.result()
        registering.cancel()
        await service.settled()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
