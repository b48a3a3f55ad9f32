"""Streams: a state under a stable key. The service starts and ends the activity for it.

A job that runs every few minutes need not know whether a card exists. It puts the state, and the stream
starts, updates or replaces the activity, or does nothing. The stream's row is locked during a write, so
two concurrent first puts start one activity.
"""

import hashlib
from functools import partial
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Row, and_, delete, exists, not_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from .. import checks
from ..apps import App
from ..cards.content_states import equal
from ..core import Core
from ..finding import find
from ..requests import Accepted, End, Presentation, Start, Update
from ..requests.validate import checked_change, checked_start, with_id
from ..store import schema
from ..store.statements import change_row, insert_into, json_text, row_of
from .activities import Activities
from .idempotency import Key, Once, Writer, Writing, fingerprint

Operation = Literal["started", "updated", "rotated", "noop", "paused", "ended"]

PACE_UPDATES = 12
PACE_SECONDS = 120.0
PACE_WARNING = (
    "this activity was updated more than 12 times and more than once in two minutes on average: "
    "the phone has a small budget for updates; put only what a person must see"
)


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a stream's put or end. ``activity`` is None if the stream has none."""

    operation: Operation
    key: str
    activity: str | None = None
    previous: str | None = None
    id: str = ""
    """The id of the accepted operation; empty when there was nothing to do."""
    version: int = 0
    devices: int = 0
    queued: int = 0
    warning: str = ""
    ignored: bool = False


class Streams(Writer):
    """Puts, ends, pauses and resumes streams by key."""

    operation = "id"

    def __init__(self, core: Core, activities: Activities) -> None:
        super().__init__(core)
        self.activities = activities

    async def put(
        self, app: App, request: Start, *, change: Update | None = None, key: Key | None = None
    ) -> Once[Streamed]:
        """Set the state of the stream ``request.stream_key``, and start or update its activity.

        The request is a complete start, in case one is needed; ``id`` is then the activity's id.
        ``change`` is the update for a running activity, for example without an alert; its id and
        revision are ignored. Raises `InvalidInput`.
        """
        name = checks.stream_key(request.stream_key, "stream_key")
        app = await self.activities.versions.in_use(app)
        request = checked_start(app, request, self.now)
        if change is not None:
            change = checked_change(change, self.clock.time())
        if key is not None and key.digest is None and change is not None:
            both = fingerprint(request) + fingerprint(change)
            key = msgspec.structs.replace(key, digest=hashlib.sha256(both).digest())

        work = partial(self._put, name=name, request=request, change=change)
        return await self.once(app, key, request, Streamed, work)

    async def _put(
        self, writing: Writing, name: str, request: Start, change: Update | None
    ) -> Streamed:
        connection, now = writing.connection, writing.now
        stream = await _locked(writing, name, request)
        if stream.paused_at is not None:
            return Streamed(operation="paused", key=name)
        running = await _activity(connection, stream.activity_id)
        if running is None or running.status == "ended":
            return await self._start(writing, stream, request)
        table = schema.activities
        query = select(table.c.id).where(table.c.id == running.id, nobody_left())
        if await connection.scalar(query) is not None:
            gone = End(id=running.public_id, reason="dismissed", dialect=request.dialect)
            await self.activities.change_within(writing, running, gone)
            return await self._start(writing, stream, request)
        if _must_rotate(running, request):
            at_once, dialect = Presentation(dismiss_after=0), request.dialect
            ended = End(
                id=running.public_id, reason="rotated", presentation=at_once, dialect=dialect
            )
            await self._change(writing, stream, running, ended)
            begun = await self._start(writing, stream, request)
            return msgspec.structs.replace(begun, operation="rotated", previous=running.public_id)
        attributes = json_text(with_id(request, running.public_id))
        if attributes != running.attributes:
            # For second cards: cards that are shown keep the attributes they were started with.
            await change_row(connection, schema.activities, running.id, attributes=attributes)
        current = msgspec.json.decode(running.content_state)
        if equal(current, request.content_state):
            activity, version = running.public_id, running.version
            return Streamed(operation="noop", key=name, activity=activity, version=version)
        if change is None:
            same = set(Update.__struct_fields__) - {"id", "operation", "end_at", "end_presentation"}
            change = Update(
                id=running.public_id, **{field: getattr(request, field) for field in same}
            )
        answer = await self._change(writing, stream, running, change)
        warning = "; ".join(filter(None, (_pace(running, now), answer.warning)))
        return msgspec.structs.replace(answer, warning=warning)

    async def _change(
        self, writing: Writing, stream: Row[Any], running: Row[Any], change: Update | End
    ) -> Streamed:
        answer = await self.activities.change_within(writing, running, change)
        writing.rows.append(running.id)
        return _streamed("ended" if isinstance(change, End) else "updated", stream, answer)

    async def _start(self, writing: Writing, stream: Row[Any], request: Start) -> Streamed:
        given = request.id
        public_id = self.core.new_id() if given is None else checks.identifier(given, "id")
        answer = await self.activities.start_within(writing, request, public_id)
        row = writing.rows[-1]
        await change_row(writing.connection, schema.streams, stream.id, activity_id=row)
        return _streamed("started", stream, answer)

    async def end(
        self, app: App, name: str, request: End | None = None, *, key: Key | None = None
    ) -> Once[Streamed]:
        """End the stream's activity and delete the stream; a later put starts a new activity.

        ``request`` may have a last state; its id is ignored. Raises `NotFound`.
        """
        final = self._final(name, request or End(id=""))
        app = await self.activities.versions.in_use(app)

        async def work(writing: Writing) -> Streamed:
            stream = await find(writing.connection, writing.app, schema.streams, name, lock=True)
            gone = delete(schema.streams).where(schema.streams.c.id == stream.id)
            await writing.connection.execute(gone)
            return await self._end(writing, stream, final)

        return await self.once(app, key, final, Streamed, work)

    def _final(self, name: str, request: End) -> End:
        checks.stream_key(name, "stream_key")
        return checked_change(msgspec.structs.replace(request, id=name), self.clock.time())

    async def _end(self, writing: Writing, stream: Row[Any], request: End) -> Streamed:
        running = await _activity(writing.connection, stream.activity_id)
        if running is None or running.status == "ended":
            return Streamed(operation="ended", key=stream.key, ignored=True)
        return await self._change(writing, stream, running, request)

    async def pause(self, app: App, name: str, request: End | None = None) -> int:
        """End the stream's activity, and answer every put with ``paused`` until `resume`.

        Returns the time of the pause in milliseconds since 1970. Raises `NotFound`.
        """
        final = self._final(name, request or End(id="", reason="paused"))
        app = await self.activities.versions.in_use(app)

        async def work(writing: Writing) -> int:
            stream = await find(writing.connection, writing.app, schema.streams, name, lock=True)
            since: int = writing.now if stream.paused_at is None else stream.paused_at
            await self._end(writing, stream, final)
            changes = {"paused_at": since, "activity_id": None, "updated_at": writing.now}
            await change_row(writing.connection, schema.streams, stream.id, **changes)
            return since

        return await self.run(app, work)

    async def resume(self, app: App, name: str) -> None:
        """Allow the next put to start an activity. Raises `NotFound`."""
        checks.stream_key(name, "stream_key")

        async def work(writing: Writing) -> None:
            stream = await find(writing.connection, writing.app, schema.streams, name, lock=True)
            changes = {"paused_at": None, "updated_at": writing.now}
            await change_row(writing.connection, schema.streams, stream.id, **changes)

        await self.run(app, work)


