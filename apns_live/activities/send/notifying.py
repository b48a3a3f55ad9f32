"""Sends notifications to the device tokens of an audience, a few in parallel.

A notification is never sent twice: after a crash, devices of a shard without an outcome are reported as UNKNOWN.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, Select, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import InvalidInput
from ...outcome import Outcome, Verdict
from ..apps import App
from ..finding import id_named
from ..people.audience import Recipient, living_tokens
from ..read.operations import persons_reached
from ..requests.notify import KIND, Notify, languages_of, message_of
from ..store import schema
from ..store.failures import STORE_FAILURES
from ..store.ownership import NotOwner
from ..store.reached import rows_of_many
from .apns_clients import Carrier, KnownApps
from .backlog import Backlog
from .failing import Failing
from .fan_out import FanOut
from .jobs import TRY_AGAIN, Jobs
from .kind import Intended, Kind, Messages, Pass, SharedParts
from .results import Batch, refusal

_BEHIND = 1 << 61
"""Added to the cursor while the devices that share a row of outcomes are read."""
AT_ONCE = 4
"""Notifications that are sent in parallel."""


class NotificationKind(Kind):
    """A notification."""

    def __init__(
        self, shared: SharedParts, app: App, operation: Row[Any], request: Notify, carrier: Carrier
    ) -> None:
        super().__init__(shared, app, operation, carrier)
        self._request = request
        self._environment = request.environment or app.environment

    async def passes(self) -> Sequence[Pass]:
        """Return the audience, or the devices that the replaced notification has reached."""
        outcomes, operations = schema.outcomes, schema.operations
        query = self.living()
        async with self.shared.database.read() as connection:
            if self._request.replaces is None:
                audience = self._request.audience
                clause = await self.shared.audiences.clause(connection, self.app, audience)
                return [Pass(query.where(clause), schema.device_tokens.c.id)]
            named = id_named(self.app, operations, self._request.replaces)
            former = await connection.scalar(select(named))
            shared = await rows_of_many(connection, outcomes.c.operation_id == former)
        columns = (outcomes.c.id, *list(query.selected_columns)[1:])
        query = query.with_only_columns(*columns, maintain_column_froms=True)
        query = query.join(outcomes, outcomes.c.device_id == schema.device_tokens.c.device_id)
        reached = outcomes.c.verdict == Verdict.ACCEPTED.value
        passes = [Pass(query.where(outcomes.c.operation_id == former, reached), outcomes.c.id)]
        if shared:
            tokens, query = schema.device_tokens.c, self.living()
            first = min(row.first_device for row in shared)
            last = max(row.last_device for row in shared)
            query = query.where(tokens.device_id.between(first, last))
            passes.append(Pass(query, tokens.id, _BEHIND, only=shared))
        return passes

    def living(self) -> Select[Any]:
        """Return the query for living device tokens of devices with pushes enabled."""
        query = living_tokens(schema.device_tokens, self.app, self._environment)
        return query.where(schema.devices.c.push_enabled.is_(True))

    async def intend(
        self, connection: AsyncConnection, page: Sequence[Recipient], *, first: bool
    ) -> Intended:
        """Accept the whole page."""
        return Intended([one.device for one in page], partial(self._messages, page))

    async def _messages(self, page: Sequence[Recipient]) -> Messages:
        request, now = self._request, self.shared.clock.time()

        def message(language: str) -> Any:
            return message_of(request, language, now=now)

        return self._worded(page, int(now), languages_of(request), message, now)

    async def left_open(self, connection: AsyncConnection) -> Sequence[Sequence[int]]:
        """Take the pages that an earlier release intended."""
        pages = schema.intended_pages
        gone = delete(pages).where(pages.c.operation_id == self.operation.id)
        rows = await connection.scalars(gone.returning(pages.c.devices))
        return [msgspec.json.decode(devices, type=list[int]) for devices in rows]

    def noted(self, batch: Batch, device: int, outcome: Outcome) -> None:
        """Retire a dead token."""
        if outcome.verdict is Verdict.DROP_TOKEN:
            batch.refused_devices.append(refusal(self.app.row, outcome, self.now))

    def put_back(self, batch: Batch, devices: Sequence[int]) -> None:
        """Do nothing: only the shard has the devices."""


@dataclass(eq=False, repr=False)
class Notifier:
    """Sends notifications. ``emptied`` is called when none waits."""

    shared: SharedParts
    jobs: Jobs
    apps: KnownApps
    failing: Failing
    emptied: Callable[[], object]

    def __post_init__(self) -> None:
        place = schema.operations.c.id
        self.backlog = Backlog(self.shared.database, self.shared.ownership, (KIND,), place)
        self.backlog.emptied = self.emptied
        self._freed = asyncio.Event()

    def accepting(self, app: App, row: int) -> None:
        """Notify that a notification was accepted; call it after the commit."""
        self.apps.note(app)
        self.backlog.add(row)

    def found(self, row: int) -> None:
        """Notify that the store has a notification which another process may have accepted."""
        if (KIND, row) not in self.jobs:
            self.backlog.add(row)

    async def run(self) -> None:
        """Begin to send one notification after the other, until cancelled."""
        while True:
            while self.jobs.running(KIND) >= AT_ONCE:
                self._freed.clear()
                await self._freed.wait()
            try:
                [row] = await self.backlog.take(1)
            except STORE_FAILURES as error:
                self.shared.database.outage.failed("notifications could not be read", error)
                await self.shared.clock.sleep(TRY_AGAIN)
            else:
                self.backlog.found.discard(row)
                self.jobs.begin((KIND, row), partial(self._send, row))

    def ended(self, row: int, *, again: bool) -> None:
        """Notify that a job has ended."""
        if again:
            self.backlog.add(row)
        self._freed.set()

    async def broken(self, row: int, error: Exception) -> None:
        """Fail a notification that cannot be sent."""
        if (operation := await self._operation(row)) is not None:
            reason = f"{type(error).__name__}: {error}"
            await self.failing.fail([operation], reason, final=True)

    async def _send(self, row: int) -> None:
        shared, operation, place = self.shared, await self._operation(row), (KIND, row)
        if (
            operation is None
            or operation.status not in {"accepted", "running", schema.SHARDED}
            or operation.partition not in shared.ownership.partitions
            or (app := await self.apps.get(operation.app_id)) is None
        ):
            return
        try:
            request = msgspec.json.decode(operation.request, type=Notify)
            environment = request.environment or app.environment
            async with self.failing.carrier(app, environment, [operation]) as carrier:
                if carrier is None:
                    return
                fan_out = FanOut(NotificationKind(shared, app, operation, request, carrier))
                await fan_out.run()
        except InvalidInput as error:
            await self.failing.fail([operation], str(error), final=True)
            return
        except NotOwner:
            self.jobs.again(place)  # it may continue here if the partition came back
            raise
        if await self.failing.settle(place, operation, fan_out, final=True):
            async with shared.database.read() as connection:
                persons = await persons_reached(connection, row)
            now = await self._operation(row)
            if now is not None and now.status != "failed":  # another worker may have stopped it
                await self.failing.note(operation, "done", None, final=True, persons=persons)

    async def _operation(self, row: int) -> Row[Any] | None:
        table = schema.operations
        return await self.shared.database.row(select(table).where(table.c.id == row))
