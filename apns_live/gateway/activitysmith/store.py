"""Database queries for ActivitySmith's API, and its own tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, func, select, update

from ...activities.accept.idempotency import Key
from ...activities.accept.streams import nobody_left
from ...activities.finding import named
from ...activities.read.operations import persons_reached
from ...activities.requests import Audience
from ...activities.store import schema
from ...activities.store.statements import json_text, row_of, rows_of, view_of
from ...outcome import Verdict
from .dialect import Call

_ERRORS_SHOWN = 20


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an activity."""

    id: str
    ended: bool
    state: dict[str, Any]
    audience: Audience
    stream_key: str | None
    tags: tuple[str, ...]
    end_reason: str | None

    @property
    def place(self) -> str:
        """The log's name for the carrier of this card's buttons. It never changes for a card."""
        return f"activity:{self.id}" if self.stream_key is None else f"stream:{self.stream_key}"


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a stream. ``card`` is its newest activity, which may have ended.

    ``gone`` is True if every device has dismissed the card.
    """

    known: bool = True
    paused: bool = False
    card: Card | None = None
    gone: bool = False
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}

    @property
    def running(self) -> Card | None:
        """The activity that a put updates."""
        return None if self.card is None or self.card.ended or self.gone else self.card


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an operation so far."""

    finished: bool = False
    targeted: int = 0
    accepted: int = 0
    failed: int = 0
    unregistered: int = 0
    persons: int = 0
    errors: list[str] = []

    @property
    def success(self) -> bool:
        """Whether APNs accepted a push, or may still accept one."""
        return self.accepted > 0 or not self.finished


async def card_of(call: Call, activity: str) -> Card | None:
    """Return an activity of the app, or None."""
    table = schema.activities
    row = await call.service.database.row(select(table).where(named(call.app, table, activity)))
    return None if row is None else _card(row)


async def stream_of(call: Call, key: str) -> Stream:
    """Return a stream of the app. It is not ``known`` if there is none."""
    streams, activities = schema.streams, schema.activities
    database = call.service.database
    row = await database.row(select(streams).where(named(call.app, streams, key)))
    if row is None:
        return Stream(known=False)
    query = select(activities, nobody_left().label("gone"))
    card = await database.row(query.where(activities.c.id == row.activity_id))
    return Stream(
        paused=row.paused_at is not None,
        card=None if card is None else _card(card),
        gone=card is not None and bool(card.gone),
        tags=tuple(msgspec.json.decode(row.tags)),
        metadata=msgspec.json.decode(row.metadata),
    )


async def stream_was(call: Call, key: str) -> bool:
    """Return whether a stream of this key has shown a card before."""
    table = schema.activities
    query = select(table.c.id).where(table.c.app_id == call.app.row, table.c.stream_key == key)
    return await call.service.database.scalar(query.limit(1)) is not None


async def was_told(call: Call, key: Key | None) -> bool:
    """Return whether an idempotency key was used before."""
    if key is None:
        return False
    table = schema.idempotency
    query = select(table.c.created_at).where(table.c.app_id == call.app.row)
    query = query.where(table.c.caller == key.caller, table.c.key == key.key)
    return await call.service.database.scalar(query) is not None


async def result_of(call: Call, operation: str) -> Result:
    """Return the result of an operation so far, or an empty one if the operation was pruned."""
    table, outcomes, devices = schema.operations, schema.outcomes, schema.devices
    async with call.service.database.read() as connection:
        row = await row_of(connection, select(table).where(named(call.app, table, operation)))
        if row is None:
            return Result()
        persons = await persons_reached(connection, row.id)
        unregistered = 0
        failures: Sequence[Any] = ()
        if row.failed:
            ours, verdict = outcomes.c.operation_id == row.id, outcomes.c.verdict
            dropped = select(func.count()).where(ours, verdict == Verdict.DROP_TOKEN.value)
            unregistered = await connection.scalar(dropped) or 0
            failures = await rows_of(
                connection,
                select(devices.c.public_id, verdict, outcomes.c.reason)
                .select_from(outcomes)
                .outerjoin(devices, devices.c.id == outcomes.c.device_id)
                .where(ours, verdict != Verdict.ACCEPTED.value)
                .order_by(outcomes.c.id)
                .limit(_ERRORS_SHOWN),
            )
    errors = [f"device {one.public_id}: {one.reason or one.verdict}" for one in failures]
    return view_of(
        Result,
        row,
        finished=row.finished_at is not None,
        errors=[*errors, row.reason] if row.reason else errors,
        unregistered=unregistered,
        persons=persons,
    )


async def labels_of(call: Call, operation: str) -> dict[str, Any] | None:
    """Return the request of a notification, or None if there is no such notification."""
    table = schema.operations
    query = select(table.c.request).where(named(call.app, table, operation))
    text = await call.service.database.scalar(query.where(table.c.kind == "notification"))
    return None if text is None else msgspec.json.decode(text)


async def relabel(call: Call, operation: str, labels: Mapping[str, Any]) -> None:
    """Change tags or metadata of a notification. Later replacements keep them."""
    if not labels:
        return
    table = schema.operations
    place = named(call.app, table, operation)
    async with call.service.database.write() as connection:
        query = select(table.c.request).where(place).with_for_update()
        text = (await connection.scalars(query)).one()
        changed = {**msgspec.json.decode(text), **labels}
        await connection.execute(update(table).where(place).values(request=json_text(changed)))


def _card(row: Row[Any]) -> Card:
    state, tags = msgspec.json.decode(row.content_state), tuple(msgspec.json.decode(row.tags))
    audience, over = msgspec.json.decode(row.audience, type=Audience), row.status == "ended"
    return view_of(Card, row, ended=over, state=state, audience=audience, tags=tags)
