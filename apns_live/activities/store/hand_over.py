"""Finds cards that are due for hand-over, and marks that a second card's start is being sent.

A card is due at the age that its activity sets. It is replaced only if the new card can be updated and
ended: the device's last card that was started by push returned a token, or its app started all of its cards,
or the activity follows a channel. A card that was swiped away or has ended is not replaced, nor one on a
device with many starts within the last hour. A stream also starts again where a card is too old.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, and_, case, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..times import ACTIVE_MILLISECONDS
from . import schema

STARTS_PER_HOUR = 9
"""Starts on a device within an hour up to which a hand-over is allowed: the phone takes about ten.
"""
_HOUR = 3_600_000
_members = schema.activity_devices


def begun(table: Any) -> ColumnElement[int]:
    """Return the time of a device's newest card, in milliseconds since 1970."""
    columns = table.c
    return func.coalesce(
        columns.handed_over_at, columns.started_at, columns.joined_at, columns.registered_at
    )


def due(activity: Row[Any], now: int) -> ColumnElement[bool]:
    """Return the condition that a living card is old enough and has not ended."""
    began = begun(_members)
    return and_(
        _members.c.activity_id == activity.id,
        _members.c.retired_at.is_(None),
        began <= now - activity.hand_over_after,
        began > now - ACTIVE_MILLISECONDS,
    )


def eligible(activity: Row[Any], now: int) -> ColumnElement[bool]:
    """Return the condition that a card is due, and that its device can get a second card."""
    with_token = and_(
        _members.c.token.is_not(None), _members.c.handed_over_at.is_(None), _gave_a_token()
    )
    ways = or_(with_token, _members.c.by_channel)
    return and_(due(activity, now), ways, _can_be_started(activity, now))


def over(activity: Row[Any], now: int) -> ColumnElement[bool]:
    """Return the condition that only iOS has ended a card; a stream then starts another."""
    return and_(
        _members.c.activity_id == activity.id,
        or_(_members.c.retired_at.is_(None), _members.c.retired_reason == "expired"),
        begun(_members) <= now - ACTIVE_MILLISECONDS,
        _can_be_started(activity, now),
    )


def awaited(activity: Row[Any]) -> ColumnElement[bool]:
    """Return the condition that updates still go to the first card: the second has no token yet."""
    return and_(
        _members.c.activity_id == activity.id,
        _members.c.retired_at.is_(None),
        _members.c.handed_over_at.is_not(None),
        _members.c.token.is_not(None),
    )


def first_begun() -> ColumnElement[int]:
    """Return the start time of the first of two cards, in milliseconds since 1970."""
    columns = _members.c
    return func.coalesce(columns.started_at, columns.joined_at, columns.registered_at)


async def leave_first(connection: AsyncConnection, activity: Row[Any], now: int) -> list[str]:
    """Remove the tokens of first cards that iOS has ended; return these tokens.

    The remaining card was started and has no token yet.
    """
    table: Table = _members
    over = and_(awaited(activity), first_begun() <= now - ACTIVE_MILLISECONDS)
    if tokens := list(await connection.scalars(select(table.c.token).where(over))):
        second = {
            "started_at": table.c.handed_over_at,
            "acknowledged_version": table.c.handed_over_version,
        }
        none = {"token": None, "handed_over_at": None}
        await connection.execute(update(table).where(over).values(**none, **second))
    return tokens


def _gave_a_token() -> ColumnElement[bool]:
    """Return the condition that the last card that push started on a device, if any, has a token.

    A card on a channel has no token, and so says nothing about the device.
    """
    other = schema.activity_devices.alias()
    pushed = func.coalesce(other.c.handed_over_at, other.c.started_at)
    gave = case((and_(other.c.token.is_not(None), other.c.handed_over_at.is_(None)), 1), else_=0)
    last = (
        select(gave)
        .where(
            other.c.device_id == _members.c.device_id,
            other.c.by_channel.is_(False),
            pushed.is_not(None),
        )
        .order_by(pushed.desc(), other.c.id.desc())
        .limit(1)
    )
    return func.coalesce(last.correlate(_members).scalar_subquery(), 1) == 1


def _can_be_started(activity: Row[Any], now: int) -> ColumnElement[bool]:
    tokens, other = schema.start_tokens, schema.activity_devices.alias()
    lately = func.coalesce(other.c.handed_over_at, other.c.started_at) > now - _HOUR
    starts = (
        select(func.count())
        .select_from(other)
        .where(other.c.device_id == _members.c.device_id, lately)
    )
    living = exists().where(
        tokens.c.device_id == _members.c.device_id,
        tokens.c.attributes_type == activity.attributes_type,
        tokens.c.environment == activity.environment,
        tokens.c.retired_at.is_(None),
    )
    few = starts.correlate(_members).scalar_subquery() < STARTS_PER_HOUR
    return and_(living.correlate(_members), few)


async def hand_over(
    connection: AsyncConnection, activity: Row[Any], devices: Sequence[int], now: int
) -> dict[int, bool]:
    """Store that the start of a second card is about to be sent; return the devices that get it.

    Each is returned with whether it follows the channel. ``now`` is milliseconds. The caller has
    locked the activity's row.
    """
    table: Table = _members
    among = table.c.device_id.in_(devices)
    # On a channel no token shows that the previous card arrived.
    second = {"started_at": func.coalesce(table.c.handed_over_at, table.c.started_at)}
    handed = (
        update(table)
        .where(among, eligible(activity, now))
        .values(handed_over_at=now, handed_over_version=activity.version, **second)
        .returning(table.c.device_id, table.c.by_channel)
    )
    found = {row.device_id: row.by_channel for row in await connection.execute(handed)}
    if activity.stream_key is not None:
        names = ("token", "registered_at", "joined_at", "retired_at", "retired_reason")
        none = dict.fromkeys((*names, "missing_reported_at", "start_settled_at", "handed_over_at"))
        version = {"sent_version": activity.version, "acknowledged_version": activity.version}
        again = (
            update(table)
            .where(among, over(activity, now))
            .values(started_at=now, **none, **version)
            .returning(table.c.device_id, table.c.by_channel)
        )
        found |= {row.device_id: row.by_channel for row in await connection.execute(again)}
    return found
