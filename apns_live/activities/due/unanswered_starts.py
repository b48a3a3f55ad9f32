"""Starts that no phone answered in time: counted at the start tokens, which become suspect."""

from __future__ import annotations

import logging

from sqlalchemy import select

from ..people.suspects import SUSPECT, count_unanswered
from ..store import schema
from ..store.database import Database
from ..store.statements import hold
from .due import Done, earliest

logger = logging.getLogger("apns_live.activities")

BATCH = 1_000
_ROUND = 10_000
"""Milliseconds: a start that takes minutes is looked at now and then, not once for each page."""


class UnansweredStarts:
    """Finds devices whose answer is overdue. ``wait`` is seconds after a start.

    They are among those that were reported for a missing token, so a start that is answered costs nothing.
    """

    def __init__(self, database: Database, wait: float) -> None:
        self._database = database
        self._wait = int(wait * 1000)
        self.suspected = 0
        """Tokens that became suspect since the start of the process."""

    async def run(self, done: Done, now: int) -> int | None:
        """Count a batch; see `Step`."""
        table, operations = schema.activity_devices, schema.operations
        silent = (
            table.c.missing_reported_at.is_not(None),
            table.c.start_settled_at.is_(None),
            table.c.token.is_(None),
            table.c.retired_at.is_(None),
        )
        # Until a start is through, APNs may not have accepted all that was intended.
        under_way = select(operations.c.id).where(
            operations.c.activity_id == table.c.activity_id,
            operations.c.kind == "start",
            operations.c.status == "running",
            operations.c.finished_at.is_(None),
        )
        through = under_way.limit(1).scalar_subquery().is_(None)
        due = now - self._wait
        overdue = select(table.c.id, table.c.activity_id).where(*silent, table.c.started_at <= due)
        query = overdue.where(through).order_by(table.c.started_at).limit(BATCH)
        found = await self._database.rows(query)
        if found:
            async with self._database.write() as connection:
                await hold(connection, schema.activities, {row.activity_id for row in found})
                suspects = await count_unanswered(connection, [row.id for row in found], now)
            self.suspected += suspects
            if suspects:
                logger.warning(
                    "%d push-to-start tokens are suspect: %d starts in a row brought neither an "
                    "activity token nor a receipt",
                    suspects,
                    SUSPECT,
                )
        if len(found) == BATCH:
            return now
        later = await earliest(
            self._database, table.c.started_at, *silent, table.c.started_at > due
        )
        return None if later is None else max(later + self._wait, now + _ROUND)
