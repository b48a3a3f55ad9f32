"""Deletes expired data in small batches.

A batch deletes at most `BATCH` rows, found by an index on time. It starts where the last batch
ended, because deleted rows stay in PostgreSQL's index until it is vacuumed. Other work runs between
batches.
"""

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, delete, select, true, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from ..accept.idempotency import KEPT_MILLISECONDS
from ..core import Core, Part
from ..read.operations import FINISHED
from ..store import schema
from .steady_time import SteadyTime

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


class Pruning(Part):
    """Deletes expired rows, in rounds. ``round`` does one; ``run`` does them until cancelled.

    The settings say how many days each kind of row is kept. ``outcome_days`` is also for the operations
    of the outcomes and for the log of webhook calls. ``activity_days`` counts from the moment when no card can
    be left, ``token_days`` from the retirement of a token or the deletion of a broadcast channel. Answers
    for idempotency keys are kept for 30 days.
    """

    def __init__(self, core: Core, time: SteadyTime | None = None) -> None:
        super().__init__(core)
        self._time = time or SteadyTime(core.clock)
        self.rounds = 0
        self.deleted = 0
        """Rows, of those that have a time of their own, since the start."""

    async def run(self) -> None:
        """Prune soon, and then after each interval, until cancelled."""
        await self.clock.sleep(FIRST)
        while True:
            if deleted := await self.round():
                logger.info("pruned %s", ", ".join(f"{n} {name}" for name, n in deleted.items()))
            await self.clock.sleep(EVERY)

    async def round(self) -> dict[str, int]:
        """Delete all expired rows; return how many of each table."""
        now, keep = self._time.milliseconds(), self.core.settings
        outcomes, tokens = now - int(keep.outcome_days * _DAY), now - int(keep.token_days * _DAY)
        operations, activities = schema.operations, schema.activities
        deleted: dict[str, int] = {}
        for time, limit, over in (
            (schema.outcomes.c.created_at, outcomes, true()),
            (schema.idempotency.c.created_at, now - KEPT_MILLISECONDS, true()),
            (schema.receipts.c.created_at, now - int(keep.receipt_days * _DAY), true()),
            (schema.webhook_calls.c.created_at, outcomes, true()),
            (schema.audit_log.c.created_at, now - int(keep.audit_days * _DAY), true()),
            (schema.start_tokens.c.retired_at, tokens, true()),
            (schema.device_tokens.c.retired_at, tokens, true()),
            (schema.channels.c.deleted_at, tokens, true()),
            (schema.token_changes.c.created_at, now - _HEARD, true()),
            # An operation that still waits for a key after all this time is never sent.
            (operations.c.created_at, outcomes, operations.c.status.in_(FINISHED)),
            (
                activities.c.retired_at,
                now - int(keep.activity_days * _DAY),
                activities.c.status == "ended",
            ),
        ):
            deleted[time.table.name] = await self._delete(time, and_(time < limit, over))
        self.rounds += 1
        self.deleted += sum(deleted.values())
        return {name: count for name, count in deleted.items() if count}

    async def _delete(self, time: Column[Any], old: ColumnElement[bool]) -> int:
        """Delete the old rows of a table, a batch at a time: first the rows that they own."""
        table = time.table
        key = list(table.primary_key.columns)
        size = PARENTS if table.name in _OWNERS else BATCH
        after: ColumnElement[bool] = time.is_not(None)
        total = 0
        while True:
            page = select(time.label("time"), *key).where(old, after).order_by(time)
            rows = await self.database.rows(page.limit(size))
            gone = [tuple(row)[1:] for row in rows]
            if rows:
                ids = [one[0] for one in gone]
                while True:
                    async with self.database.write() as connection:
                        if table.name not in _OWNERS or await _empty(connection, table, ids):
                            place = tuple_(*key).in_(gone) if len(key) > 1 else key[0].in_(ids)
                            # Checked again: a token may have been registered again meanwhile.
                            done = await connection.execute(delete(table).where(place, old))
                            break
                    await self.clock.sleep(PAUSE)
                total += done.rowcount
            if len(rows) < size:
                return total
            after = time >= rows[-1].time
            await self.clock.sleep(PAUSE)


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


async def _empty(connection: AsyncConnection, table: Table, ids: Sequence[int]) -> bool:
    """Delete a batch of the rows that these rows own; return True if none is left."""
    operations = schema.operations
    if table is schema.activities:
        query = select(operations.c.id).where(operations.c.activity_id.in_(ids)).limit(BATCH)
        if own := (await connection.scalars(query)).all():
            if not await _empty(connection, operations, own):
                return False
            await connection.execute(delete(operations).where(operations.c.id.in_(own)))
            if len(own) == BATCH:
                return False
    for owner in _OWNERS[table.name]:
        child = owner.table
        some = select(child.c.id).where(owner.in_(ids)).limit(BATCH)
        gone = await connection.execute(delete(child).where(child.c.id.in_(some)))
        if gone.rowcount == BATCH:
            return False
    return True
