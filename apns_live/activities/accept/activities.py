"""The life of activities as the store sees it: start, update, end, each one transaction.

Nothing is sent here. A write stores the desired state (a new version), the operation that asked for
it and the idempotency record together; the courier sees what is behind and sends it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ...errors import ActivityEnded, Conflict, NotFound
from .. import checks, observed
from ..apps import App
from ..decodes import check_decodes
from ..people.audience import Audiences
from ..read.queued_counts import still_queued
from ..requests import Accepted, End, Presentation, Start, Update
from ..requests.messages import broadcast_warning
from ..requests.start_again import check_same, first_further, join_start, planned_end, standing
from ..requests.validate import checked_change, checked_start, with_id
from ..store import schema
from ..store.commit import Batch, GroupCommit
from ..store.database import Database
from ..store.ownership import partition_of
from ..times import milliseconds
from .batched_changes import Change, Changed, Changing
from .idempotency import Key, Once, once

ACTIVE_MILLISECONDS = 8 * 3600 * 1000
"""How long the system keeps an activity active (Apple, "Displaying live data with Live Activities")."""
PAGE = 100

Written = Callable[[App, int], None]
"""Called with the app and the activity's row after a commit."""


CheckKey = Callable[[App, str], Awaitable[None]]
"""Raises `StoreError` when an app's key for an environment is there and does not open."""


