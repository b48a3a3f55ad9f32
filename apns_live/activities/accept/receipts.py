"""Receipts: the app's reports that an activity or notification arrived, was tapped or is gone.

APNs answers 200 also for pushes that no phone shows, so only receipts tell what the phone did. One
receipt is stored for each device, subject and event, with the newest time.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypedDict, get_args

import msgspec
from sqlalchemy import Select, case, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import InvalidInput
from .. import checks
from ..apps import App
from ..core import Part
from ..finding import find_id, row_ids
from ..people.suspects import note_answers
from ..store import schema
from ..store.statements import chunks, insert_into, rows_of, view_of
from ..times import ACTIVE_MILLISECONDS

Event = Literal["received", "clicked", "dismissed", "ended", "confirmed"]
EVENTS: tuple[str, ...] = get_args(Event)
GONE = frozenset({"dismissed", "ended"})
"""After these no card is left on the device, so its activity token is retired."""

REPLACED = 300_000
"""Milliseconds after a hand-over in which a reported card is taken for the first one."""
LATE = 900_000
"""Milliseconds after 8 hours from a start until iOS has ended its card: APNs may have kept the start."""
MAX_RECORDS = 1_000
PAGE = 100


class ReceiptRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device's report about an activity, or about an operation (a notification).

    ``at`` is when it happened, milliseconds since 1970 by the phone's clock; None for now. ``card`` is the
    card's own id, as `TokenRecord` has it: of two cards of one activity, one may be gone.
    """

    device: str
    event: Event
    activity: str | None = None
    operation: str | None = None
    at: int | None = None
    card: str | None = None


class ReceiptView(TypedDict):
    """What an app reported: ``happened_at`` by the phone's clock, ``created_at`` when it was first stored."""

    row: int
    device: str
    event: str
    activity: str | None
    operation: str | None
    happened_at: int
    created_at: int


class Receipts(Part):
    """Stores and reads receipts."""

    async def record(self, app: App, records: Iterable[ReceiptRecord]) -> int:
        """Store receipts; return how many were given. A repeated one only updates the newest time.

        A ``dismissed`` or ``ended`` activity gets no more pushes on that device. Raises
        `InvalidInput`, and stores nothing, if one of them is wrong or names an unknown device,
        activity or operation.
        """
        now = self.now
        checked = [_checked(one, f"receipts[{index}]", now) for index, one in enumerate(records)]
        checks.at_most(len(checked), MAX_RECORDS, "records", "receipts", more=" at once")
        gone: list[tuple[int, str]] = []
        table = schema.receipts
        async with self.database.write() as connection:
            rows = await self._rows(connection, app, checked, now)
            cards = [
                (row, record.card)
                for row, record in zip(rows, checked, strict=True)
                if row["event"] in GONE and row["activity_id"]
            ]
            kept: dict[tuple[Any, ...], dict[str, Any]] = {}
            for row in sorted(rows, key=lambda row: row["happened_at"]):
                # Of several reports of one event only the newest is kept: a statement may touch a
                # row only once.
                kept[(*_order(row), row["event"])] = row
            statement = insert_into(connection, table)
            statement = statement.on_conflict_do_update(
                index_elements=["device_id", "activity_id", "operation_id", "event"],
                set_={"happened_at": statement.excluded.happened_at},
                where=statement.excluded.happened_at > table.c.happened_at,
            )
            for part in chunks(sorted(kept.values(), key=_order)):  # all writers lock in this order
                await connection.execute(statement, part)
            about = {(row["activity_id"], row["device_id"]) for row in rows if row["activity_id"]}
            await note_answers(connection, about, now)
            for row, card in sorted(cards, key=lambda one: _order(one[0])):
                gone += await _retire(connection, row, card, now)
        for activity, token in gone:
            self.core.hooks.left(activity, token)
        return len(checked)

    async def page(
        self,
        app: App,
        *,
        activity: str | None = None,
        operation: str | None = None,
        after: int = 0,
        limit: int = PAGE,
    ) -> list[ReceiptView]:
        """Return a page of receipts; ``after`` is the last ``row`` of the page before.

        Pass an activity or an operation to select its receipts. Raises `NotFound`, and
        `InvalidInput` for both together or a limit outside 1 to 1,000.
        """
        receipts, devices = schema.receipts, schema.devices
        activities, operations = schema.activities, schema.operations
        tables = {"device": devices, "activity": activities, "operation": operations}
        names = (table.c.public_id.label(name) for name, table in tables.items())
        query = (
            select(receipts, *names)
            .join(devices, devices.c.id == receipts.c.device_id)
            .outerjoin(activities, activities.c.id == receipts.c.activity_id)
            .outerjoin(operations, operations.c.id == receipts.c.operation_id)
            .where(receipts.c.id > after)
            .order_by(receipts.c.id)
            .limit(checks.page_limit(limit))
        )
        async with self.database.read() as connection:
            query = await _of_subject(connection, query, app, activity, operation)
            return [view_of(ReceiptView, row) for row in await rows_of(connection, query)]

    async def counters(
        self, app: App, *, activity: str | None = None, operation: str | None = None
    ) -> dict[str, int]:
        """Return how many devices reported each event, including events with 0.

        Pass an activity or an operation. Raises `NotFound`, and `InvalidInput` for both or neither.
        """
        if activity is None and operation is None:
            raise InvalidInput("is missing", "activity", "Name an activity or an operation.")
        table = schema.receipts
        query = select(table.c.event, func.count()).group_by(table.c.event)
        async with self.database.read() as connection:
            query = await _of_subject(connection, query, app, activity, operation)
            found = {event: int(count) for event, count in await connection.execute(query)}
        return {event: found.get(event, 0) for event in EVENTS}

    async def _rows(
        self, connection: AsyncConnection, app: App, records: Sequence[ReceiptRecord], now: int
    ) -> list[dict[str, Any]]:
        known: dict[str, dict[str, int]] = {}
        for name, (table, remedy) in _SUBJECTS.items():
            told = [getattr(record, name) for record in records]
            rows = known[name] = await row_ids(connection, app, table, filter(None, told))
            for index, value in enumerate(told):
                if value is not None and value not in rows:
                    problem = f"the app has no {name} {value!r:.80}"
                    raise InvalidInput(problem, f"receipts[{index}].{name}", remedy)
        return [
            {
                "app_id": app.row,
                "device_id": known["device"][record.device],
                "activity_id": known["activity"].get(record.activity or "", 0),
                "operation_id": known["operation"].get(record.operation or "", 0),
                "event": record.event,
                "happened_at": now if record.at is None else record.at,
                "created_at": now,
            }
            for record in records
        ]


