"""Deletes expired data in small batches.

A batch deletes at most `BATCH` rows, found by an index on time. It starts where the last batch
ended, because deleted rows stay in PostgreSQL's index until it is vacuumed. Other work runs between
batches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, delete, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ..accept.idempotency import KEPT_MILLISECONDS
from ..settings import ServiceSettings
from ..store import schema
from ..store.database import Database
from .steady import SteadyTime

logger = logging.getLogger("apns_live.activities")

FIRST = 60.0
"""Seconds from the start to the first round: whoever just started has other work."""
EVERY = 3600.0
"""Seconds from the end of one round to the next."""
PAUSE = 0.05
"""Seconds between two batches."""
BATCH = 1_000
PARENTS = 20
"""Activities, or operations, whose rows are deleted together."""
_DAY = 86_400_000.0
_HEARD = 600_000
"""Milliseconds after which every owner of an activity has heard of its tokens."""
_FINISHED = ("done", "superseded", "failed")


class Pruning:
    """Deletes what is past its time, in rounds. ``round`` does one; ``run`` does them for ever.

    ``settings`` says how many days each kind of row is kept. ``outcome_days`` counts for the operations
    that they belong to and for the log of webhook calls too, ``activity_days`` from the moment when no card
    can be left, ``token_days`` from their retirement, also for broadcast channels that were deleted. The
    answers for idempotency keys are kept for 30 days.
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
            deleted = await self.round()
            if deleted:
                logger.info("pruned %s", ", ".join(f"{n} {name}" for name, n in deleted.items()))
            await self._clock.sleep(self._every)

    async def round(self) -> dict[str, int]:
        """Delete everything that is past its time; return how many rows of each table."""
        now, keep = self._time.milliseconds(), self._keep
        tokens, outcomes = now - int(keep.token_days * _DAY), now - int(keep.outcome_days * _DAY)
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
        deleted["operations"] = await self._operations(outcomes)
        deleted["activities"] = await self._activities(now - int(keep.activity_days * _DAY))
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
                # Looked at again: a token may have come back to life since it was read.
                total += await self._database.change(delete(table).where(place, time < limit))
            if len(rows) < BATCH:
                return total
            after = time >= rows[-1].time
            await self._clock.sleep(PAUSE)

    async def _operations(self, limit: int) -> int:
        """Delete finished operations; those that are not are passed over."""
        table = schema.operations
        # One that failed for now, and still does after all that time, will not be sent any more.
        finished = table.c.status.in_(_FINISHED)

        async def remove(connection: AsyncConnection, ids: Sequence[int]) -> bool:
            for child in (schema.outcomes, schema.receipts, schema.intended_pages):
                if not await _thin(connection, child, child.c.operation_id, ids):
                    return False
            await connection.execute(delete(table).where(table.c.id.in_(ids), finished))
            return True

        return await self._parents(table.c.created_at, limit, finished, remove)

    async def _activities(self, limit: int) -> int:
        """Delete activities that ended long ago, with everything that belongs to them."""
        table = schema.activities

        async def remove(connection: AsyncConnection, ids: Sequence[int]) -> bool:
            operations = schema.operations
            query = select(operations.c.id).where(operations.c.activity_id.in_(ids)).limit(BATCH)
            own = (await connection.execute(query)).scalars().all()
            for child in (schema.outcomes, schema.receipts):
                if not await _thin(connection, child, child.c.operation_id, own):
                    return False
            if own:
                await connection.execute(delete(operations).where(operations.c.id.in_(own)))
            if len(own) == BATCH:
                return False
            for child in (schema.activity_devices, schema.receipts, schema.webhook_calls):
                if not await _thin(connection, child, child.c.activity_id, ids):
                    return False
            await connection.execute(delete(table).where(table.c.id.in_(ids)))
            return True

        return await self._parents(table.c.retired_at, limit, table.c.status == "ended", remove)

    async def _parents(
        self,
        time: Column[Any],
        limit: int,
        condition: ColumnElement[bool],
        remove: Callable[[AsyncConnection, Sequence[int]], Any],
    ) -> int:
        """Delete rows that own others: first what they own, a batch at a time, then themselves."""
        total = 0
        place = time.table.c.id
        after: ColumnElement[bool] = time.is_not(None)
        while True:
            page = (
                select(place, time.label("time"))
                .where(time < limit, condition, after)
                .order_by(time, place)
                .limit(PARENTS)
            )
            if not (rows := await self._database.rows(page)):
                return total
            last = rows[-1]
            # The first half says to the index where to begin.
            after = and_(time >= last.time, or_(time > last.time, place > last.id))
            ids = [row.id for row in rows]
            while True:
                async with self._database.write() as connection:
                    done = await remove(connection, ids)
                await self._clock.sleep(PAUSE)
                if done:
                    break
            total += len(rows)


async def _thin(
    connection: AsyncConnection, table: Table, owner: ColumnElement[int], ids: Sequence[int]
) -> bool:
    """Delete at most a batch of the rows that belong to ``ids``; return whether none is left."""
    if not ids:
        return True
    some = select(table.c.id).where(owner.in_(ids)).limit(BATCH)
    gone = await connection.execute(delete(table).where(table.c.id.in_(some)))
    return gone.rowcount < BATCH
