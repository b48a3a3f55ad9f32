"""Lists activities and notifications that may have unsent work."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Row, Select, bindparam, exists, select, update
from sqlalchemy.sql.expression import case

from ...clock import Clock
from ..apps import App
from ..requests.notify import KIND as NOTIFICATION
from ..store import schema
from ..store.database import Database
from ..store.ownership import PARTITIONS, Ownership
from ..store.statements import among, chunks, with_rows

MOST = 100_000
"""Rows kept in memory. Above this limit the store, which has all rows, is read again."""
PAGE = 1_000
PACE = 0.1
"""Seconds between two looks at an activity. If states arrive faster, only the newest one counts."""
KINDS = ("start", "update", "end")

# Uses the index of open operations from a version on: an activity may have hundreds of older ones.
_NEWER = """
SELECT operations.* FROM {activity, version, since} JOIN operations
    ON operations.activity_id = given.activity AND operations.version >= given.since
WHERE operations.finished_at IS NULL AND operations.kind IN ('start', 'update', 'end')
    AND (operations.version > given.version OR operations.kind = 'start')
    AND operations.status || '' IN ('accepted', 'running', 'sharded', 'failed')
"""
# Built once: building the statements takes longer than running them.
_activities, _operations, _later = schema.activities, schema.operations, schema.operations.alias()
_rows: BindParameter[Any] = bindparam("rows", expanding=True)
_ACTIVITIES = select(_activities).where(_activities.c.id.in_(_rows))
_OPEN = select(_operations).where(
    _operations.c.activity_id.in_(_rows),
    _operations.c.finished_at.is_(None),
    _operations.c.kind.in_(KINDS),
    # Selects by activity among open operations, not by status.
    (_operations.c.status + "").in_(["accepted", "running", schema.SHARDED, "failed"]),
)
# Uses the newest id: an activity may have thousands of finished operations.
_LAST = (
    select(_later.c.id)
    .where(_later.c.activity_id == _activities.c.id, _later.c.kind.in_(KINDS))
    .order_by(_later.c.id.desc())
    .limit(1)
    .scalar_subquery()
)
_NEWEST = (
    select(_operations)
    .select_from(_activities)
    .join(_operations, _operations.c.id == _LAST)
    .where(_activities.c.id.in_(_rows), _operations.c.version == _activities.c.version)
)


class Backlog:
    """A queue of rows to look at, each once, the longest waiting first: activities or operations.

    ``kinds`` are the kinds of operations that lead to a row, ``place`` is the column with that row.
    """

    def __init__(
        self,
        database: Database,
        ownership: Ownership,
        kinds: Sequence[str] = KINDS,
        place: ColumnElement[Any] = schema.operations.c.activity_id,
    ) -> None:
        self._database = database
        self._ownership = ownership
        self._kinds = kinds
        self._place = place
        self._gained: frozenset[int] = frozenset()
        self._rows: dict[int, None] = {}
        self._overflowed = False
        self._busy = False
        self.found: set[int] = set()
        """Rows found when partitions were gained. An earlier owner may have begun sending them."""
        self.waiting = asyncio.Event()
        self.emptied: Callable[[], object] = lambda: None
        """Called when the queue becomes empty."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def _urgent(self) -> bool:
        """Whether the store must be read before a row is taken.

        Gained partitions are read first, because only then is it known what an earlier owner began.
        """
        return bool(self._gained)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to look at."""
        return not (self._rows or self._overflowed or self._urgent or self._busy)

    def add(self, row: int) -> None:
        """Queue a row."""
        if len(self._rows) >= MOST:
            self._overflowed = True
        else:
            self._rows[row] = None
        self.waiting.set()

    def take_over(self, partitions: frozenset[int]) -> None:
        """Queue all unfinished work of partitions that another worker owned before."""
        self._gained |= partitions
        self.waiting.set()

    async def take(self, limit: int) -> list[int]:
        """Return rows to look at now; wait if there are none. They are busy until the next call."""
        self._busy = False
        while not self._rows or self._urgent:
            if self._overflowed or self._urgent:
                self._busy = True
                await self._read_again()
                self._busy = False
            else:
                self.waiting.clear()
                self.emptied()
                await self.waiting.wait()
        taken = [row for row, _ in zip(self._rows, range(limit), strict=False)]
        for row in taken:
            del self._rows[row]
        self._busy = True
        return taken

    async def _read_again(self) -> None:
        gained, self._gained = self._gained, frozenset()
        overflowed, self._overflowed = self._overflowed, False
        try:
            if gained:
                await self._read_all(gained, self.found)
            if overflowed:
                await self._read_all(self._ownership.partitions, set())
        except BaseException:
            self._gained |= gained
            self._overflowed |= overflowed
            raise

    async def _read_all(self, partitions: frozenset[int], found: set[int]) -> None:
        """Read the rows with unfinished operations in pages, and queue them as found."""
        table, place = schema.operations, self._place
        query = select(table.c.id, place.label("place")).order_by(table.c.id).limit(PAGE)
        query = query.where(table.c.kind.in_(self._kinds), place.is_not(None))
        if len(partitions) < PARTITIONS:
            query = query.where(among(table.c.partition, partitions))
        for status in ("accepted", "running", schema.SHARDED, "failed"):
            open_ = query.where(table.c.status == status)
            if status == "failed":
                # Operations that failed only for now: the missing key may exist by now.
                open_ = open_.where(table.c.finished_at.is_(None))
            after = 0
            while page := await self._database.rows(open_.where(table.c.id > after)):
                for row in page:
                    if len(self._rows) >= MOST:
                        self._overflowed = True
                        return
                    self._rows[row.place] = None
                    found.add(row.place)
                if len(page) < PAGE:
                    break
                after = page[-1].id

    async def try_again(self, app: App) -> None:
        """Reopen the operations of an app that failed for lack of a key, in owned partitions."""
        table = schema.operations
        reopened = (
            update(table)
            .where(
                table.c.app_id == app.row,
                table.c.status == "failed",
                table.c.finished_at.is_(None),
                table.c.kind.in_(self._kinds),
                self._ownership.mine(table),
            )
            .values(
                # The status is not "accepted", because some devices may have got the push. A start
                # reads again from its first row and skips the devices that have it.
                status=case(
                    (table.c.kind.in_(("start", NOTIFICATION)), schema.SHARDED), else_="accepted"
                ),
                cursor=case((table.c.kind == "start", 0), else_=table.c.cursor),
                reason=None,
            )
            .returning(self._place)
        )
        async with self._database.write() as connection:
            rows: Sequence[int] = (await connection.scalars(reopened)).all()
        for row in rows:
            self.add(row)


class ActivityBacklog(Backlog):
    """A queue of activities to look at."""

    def __init__(self, database: Database, ownership: Ownership, clock: Clock) -> None:
        super().__init__(database, ownership)
        self._clock = clock
        self._resting: dict[int, bool] = {}
        """Activities looked at within `PACE`; True if one must be looked at again afterwards."""
        self._doubtful: set[int] = set()
        self.behind: set[int] = set()
        """Activities with a token that lacks the newest state, possibly without an open operation.
        """

    def __len__(self) -> int:
        return len(self._rows) + sum(self._resting.values())

    @property
    def empty(self) -> bool:
        """Whether there is nothing to look at."""
        return super().empty and not any(self._resting.values())

    @property
    def _urgent(self) -> bool:
        return bool(self._gained or self._doubtful)

    def add(self, row: int) -> None:
        """Queue an activity, at least `PACE` seconds after the last look at it."""
        if row in self._resting:
            self._resting[row] = True
        else:
            super().add(row)

    async def take(self, limit: int) -> list[int]:
        """Return the activities to look at now; see `Backlog.take`."""
        taken = await super().take(limit)
        self._resting.update(dict.fromkeys(taken, False))
        self._clock.call_later(PACE, lambda: self._rested(taken))
        return taken

    def _rested(self, rows: Sequence[int]) -> None:
        for row in rows:
            if self._resting.pop(row, False):
                self.add(row)

    def add_behind(self, row: int) -> None:
        """Queue an activity with a token that lacks the newest state."""
        self.behind.add(row)
        self.add(row)

    def ask(self, row: int) -> None:
        """Queue an activity if the store has a token of it that lacks the newest state."""
        self._doubtful.add(row)
        self.waiting.set()

    async def _read_again(self) -> None:
        gained, doubtful = self._gained, self._doubtful
        self._doubtful = set()
        try:
            await super()._read_again()
            if gained:
                await self._read_behind(self._behind(gained))
            for some in chunks(sorted(doubtful)):
                query = self._behind(self._ownership.partitions)
                await self._read_behind(query.where(schema.activities.c.id.in_(some)))
        except BaseException:
            self._gained |= gained
            self._doubtful |= doubtful
            raise

    @staticmethod
    def _behind(partitions: frozenset[int]) -> Select[Any]:
        """Return the query for activities with a token that lacks the newest state.

        No operation shows a token that arrived after the last update. The earlier owner may not
        have been notified of it, or may have stopped sending before.
        """
        activities, members = schema.activities, schema.activity_devices
        query = select(activities.c.id).where(
            activities.c.status.in_(("active", "ended")),
            activities.c.retired_at.is_(None),
            exists().where(
                members.c.activity_id == activities.c.id,
                members.c.retired_at.is_(None),
                members.c.acknowledged_version < activities.c.version,
                members.c.token.is_not(None),
                ~members.c.by_channel,
            ),
        )
        if len(partitions) < PARTITIONS:
            query = query.where(among(activities.c.partition, partitions))
        return query

    async def _read_behind(self, query: Select[Any]) -> None:
        for row in await self._database.rows(query):
            self.add_behind(row.id)

    async def read(
        self, rows: Sequence[int], known: Mapping[int, tuple[int, int]] | None = None
    ) -> tuple[list[Row[Any]], dict[int, list[Row[Any]]]]:
        """Return activities, and their relevant operations, the oldest first.

        Relevant are the unfinished operations and the one of the newest version. For some
        activities ``known`` has two versions: all open changes up to the first are known, and
        starts may be open from the second on. Of these activities only newer changes and open
        starts are returned. Under load each has hundreds of open operations, and is read again and
        again.
        """
        known = known or {}
        unknown = {"rows": [row for row in rows if row not in known]}
        matter: list[Row[Any]] = []
        async with self._database.read() as connection:
            found = (await connection.execute(_ACTIVITIES, {"rows": list(rows)})).all()
            if known:
                given = [(row, *versions) for row, versions in known.items()]
                matter += await with_rows(connection, _NEWER, given)
            if unknown["rows"]:
                matter += await connection.execute(_OPEN, unknown)
                matter += await connection.execute(_NEWEST, unknown)
        # Skip what was committed between the two queries; a later look finds it. Together with the
        # older activity row its alert would ring with the previous state.
        newest = {row.id: row.version for row in found}
        matter = [row for row in matter if row.version <= newest.get(row.activity_id, 0)]
        by_activity: dict[int, list[Row[Any]]] = {}
        for row in sorted({row.id: row for row in matter}.values(), key=lambda row: row.id):
            by_activity.setdefault(row.activity_id, []).append(row)
        return list(found), by_activity

    async def put_off(self, row: int, reason: str) -> list[int]:
        """Store why the open updates and ends of an activity wait; return their row ids."""
        table = schema.operations
        put_off = (
            update(table)
            .where(
                table.c.activity_id == row,
                table.c.finished_at.is_(None),
                table.c.kind.in_(("update", "end")),
                (table.c.status + "").in_(["accepted", "running"]),
            )
            .values(status="running", reason=reason)
            .returning(table.c.id)
        )
        async with self._database.write() as connection:
            return list(await connection.scalars(put_off))


def is_open(operation: Row[Any]) -> bool:
    """Whether an operation is not finished."""
    return operation.status in ("accepted", "running", schema.SHARDED) or (
        operation.status == "failed" and operation.finished_at is None
    )
