"""``apns-live activities``: inspects the activities in the service's database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .options import Shared, group
from .store_access import PAGE, dated, new_id, say_facts, say_page, stored

if TYPE_CHECKING:
    from ..activities.accept.activities import Activities
    from ..activities.apps import App
    from ..activities.store.database import Database

app = group("Inspect the activities in the service's database.")

_LISTED = ("id", "attributes_type", "status", "version", "created_at", "ended_at")
_COLUMNS = ("operation", "kind", "version", "status", "targeted", "accepted", "queued", "failed")
_ACTIVITY = "ACTIVITY: Id of the activity."


@app.command("list")
@stored("--status scheduled|active|ended: Only activities with this status.", PAGE)
async def list_activities(
    shared: Shared,
    database: Database,
    one: App,
    status: str | None = None,
    after: int = 0,
    limit: int = 100,
) -> None:
    """Print a page of activities, oldest first."""
    found = await _reader(database).page(one, status=status, after=after, limit=limit)
    say_page(shared.screen, "activities", found, _LISTED, limit)


@app.command("show")
@stored(_ACTIVITY)
async def show(shared: Shared, database: Database, one: App, activity: str) -> None:
    """Print an activity with its newest state, and how many devices have that state."""
    say_facts(shared.screen, await _reader(database).get(one, activity))


@app.command("history")
@stored(_ACTIVITY)
async def history(shared: Shared, database: Database, one: App, activity: str) -> None:
    """Print the operations of an activity, oldest first; with --json one per line."""
    rows: list[list[object]] = []
    async for page in _reader(database).history(one, activity):
        for row in page:
            if shared.screen.json_mode:
                shared.screen.answer(dated(row), "")
            else:
                rows.append([dict(row)[name] for name in _COLUMNS])
    if not shared.screen.json_mode:
        shared.screen.table(_COLUMNS, rows)


def _reader(database: Database) -> Activities:
    from ..activities.accept.activities import Activities
    from ..clock import SystemClock

    return Activities(database, SystemClock(), new_id)
