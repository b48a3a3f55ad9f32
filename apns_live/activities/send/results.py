"""Batches of results of pushes, as rows for the database.

Each kind of result is one statement for the whole batch (see store/statements). All are in one transaction,
so outcomes, counters and acknowledged versions always agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...outcome import Outcome, Verdict
from ..observed import Finished
from ..store import reached, schema
from ..store.shards import RELEASED
from ..store.statements import hold, numbers_with_rows, run, with_rows


@dataclass(slots=True)
class Batch:
    """Results that are written together; until then of one partition or shard."""

    outcomes: list[tuple[Any, ...]] = field(default_factory=list)
    """app, operation, device, verdict, status, reason, apns-id, priority"""
    reached: dict[tuple[int, int, str, int], list[int]] = field(default_factory=dict)
    """devices with an accepted push, by app, operation, prefix of the apns-id, and priority"""
    counts: dict[int, list[int]] = field(default_factory=dict)
    """operation: accepted, failed"""
    acknowledged: list[tuple[int, int, str, int]] = field(default_factory=list)
    """activity, device, token, version"""
    unstarted: list[tuple[int, int]] = field(default_factory=list)
    """activity and device of starts that certainly were not sent"""
    doubtful: list[tuple[int, int]] = field(default_factory=list)
    """activity and device of starts that may have been sent and that APNs did not accept"""
    not_handed_over: list[tuple[int, int]] = field(default_factory=list)
    """activity and device of second cards whose start certainly was not sent"""
    refused_starts: list[tuple[int, str, int, str]] = field(default_factory=list)
    refused_devices: list[tuple[int, str, int, str]] = field(default_factory=list)
    refused: list[tuple[int, str, int, str]] = field(default_factory=list)
    """app, token, milliseconds up to which a registration is dead, reason"""
    stamps: list[tuple[int, int, str | None]] = field(default_factory=list)
    """activity, newest timestamp in seconds, budget accounts as JSON or None if unchanged"""
    finished: list[tuple[int, int, str | None]] = field(default_factory=list)
    """activity, version that all devices have, why it failed"""
    started: list[tuple[int, str, str | None, bool, int | None]] = field(default_factory=list)
    """operation of a start, its status, why it failed, whether permanently, users reached"""
    sent: list[tuple[int]] = field(default_factory=list)
    """shards with all results"""
    released: list[tuple[int]] = field(default_factory=list)
    """shards that other workers may continue"""
    ended: list[tuple[int, int]] = field(default_factory=list)
    """activity that ended, and the version of its end"""
    activities: set[int] = field(default_factory=set)
    """Activities with changed devices: their rows are locked first."""

    def __len__(self) -> int:
        return len(self.outcomes) + sum(map(len, self.reached.values()))

    def __bool__(self) -> bool:
        return bool(
            len(self)
            or self.acknowledged
            or self.finished
            or self.started
            or self.ended
            or self.sent
            or self.released
        )

    @classmethod
    def of(cls, parts: Iterable[Batch]) -> Batch:
        """Return several batches as one."""
        whole = cls()
        for part in parts:
            for name in _NOTES:
                getattr(whole, name).extend(getattr(part, name))
            for key, devices in part.reached.items():
                whole.reached.setdefault(key, []).extend(devices)
            for operation, (accepted, failed) in part.counts.items():
                counts = whole.counts.setdefault(operation, [0, 0])
                counts[0] += accepted
                counts[1] += failed
            whole.activities |= part.activities
        return whole

    def halves(self) -> tuple[Batch, Batch] | None:
        """Return two batches, to be written in this order; None for a single row.

        The rows that finish an operation come last, so they are never stored before its results.
        """
        rows: list[tuple[str, Any]] = [
            ("", (key, device)) for key, devices in self.reached.items() for device in devices
        ]
        rows += [(name, row) for name in _NOTES for row in getattr(self, name)]
        if len(rows) < 2:
            return None
        parts = Batch(activities=self.activities), Batch(activities=self.activities)
        for index, (name, row) in enumerate(rows):
            part = parts[2 * index >= len(rows)]
            if not name:
                part.reached.setdefault(row[0], []).append(row[1])
                part.counts.setdefault(row[0][1], [0, 0])[0] += 1
                continue
            getattr(part, name).append(row)
            if name == "outcomes":
                part.counts.setdefault(row[1], [0, 0])[row[3] != "accepted"] += 1
        return parts

    def each(self, fewer_than: float = float("inf")) -> Iterator[tuple[Any, ...]]:
        """Yield a row per outcome; accepted groups only if smaller than ``fewer_than``."""
        yield from self.outcomes
        for (app, operation, ids, priority), devices in self.reached.items():
            if len(devices) < fewer_than:
                for device in devices:
                    apns_id = f"{ids}{device:012x}"
                    yield app, operation, device, "accepted", 200, "", apns_id, priority

    def add(self, app: int, operation: int, device: int, outcome: Outcome) -> None:
        """Add an outcome."""
        accepted = outcome.verdict is Verdict.ACCEPTED
        if (counts := self.counts.get(operation)) is None:
            counts = self.counts[operation] = [0, 0]
        counts[not accepted] += 1
        self.outcomes.append(
            (
                app,
                operation,
                device,
                outcome.verdict.value,
                outcome.status,
                outcome.reason[:64],
                outcome.apns_id,
                outcome.priority,
            )
        )


def refusal(app: int, outcome: Outcome, now: int) -> tuple[int, str, int, str]:
    """Return how a refused token is retired; ``now`` is milliseconds.

    A 410 says since when the token is dead. Another refusal concerns the token at the time of the
    push; a later registration lives.
    """
    moment = outcome.timestamp
    since = now - int(outcome.elapsed * 1000)
    before = since if moment is None else int(moment.timestamp() * 1000)
    return app, outcome.token.lower(), before, (outcome.reason or "refused")[:64]


_COUNTS = """
UPDATE operations SET accepted = operations.accepted + given.accepted,
    failed = operations.failed + given.failed
