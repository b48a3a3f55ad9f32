"""Streams: one state under a stable key, and an activity behind it that comes and goes by itself.

A caller that runs every few minutes need not know whether a card is up: it puts the state, and the
stream starts, updates, renews or leaves the activity alone. A stream's row is locked while it is
written, so that two first puts at the same moment start one activity.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Row, and_, delete, exists, not_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ...errors import NotFound
from .. import checks, observed
from ..apps import App
from ..cards.content_states import equal
from ..requests import End, Presentation, Start, Update
from ..requests.validate import checked_change, checked_start
from ..store import schema
from ..store.commit import GroupCommit
from ..store.database import Database
from ..store.statements import insert_into
from ..times import milliseconds
from .activities import Activities, Written
from .idempotency import Key, Once, fingerprint, once

Operation = Literal["started", "updated", "rotated", "noop", "paused", "ended"]

ROTATE_AFTER = 7.5 * 3600
"""Seconds after which an activity is renewed: well before the system ends it at 8 hours."""
PACE_UPDATES = 12
PACE_SECONDS = 120.0
PACE_WARNING = (
    "this activity was updated more than 12 times and more than once in two minutes on average: "
    "the phone has a small budget for updates; put only what a person must see"
)


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """What a put or end came to. ``activity`` is None when nothing runs behind the key."""

    operation: Operation
    key: str
    activity: str | None = None
    previous: str | None = None
    id: str = ""
    """The operation that was accepted for it; empty when there was nothing to do."""
    version: int = 0
    devices: int = 0
    queued: int = 0
    warning: str = ""
    ignored: bool = False


class Streams:
    """Puts, ends, pauses and resumes streams by key."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        new_id: Callable[[], str],
        activities: Activities,
        written: Written = lambda app, row: None,
        commits: GroupCommit | None = None,
    ) -> None:
        self._database = database
        self._commits = GroupCommit(database) if commits is None else commits
        self._clock = clock
        self._new_id = new_id
        self._activities = activities
        self._written = written

    async def put(
        self,
        app: App,
        request: Start,
        *,
        change: Update | None = None,
        key: Key | None = None,
    ) -> Once[Streamed]:
        """Bring the state behind ``request.stream_key`` up to the request's.

        The request is a whole start, since it may come to one; its ``id`` is that of the activity
        then. ``change`` is what a running activity gets instead: a quiet update has no alert, and
        leaves tags as they are; its id and revision are not looked at. Raises `InvalidInput`.
        """
        now = milliseconds(self._clock)
        name = checks.stream_key(request.stream_key)
        request = checked_start(app, request, now)
        if change is not None:
            change = checked_change(change, self._clock.time())
        if key is not None and key.digest is None and change is not None:
            both = fingerprint(request) + fingerprint(change)
            key = msgspec.structs.replace(key, digest=hashlib.sha256(both).digest())
        touched: list[int] = []

        async def store(connection: AsyncConnection) -> Once[Streamed]:
            return await once(
                connection,
                app,
                key,
                request,
                Streamed,
                lambda: self._put(connection, app, name, request, change, now, touched),
                now=now,
            )

        done = await self._commits.run(store)
        for row in touched:
            self._written(app, row)
        observed.accepted(done.answer.id)
        return done

    async def _put(
        self,
        connection: AsyncConnection,
        app: App,
        name: str,
        request: Start,
        change: Update | None,
        now: int,
        touched: list[int],
    ) -> Streamed:
        stream = await self._locked(connection, app, name, now, request)
        if stream.paused_at is not None:
            return Streamed(operation="paused", key=name)
        running = await _activity(connection, stream.activity_id)
        if running is None or running.status == "ended":
            return await self._start(connection, app, stream, request, now, touched)
        if await _is_gone(connection, running):
            gone = End(id=running.public_id, reason="dismissed", dialect=request.dialect)
            await self._activities.change_within(connection, app, running, gone, now)
            return await self._start(connection, app, stream, request, now, touched)
        if _must_rotate(running, request, now):
            ended = End(
                id=running.public_id,
                reason="rotated",
                presentation=Presentation(dismiss_after=0),
                dialect=request.dialect,
            )
            await self._activities.change_within(connection, app, running, ended, now)
            touched.append(running.id)
            begun = await self._start(connection, app, stream, request, now, touched)
            return msgspec.structs.replace(begun, operation="rotated", previous=running.public_id)
        current = msgspec.json.decode(running.content_state)
        if equal(current, request.content_state):
            return Streamed(
                operation="noop",
                key=name,
                activity=running.public_id,
                version=running.version,
            )
        if change is None:
            change = Update(
                id=running.public_id,
                content_state=request.content_state,
                presentation=request.presentation,
                revision=request.revision,
                tags=request.tags,
                metadata=request.metadata,
                dialect=request.dialect,
            )
        answer = await self._activities.change_within(connection, app, running, change, now)
        touched.append(running.id)
        return Streamed(
            operation="updated",
            key=name,
            activity=running.public_id,
            id=answer.operation,
            version=answer.version,
            devices=answer.devices,
            queued=answer.queued,
            warning="; ".join(filter(None, (_pace(running, now), answer.warning))),
        )

    async def _start(
        self,
        connection: AsyncConnection,
        app: App,
        stream: Row[Any],
        request: Start,
        now: int,
        touched: list[int],
    ) -> Streamed:
        public_id = self._new_id() if request.id is None else checks.identifier(request.id, "id")
        answer = await self._activities.start_within(connection, app, request, public_id, now)
        activities = schema.activities
        row = (
            await connection.execute(
                select(activities.c.id).where(
                    activities.c.app_id == app.row, activities.c.public_id == public_id
                )
            )
        ).scalar_one()
        await connection.execute(
            update(schema.streams).where(schema.streams.c.id == stream.id).values(activity_id=row)
        )
        touched.append(row)
        return Streamed(
            operation="started",
            key=stream.key,
            activity=public_id,
            id=answer.operation,
            version=answer.version,
            warning=answer.warning,
        )

    async def end(
        self, app: App, name: str, request: End | None = None, *, key: Key | None = None
    ) -> Once[Streamed]:
        """End the activity behind a key and forget the key; a later put starts afresh.

        ``request`` carries a last state; its id is not looked at. Raises `NotFound`.
        """
        now = milliseconds(self._clock)
        checks.stream_key(name)
        final = msgspec.structs.replace(request or End(id=""), id=name)
        final = checked_change(final, self._clock.time())
        touched: list[int] = []

        async def store(connection: AsyncConnection) -> Once[Streamed]:
            return await once(
                connection,
                app,
                key,
                final,
                Streamed,
                lambda: self._end(connection, app, name, final, now, touched),
                now=now,
            )

        done = await self._commits.run(store)
        for row in touched:
            self._written(app, row)
        observed.accepted(done.answer.id)
        return done

    async def _end(
        self,
        connection: AsyncConnection,
        app: App,
        name: str,
        request: End,
        now: int,
        touched: list[int],
    ) -> Streamed:
        stream = await self._known(connection, app, name)
        await connection.execute(delete(schema.streams).where(schema.streams.c.id == stream.id))
        return await self._end_activity(connection, app, stream, request, now, touched)

    async def _end_activity(
        self,
        connection: AsyncConnection,
        app: App,
        stream: Row[Any],
        request: End,
        now: int,
        touched: list[int],
    ) -> Streamed:
        running = await _activity(connection, stream.activity_id)
        if running is None or running.status == "ended":
            return Streamed(operation="ended", key=stream.key, ignored=True)
        request = msgspec.structs.replace(request, id=running.public_id)
        answer = await self._activities.change_within(connection, app, running, request, now)
        touched.append(running.id)
        return Streamed(
            operation="ended",
            key=stream.key,
            activity=running.public_id,
            id=answer.operation,
            version=answer.version,
            devices=answer.devices,
            queued=answer.queued,
            warning=answer.warning,
        )

    async def pause(self, app: App, name: str, request: End | None = None) -> int:
        """End what runs and answer every put with ``paused`` until `resume`.

        Returns when it was paused, in milliseconds since 1970. Raises `NotFound`.
        """
        now = milliseconds(self._clock)
        checks.stream_key(name)
        final = msgspec.structs.replace(request or End(id="", reason="paused"), id=name)
        final = checked_change(final, self._clock.time())
        touched: list[int] = []
        async with self._database.write() as connection:
            stream = await self._known(connection, app, name)
            since: int = now if stream.paused_at is None else stream.paused_at
            await self._end_activity(connection, app, stream, final, now, touched)
            await connection.execute(
                update(schema.streams)
                .where(schema.streams.c.id == stream.id)
                .values(paused_at=since, activity_id=None, updated_at=now)
            )
        for row in touched:
            self._written(app, row)
        return since

    async def resume(self, app: App, name: str) -> None:
        """Let the next put start again; nothing is started now. Raises `NotFound`."""
        checks.stream_key(name)
        async with self._database.write() as connection:
            stream = await self._known(connection, app, name)
            await connection.execute(
                update(schema.streams)
                .where(schema.streams.c.id == stream.id)
                .values(paused_at=None, updated_at=milliseconds(self._clock))
            )

    async def _locked(
        self, connection: AsyncConnection, app: App, name: str, now: int, request: Start
    ) -> Row[Any]:
        """Return the stream's row, added if new; on PostgreSQL it stays locked to the end."""
        table = schema.streams
        labels = {
            "tags": msgspec.json.encode(request.tags).decode(),
            "metadata": msgspec.json.encode(request.metadata).decode(),
            "updated_at": now,
        }
        statement = insert_into(connection, table).values(
            app_id=app.row, key=name, created_at=now, **labels
        )
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["app_id", "key"], set_=labels)
        )
        return await self._known(connection, app, name)

    async def _known(self, connection: AsyncConnection, app: App, name: str) -> Row[Any]:
        table = schema.streams
        row = (
            await connection.execute(
                select(table)
                .where(table.c.app_id == app.row, table.c.key == name)
                .with_for_update()
            )
        ).one_or_none()
        if row is None:
            raise NotFound(f"the app {app.id!r} has no stream {name!r}: put a state first")
        return row


