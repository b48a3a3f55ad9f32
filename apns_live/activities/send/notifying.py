"""Notifications: ordinary pushes to the device tokens of an audience, read, sent and recorded.

As with starts, a page's intent is committed before it may leave and its results behind it. There is
no row that says "started" here, so the devices of each page under way are kept in ``intended_pages``:
what a crash leaves of them without an outcome is sent again. A notification that arrives twice takes
its own place by its collapse id, and one that never arrives is lost for good.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, Select, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ... import payload
from ...client import WorkItem
from ...delivery import SpikeGuard
from ...outcome import Outcome, Verdict
from ..apps import App
from ..observed import Finished
from ..people.audience import Recipient
from ..read.operations import persons_reached
from ..requests.messages import best_language
from ..requests.notify import Notify, languages_of, message_of
from ..store import schema
from ..store.bulk import page_of, with_rows
from ..store.ownership import NotOwner
from ..times import milliseconds
from .apns_clients import Carrier
from .pages import Pages
from .refusals import refusal_of, refuses_credentials
from .results import refusal
from .starting import AHEAD, PAGE, Setting

_OURS = frozenset({"closed", "cancelled"})
"""Reasons of what was not sent because we stop: it is sent when we go on."""

_SETTLED = """
SELECT given.device FROM {given} JOIN outcomes
    ON outcomes.operation_id = :operation AND outcomes.device_id = given.device
