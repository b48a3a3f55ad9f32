"""Reads and follows operations and activities: their states, outcomes and typed dictionaries.

Times are milliseconds since 1970. Pages are read by row id: pass the last ``row`` of a page to get
the next one, even if rows were added meanwhile. At most one page is in memory.

A watcher has a flag instead of a queue. After a change it reads the newest state from the database, so
a slow reader sees fewer states, but never an old one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypedDict

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import InvalidInput
from ...outcome import Verdict
from ..apps import App
from ..checks import page_limit
from ..core import Core, Part
from ..finding import find, find_id
from ..store import reached, schema
from ..store.statements import row_of, view_of

PAGE = 100
EXPORT_PAGE = 1_000
FINISHED = ("done", "superseded", "failed")
"""The statuses of finished operations."""
_LARGE = 2_000
_SECONDS = 2.0
_Place = tuple[str, int]


class OperationCounts(TypedDict):
    """The progress of an operation, without its activity."""

    operation: str
    kind: str
    version: int | None
    status: str
    reason: str | None
    targeted: int
    accepted: int
    queued: int
    failed: int
    missing: int
    created_at: int
    finished_at: int | None


class OperationState(OperationCounts):
    """An operation as a watcher gets it."""

    activity: str | None


class OperationView(TypedDict):
    """One accepted request, and the counts of its pushes.

    ``status``: scheduled, accepted, running, done, superseded or failed (see ``reason``).
    ``queued`` devices get the state when they register a token; ``missing`` registered none in time.
    """

    row: int
    id: str
    kind: str
    activity: str | None
    version: int | None
    status: str
    reason: str | None
    caller: str
    dialect: str
    targeted: int
    accepted: int
    queued: int
    failed: int
    missing: int
    users: int
    created_at: int
    finished_at: int | None


class OutcomeView(TypedDict):
    """APNs' answer to the push to one device. ``device`` is None if it was deleted since.

    ``accepted`` is not ``shown``: APNs cannot know.
    """

    row: int
    device: str | None
    verdict: str
    status: int
    reason: str
    apns_id: str
    priority: int
    created_at: int


class ActivityView(TypedDict):
    """An activity as its caller set it.

    ``hand_over_at``: when cards are next checked for a hand-over because of their age.
    """

    id: str
    attributes_type: str
    attributes: dict[str, Any]
    content_state: dict[str, Any]
    status: str
    version: int
    revision: int | None
    stream_key: str | None
    channel: str | None
    environment: str
    tags: list[str]
    metadata: dict[str, str | int | float | bool]
    start_at: int | None
    started_at: int | None
    end_at: int | None
    ended_at: int | None
    end_reason: str | None
    hand_over_at: int | None
    created_at: int
    updated_at: int


class ActivityRow(ActivityView):
    """An activity in a page."""

    row: int


class ActivityCounts(ActivityView):
    """An activity with its devices: reached, without a token yet, and without one for too long.

    Of those reached ``by_channel`` follow the channel; the others have a token.
    """

    devices: int
    queued: int
    missing: int
    by_channel: int


class ActivityState(TypedDict):
    """An activity as a watcher gets it, with its newest operation."""

    activity: str
    status: str
    version: int
    content_state: dict[str, Any]
    updated_at: int
    ended_at: int | None
    end_reason: str | None
    operation: OperationCounts | None


Followed = OperationState | ActivityState


class Operations(Part):
    """Reads operations and their outcomes.

    An operation's ``status`` is ``scheduled`` (a start that is not due), ``accepted``, ``running``,
    ``done``, ``superseded`` (replaced before it was sent) or ``failed``. A ``running`` one with a
    ``reason`` waits; the reason says why and when it is tried again. A ``done`` start with a reason
    reached no device. A ``failed`` one without ``finished_at`` continues when a key is added. The kind
    ``limit`` has ends on single devices with too many activities.
    """

    async def get(self, app: App, public_id: str) -> OperationView:
        """Return an operation with its counters. Raises `NotFound`.

        ``queued`` devices have no token yet; they get the newest state when it arrives. ``missing`` ones
        were started and registered no token in time. ``users`` counts the users of accepted pushes of
        a finished start or notification; a device without a user counts as one.
        """
        async with self.database.read() as connection:
            row = await find(connection, app, schema.operations, public_id, with_activity())
            queued = await still_queued(connection, [row])
        return view_of(OperationView, row, queued=queued[row.id])

    async def page(
        self, app: App, *, after: int = 0, limit: int = PAGE, activity: str | None = None
    ) -> list[OperationView]:
        """Return a page of operations, oldest first; ``after`` is the last ``row`` of the page before.

        ``activity`` selects those of one activity. Raises `NotFound`, and `InvalidInput` for a
        limit outside 1 to 1,000.
        """
        table = schema.operations
        query = with_activity().where(table.c.id > after).order_by(table.c.id)
        query = query.limit(page_limit(limit))
        async with self.database.read() as connection:
            if activity is None:
                query = query.where(table.c.app_id == app.row)
            else:
                row = await find_id(connection, app, schema.activities, activity)
                query = query.where(table.c.activity_id == row)
            rows = (await connection.execute(query)).all()
            queued = await still_queued(connection, rows)
        return [view_of(OperationView, row, queued=queued[row.id]) for row in rows]

    async def outcomes(
        self, app: App, public_id: str, *, after: int = 0, limit: int = PAGE
    ) -> list[OutcomeView]:
        """Return a page of an operation's outcomes, one per device, in order of arrival.

        ``after`` is the last ``row`` of the page before. A deleted device has the id None.
        Raises `NotFound`, and `InvalidInput` for a limit outside 1 to 1,000.
        """
        async with self.database.read() as connection:
            operation = await find_id(connection, app, schema.operations, public_id)
            return await _outcomes(connection, operation, after, page_limit(limit))

    async def export(self, app: App, public_id: str) -> AsyncIterator[OutcomeView]:
        """Yield all outcomes of an operation, read in pages. Raises `NotFound`."""
        async with self.database.read() as connection:
            operation = await find_id(connection, app, schema.operations, public_id)
        after = 0
        while True:
            # Each page uses its own connection, so a slow reader keeps no connection or snapshot
            # open.
            async with self.database.read() as connection:
                page = await _outcomes(connection, operation, after, EXPORT_PAGE)
            for outcome in page:
                yield outcome
            if len(page) < EXPORT_PAGE:
                return
            after = page[-1]["row"]


async def persons_reached(connection: AsyncConnection, operation: int) -> int:
    """Count the users of an operation's accepted pushes; a device without a user counts as one."""
    outcomes, devices = schema.outcomes, schema.devices
    alone, users = await reached.persons(connection, operation)
    accepted = outcomes.c.verdict == Verdict.ACCEPTED.value
    person = devices.c.user_id
    query = select(func.count(person.distinct()), func.count() - func.count(person))
    query = query.select_from(outcomes).outerjoin(devices, devices.c.id == outcomes.c.device_id)
    single = outcomes.c.operation_id == operation, accepted, outcomes.c.devices.is_(None)
    counts = (await connection.execute(query.where(*single))).one()
    twice: set[Any] = set()
    if users and counts[0]:
        persons = query.with_only_columns(person.distinct(), maintain_column_froms=True)
        twice = users.intersection(await connection.scalars(persons.where(*single)))
    return int(sum(counts) + alone + len(users) - len(twice))


