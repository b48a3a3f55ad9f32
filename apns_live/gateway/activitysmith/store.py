"""Database queries for ActivitySmith's API, and its own tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, func, not_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...activities.accept.idempotency import Key
from ...activities.accept.streams import nobody_left
from ...activities.finding import named
from ...activities.people.audience import living_tokens
from ...activities.read.operations import persons_reached
from ...activities.requests import Audience
from ...activities.store import schema
from ...activities.store.statements import json_text, row_of, rows_of, view_of
from ...outcome import Verdict
from .dialect import DIALECT, Call, DialectSettings

_ERRORS_SHOWN = 20


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """An activity as it stands."""

    row: int
    id: str
    status: str
    state: dict[str, Any]
    audience: Audience
    stream_key: str | None
    tags: tuple[str, ...]
    metadata: dict[str, Any]
    end_reason: str | None

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.status == "ended"


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream as it stands; ``card`` is the newest activity behind it, which may have ended."""

    paused: bool
    card: Card | None
    gone: bool = False
    """Nobody has the card any more: everyone swiped it away."""
    tags: tuple[str, ...]
    metadata: dict[str, Any]

    @property
    def running(self) -> Card | None:
        """The activity that a put updates."""
        return None if self.card is None or self.card.ended or self.gone else self.card


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Devices that have as many cards as they may."""

    active: int
    blocked: int
    targeted: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an operation so far; nothing that is known yet by default."""

    finished: bool = False
    targeted: int = 0
    accepted: int = 0
    failed: int = 0
    unregistered: int = 0
    persons: int = 0
    errors: list[str] = []


async def card_of(call: Call, activity: str) -> Card | None:
    """Return an activity of the app, or None."""
    table = schema.activities
    row = await call.service.database.row(select(table).where(named(call.app, table, activity)))
    return None if row is None else _card(row)


async def stream_of(call: Call, key: str) -> Stream | None:
    """Return a stream of the app, or None."""
    streams, activities = schema.streams, schema.activities
    row = await call.service.database.row(select(streams).where(named(call.app, streams, key)))
    if row is None:
        return None
    card = None
    if row.activity_id is not None:
        card = await call.service.database.row(
            select(activities, nobody_left().label("gone")).where(
                activities.c.id == row.activity_id
            )
        )
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


async def missing_groups(call: Call, slugs: Sequence[str]) -> list[str]:
    """Return which of the slugs name no group of the app."""
    table = schema.groups
    query = select(table.c.slug).where(table.c.app_id == call.app.row, table.c.slug.in_(slugs))
    found = {row.slug for row in await call.service.database.rows(query)}
    return [slug for slug in slugs if slug not in found]


async def can_notify(call: Call, audience: Audience) -> bool:
    """Return whether an ordinary push would reach a phone at all."""
    devices, tokens = schema.devices, schema.device_tokens
    async with call.service.database.read() as connection:
        clause = await call.service.audiences.clause(connection, call.app, audience)
        query = living_tokens(tokens, call.app, call.app.environment)
        query = query.where(devices.c.push_enabled.is_(True), clause).limit(1)
        return await connection.scalar(query) is not None