class Activities:
    """Accepts what callers ask of activities. ``written`` wakes whoever sends it.

    Rooms that are given the same ``commits`` share transactions.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        new_id: Callable[[], str],
        written: Written = lambda app, row: None,
        commits: GroupCommit | None = None,
        check_key: CheckKey | None = None,
    ) -> None:
        self._database = database
        self._check_key = check_key
        self._clock = clock
        self._new_id = new_id
        self._written = written
        self._commits = GroupCommit(database) if commits is None else commits
        self._audiences = Audiences(database, clock)
        changing = Changing(new_id, clock.monotonic, self._change_alone)
        self._changes: Batch[Change, Changed] = Batch(changing.together)

    async def start(
        self, app: App, request: Start, *, key: Key | None = None, again: bool = False
    ) -> Once[Accepted]:
        """Accept a start. Raises `InvalidInput`, `InvalidPayload` or `Conflict` (the id is taken).

        Raises `StoreError` when the app's provider key does not open: it could never be sent.

        ``again`` lets an id be used again: an activity that runs is started on the devices of this
        audience that it is not on yet, and gets this state; one that has ended gives its id up.
        """
        now = milliseconds(self._clock)
        public_id = self._new_id() if request.id is None else checks.identifier(request.id, "id")
        request = checked_start(app, request, now)
        if self._check_key is not None:
            await self._check_key(app, request.environment or app.environment)

        begin = self._start_again if again else self.start_within

        async def store(connection: AsyncConnection) -> tuple[Once[Accepted], Row[Any]]:
            done = await once(
                connection,
                app,
                key,
                request,
                Accepted,
                lambda: begin(connection, app, request, public_id, now, key),
                now=now,
            )
            return done, await row_of(connection, app, done.answer.activity)

        try:
            done, row = await self._commits.run(store)
        except (IntegrityError, Conflict) as error:
            if not again:
                if isinstance(error, Conflict):
                    raise
                raise _taken(app, public_id) from None
            # Two at the same moment, and the other one was first: now it can be seen.
            done, row = await self._commits.run(store)
        self._written(app, row.id)
        observed.accepted(done.answer.operation)
        return done

    async def _start_again(
        self,
        connection: AsyncConnection,
        app: App,
        request: Start,
        public_id: str,
        now: int,
        key: Key | None = None,
    ) -> Accepted:
        row = await standing(connection, app, public_id)
        if row is None:
            return await self.start_within(connection, app, request, public_id, now, key)
        check_same(row, request)
        await self._audiences.clause(connection, app, request.audience)
        version = row.version
        if _json(request.content_state) != row.content_state or not version:
            quiet = msgspec.structs.replace(request.presentation, alert=None, urgency="quiet")
            newer = Update(
                id=public_id,
                content_state=request.content_state,
                presentation=quiet,
                dialect=request.dialect,
            )
            version = (await self.change_within(connection, app, row, newer, now, key)).version
        further = await join_start(connection, row, request, with_id(request, public_id))
        operation = await self._operation(
            connection,
            app,
            "start",
            (row.id, row.partition),
            version,
            request.dialect,
            now,
            key,
            own=_json(further),
            chosen=request.operation,
        )
        return Accepted(operation=operation, activity=public_id, status="accepted", version=version)

    async def start_within(
        self,
        connection: AsyncConnection,
        app: App,
        request: Start,
        public_id: str,
        now: int,
        key: Key | None = None,
    ) -> Accepted:
        """Store a checked start inside a transaction of the caller.

        Raises `Conflict`, and `InvalidInput` for an audience that cannot be resolved.
        """
        table = schema.activities
        taken = await connection.execute(
            select(table.c.id).where(table.c.app_id == app.row, table.c.public_id == public_id)
        )
        if taken.scalar() is not None:
            raise _taken(app, public_id)
        # A segment, group, field or relation that nobody knows is refused now, not when it is sent.
        await self._audiences.clause(connection, app, request.audience)
        later = request.start_at is not None and request.start_at * 1000 > now
        partition = partition_of(app.row, public_id)
        values = {
            "app_id": app.row,
            "public_id": public_id,
            "partition": partition,
            "dialect": request.dialect,
            "stream_key": request.stream_key,
            "attributes_type": request.attributes_type,
            "attributes": _json(with_id(request, public_id)),
            "content_state": _json(request.content_state),
            "version": 1,
            "revision": request.revision,
            "status": "scheduled" if later else "active",
            "message": _json(request.presentation),
            "start_alert": _json(request.presentation.alert),
            "audience": _json(request.audience),
            "channel_id": request.channel,
            "environment": request.environment or app.environment,
            "tags": _json(request.tags),
            "metadata": _json(request.metadata),
            "start_at": None if request.start_at is None else int(request.start_at * 1000),
            "started_at": None if later else now,
            "end_at": None if request.end_at is None else int(request.end_at * 1000),
            "end_message": _json(request.end_presentation),
            "expires_at": 0 if later else now + ACTIVE_MILLISECONDS,
            "created_at": now,
            "updated_at": now,
        }
        result = await connection.execute(insert(table).values(values).returning(table.c.id))
        row = result.scalar_one()
        operation = await self._operation(
            connection,
            app,
            "start",
            (row, partition),
            1,
            request.dialect,
            now,
            key,
            scheduled=later,
            own=_json(first_further(request)),
            chosen=request.operation,
        )
        return Accepted(
            operation=operation,
            activity=public_id,
            status="scheduled" if later else "accepted",
            version=1,
            # The start itself goes to each device, in its language.
            warning=broadcast_warning(app, request.channel, request.end_presentation.alert),
        )

    async def update(self, app: App, request: Update, *, key: Key | None = None) -> Once[Accepted]:
        """Accept a new state.

        Raises `InvalidInput`, `InvalidPayload`, `NotFound`, or `ActivityEnded`.
        """
        request = checked_change(request, self._clock.time())
        return await self._write(app, request, key)

    async def end(self, app: App, request: End, *, key: Key | None = None) -> Once[Accepted]:
        """Accept an end; one for an activity that ended before is ``ignored``.

        Raises `InvalidInput`, `InvalidPayload` or `NotFound`.
        """
        request = checked_change(request, self._clock.time())
        return await self._write(app, request, key)

    async def _write(self, app: App, request: Update | End, key: Key | None) -> Once[Accepted]:
        now = milliseconds(self._clock)
        checks.identifier(request.id, "id")
        if key is None:
            changed = await self._commits.run_with(self._changes, Change(app, request, now))
            done = Once(changed.answer, replayed=False)
            row = changed.row
        else:

            async def store(connection: AsyncConnection) -> tuple[Once[Accepted], int]:
                found = await row_of(connection, app, request.id, lock=True)
                done = await once(
                    connection,
                    app,
                    key,
                    request,
                    Accepted,
                    lambda: self._change(connection, app, found, request, now, key),
                    now=now,
                )
                return done, found.id

            done, row = await self._commits.run(store)
        if done.answer.status == "accepted" and not done.replayed:
            self._written(app, row)
            observed.accepted(done.answer.operation)
        return done

    async def _change_alone(self, connection: AsyncConnection, change: Change) -> Changed:
        """Store a change of an activity that is not as all others are: one that is scheduled."""
        app, request = change.app, change.request
        row = await row_of(connection, app, request.id, lock=True)
        answer = await self._change(connection, app, row, request, change.now, None)
        return Changed(row.id, answer, written=answer.status == "accepted")

    async def _change(
        self,
        connection: AsyncConnection,
        app: App,
        row: Row[Any],
        request: Update | End,
        now: int,
        key: Key | None,
    ) -> Accepted:
        ends = isinstance(request, End)
        if row.status == "ended":
            if ends:
                return _answer(row, "ignored")
            raise ActivityEnded(
                f"the activity {row.public_id!r} has ended ({row.end_reason}): start a new one"
            )
        known = row.revision
        if request.revision is not None and known is not None and request.revision <= known:
            return _answer(row, "superseded")
        return await self.change_within(connection, app, row, request, now, key)

    async def change_within(
        self,
        connection: AsyncConnection,
        app: App,
        row: Row[Any],
        request: Update | End,
        now: int,
        key: Key | None = None,
    ) -> Accepted:
        """Store the next version of a living activity inside a transaction of the caller."""
        check_decodes(app.settings, row.attributes_type, request.content_state)
        ends = isinstance(request, End)
        table = schema.activities
        version = row.version + 1
        changes: dict[str, Any] = {
            "version": version,
            "message": _json(request.presentation),
            "updated_at": now,
            "update_count": row.update_count + (not ends),
        }
        if request.content_state is not None:
            changes["content_state"] = _json(request.content_state)
        if request.revision is not None:
            changes["revision"] = request.revision
        for name in ("tags", "metadata"):
            if (value := getattr(request, name)) is not None:
                changes[name] = _json(value)
        if isinstance(request, Update):
            changes |= planned_end(request)
        else:
            changes |= {"status": "ended", "ended_at": now, "end_reason": request.reason}
            if row.status == "scheduled":
                changes["retired_at"] = now
                await _call_off(connection, row.id, now)
        await connection.execute(update(table).where(table.c.id == row.id).values(changes))
        devices, queued = await _reached(connection, row)
        operation = await self._operation(
            connection,
            app,
            "end" if ends else "update",
            (row.id, row.partition),
            version,
            request.dialect,
            now,
            key,
            # What is put before a scheduled start goes with it.
            scheduled=row.status == "scheduled" and not ends,
            targeted=devices + queued if row.channel_id is None else 1,
            queued=queued,
            presentation=request.presentation,
            chosen=request.operation,
        )
        return Accepted(
            operation=operation,
            activity=row.public_id,
            status="accepted",
            version=version,
            devices=devices,
            queued=queued,
            warning=broadcast_warning(app, row.channel_id, request.presentation.alert),
        )

    async def _operation(
        self,
        connection: AsyncConnection,
        app: App,
        kind: str,
        activity: tuple[int, int],
        version: int,
        dialect: str,
        now: int,
        key: Key | None,
        *,
        scheduled: bool = False,
        targeted: int = 0,
        queued: int = 0,
        presentation: Presentation | None = None,
        own: str = "{}",
        chosen: str | None = None,
    ) -> str:
        public_id = chosen or self._new_id()
        row, partition = activity
        await connection.execute(
            insert(schema.operations).values(
                app_id=app.row,
                public_id=public_id,
                kind=kind,
                activity_id=row,
                partition=partition,
                version=version,
                caller="" if key is None else key.caller,
                dialect=dialect,
                status="scheduled" if scheduled else "accepted",
                # Kept for its alert, which must ring although a newer state takes its place.
                request=own if presentation is None else _json(presentation),
                targeted=targeted,
                queued=queued,
                created_at=now,
            )
        )
        return public_id

    async def get(self, app: App, public_id: str) -> dict[str, Any]:
        """Return an activity with its counts. Raises `NotFound`.

        ``missing`` devices are those of the ``queued`` whose token did not come in time.
        """
        async with self._database.read() as connection:
            row = await row_of(connection, app, public_id)
            devices, queued = await _reached(connection, row)
            missing = await _missing(connection, row.id) if queued else 0
        return {**_shown(row), "devices": devices, "queued": queued, "missing": missing}

    async def page(
        self, app: App, *, status: str | None = None, after: int = 0, limit: int = PAGE
    ) -> list[dict[str, Any]]:
        """Return a page of activities, the oldest first; ``after`` is the last page's last ``row``."""
        table = schema.activities
        query = (
            select(table)
            .where(table.c.app_id == app.row, table.c.id > after)
            .order_by(table.c.id)
            .limit(min(limit, 1_000))
        )
        if status is not None:
            query = query.where(table.c.status == status)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return [{"row": row.id, **_shown(row)} for row in rows]

    async def history(
        self, app: App, public_id: str, *, page: int = PAGE
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Read the operations of an activity in pages, the oldest first. Raises `NotFound`."""
        table = schema.operations
        async with self._database.read() as connection:
            activity = await row_of(connection, app, public_id)
        after = 0
        while True:
            async with self._database.read() as connection:
                rows = (
                    await connection.execute(
                        select(table)
                        .where(
                            table.c.app_id == app.row,
                            table.c.activity_id == activity.id,
                            table.c.id > after,
                        )
                        .order_by(table.c.id)
                        .limit(page)
                    )
                ).all()
                queued = await still_queued(connection, rows)
            if not rows:
                return
            yield [
                {
                    "operation": row.public_id,
                    "kind": row.kind,
                    "version": row.version,
                    "status": row.status,
                    "reason": row.reason,
                    "targeted": row.targeted,
                    "accepted": row.accepted,
                    "queued": queued[row.id],
                    "failed": row.failed,
                    "missing": row.missing,
                    "created_at": row.created_at,
                    "finished_at": row.finished_at,
                }
                for row in rows
            ]
            after = rows[-1].id


async def row_of(
    connection: AsyncConnection, app: App, public_id: str, *, lock: bool = False
) -> Row[Any]:
    """Return the row of an activity, locked if it is to be changed. Raises `NotFound`."""
    table = schema.activities
    query = select(table).where(table.c.app_id == app.row, table.c.public_id == public_id)
    # SQLite has one writer at a time anyway, and ignores this.
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound(f"the app {app.id!r} has no activity {public_id!r}: start it first")
    return row


async def _call_off(connection: AsyncConnection, activity: int, now: int) -> None:
    """Close the operations of a start that was to come and will not."""
    table = schema.operations
    await connection.execute(
        update(table)
        .where(table.c.activity_id == activity, table.c.status == "scheduled")
        .values(status="superseded", finished_at=now)
    )


async def _reached(connection: AsyncConnection, activity: Row[Any]) -> tuple[int, int]:
    """Return how many devices have a living activity token, and how many have none yet.

    Those of a channel need none.
    """
    table = schema.activity_devices
    with_token, all_living = (
        await connection.execute(
            select(func.count(table.c.token), func.count(table.c.id)).where(
                table.c.activity_id == activity.id, table.c.retired_at.is_(None)
            )
        )
    ).one()
    if activity.channel_id is not None:
        return all_living, 0
    return with_token, all_living - with_token


async def _missing(connection: AsyncConnection, activity: int) -> int:
    """Return how many devices were reported to have handed in no token, and still have none."""
    table = schema.activity_devices
    found = await connection.execute(
        select(func.count(table.c.missing_reported_at)).where(
            table.c.activity_id == activity, table.c.retired_at.is_(None), table.c.token.is_(None)
        )
    )
    return found.scalar_one()


def _taken(app: App, public_id: str) -> Conflict:
    return Conflict(
        f"the app {app.id!r} has an activity {public_id!r} already: update it, or choose another id"
    )


def _answer(row: Row[Any], status: str) -> Accepted:
    return Accepted(operation="", activity=row.public_id, status=status, version=row.version)


def _shown(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.public_id,
        "attributes_type": row.attributes_type,
        "attributes": msgspec.json.decode(row.attributes),
        "content_state": msgspec.json.decode(row.content_state),
        "status": row.status,
        "version": row.version,
        "revision": row.revision,
        "stream_key": row.stream_key,
        "channel": row.channel_id,
        "environment": row.environment,
        "tags": msgspec.json.decode(row.tags),
        "metadata": msgspec.json.decode(row.metadata),
        "start_at": row.start_at,
        "started_at": row.started_at,
        "end_at": row.end_at,
        "ended_at": row.ended_at,
        "end_reason": row.end_reason,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