async def _outcomes(
    connection: AsyncConnection, operation: int, after: int, limit: int
) -> list[OutcomeView]:
    places = await reached.places(connection, operation, after, limit)
    rows = [each.source.device_id if each.device is None else each.device for each in places]
    names = await reached.names(connection, rows)
    found = []
    for (place, source, device), row in zip(places, rows, strict=True):
        apns_id = source.apns_id + (f"{row:012x}" if device is not None else "")
        given = {"row": place, "device": names.get(row), "apns_id": apns_id}
        found.append(view_of(OutcomeView, source, **given))
    return found


async def still_queued(connection: AsyncConnection, rows: Iterable[Row[Any]]) -> dict[int, int]:
    """Return for each operation how many of its ``queued`` devices have still registered no token.

    A device waits for a version until it has a token; then the newest state is sent to it.
    """
    rows = list(rows)
    counts = {row.id: 0 for row in rows}
    waiting = [row for row in rows if row.queued and None not in (row.activity_id, row.version)]
    if not waiting:
        return counts
    members = schema.activity_devices
    found = await connection.execute(
        select(members.c.activity_id, members.c.acknowledged_version, func.count())
        .where(
            members.c.activity_id.in_({row.activity_id for row in waiting}),
            members.c.retired_at.is_(None),
            members.c.acknowledged_version < max(row.version for row in waiting),
            members.c.token.is_(None),
            ~members.c.by_channel,
        )
        .group_by(members.c.activity_id, members.c.acknowledged_version)
    )
    behind: dict[int, list[tuple[int, int]]] = {}
    for activity, version, count in found:
        behind.setdefault(activity, []).append((version, count))
    for row in waiting:
        of_activity = behind.get(row.activity_id, ())
        now = sum(count for version, count in of_activity if version < row.version)
        counts[row.id] = min(row.queued, now)
    return counts