FROM {operation, accepted, failed} WHERE operations.id = given.operation
"""

_REFUSED = """
UPDATE TABLE SET retired_at = given.before, retired_reason = given.reason
FROM {app, token TEXT, before, reason TEXT}
WHERE TABLE.app_id = given.app AND TABLE.token = given.token
    AND TABLE.retired_at IS NULL AND TABLE.registered_at <= given.before
"""

# Of two cards it was the first one's: the second card was started and has no token yet.
_REFUSED_CARD = """
UPDATE activity_devices SET
    retired_at = CASE WHEN activity_devices.handed_over_at IS NULL THEN given.before END,
    retired_reason = CASE WHEN activity_devices.handed_over_at IS NULL THEN given.reason END,
    token = CASE WHEN activity_devices.handed_over_at IS NULL THEN activity_devices.token END,
    started_at = COALESCE(activity_devices.handed_over_at, activity_devices.started_at),
    acknowledged_version = CASE WHEN activity_devices.handed_over_at IS NULL
        THEN activity_devices.acknowledged_version ELSE activity_devices.handed_over_version END,
    handed_over_at = NULL
FROM {app, token TEXT, before, reason TEXT}
WHERE activity_devices.app_id = given.app AND activity_devices.token = given.token
    AND activity_devices.retired_at IS NULL AND activity_devices.registered_at <= given.before
"""

_KEPT = """
SELECT DISTINCT known.activity_id FROM {app, token TEXT} JOIN activity_devices AS known
    ON known.app_id = given.app AND known.token = given.token
WHERE known.retired_at IS NULL
"""

_CLOSED = """
RETURNING operations.id, operations.public_id, operations.kind, operations.status,
    operations.created_at, operations.accepted, operations.failed, operations.finished_at
"""

_NOTES: Mapping[str, str] = {
    "stamps": """
UPDATE activities SET budgets = COALESCE(given.budgets, activities.budgets),
    last_timestamp = CASE WHEN activities.last_timestamp > given.stamp
        THEN activities.last_timestamp ELSE given.stamp END
FROM {activity, stamp, budgets TEXT}
WHERE activities.id = given.activity
    AND (activities.last_timestamp IS NULL OR activities.last_timestamp < given.stamp
        OR given.budgets <> COALESCE(activities.budgets, ''))
""",
    "outcomes": """
INSERT INTO outcomes
    (app_id, operation_id, device_id, verdict, status, reason, apns_id, priority, created_at)
SELECT given.app, given.operation, given.device, given.verdict, given.status, given.reason,
    given.apns_id, given.priority, :now
FROM {app, operation, device, verdict TEXT, status, reason TEXT, apns_id TEXT, priority}
    JOIN operations ON operations.id = given.operation
""",
    "acknowledged": """
