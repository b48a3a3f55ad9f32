"""Stores starts, updates and ends of activities, each in one transaction.

Nothing is sent here. A write stores the new state (a version), the operation and the idempotency
record in one transaction. The courier finds the tokens that lack the version and sends it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, and_, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import Conflict
from .. import checks, observed
from ..apps import App
from ..core import Core
from ..finding import find, named
from ..people.app_versions import AppVersions
from ..people.audience import Audiences
from ..read import operations as views
from ..requests import Accepted, End, Start, Update, start_again
from ..requests.messages import broadcast_warning
from ..requests.validate import checked_change, checked_start, hand_over_after, with_id
from ..store import schema
from ..store.commit import Batch
from ..store.ownership import partition_of
from ..store.statements import json_text, row_of, rows_of
from ..times import ACTIVE_MILLISECONDS
from .batched_changes import Change, Changed, Changing
from .broadcast_channels import check_not_deleted
from .idempotency import Key, Once, Writer, Writing

PAGE = 100


class Activities(Writer):
    """Accepts starts, updates and ends of activities."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._audiences = Audiences(core)
        self.versions = AppVersions(core)
        """Tells which of an app's contracts its devices use."""
        self._changing = Changing(core.new_id, self.clock.monotonic)
        self._changes: Batch[Change, Changed] = Batch(self._changing.together, self._tell)

    async def start(
        self, app: App, request: Start, *, key: Key | None = None, again: bool = False
    ) -> Once[Accepted]:
        """Accept a start. Raises `InvalidInput`, `InvalidPayload` or `Conflict` (the id is taken).

        Raises `StoreError` if the app's provider key cannot be decrypted.

        ``again`` allows an existing id: a running activity gets this state and is started on further
        devices of this audience; an ended activity gives up its id.
        """
        given = request.id
        public_id = self.core.new_id() if given is None else checks.identifier(given, "id")
        app = await self.versions.in_use(app)
        request = checked_start(app, request, self.now)
        await self.core.check_key(app, request.environment or app.environment)
        begin = self._start_again if again else self.start_within
        work = partial(begin, request=request, public_id=public_id)
        try:
            return await self.once(app, key, request, Accepted, work)
        except (IntegrityError, Conflict) as error:
            if not again:
                raise error if isinstance(error, Conflict) else _taken(app, public_id) from None
        # A concurrent start won the race, so its activity is found now.
        return await self.once(app, key, request, Accepted, work)

    async def _start_again(self, writing: Writing, request: Start, public_id: str) -> Accepted:
        connection, app = writing.connection, writing.app
        row = await start_again.standing(connection, app, public_id)
        if row is None:
            return await self.start_within(writing, request, public_id)
        start_again.check_same(row, request)
        await self._audiences.clause(connection, app, request.audience)
        version = row.version
        if json_text(request.content_state) != row.content_state or not version:
            quiet = msgspec.structs.replace(request.presentation, alert=None, urgency="quiet")
            state, dialect = request.content_state, request.dialect
            newer = Update(id=public_id, content_state=state, presentation=quiet, dialect=dialect)
            version = (await self.change_within(writing, row, newer)).version
        attributes, after = with_id(request, public_id), self._age(app, request)
        further = await start_again.join_start(
            connection, row, request, attributes, hand_over_after=after, now=writing.now
        )
        operation = await self._started(writing, row, version, further, request)
        return Accepted(operation=operation, activity=public_id, status="accepted", version=version)

    async def start_within(self, writing: Writing, request: Start, public_id: str) -> Accepted:
        """Store a validated start in the caller's transaction.

        Raises `Conflict`, and `InvalidInput` for an audience that cannot be resolved.
        """
        connection, app, now = writing.connection, writing.app, writing.now
        table = schema.activities
        taken = select(table.c.start_alert).where(named(app, table, public_id))
        if (row := await row_of(connection, taken)) is not None:
            if start_again.is_begun_by_devices(row):
                return await self._start_again(writing, request, public_id)
            raise _taken(app, public_id)
        # An unknown segment, group, field or relation is refused now, not when the start is sent.
        await self._audiences.clause(connection, app, request.audience)
        environment = request.environment or app.environment
        if request.channel is not None:
            await check_not_deleted(connection, app, environment, request.channel)
        later = request.start_at is not None and request.start_at * 1000 > now
        status = "scheduled" if later else "accepted"
        after = self._age(app, request)
        texts = ("content_state", "audience", "tags", "metadata")
        plain = ("dialect", "stream_key", "attributes_type", "revision")
        values = {
            **{name: json_text(getattr(request, name)) for name in texts},
            **{name: getattr(request, name) for name in plain},
            "app_id": app.row,
            "public_id": public_id,
            "partition": partition_of(app.row, public_id),
            "version": 1,
            "attributes": json_text(with_id(request, public_id)),
            "status": "scheduled" if later else "active",
            "message": json_text(request.presentation),
            "start_alert": json_text(request.presentation.alert),
            "channel_id": request.channel,
            "environment": environment,
            "start_at": None if request.start_at is None else int(request.start_at * 1000),
            "started_at": None if later else now,
            **start_again.planned_end(request),
            "expires_at": 0 if later else now + ACTIVE_MILLISECONDS,
            "hand_over_after": after,
            "hand_over_at": None if later or after is None else now + after,
            "created_at": now,
            "updated_at": now,
        }
        row = await row_of(
            connection, insert(table).values(values).returning(table.c.id, table.c.partition)
        )
        further = start_again.first_further(request)
        operation = await self._started(writing, row, 1, further, request, status)
        return Accepted(
            operation=operation,
            activity=public_id,
            status=status,
            version=1,
            # The start itself is sent to each device, in the device's language.
            warning=broadcast_warning(app, request.channel, request.end_presentation.alert),
        )

    async def hand_over_within(self, writing: Writing, row: Row[Any]) -> None:
        """Start a second card on the devices whose card is soon too old, inside a transaction."""
        await self._started(writing, row, row.version, start_again.Further(hand_over=True))

    async def _started(
        self,
        writing: Writing,
        row: Any,
        version: int,
        further: start_again.Further,
        request: Start | None = None,
        status: str = "accepted",
    ) -> str:
        """Add the operation of a start of the activity in ``row``; return its id."""
        values: dict[str, Any] = {"activity_id": row.id, "partition": row.partition}
        values |= {"version": version, "status": status, "request": json_text(further)}
        values["dialect"] = row.dialect if request is None else request.dialect
        operation = (request and request.operation) or self.core.new_id()
        await writing.add_operation(operation, "start", **values)
        writing.rows.append(row.id)
        return operation

    def _age(self, app: App, request: Start) -> int | None:
        return hand_over_after(app, request, self.core.settings.hand_over_after)

    async def update(self, app: App, request: Update, *, key: Key | None = None) -> Once[Accepted]:
        """Accept a new state.

        Raises `InvalidInput`, `InvalidPayload`, `NotFound`, or `ActivityEnded`.
        """
        return await self._write(app, checked_change(request, self.clock.time()), key)

    async def end(self, app: App, request: End, *, key: Key | None = None) -> Once[Accepted]:
        """Accept an end; it is ``ignored`` if the activity has already ended.

        Raises `InvalidInput`, `InvalidPayload` or `NotFound`.
        """
        return await self._write(app, checked_change(request, self.clock.time()), key)

    async def _write(self, app: App, request: Update | End, key: Key | None) -> Once[Accepted]:
        now = self.now
        checks.identifier(request.id, "id")
        app = await self.versions.in_use(app)
        if key is None:
            changed = await self.core.commits.run_with(self._changes, Change(app, request, now))
            observed.accepted(changed.answer.operation)
            return Once(changed.answer, replayed=False)

        async def work(writing: Writing) -> Accepted:
            change = Change(app, request, now, writing.caller)
            [done] = await self._changing.together(writing.connection, [change])
            if isinstance(done, Exception):
                raise done
            writing.rows += [done.row] if done.written else []
            return done.answer

        return await self.once(app, key, request, Accepted, work)

    def _tell(self, changes: Sequence[Changed]) -> None:
        for change in changes:
            if change.written:
                self.written(change.app, change.row)

    async def change_within(
        self, writing: Writing, row: Row[Any], request: Update | End
    ) -> Accepted:
        """Store the next version of a living activity inside the caller's transaction.

        The row is locked. Raises `InvalidPayload` for a state that the app cannot decode.
        """
        change = Change(writing.app, request, writing.now, writing.caller)
        return await self._changing.next_version(writing.connection, row, change)

    async def get(self, app: App, public_id: str) -> views.ActivityCounts:
        """Return an activity with its counts. Raises `NotFound`.

        ``missing`` devices are the ``queued`` ones whose token did not arrive in time.
        """
        async with self.database.read() as connection:
            row = await find(connection, app, schema.activities, public_id)
            counts = await _reached(connection, row)
        return views.activity_view(views.ActivityCounts, row, **counts)

    async def page(
        self, app: App, *, status: str | None = None, after: int = 0, limit: int = PAGE
    ) -> list[views.ActivityRow]:
        """Return a page of activities, oldest first; ``after`` is the last ``row`` of the page before."""
        table = schema.activities
        query = select(table).where(table.c.app_id == app.row, table.c.id > after)
        if status is not None:
            query = query.where(table.c.status == status)
        rows = await self.database.rows(query.order_by(table.c.id).limit(min(limit, 1_000)))
        return [views.activity_view(views.ActivityRow, row) for row in rows]

    async def history(
        self, app: App, public_id: str, *, page: int = PAGE
    ) -> AsyncIterator[list[views.OperationCounts]]:
        """Yield the operations of an activity in pages, oldest first. Raises `NotFound`."""
        table = schema.operations
        async with self.database.read() as connection:
            activity = await find(connection, app, schema.activities, public_id)
        query = select(table).where(table.c.app_id == app.row, table.c.activity_id == activity.id)
        query, after = query.order_by(table.c.id).limit(page), 0
        while True:
            async with self.database.read() as connection:
                rows = await rows_of(connection, query.where(table.c.id > after))
                queued = await views.still_queued(connection, rows)
            if not rows:
                return
            yield [views.operation_counts(row, queued[row.id]) for row in rows]
            after = rows[-1].id


async def _reached(connection: AsyncConnection, activity: Row[Any]) -> dict[str, int]:
    """Count the devices reached, reached by channel, without a token yet, and reported missing.

    Devices that follow a channel need no token.
    """
    table = schema.activity_devices
    waiting = and_(table.c.token.is_(None), ~table.c.by_channel)
    missing = func.count(table.c.missing_reported_at).filter(waiting)
    following = func.count().filter(table.c.by_channel)
    query = select(func.count(), func.count().filter(waiting), missing, following)
    query = query.where(table.c.activity_id == activity.id, table.c.retired_at.is_(None))
    living, queued, reported, on_channel = (await connection.execute(query)).one()
    counts = {"devices": living - queued, "queued": queued, "missing": reported}
    return {**counts, "by_channel": on_channel}


def _taken(app: App, public_id: str) -> Conflict:
    return Conflict(
        f"the app {app.id!r} has an activity {public_id!r} already: update it, or choose another id"
    )
