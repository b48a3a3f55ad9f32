"""Validates arguments of a client other than messages and tokens."""

from __future__ import annotations

import asyncio
import math

from ..errors import InvalidInput, WrongEventLoop
from ..refusals import refused

_LONGEST = 100_000_000


def check_deadline(deadline: object, field: str = "deadline") -> None:
    """Raise `InvalidInput` unless it is None or seconds from now, above 0 and finite."""
    if deadline is not None:
        check_seconds(deadline, field)


def check_seconds(value: object, field: str, *, zero: bool = False) -> None:
    """Raise `InvalidInput` unless it is a finite number of seconds above 0 (with ``zero``: or 0)."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not math.isfinite(value)
        or not (value > 0 or (zero and value == 0))
    ):
        raise refused(
            InvalidInput, "seconds", field, value=value, needed="from 0 up" if zero else "above 0"
        )
    if value >= _LONGEST:
        raise refused(InvalidInput, "seconds_long", field, value=value)


class HomeLoop:
    """The event loop to which an object is bound: the first on which it is used."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        """Bind to the running event loop. Raises `WrongEventLoop` if bound to another one."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongEventLoop(
                "this client was used on another event loop before, and its connections live "
                "there. Make one Client in each event loop (each asyncio.run, each test) and close "
                "it there, or share one apns_live.blocking.Client between threads and loops"
            )

    def has_ended(self) -> bool:
        """Whether the loop was closed, and everything on it."""
        return self._loop is not None and self._loop.is_closed()
