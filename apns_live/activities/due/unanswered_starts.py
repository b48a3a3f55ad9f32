"""Counts starts that no phone answered, at their start tokens, which then become suspect."""

from __future__ import annotations

import logging

from sqlalchemy import ScalarSelect, select

from ..people.suspects import SUSPECT, count_unanswered
from ..store import schema
from ..store.database import Database
from ..store.statements import hold
from .due import Done, earliest

logger = logging.getLogger("apns_live.activities")

BATCH = 1_000
_ROUND = 10_000
"""Milliseconds: a start that takes minutes is looked at now and then, not once for each page."""

_table = schema.activity_devices
_SILENT = (
    _table.c.missing_reported_at.is_not(None),
    _table.c.start_settled_at.is_(None),
    _table.c.token.is_(None),
    _table.c.retired_at.is_(None),
)


class UnansweredStarts:
    """Finds devices whose answer is overdue. ``wait`` is seconds after a start.

    They are among those that were reported for a missing token, so a start that is answered costs nothing.
    """

    def __init__(self, database: Database, wait: float) -> None:
        self._database = database
        self._wait = int(wait * 1000)
        self.suspected = 0
        """Tokens that became suspect since the start of the process."""

    def first(self) -> ScalarSelect[int]:
        """Say when the first is overdue; see `Step`."""
        began = _table.c.started_at
        return earliest(began, *_SILENT, began.is_not(None), after=self._wait)

    async def run(self, done: Done, now: int) -> int | None:
        """Count a batch; see `Step`."""
        table, operations = _table, schema.operations
        # Until a start is through, APNs may not have accepted all that was intended.
        under_way = select(operations.c.id).where(
            operations.c.activity_id == table.c.activity_id,
            operations.c.kind == "start",
            operations.c.status.in_(("running", schema.SHARDED)),
            operations.c.finished_at.is_(None),
        )
        through = under_way.limit(1).scalar_subquery().is_(None)
        due = now - self._wait
        overdue = select(table.c.id, table.c.activity_id).where(*_SILENT, table.c.started_at <= due)
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
        later = await self._database.scalar(
            select(earliest(table.c.started_at, *_SILENT, table.c.started_at > due))
        )
        return None if later is None else max(later + self._wait, now + _ROUND)
