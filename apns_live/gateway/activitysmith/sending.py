"""Shared steps of calls that send: stored cards and streams, recipients, limits.

ActivitySmith's channels are called groups everywhere else. They are not Apple's broadcast channels.
"""

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy import Row, func, not_, select

from ...activities.accept.idempotency import Key
from ...activities.accept.streams import nobody_left
from ...activities.finding import named
from ...activities.people.audience import living_tokens
from ...activities.requests import Audience, End, Presentation
from ...activities.store import schema
from ...activities.store.statements import view_of
from ...errors import NotAllowed
from ..context import Gateway
from ..keys import ApiKey
from ..reach import check_audience, reaches_anyone
from .dialect import CHANNELS, DIALECT, Call, Refused

_GATES: WeakKeyDictionary[Gateway, dict[int, asyncio.Lock]] = WeakKeyDictionary()
_NO_PHONE = (
    "No Live Activity devices matched the effective channel target: no phone among them has handed "
    "this gateway a push-to-start token for {type}. The app has to register its tokens here, and "
    "no longer with ActivitySmith."
)
_NO_TOKEN = (
    "No devices matched the effective channel target: no phone among them has handed this gateway "
    "its device token. The app has to register its tokens here, and no longer with ActivitySmith."
)

_BEYOND = (
    "This API key can only target assigned channels. "
    "Requested channels include channels outside this key scope."
)


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

    ``running`` is the same, or None if it has ended or every device has dismissed it.
    """

    key: str
    paused: bool = False
    card: Card | None = None
    running: Card | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}


async def stream_of(call: Call, key: str) -> Stream | None:
    """Return a stream of the app, or None."""
    streams, activities = schema.streams, schema.activities
    database = call.service.database
    row = await database.row(select(streams).where(named(call.app, streams, key)))
    if row is None:
        return None
    query = select(activities, nobody_left().label("gone"))
    found = await database.row(query.where(activities.c.id == row.activity_id))
    card = None if found is None else _card(found)
    return Stream(
        key=key,
        paused=row.paused_at is not None,
        card=card,
        running=None if found is None or found.gone or found.status == "ended" else card,
        tags=tuple(msgspec.json.decode(row.tags)),
        metadata=msgspec.json.decode(row.metadata),
    )


async def was_told(call: Call, key: Key | None) -> bool:
    """Return whether an idempotency key was used before."""
    if key is None:
        return False
    table = schema.idempotency
    query = select(table.c.created_at).where(table.c.app_id == call.app.row)
    query = query.where(table.c.caller == key.caller, table.c.key == key.key)
    return await call.service.database.scalar(query) is not None


async def own_card(call: Call, activity: str, verb: str) -> Card:
    """Return the activity that a call names. Raises `Refused` if it is unknown, or out of reach."""
    table = schema.activities
    row = await call.service.database.row(select(table).where(named(call.app, table, activity)))
    if row is None:
        text = "No Live Activity of this app has this activity_id: start it first."
        raise Refused(404, "Live Activity not found", text)
    card = _card(row)
    check_within(call, card.audience, f"{verb} this Live Activity")
    return card


def _card(row: Row[Any]) -> Card:
    state, tags = msgspec.json.decode(row.content_state), tuple(msgspec.json.decode(row.tags))
    audience, over = msgspec.json.decode(row.audience, type=Audience), row.status == "ended"
    return view_of(Card, row, ended=over, state=state, audience=audience, tags=tags)


def effective(key: ApiKey, requested: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the channels that a request reaches; None means everyone. Raises `Refused` (403)."""
    if key.groups is None:
        return None if requested is None else tuple(requested)
    if requested is None:
        return tuple(sorted(key.groups))
    if not set(requested) <= key.groups:
        raise Refused(403, CHANNELS, _BEYOND)
    return tuple(requested)


def audience_of(slugs: Sequence[str] | None) -> Audience:
    """Return the audience of effective channels."""
    return Audience(everyone=True) if slugs is None else Audience(groups=tuple(slugs))


def slugs_of(audience: Audience) -> tuple[str, ...] | None:
    """Return the channels of a stored audience; None for an audience of another kind."""
    return audience.groups or None


def check_within(call: Call, audience: Audience, what: str) -> None:
    """Raise `Refused` (403) if the key does not reach all of an audience; ``what`` is the action."""
    try:
        check_audience(call.key, audience)
    except NotAllowed:
        reached = False
    else:
        reached = call.key.groups is None or bool(audience.groups)
    if not reached:
        raise Refused(403, "Forbidden", f"This API key cannot {what}")


async def reached(
    call: Call, channels: tuple[str, ...] | None, *, for_pushes: bool = False
) -> tuple[str, ...] | None:
    """Return the channels that a request reaches. Raises `Refused`.

    A channel that the request names must exist. A deleted channel of the key reaches no device.
    """
    if (slugs := effective(call.key, channels)) is None:
        return None
    table = schema.groups
    query = select(table.c.slug).where(table.c.app_id == call.app.row, table.c.slug.in_(slugs))
    found = {row.slug for row in await call.service.database.rows(query)}
    missing = [slug for slug in slugs if slug not in found]
    if missing and channels is not None:
        text = f"No channel {', '.join(missing)}: add it as a group of the app first."
        raise Refused(400, CHANNELS, text)
    if not (left := tuple(slug for slug in slugs if slug in found)):
        raise _nobody(call, slugs, for_pushes)
    return left


