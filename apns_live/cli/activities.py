"""``apns-live activities`` and ``apns-live operations``: inspect them, and export their outcomes."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from .options import group
from .output import to_json
from .store_access import PAGE, Stored, dated, new_id, say_facts, say_page, stored

if TYPE_CHECKING:
    from ..activities.accept.activities import Activities
    from ..activities.read.operations import Operations

app = group("Inspect the activities in the service's database.")
operations = group("Inspect the operations of the service, and export their outcomes.")

_ACTIVITIES = ("id", "attributes_type", "status", "version", "created_at", "ended_at")
_HISTORY = ("operation", "kind", "version", "status", "targeted", "accepted", "queued", "failed")
_ACTIVITY = "ACTIVITY: Id of the activity."
_OPERATIONS = ("id", "kind", "activity", "status", "targeted", "accepted", "queued", "failed")
_OUTCOMES = ("device", "verdict", "status", "reason", "apns_id", "priority", "created_at")
_OPERATION = "OPERATION: Id of the operation."


@app.command("list")
@stored("--status scheduled|active|ended: Only activities with this status.", PAGE)
async def list_activities(
    shared: Stored, status: str | None = None, after: int = 0, limit: int = 100
) -> None:
    """Print a page of activities, oldest first."""
    found = await _activities(shared).page(shared.app, status=status, after=after, limit=limit)
    say_page(shared, "activities", found, _ACTIVITIES, limit)


@app.command("show")
@stored(_ACTIVITY)
async def show_activity(shared: Stored, activity: str) -> None:
    """Print an activity with its newest state, and how many devices have that state."""
    say_facts(shared, await _activities(shared).get(shared.app, activity))


@app.command("history")
@stored(_ACTIVITY)
async def history(shared: Stored, activity: str) -> None:
    """Print the operations of an activity, oldest first; with --json one per line."""
    rows: list[list[object]] = []
    async for page in _activities(shared).history(shared.app, activity):
        for row in page:
            if shared.json_mode:
                shared.answer(dated(row))
            else:
                rows.append([dict(row)[name] for name in _HISTORY])
    if not shared.json_mode:
        shared.table(_HISTORY, rows)


@operations.command("list")
@stored("--activity ID: Only operations of this activity.", PAGE)
async def list_operations(
    shared: Stored, activity: str | None = None, after: int = 0, limit: int = 100
) -> None:
    """Print a page of operations, oldest first."""
    found = await _operations(shared).page(shared.app, after=after, limit=limit, activity=activity)
    say_page(shared, "operations", found, _OPERATIONS, limit)


@operations.command("show")
@stored(_OPERATION)
async def show_operation(shared: Stored, operation: str) -> None:
    """Print an operation and its counters."""
    say_facts(shared, await _operations(shared).get(shared.app, operation))


@operations.command("export")
@stored(_OPERATION, "--format jsonl|csv: Format of the output.")
async def export(shared: Stored, operation: str, format_: str = "jsonl") -> None:
    """Print the outcome of an operation on every device, one per line."""
    as_csv = format_ == "csv"
    if shared.json_mode and as_csv:
        raise InvalidInput("csv cannot be combined with --json", "--format", "Give jsonl.")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(_OUTCOMES)
    async for outcome in _operations(shared).export(shared.app, operation):
        row = {name: dated(outcome)[name] for name in _OUTCOMES}
        if as_csv:
            writer.writerow(row.values())
        else:
            shared.line(to_json(row))


def _activities(shared: Stored) -> Activities:
    from ..activities.accept.activities import Activities
    from ..clock import SystemClock

    return Activities(shared.database, SystemClock(), new_id)


def _operations(shared: Stored) -> Operations:
    from ..activities.read.operations import Operations

    return Operations(shared.database)
