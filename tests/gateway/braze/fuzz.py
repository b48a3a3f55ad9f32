"""Malformed bodies without end, the same ones for a seed; and a caller that costs little."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

JUNK: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**63,
    -(2**70),
    1e308,
    0.5,
    "",
    " ",
    "a",
    "\x00",
    "\ud83d",
    "é" * 300,
    "x" * 6000,
    "2024-99-99",
    "'; DROP TABLE apps; --",
    [],
    [[]],
    [None],
    ["a", 5],
    {},
    {"": ""},
    {"a": None},
    {"AND": []},
    {"AND": {"AND": {}}},
    {"$ref": "#"},
    {"en": 5},
    {"en": "x", "\n": "y"},
    [{"field": "tag"}],
    [{"operator": "OR"}],
    {"__proto__": {"x": 1}},
    [0] * 300,
]


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = {"a": [value]}
    return value


class Malformed:
    """Bodies made from good ones by breaking something."""

    def __init__(self, seed: int, examples: list[dict[str, Any]]) -> None:
        self._random = random.Random(seed)
        self._examples = examples

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        body = copy.deepcopy(self._random.choice(self._examples))
        if self._random.random() < 0.1:
            return self._broken_text(body)
        for _ in range(self._random.randint(1, 3)):
            self._break(body)
        return json.dumps(body).encode()

    def _broken_text(self, body: Any) -> bytes:
        text = bytearray(json.dumps(body).encode())
        chance = self._random.random()
        if chance < 0.4:
            return bytes(text[: self._random.randrange(len(text))])
        if chance < 0.8:
            for _ in range(self._random.randint(1, 8)):
                text[self._random.randrange(len(text))] = self._random.randrange(256)
            return bytes(text)
        return self._random.choice(
            [b"", b"null", b"5", b'"x"', b"[" * 1000, b"\xff\xfe{}", self._random.randbytes(64)]
        )

    def _break(self, body: dict[str, Any]) -> None:
        body.setdefault("", None)
        place, key = self._random.choice(list(places(body)))
        chance = self._random.random()
        if chance < 0.15:
            del place[key]
        elif chance < 0.2 and isinstance(place, dict):
            place[self._random.choice(["aps", "event", "x" * 300, "\x00", ""])] = place.pop(key)
        elif chance < 0.23:
            place[key] = deep(self._random.randint(15, 60))
        else:
            place[key] = copy.deepcopy(self._random.choice(JUNK))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a body that something could stand in."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in list(entries):
        yield value, key
        if isinstance(entry, (dict, list)) and entry:
            yield from places(entry)


class Asgi:
    """Calls an app with as little as possible in between."""

    def __init__(self, app: Any, headers: dict[str, str]) -> None:
        self._app = app
        self._headers = [
            (name.lower().encode(), value.encode())
            for name, value in {"content-type": "application/json", **headers}.items()
        ]

    async def __call__(
        self, method: str, path: str, body: bytes, *, query: str = ""
    ) -> tuple[int, bytes]:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "scheme": "http",
            "headers": self._headers,
            "client": ("192.0.2.1", 4242),
            "server": ("gateway.example", 80),
        }
        sent: list[dict[str, Any]] = []
        given = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return given.pop() if given else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
