"""Runs the notifications that were accepted, a few side by side, and takes them up after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, select

from ...errors import InvalidInput
from ..apps import App
from ..requests.notify import KIND, Notify
from ..store import schema
from ..store.failures import STORE_FAILURES
from ..store.ownership import NotOwner
from .apns_clients import KnownApps
from .backlog import Backlog
from .failing import Failing
from .fan_out import Setting
from .jobs import TRY_AGAIN, Jobs, Place
from .notifying import NotificationFanOut
from .refusals import Pauses

logger = logging.getLogger("apns_live.activities")

AT_ONCE = 4


class Notifier:
    """Sends notifications. ``changed`` is told of operations that somebody may be watching.

    ``moved`` is called when something is done, or nothing waits.
    """

    def __init__(
        self,
        setting: Setting,
        apps: KnownApps,
        failing: Failing,
        *,
        changed: Callable[[Iterable[int]], object],
        moved: Callable[[], object],
    ) -> None:
        self._setting = setting
        self._apps = apps
        self._failing = failing
        self._changed = changed
        self._moved = moved
        operations = schema.operations.c
        self._backlog = Backlog(setting.database, setting.ownership, (KIND,), operations.id)
        self._backlog.emptied = moved
        self._freed = asyncio.Event()
        self._pauses = Pauses(setting.clock, self._pause_over)
        self._jobs = Jobs(setting.clock, setting.ownership, ended=self._ended, broken=self._broken)

    @property
    def busy(self) -> bool:
        """Whether something that was accepted waits to be sent."""
        return not self._backlog.empty or bool(len(self._jobs))

    def accepting(self, app: App, row: int) -> None:
        """Say that a notification was accepted; call it after the commit."""
        self._apps.note(app)
        self._backlog.add(row)

    def found(self, row: int) -> None:
        """Say that the store has a notification which another process may have accepted."""
        if (KIND, row) not in self._jobs:
            self._backlog.add(row)

    def gained(self, partitions: frozenset[int]) -> None:
        """Take up partitions, with what an earlier owner left."""
        self._backlog.take_over(partitions)

    async def use_key(self, app: App) -> None:
        """Take up again what failed for want of a key. Raises `StoreError`."""
        self._pauses.end_those_of(app.row)
        await self._backlog.try_again(app)

    async def run(self) -> None:
        """Work until cancelled."""
        self._backlog.take_over(self._setting.ownership.partitions)
        try:
            async with asyncio.TaskGroup() as self._jobs.group:
                while True:
                    await self._begin_next()
        finally:
            self._jobs.group = None
            self._pauses.close()

    async def _begin_next(self) -> None:
        while len(self._jobs) >= AT_ONCE:
            self._freed.clear()
            await self._freed.wait()
        try:
            [row] = await self._backlog.take(1)
        except STORE_FAILURES:
            logger.exception("the store failed; trying again")
            await self._setting.clock.sleep(TRY_AGAIN)
        else:
            self._jobs.begin((KIND, row), partial(self._send, row))

    async def _send(self, row: int) -> None:
        setting, operation = self._setting, await self._operation(row)
        if (
            operation is None
            or operation.status not in {"accepted", "running"}
            or operation.partition not in setting.ownership.partitions
            or (app := await self._apps.get(operation.app_id)) is None
        ):
            return
        try:
            request = msgspec.json.decode(operation.request, type=Notify)
            environment = request.environment or app.environment
            async with self._failing.carrier(app, environment, [operation]) as carrier:
                if carrier is None:
                    return
                fan_out = NotificationFanOut(setting, app, operation, request, carrier)
                await fan_out.run()
        except InvalidInput as error:
            await self._failing.fail([operation], str(error), final=True)
            return
        except NotOwner:
            self._jobs.again((KIND, row))  # it may go on here, if the partition came back meanwhile
            raise
        await self._failing.settle(self._pauses, row, operation, fan_out, final=True)

    def _pause_over(self, row: Any) -> None:
        self._backlog.add(row)

    async def _operation(self, row: int) -> Row[Any] | None:
        table = schema.operations
        return await self._setting.database.fetch_row(select(table).where(table.c.id == row))

    async def _broken(self, place: Place, _: Sequence[Row[Any]], error: Exception) -> None:
        operation = await self._operation(place[1])
        if operation is not None:
            reason = f"{type(error).__name__}: {error}"
            await self._failing.fail([operation], reason, final=True)

    def _ended(self, place: Place, again: bool) -> None:
        if again:
            self._backlog.add(place[1])
        self._changed([place[1]])
        self._freed.set()
        self._moved()
