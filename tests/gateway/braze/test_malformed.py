"""Hundreds of malformed bodies: each answered in one of Braze's two shapes, none with 5xx."""

from __future__ import annotations

import itertools
import json
import os
import socket
from typing import Any

from tests.gateway.braze.fuzz import Asgi, Malformed
from tests.gateway.braze.serving import served
from tests.gateway.braze.test_life import start_body, update_body
from tests.gateway.braze.world import VendorWorld

COUNT = min(10_000, int(os.environ.get("APNS_LIVE_FUZZ", "500")))
"""Refused bodies; ``make soak`` sends all ten thousand."""


def without_ids(**changes: Any) -> dict[str, Any]:
    body = start_body(**changes)
    del body["external_user_ids"]
    return body


STARTS = [
    start_body(),
    without_ids(segment_id="nothing"),
    without_ids(
        custom_audience={
            "AND": [
                {
                    "custom_attribute": {
                        "custom_attribute_name": "a",
                        "comparison": "less_than_x_days_ago",
                        "value": 2,
                    }
                },
                {"OR": [{"last_used_app": {"comparison": "after", "value": "2024-01-01"}}]},
                {"push_subscription_status": {"comparison": "is", "value": "opted_in"}},
            ]
        }
    ),
]
UPDATES = [
    update_body(1, 0),
    update_body(
        1,
        0,
        end_activity=True,
        dismissal_date="2040-01-01T00:00:00Z",
        stale_date="2040-01-01T00:00:00Z",
        notification={
            "alert": {"title": "t", "body": "b", "sound": "s"},
            "relevance_score": 0.5,
            "apns_priority": 5,
            "extra": {"a": "b"},
        },
    ),
]


def check(status: int, content: bytes, given: bytes) -> bool:
    """Check an answer; return whether it was a refusal."""
    body = json.loads(content)
    assert status < 500, (status, body, given)
    if status == 201:
        assert body["message"] == "success"
        return False
    assert status in (400, 413), (status, body, given)
    assert body.keys() == {"error"} or {"message"} <= body.keys() <= {"message", "errors"}
    assert all(isinstance(text, str) and len(text) < 2_000 for text in body.get("errors", []))
    return True


async def test_malformed_bodies(world: VendorWorld) -> None:
    call = Asgi(
        world.api, {"authorization": f"Bearer {await world.key('braze', per_minute=10**9)}"}
    )
    starts, updates = Malformed(1, STARTS), Malformed(2, UPDATES)
    refused = 0
    for number in itertools.count():
        name, bodies = ("start", starts) if number % 2 else ("update", updates)
        given = next(bodies)
        status, content = await call("POST", f"/messages/live_activity/{name}", given)
        refused += check(status, content, given)
        if refused == COUNT:
            break
        assert number < 2 * COUNT, "most of them should be refused"


async def test_malformed_bodies_over_sockets(world: VendorWorld) -> None:
    key = await world.key("braze", per_minute=10**9)
    bodies = Malformed(3, STARTS)
    async with served(world) as (host, port, run):

        def talk() -> int:
            refused = 0
            with socket.create_connection((host, port), timeout=30) as connection:
                stream = connection.makefile("rb")
                for given in itertools.islice(bodies, 200):
                    connection.sendall(
                        b"POST /messages/live_activity/start HTTP/1.1\r\nhost: x\r\n"
                        b"content-type: application/json\r\n"
                        b"authorization: Bearer " + key.encode() + b"\r\n"
                        b"content-length: " + str(len(given)).encode() + b"\r\n\r\n" + given
                    )
                    status = int(stream.readline().split()[1])
                    length = 0
                    while line := stream.readline().strip():
                        name, _, value = line.partition(b":")
                        if name.lower() == b"content-length":
                            length = int(value)
                    refused += check(status, stream.read(length), given)
            return refused

        assert await run(talk) > 100
