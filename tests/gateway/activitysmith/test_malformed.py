"""Hundreds of malformed bodies: never a 5xx, always this dialect's error shape."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from typing import Any

import httpx

from apns_live.activities.store import schema
from apns_live.gateway.serving import serving
from tests.counts import count
from tests.gateway.activitysmith.malformed import EXAMPLES, bodies
from tests.gateway.activitysmith.world import SmithWorld

COUNT = min(10_000, int(os.environ.get("APNS_LIVE_FUZZ", "500")))
"""Refused bodies; ``make soak`` sends all ten thousand."""
OVER_SOCKETS = 300
MALFORMED = {400, 413, 415}
SAID = {400, 403, 404, 409, 413, 415, 422}


async def ready(world: SmithWorld) -> None:
    await world.add_smith_phones(1, group="demo")
    await world.configure(live_activities=None, answer_wait=0.0)
    await world.ok("PUT", "/metrics/m")
    world.secret = await world.key(per_minute=10**9)


def check(status: int, content: bytes, sent: Any) -> bool:
    """Whether it was refused; anything else than a success or a well-formed refusal fails."""
    said = json.loads(content)
    if status == 200:
        assert said["success"] is True, sent
        return False
    assert status in SAID, (status, said, sent)
    assert isinstance(said["error"], str), sent
    assert said["error"], sent
    assert isinstance(said["message"], str), sent
    return True


async def ask(world: SmithWorld, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Call the app without a socket and without a client, both of which cost more than it does."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"host", b"gateway.example"),
            (b"content-type", b"application/json"),
            (b"authorization", f"Bearer {world.secret}".encode()),
        ],
        "client": ("192.0.2.1", 4242),
        "server": ("gateway.example", 80),
    }
    answer: dict[str, Any] = {"body": b""}
    sent = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        return next(sent)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer["status"] = message["status"]
        else:
            answer["body"] += message.get("body", b"")

    await world.api(scope, receive, send)
    return answer["status"], answer["body"]


async def test_the_examples_themselves_are_good(world: SmithWorld) -> None:
    await ready(world)
    for method, path, body in EXAMPLES:
        status, content = await ask(world, method, path, json.dumps(body).encode())
        # What some of them name is not there; nothing else is wrong with them.
        assert status in {200, 404}, (path, content)


async def test_malformed_bodies(world: SmithWorld) -> None:
    await ready(world)
    # Nothing of what happens to be well-formed is to be sent.
    world.service.courier.written = lambda app, row: None  # type: ignore[method-assign]
    refused = 0
    seen: Counter[str] = Counter()
    for method, path, body in bodies(seed=7):
        status, content = await ask(world, method, path, body)
        if check(status, content, (method, path, body[:300])):
            refused += status in MALFORMED
            seen[json.loads(content)["error"]] += 1
        if refused == COUNT:
            break
    assert len(seen) >= 12, seen
    assert {"Invalid content_state", "Invalid request body", "Invalid action"} <= seen.keys()


async def test_refused_bodies_leave_nothing_behind(world: SmithWorld) -> None:
    await ready(world)
    tables = [schema.activities, schema.operations, schema.streams, schema.metric_values]
    before = [await world.count(table) for table in tables]
    for method, path, body in bodies(seed=11):
        status, _ = await ask(world, method, path, body)
        after = [await world.count(table) for table in tables]
        assert status == 200 or after == before, body[:300]
        before = after
        if after[1] > count(10, soak=20):
            break


async def test_malformed_bodies_over_sockets(world: SmithWorld) -> None:
    await ready(world)
    async with serving(world.api) as url, httpx.AsyncClient(base_url=url, timeout=30.0) as client:
        for method, path, body in itertools.islice(bodies(seed=13), OVER_SOCKETS):
            headers = {
                "authorization": f"Bearer {world.secret}",
                "content-type": "application/json",
            }
            answer = await client.request(method, path, content=body, headers=headers)
            check(answer.status_code, answer.content, (method, path, body[:300]))