async def check_reach(
    call: Call, slugs: tuple[str, ...] | None, *, for_pushes: bool = False
) -> None:
    """Raise `Refused` (422) if a start, or an ordinary push, would reach no phone."""
    app, audience, audiences = call.app, audience_of(slugs), call.service.audiences
    if not for_pushes:
        found = await reaches_anyone(call.gateway, app, audience, call.chosen.attributes_type)
    else:
        async with call.service.database.read() as connection:
            clause = await audiences.clause(connection, app, audience)
            query = living_tokens(schema.device_tokens, app, app.environment)
            query = query.where(schema.devices.c.push_enabled.is_(True), clause).limit(1)
            found = await connection.scalar(query) is not None
    if not found:
        raise _nobody(call, slugs, for_pushes)


def _nobody(call: Call, slugs: tuple[str, ...] | None, for_pushes: bool) -> Refused:
    chosen = call.chosen
    text = _NO_TOKEN if for_pushes else _NO_PHONE.format(type=chosen.attributes_type)
    status, label = chosen.no_recipients_status, "No recipients found"
    return Refused(status, label, text, effective_channel_slugs=slugs)


def one_start_at_a_time(call: Call, *, starts: bool = True) -> AbstractAsyncContextManager[None]:
    """Serialize the starts of an app, so that two cannot use the same free card."""
    if not starts or call.chosen.live_activities is None:
        return nullcontext()
    return _GATES.setdefault(call.gateway, {}).setdefault(call.app.row, asyncio.Lock())


async def make_room(call: Call, audience: Audience) -> str | None:
    """Enforce the limit of cards: end the oldest and return its id, or raise `Refused` (429).

    The oldest is one of this dialect, and of the audience if the limit is one of each device.
    """
    chosen, table, members = call.chosen, schema.activities, schema.activity_devices
    if (full := await _crowd(call, audience)) is None:
        return None
    active, blocked, targeted = full
    if chosen.at_limit == "end_oldest":
        ours = (table.c.app_id == call.app.row, table.c.dialect == DIALECT)
        query = select(table.c.public_id).where(*ours, table.c.status == "active")
        query = query.order_by(table.c.id).limit(1)
        async with call.service.database.read() as connection:
            if chosen.counted == "device":
                clause = await call.service.audiences.clause(connection, call.app, audience)
                shown_on = (
                    select(members.c.activity_id)
                    .join(schema.devices, schema.devices.c.id == members.c.device_id)
                    .where(members.c.retired_at.is_(None), clause)
                )
                query = query.where(table.c.id.in_(shown_on))
            oldest: str | None = await connection.scalar(query)
        if oldest is not None:
            gone = Presentation(dismiss_after=0)
            end = End(id=oldest, presentation=gone, reason="device limit", dialect=DIALECT)
            await call.service.activities.end(call.app, end)
            return oldest
    most = chosen.live_activities
    extra: dict[str, Any] = {"limit": most, "active": active}
    if 0 < blocked < targeted:
        extra |= {"blocked_devices": blocked, "targeted_devices": targeted}
    text = f"Only {most} concurrent Live Activities are allowed per {chosen.counted}"
    raise Refused(429, "Live Activity limit reached", text, retry_after=60.0, **extra)


async def _crowd(call: Call, audience: Audience) -> tuple[int, int, int] | None:
    """Return the cards, and how many devices are full and are targeted; None if there is room.

    A start that is still being sent counts on every device. So two concurrent starts cannot both pass.
    """
    chosen = call.chosen
    if (limit := chosen.live_activities) is None:
        return None
    activities, operations, members = schema.activities, schema.operations, schema.activity_devices
    devices, kind, environment = schema.devices, chosen.attributes_type, call.app.environment
    ours = (
        activities.c.app_id == call.app.row,
        activities.c.status == "active",
        activities.c.dialect == DIALECT,
        not_(nobody_left()),
    )
    database, audiences = call.service.database, call.service.audiences
    running = select(func.count()).select_from(activities).where(*ours)
    total: int = await database.scalar(running) or 0
    if total < limit:
        return None
    if chosen.counted == "account":
        return total, 0, 0
    tokens = await audiences.start_tokens(
        call.app, audience, attributes_type=kind, environment=environment
    )
    async with database.read() as connection:
        sent = (
            select(func.count())
            .select_from(operations)
            .join(activities, activities.c.id == operations.c.activity_id)
            .where(*ours, operations.c.kind == "start")
            .where(operations.c.status == "accepted", operations.c.accepted == 0)
        )
        starting: int = await connection.scalar(sent) or 0
        able = tokens.with_only_columns(devices.c.id, maintain_column_froms=True).distinct()
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
    return most + starting, blocked or targeted, targeted


def fresh_id(call: Call) -> str:
    """Return an id for a new activity: 32 characters that are safe in a URL."""
    digest = hashlib.sha256(call.service.new_id().encode()).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()
