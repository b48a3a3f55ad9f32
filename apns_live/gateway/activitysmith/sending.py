"""Shared steps of calls that send: recipients, limits, buttons.

ActivitySmith's channels are called groups everywhere else. They are not Apple's broadcast channels.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import func, not_, select

from ...activities.accept.streams import nobody_left
from ...activities.cards.buttons import TapSigner
from ...activities.cards.content_states import State
from ...activities.people.audience import living_tokens
from ...activities.requests import Audience, End, Presentation
from ...activities.store import schema
from ...errors import NotAllowed
from ..context import Gateway
from ..keys import ApiKey
from ..reach import check_audience, reaches_anyone
from . import store
from .answers import CHANNELS, Refused
from .buttons import CARD_SECONDS, TAPS, TapLinks, keep_buttons, with_buttons
from .dialect import DIALECT, Call
from .requests import LiveCall

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


class Crowd(NamedTuple):
    """The devices that have reached their limit of cards."""

    active: int
    blocked: int
    targeted: int


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


def check_within(call: Call, card: store.Card, verb: str) -> None:
    """Raise `Refused` (403) if an activity's audience is outside of the key's channels."""
    check_audience_within(call, card.audience, f"{verb} this Live Activity")


def check_audience_within(call: Call, audience: Audience, what: str) -> None:
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
    slugs = effective(call.key, channels)
    if slugs is None:
        return None
    table = schema.groups
    query = select(table.c.slug).where(table.c.app_id == call.app.row, table.c.slug.in_(slugs))
    found = {row.slug for row in await call.service.database.rows(query)}
    missing = [slug for slug in slugs if slug not in found]
    if missing and channels is not None:
        text = f"No channel {', '.join(missing)}: add it as a group of the app first."
        raise Refused(400, CHANNELS, text)
    left = tuple(slug for slug in slugs if slug in found)
    if not left:
        kind = call.chosen.attributes_type
        raise nobody(call, slugs, _NO_TOKEN if for_pushes else _NO_PHONE.format(type=kind))
    return left


async def check_phones(call: Call, slugs: tuple[str, ...] | None) -> None:
    """Raise `Refused` (422) if a start would reach no phone."""
    kind = call.chosen.attributes_type
    if not await reaches_anyone(call.gateway, call.app, audience_of(slugs), kind):
        raise nobody(call, slugs, _NO_PHONE.format(type=kind))


async def check_devices(call: Call, slugs: tuple[str, ...] | None) -> None:
    """Raise `Refused` (422) if an ordinary push would reach no phone."""
    devices, tokens = schema.devices, schema.device_tokens
    async with call.service.database.read() as connection:
        clause = await call.service.audiences.clause(connection, call.app, audience_of(slugs))
        query = living_tokens(tokens, call.app, call.app.environment)
        query = query.where(devices.c.push_enabled.is_(True), clause).limit(1)
        if await connection.scalar(query) is None:
            raise nobody(call, slugs, _NO_TOKEN)


def nobody(call: Call, slugs: tuple[str, ...] | None, message: str) -> Refused:
    """Return the refusal of a call that reaches no device."""
    status = call.chosen.no_recipients_status
    return Refused(status, "No recipients found", message, effective_channel_slugs=slugs)


@asynccontextmanager
async def one_start_at_a_time(call: Call, *, starts: bool = True) -> AsyncIterator[None]:
    """Serialize the starts of an app, so that two cannot use the same free card."""
    if not starts or call.chosen.live_activities is None:
        yield
        return
    gates = _GATES.setdefault(call.gateway, {})
    async with gates.setdefault(call.app.row, asyncio.Lock()):
        yield


async def make_room(call: Call, audience: Audience) -> str | None:
    """Enforce the limit of cards: end the oldest and return its id, or raise `Refused` (429)."""
    service, chosen = call.service, call.chosen
    full = await _crowd(call, audience)
    if full is None:
        return None
    if chosen.at_limit == "end_oldest":
        oldest = await _oldest_card(call, audience)
        if oldest is not None:
            gone = Presentation(dismiss_after=0)
            end = End(id=oldest, presentation=gone, reason="device limit", dialect=DIALECT)
            await service.activities.end(call.app, end)
            return oldest
    most = chosen.live_activities
    extra: dict[str, Any] = {"limit": most, "active": full.active}
    if 0 < full.blocked < full.targeted:
        extra |= {"blocked_devices": full.blocked, "targeted_devices": full.targeted}
    text = f"Only {most} concurrent Live Activities are allowed per {chosen.counted}"
    raise Refused(429, "Live Activity limit reached", text, retry_after=60.0, **extra)


async def _crowd(call: Call, audience: Audience) -> Crowd | None:
    """Return the devices at the limit of this dialect's cards, or None if there is room.

    A start that is still being sent counts on every device. So two concurrent starts cannot both pass.
    """
    chosen = call.chosen
    limit = chosen.live_activities
    if limit is None:
        return None
    activities, operations, members = schema.activities, schema.operations, schema.activity_devices
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
        sent = select(func.count()).select_from(operations)
        sent = sent.join(activities, activities.c.id == operations.c.activity_id)
        unanswered = (operations.c.status == "accepted", operations.c.accepted == 0)
        starting: int = (
            await connection.scalar(sent.where(*ours, operations.c.kind == "start", *unanswered))
            or 0
        )
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


async def _oldest_card(call: Call, audience: Audience) -> str | None:
    """Return the oldest running activity of this dialect; only of the audience if devices count."""
    table, members, devices = schema.activities, schema.activity_devices, schema.devices
    ours = (table.c.app_id == call.app.row, table.c.dialect == DIALECT)
    query = select(table.c.public_id).where(*ours, table.c.status == "active")
    query = query.order_by(table.c.id).limit(1)
    async with call.service.database.read() as connection:
        if call.chosen.counted == "device":
            clause = await call.service.audiences.clause(connection, call.app, audience)
            shown_on = (
                select(members.c.activity_id)
                .join(devices, devices.c.id == members.c.device_id)
                .where(members.c.retired_at.is_(None), clause)
            )
            query = query.where(table.c.id.in_(shown_on))
        found: str | None = await connection.scalar(query)
    return found


async def draw(
    call: Call, state: State, said: LiveCall, current: dict[str, Any] | None, place: str
) -> State:
    """Return the state with its buttons, and store their webhooks. Raises `InvalidInput`."""
    links = links_of(call, place, CARD_SECONDS)
    drawn = with_buttons(state, said.buttons, current=current, links=links)
    await keep_buttons(call, links.used)
    return drawn


def links_of(call: Call, place: str, seconds: float) -> TapLinks:
    """Return the maker of tap addresses for buttons on ``place``."""
    return TapLinks(
        TapSigner(call.service.apps.sealer.derive(TAPS)),
        base=call.base(),
        app=call.app.id,
        place=place,
        now=call.moment,
        seconds=seconds,
    )


def fresh_id(call: Call) -> str:
    """Return an id for a new activity: 32 characters that are safe in a URL."""
    digest = hashlib.sha256(call.service.new_id().encode()).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()
