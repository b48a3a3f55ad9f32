"""Typed dictionaries of activities and operations, ready to be encoded as JSON.

Times are milliseconds since 1970. ``row`` is where the next page begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict, TypeVar

from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ..store import schema
from ..store.statements import view_of

View = TypeVar("View")


class OperationCounts(TypedDict):
    """How far an operation is, without its surroundings."""

    operation: str
    kind: str
    version: int | None
    status: str
    reason: str | None
    targeted: int
    accepted: int
    queued: int
    failed: int
    missing: int
    created_at: int
    finished_at: int | None


class OperationState(OperationCounts):
    """An operation as a watcher sees it."""

    activity: str | None


class OperationView(TypedDict):
    """One accepted request, and the counts of what became of it.

    ``status``: scheduled, accepted, running, done, superseded or failed (see ``reason``).
    ``queued`` devices get the state when they hand in a token; ``missing`` handed in none in time.
    """

    row: int
    id: str
    kind: str
    activity: str | None
    version: int | None
    status: str
    reason: str | None
    caller: str
    dialect: str
    targeted: int
    accepted: int
    queued: int
    failed: int
    missing: int
    users: int
    created_at: int
    finished_at: int | None


class OutcomeView(TypedDict):
    """What APNs said to the push to one device; None for a device that was forgotten since.

    ``accepted`` is not ``shown``: APNs cannot know.
    """

    row: int
    device: str | None
    verdict: str
    status: int
    reason: str
    apns_id: str
    priority: int
    created_at: int


class ActivityView(TypedDict):
    """An activity as it is wished to be.

    ``hand_over_at``: when it is next seen whether cards are so old that new ones take their place.
    """

    id: str
    attributes_type: str
    attributes: dict[str, Any]
    content_state: dict[str, Any]
    status: str
    version: int
    revision: int | None
    stream_key: str | None
    channel: str | None
    environment: str
    tags: list[str]
    metadata: dict[str, str | int | float | bool]
    start_at: int | None
    started_at: int | None
    end_at: int | None
    ended_at: int | None
    end_reason: str | None
    hand_over_at: int | None
    created_at: int
    updated_at: int


class ActivityRow(ActivityView):
    """An activity in a page."""

    row: int


class ActivityCounts(ActivityView):
    """An activity with its devices: reached, without a token yet, and without one for too long.

    Of those reached ``by_channel`` follow the channel; the others have a token.
    """

    devices: int
    queued: int
    missing: int
    by_channel: int


class ActivityState(TypedDict):
    """An activity as a watcher sees it, with its newest operation."""

    activity: str
    status: str
    version: int
    content_state: dict[str, Any]
    updated_at: int
    ended_at: int | None
    end_reason: str | None
    operation: OperationCounts | None


def operation_counts(row: Row[Any], queued: int) -> OperationCounts:
    """Return an operation's counts; ``queued`` is how many still wait for their token."""
    return view_of(OperationCounts, row, operation=row.public_id, queued=queued)


def operation_view(row: Row[Any], queued: int) -> OperationView:
    """Return an operation in full; ``queued`` is how many still wait for their token."""
    return view_of(OperationView, row, queued=queued)


def activity_view(kind: type[View], source: Row[Any], /, **given: Any) -> View:
    """Return one of the views of an activity."""
    return view_of(kind, source, channel=source.channel_id, **given)


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
            ~members.c.by_channel,
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


def with_activity() -> Select[Any]:
    """Return the query for operations, each with its activity's id as ``activity``."""
    operations, activities = schema.operations, schema.activities
    return select(operations, activities.c.public_id.label("activity")).outerjoin(
        activities, activities.c.id == operations.c.activity_id
    )
