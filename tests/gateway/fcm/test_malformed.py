"""Malformed bodies: each gets 4xx in Google's shape, and nothing is sent."""

from __future__ import annotations

import json
import os
import random
from typing import Any

from tests.gateway.fcm.world import SEND, FcmWorld

COUNT = min(10_000, int(os.environ.get("APNS_LIVE_FUZZ", "300")))
ODD: list[Any] = [
    None,
    0,
    -1,
    1.5,
    True,
    "",
    "x",
    "\u0000",
    [],
    [1],
    {},
    {"a": 1},
    2**70,
    "ab" * 3_000,
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else []
    return [path, *(one for name, entry in entries for one in places(entry, (*path, name)))]


def spoilt(body: dict[str, Any], draw: random.Random) -> Any:
    """Return a copy in which one thing is removed, replaced, renamed or added."""
    copy: Any = json.loads(json.dumps(body))
    path = draw.choice(places(copy)[1:])
    place = copy
    for name in path[:-1]:
        place = place[name]
    kind = draw.randrange(4)
    if kind == 0:
        del place[path[-1]]
    elif kind == 1:
        place[path[-1]] = draw.choice(ODD)
    elif kind == 2:
        place[f"{path[-1]}x"] = place.pop(path[-1])
    else:
        place[draw.choice(["_", "a b", "TOKEN", "tokenToken", "é"])] = draw.choice(ODD)
    return copy


async def test_malformed_bodies(world: FcmWorld) -> None:
    draw = random.Random(16)
    whole = {"message": world.live("ab" * 32, "start", home=1), "validate_only": True}
    whole["message"]["apns"]["headers"] = {"apns-priority": "10"}
    headers = {"authorization": f"Bearer {world.bearer}", "content-type": "application/json"}
    refused = 0
    for number in range(COUNT):
        body = whole
        for _ in range(draw.randint(1, 3)):
            body = spoilt(body, draw)
            if not isinstance(body, dict) or len(places(body)) < 2:
                break
        if isinstance(body, dict):
            body["validate_only"] = True
        text = json.dumps(body).encode()
        if number % 5 == 0:
            cut = draw.randrange(len(text))
            text = text[:cut] + bytes([draw.randrange(256)]) + text[cut + 1 :]
            if b'"validate_only": true' not in text:
                continue
        answer = await world.http.post(SEND, content=text, headers=headers)
        if answer.status_code == 200:
            assert answer.json()["name"].endswith("fake_message_id")
            continue
        refused += 1
        assert 400 <= answer.status_code < 500 or answer.status_code == 501, (text, answer.text)
        error = answer.json()["error"]
        assert (
            {"code", "message", "status"}
            <= error.keys()
            <= {"code", "message", "status", "details"}
        )
        assert error["code"] == answer.status_code != 404, text
    assert refused > COUNT / 3
    assert not world.pushes()
