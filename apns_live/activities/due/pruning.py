"""Deletes expired data in small batches.

A batch deletes at most `BATCH` rows, found by an index on time. It starts where the last batch
ended, because deleted rows stay in PostgreSQL's index until it is vacuumed. Other work runs between
batches.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, delete, or_, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ..accept.idempotency import KEPT_MILLISECONDS
from ..read.operations import FINISHED
from ..settings import ServiceSettings
from ..store import schema
from ..store.database import Database
from .scheduler import SteadyTime

logger = logging.getLogger("apns_live.activities")

FIRST = 60.0
"""Seconds from the start of the process to the first round."""
EVERY = 3600.0
"""Seconds from the end of one round to the next."""
PAUSE = 0.05
"""Seconds between two batches."""
BATCH = 1_000
PARENTS = 20
"""Activities, or operations, whose rows are deleted together."""
_DAY = 86_400_000
_HEARD = 600_000
"""Milliseconds after which every owner of an activity has read the changes of its tokens."""


class Pruning:
    """Deletes expired rows, in rounds. ``round`` does one; ``run`` does them until cancelled.

    ``settings`` says how many days each kind of row is kept. ``outcome_days`` is also for the operations
    of the outcomes and for the log of webhook calls. ``activity_days`` counts from the moment when no card can
    be left, ``token_days`` from the retirement of a token or the deletion of a broadcast channel. Answers
    for idempotency keys are kept for 30 days.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        settings: ServiceSettings | None = None,
        *,
        every: float = EVERY,
        time: SteadyTime | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._time = time or SteadyTime(clock)
        self._keep = settings or ServiceSettings()
        self._every = every
        self.rounds = 0
        self.deleted = 0
        """Rows, of those that have a time of their own, since the start."""

    async def run(self) -> None:
        """Prune soon, and then after each interval, until cancelled."""
        await self._clock.sleep(FIRST)
        while True:
            if deleted := await self.round():
                logger.info("pruned %s", ", ".join(f"{n} {name}" for name, n in deleted.items()))
            await self._clock.sleep(self._every)

    async def round(self) -> dict[str, int]:
        """Delete all expired rows; return how many of each table."""
        now, keep = self._time.milliseconds(), self._keep
        outcomes, tokens = now - int(keep.outcome_days * _DAY), now - int(keep.token_days * _DAY)
        deleted: dict[str, int] = {}
        for time, limit in (
            (schema.outcomes.c.created_at, outcomes),
            (schema.idempotency.c.created_at, now - KEPT_MILLISECONDS),
            (schema.receipts.c.created_at, now - int(keep.receipt_days * _DAY)),
            (schema.webhook_calls.c.created_at, outcomes),
            (schema.audit_log.c.created_at, now - int(keep.audit_days * _DAY)),
            (schema.start_tokens.c.retired_at, tokens),
            (schema.device_tokens.c.retired_at, tokens),
            (schema.channels.c.deleted_at, tokens),
            (schema.token_changes.c.created_at, now - _HEARD),
        ):
            deleted[time.table.name] = await self._old(time, limit)
        # An operation that still waits for a key after all this time is never sent.
        over: ColumnElement[bool] = schema.operations.c.status.in_(FINISHED)
        time = schema.operations.c.created_at
        deleted["operations"] = await self._parents(time, outcomes, over)
        over, limit = schema.activities.c.status == "ended", now - int(keep.activity_days * _DAY)
        time = schema.activities.c.retired_at
        deleted["activities"] = await self._parents(time, limit, over)
        self.rounds += 1
        self.deleted += sum(deleted.values())
        return {name: count for name, count in deleted.items() if count}

    async def _old(self, time: Column[Any], limit: int) -> int:
        """Delete the rows of a table whose time is before ``limit``."""
        table = time.table
        key = list(table.primary_key.columns)
        after: ColumnElement[bool] = time.is_not(None)
        total = 0
        while True:
            old = select(time.label("time"), *key).where(time < limit, after).order_by(time)
            rows = await self._database.rows(old.limit(BATCH))
            if rows:
                gone = [tuple(row)[1:] for row in rows]
                place = key[0].in_([one[0] for one in gone])
                if len(key) > 1:
                    place = tuple_(*key).in_(gone)
                # Checked again: a token may have been registered again since it was read.
                total += await self._database.change(delete(table).where(place, time < limit))
            if len(rows) < BATCH:
                return total
            after = time >= rows[-1].time
            await self._clock.sleep(PAUSE)

    async def _parents(self, time: Column[Any], limit: int, over: ColumnElement[bool]) -> int:
        """Delete owning rows: first the rows that they own, a batch at a time, then themselves."""
        total = 0
        place = time.table.c.id
        after: ColumnElement[bool] = time.is_not(None)
        while True:
            page = select(place, time.label("time")).where(time < limit, over, after)
            page = page.order_by(time, place).limit(PARENTS)
            if not (rows := await self._database.rows(page)):
                return total
            last = rows[-1]
            # The first condition tells the index where to begin.
            after = and_(time >= last.time, or_(time > last.time, place > last.id))
            ids = [row.id for row in rows]
            while True:
                async with self._database.write() as connection:
                    done = await _remove(connection, time.table, ids, over)
                await self._clock.sleep(PAUSE)
                if done:
                    break
            total += len(rows)


_OWNERS = {
    "operations": (
        schema.outcomes.c.operation_id,
        schema.receipts.c.operation_id,
        schema.intended_pages.c.operation_id,
    ),
    "activities": (
        schema.activity_devices.c.activity_id,
        schema.receipts.c.activity_id,
        schema.webhook_calls.c.activity_id,
    ),
}
"""The columns of other tables that name the owner of a row."""


async def _remove(
    connection: AsyncConnection, table: Table, ids: Sequence[int], over: ColumnElement[bool]
) -> bool:
    """Delete rows and what they own; return False if owned rows remain after a batch."""
    operations = schema.operations
    if table is schema.activities:
        query = select(operations.c.id).where(operations.c.activity_id.in_(ids)).limit(BATCH)
        own = (await connection.scalars(query)).all()
        if own and not (await _remove(connection, operations, own, true()) and len(own) < BATCH):
            return False
    for owner in _OWNERS[table.name]:
        # At most a batch of the rows that these own.
        child = owner.table
        some = select(child.c.id).where(owner.in_(ids)).limit(BATCH)
        gone = await connection.execute(delete(child).where(child.c.id.in_(some)))
        if gone.rowcount == BATCH:
            return False
    await connection.execute(delete(table).where(table.c.id.in_(ids), over))
    return True
