"""What the task does, in plain Python: send a state to many tokens, say which of them are dead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from apns_live import Update, Verdict
from apns_live.blocking import Client
from apns_live.settings import Settings

DEADLINE = 30.0
"""Seconds. A score that leaves later than this is better replaced by the next one."""


@dataclass
class Pushed:
    """What became of a fan-out: how many APNs took, and the tokens to delete."""

    accepted: int = 0
    failed: int = 0
    dead: list[str] = field(default_factory=list)


@cache
def client() -> Client:
    """Return this process's client, with the settings of the environment. Connects when it is used."""
    made: Client = Settings.load().blocking_client()
    return made


def push_state(
    tokens: Iterable[str], state: Mapping[str, Any], *, sender: Client | None = None
) -> Pushed:
    """Send ``state`` to every activity token. The tokens may be a database cursor: it is streamed."""
    pushed = Pushed()
    update = Update(content_state=dict(state))
    with (sender or client()).fan_out(update, tokens, deadline=DEADLINE, dedupe=True) as run:
        for outcome in run:
            if outcome.accepted:
                pushed.accepted += 1
            elif outcome.verdict is Verdict.DROP_TOKEN:
                pushed.dead.append(outcome.token)
            else:
                pushed.failed += 1
    return pushed
