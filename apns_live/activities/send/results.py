"""What came back from APNs, as the store takes it: a batch of rows for each thing to note.

Each note is one statement for the whole batch (see store/bulk). All of them go in one transaction,
so that an outcome, the counter it adds to and the version it acknowledges are never apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...outcome import Outcome, Verdict
from ..observed import Finished
from ..store import schema
from ..store.bulk import run, with_rows

_IN_ORDER = (
    "outcomes",
    "acknowledged",
    "unstarted",
    "refused_starts",
    "refused_devices",
    "refused",
    "stamps",
    "rewound",
    "finished",
    "started",
    "ended",
)
"""What a batch holds, in the order in which its parts may be written one by one."""


@dataclass(slots=True)
class Batch:
    """Results that wait to be written together, of one partition until then."""

    outcomes: list[tuple[Any, ...]] = field(default_factory=list)
    """app, operation, device, verdict, status, reason, apns-id, priority"""
    counts: dict[int, list[int]] = field(default_factory=dict)
    """operation: accepted, failed"""
    acknowledged: list[tuple[int, int, str, int]] = field(default_factory=list)
    """activity, device, token, version"""
    unstarted: list[tuple[int, int]] = field(default_factory=list)
    """activity and device of starts that certainly did not happen"""
    refused_starts: list[tuple[int, str, int, str]] = field(default_factory=list)
    refused_devices: list[tuple[int, str, int, str]] = field(default_factory=list)
    refused: list[tuple[int, str, int, str]] = field(default_factory=list)
    """app, token, milliseconds up to which a registration is over, reason"""
    stamps: list[tuple[int, int]] = field(default_factory=list)
    """activity, newest timestamp in seconds"""
    finished: list[tuple[int, int, str | None]] = field(default_factory=list)
    """activity, version that everybody has, why it failed"""
    started: list[tuple[int, str, str | None, bool, int | None]] = field(default_factory=list)
    """operation of a start, its status, why it failed, whether that is final, persons reached"""
    rewound: list[tuple[int, int, int]] = field(default_factory=list)
    """operation of a start that stopped half-way, the row to read on behind, devices taken back"""
    ended: list[tuple[int, int]] = field(default_factory=list)
    """activity that ended, and the version of the end"""

    def __len__(self) -> int:
        return len(self.outcomes)

    def __bool__(self) -> bool:
        return bool(
            self.outcomes
            or self.acknowledged
            or self.finished
            or self.started
            or self.rewound
            or self.ended
        )

    @classmethod
    def of(cls, parts: Iterable[Batch]) -> Batch:
        """Return one batch of several."""
        whole = cls()
        for part in parts:
            for name in _IN_ORDER:
                getattr(whole, name).extend(getattr(part, name))
            whole.counts |= part.counts
        return whole

    def halves(self) -> tuple[Batch, Batch] | None:
        """Return two batches, to be written in this order; None for one row that cannot be cut.

        What finishes an operation comes last, so it is never there before its results.
        """
        rows = [(name, row) for name in _IN_ORDER for row in getattr(self, name)]
        if len(rows) < 2:
            return None
        parts = Batch(), Batch()
        for index, (name, row) in enumerate(rows):
            part = parts[2 * index >= len(rows)]
            getattr(part, name).append(row)
            if name == "outcomes":
                part.counts.setdefault(row[1], [0, 0])[row[3] != "accepted"] += 1
        return parts

    def add(self, app: int, operation: int, device: int, outcome: Outcome) -> None:
        """Note one outcome."""
        accepted = outcome.verdict is Verdict.ACCEPTED
        counts = self.counts.get(operation)
        if counts is None:
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

    A 410 says since when the token is dead. Another refusal is about the token as it was when the
    push was made: one registered since then lives.
    """
    moment = outcome.timestamp
    since = now - int(outcome.elapsed * 1000)
    before = since if moment is None else int(moment.timestamp() * 1000)
    return app, outcome.token.lower(), before, (outcome.reason or "refused")[:64]


