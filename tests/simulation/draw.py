"""Draws a world from its seed."""

from __future__ import annotations

import random
from typing import Any

from . import themes
from .plan import Action, Plan

TROUBLES = ("answers", "slow answers", "links", "goaway", "windows", "clock", "disk", "crash",
            "misbehaviour", "connecting")  # fmt: skip

THEMED = 0.12
"""The share of worlds that have a theme."""

_ANSWERS: tuple[tuple[int, str, float | None], ...] = (
    (429, "TooManyRequests", None), (503, "ServiceUnavailable", None),
    (503, "ServiceUnavailable", 2.0), (500, "InternalServerError", None),
    (503, "Shutdown", None), (429, "TooManyProviderTokenUpdates", None),
    (403, "ExpiredProviderToken", None), (410, "Unregistered", None), (410, "ExpiredToken", None),
    (400, "BadDeviceToken", None), (400, "BadPriority", None), (413, "PayloadTooLarge", None),
    (403, "InvalidProviderToken", None), (400, "TopicDisallowed", None), (403, "NewReason", None),
    (400, "IdleTimeout", None), (404, "BadPath", None), (429, "TooManyRequests", 120.0),
    (418, "NeverHeardOf", None),
)  # fmt: skip


def draw(seed: int) -> Plan:
    """Draw a world. Most are small; a few are long."""
    die = random.Random(seed)
    troubles = set(die.sample(TROUBLES, k=die.choice((0, 1, 1, 1, 2, 2, 3))))
    length = min(60, 1 + int(die.paretovariate(1.2) * 2))
    journal = die.random() < 0.5
    if not journal:
        troubles.discard("disk")
    settings: dict[str, Any] = {
        "journal": journal,
        "max_connections": die.choice((1, 1, 2, 4)),
        "max_streams": die.choice((1, 3, 10, 100, 1000)),
        "first_streams": die.choice((1, 1, 10)),
        "waiting_room": die.choice((2, 10, 10_000)),
        "latency": die.choice((0.0, 0.005, 0.08)),
        "spread": die.choice((0.0, 0.0, 0.05)),
        "delay": die.choice((0.001, 0.02)),
        "jitter": die.choice((0.0, 0.0, 0.01)),
        "splitting": die.choice((0.0, 0.0, 0.2)),
        "minimum_interval": die.choice((0.0, 0.0, 0.0, 1.0)),
        "commit_interval": die.choice((0.0, 0.2)),
        "aftermath": die.choice((0.0, 0.0, 1.0, 13.0)),
        "disk_delay": die.choice((0.0, 0.001, 0.03)),
    }
    if "connecting" in troubles and die.random() < 0.3:
        settings["alpn"] = None if die.random() < 0.5 else "http/1.1"
    span = die.choice((0.5, 2.0, 10.0))
    actions = [_traffic(die, die.uniform(0.0, span), troubles) for _ in range(length)]
    if die.random() < THEMED:
        theme = die.choice(themes.THEMES)
        troubles.clear()
        settings.pop("alpn", None)
        actions = actions[:2] + theme(die, settings)
    for trouble in sorted(troubles):
        actions.extend(_trouble(die, trouble, span))
    actions.sort(key=lambda each: each.at)
    return Plan(seed, settings, tuple(actions))


def _cancel(die: random.Random, troubles: set[str]) -> dict[str, Any]:
    if "misbehaviour" in troubles and die.random() < 0.3:
        return {"cancel_after": die.choice((0.0, 0.001, 0.01, 0.1, 1.0))}
    return {}


def _traffic(die: random.Random, at: float, troubles: set[str]) -> Action:
    kind = die.choices(
        ("send", "lane", "fan_out", "journalled", "put", "end", "join", "leave"),
        (5, 6, 3, 2, 6, 0.6, 3, 1),
    )[0]
    given: dict[str, Any] = {}
    odd = "misbehaviour" in troubles
    if kind == "send":
        given = {
            "count": die.choice((1, 1, 5, 15)),
            "event": die.choice(("update", "start", "alert")),
            "deadline": die.choice((None, None, None, 0.05, 5.0)),
            **_cancel(die, troubles),
        }
        if odd and die.random() < 0.2:
            given["bad_token"] = True
    elif kind == "lane":
        given = {
            "lane": die.randrange(4),
            "count": die.choice((1, 1, 2, 5)),
            "event": die.choices(("update", "alert", "end"), (8, 3, 0.4))[0],
            "deadline": die.choice((None, None, None, None, 30.0)),
            **_cancel(die, troubles),
        }
        if odd and die.random() < 0.2:
            given["callback_raises"] = True
    elif kind in ("fan_out", "journalled"):
        given = {
            "tokens": die.choice((0, 1, 5, 10, 40, 120)),
            "event": die.choice(("update", "start")),
            "source": die.choice(("list", "generator", "async", "slow async")),
            "read": die.choice(("all", "all", "wait", "slowly")),
            "deadline": die.choice((None, None, None, 0.3, 20.0)),
            **_cancel(die, troubles),
        }
        if kind == "journalled":
            given |= _named_run(die.randrange(3))
        if odd:
            given |= die.choice(
                (
                    {"bad": sorted(die.sample(range(10), 3))},
                    {"break_after": die.choice((0, 1, 5))},
                    {"source_raises": die.choice((0, 3, 9))},
                    {"callback_raises": True},
                    {"bare": True, "break_after": 2},
                    {"source_cancels": 3},
                )
            )
    elif kind == "put":
        given = {
            "activity": die.randrange(2),
            "event": die.choices(("update", "alert"), (4, 1))[0],
            "count": die.choice((1, 1, 2, 4)),
            **_cancel(die, troubles),
        }
    elif kind == "end":
        given = {"activity": die.randrange(2)}
    elif kind == "join":
        given = {"activity": die.randrange(2), "tokens": die.choice((1, 2, 5, 30))}
    elif kind == "leave":
        given = {"activity": die.randrange(2), "tokens": die.choice((1, 3))}
    return Action(round(at, 3), kind, given)


