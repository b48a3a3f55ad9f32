"""Stores starts of activities, each in one transaction, and reads activities.

Nothing is sent here. A write stores the new state (a version), the operation and the idempotency
record in one transaction. The courier finds the tokens that lack the version and sends it.
"""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import Conflict
from .. import checks
from ..apps import App
from ..core import Core
from ..finding import find, named
from ..people.audience import Audiences
from ..read import operations as views
from ..requests import Accepted, Audience, Start, Update
from ..requests.messages import Further, broadcast_warning, planned_end, together
from ..requests.validate import checked_start, with_id
from ..store import schema
from ..store.ownership import partition_of
from ..store.statements import change_row, json_text, row_of, rows_of, view_of
from ..times import ACTIVE_MILLISECONDS
from .batched_changes import Changes
from .broadcast_channels import check_not_deleted
from .idempotency import Key, Once, Writing

PAGE = 100
LONGEST = 255
"""Characters of an activity's id."""


class Activities(Changes):
    """Accepts starts, updates and ends of activities."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._audiences = Audiences(core)

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
        await self.core.hooks.check_key(app, request.environment or app.environment)
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
        """Extend a running activity to the audience of another start, with its newer state.

        Some vendors' servers start an activity for fifty users at a time under one id, and reuse an id
        after the end. So an activity that has ended gives up its id.
        """
        connection, app, now = writing.connection, writing.app, writing.now
        table, operations = schema.activities, schema.operations
        query = select(table).where(named(app, table, public_id)).with_for_update()
        row = await row_of(connection, query)
        if row is not None and row.status == "ended":
            mark = f"~{row.id}"
            other = f"{public_id[: LONGEST - len(mark)]}{mark}"
            await change_row(connection, table, row.id, public_id=other)
            row = None
        if row is None:
            return await self.start_within(writing, request, public_id)
        if row.status != "active" or request.start_at is not None:
            raise Conflict(f"the activity {public_id!r} is scheduled: wait for it, or end it first")
        if row.attributes_type not in ("", request.attributes_type):
            raise Conflict(
                f"the activity {public_id!r} is one of {row.attributes_type}, "
                f"not of {request.attributes_type}: choose another id"
            )
        await self._audiences.clause(connection, app, request.audience)
        version = row.version
        if json_text(request.content_state) != row.content_state or not version:
            quiet = msgspec.structs.replace(request.presentation, alert=None, urgency="quiet")
            state, dialect = request.content_state, request.dialect
            newer = Update(id=public_id, content_state=state, presentation=quiet, dialect=dialect)
            version = (await self.change_within(writing, row, newer)).version
        attributes, alert = with_id(request, public_id), request.presentation.alert
        changes: dict[str, Any] = planned_end(request)
        if begun := _is_begun_by_devices(row):
            after = self._age(app, request)
            changes |= {"attributes_type": request.attributes_type, "start_alert": json_text(alert)}
            changes |= {"hand_over_after": after, "hand_over_at": None if after is None else now}
        # The activity's audience becomes that of all of its starts; each start keeps its own.
        known = msgspec.json.decode(row.audience, type=Audience)
        if begun or known == request.audience:
            # A second card has the attributes of the newest start for the same people.
            changes["attributes"] = json_text(attributes)
        elif json_text(attributes) != row.attributes:
            # Cards differ and it is not stored how: a second card could show another person's attributes.
            changes |= {"hand_over_after": None, "hand_over_at": None}
        grown = together(known, request.audience)
        if grown != known:
            changes["audience"] = json_text(grown)
            first = json_text(Further(audience=known))
            place = (operations.c.activity_id == row.id, operations.c.kind == "start")
            former = update(operations).where(*place, operations.c.request == "{}")
            await connection.execute(former.values(request=first))
        if changes:
            await change_row(connection, table, row.id, **changes)
        further = Further(
            audience=request.audience,
            attributes=attributes,
            alert=alert,
            quiet=request.presentation.urgency == "quiet",
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
            if _is_begun_by_devices(row):
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
            **planned_end(request),
            "expires_at": 0 if later else now + ACTIVE_MILLISECONDS,
            "hand_over_after": after,
            "hand_over_at": None if later or after is None else now + after,
            "created_at": now,
            "updated_at": now,
        }
        row = await row_of(
            connection, insert(table).values(values).returning(table.c.id, table.c.partition)
        )
        further = Further()
        if request.presentation.urgency == "quiet":
            further = Further(audience=request.audience, quiet=True)
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
        await self._started(writing, row, row.version, Further(hand_over=True))

    async def _started(
        self,
        writing: Writing,
        row: Any,
        version: int,
        further: Further,
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
        """Return the age in milliseconds at which a card gets a successor; None for never.

        Vendors let iOS end a card. So does their API here, unless the app is set otherwise.
        """
        if (after := request.hand_over_after) is None:
            after = app.settings.get("hand_over_after")
        if after is None and (request.dialect == "native" or request.stream_key is not None):
            after = self.core.settings.hand_over_after
        return int(after * 1000) if after else None

    async def get(self, app: App, public_id: str) -> views.ActivityCounts:
        """Return an activity with its counts. Raises `NotFound`.

        ``missing`` devices are the ``queued`` ones whose token did not arrive in time.
        """
        async with self.database.read() as connection:
            row = await find(connection, app, schema.activities, public_id)
            counts = await _reached(connection, row)
        return view_of(views.ActivityCounts, row, **counts)

    async def page(
        self, app: App, *, status: str | None = None, after: int = 0, limit: int = PAGE
    ) -> list[views.ActivityRow]:
        """Return a page of activities, oldest first; ``after`` is the last ``row`` of the page before."""
        table = schema.activities
        query = select(table).where(table.c.app_id == app.row, table.c.id > after)
        if status is not None:
            query = query.where(table.c.status == status)
        rows = await self.database.rows(query.order_by(table.c.id).limit(min(limit, 1_000)))
        return [view_of(views.ActivityRow, row) for row in rows]

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
            yield [
                view_of(views.OperationCounts, row, operation=row.public_id, queued=queued[row.id])
                for row in rows
            ]
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


def _is_begun_by_devices(row: Row[Any]) -> bool:
    """Return True for an activity that only apps have started yet: a start of ours has an alert."""
    return bool(row.start_alert == "null")


def _taken(app: App, public_id: str) -> Conflict:
    return Conflict(
        f"the app {app.id!r} has an activity {public_id!r} already: update it, or choose another id"
    )