_OUTCOMES = """
INSERT INTO outcomes
    (app_id, operation_id, device_id, verdict, status, reason, apns_id, priority, created_at)
SELECT given.app, given.operation, given.device, given.verdict, given.status, given.reason,
    given.apns_id, given.priority, :now
FROM {given} JOIN operations ON operations.id = given.operation
"""

_COUNTS = """
UPDATE operations SET accepted = operations.accepted + given.accepted,
    failed = operations.failed + given.failed
FROM {given} WHERE operations.id = given.operation
"""

_ACKNOWLEDGED = """
UPDATE activity_devices SET acknowledged_version = given.version, sent_version = given.version
FROM {given}
WHERE activity_devices.activity_id = given.activity AND activity_devices.device_id = given.device
    AND activity_devices.token = given.token
    AND activity_devices.acknowledged_version < given.version
"""

_UNSTARTED = """
DELETE FROM activity_devices WHERE token IS NULL AND id IN (
    SELECT known.id FROM {given} JOIN activity_devices AS known
        ON known.activity_id = given.activity AND known.device_id = given.device)
"""

_REFUSED = """
UPDATE {table} SET retired_at = given.before, retired_reason = given.reason
FROM {given}
WHERE {table}.app_id = given.app AND {table}.token = given.token
    AND {table}.retired_at IS NULL AND {table}.registered_at <= given.before
"""

_KEPT = """
SELECT DISTINCT known.activity_id FROM {given} JOIN activity_devices AS known
    ON known.app_id = given.app AND known.token = given.token
WHERE known.retired_at IS NULL
"""

_HOLD_ACTIVITIES, _HOLD_OPERATIONS = (
    select(table.c.id)
    .where(table.c.id.in_(bindparam("rows", expanding=True)))
    .order_by(table.c.id)
    .with_for_update(key_share=True)
    for table in (schema.activities, schema.operations)
)

_STAMPS = """
UPDATE activities SET last_timestamp = given.stamp FROM {given}
WHERE activities.id = given.activity
    AND (activities.last_timestamp IS NULL OR activities.last_timestamp < given.stamp)
"""

_FINISHED = """
UPDATE operations SET finished_at = :now, reason = given.reason,
    status = CASE WHEN given.reason IS NOT NULL THEN 'failed'
        WHEN operations.version < given.version AND operations.accepted + operations.failed = 0
        THEN 'superseded' ELSE 'done' END
FROM {given}
WHERE operations.activity_id = given.activity AND operations.version <= given.version
    AND operations.kind IN ('update', 'end')
    -- Found by their activity, not among all that are open.
    AND operations.status || '' IN ('accepted', 'running', 'failed')
    AND operations.finished_at IS NULL
RETURNING operations.id, operations.public_id, operations.kind, operations.status,
    operations.created_at, operations.accepted, operations.failed, operations.finished_at
"""

_STARTED = """
UPDATE operations SET status = given.status, reason = given.reason,
    users = COALESCE(given.persons, operations.users),
    finished_at = CASE WHEN given.final = 1 THEN CAST(:now AS BIGINT) ELSE NULL END
FROM {given} WHERE operations.id = given.operation
RETURNING operations.id, operations.public_id, operations.kind, operations.status,
    operations.created_at, operations.accepted, operations.failed, operations.finished_at
"""

_REWOUND = """
UPDATE operations SET targeted = targeted - given.devices,
    cursor = CASE WHEN cursor < given.position THEN cursor ELSE given.position END
FROM {given} WHERE operations.id = given.operation
"""

_ENDED = """
UPDATE activity_devices SET retired_at = :now, retired_reason = 'ended'
FROM {given}
WHERE activity_devices.activity_id = given.activity AND activity_devices.retired_at IS NULL
    AND activity_devices.acknowledged_version >= given.version
    AND activity_devices.token IS NOT NULL
"""