def _named_run(number: int) -> dict[str, Any]:
    """A fan-out that is begun again under its name has the same tokens and message."""
    return {
        "name": f"run-{number}",
        "tokens": (10, 40, 120)[number],
        "event": ("start", "start", "update")[number],
    }


def _trouble(die: random.Random, trouble: str, span: float) -> list[Action]:
    def at() -> float:
        return round(die.uniform(0.0, span), 3)

    if trouble == "answers":
        found = []
        for _ in range(die.choice((1, 1, 3))):
            status, reason, retry_after = die.choice(_ANSWERS)
            found.append(
                Action(at(), "fault", {
                    "action": "answer", "status": status, "reason": reason,
                    "retry_after": retry_after, "fraction": die.choice((0.1, 0.5, 1.0)),
                    "lasting": die.choice((0.2, 1.0, 10.0)),
                    "processed": status == 500 and die.random() < 0.5,
                })
            )  # fmt: skip
        return found
    if trouble == "slow answers":
        what = die.choice(
            ("delay", "withhold", "stall", "reset", "refuse_stream", "disconnect", "silence")
        )
        given = {
            "action": what,
            "fraction": die.choice((0.1, 0.5, 1.0)),
            "lasting": die.choice((0.2, 2.0)),
        }
        if what == "delay":
            given["delay"] = die.choice((0.5, 2.9, 3.5, 12.0))
        if what == "reset":
            given |= {"error_code": die.choice((1, 2, 8)), "processed": die.random() < 0.5}
        return [Action(at(), "fault", given)]
    if trouble == "links":
        return [
            Action(at(), die.choice(("cut", "cut", "half_open")), {"all": die.random() < 0.5})
            for _ in range(die.choice((1, 2, 4)))
        ]
    if trouble == "goaway":
        return [
            Action(at(), "goaway", {
                "reason": die.choice((None, "Shutdown", "BadCertificate", "IdleTimeout")),
                "last": None,
            })
            for _ in range(die.choice((1, 1, 3)))
        ]  # fmt: skip
    if trouble == "windows":
        if die.random() < 0.5:
            given = {
                "action": "settings",
                "settings": {
                    4: die.choice((0, 1, 100, 65_535)),
                    3: die.choice((1, 5, 1000)),
                    1: die.choice((0, 64, 4096)),
                },
            }
        else:
            given = {
                "action": "slow_window",
                "window": die.choice((0, 200, 65_535)),
                "rate": die.choice((0.0, 5_000.0)),
            }
        return [Action(0.0, "fault", {**given, "lasting": die.choice((0.5, 5.0))})]
    if trouble == "clock":
        step = die.choice((7200.0, -1800.0, 3.0, -3.0, 86_400.0))
        begin = at()
        return [
            Action(begin, "clock", {"skew": step}),
            Action(begin + span, "clock", {"skew": 0.0}),
        ]
    if trouble == "disk":
        begin = at()
        return [
            Action(begin, "disk", {"fails": True}),
            Action(begin + 0.5, "disk", {"fails": False}),
        ]
    if trouble == "crash":
        # A fan-out that is under way, and the same one again in the next life.
        when = at()
        run = {"source": "list", "read": "all", "deadline": None, **_named_run(die.randrange(3))}
        return [
            Action(max(0.0, round(when - die.choice((0.01, 0.03, 0.1)), 3)), "journalled", run),
            Action(when, "crash", {}),
            Action(when + 0.2, "journalled", run),
        ]
    if trouble == "connecting":
        what = die.choice(("refuse", "black_hole", "refuse_connection", "fail_tls"))
        begin = die.choice((0.0, at()))
        if what in ("refuse_connection", "fail_tls"):
            given = {"action": what, "fraction": die.choice((0.5, 1.0)), "lasting": 10.0}
            return [Action(begin, "fault", given)]
        return [
            Action(begin, what, {"on": True}),
            Action(begin + die.choice((1.0, 15.0)), what, {"on": False}),
        ]
    return []