async def crowd(call: Call, audience: Audience, chosen: DialectSettings) -> Crowd | None:
    """Return who has as many of this dialect's cards as may be, or None if there is room.

    A start that is still being sent counts on every device: two at once must not pass together.
    """
    limit = chosen.live_activities
    if limit is None:
        return None
    activities, members = schema.activities, schema.activity_devices
    ours = (
        activities.c.app_id == call.app.row,
        activities.c.status == "active",
        activities.c.dialect == DIALECT,
        not_(nobody_left()),
    )
    async with call.service.database.read() as connection:
        running = select(func.count()).select_from(activities).where(*ours)
        total: int = await connection.scalar(running) or 0
        if total < limit:
            return None
        if chosen.counted == "account":
            return Crowd(active=total, blocked=0, targeted=0)
        clause = await call.service.audiences.clause(connection, call.app, audience)
        starting = await _starting(connection, ours)
        devices, tokens = schema.devices, schema.start_tokens
        able = (
            living_tokens(tokens, call.app, call.app.environment)
            .where(tokens.c.attributes_type == chosen.attributes_type, clause)
            .with_only_columns(devices.c.id, maintain_column_froms=True)
            .distinct()
        )
        cards = (
            select(func.count().label("cards"))
            .select_from(members)
            .join(activities, activities.c.id == members.c.activity_id)
            .where(*ours, members.c.retired_at.is_(None), members.c.device_id.in_(able))
            .group_by(members.c.device_id)
            .subquery()
        )
        most, full = func.max(cards.c.cards), cards.c.cards + starting >= limit
        query = select(func.coalesce(most, 0), func.count().filter(full))
        most, blocked = (await connection.execute(query)).one()
        if most + starting < limit:
            return None
        reached = select(func.count()).select_from(able.subquery())
        targeted: int = await connection.scalar(reached) or 0
    return Crowd(active=most + starting, blocked=blocked or targeted, targeted=targeted)


async def _starting(connection: AsyncConnection, ours: Sequence[Any]) -> int:
    operations, activities = schema.operations, schema.activities
    query = (
        select(func.count())
        .select_from(operations)
        .join(activities, activities.c.id == operations.c.activity_id)
        .where(
            *ours,
            operations.c.kind == "start",
            operations.c.status == "accepted",
            operations.c.accepted == 0,
        )
    )
    return int(await connection.scalar(query) or 0)


async def oldest_card(call: Call, audience: Audience, *, counted: str) -> str | None:
    """Return the oldest running activity of this dialect, on devices of the audience if so counted."""
    table, members, devices = schema.activities, schema.activity_devices, schema.devices
    query = (
        select(table.c.public_id)
        .where(
            table.c.app_id == call.app.row, table.c.status == "active", table.c.dialect == DIALECT
        )
        .order_by(table.c.id)
        .limit(1)
    )
    async with call.service.database.read() as connection:
        if counted == "device":
            clause = await call.service.audiences.clause(connection, call.app, audience)
            shown_on = (
                select(members.c.activity_id)
                .join(devices, devices.c.id == members.c.device_id)
                .where(members.c.retired_at.is_(None), clause)
            )
            query = query.where(table.c.id.in_(shown_on))
        found: str | None = await connection.scalar(query)
    return found


async def was_told(call: Call, key: Key | None) -> bool:
    """Return whether an idempotency key was used before."""
    if key is None:
        return False
    table = schema.idempotency
    query = select(table.c.created_at).where(
        table.c.app_id == call.app.row, table.c.caller == key.caller, table.c.key == key.key
    )
    return await call.service.database.scalar(query) is not None


async def result_of(call: Call, operation: str) -> Result:
    """Return what became of an operation so far, if it is known (still)."""
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
    if row.reason:
        errors.append(row.reason)
    over, counted = row.finished_at is not None, {"unregistered": unregistered, "persons": persons}
    return view_of(Result, row, finished=over, errors=errors, **counted)


async def labels_of(call: Call, operation: str) -> dict[str, Any] | None:
    """Return what a notification was asked with, or None if there is none of that id."""
    table = schema.operations
    text = await call.service.database.scalar(
        select(table.c.request).where(
            named(call.app, table, operation), table.c.kind == "notification"
        )
    )
    return None if text is None else msgspec.json.decode(text)


async def relabel(call: Call, operation: str, labels: Mapping[str, Any]) -> None:
    """Give a notification other tags or metadata, which later replacements then keep."""
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
    state, tags = msgspec.json.decode(row.content_state), msgspec.json.decode(row.tags)
    audience = msgspec.json.decode(row.audience, type=Audience)
    return view_of(Card, row, state=state, audience=audience, tags=tuple(tags))