_REFUSED_COLUMNS = {"app": "BIGINT", "token": "TEXT", "before": "BIGINT", "reason": "TEXT"}


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch changed beyond itself."""

    operations: tuple[int, ...] = ()
    """Operations that are finished by it."""
    finished: tuple[Finished, ...] = ()
    kept: tuple[int, ...] = ()
    """Activities with a token that was refused and lives on: it was registered after the refusal."""


async def write(connection: AsyncConnection, batch: Batch, *, now: int) -> Written:
    """Write a batch in the caller's transaction; ``now`` is milliseconds since 1970."""
    # Activities before operations before devices, and each in the order of their rows, as everybody
    # locks them: otherwise two transactions wait for each other on PostgreSQL.
    if connection.dialect.name == "postgresql":
        operations = {*batch.counts}
        operations.update(row[0] for row in batch.started)
        operations.update(row[0] for row in batch.rewound)
        for hold, held in (
            (_HOLD_ACTIVITIES, {row for row, _ in batch.stamps}),
            (_HOLD_OPERATIONS, operations),
        ):
            if held:
                await connection.execute(hold, {"rows": sorted(held)})
    if batch.stamps:
        await with_rows(
            connection, _STAMPS, {"activity": "BIGINT", "stamp": "BIGINT"}, batch.stamps
        )
    if batch.outcomes:
        columns = {
            "app": "BIGINT",
            "operation": "BIGINT",
            "device": "BIGINT",
            "verdict": "TEXT",
            "status": "BIGINT",
            "reason": "TEXT",
            "apns_id": "TEXT",
            "priority": "BIGINT",
        }
        await with_rows(connection, _OUTCOMES, columns, batch.outcomes, now=now)
        columns = {"operation": "BIGINT", "accepted": "BIGINT", "failed": "BIGINT"}
        counts = [(operation, *counted) for operation, counted in batch.counts.items()]
        await with_rows(connection, _COUNTS, columns, counts)
    if batch.acknowledged:
        columns = {"activity": "BIGINT", "device": "BIGINT", "token": "TEXT", "version": "BIGINT"}
        # A device may have acknowledged two versions since; a statement touches a row once.
        newest = {(row[0], row[1], row[2]): row for row in batch.acknowledged}
        await with_rows(connection, _ACKNOWLEDGED, columns, list(newest.values()))
    if batch.unstarted:
        columns = {"activity": "BIGINT", "device": "BIGINT"}
        await with_rows(connection, _UNSTARTED, columns, batch.unstarted)
    kept: tuple[int, ...] = ()
    for table, refused in (
        ("start_tokens", batch.refused_starts),
        ("device_tokens", batch.refused_devices),
        ("activity_devices", batch.refused),
    ):
        if refused:
            statement = _REFUSED.replace("{table}", table)
            await with_rows(connection, statement, _REFUSED_COLUMNS, refused)
    if batch.refused:
        rows = await with_rows(connection, _KEPT, _REFUSED_COLUMNS, batch.refused)
        kept = tuple(rows.scalars())
    finished = await _close(connection, batch, now)
    operations = {row[0] for row in batch.started} | {one.row for one in finished}
    return Written(tuple(operations), tuple(finished), kept)


async def _close(connection: AsyncConnection, batch: Batch, now: int) -> list[Finished]:
    """Close what is finished, and return it."""
    finished: list[Finished] = []
    if batch.finished:
        columns = {"activity": "BIGINT", "version": "BIGINT", "reason": "TEXT"}
        closed = await with_rows(connection, _FINISHED, columns, batch.finished, now=now)
        finished += _finished(closed)
    if batch.started:
        columns = {
            "operation": "BIGINT",
            "status": "TEXT",
            "reason": "TEXT",
            "final": "BIGINT",
            "persons": "BIGINT",
        }
        started = [(*row[:3], int(row[3]), row[4]) for row in batch.started]
        rows = await with_rows(connection, _STARTED, columns, started, now=now)
        finished += _finished(rows)
    if batch.rewound:
        columns = {"operation": "BIGINT", "position": "BIGINT", "devices": "BIGINT"}
        await with_rows(connection, _REWOUND, columns, batch.rewound)
    if batch.ended:
        columns = {"activity": "BIGINT", "version": "BIGINT"}
        await with_rows(connection, _ENDED, columns, batch.ended, now=now)
    return finished


