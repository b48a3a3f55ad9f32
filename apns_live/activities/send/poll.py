"""Polls the database for work that other processes accepted.

Row ids are assigned before a commit and visible after it, so a new row may have a lower id than one that was seen.
Each poll therefore starts at the highest id of some time ago, longer than a transaction may take, and skips the
rows that it has seen since. SQLite has one writer at a time, so there each poll starts where the last one ended.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, func, select

from ..requests.notify import KIND
from ..store import schema
from ..store.database import Database
from ..store.failures import STORE_FAILURES
from ..store.ownership import Ownership
from ..store.statements import among, page_of
from ..store.wakeups import POLL
from .courier import Courier

PAGE = 2_000
_LOOK_BACK = 60.0
"""Seconds after which a transaction has certainly ended; see the timeouts of `Database`."""
_NEARLY_ALL = 2.0
"""Seconds after which nearly all transactions have ended. Few polls go further back."""
_SECOND = 4
"""Polls per second."""
_FAR = 20
"""Polls until one goes back all the way."""


def _after(*columns: ColumnElement[Any]) -> Select[Any]:
    """Return the query for a page of rows after a row."""
    return select(*columns).where(columns[0] > bindparam("after")).order_by(columns[0]).limit(PAGE)


# Built once: building the statements takes longer than running them.
_operations, _tokens = schema.operations.c, schema.token_changes.c
_ACCEPTED = _after(
    _operations.id, _operations.kind, _operations.activity_id, _operations.version
).where(_operations.status == "accepted")
_ACCEPTED_OF = _ACCEPTED.where(among(_operations.partition, bindparam("partitions")))
_CHANGED = _after(_tokens.id, _tokens.activity_id, _tokens.token, _tokens.behind).where(
    _tokens.origin != bindparam("origin")
)


class _Window:
    """The rows of a table from ``look_back`` seconds ago on, and which of them were seen."""

    def __init__(self, look_back: float) -> None:
        self.base = 0
        self._look_back = look_back
        self._seen: set[int] = set()
        self._marks: deque[tuple[float, int]] = deque()

    def floor(self, now: float, back: float) -> int:
        """Return the highest row that was seen ``back`` seconds ago."""
        before = now - min(back, self._look_back)
        return max((row for when, row in self._marks if when < before), default=self.base)

    def fresh(self, rows: list[int], now: float) -> set[int]:
        """Return the rows that were not seen before."""
        new = set(rows) - self._seen
        self._seen |= new
        if new:
            self._marks.append((now, max(self._seen)))
        while self._marks and self._marks[0][0] < now - self._look_back:
            self.base = max(self.base, self._marks.popleft()[1])
            self._seen = {row for row in self._seen if row > self.base}
        return new


@dataclass(eq=False, repr=False)
class Poll:
    """Notifies courier and notifier of new work in the owned partitions.

    ``now_and_then`` is called once a second.
    """

    database: Database
    origin: str
    ownership: Ownership
    courier: Courier
    now_and_then: Callable[[], object]

    def __post_init__(self) -> None:
        look_back = 0.0 if self.database.is_sqlite else _LOOK_BACK
        self._operations = _Window(look_back)
        self._tokens = _Window(look_back)
        self._looks = 0
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Poll at once: another process has notified of new rows."""
        self._woken.set()

    async def run(self) -> None:
        """Poll every quarter of a second, until cancelled."""
        await self._begin()
        while True:
            try:
                async with asyncio.timeout(POLL):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            try:
                await self.look()
            except STORE_FAILURES as error:
                self.database.outage.failed("new work could not be polled", error)
                await asyncio.sleep(POLL)

    async def _begin(self) -> None:
        """Begin at the newest rows: older work is found when partitions are gained."""
        async with self.database.read() as connection:
            for window, table in (
                (self._operations, schema.operations),
                (self._tokens, schema.token_changes),
            ):
                newest = await connection.scalar(select(func.max(table.c.id)))
                window.base = max((newest or 0) - PAGE, 0)

    async def look(self) -> None:
        """Poll once. Raises as `Database.read`."""
        now = time.monotonic()
        self._looks += 1
        if not self._looks % _SECOND:
            self.now_and_then()
        back = _NEARLY_ALL if self._looks % _FAR else _LOOK_BACK
        accepted, given = _ACCEPTED, {}
        if not self.ownership.whole:
            accepted, given = _ACCEPTED_OF, {"partitions": sorted(self.ownership.partitions)}
        found = await self._fresh(self._operations, accepted, given, now, back)
        for row, kind, activity, version in found:
            if kind == KIND:
                self.courier.notifier.found(row)
            elif activity is not None:
                self.courier.accepted(activity, version)
        heard = await self._fresh(self._tokens, _CHANGED, {"origin": self.origin}, now, back)
        for _, activity, token, behind in heard:
            self.courier.heard(activity, token, behind=bool(behind))
        await self.courier.helping.look()

    async def _fresh(
        self,
        window: _Window,
        query: Select[Any],
        given: Mapping[str, object],
        now: float,
        back: float,
    ) -> list[Sequence[Any]]:
        """Return the rows of a query that were not seen before. Their first column is the id."""
        rows: list[Sequence[Any]] = []
        after = window.floor(now, back)
        async with self.database.read(once=True) as connection:
            while page := sorted(await page_of(connection, query, {**given, "after": after})):
                rows += page
                if len(page) < PAGE:
                    break
                after = page[-1][0]
        fresh = window.fresh([row[0] for row in rows], now)
        return [row for row in rows if row[0] in fresh]
