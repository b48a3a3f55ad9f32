"""Taps on webhook buttons: the phone calls the gateway, which calls the webhook.

The URL itself is the permission: it is signed, is valid for one button, and expires. The phone learns
nothing about the webhook, not even its answer. Each call is logged.
"""

from __future__ import annotations

from sqlalchemy import insert, select

from ...activities.cards.buttons import Button, TapSigner, WebhookRelay
from ...activities.cards.buttons import Call as Called
from ...activities.store import schema
from ...activities.store.database import Database
from ...errors import ActivitiesError
from ..calls import Call
from .refusals import Refused
from .sending import TAPS

_PER_MINUTE = 30
_MAX_LENGTH = 2_048


async def tap(call: Call) -> dict[str, bool]:
    """Call the webhook of the button that a phone's owner has tapped."""
    gateway, signed = call.gateway, call.part("tap")
    service = gateway.service
    signer = TapSigner(service.apps.sealer.derive(TAPS))
    if len(signed) > _MAX_LENGTH or not signed.isascii():
        raise _unknown()
    try:
        app_id, place, digest = signer.open(signed, now=gateway.clock.time())
    except ActivitiesError as error:
        if "expired" in str(error):
            raise Refused(410, "Action expired", "The card is no longer current.") from None
        raise _unknown() from None
    with gateway.limits.enter_as(f"tap {digest}", _PER_MINUTE):
        found = await _button_of(service.database, app_id, digest)
        if found is None:
            raise _unknown()
        app, button = found
        if gateway.relay is None:
            hosts = gateway.settings.webhook_hosts
            gateway.relay = WebhookRelay(allow=hosts, clock=gateway.clock)
        called = await gateway.relay.call(button, event_id=gateway.new_id())
        await _log_call(service.database, app, place, called, now=call.now)
    if not called.ok:
        raise Refused(502, "Action failed", "The webhook did not take the call.")
    return {"success": True}


def _unknown() -> Refused:
    return Refused(404, "Action not found", "This address names no action.")


async def _button_of(database: Database, app_id: str, digest: str) -> tuple[int, Button] | None:
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


async def _log_call(database: Database, app: int, place: str, called: Called, *, now: int) -> None:
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
