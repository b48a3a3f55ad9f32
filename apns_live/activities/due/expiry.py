"""The system's own end of a card, and what is forgotten once no card is left.

Apple, "Displaying live data with Live Activities": a card is active for 8 hours at most, then the
system ends it, and shows it for up to 4 more. Each device counts from its own start, so that one
that joined late is not given up with the first. An activity counts as ended when its last card is,
without a push: a phone ignores what comes after. When the last card can be gone, so are its tokens.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Row, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..accept.activities import ACTIVE_MILLISECONDS
from ..store import schema
from ..store.database import Database
from .due import apps_of

if TYPE_CHECKING:
    from .scheduler import Done

logger = logging.getLogger("apns_live.activities")

SHOWN_MILLISECONDS = 4 * 3600 * 1000
"""How long an ended card may stay on the Lock Screen."""
GONE_MILLISECONDS = ACTIVE_MILLISECONDS + SHOWN_MILLISECONDS
BATCH = 50
TOKENS = 2_000
"""Tokens that are retired in one transaction."""
_PATIENCE = 300_000
"""Milliseconds between two looks at an activity that devices join one after the other."""

_table = schema.activity_devices
_begun = func.coalesce(_table.c.started_at, _table.c.joined_at, _table.c.registered_at)


class Expiry:
    """Looks at activities of one status whose time may be up: ``active`` ones end, ``ended`` ones go."""

    def __init__(self, database: Database, status: Literal["active", "ended"]) -> None:
        self._database = database
        self._status = status
        self._after = 0 if status == "active" else SHOWN_MILLISECONDS

    async def run(self, done: Done, now: int) -> int | None:
        """Look at a batch; see `Step`."""
        table = schema.activities
        waiting = (
            select(table)
            .where(table.c.status == self._status, table.c.retired_at.is_(None))
            .order_by(table.c.expires_at)
            .limit(BATCH + 1)
        )
        async with self._database.read() as connection:
            found = (await connection.execute(waiting)).all()
        due = [row for row in found[:BATCH] if row.expires_at + self._after <= now]
        for row in due:
            if not await self._look(row, done, now):
                return now  # a part of a large activity: there is more to do
        return found[len(due)].expires_at + self._after if len(due) < len(found) else None

    async def _look(self, row: Row[Any], done: Done, now: int) -> bool:
        """Do what is due for one activity; return whether that is all."""
        table = schema.activities
        since = row.started_at or row.created_at
        if since + GONE_MILLISECONDS <= now and not await self._retire(row, done, now):
            return False
        async with self._database.write() as connection:
            still = (
                await connection.execute(
                    select(table.c.id)
                    .where(
                        table.c.id == row.id,
                        table.c.status == self._status,
                        table.c.retired_at.is_(None),
                    )
                    .with_for_update()
                )
            ).scalar()
            if still is None:
                return True
            newest, oldest = (
                await connection.execute(
                    select(func.max(_begun), func.min(_begun)).where(
                        _table.c.activity_id == row.id, _table.c.retired_at.is_(None)
                    )
                )
            ).one()
            changes = self._changes(max(newest or 0, since), oldest, now)
            await connection.execute(update(table).where(table.c.id == row.id).values(changes))
            if "expires_at" not in changes:
                if self._status == "active":
                    await _close(connection, row, now)
                apps = await apps_of(connection, [row.app_id])
                done.written.append((apps[row.app_id], row.id))
        return True

    def _changes(self, begun: int, oldest: int | None, now: int) -> dict[str, Any]:
        """Return what becomes of the activity's row."""
        expiry = begun + ACTIVE_MILLISECONDS
        if self._status == "active":
            if expiry <= now:
                return {
                    "status": "ended",
                    "ended_at": expiry,
                    "end_reason": "expired",
                    "updated_at": now,
                }
            if oldest is not None and oldest + GONE_MILLISECONDS < expiry:
                expiry = max(oldest + GONE_MILLISECONDS, now + _PATIENCE)
            return {"expires_at": expiry}
        if begun + GONE_MILLISECONDS <= now:
            return {"retired_at": now}
        return {"expires_at": expiry}

    async def _retire(self, row: Row[Any], done: Done, now: int) -> bool:
        """Retire a batch of tokens whose card can be there no more; return whether none is left."""
        old = (
            select(_table.c.id)
            .where(
                _table.c.activity_id == row.id,
                _table.c.retired_at.is_(None),
                _begun <= now - GONE_MILLISECONDS,
            )
            .limit(TOKENS)
        )
        async with self._database.write() as connection:
            gone = await connection.execute(
                update(_table)
                .where(_table.c.id.in_(old), _table.c.retired_at.is_(None))
                .values(retired_at=now, retired_reason="expired", ending_at=None)
                .returning(_table.c.token)
            )
            tokens = gone.scalars().all()
        done.left += [(row.id, token) for token in tokens if token is not None]
        return len(tokens) < TOKENS


async def _close(connection: AsyncConnection, row: Row[Any], now: int) -> None:
    """Finish the operations that waited for devices which will get nothing more."""
    table = schema.operations
    await connection.execute(
        update(table)
        .where(
            table.c.activity_id == row.id,
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
    logger.info("the activity %r was ended by the system, 8 hours after it began", row.public_id)
