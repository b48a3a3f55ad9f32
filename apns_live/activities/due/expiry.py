"""Ends activities that iOS has ended, and deletes their data when no card is left.

Apple, "Displaying live data with Live Activities": a card is active for 8 hours at most, then the
system ends it, and shows it for up to 4 more. The 8 hours count from each device's own start, so a device
that joined late keeps its card longer. The activity has ended when its last card has. It needs no push then:
a phone ignores pushes for a card that has ended. Tokens are deleted once no card can still be visible.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..apps import apps_of
from ..core import Core
from ..store import schema
from ..store.hand_over import begun
from ..store.statements import hold, with_rows
from ..times import ACTIVE_MILLISECONDS
from .due import Done, StepOfActivities

logger = logging.getLogger("apns_live.activities")

SHOWN_MILLISECONDS = 4 * 3600 * 1000
"""How long an ended card may stay on the Lock Screen."""
GONE_MILLISECONDS = ACTIVE_MILLISECONDS + SHOWN_MILLISECONDS
TOKENS = 2_000
"""Tokens that are retired in one transaction."""
_PATIENCE = 300_000
"""Milliseconds between two checks of an activity that devices join over time."""

_STATEMENT = (
    "UPDATE activities SET {} FROM {{activity, at, now}} WHERE activities.id = given.activity"
)
_ENDED = _STATEMENT.format(
    "status = 'ended', ended_at = given.at, end_reason = 'expired', updated_at = given.now"
)
_GONE = _STATEMENT.format("retired_at = given.now")
_LATER = _STATEMENT.format("expires_at = given.at")

_table = schema.activity_devices
_begun = begun(_table)


class Expiry(StepOfActivities):
    """Activities of one status that may have expired: ``active`` ones end, ``ended`` retire."""

    batch = 200

    def __init__(self, core: Core, status: Literal["active", "ended"]) -> None:
        after = 0 if status == "active" else SHOWN_MILLISECONDS
        super().__init__(core, status, "expires_at", after)

    def waiting(self) -> tuple[ColumnElement[bool], ...]:
        """See `Step`."""
        table = schema.activities
        living = table.c.retired_at.is_(None)
        return table.c.status == self.status, living, self.core.ownership.mine(table)

    async def run(self, done: Done, now: int) -> int | None:
        """See `Step`."""
        due, later = await self.due(now, schema.activities)
        old = [row.id for row in due if _since(row) + GONE_MILLISECONDS <= now]
        if old and not await self._retire(old, done, now):
            return now  # more tokens of large activities are left
        if due:
            await self._look(due, done, now)
        return later

    async def _look(self, due: Sequence[Row[Any]], done: Done, now: int) -> None:
        """End, retire or postpone activities, by the age of their cards."""
        async with self.database.write() as connection:
            living = schema.activities.c.retired_at.is_(None)
            held = {row.id for row in await self.held(connection, due, living)}
            newest, oldest = func.max(_begun).label("newest"), func.min(_begun).label("oldest")
            query = select(_table.c.activity_id, newest, oldest).group_by(_table.c.activity_id)
            cards = {
                row.activity_id: row
                for row in await connection.execute(
                    query.where(_table.c.activity_id.in_(held), _table.c.retired_at.is_(None))
                )
            }
            over: list[Row[Any]] = []
            changes: dict[str, list[tuple[int, int, int]]] = {}
            for row in due:
                if row.id not in held:
                    continue
                statement, at = self._change(row, cards.get(row.id), now)
                changes.setdefault(statement, []).append((row.id, at, now))
                if statement is not _LATER:
                    over.append(row)
            for statement, rows in changes.items():
                await with_rows(connection, statement, rows)
            if over and self.status == "active":
                await _close(connection, over, now)
            apps = await apps_of(connection, (row.app_id for row in over))
        done.written += [(apps[row.app_id], row.id) for row in over]

    def _change(self, row: Row[Any], cards: Row[Any] | None, now: int) -> tuple[str, int]:
        """Return the statement that changes an activity's row, and its time."""
        newest = max(_since(row), 0 if cards is None else cards.newest or 0)
        expiry = newest + ACTIVE_MILLISECONDS
        if self.status == "active":
            if expiry <= now:
                return _ENDED, expiry
            if cards is not None and cards.oldest is not None:
                gone = cards.oldest + GONE_MILLISECONDS
                expiry = max(gone, now + _PATIENCE) if gone < expiry else expiry
        elif newest + GONE_MILLISECONDS <= now:
            return _GONE, now
        return _LATER, expiry

    async def _retire(self, ids: Sequence[int], done: Done, now: int) -> bool:
        """Retire a batch of tokens whose card has disappeared; return True if none is left."""
        living = _table.c.retired_at.is_(None)
        old = select(_table.c.id).where(
            _table.c.activity_id.in_(ids), living, _begun <= now - GONE_MILLISECONDS
        )
        retired = update(_table).where(_table.c.id.in_(old.limit(TOKENS)), living)
        retired = retired.values(retired_at=now, retired_reason="expired", ending_at=None)
        async with self.database.write() as connection:
            await hold(connection, schema.activities, ids)
            gone = retired.returning(_table.c.activity_id, _table.c.token)
            tokens = (await connection.execute(gone)).all()
        done.left += [(row.activity_id, row.token) for row in tokens if row.token is not None]
        return len(tokens) < TOKENS


def _since(row: Row[Any]) -> int:
    return int(row.started_at or row.created_at)


async def _close(connection: AsyncConnection, rows: Sequence[Row[Any]], now: int) -> None:
    """Finish the operations that waited for devices which will get no more pushes."""
    table = schema.operations
    status = case(
        (table.c.reason.is_not(None), "failed"),  # it waited for credentials
        (table.c.accepted + table.c.failed == 0, "superseded"),
        else_="done",
    )
    unfinished = (table.c.status.in_(["accepted", "running"]), table.c.kind != "start")
    theirs = table.c.activity_id.in_([row.id for row in rows])
    await connection.execute(
        update(table).where(theirs, *unfinished).values(status=status, finished_at=now)
    )
    for row in rows:
        logger.info("the activity %r was ended by iOS, 8 hours after its start", row.public_id)
