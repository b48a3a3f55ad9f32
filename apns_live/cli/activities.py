"""``apns-live activities``: what the service's database knows of activities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Shared, command, group, option
from .output import ExitCode
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
    from ..activities.accept.activities import Activities
    from ..activities.apps import App
    from ..activities.store.database import Database

app = group("Look at the activities in the service's database.")

_LISTED = ("id", "attributes_type", "status", "version", "created_at", "ended_at")

ActivityArgument = Annotated[str, typer.Argument(metavar="ACTIVITY", help="Id of the activity.")]


@app.command("list")
@command()
def list_activities(
    shared: Shared,
    app_id: AppOption,
    status: Annotated[
        str | None, option("Only these.", "--status", "scheduled|active|ended")
    ] = None,
    after: AfterOption = 0,
    limit: LimitOption = 100,
    store: StoreOption = None,
) -> int:
    """Print a page of activities, the oldest first."""

    async def work(database: Database, one: App) -> Sequence[Mapping[str, Any]]:
        return await _reader(database).page(one, status=status, after=after, limit=limit)

    found = [dated(row) for row in run_for_app(store, app_id, work)]
    return say_page(shared.screen, "activities", found, _LISTED, limit)


@app.command("show")
@command()
def show(
    shared: Shared, activity: ActivityArgument, app_id: AppOption, store: StoreOption = None
) -> int:
    """Print an activity: its newest state, and how many devices have it."""

    async def work(database: Database, one: App) -> Mapping[str, Any]:
        return await _reader(database).get(one, activity)

    return say_facts(shared.screen, dated(run_for_app(store, app_id, work)))


@app.command("history")
@command()
def history(
    shared: Shared, activity: ActivityArgument, app_id: AppOption, store: StoreOption = None
) -> int:
    """Print what was asked of an activity, the oldest first; with --json one operation a line."""
    columns = ("operation", "kind", "version", "status", "targeted", "accepted", "queued", "failed")

    async def work(database: Database, one: App) -> Sequence[Mapping[str, Any]]:
        rows: list[Mapping[str, Any]] = []
        async for page in _reader(database).history(one, activity):
            if shared.screen.json_mode:
                for row in page:
                    shared.screen.answer(dated(row), "")
            else:
                rows += page
        return rows

    rows = run_for_app(store, app_id, work)
    if not shared.screen.json_mode:
        shared.screen.table(columns, [[row[name] for name in columns] for row in rows])
    return ExitCode.OK


def _reader(database: Database) -> Activities:
    import secrets

    from ..activities.accept.activities import Activities
    from ..clock import SystemClock

    return Activities(database, SystemClock(), lambda: secrets.token_hex(8))