UPDATE activity_devices SET acknowledged_version = given.version, sent_version = given.version
FROM {activity, device, token TEXT, version}
WHERE activity_devices.activity_id = given.activity AND activity_devices.device_id = given.device
    AND activity_devices.token = given.token
    AND activity_devices.acknowledged_version < given.version
""",
    "unstarted": """
DELETE FROM activity_devices WHERE token IS NULL AND handed_over_at IS NULL
    AND (activity_id, device_id) IN (SELECT given.activity, given.device FROM {activity, device})
""",
    "doubtful": """
UPDATE activity_devices SET start_settled_at = :now FROM {activity, device}
WHERE activity_devices.activity_id = given.activity AND activity_devices.device_id = given.device
""",
    "not_handed_over": """
UPDATE activity_devices SET handed_over_at = NULL FROM {activity, device}
WHERE activity_devices.activity_id = given.activity AND activity_devices.device_id = given.device
""",
    "refused_starts": _REFUSED.replace("TABLE", "start_tokens"),
    "refused_devices": _REFUSED.replace("TABLE", "device_tokens"),
    "refused": _REFUSED_CARD,
    "finished": """
UPDATE operations SET finished_at = :now, reason = given.reason,
    status = CASE WHEN given.reason IS NOT NULL THEN 'failed'
        WHEN operations.version < given.version AND operations.accepted + operations.failed = 0
        THEN 'superseded' ELSE 'done' END
FROM {activity, version, reason TEXT}
WHERE operations.activity_id = given.activity AND operations.version <= given.version
    AND operations.kind IN ('update', 'end')
    -- Found by their activity, not among all that are open.
    AND operations.status || '' IN ('accepted', 'running', 'failed')
    AND operations.finished_at IS NULL
"""
    + _CLOSED,
    "started": """
UPDATE operations SET status = given.status, reason = given.reason,
    users = COALESCE(given.persons, operations.users),
    finished_at = CASE WHEN given.final IN ('1', 'true') THEN CAST(:now AS BIGINT) ELSE NULL END
FROM {operation, status TEXT, reason TEXT, final TEXT, persons}
WHERE operations.id = given.operation
"""
    + _CLOSED,
    "ended": """
UPDATE activity_devices SET retired_at = :now, retired_reason = 'ended'
FROM {activity, version}
WHERE activity_devices.activity_id = given.activity AND activity_devices.retired_at IS NULL
    AND activity_devices.acknowledged_version >= given.version
    AND activity_devices.token IS NOT NULL
""",
    "sent": "DELETE FROM shards WHERE id IN (SELECT given.shard FROM {shard})",
    "released": f"""
UPDATE shards SET owner = '{RELEASED}', expires_at = 0 FROM {{shard}} WHERE shards.id = given.shard
""",  # noqa: S608
}
"""How each part of a batch is written, in an order in which they may be written one by one."""


@dataclass(frozen=True, slots=True)
class Written:
    """Further effects of writing a batch."""

    operations: tuple[int, ...] = ()
    """Operations that it finished."""
    finished: tuple[Finished, ...] = ()
    kept: tuple[int, ...] = ()
    """Activities whose refused token lives on, because it was registered after the refusal."""


async def write(connection: AsyncConnection, batch: Batch, *, now: int) -> Written:
    """Write a batch in the caller's transaction; ``now`` is milliseconds since 1970."""
    lists = (batch.stamps, batch.unstarted, batch.doubtful, batch.not_handed_over, batch.ended)
    noted = {row[0] for rows in lists for row in rows}
    await hold(connection, schema.activities, batch.activities | noted)
    started = {row[0] for row in batch.started}
    if started or len(batch.counts) > 1:  # an operation with counts is locked by their statement
        await hold(connection, schema.operations, batch.counts.keys() | started)
    finished: list[Finished] = []
    for name, statement in _NOTES.items():
        rows: Sequence[Sequence[object]] = getattr(batch, name)
        if name == "outcomes":
            rows = list(batch.each(fewer_than=reached.LEAST))
            for (_, operation, ids, priority), devices in batch.reached.items():
                if len(devices) >= reached.LEAST:
                    await reached.store(connection, operation, ids, priority, devices, now)
        if name == "acknowledged":
            # A device may have acknowledged two versions; a statement may touch a row only once.
            rows = list({row[:3]: row for row in batch.acknowledged}.values())
        if rows:
            named = {"now": now} if ":now" in statement else {}
            result = await with_rows(connection, statement, rows, **named)
            if statement.endswith(_CLOSED):
                finished += [_finished(row) for row in result if row.finished_at is not None]
        if name == "outcomes" and batch.counts:
            counts = [(operation, *counted) for operation, counted in batch.counts.items()]
            await with_rows(connection, _COUNTS, counts)
    kept: tuple[int, ...] = ()
    if batch.refused:
        kept = tuple((await with_rows(connection, _KEPT, batch.refused)).scalars())
    return Written(tuple(started | {one.row for one in finished}), tuple(finished), kept)


