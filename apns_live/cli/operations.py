"""``apns-live operations``: inspects operations, and exports their outcomes."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from .options import Shared, group
from .output import to_json
from .store_access import PAGE, dated, say_facts, say_page, stored

if TYPE_CHECKING:
    from ..activities.apps import App
    from ..activities.read.operations import Operations
    from ..activities.store.database import Database

app = group("Inspect the operations of the service, and export their outcomes.")
_COLUMNS = ("device", "verdict", "status", "reason", "apns_id", "priority", "created_at")
_LISTED = ("id", "kind", "activity", "status", "targeted", "accepted", "queued", "failed")
_OPERATION = "OPERATION: Id of the operation."


@app.command("list")
@stored("--activity ID: Only operations of this activity.", PAGE)
async def list_operations(
    shared: Shared,
    database: Database,
    one: App,
    activity: str | None = None,
    after: int = 0,
    limit: int = 100,
) -> None:
    """Print a page of operations, oldest first."""
    found = await _reader(database).page(one, after=after, limit=limit, activity=activity)
    say_page(shared.screen, "operations", found, _LISTED, limit)


@app.command("show")
@stored(_OPERATION)
async def show(shared: Shared, database: Database, one: App, operation: str) -> None:
    """Print an operation and its counters."""
    say_facts(shared.screen, await _reader(database).get(one, operation))


@app.command("export")
@stored(_OPERATION, "--format jsonl|csv: Format of the output.")
async def export(
    shared: Shared, database: Database, one: App, operation: str, format_: str = "jsonl"
) -> None:
    """Print the outcome of an operation on every device, one per line."""
    as_csv = format_ == "csv"
    if shared.screen.json_mode and as_csv:
        raise InvalidInput(
            "csv cannot be combined with --json", field="--format", remedy="Give jsonl."
        )
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(_COLUMNS)
    async for outcome in _reader(database).export(one, operation):
        row = {name: dated(outcome)[name] for name in _COLUMNS}
        if as_csv:
            writer.writerow(row.values())
        else:
            shared.screen.line(to_json(row))


def _reader(database: Database) -> Operations:
    from ..activities.read.operations import Operations

    return Operations(database)