def with_activity() -> Select[Any]:
    """Return the query for operations, each with its activity's id as ``activity``."""
    operations, activities = schema.operations, schema.activities
    return select(operations, activities.c.public_id.label("activity")).outerjoin(
        activities, activities.c.id == operations.c.activity_id
    )


class Watchers(Part):
    """The open `Service.watch` iterations, by the activity or operation that each follows."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._queued_counts: dict[int, tuple[float, int]] = {}
        self._flags: dict[_Place, set[asyncio.Event]] = {}
        self._closed = False
        self.told: Callable[[Iterable[int], Iterable[int]], object] = lambda *rows: None
        """Called with the rows that changed here, for watchers in other processes."""

    def __len__(self) -> int:
        return sum(len(flags) for flags in self._flags.values())

    def changed(self, *, activities: Iterable[int] = (), operations: Iterable[int] = ()) -> None:
        """Notify watchers, here and in other processes, of changed rows. Call it after the commit."""
        activities, operations = list(activities), list(operations)
        self.told(activities, operations)
        self.heard(activities, operations)

    def heard(self, activities: Iterable[int], operations: Iterable[int]) -> None:
        """Notify the watchers in this process of changed rows."""
        places = [("activity", row) for row in activities] if self._flags else []
        places += [("operation", row) for row in operations] if self._flags else []
        for place in places:
            for flag in self._flags.get(place, ()):
                flag.set()

    def remind(self) -> None:
        """Let all watchers read again: messages about changes may have been lost."""
        for flags in self._flags.values():
            for flag in flags:
                flag.set()

    def close(self) -> None:
        """End every iteration."""
        self._closed = True
        self.remind()

    def watch(
        self, app: App, *, operation: str | None = None, activity: str | None = None
    ) -> AsyncIterator[Followed]:
        """See `Service.watch`."""
        if (operation is None) == (activity is None):
            remedy = "Give the id of one operation, or of one activity."
            raise InvalidInput("exactly one of them is needed", "operation, activity", remedy)
        if operation is not None:
            return self._follow(app, "operation", operation)
        return self._follow(app, "activity", str(activity))

    async def _follow(self, app: App, kind: str, public_id: str) -> AsyncIterator[Followed]:
        read: Callable[[App, str], Awaitable[tuple[Followed, bool]]]
        read = self._operation if kind == "operation" else self._activity
        table = schema.operations if kind == "operation" else schema.activities
        async with self.database.read() as connection:
            place = (kind, await find_id(connection, app, table, public_id))
        flag = asyncio.Event()
        self._flags.setdefault(place, set()).add(flag)
        try:
            last: Followed | None = None
            while True:
                # Read after the flag is set, so that no change in between is missed.
                flag.clear()
                shown, over = await read(app, public_id)
                if shown != last:
                    last = shown
                    yield shown
                if over or self._closed:
                    return
                await flag.wait()
        finally:
            self._flags[place].discard(flag)
            if not self._flags[place]:
                del self._flags[place]

    async def _queued(self, connection: AsyncConnection, row: Row[Any]) -> int:
        """Return how many devices wait for a token. A large count may be two seconds old."""
        now = self.clock.monotonic()
        if (known := self._queued_counts.pop(row.id, None)) is None or known[0] <= now:
            known = now + _SECONDS, (await still_queued(connection, [row]))[row.id]
        if known[1] > _LARGE and not _is_over(row) and len(self._queued_counts) < _LARGE:
            self._queued_counts[row.id] = known
        return known[1]

    async def _operation(self, app: App, public_id: str) -> tuple[OperationState, bool]:
        async with self.database.read() as connection:
            row = await find(connection, app, schema.operations, public_id, with_activity())
            queued = await self._queued(connection, row)
        return view_of(OperationState, row, operation=row.public_id, queued=queued), _is_over(row)

    async def _activity(self, app: App, public_id: str) -> tuple[ActivityState, bool]:
        operations = schema.operations
        async with self.database.read() as connection:
            row = await find(connection, app, schema.activities, public_id)
            query = select(operations).where(
                operations.c.app_id == app.row,
                operations.c.activity_id == row.id,
                operations.c.kind.in_(("start", "update", "end")),
            )
            newest = await row_of(connection, query.order_by(operations.c.id.desc()).limit(1))
            operation = None
            if newest is not None:
                queued, name = await self._queued(connection, newest), newest.public_id
                operation = view_of(OperationCounts, newest, operation=name, queued=queued)
        shown = view_of(ActivityState, row, activity=row.public_id, operation=operation)
        over = row.status == "ended" and (newest is None or newest.status in FINISHED)
        return shown, over


def _is_over(operation: Row[Any]) -> bool:
    return operation.status in FINISHED and operation.finished_at is not None
