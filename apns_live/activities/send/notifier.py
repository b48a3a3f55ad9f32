"""Runs the notifications that were accepted, a few side by side, and takes them up after a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
from sqlalchemy import Row, select, update

from ...errors import InvalidInput
from ..apps import App, Apps
from ..requests.notify import KIND, Notify
from ..store import schema
from ..store.failures import STORE_FAILURES
from ..store.ownership import NotOwner
from .apns_clients import Carriers, NoKey
from .notifying import NotificationFanOut
from .refusals import Pauses
from .starting import Setting

logger = logging.getLogger("apns_live.activities")

AT_ONCE = 4
PAGE = 500
_TRY_AGAIN = 1.0


class Notifier:
    """Sends notifications. ``changed`` is told of operations that somebody may be watching."""

    def __init__(
        self,
        setting: Setting,
        apps: Apps,
        carriers: Carriers,
        *,
        changed: Callable[[Iterable[int]], object] = lambda operations: None,
        at_once: int = AT_ONCE,
    ) -> None:
        self._setting = setting
        self._apps = apps
        self._carriers = carriers
        self._changed = changed
        self._at_once = at_once
        self._known_apps: dict[int, App] = {}
        self._waiting: dict[int, None] = {}
        self._overflowed = False
        self._woken = asyncio.Event()
        self._woken.set()
        self._running: set[int] = set()
        self._again: set[int] = set()
        self._looking = False
        self._idle = asyncio.Event()
        self._pauses = Pauses(setting.clock, self._pause_over)

    @property
    def busy(self) -> bool:
        """Whether something that was accepted waits to be sent."""
        return bool(
            self._waiting or self._overflowed or self._running or self._looking or self._again
        )

    def accepting(self, app: App, row: int) -> None:
        """Say that a notification was accepted; call it after the commit."""
        self._known_apps[app.row] = app
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
        if row not in self._running and len(self._waiting) < PAGE:
            self._waiting[row] = None
            self._woken.set()

    async def gained(self, partitions: frozenset[int]) -> None:
        """Take up partitions, with what an earlier owner left."""
        self._overflowed = True
        self._woken.set()

    def key_added(self, app: App) -> None:
        """Take up again what failed for want of a key; call it after the commit."""
        self._known_apps[app.row] = app
        self._pauses.end_those_of(app.row)
        self._again.add(app.row)
        self._woken.set()

    async def _open_again(self) -> None:
        table = schema.operations
        again, self._again = self._again, set()
        self._looking = True
        try:
            async with self._setting.database.write() as connection:
                await connection.execute(
                    update(table)
                    .where(
                        table.c.app_id.in_(again),
                        table.c.kind == KIND,
                        table.c.status == "failed",
                        table.c.finished_at.is_(None),
                    )
                    # Not "accepted": it may have been sent to some already.
                    .values(status="running", reason=None)
                )
            self._overflowed = True
        except STORE_FAILURES:
            logger.exception("the store failed; trying again")
            self._again |= again
            await self._setting.clock.sleep(_TRY_AGAIN)
        finally:
            self._looking = False

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            await self._run()
        finally:
            self._pauses.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                while self._waiting and len(self._running) < self._at_once:
                    row = next(iter(self._waiting))
                    del self._waiting[row]
                    if row not in self._running:
                        self._running.add(row)
                        group.create_task(self._keep(row))
                if self._again:
                    await self._open_again()
                    continue
                if self._overflowed and not self._waiting:
                    await self._read()
                    continue
                if not self.busy:
                    self._idle.set()
                self._woken.clear()
                await self._woken.wait()

    async def _read(self) -> None:
        """Find what is not finished; those under way are known."""
        table = schema.operations
        self._overflowed, self._looking = False, True
        try:
            for status in ("running", "accepted"):
                after = 0
                while len(self._waiting) < PAGE:
                    async with self._setting.database.read() as connection:
                        rows = (
                            (
                                await connection.execute(
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
                            )
                            .scalars()
                            .all()
                        )
                    for row in rows:
                        if row not in self._running:
                            self._waiting[row] = None
                    if len(rows) < PAGE:
                        break
                    after = rows[-1]
                else:
                    self._overflowed = True
        except STORE_FAILURES:
            logger.exception("the store could not be read; trying again")
            self._overflowed = True
            await self._setting.clock.sleep(_TRY_AGAIN)
        finally:
            self._looking = False

    async def _keep(self, row: int) -> None:
        """Send one notification. Its errors are its own: others go on."""
        try:
            await self._send(row)
        except NotOwner:
            logger.info("the notification %d goes on with another worker", row)
        except STORE_FAILURES:
            logger.exception("the store failed during a notification; trying again")
            await self._setting.clock.sleep(_TRY_AGAIN)
            self._waiting[row] = None
        except Exception as error:
            logger.exception("a notification failed")
            await self._fail(row, f"{type(error).__name__}: {error}", final=True)
        finally:
            self._running.discard(row)
            self._changed([row])
            self._woken.set()

    async def _send(self, row: int) -> None:
        table = schema.operations
        async with self._setting.database.read() as connection:
            operation: Row[Any] | None = (
                await connection.execute(select(table).where(table.c.id == row))
            ).one_or_none()
        if operation is None or operation.status not in {"accepted", "running"}:
            return
        if operation.partition not in self._setting.ownership.partitions:
            return
        app = await self._app(operation.app_id)
        if app is None:
            return
        request = msgspec.json.decode(operation.request, type=Notify)
        try:
            async with AsyncExitStack() as stack:
                environment = request.environment or app.environment
                try:
                    carrier = await stack.enter_async_context(self._carriers.use(app, environment))
                except (NoKey, InvalidInput) as error:
                    await self._fail(row, str(error), final=False)
                    return
                fan_out = NotificationFanOut(self._setting, app, operation, request, carrier)
                await fan_out.run()
        except InvalidInput as error:
            await self._fail(row, str(error), final=True)
            return
        if fan_out.refused:
            reason = self._pauses.put_off(app.row, row, fan_out.refused)
            await self._note(row, "running", reason, None)
            return
        self._pauses.done(row)
        if fan_out.stopped:
            await self._fail(row, fan_out.stopped, final=True)

    def _pause_over(self, row: Any) -> None:
        self._waiting[row] = None
        self._woken.set()

    async def _fail(self, row: int, reason: str, *, final: bool) -> None:
        """Let it fail; one that is not final is tried again when a key is added."""
        now = int(self._setting.clock.time() * 1000)
        await self._note(row, "failed", reason, now if final else None)

    async def _note(self, row: int, status: str, reason: str, finished_at: int | None) -> None:
        table = schema.operations
        logger.warning("notification %d: %s", row, reason)
        async with self._setting.database.write() as connection:
            await connection.execute(
                update(table)
                .where(table.c.id == row)
                .values(status=status, reason=reason[:255], finished_at=finished_at)
            )

    async def _app(self, row: int) -> App | None:
        if row not in self._known_apps:
            self._known_apps.update((app.row, app) for app in await self._apps.list())
        return self._known_apps.get(row)
