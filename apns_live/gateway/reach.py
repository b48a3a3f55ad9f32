"""The recipients of a call, and the restriction of a key to groups.

Every API uses this module, so a key's restriction holds in all of them.
"""

from typing import Literal

import msgspec
from sqlalchemy import exists, select

from ..activities.accept.streams import nobody_left
from ..activities.apps import App
from ..activities.finding import named
from ..activities.requests import Accepted, Audience, End, Start, Update
from ..activities.store import schema
from ..errors import NotAllowed, NotFound
from .context import Gateway
from .keys import ApiKey

Missing = Literal["recipients", "type"]


def check_audience(key: ApiKey, audience: Audience) -> None:
    """Raise `NotAllowed` unless the key reaches all of the audience."""
    if key.groups is None:
        return
    others = (
        audience.everyone
        or audience.users
        or audience.user_ids
        or any(audience.aliases.values())
        or audience.devices
        or audience.segments
        or audience.filter
    )
    if others or not set(audience.groups) <= key.groups:
        groups = ", ".join(sorted(key.groups))
        raise NotAllowed(f"this key reaches the groups {groups} only: name no others")


async def check_activity(
    gateway: Gateway, key: ApiKey, name: str, *, missing: bool = False, stream: bool = False
) -> None:
    """Raise `NotFound` for an activity outside of the key's groups, or unknown without ``missing``.

    With ``stream`` the name is that of a stream, whose running activity is meant.
    """
    if key.groups is None:
        return
    table, streams = schema.activities, schema.streams
    which = table.c.public_id == name
    if stream:
        running = select(streams.c.activity_id).where(named(key.app, streams, name))
        which = table.c.id == running.scalar_subquery()
    query = select(table.c.audience).where(table.c.app_id == key.app.row, which)
    if (text := await gateway.service.database.scalar(query)) is None and missing:
        return
    if text is not None:
        try:
            check_audience(key, msgspec.json.decode(text, type=Audience))
        except NotAllowed:
            text = None
    if text is None or '"groups"' not in text:
        # The error is that of an unknown name, so that it reveals nothing about other activities.
        raise NotFound(f"the app {key.app.id!r} has no {name!r} within this key's groups")


def is_named(app: App, given: str, setting: str) -> bool:
    """Whether ``given`` is the app's id, or its id at a vendor.

    The setting (``braze_app_id``, ``onesignal_app_id``) is a string or a list, so that a server that
    moves here can keep its id.
    """
    named = app.settings.get(setting, [])
    return given in [app.id, *(named if isinstance(named, list) else [named])]


async def check_start(gateway: Gateway, key: ApiKey, start: Start) -> Missing | None:
    """Return what a start lacks to reach a device: "recipients", or "type" if its type has no token.

    Raises `NotAllowed` or `NotFound` if the key does not reach its audience or its id.
    """
    check_audience(key, start.audience)
    if start.id is not None:
        await check_activity(gateway, key, start.id, missing=True)
    kind = start.attributes_type
    if await reaches_anyone(gateway, key.app, start.audience, kind):
        return None
    tokens = schema.start_tokens
    known = exists().where(tokens.c.app_id == key.app.row, tokens.c.attributes_type == kind)
    return "recipients" if await gateway.service.database.scalar(select(known)) else "type"


async def change(gateway: Gateway, key: ApiKey, request: Update | End) -> Accepted:
    """Update or end an activity within the key's groups. Raises `NotFound` and `ActivityEnded`."""
    await check_activity(gateway, key, request.id)
    activities = gateway.service.activities
    if isinstance(request, End):
        return (await activities.end(key.app, request)).answer
    return (await activities.update(key.app, request)).answer


async def is_gone(gateway: Gateway, app: App, activity: str) -> bool:
    """Whether every device has dismissed the card of an activity."""
    table = schema.activities
    query = select(table.c.id).where(named(app, table, activity), nobody_left())
    return await gateway.service.database.scalar(query) is not None


async def reaches_anyone(
    gateway: Gateway, app: App, audience: Audience, attributes_type: str
) -> bool:
    """Whether a start would reach a device. Raises `InvalidInput` for an unknown segment or group."""
    service, environment = gateway.service, app.environment
    query = await service.audiences.start_tokens(
        app, audience, attributes_type=attributes_type, environment=environment
    )
    return await service.database.row(query.limit(1)) is not None