async def _activity(connection: AsyncConnection, row: int | None) -> Row[Any] | None:
    if row is None:
        return None
    table = schema.activities
    return (
        await connection.execute(select(table).where(table.c.id == row).with_for_update())
    ).one_or_none()


def nobody_left() -> ColumnElement[bool]:
    """Return the condition that no device has an activity's card any more: all swiped it away, or left.

    One whose start is under way, that has been on no device yet, or that follows a channel, is not
    meant.
    """
    activities, members = schema.activities, schema.activity_devices
    operations = schema.operations
    on = members.c.activity_id == activities.c.id
    starting = (
        operations.c.activity_id == activities.c.id,
        operations.c.kind == "start",
        operations.c.finished_at.is_(None),
    )
    return and_(
        activities.c.channel_id.is_(None),
        exists().where(on).correlate(activities),
        not_(exists().where(on, members.c.retired_at.is_(None)).correlate(activities)),
        not_(exists().where(*starting).correlate(activities)),
    )


async def _is_gone(connection: AsyncConnection, running: Row[Any]) -> bool:
    query = select(schema.activities.c.id).where(
        schema.activities.c.id == running.id, nobody_left()
    )
    return (await connection.execute(query)).scalar() is not None


def _must_rotate(running: Row[Any], request: Start, now: int) -> bool:
    """Whether the card must be another one: of another kind, for others, or soon too old."""
    current = msgspec.json.decode(running.content_state)
    audience = msgspec.json.decode(running.audience)
    return (
        running.attributes_type != request.attributes_type
        or current.get("type") != request.content_state.get("type")
        or not equal(audience, msgspec.to_builtins(request.audience))
        or running.channel_id != request.channel
        or now - (running.started_at or running.created_at) >= ROTATE_AFTER * 1000
    )


def _pace(running: Row[Any], now: int) -> str:
    updates = running.update_count + 1
    age = (now - (running.started_at or running.created_at)) / 1000
    return PACE_WARNING if updates > PACE_UPDATES and age / updates < PACE_SECONDS else ""