"""


class NotificationFanOut:
    """One notification. ``await run()`` returns when each device it read has its result stored."""

    def __init__(
        self,
        setting: Setting,
        app: App,
        operation: Row[Any],
        request: Notify,
        carrier: Carrier,
    ) -> None:
        self._setting = setting
        self._app = app
        self._operation = operation
        self._request = request
        self._environment = request.environment or app.environment
        self._carrier = carrier
        self._ready: deque[WorkItem] = deque()
        self._unrecorded = 0
        self._changed = asyncio.Event()
        self._guard = SpikeGuard()
        self._made: dict[str, Any] = {}
        self._made_at = 0.0
        self._pages = Pages()
        self.refused = ""
        """Why APNs refuses the credentials, if it refused any push for that."""

    @property
    def stopped(self) -> str:
        """Why it was stopped: its answers would have been refusals for ever. Empty if it was not."""
        return self._guard.stopped

    # Part of `WorkSource`.

    def take(self, limit: int) -> Sequence[WorkItem]:
        """Give the client what is intended and waits."""
        ready = self._ready
        if not self._setting.ownership.holds(self._operation.partition):
            return ()
        return [ready.popleft() for _ in range(min(limit, len(ready)))]

    def settled(self, outcomes: Sequence[tuple[WorkItem, Outcome]]) -> None:
        """Note results."""
        recorder, operation = self._setting.recorder, self._operation.id
        batch, app = recorder.batch, self._app.row
        batch.partitions.add(self._operation.partition)
        accepted = 0
        taken_back: list[int] = []
        for item, outcome in outcomes:
            device = item.context
            if outcome.verdict is Verdict.NOT_SENT and outcome.reason in _OURS:
                taken_back.append(device)
                continue
            if refuses_credentials(outcome):
                # It is no answer about this device: it is sent when the credentials are right.
                self.refused = refusal_of(outcome)
                taken_back.append(device)
                self._guard.answered(outcome)
                continue
            batch.add(app, operation, device, outcome)
            self._pages.settled(device)
            if outcome.verdict is Verdict.ACCEPTED:
                accepted += 1
                continue
            if outcome.verdict is Verdict.DROP_TOKEN:
                now = milliseconds(self._setting.clock)
                batch.refused_devices.append(refusal(app, outcome, now))
            self._guard.answered(outcome)
        if taken_back:
            batch.unsent.append((operation, _list(taken_back)))
        recorder.count(self, len(outcomes))
        recorder.soon()
        if self._guard.judge(accepted):
            self._give_up()

    def recorded(self, count: int) -> None:
        """Note that results are in the store."""
        self._unrecorded -= count
        self._pages.recorded(count)
        self._setting.room.give(count)
        self._changed.set()

    def _give_up(self) -> None:
        """Take back what has not left: for good, unless it is for the credentials."""
        if self.refused:
            self._put_off()
            self._changed.set()
            return
        waiting, self._ready = self._ready, deque()
        self.settled(
            [
                (
                    item,
                    Outcome(
                        token=item.token,
                        verdict=Verdict.NOT_SENT,
                        reason="stopped",
                        priority=item.message.priority,
                    ),
                )
                for item in waiting
            ]
        )
        self._changed.set()

    def _put_off(self) -> None:
        """Leave what has not left to the next run."""
        if self._ready:
            recorder = self._setting.recorder
            waiting = [item.context for item in self._ready]
            self._ready.clear()
            recorder.batch.partitions.add(self._operation.partition)
            recorder.batch.unsent.append((self._operation.id, _list(waiting)))
            recorder.count(self, len(waiting))
            recorder.soon()

    # The run.

    async def run(self) -> None:
        """Send to the whole audience. Raises `InvalidInput` if the audience no longer resolves."""
        unsent = await self._recover() if self._operation.status != "accepted" else []
        attachment = self._carrier.sender.attach(self)
        self._setting.running.add(self)
        try:
            for page_row, devices in unsent:
                await self._send_again(attachment, page_row, devices)
            async for page in self._read():
                if not await self._send(attachment, page):
                    break
            await self._all_recorded(attachment)
        except Exception:
            # What is on its way has its results stored before anybody tries again.
            self._stop(attachment)
            await self._all_recorded(attachment)
            raise
        finally:
            self._setting.running.discard(self)
            self._stop(attachment)
        if not self.stopped and not self.refused:
            await self._finish()

    def _stop(self, attachment: Any) -> None:
        attachment.detach()
        attachment.cancel_waiting()
        self._put_off()

    async def _all_recorded(self, attachment: Any) -> None:
        while self._unrecorded:
            if self._operation.partition not in self._setting.ownership.partitions:
                self._stop(attachment)
            await self._wait()

    def wake(self) -> None:
        """Look again: partitions may have been lost."""
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _room(self, count: int) -> bool:
        while self._unrecorded + count > AHEAD and not self.stopped:
            await self._wait()
        if self.stopped:
            return False
        await self._setting.room.take(count)
        self._unrecorded += count
        return True

    async def _send(self, attachment: Any, page: Sequence[Recipient]) -> bool:
        """Intend a page and let it leave; return whether to go on."""
        if self._operation.partition not in self._setting.ownership.partitions:
            raise NotOwner(frozenset({self._operation.partition}))
        devices = list(dict.fromkeys(recipient.device for recipient in page))
        if not await self._room(len(page)):
            return False
        try:
            async with self._setting.database.write() as connection:
                await self._still_ours(connection)
                done = self._pages.take_done()
                if done:
                    pages = schema.intended_pages
                    await connection.execute(delete(pages).where(pages.c.id.in_(done)))
                page_row = (
                    await connection.execute(
                        insert(schema.intended_pages)
                        .values(operation_id=self._operation.id, devices=_list(devices))
                        .returning(schema.intended_pages.c.id)
                    )
                ).scalar_one()
                operations = schema.operations
                await connection.execute(
                    update(operations)
                    .where(operations.c.id == self._operation.id)
                    .values(
                        cursor=page[-1].row,
                        targeted=operations.c.targeted + len(page),
                        status="running",
                    )
                )
        except BaseException:
            self._take_back_room(len(page))
            raise
        self._leave(attachment, page_row, page)
        return not self.stopped

    async def _send_again(self, attachment: Any, page_row: int, devices: Sequence[int]) -> None:
        """Send to devices that an earlier run had counted, and that have no outcome."""
        if not await self._room(len(devices)):
            return
        try:
            async with self._setting.database.write() as connection:
                await self._still_ours(connection)
                query = _tokens(self._app, self._environment).where(
                    schema.devices.c.id.in_(devices)
                )
                found = [Recipient(*row) for row in await page_of(connection, query)]
                pages = schema.intended_pages
                left = [recipient.device for recipient in found]
                await connection.execute(
                    update(pages)
                    .where(pages.c.id == page_row)
                    .values(devices=_list(left), unsent=False)
                )
                # Who has lost the token since is no longer counted.
                operations = schema.operations
                await connection.execute(
                    update(operations)
                    .where(operations.c.id == self._operation.id)
                    .values(targeted=operations.c.targeted - (len(devices) - len(found)))
                )
        except BaseException:
            self._take_back_room(len(devices))
            raise
        self._take_back_room(len(devices) - len(found))
        self._leave(attachment, page_row, found)

    async def _still_ours(self, connection: AsyncConnection) -> None:
        await self._setting.ownership.guard(connection, [self._operation.partition])

    def _take_back_room(self, count: int) -> None:
        self._unrecorded -= count
        self._setting.room.give(count)

    def _leave(self, attachment: Any, page_row: int, page: Sequence[Recipient]) -> None:
        self._pages.intended(page_row, [recipient.device for recipient in page])
        message_in = self._message_in
        self._ready.extend(
            WorkItem(recipient.token, message_in(recipient.language), recipient.device)
            for recipient in page
        )
        attachment.wake()
        if self.stopped:
            self._give_up()

    def _message_in(self, language: str | None) -> Any:
        """Return the push for a language, encoded once a second at most."""
        now = self._setting.clock.time()
        if int(now) != int(self._made_at):
            self._made.clear()
            self._made_at = now
        best = best_language(languages_of(self._request), language)
        made = self._made.get(best)
        if made is None:
            message = message_of(self._request, best, now=now)
            made = self._made[best] = self._carrier.client.prepare(payload.encode(message, now=now))
        return made

    async def _read(self) -> AsyncIterator[Sequence[Recipient]]:
        """Read the audience in pages, from where the store says that it was read to."""
        query = await self._query()
        after = self._operation.cursor
        while True:
            async with self._setting.database.read() as connection:
                rows = await page_of(connection, query, {"after": after})
            page = sorted((Recipient(*row) for row in rows), key=lambda recipient: recipient.row)
            if page:
                yield page
                after = page[-1].row
            if len(page) < PAGE:
                return

    async def _query(self) -> Select[Any]:
        tokens, outcomes = schema.device_tokens, schema.outcomes
        query = _tokens(self._app, self._environment)
        async with self._setting.database.read() as connection:
            if self._request.replaces is None:
                clause = await self._setting.audiences.clause(
                    connection, self._app, self._request.audience
                )
                place = tokens.c.id
                query = query.where(clause)
            else:
                operations = schema.operations
                former = (
                    await connection.execute(
                        select(operations.c.id).where(
                            operations.c.app_id == self._app.row,
                            operations.c.public_id == self._request.replaces,
                        )
                    )
                ).scalar()
                place = outcomes.c.id
                query = (
                    query.with_only_columns(
                        place, *list(query.selected_columns)[1:], maintain_column_froms=True
                    )
                    .join(outcomes, outcomes.c.device_id == tokens.c.device_id)
                    .where(
                        outcomes.c.operation_id == former,
                        outcomes.c.verdict == Verdict.ACCEPTED.value,
                    )
                )
        return query.where(place > bindparam("after")).order_by(place).limit(PAGE)

    async def _recover(self) -> list[tuple[int, list[int]]]:
        """Return the pages that an earlier run began with, and who of each has no outcome yet."""
        pages, operation = schema.intended_pages, self._operation.id
        async with self._setting.database.read() as connection:
            rows = (
                await connection.execute(
                    select(pages).where(pages.c.operation_id == operation).order_by(pages.c.id)
                )
            ).all()
            left: list[tuple[int, list[int]]] = []
            known: set[int] = set()
            # What was certainly not sent first: a page that it is in may be there too.
            for row in sorted(rows, key=lambda row: not row.unsent):
                devices = [device for device in _devices(row) if device not in known]
                given = [(device,) for device in devices]
                found = await with_rows(
                    connection, _SETTLED, {"device": "BIGINT"}, given, operation=operation
                )
                settled = set(found.scalars())
                known.update(devices)
                left.append((row.id, [device for device in devices if device not in settled]))
        return left

    async def _finish(self) -> None:
        operations, pages = schema.operations, schema.intended_pages
        now = milliseconds(self._setting.clock)
        async with self._setting.database.read() as connection:
            persons = await persons_reached(connection, self._operation.id)
        async with self._setting.database.write() as connection:
            await self._still_ours(connection)
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


def _tokens(app: App, environment: str) -> Select[Any]:
    """Return the query for living device tokens, of devices that have not switched pushes off."""
    tokens, devices = schema.device_tokens, schema.devices
    return (
        select(tokens.c.id, tokens.c.device_id, tokens.c.token, devices.c.language)
        .join(devices, devices.c.id == tokens.c.device_id)
        .where(
            tokens.c.app_id == app.row,
            tokens.c.environment == environment,
            tokens.c.retired_at.is_(None),
            devices.c.push_enabled.is_(True),
        )
    )


def _list(devices: Sequence[int]) -> str:
    return msgspec.json.encode(devices).decode()


def _devices(row: Row[Any]) -> list[int]:
    return msgspec.json.decode(row.devices, type=list[int])
