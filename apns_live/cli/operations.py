"""``apns-live operations``: what was asked of the service, and what became of it on every device."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidInput
from .options import Shared, command, group, option
from .output import ExitCode, to_json
from .store_access import (
    AfterOption,
    AppOption,
    LimitOption,
    StoreOption,
    dated,
    run_for_app,
    say_facts,
    say_page,
)

if TYPE_CHECKING:
    from ..activities.apps import App
    from ..activities.store.database import Database

app = group("Look at what was asked of the service, and export what became of it.")
_COLUMNS = ("device", "verdict", "status", "reason", "apns_id", "priority", "created_at")
_LISTED = ("id", "kind", "activity", "status", "targeted", "accepted", "queued", "failed")

OperationArgument = Annotated[str, typer.Argument(metavar="OPERATION", help="Id of the operation.")]


@app.command("list")
@command()
def list_operations(
    shared: Shared,
    app_id: AppOption,
    activity: Annotated[
        str | None, option("Only those of this activity.", "--activity", "ID")
    ] = None,
    after: AfterOption = 0,
    limit: LimitOption = 100,
    store: StoreOption = None,
) -> int:
    """Print a page of operations, the oldest first."""

    async def work(database: Database, one: App) -> Sequence[Mapping[str, Any]]:
        from ..activities.read.operations import Operations

        return await Operations(database).page(one, after=after, limit=limit, activity=activity)

    found = [dated(row) for row in run_for_app(store, app_id, work)]
    return say_page(shared.screen, "operations", found, _LISTED, limit)


@app.command("show")
@command()
def show(
    shared: Shared, operation: OperationArgument, app_id: AppOption, store: StoreOption = None
) -> int:
    """Print an operation and its counters."""

    async def work(database: Database, one: App) -> Mapping[str, Any]:
        from ..activities.read.operations import Operations

        return await Operations(database).get(one, operation)

    return say_facts(shared.screen, dated(run_for_app(store, app_id, work)))


@app.command("export")
@command()
def export(
    shared: Shared,
    operation: OperationArgument,
    app_id: AppOption,
    form: Annotated[str, option("How to write it.", "--format", "jsonl|csv")] = "jsonl",
    store: StoreOption = None,
) -> int:
    """Print what became of an operation on every device, one line each."""
    if form not in {"jsonl", "csv"} or (shared.screen.json_mode and form == "csv"):
        raise InvalidInput(
            f"{form!r:.40} is not possible here", field="--format", remedy="Give jsonl or csv."
        )

    async def work(database: Database, one: App) -> None:
        from ..activities.read.operations import Operations

        if form == "csv":
            shared.screen.line(_csv(_COLUMNS))
        async for outcome in Operations(database).export(one, operation):
            row = {name: dated(outcome)[name] for name in _COLUMNS}
            shared.screen.line(_csv(row.values()) if form == "csv" else to_json(row))

    run_for_app(store, app_id, work)
    return ExitCode.OK


def _csv(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
