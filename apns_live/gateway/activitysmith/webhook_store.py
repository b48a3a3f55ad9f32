"""Rows of webhook buttons, found again by a tap, and the log of what was called."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, insert, select

from ...activities.cards.buttons import Button
from ...activities.cards.webhooks import Call as Called
from ...activities.store import schema
from ...activities.store.database import Database
from ...activities.store.statements import insert_into
from .calling import Call

BUTTON_DAYS = 30
_PRUNED_AT_ONCE = 100


async def keep_buttons(call: Call, buttons: Mapping[str, Button]) -> None:
    """Store buttons under their digests, and drop some that nothing can name any more."""
    if not buttons:
        return
    table = schema.buttons
    async with call.service.database.write() as connection:
        for digest, button in buttons.items():
            await connection.execute(
                insert_into(connection, table)
                .values(
                    app_id=call.app.row,
                    digest=digest,
                    title=button.title,
                    url=button.url,
                    method=button.method,
                    body=button.body,
                    created_at=call.now,
                )
                .on_conflict_do_update(
                    index_elements=["app_id", "digest"], set_={"created_at": call.now}
                )
            )
        old = (
            select(table.c.id)
            .where(table.c.created_at < call.now - BUTTON_DAYS * 86_400_000)
            .limit(_PRUNED_AT_ONCE)
        )
        await connection.execute(delete(table).where(table.c.id.in_(old)))


async def button_of(database: Database, app_id: str, digest: str) -> tuple[int, Button] | None:
    """Return the app's row and the button behind a tap address, or None."""
    table, apps = schema.buttons, schema.apps
    row = await database.row(
        select(table)
        .join(apps, apps.c.id == table.c.app_id)
        .where(apps.c.public_id == app_id, table.c.digest == digest)
    )
    if row is None:
        return None
    return row.app_id, Button(row.title, "webhook", row.url, row.method, row.body)


async def log_call(database: Database, app: int, place: str, called: Called, *, now: int) -> None:
    """Write a relayed tap into the log, with the activity that carried it if it is still known."""
    kind, _, name = place.partition(":")
    activities, streams = schema.activities, schema.streams
    activity = None
    if kind == "activity":
        named = (activities.c.app_id == app, activities.c.public_id == name)
        activity = select(activities.c.id).where(*named).scalar_subquery()
    elif kind == "stream":
        named = (streams.c.app_id == app, streams.c.key == name)
        activity = select(streams.c.activity_id).where(*named).scalar_subquery()
    await database.change(
        insert(schema.webhook_calls).values(
            app_id=app,
            activity_id=activity,
            url_host=called.host[:255],
            method=called.method,
            status=called.status or None,
            error=called.error[:255] or None,
            attempts=called.attempts,
            created_at=now,
        )
    )
