"""Hundreds of malformed bodies: each answered in OneSignal's shape, none with 5xx."""

from __future__ import annotations

import itertools
import json
import os
from typing import Any

from tests.gateway.braze.fuzz import Asgi, Malformed
from tests.gateway.braze.world import TYPE, VendorWorld
from tests.gateway.onesignal.caller import change_body, start_body, without

COUNT = min(10_000, int(os.environ.get("APNS_LIVE_FUZZ", "500")))
"""Refused bodies; ``make soak`` sends all ten thousand."""

STARTS = [
    start_body(
        stale_date=2_000_000_000,
        priority=5,
        ios_sound="nil",
        ios_relevance_score=0.5,
        idempotency_key="6f1e4b2a-0000-4000-8000-0000000000ab",
    ),
    {
        **without(start_body(), "include_aliases"),
        "included_segments": ["All"],
        "excluded_segments": ["Inactive Users"],
    },
    {
        **without(start_body(), "include_aliases"),
        "filters": [
            {"field": "tag", "key": "level", "relation": ">", "value": "10"},
            {"operator": "OR"},
            {"field": "last_session", "relation": "<", "hours_ago": "1.5"},
            {"field": "location", "lat": 1.0, "long": 2.0, "radius": 100},
        ],
    },
    {**without(start_body(), "include_aliases"), "include_subscription_ids": ["a", "b"]},
]
CHANGES = [
    change_body(headings={"en": "a"}, contents={"en": "b"}, stale_date=2_000_000_000),
    change_body("end", dismissal_date=2_000_000_000, priority=10),
]
TOKENS = [{"push_token": "a1" * 40, "subscription_id": "s-1", "device_type": 0}]
START_TOKENS = [{"activity_token": "a1" * 40, "device_type": 0}]
RECEIPTS = [
    {"app_id": "scores", "player_id": "s-1", "device_type": 0, "live_activity_id": "running"}
]
USERS = [
    {
        "identity": {"external_id": "user-0", "crm": "c-1"},
        "properties": {"tags": {"a": "1"}, "language": "de", "country": "AT", "lat": 1, "long": 2},
        "subscriptions": [
            {
                "type": "iOSPush",
                "id": "scores-0",
                "token": "a1" * 32,
                "enabled": True,
                "session_count": 3,
                "session_time": 60,
                "app_version": "1.2",
                "device_os": "18.0",
                "notification_types": 1,
            }
        ],
    }
]
CALLS: list[tuple[str, str, list[dict[str, Any]]]] = [
    ("POST", f"/apps/scores/activities/activity/{TYPE}", STARTS),
    ("POST", "/apps/scores/live_activities/running/notifications", CHANGES),
    ("POST", "/apps/scores/live_activities/running/token", TOKENS),
    ("PUT", f"/apps/scores/activities/tokens/start/{TYPE}/subscriptions/s-2", START_TOKENS),
    ("PUT", "/notifications/n-1/report_received", RECEIPTS),
    ("POST", "/apps/scores/users", USERS),
    ("PATCH", "/apps/scores/users/by/external_id/user-0/identity", [{"identity": {"crm": "c-1"}}]),
    (
        "PATCH",
        "/apps/scores/subscriptions/scores-0",
        [{"subscription": USERS[0]["subscriptions"][0]}],
    ),
    ("POST", "/apps/scores/segments", [{"name": "Reds", "filters": STARTS[2]["filters"]}]),
]


def check(status: int, content: bytes, given: bytes) -> bool:
    """Check an answer; return whether it was a refusal."""
    body = json.loads(content)
    assert status < 500, (status, body, given)
    if status in (200, 201, 202):
        return False
    assert status in (400, 404, 409, 413), (status, body, given)
    [text] = body["errors"]
    assert body.keys() - {"success"} == {"errors"}
    if status == 409 and isinstance(text, dict):
        text = text["title"]
    assert isinstance(text, str)
    assert 0 < len(text) < 2_000
    return True


async def test_malformed_bodies(world: VendorWorld) -> None:
    await world.add_users(1)
    secret = await world.key("onesignal")
    call = Asgi(world.api, {"authorization": f"Key {secret}"})
    status, _ = await call(
        "POST", CALLS[0][1], json.dumps(start_body(activity_id="running")).encode()
    )
    assert status == 201
    calls = [
        (method, path, Malformed(seed, examples))
        for seed, (method, path, examples) in enumerate(CALLS)
    ]
    refused = 0
    for number in itertools.count():
        method, path, bodies = calls[number % len(calls)]
        given = next(bodies)
        status, content = await call(method, path, given)
        refused += check(status, content, given)
        if refused == COUNT:
            break
        assert number < 3 * COUNT, "most of them should be refused"
