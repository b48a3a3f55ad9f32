"""Ends activities that iOS has ended, and deletes their data when no card is left.

Apple, "Displaying live data with Live Activities": a card is active for 8 hours at most, then the
system ends it, and shows it for up to 4 more. The 8 hours count from each device's own start, so a device
that joined late keeps its card longer. The activity has ended when its last card has. It needs no push then:
a phone ignores pushes for a card that has ended. Tokens are deleted once no card can still be visible.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, ScalarSelect, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..apps import apps_of
from ..store import schema
from ..store.database import Database
from ..store.hand_over import begun
from ..store.ownership import Ownership
from ..store.statements import hold, with_rows
from ..times import ACTIVE_MILLISECONDS
from .due import Done, earliest, held_rows

logger = logging.getLogger("apns_live.activities")

SHOWN_MILLISECONDS = 4 * 3600 * 1000
"""How long an ended card may stay on the Lock Screen."""
GONE_MILLISECONDS = ACTIVE_MILLISECONDS + SHOWN_MILLISECONDS
BATCH = 200
TOKENS = 2_000
"""Tokens that are retired in one transaction."""
_PATIENCE = 300_000
"""Milliseconds between two looks at an activity that devices join one after the other."""

_ENDED = """
UPDATE activities SET status = 'ended', ended_at = given.at, end_reason = 'expired', updated_at = :now
FROM {activity, at} WHERE activities.id = given.activity
"""
_GONE = """
UPDATE activities SET retired_at = :now FROM {activity, at} WHERE activities.id = given.activity
"""
_LATER = """
UPDATE activities SET expires_at = given.at FROM {activity, at} WHERE activities.id = given.activity
"""

_table = schema.activity_devices
_begun = begun(_table)


class Expiry:
    """Looks at activities of one status whose time may be up: ``active`` ones end, ``ended`` ones go."""

    def __init__(
        self, database: Database, status: Literal["active", "ended"], ownership: Ownership
    ) -> None:
        self._database = database
        self._ownership = ownership
        self._status = status
        self._after = 0 if status == "active" else SHOWN_MILLISECONDS

    def _waiting(self) -> tuple[ColumnElement[bool], ...]:
        table = schema.activities
        mine = self._ownership.mine(table)
        return table.c.status == self._status, table.c.retired_at.is_(None), mine

    def first(self) -> ScalarSelect[int]:
        """Say when to look at the first; see `Step`."""
        return earliest(schema.activities.c.expires_at, *self._waiting(), after=self._after)

    async def run(self, done: Done, now: int) -> int | None:
        """Look at a batch; see `Step`."""
        table = schema.activities
        query = select(table).where(*self._waiting()).order_by(table.c.expires_at)
        found = await self._database.rows(query.limit(BATCH + 1))
        due = [row for row in found[:BATCH] if row.expires_at + self._after <= now]
        old = [row.id for row in due if _since(row) + GONE_MILLISECONDS <= now]
        if old and not await self._retire(old, done, now):
            return now  # a part of large activities: there is more to do
        if due:
            await self._look(due, done, now)
        return found[len(due)].expires_at + self._after if len(due) < len(found) else None

    async def _look(self, due: Sequence[Row[Any]], done: Done, now: int) -> None:
        """Do what is due for some activities."""
        table = schema.activities
        ids = [row.id for row in due]
        async with self._database.write() as connection:
            living = table.c.retired_at.is_(None)
            held = {row.id for row in await held_rows(connection, ids, self._status, living)}
            cards = {
                row.activity_id: row
                for row in await connection.execute(
                    select(
                        _table.c.activity_id,
                        func.max(_begun).label("newest"),
                        func.min(_begun).label("oldest"),
                    )
                    .where(_table.c.activity_id.in_(held), _table.c.retired_at.is_(None))
                    .group_by(_table.c.activity_id)
                )
            }
            over: list[Row[Any]] = []
            changes: dict[str, list[tuple[int, int]]] = {}
            for row in due:
                if row.id not in held:
                    continue
                found = cards.get(row.id)
                newest, oldest = (0, None) if found is None else (found.newest, found.oldest)
                statement, at = self._change(max(newest or 0, _since(row)), oldest, now)
                changes.setdefault(statement, []).append((row.id, at))
                if statement is not _LATER:
                    over.append(row)
            for statement, rows in changes.items():
                given = {} if statement is _LATER else {"now": now}
                await with_rows(connection, statement, rows, **given)
            if over and self._status == "active":
                await _close(connection, over, now)
            apps = await apps_of(connection, (row.app_id for row in over))
        done.written += [(apps[row.app_id], row.id) for row in over]

    def _change(self, newest: int, oldest: int | None, now: int) -> tuple[str, int]:
        """Return what becomes of an activity's row: a statement, and its time."""
        expiry = newest + ACTIVE_MILLISECONDS
        if self._status == "active":
            if expiry <= now:
                return _ENDED, expiry
            if oldest is not None and oldest + GONE_MILLISECONDS < expiry:
                expiry = max(oldest + GONE_MILLISECONDS, now + _PATIENCE)
        elif newest + GONE_MILLISECONDS <= now:
            return _GONE, now
        return _LATER, expiry

    async def _retire(self, ids: Sequence[int], done: Done, now: int) -> bool:
        """Retire a batch of tokens whose card can be there no more; return whether none is left."""
        old = (
            select(_table.c.id)
            .where(
                _table.c.activity_id.in_(ids),
                _table.c.retired_at.is_(None),
                _begun <= now - GONE_MILLISECONDS,
            )
            .limit(TOKENS)
        )
        async with self._database.write() as connection:
            await hold(connection, schema.activities, ids)
            gone = await connection.execute(
                update(_table)
                .where(_table.c.id.in_(old), _table.c.retired_at.is_(None))
                .values(retired_at=now, retired_reason="expired", ending_at=None)
                .returning(_table.c.activity_id, _table.c.token)
            )
            tokens = gone.all()
        done.left += [(row.activity_id, row.token) for row in tokens if row.token is not None]
        return len(tokens) < TOKENS


def _since(row: Row[Any]) -> int:
    return int(row.started_at or row.created_at)


async def _close(connection: AsyncConnection, rows: Sequence[Row[Any]], now: int) -> None:
    """Finish the operations that waited for devices which will get nothing more."""
    table = schema.operations
    await connection.execute(
        update(table)
        .where(
            table.c.activity_id.in_([row.id for row in rows]),
            table.c.status.in_(["accepted", "running"]),
            table.c.kind != "start",
        )
        .values(
            # Nobody was sent it, or those who could be were.
            status=case(
                (table.c.reason.is_not(None), "failed"),  # it waited for credentials
                (table.c.accepted + table.c.failed == 0, "superseded"),
                else_="done",
            ),
            finished_at=now,
        )
    )
    for row in rows:
        logger.info("the activity %r was ended by iOS, 8 hours after its start", row.public_id)
