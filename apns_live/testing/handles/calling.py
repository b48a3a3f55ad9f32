"""How long a handle waits for a push or token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds of the machine's time that an assertion waits for a push that is still on its way."""
PAUSE = 0.005


def waited(look: Callable[[bool], T | None], timeout: float) -> T:
    """Return what ``look`` finds, as soon as it is something.

    It is told whether it is late: after ``timeout`` seconds, or at once inside an event loop, where waiting
    would stop everything. Then it finds something or raises.
    """
    give_up = monotonic() + (0 if in_event_loop() else timeout)
    while (found := look(monotonic() >= give_up)) is None:
        sleep(PAUSE)
    return found


def in_event_loop() -> bool:
    """Whether the caller runs inside an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
