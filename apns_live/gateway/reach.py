"""What a key that is restricted to groups can reach: only what is addressed to those groups alone.

Every face of the gateway asks here, so that one dialect is no way around another's restriction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import ColumnElement, select

from ..activities.requests.audience import Audience
from ..activities.store import schema
from ..errors import NotAllowed, NotFound
from .keys import ApiKey

if TYPE_CHECKING:
    from .context import Gateway


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
    running = (
        select(streams.c.activity_id)
        .where(streams.c.app_id == key.app.row, streams.c.key == name)
        .scalar_subquery()
    )
    await _check(gateway, key, schema.activities.c.id == running, name, missing=True)


async def _check(
    gateway: Gateway, key: ApiKey, which: ColumnElement[bool], name: str, *, missing: bool = False
) -> None:
    table = schema.activities
    async with gateway.service.database.read() as connection:
        text = (
            await connection.execute(
                select(table.c.audience).where(table.c.app_id == key.app.row, which)
            )
        ).scalar()
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