def _finished(row: Row[Any]) -> Finished:
    counts = (row.accepted, row.failed)
    return Finished(row.id, row.public_id, row.kind, row.status, row.created_at, *counts)


_KNOWN = """
SELECT known.device_id FROM {*device} JOIN activity_devices AS known
    ON known.activity_id = :activity AND known.device_id = given.device
"""

_INTEND = """
INSERT INTO activity_devices
    (app_id, activity_id, device_id, environment, started_at, sent_version, acknowledged_version,
    by_channel)
SELECT activities.app_id, activities.id, given.device, activities.environment, :now,
    activities.version - :missing, activities.version - :missing, :by_channel = 1
FROM {*device} JOIN activities ON activities.id = :activity WHERE activities.status = :status
ON CONFLICT (activity_id, device_id) DO NOTHING RETURNING device_id
"""


async def unstarted(connection: AsyncConnection, activity: int, devices: Sequence[int]) -> set[int]:
    """Return the devices that do not belong to an activity."""
    known = await numbers_with_rows(connection, _KNOWN, devices, activity=activity)
    return set(devices).difference(known)


async def intend(
    connection: AsyncConnection,
    activity: int,
    devices: Collection[int],
    *,
    now: int,
    ended: bool = False,
    following: Collection[int] = (),
) -> set[int]:
    """Store that a start is about to be sent to devices; return those not stored before.

    None is stored unless the activity is active, or has ``ended`` if that is True: then the end is
    still to follow. From here on a device counts as started. Devices in ``following`` are on the
    activity's channel. Of two processes only one stores a device. ``now`` is milliseconds since 1970.
    """
    fresh: set[int] = set()
    on_it = set(devices).intersection(following)
    for some in (set(devices) - on_it, on_it):
        if some:
            stored = await numbers_with_rows(
                connection,
                _INTEND,
                sorted(some),
                activity=activity,
                status="ended" if ended else "active",
                missing=ended,
                now=now,
                by_channel=some is on_it,
            )
            fresh.update(stored)
    return fresh


_SETTLED = """
SELECT given.device FROM {*device} JOIN outcomes
    ON outcomes.operation_id = :operation AND outcomes.device_id = given.device
"""


async def unsettled(
    connection: AsyncConnection, operation: int, devices: Sequence[int]
) -> list[int]:
    """Return the devices that have no outcome in an operation."""
    settled = set(await numbers_with_rows(connection, _SETTLED, devices, operation=operation))
    of_operation = schema.outcomes.c.operation_id == operation
    settled |= await reached.sharing(connection, devices, of_operation)
    return [device for device in devices if device not in settled]


_LEFT_OPEN = """
SELECT known.device_id FROM activity_devices AS known
WHERE known.activity_id = :activity
    AND COALESCE(known.handed_over_at, known.started_at) >= :since
-- Not NOT IN, which PostgreSQL runs once a row where the list is long.
EXCEPT
SELECT outcomes.device_id FROM outcomes JOIN operations ON operations.id = outcomes.operation_id
-- An earlier start of the same activity may have settled it.
WHERE operations.activity_id = :activity AND operations.kind = 'start'
    AND outcomes.created_at >= :since
"""


async def left_open(connection: AsyncConnection, activity: int, since: int) -> list[int]:
    """Return the devices whose start an earlier release intended, and that have no outcome."""
    open_ = (await run(connection, _LEFT_OPEN, activity=activity, since=since)).scalars().all()
    outcomes, operations = schema.outcomes.c, schema.operations.c
    starts = select(operations.id).where(
        operations.activity_id == activity, operations.kind == "start"
    )
    later = outcomes.operation_id.in_(starts), outcomes.created_at >= since
    settled = await reached.sharing(connection, open_, *later)
    return [device for device in open_ if device not in settled]
