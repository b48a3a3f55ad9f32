"""Tickets: awaitable results of submitted messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator

from ..guard import Guarded
from ..outcome import Outcome


class Ticket:
    """Stands for one submitted state; awaiting it gives its Outcome.

    Costs nothing until somebody waits: no task, no future. May be awaited more than once and by
    several tasks; cancelling a waiter neither cancels the push nor disturbs the other waiters.
    """

    __slots__ = ("_callback", "_outcome", "_waiters")

    def __init__(self) -> None:
        self._outcome: Outcome | None = None
        self._waiters: list[asyncio.Future[Outcome]] | None = None
        self._callback: Guarded | None = None

    def __repr__(self) -> str:
        return f"<Ticket {self._outcome.verdict.value if self._outcome else 'waiting'}>"

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, or None while there is none."""
        return self._outcome

    def done(self) -> bool:
        """Return whether the outcome is known."""
        return self._outcome is not None

    def when_done(self, callback: Callable[[Outcome], object]) -> None:
        """Call ``callback`` with the outcome, at once if it is known. One callback a ticket.

        What it raises is logged and stops nothing.
        """
        guarded = Guarded(callback, "the callback given to when_done()")
        if self._outcome is not None:
            guarded(self._outcome)
        else:
            self._callback = guarded

    def resolve(self, outcome: Outcome) -> None:
        """Set the outcome; a second one is ignored, since a push has exactly one."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(outcome)
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(outcome)

    def __await__(self) -> Generator[object, None, Outcome]:
        if self._outcome is None:
            waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            if self._waiters is None:
                self._waiters = [waiter]
            else:
                self._waiters.append(waiter)
            return (yield from waiter.__await__())
        return self._outcome