_SUBJECTS = {
    "device": (schema.devices, "Register the device first."),
    "activity": (schema.activities, "Give the id that the activity was started with."),
    "operation": (schema.operations, "Give the id that the notification was answered with."),
}


def _checked(record: ReceiptRecord, field: str, now: int) -> ReceiptRecord:
    if record.event not in EVENTS:
        problem = f"{record.event!r:.40} is not a valid event"
        raise InvalidInput(problem, f"{field}.event", f"Give one of {', '.join(EVENTS)}.")
    checks.conform(record, field)
    checks.identifier(record.device, f"{field}.device", limit=64)
    if (record.activity is None) == (record.operation is None):
        problem = "names neither an activity nor an operation, or both"
        raise InvalidInput(problem, f"{field}.activity", "Name the one that the report is about.")
    for name in ("activity", "operation", "card"):
        if (value := getattr(record, name)) is not None:
            checks.identifier(value, f"{field}.{name}")
    if record.at is None:
        return record
    if record.at < 10**11:
        problem = f"{record.at!r:.40} is not a valid time in milliseconds"
        raise InvalidInput(problem, f"{field}.at", "Give milliseconds since 1970, or leave it out.")
    # A phone's clock may be ahead, and a future time would win over every later report.
    return msgspec.structs.replace(record, at=min(record.at, now))


def _order(row: dict[str, Any]) -> tuple[int, int, int]:
    return row["activity_id"], row["device_id"], row["operation_id"]


async def _retire(
    connection: AsyncConnection, row: dict[str, Any], card: str | None, now: int
) -> list[tuple[int, str]]:
    """Retire the activity token of a device whose card is gone; return it for the sender.

    With two cards, the first one is gone unless the report names the other. The second card stays,
    also just after its token arrived. A first card whose end did not arrive is ended by iOS, 8
    hours after its start.
    """
    table, activities = schema.activity_devices, schema.activities
    until = table.c.replaced_at + REPLACED
    if row["event"] == "ended":
        after = select(activities.c.hand_over_after).where(activities.c.id == row["activity_id"])
        age = func.coalesce(after.scalar_subquery(), 0)
        until = table.c.started_at + (ACTIVE_MILLISECONDS + LATE) - age
    this = or_(table.c.replaced_at.is_(None), until < row["happened_at"])
    if card is not None:
        this = case((table.c.card.is_(None), this), else_=table.c.card == card)
    place = [
        table.c.activity_id == row["activity_id"],
        table.c.device_id == row["device_id"],
        table.c.retired_at.is_(None),
        this,
    ]
    tokens = (await connection.scalars(select(table.c.token).where(*place))).all()
    second, version = table.c.handed_over_at, table.c.acknowledged_version
    only = second.is_(None)
    gone = {
        "retired_at": case((only, now)),
        "retired_reason": case((only, row["event"])),
        "token": case((only, table.c.token)),
        "started_at": func.coalesce(second, table.c.started_at),
        "acknowledged_version": case((only, version), else_=table.c.handed_over_version),
        "handed_over_at": None,
    }
    await connection.execute(update(table).where(*place).values(gone))
    return [(row["activity_id"], token) for token in tokens if token is not None]


async def _of_subject(
    connection: AsyncConnection,
    query: Select[Any],
    app: App,
    activity: str | None,
    operation: str | None,
) -> Select[Any]:
    columns = schema.receipts.c
    if activity is not None and operation is not None:
        problem = "cannot be combined with an activity"
        raise InvalidInput(problem, "operation", "Name an activity or an operation.")
    for column, table, name in (
        (columns.activity_id, schema.activities, activity),
        (columns.operation_id, schema.operations, operation),
    ):
        if name is not None:
            return query.where(column == await find_id(connection, app, table, name))
    return query.where(columns.app_id == app.row)
