"""How a handle reaches the fake on its thread, and how long it waits for something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic, sleep
from typing import Any, Protocol, TypeVar

from apns_live.testing.fake import FakeApns

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds of the machine's time that an assertion waits for a push that is still on its way."""
PAUSE = 0.005


class Caller(Protocol):
    """Runs something with the fake on the fake's thread."""

    def call(self, function: Callable[[FakeApns], T]) -> T:
        """Return what ``function`` returns."""

    def run(self, function: Callable[[FakeApns], Coroutine[Any, Any, T]]) -> T:
        """Return what the coroutine of ``function`` returns."""


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
