"""Polls the database for work that other processes accepted.

Row ids are assigned before a commit and visible after it, so a new row may have a lower id than one that was seen.
Each poll therefore starts at the highest id of some time ago, longer than a transaction may take, and skips the
rows that it has seen since. SQLite has one writer at a time, so there each poll starts where the last one ended.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, bindparam, func, select

from ..requests.notify import KIND
from ..store import schema
from ..store.database import Database
from ..store.failures import STORE_FAILURES
from ..store.ownership import Ownership
from ..store.shards import CLAIMABLE
from ..store.statements import among, as_json
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


def _after(name: str, *columns: ColumnElement[Any]) -> Select[Any]:
    """Return the query for a page of rows after the row that is bound to ``name``."""
    return select(*columns).where(columns[0] > bindparam(name)).order_by(columns[0]).limit(PAGE)


_operations, _tokens = schema.operations.c, schema.token_changes.c
_ACCEPTED = _after(
    "accepted_after", _operations.id, _operations.kind, _operations.activity_id, _operations.version
).where(_operations.status == "accepted")
_CHANGED = _after(
    "changed_after", _tokens.id, _tokens.activity_id, _tokens.token, _tokens.behind
).where(_tokens.origin != bindparam("origin"))


@lru_cache
def _poll(dialect: str, *, whole: bool) -> Select[Any]:
    """Return the statement of a poll: each column is a list of rows as JSON text.

    It is built once: building it takes longer than running it.
    """
    lists = [_ACCEPTED, _CHANGED]
    if not whole:
        lists[0] = _ACCEPTED.where(among(_operations.partition, bindparam("partitions")))
        lists.append(CLAIMABLE)
    return select(*(as_json(dialect, each).scalar_subquery() for each in lists))


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
        self._windows = _Window(look_back), _Window(look_back)
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
            tables = schema.operations, schema.token_changes
            for window, table in zip(self._windows, tables, strict=True):
                newest = await connection.scalar(select(func.max(table.c.id)))
                window.base = max((newest or 0) - PAGE, 0)

    async def look(self) -> None:
        """Poll once. Raises as `Database.read`."""
        now = time.monotonic()
        self._looks += 1
        if not self._looks % _SECOND:
            self.now_and_then()
        back = _NEARLY_ALL if self._looks % _FAR else _LOOK_BACK
        after = [window.floor(now, back) for window in self._windows]
        more = True
        while more:
            accepted, changed, claimable = await self._read(*after)
            more = PAGE in {len(accepted), len(changed)}
            pages: list[list[Any]] = []
            for index, page in enumerate((accepted, changed)):
                page.sort()
                new = self._windows[index].fresh([row[0] for row in page], now)
                pages.append([row for row in page if row[0] in new])
                after[index] = page[-1][0] if page else after[index]
            for row, kind, activity, version in pages[0]:
                if kind == KIND:
                    self.courier.notifier.found(row)
                elif activity is not None:
                    self.courier.accepted(activity, version)
            for _, activity, token, behind in pages[1]:
                self.courier.heard(activity, token, behind=bool(behind))
            self.courier.helping.begin(operation for (operation,) in claimable)

    async def _read(self, accepted_after: int, changed_after: int) -> list[list[Any]]:
        """Return pages of new operations and token changes, and operations with claimable shards."""
        whole = self.ownership.whole
        given: dict[str, object] = {"accepted_after": accepted_after}
        given |= {"changed_after": changed_after, "origin": self.origin}
        if not whole:
            given["partitions"] = sorted(self.ownership.partitions)
        async with self.database.read(once=True) as connection:
            query = _poll(connection.dialect.name, whole=whole)
            lists = (await connection.execute(query, given)).one()
        return [*(msgspec.json.decode(each or "[]") for each in lists), *([[]] if whole else [])]