def _streamed(operation: Operation, stream: Row[Any], answer: Accepted) -> Streamed:
    same = ("activity", "version", "devices", "queued", "warning")
    told = {name: getattr(answer, name) for name in same}
    return Streamed(operation=operation, key=stream.key, id=answer.operation, **told)


async def _locked(writing: Writing, name: str, request: Start) -> Row[Any]:
    """Return the stream's row, added if new. PostgreSQL locks it until the transaction ends."""
    labels: dict[str, Any] = {"updated_at": writing.now}
    labels |= {"tags": json_text(request.tags), "metadata": json_text(request.metadata)}
    statement = insert_into(writing.connection, schema.streams).values(
        app_id=writing.app.row, key=name, created_at=writing.now, **labels
    )
    kept = statement.on_conflict_do_update(index_elements=["app_id", "key"], set_=labels)
    row: Row[Any] = (await writing.connection.execute(kept.returning(schema.streams))).one()
    return row


async def _activity(connection: AsyncConnection, row: int | None) -> Row[Any] | None:
    if row is None:
        return None
    table = schema.activities
    return await row_of(connection, select(table).where(table.c.id == row).with_for_update())


def nobody_left() -> ColumnElement[bool]:
    """Return the condition that no device has an activity's card any more.

    All devices dismissed the card or left. False for an activity that is still being started, had
    no device yet, or follows a channel.
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


def _must_rotate(running: Row[Any], request: Start) -> bool:
    """Return True if the activity must be replaced: its type, audience or channel changed."""
    current = msgspec.json.decode(running.content_state)
    audience = msgspec.json.decode(running.audience)
    return (
        running.attributes_type != request.attributes_type
        or current.get("type") != request.content_state.get("type")
        or not equal(audience, msgspec.to_builtins(request.audience))
        # The caller does not know of a channel that the service made itself.
        or (None if running.channel_asked_at else running.channel_id) != request.channel
    )


def _pace(running: Row[Any], now: int) -> str:
    updates = running.update_count + 1
    age = (now - (running.started_at or running.created_at)) / 1000
    return PACE_WARNING if updates > PACE_UPDATES and age / updates < PACE_SECONDS else ""