def _finished(rows: Iterable[Row[Any]]) -> list[Finished]:
    return [
        Finished(
            row.id, row.public_id, row.kind, row.status, row.created_at, row.accepted, row.failed
        )
        for row in rows
        if row.finished_at is not None
    ]


_KNOWN = """
SELECT known.device_id FROM {given} JOIN activity_devices AS known
    ON known.activity_id = given.activity AND known.device_id = given.device
"""

_INTEND = """
INSERT INTO activity_devices
    (app_id, activity_id, device_id, environment, started_at, sent_version, acknowledged_version)
SELECT :app, given.activity, given.device, :environment, :now, :version, :version
FROM {given} WHERE true
ON CONFLICT (activity_id, device_id) DO NOTHING
"""

_ADVANCE = """
UPDATE operations SET cursor = given.position, targeted = targeted + given.fresh, status = 'running'
FROM {given} WHERE operations.id = given.operation
"""


async def intend(
    connection: AsyncConnection,
    *,
    app: int,
    activity: int,
    operation: int,
    environment: str,
    version: int,
    devices: Sequence[int],
    cursor: int,
    now: int,
) -> set[int]:
    """Note that a start is about to leave to devices; return those that it was not noted for yet.

    From here on a device counts as started: what a crash leaves without an outcome is UNKNOWN. The
    caller holds the activity's row, so nobody else notes a start of it.
    """
    columns = {"activity": "BIGINT", "device": "BIGINT"}
    rows = [(activity, device) for device in devices]
    known = set((await with_rows(connection, _KNOWN, columns, rows)).scalars())
    fresh = [device for device in dict.fromkeys(devices) if device not in known]
    if fresh:
        await with_rows(
            connection,
            _INTEND,
            columns,
            [(activity, device) for device in fresh],
            app=app,
            environment=environment,
            version=version,
            now=now,
        )
    columns = {"operation": "BIGINT", "position": "BIGINT", "fresh": "BIGINT"}
    await with_rows(connection, _ADVANCE, columns, [(operation, cursor, len(fresh))])
    return set(fresh)


_UNKNOWN = """
INSERT INTO outcomes
    (app_id, operation_id, device_id, verdict, status, reason, apns_id, priority, created_at)
SELECT :app, :operation, left_over.device_id, 'unknown', 0, 'restart', '', 10, :now
FROM (
    SELECT known.device_id FROM activity_devices AS known
    WHERE known.activity_id = :activity AND known.started_at IS NOT NULL
    -- Not NOT IN, which PostgreSQL runs once a row where the list is long.
    EXCEPT
    SELECT outcomes.device_id FROM outcomes JOIN operations ON operations.id = outcomes.operation_id
    -- An earlier start of the same activity may have settled it.
    WHERE operations.activity_id = :activity AND operations.kind = 'start'
) AS left_over
"""


async def report_unknown(
    connection: AsyncConnection, *, app: int, activity: int, operation: int, now: int
) -> int:
    """After a crash: give every device whose start was intended and never settled its UNKNOWN."""
    result = await run(
        connection, _UNKNOWN, app=app, operation=operation, activity=activity, now=now
    )
    unknown = max(result.rowcount, 0)
    if unknown:
        columns = {"operation": "BIGINT", "accepted": "BIGINT", "failed": "BIGINT"}
        await with_rows(connection, _COUNTS, columns, [(operation, 0, unknown)])
    return unknown
