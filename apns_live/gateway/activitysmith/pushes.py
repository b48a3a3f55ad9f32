"""Push notifications, their replacement, and the badge on the app's icon."""

from __future__ import annotations

from typing import Any

import msgspec

from ...activities.requests import Audience
from ...activities.requests.notify import Notify
from . import requests, store
from .answers import await_result, without_nothing
from .dialect import DIALECT, Call
from .links import PUSH_SECONDS, keep_buttons, push_buttons
from .refusals import Refused
from .requests import PushCall
from .sending import audience_of, check_audience_within, check_devices, links_of, reached, slugs_of

EXPIRY = 24 * 3600.0


async def send(call: Call, body: Any) -> dict[str, Any]:
    """Send a push notification."""
    said = requests.notification(body, lenient=call.lenient)
    once = call.once()
    slugs = await reached(call, said.channels, for_pushes=True)
    if not await store.was_told(call, once):
        await check_devices(call, slugs)
    done = await call.service.notifications.send(
        call.app, await _notify(call, said, audience=audience_of(slugs)), key=once
    )
    answer = call.told(done)
    result = await await_result(call, answer.operation)
    return without_nothing(
        {
            **_reached(result),
            "notification_id": answer.operation,
            "effective_channel_slugs": None if slugs is None else list(slugs),
            "tags": list(said.tags or ()),
            "timestamp": call.timestamp,
            "message": _said_of(result),
        }
    )


async def replace(call: Call, body: Any) -> dict[str, Any]:
    """Put another notification in the place of one, where it was received, without a sound."""
    name = call.part("notification_id")
    said = requests.notification(body, replacement=True, lenient=call.lenient)
    once = call.once()
    former = await store.labels_of(call, name)
    if former is None:
        raise Refused(
            404, "Push Notification not found", "No Push Notification has this notification_id."
        )
    audience = msgspec.convert(former.get("audience", {}), Audience)
    check_audience_within(call, audience)
    tags = said.tags if said.tags is not None else tuple(former.get("tags", ()))
    metadata = said.metadata if said.metadata is not None else former.get("metadata", {})
    request = msgspec.structs.replace(
        await _notify(call, said, audience=Audience()),
        replaces=name,
        # Neither rings nor lights the screen.
        interruption_level="passive",
        tags=tags,
        metadata=metadata,
    )
    done = await call.service.notifications.send(call.app, request, key=once)
    labels = {"tags": said.tags, "metadata": said.metadata}
    await store.relabel(call, name, {k: v for k, v in labels.items() if v is not None})
    result = await await_result(call, call.told(done).operation)
    return without_nothing(
        {
            "success": bool(result.accepted) or not result.finished,
            "notification_id": name,
            "devices_notified": result.accepted,
            "users_notified": result.persons,
            "effective_channel_slugs": slugs_of(audience),
            "tags": list(tags),
            "timestamp": call.timestamp,
        }
    )


async def badge(call: Call, body: Any) -> dict[str, Any]:
    """Set the number on the app's icon."""
    said = requests.badge(body, lenient=call.lenient)
    once = call.once()
    slugs = await reached(call, said.channels, for_pushes=True)
    if not await store.was_told(call, once):
        await check_devices(call, slugs)
    done = await call.service.notifications.send(
        call.app,
        Notify(audience=audience_of(slugs), badge=said.badge, expire_after=EXPIRY, dialect=DIALECT),
        key=once,
    )
    result = await await_result(call, call.told(done).operation)
    counted = _reached(result)
    if not counted["success"]:
        raise _badge_refused(said.badge, slugs, counted)
    return {
        **counted,
        "badge": said.badge,
        "devices_updated": result.accepted,
        "users_updated": result.persons,
        # A list here even for everyone: a client of the API fails on null.
        "effective_channel_slugs": list(slugs or ()),
        "timestamp": call.timestamp,
    }


async def _notify(call: Call, said: PushCall, *, audience: Audience) -> Notify:
    links = links_of(call, "notification", PUSH_SECONDS)
    custom = dict(said.custom)
    if said.actions:
        custom["actions"] = push_buttons(said.actions, links)
    request = Notify(
        audience=audience,
        title=said.title,
        subtitle=said.subtitle,
        body=said.message,
        badge=said.badge,
        sound=said.sound,
        interruption_level=said.interruption_level,
        mutable_content=said.rich,
        custom=custom,
        expire_after=EXPIRY,
        tags=said.tags or (),
        metadata=said.metadata or {},
        dialect=DIALECT,
    )
    await keep_buttons(call, links.used)
    return request


def _reached(result: store.Result) -> dict[str, Any]:
    return {
        "success": bool(result.accepted) or not result.finished,
        "devices_notified": result.accepted,
        "users_notified": result.persons,
        "devices_targeted": max(result.targeted, result.accepted + result.failed),
        "devices_deactivated": result.unregistered,
        "devices_unregistered": result.unregistered,
    }


def _said_of(result: store.Result) -> str | None:
    if not result.finished:
        return "The notification is still being sent."
    if not result.accepted:
        return "; ".join(result.errors[:5]) or "APNs accepted it for no device."
    return None


def _badge_refused(number: int, slugs: tuple[str, ...] | None, counted: dict[str, Any]) -> Refused:
    gone = counted["devices_unregistered"] >= counted["devices_targeted"] > 0
    return Refused(
        422 if gone else 502,
        "Badge update failed",
        "Every targeted device has removed the app or switched pushes off."
        if gone
        else "APNs accepted the badge for no device.",
        extra={
            "code": "badge_device_disconnected" if gone else "badge_update_failed",
            "badge": number,
            "devices_targeted": counted["devices_targeted"],
            "devices_updated": 0,
            "users_updated": 0,
            "devices_notified": 0,
            "effective_channel_slugs": list(slugs or ()),
        },
    )
