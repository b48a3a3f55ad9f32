"""Push notifications, their replacement, and the badge on the app's icon."""

from typing import Any

import msgspec
from sqlalchemy import select, update

from ...activities.finding import named
from ...activities.requests import Audience
from ...activities.requests.notify import Notify
from ...activities.store import schema
from ...activities.store.statements import json_text
from . import requests, sending
from .buttons import PUSH_SECONDS, keep_buttons, links_of
from .dialect import DIALECT, Call, Refused, Result, answered, await_result
from .requests import PushCall

EXPIRY = 24 * 3600.0


async def send(call: Call, body: Any = None) -> dict[str, Any]:
    """Send a push notification."""
    said, once = requests.notification(body, lenient=call.lenient), call.once()
    slugs = await sending.reached(call, said.channels, for_pushes=True)
    if not await sending.was_told(call, once):
        await sending.check_reach(call, slugs, for_pushes=True)
    request = await _notify(call, said, sending.audience_of(slugs))
    answer = call.told(await call.service.notifications.send(call.app, request, key=once))
    result = await await_result(call, answer.operation)
    message = None
    if not result.finished:
        message = "The notification is still being sent."
    elif not result.accepted:
        message = "; ".join(result.errors[:5]) or "APNs accepted it for no device."
    return answered(
        call,
        None,
        **_counted(result),
        notification_id=answer.operation,
        effective_channel_slugs=slugs,
        tags=said.tags,
        message=message,
    )


async def replace(call: Call, notification_id: str, body: Any = None) -> dict[str, Any]:
    """Replace a notification on the devices that received it, without a sound."""
    said = requests.notification(body, replacement=True, lenient=call.lenient)
    once = call.once()
    database, table = call.service.database, schema.operations
    place = named(call.app, table, notification_id)
    query = select(table.c.request).where(place, table.c.kind == "notification")
    if (stored := await database.scalar(query)) is None:
        text = "No Push Notification has this notification_id."
        raise Refused(404, "Push Notification not found", text)
    former = msgspec.json.decode(stored)
    audience = msgspec.convert(former.get("audience", {}), Audience)
    sending.check_within(call, audience, "replace this Push Notification")
    labels: dict[str, Any] = {"tags": said.tags, "metadata": said.metadata}
    labels = {name: value for name, value in labels.items() if value is not None}
    tags = labels.get("tags", tuple(former.get("tags", ())))
    request = await _notify(
        call,
        said,
        Audience(),
        replaces=notification_id,
        # A passive notification makes no sound and does not light the screen.
        interruption_level="passive",
        tags=tags,
        metadata=labels.get("metadata", former.get("metadata", {})),
    )
    done = await call.service.notifications.send(call.app, request, key=once)
    if labels:  # later replacements keep them
        async with database.write() as connection:
            newest = (await connection.scalars(query.with_for_update())).one()
            changed = json_text({**msgspec.json.decode(newest), **labels})
            await connection.execute(update(table).where(place).values(request=changed))
    result = await await_result(call, call.told(done).operation)
    return answered(
        call,
        None,
        success=result.success,
        notification_id=notification_id,
        devices_notified=result.accepted,
        users_notified=result.persons,
        effective_channel_slugs=sending.slugs_of(audience),
        tags=tags,
    )


async def badge(call: Call, body: Any = None) -> dict[str, Any]:
    """Set the number on the app's icon."""
    (number, channels), once = requests.badge(body, lenient=call.lenient), call.once()
    slugs = await sending.reached(call, channels, for_pushes=True)
    if not await sending.was_told(call, once):
        await sending.check_reach(call, slugs, for_pushes=True)
    audience = sending.audience_of(slugs)
    request = Notify(audience=audience, badge=number, expire_after=EXPIRY, dialect=DIALECT)
    done = await call.service.notifications.send(call.app, request, key=once)
    result = await await_result(call, call.told(done).operation)
    counted = _counted(result)
    # A list also for everyone, because a client of the API fails on null.
    about: dict[str, Any] = {"badge": number, "effective_channel_slugs": slugs or ()}
    if not result.success:
        gone = result.unregistered >= counted["devices_targeted"] > 0
        raise Refused(
            422 if gone else 502,
            "Badge update failed",
            "Every targeted device has removed the app or switched pushes off."
            if gone
            else "APNs accepted the badge for no device.",
            code="badge_device_disconnected" if gone else "badge_update_failed",
            devices_targeted=counted["devices_targeted"],
            devices_updated=0,
            users_updated=0,
            devices_notified=0,
            **about,
        )
    updated = {"devices_updated": result.accepted, "users_updated": result.persons}
    return {**counted, **about, **updated, "timestamp": call.timestamp}


async def _notify(call: Call, said: PushCall, audience: Audience, **further: Any) -> Notify:
    links = links_of(call, "notification", PUSH_SECONDS)
    content = dict(said.content)
    if said.actions:
        content["custom"] = {**content["custom"], "actions": [*map(links.shown, said.actions)]}
    await keep_buttons(call, links.used)
    content |= {"tags": said.tags or (), "metadata": said.metadata or {}, **further}
    return Notify(audience=audience, expire_after=EXPIRY, dialect=DIALECT, **content)


def _counted(result: Result) -> dict[str, Any]:
    return {
        "success": result.success,
        "devices_notified": result.accepted,
        "users_notified": result.persons,
        "devices_targeted": max(result.targeted, result.accepted + result.failed),
        "devices_deactivated": result.unregistered,
        "devices_unregistered": result.unregistered,
    }
