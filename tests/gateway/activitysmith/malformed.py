"""Bodies that are wrong in one place or more: made from good ones, the same for a seed."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

STATE = {
    "title": "T",
    "subtitle": "s",
    "type": "segmented_progress",
    "number_of_steps": 3,
    "current_step": 1,
    "color": "red",
    "step_colors": ["red"],
    "icon": {"symbol": "a", "color": "red"},
    "badge": {"title": "b"},
}
METRICS = {"title": "T", "type": "stats", "metrics": [{"label": "a", "value": 1, "unit": "%"}]}
TIMER = {"title": "T", "type": "timer", "duration_seconds": 9, "counts_down": True}
PROGRESS = {"title": "T", "type": "progress", "value": 3, "upper_limit": 9}
ACTION = {
    "title": "a",
    "type": "webhook",
    "url": "https://e.com/x",
    "method": "POST",
    "body": {"a": [1]},
}
COMMON = {"action": ACTION, "tags": ["a"], "metadata": {"a": 1, "b": "x", "c": True}}
LIVE = {**COMMON, "alert": {"title": "a", "body": "b"}, "target": {"channels": ["demo"]}}
EXAMPLES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/live-activity/start", {"content_state": STATE, "secondary_action": ACTION, **LIVE}),
    ("POST", "/live-activity/start", {"content_state": METRICS, **LIVE}),
    ("POST", "/live-activity/start", {"content_state": TIMER, **LIVE}),
    ("POST", "/live-activity/start", {"content_state": PROGRESS, **LIVE}),
    ("POST", "/live-activity/update", {"activity_id": "here", "content_state": STATE, **COMMON}),
    (
        "POST",
        "/live-activity/end",
        {"activity_id": "gone", "content_state": {**STATE, "auto_dismiss_minutes": 2}, **COMMON},
    ),
    ("PUT", "/live-activity/stream/new", {"content_state": STATE, "channels": ["demo"], **LIVE}),
    (
        "DELETE",
        "/live-activity/stream/new",
        {"content_state": {**TIMER, "auto_dismiss_seconds": 2}, **COMMON},
    ),
    (
        "POST",
        "/push-notification",
        {
            "title": "T",
            "message": "m",
            "subtitle": "s",
            "redirection": "https://e.com",
            "actions": [ACTION],
            "payload": {"a": {"b": [1]}},
            "badge": 1,
            "sound": "default",
            "icon": "https://e.com/i.png",
            "interruption_level": "active",
            "target": {"channels": ["demo"]},
            "tags": ["a"],
            "metadata": {"a": 1},
        },
    ),
    ("PUT", "/push-notification/gone", {"title": "T", "media": "https://e.com/a.png"}),
    ("POST", "/badge", {"badge": 1, "target": {"channels": ["demo"]}}),
    ("POST", "/metrics/m/value", {"value": 1, "timestamp": "2026-05-01T12:00:00Z"}),
]
JUNK: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2**70,
    -(2**63),
    1e308,
    "",
    " ",
    "x",
    "\x00",
    "a\nb",
    "\u202e",
    "\ud83d",
    "x" * 5_000,
    "https://",
    "https://[::1",
    "https://user@e.com",
    "javascript:alert(1)",
    "9999-99-99T99:99:99Z",
    [],
    [[]],
    [None],
    ["demo", 7],
    {},
    {"": ""},
    {"a": {"b": {"c": {}}}},
    [0] * 200,
    {str(n): n for n in range(200)},
]


def bodies(seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Method, path and body, without end."""
    chosen = random.Random(seed)
    while True:
        method, path, good = chosen.choice(EXAMPLES)
        body: Any = copy.deepcopy(good)
        for _ in range(chosen.randint(1, 3)):
            body = _break(chosen, body)
        text = json.dumps(body).encode()
        if chosen.random() < 0.15:
            text = _tear(chosen, text)
        yield method, path, text


def _break(chosen: random.Random, body: Any) -> Any:
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for name, entry in list(entries):
            places.append((value, name))
            if isinstance(entry, (dict, list)) and len(places) < 200:
                walk(entry)

    if isinstance(body, (dict, list)):
        walk(body)
    if not places or chosen.random() < 0.02:
        return chosen.choice(JUNK)
    holder, name = chosen.choice(places)
    what = chosen.random()
    if what < 0.55:
        holder[name] = copy.deepcopy(chosen.choice(JUNK))
    elif what < 0.75:
        del holder[name]
    elif what < 0.9 and isinstance(holder, dict):
        holder[str(name) + chosen.choice(["x", "_", " ", "\u00e9"])] = holder.pop(name)
    else:
        holder[name] = [holder[name]]
    return body


def _tear(chosen: random.Random, text: bytes) -> bytes:
    cut = chosen.randrange(len(text) + 1)
    return chosen.choice(
        [
            text[:cut],
            text[:cut] + b"\xff" + text[cut:],
            text[:cut] + b"NaN" + text[cut:],
            text + text,
            text[:cut] + b"\x00" + text[cut:],
            b"[" * 500 + text,
            text.decode().encode("utf-16"),
        ]
    )
