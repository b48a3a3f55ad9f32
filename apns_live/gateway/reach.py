"""The recipients of a call, and the restriction of a key to groups.

Every API uses this module, so a key's restriction holds in all of them.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, exists, select

from ..activities.accept.streams import nobody_left
from ..activities.apps import App
from ..activities.finding import named
from ..activities.requests import Audience
from ..activities.store import schema
from ..errors import NotAllowed, NotFound
from .context import Gateway
from .keys import ApiKey


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
        raise NotAllowed(
            f"this key reaches the groups {', '.join(sorted(key.groups))} only: name no others"
        )


async def check_activity(gateway: Gateway, key: ApiKey, activity: str) -> None:
    """Raise `NotFound` unless the activity is the app's and within the key's groups."""
    if key.groups is not None:
        await _check(gateway, key, schema.activities.c.public_id == activity, activity)


async def check_stream(gateway: Gateway, key: ApiKey, name: str) -> None:
    """Raise `NotFound` if something runs behind the key's stream that is not within its groups.

    A stream that is not there, or behind which nothing runs, passes.
    """
    if key.groups is None:
        return
    streams = schema.streams
    running = select(streams.c.activity_id).where(named(key.app, streams, name)).scalar_subquery()
    await _check(gateway, key, schema.activities.c.id == running, name, missing=True)


async def _check(
    gateway: Gateway, key: ApiKey, which: ColumnElement[bool], name: str, *, missing: bool = False
) -> None:
    table = schema.activities
    text = await gateway.service.database.scalar(
        select(table.c.audience).where(table.c.app_id == key.app.row, which)
    )
    if text is None and missing:
        return
    if text is not None:
        try:
            check_audience(key, msgspec.json.decode(text, type=Audience))
        except NotAllowed:
            text = None
    if text is None or '"groups"' not in text:
        # The same words as for one that is not there: its existence is nobody else's business.
        raise NotFound(f"the app {key.app.id!r} has no {name!r} within this key's groups")


def is_named(app: App, given: str, setting: str) -> bool:
    """Whether ``given`` is the app's id, or the id that it has at a vendor.

    The setting (``braze_app_id``, ``onesignal_app_id``) is a text or a list of texts, so that a
    server which moved here may keep the id that stands in its code.
    """
    named = app.settings.get(setting, [])
    return given in [app.id, *(named if isinstance(named, list) else [named])]


async def check_id(gateway: Gateway, key: ApiKey, activity: str | None) -> None:
    """Raise `NotFound` if an id is taken by an activity that the key does not reach."""
    if key.groups is None or activity is None:
        return
    try:
        await gateway.service.activities.get(key.app, activity)
    except NotFound:
        return
    await check_activity(gateway, key, activity)


async def knows_type(gateway: Gateway, app: App, attributes_type: str) -> bool:
    """Whether any device ever handed in a push-to-start token for an attributes type."""
    tokens = schema.start_tokens
    query = select(
        exists().where(tokens.c.app_id == app.row, tokens.c.attributes_type == attributes_type)
    )
    return bool(await gateway.service.database.scalar(query))


async def is_gone(gateway: Gateway, app: App, activity: str) -> bool:
    """Whether nobody has the card of an activity any more: everyone dismissed it."""
    table = schema.activities
    query = select(table.c.id).where(named(app, table, activity), nobody_left())
    return await gateway.service.database.scalar(query) is not None


async def reaches_anyone(
    gateway: Gateway, app: App, audience: Audience, attributes_type: str
) -> bool:
    """Whether a start for an audience would reach a device. One row is read, however many there are.

    Raises `InvalidInput` for what the audience names and the app does not have.
    """
    pages = gateway.service.audiences.recipients(
        app, audience, attributes_type=attributes_type, environment=app.environment, page=1
    )
    async for page in pages:
        return bool(page)
    return False
