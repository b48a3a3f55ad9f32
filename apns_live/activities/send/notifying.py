"""Notifications: ordinary pushes to the device tokens of an audience, a few side by side.

There is no row that says "started" here, so the devices of each page under way are kept in
``intended_pages``: what a crash leaves of them without an outcome is sent again. A notification that
arrives twice takes its own place by its collapse id, and one that never arrives is lost for good.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, Select, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...client import WorkItem
from ...errors import InvalidInput
from ...outcome import Outcome, Verdict
from ..apps import App
from ..finding import id_named
from ..observed import Finished
from ..people.audience import Recipient, living_tokens, recipient_pages
from ..read.operations import persons_reached
from ..requests.notify import KIND, Notify, languages_of, message_of
from ..store import schema
from ..store.failures import STORE_FAILURES
from ..store.ownership import NotOwner
from ..store.statements import change_row, json_text, page_of, with_rows
from ..times import milliseconds
from . import fan_out
from .apns_clients import Carrier, KnownApps
from .backlog import Backlog
from .failing import Failing
from .fan_out import FanOut, Setting, item_for
from .jobs import TRY_AGAIN, Jobs, Place
from .refusals import Pauses
from .results import Batch, refusal

logger = logging.getLogger("apns_live.activities")

AT_ONCE = 4
"""Notifications that are sent side by side."""

_SETTLED = """
SELECT given.device FROM {device} JOIN outcomes
    ON outcomes.operation_id = :operation AND outcomes.device_id = given.device
"""


class Again(list[int]):
    """Devices of a page that an earlier run intended and that have no outcome. ``row`` is the page's."""

    row = 0


class NotificationFanOut(FanOut[Sequence[Any]]):
    """One notification."""

    def __init__(
        self,
        setting: Setting,
        app: App,
        operation: Row[Any],
        request: Notify,
        carrier: Carrier,
    ) -> None:
        super().__init__(setting, app, operation, carrier)
        self._request = request
        self._environment = request.environment or app.environment
        self._again: list[Again] = []

    async def run(self) -> bool:
        """Send to the whole audience; see `FanOut.run`."""
        whole = await super().run()
        if not self.stopped and not self.refused:
            await self._finish()
        return whole

    async def _recover(self) -> None:
        """Read the pages that an earlier run began with, and who of each has no outcome yet."""
        if self._operation.status == "accepted":
            return
        pages, operation = schema.intended_pages, self._operation.id
        async with self._setting.database.read() as connection:
            rows = await connection.execute(
                select(pages).where(pages.c.operation_id == operation).order_by(pages.c.id)
            )
            known: set[int] = set()
            for row in rows.all():
                devices = msgspec.json.decode(row.devices, type=list[int])
                found = await with_rows(
                    connection,
                    _SETTLED,
                    [(device,) for device in devices],
                    operation=operation,
                )
                over = known.union(found.scalars())
                again = Again(device for device in devices if device not in over)
                again.row = row.id
                known.update(again)
                if again:
                    self._again.append(again)

    async def _pages(self) -> AsyncIterator[Sequence[Any]]:
        for again in self._again:
            yield again
        query, place = await self._query()
        setting, after = self._setting, self._operation.cursor
        read = recipient_pages(setting.database, query, place, after, fan_out.PAGE)
        async with aclosing(read) as pages:
            async for page in pages:
                yield page

    async def _query(self) -> tuple[Select[Any], ColumnElement[int]]:
        """Return the query for recipients, and the column of their rows."""
        outcomes, operations = schema.outcomes, schema.operations
        query = self._tokens()
        async with self._setting.database.read() as connection:
            if self._request.replaces is None:
                audience = self._request.audience
                clause = await self._setting.audiences.clause(connection, self._app, audience)
                return query.where(clause), schema.device_tokens.c.id
            named = id_named(self._app, operations, self._request.replaces)
            former = await connection.scalar(select(named))
        columns = (outcomes.c.id, *list(query.selected_columns)[1:])
        query = query.with_only_columns(*columns, maintain_column_froms=True)
        query = query.join(outcomes, outcomes.c.device_id == schema.device_tokens.c.device_id)
        reached = outcomes.c.verdict == Verdict.ACCEPTED.value
        return query.where(outcomes.c.operation_id == former, reached), outcomes.c.id

    def _tokens(self) -> Select[Any]:
        """Return the query for living device tokens, of devices that have not switched pushes off."""
        query = living_tokens(schema.device_tokens, self._app, self._environment)
        return query.where(schema.devices.c.push_enabled.is_(True))

    async def _intend(self, page: Sequence[Any]) -> list[WorkItem]:
        async with self._setting.database.write() as connection:
            await self._keep(connection)
            if isinstance(page, Again):
                recipients: Sequence[Recipient] = await self._intend_again(connection, page)
            else:
                recipients = page
                await self._intend_new(connection, page)
        now = self._setting.clock.time()
        message_in = self._worded(
            int(now),
            languages_of(self._request),
            lambda language: message_of(self._request, language, now=now),
            now,
        )
        return [item_for(each, message_in(each.language)) for each in recipients]

    async def _intend_new(self, connection: AsyncConnection, page: Sequence[Recipient]) -> None:
        pages, operations = schema.intended_pages, schema.operations
        row = self._operation.id
        devices = json_text(list(dict.fromkeys(recipient.device for recipient in page)))
        await connection.execute(insert(pages).values(operation_id=row, devices=devices))
        targeted = operations.c.targeted + len(page)
        begun = {"cursor": page[-1].row, "targeted": targeted, "status": "running"}
        await change_row(connection, operations, row, **begun)

    async def _intend_again(self, connection: AsyncConnection, page: Again) -> list[Recipient]:
        """Return whom of a page to send to; who has lost the token since is no longer counted."""
        pages, operations = schema.intended_pages, schema.operations
        query = self._tokens().where(schema.devices.c.id.in_(page))
        found = [Recipient(*row) for row in await page_of(connection, query)]
        devices = json_text([recipient.device for recipient in found])
        await change_row(connection, pages, page.row, devices=devices)
        targeted = operations.c.targeted - (len(page) - len(found))
        await change_row(connection, operations, self._operation.id, targeted=targeted)
        return found

    def _noted(self, batch: Batch, device: int, outcome: Outcome) -> None:
        if outcome.verdict is Verdict.DROP_TOKEN:
            now = milliseconds(self._setting.clock)
            batch.refused_devices.append(refusal(self._app.row, outcome, now))

    async def _finish(self) -> None:
        operations, pages = schema.operations, schema.intended_pages
        now = milliseconds(self._setting.clock)
        async with self._setting.database.read() as connection:
            persons = await persons_reached(connection, self._operation.id)
        async with self._setting.database.write() as connection:
            await self._keep(connection)
            await connection.execute(
                delete(pages).where(pages.c.operation_id == self._operation.id)
            )
            counts = await connection.execute(
                update(operations)
                .where(operations.c.id == self._operation.id)
                .values(status="done", reason=None, users=persons, finished_at=now)
                .returning(operations.c.accepted, operations.c.failed)
            )
            accepted, failed = counts.one()
        one = self._operation
        self._setting.recorder.observed.finished(
            [Finished(one.id, one.public_id, one.kind, "done", one.created_at, accepted, failed)],
            now,
        )


