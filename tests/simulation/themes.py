"""Worlds about one thing: situations that hardly come together by chance, each drawn whole.

A theme changes the settings of its world and returns the actions that matter; a little other
traffic goes on beside them. What each is there to find is named in `defects`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .plan import Action

Settings = dict[str, Any]


def joins_during_a_sweep(die: random.Random, settings: Settings) -> list[Action]:
    """A second state overtakes the first half way round, and more phones come meanwhile."""
    settings |= {
        "max_connections": 1,
        "max_streams": 3,
        "first_streams": 3,
        "latency": 0.08,
        "spread": 0.0,
        "minimum_interval": 0.0,
        "journal": False,
    }
    activity = {"activity": die.randrange(2)}
    put = {**activity, "event": "update", "count": 1}
    second = round(0.7 + die.uniform(0.0, 0.3), 3)
    return [
        Action(0.0, "join", {**activity, "tokens": 40}),
        Action(0.5, "put", put),
        Action(second, "put", put),
        *(
            Action(second + delay, "join", {**activity, "tokens": 1})
            for delay in die.choice(((0.05,), (0.02, 0.1, 0.15)))
        ),
    ]


def a_row_of_bad_tokens(die: random.Random, settings: Settings) -> list[Action]:
    """A thousand tokens in a row are none, where one push may leave at a time."""
    settings |= {"max_connections": 1, "max_streams": 1, "first_streams": 1}
    given = {
        "tokens": 1_100,
        "bad": range(1_100),
        "event": "update",
        "source": die.choice(("list", "generator")),
        "read": die.choice(("all", "wait")),
        "deadline": None,
    }
    return [Action(round(die.uniform(0.0, 0.5), 3), "fan_out", given)]


def no_window(die: random.Random, settings: Settings) -> list[Action]:
    """A peer opens streams and then takes no body, or not all of it, for longer than we wait."""
    narrow = {"action": "settings", "settings": {4: die.choice((0, 0, 1, 20))}, "lasting": 60.0}
    settings["latency"] = 0.0
    sends = [
        Action(
            round(die.uniform(0.0, 2.0), 3),
            "send",
            {
                "count": die.choice((1, 3)),
                "event": die.choice(("start", "update", "alert")),
                "deadline": die.choice((None, 5.0)),
            },
        )
        for _ in range(2)
    ]
    more = Action(15.0, "lane", {"lane": 0, "count": 1, "event": "update", "deadline": None})
    return [Action(0.0, "fault", narrow), *sends, more]


def a_run_is_left(die: random.Random, settings: Settings) -> list[Action]:
    """A caller breaks off a loop over outcomes without ``async with``, and the source goes on."""
    del settings
    given = {
        "tokens": 60,
        "event": "update",
        "source": "slow async",
        "read": "all",
        "deadline": None,
        "bare": True,
        "break_after": die.choice((0, 2, 5)),
    }
    return [Action(round(die.uniform(0.0, 0.5), 3), "fan_out", given)]


THEMES: tuple[Callable[[random.Random, Settings], list[Action]], ...] = (
    joins_during_a_sweep,
    a_row_of_bad_tokens,
    no_window,
    a_run_is_left,
)
