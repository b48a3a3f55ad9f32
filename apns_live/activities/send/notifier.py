"""Runs the notifications that were accepted, a few side by side, and takes them up after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, select, update

from ...errors import InvalidInput
from ..apps import App
from ..requests.notify import KIND, Notify
from ..store import schema
from ..store.failures import STORE_FAILURES
from ..store.ownership import NotOwner
from .apns_clients import KnownApps
from .failing import Failing
from .fan_out import Setting
from .jobs import TRY_AGAIN, Jobs, Place
from .notifying import NotificationFanOut
from .refusals import Pauses

logger = logging.getLogger("apns_live.activities")

AT_ONCE = 4
PAGE = 500


class Notifier:
    """Sends notifications. ``changed`` is told of operations that somebody may be watching."""

    def __init__(
        self,
        setting: Setting,
        apps: KnownApps,
        failing: Failing,
        *,
        changed: Callable[[Iterable[int]], object] = lambda operations: None,
        at_once: int = AT_ONCE,
    ) -> None:
        self._setting = setting
        self._apps = apps
        self._failing = failing
        self._changed = changed
        self._at_once = at_once
        self._waiting: dict[int, None] = {}
        self._overflowed = False
        self._woken = asyncio.Event()
        self._woken.set()
        self._again: set[int] = set()
        self._looking = False
        self._idle = asyncio.Event()
        self._pauses = Pauses(setting.clock, self._pause_over)
        self._jobs = Jobs(setting.clock, setting.ownership, ended=self._ended, broken=self._broken)

    @property
    def busy(self) -> bool:
        """Whether something that was accepted waits to be sent."""
        return bool(
            self._waiting or self._overflowed or len(self._jobs) or self._looking or self._again
        )

    def accepting(self, app: App, row: int) -> None:
        """Say that a notification was accepted; call it after the commit."""
        self._apps.note(app)
        if len(self._waiting) < PAGE:
            self._waiting[row] = None
        else:
            self._overflowed = True
        self._woken.set()

    async def settled(self) -> None:
        """Return when nothing that was accepted waits."""
        while self.busy:
            self._idle.clear()
            await self._idle.wait()

    def found(self, row: int) -> None:
        """Say that the store has a notification which another process may have accepted."""
        if (KIND, row) not in self._jobs and len(self._waiting) < PAGE:
            self._waiting[row] = None
            self._woken.set()

    async def gained(self, partitions: frozenset[int]) -> None:
        """Take up partitions, with what an earlier owner left."""
        self._overflowed = True
        self._woken.set()

    def key_added(self, app: App) -> None:
        """Take up again what failed for want of a key; call it after the commit."""
        self._apps.note(app)
        self._pauses.end_those_of(app.row)
        self._again.add(app.row)
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled."""
        self._overflowed = True  # also when it is started again after a failure
        try:
            async with asyncio.TaskGroup() as self._jobs.group:
                await self._run()
        finally:
            self._jobs.group = None
            self._pauses.close()

    async def _run(self) -> None:
        while True:
            while self._waiting and len(self._jobs) < self._at_once:
                row = next(iter(self._waiting))
                del self._waiting[row]
                self._jobs.begin((KIND, row), partial(self._send, row))
            if self._again or (self._overflowed and not self._waiting):
                self._looking = True
                try:
                    await (self._open_again() if self._again else self._read())
                except STORE_FAILURES:
                    logger.exception("the store failed; trying again")
                    await self._setting.clock.sleep(TRY_AGAIN)
                finally:
                    self._looking = False
                continue
            if not self.busy:
                self._idle.set()
            self._woken.clear()
            await self._woken.wait()

    async def _open_again(self) -> None:
        """Open what failed for want of a key of an app that has one now."""
        table, apps = schema.operations, frozenset(self._again)
        async with self._setting.database.write() as connection:
            await connection.execute(
                update(table)
                .where(
                    table.c.app_id.in_(apps),
                    table.c.kind == KIND,
                    table.c.status == "failed",
                    table.c.finished_at.is_(None),
                )
                # Not "accepted": it may have been sent to some already.
                .values(status="running", reason=None)
            )
        self._again -= apps
        self._overflowed = True

    async def _read(self) -> None:
        """Find what is not finished; those under way are known."""
        self._overflowed, table = False, schema.operations
        for status in ("running", "accepted"):
            after = 0
            while len(self._waiting) < PAGE:
                query = (
                    select(table.c.id)
                    .where(
                        table.c.status == status,
                        table.c.kind == KIND,
                        table.c.id > after,
                        self._setting.ownership.mine(table),
                    )
                    .order_by(table.c.id)
                    .limit(PAGE)
                )
                try:
                    async with self._setting.database.read() as connection:
                        rows = (await connection.execute(query)).scalars().all()
                except STORE_FAILURES:
                    self._overflowed = True
                    raise
                self._waiting.update((row, None) for row in rows if (KIND, row) not in self._jobs)
                if len(rows) < PAGE:
                    break
                after = rows[-1]
            else:
                self._overflowed = True

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
            self._overflowed = True  # it may go on here, if the partition came back meanwhile
            raise
        if fan_out.refused:
            reason = self._pauses.put_off(app.row, row, fan_out.refused)
            await self._failing.note(operation, "running", reason)
            return
        self._pauses.done(row)
        if fan_out.stopped:
            await self._failing.fail([operation], fan_out.stopped, final=True)

    def _pause_over(self, row: Any) -> None:
        self._waiting[row] = None
        self._woken.set()

    async def _operation(self, row: int) -> Row[Any] | None:
        table = schema.operations
        async with self._setting.database.read() as connection:
            return (await connection.execute(select(table).where(table.c.id == row))).one_or_none()

    async def _broken(self, place: Place, _: Sequence[Row[Any]], error: Exception) -> None:
        operation = await self._operation(place[1])
        if operation is not None:
            reason = f"{type(error).__name__}: {error}"
            await self._failing.fail([operation], reason, final=True)

    def _ended(self, place: Place, again: bool) -> None:
        if again:
            self._waiting[place[1]] = None
        self._changed([place[1]])
        self._woken.set()
