"""Defects that were there once, to switch back on: the proof that the simulator can find them.

Each puts the mistake back into the part that had it, for as long as a block lasts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from apns_live.client import intake
from apns_live.client.engine import Engine
from apns_live.client.run import Life, Run
from apns_live.client.single import WaitingRoom
from apns_live.delivery import ledger
from apns_live.delivery.activity import Activities, LiveActivity
from apns_live.delivery.audience import Audience
from apns_live.http2.client_connection import ClientConnection
from apns_live.pool import Push

from .run import run_seed


def _a_sweep_ends_early_after_a_join() -> list[Any]:
    join = Audience.join

    def joined(self: Audience, *arguments: Any, **named: Any) -> Any:
        before = self._remaining
        place = join(self, *arguments, **named)
        self._remaining = min(self._remaining, before)
        return place

    return [mock.patch.object(Audience, "join", joined)]


def _a_token_of_none_reaches_the_connection() -> list[Any]:
    def everything(self: intake.Intake, items: list[Any]) -> list[Any]:
        return items

    return [
        mock.patch.object(intake, "are_tokens", return_value=True),
        mock.patch.object(intake.Intake, "_with_good_tokens", everything),
    ]


def _each_malformed_token_is_one_call_deeper() -> list[Any]:
    def take(self: Engine, limit: int, now: float, *more: Any) -> Sequence[Push]:
        if now < self.refusals.pool.until or self._bar is not None:
            return ()
        pushes = self._leavable(self.waiting.take(limit), now)
        if not pushes:
            pushes = self._intake.take(limit, now, *more)
            self._flush()
            pushes = self._leavable(pushes, now)
        if pushes or not (self._intake.hungry() or self.waiting.ready):
            return pushes
        return take(self, limit, now, *more)

    return [mock.patch.object(Engine, "take", take)]


def _ended_activities_are_kept() -> list[Any]:
    def forget(self: Activities, home: LiveActivity) -> None:
        self.dispatch.writer.note(home)

    return [mock.patch.object(Activities, "forget", forget)]


def _a_body_without_a_window_counts_as_sent() -> list[Any]:
    return [mock.patch.object(ClientConnection, "request_has_left", return_value=True)]


def _the_waiting_room_lets_everybody_in() -> list[Any]:
    def left(self: WaitingRoom, count: int) -> None:
        self._present -= count
        doors, self._doors = self._doors, deque()
        for door in doors:
            if not door.done():
                door.set_result(None)

    return [mock.patch.object(WaitingRoom, "_left", left)]


def _a_run_goes_on_after_break() -> list[Any]:
    async def iterate(self: Run) -> Any:
        self.start()
        while True:
            while self.outbox.unread:
                yield self.outbox.unread.popleft()
            if self.outbox.unpack():
                continue
            if self.life is Life.OVER:
                break
            self.resume()
            await self.outbox.changed()
        await self.finish()

    return [mock.patch.object(Run, "__aiter__", iterate)]


def _what_may_have_left_counts_as_not_sent() -> list[Any]:
    return [mock.patch.object(ledger, "in_doubt", return_value=False)]


DEFECTS: dict[str, Callable[[], list[Any]]] = {
    "a join during a sweep": _a_sweep_ends_early_after_a_join,
    "a token of None": _a_token_of_none_reaches_the_connection,
    "recursion": _each_malformed_token_is_one_call_deeper,
    "ended activities leak": _ended_activities_are_kept,
    "window 0": _a_body_without_a_window_counts_as_sent,
    "waiting room": _the_waiting_room_lets_everybody_in,
    "break": _a_run_goes_on_after_break,
    "recovery of the ledger": _what_may_have_left_counts_as_not_sent,
}


@contextmanager
def switched_on(name: str | None) -> Iterator[None]:
    """Put one defect back for as long as the block lasts; None for none."""
    patches = DEFECTS[name]() if name else []
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def finds(name: str, seed: int) -> bool:
    """Return whether a world fails with this defect and holds without it."""
    with switched_on(name):
        failed = bool(run_seed(seed).complaints)
    return failed and not run_seed(seed).complaints