@dataclass(eq=False, repr=False)
class Notifier:
    """Sends notifications. ``changed`` is told of operations that somebody may be watching.

    ``moved`` is called when something is done, or nothing waits.
    """

    setting: Setting
    apps: KnownApps
    failing: Failing
    _: KW_ONLY
    changed: Callable[[Iterable[int]], object]
    moved: Callable[[], object]

    def __post_init__(self) -> None:
        operations = schema.operations.c
        self._backlog = Backlog(
            self.setting.database, self.setting.ownership, (KIND,), operations.id
        )
        self._backlog.emptied = self.moved
        self._freed = asyncio.Event()
        self._pauses = Pauses(self.setting.clock, self._pause_over)
        self._jobs = Jobs(
            self.setting.clock, self.setting.ownership, ended=self._ended, broken=self._broken
        )

    @property
    def busy(self) -> bool:
        """Whether something that was accepted waits to be sent."""
        return not self._backlog.empty or bool(len(self._jobs))

    def accepting(self, app: App, row: int) -> None:
        """Say that a notification was accepted; call it after the commit."""
        self.apps.note(app)
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
        self._backlog.take_over(self.setting.ownership.partitions)
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
            await self.setting.clock.sleep(TRY_AGAIN)
        else:
            self._backlog.found.discard(row)
            self._jobs.begin((KIND, row), partial(self._send, row))

    async def _send(self, row: int) -> None:
        setting, operation = self.setting, await self._operation(row)
        if (
            operation is None
            or operation.status not in {"accepted", "running"}
            or operation.partition not in setting.ownership.partitions
            or (app := await self.apps.get(operation.app_id)) is None
        ):
            return
        try:
            request = msgspec.json.decode(operation.request, type=Notify)
            environment = request.environment or app.environment
            async with self.failing.carrier(app, environment, [operation]) as carrier:
                if carrier is None:
                    return
                fan_out = NotificationFanOut(setting, app, operation, request, carrier)
                await fan_out.run()
        except InvalidInput as error:
            await self.failing.fail([operation], str(error), final=True)
            return
        except NotOwner:
            self._jobs.again((KIND, row))  # it may go on here, if the partition came back meanwhile
            raise
        await self.failing.settle(self._pauses, row, operation, fan_out, final=True)

    def _pause_over(self, row: Any) -> None:
        self._backlog.add(row)

    async def _operation(self, row: int) -> Row[Any] | None:
        table = schema.operations
        return await self.setting.database.row(select(table).where(table.c.id == row))

    async def _broken(self, place: Place, _: Sequence[Row[Any]], error: Exception) -> None:
        operation = await self._operation(place[1])
        if operation is not None:
            reason = f"{type(error).__name__}: {error}"
            await self.failing.fail([operation], reason, final=True)

    def _ended(self, place: Place, again: bool) -> None:
        if again:
            self._backlog.add(place[1])
        self.changed([place[1]])
        self._freed.set()
        self.moved()
