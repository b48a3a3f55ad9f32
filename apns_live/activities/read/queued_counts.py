"""How many devices of an operation still wait for their token.

Counted when it is asked for: the row keeps what it was when the operation was accepted, so that
nothing has to be written for each token that comes. One statement serves a whole page.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ..store import schema


async def still_queued(connection: AsyncConnection, rows: Iterable[Row[Any]]) -> dict[int, int]:
    """Return for each operation how many of its ``queued`` devices have handed in no token yet.

    A device waits for a version until it has a token; then the newest state is on its way to it.
    """
    counts: dict[int, int] = {}
    waiting: list[Row[Any]] = []
    for row in rows:
        counts[row.id] = 0
        if row.queued and row.activity_id is not None and row.version is not None:
            waiting.append(row)
    if not waiting:
        return counts
    members = schema.activity_devices
    found = await connection.execute(
        select(members.c.activity_id, members.c.acknowledged_version, func.count())
        .where(
            members.c.activity_id.in_({row.activity_id for row in waiting}),
            members.c.retired_at.is_(None),
            members.c.acknowledged_version < max(row.version for row in waiting),
            members.c.token.is_(None),
        )
        .group_by(members.c.activity_id, members.c.acknowledged_version)
    )
    behind: dict[int, list[tuple[int, int]]] = {}
    for activity, version, count in found:
        behind.setdefault(activity, []).append((version, count))
    for row in waiting:
        now = sum(
            count for version, count in behind.get(row.activity_id, ()) if version < row.version
        )
        counts[row.id] = min(row.queued, now)
    return counts
