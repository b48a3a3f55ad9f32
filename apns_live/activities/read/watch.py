"""Follows an operation or an activity and yields its changes.

A watcher has a flag instead of a queue. After a change it reads the newest state from the database, so
a slow reader sees fewer states, but never an old one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import InvalidInput
from ..apps import App
from ..core import Core, Part
from ..finding import find, find_id
from ..store import schema
from ..store.statements import row_of, view_of
from . import operations as views

_LARGE = 2_000
_SECONDS = 2.0
_Place = tuple[str, int]
Followed = views.OperationState | views.ActivityState


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
        known = self._queued_counts.pop(row.id, None)
        if known is None or known[0] <= now:
            known = now + _SECONDS, (await views.still_queued(connection, [row]))[row.id]
        if known[1] > _LARGE and not _is_over(row) and len(self._queued_counts) < _LARGE:
            self._queued_counts[row.id] = known
        return known[1]

    async def _operation(self, app: App, public_id: str) -> tuple[views.OperationState, bool]:
        async with self.database.read() as connection:
            row = await find(connection, app, schema.operations, public_id, views.with_activity())
            queued = await self._queued(connection, row)
        shown = view_of(views.OperationState, row, operation=row.public_id, queued=queued)
        return shown, _is_over(row)

    async def _activity(self, app: App, public_id: str) -> tuple[views.ActivityState, bool]:
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
                operation = view_of(views.OperationCounts, newest, operation=name, queued=queued)
        shown = view_of(views.ActivityState, row, activity=row.public_id, operation=operation)
        over = row.status == "ended" and (newest is None or newest.status in views.FINISHED)
        return shown, over


def _is_over(operation: Row[Any]) -> bool:
    return operation.status in views.FINISHED and operation.finished_at is not None
