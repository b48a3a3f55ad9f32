"""Shared steps of calls that send: recipients, limits, buttons.

ActivitySmith's channels are called groups everywhere else; Apple's broadcast channels are something
else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from ...activities.cards.buttons import TapSigner
from ...activities.cards.content_states import State
from ...activities.requests import Audience, End, Presentation
from ...errors import NotAllowed
from ..context import Gateway
from ..keys import ApiKey
from ..reach import check_audience, reaches_anyone
from . import store
from .dialect import DIALECT, Call
from .links import CARD_SECONDS, TapLinks, keep_buttons, with_buttons
from .refusals import CHANNELS, Refused
from .requests import LiveCall

TAPS = "taps of buttons"
"""What the signing key of tap addresses is drawn for, from the store key."""
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


def effective(key: ApiKey, requested: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the channels that a request reaches; None is everyone. Raises `Refused` (403)."""
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


def slugs_of(audience: Audience) -> list[str] | None:
    """Return the channels of a stored audience, as answers name them; None for any other."""
    return list(audience.groups) if audience.groups else None


def check_within(call: Call, card: store.Card, verb: str) -> None:
    """Raise `Refused` (403) if an activity is for others than the key's channels."""
    if not _within(call, card.audience):
        raise Refused(403, "Forbidden", f"This API key cannot {verb} this Live Activity")


def check_audience_within(call: Call, audience: Audience) -> None:
    """Raise `Refused` (403) if a notification was for others than the key's channels."""
    if not _within(call, audience):
        raise Refused(403, "Forbidden", "This API key cannot replace this Push Notification")


def _within(call: Call, audience: Audience) -> bool:
    if call.key.groups is None:
        return True
    try:
        check_audience(call.key, audience)
    except NotAllowed:
        return False
    return bool(audience.groups)


async def reached(
    call: Call, channels: tuple[str, ...] | None, *, for_pushes: bool = False
) -> tuple[str, ...] | None:
    """Return the channels that a request reaches. Raises `Refused`.

    A channel that the request names must be there; of those that the key is bound to, one that was
    deleted since reaches nobody.
    """
    slugs = effective(call.key, channels)
    if slugs is None:
        return None
    missing = await store.missing_groups(call, slugs)
    if missing and channels is not None:
        raise Refused(
            400, CHANNELS, f"No channel {', '.join(missing)}: add it as a group of the app first."
        )
    left = tuple(slug for slug in slugs if slug not in missing)
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
    if not await store.can_notify(call, audience_of(slugs)):
        raise nobody(call, slugs, _NO_TOKEN)


def nobody(call: Call, slugs: tuple[str, ...] | None, message: str) -> Refused:
    """Return the refusal of what reaches no device."""
    return Refused(
        call.chosen.no_recipients_status,
        "No recipients found",
        message,
        extra={"effective_channel_slugs": None if slugs is None else list(slugs)},
    )


@asynccontextmanager
async def one_start_at_a_time(call: Call, *, starts: bool = True) -> AsyncIterator[None]:
    """Let no other start of the app in between looking for room and taking it."""
    if not starts or call.chosen.live_activities is None:
        yield
        return
    gates = _GATES.setdefault(call.gateway, {})
    async with gates.setdefault(call.app.row, asyncio.Lock()):
        yield


async def make_room(call: Call, audience: Audience) -> str | None:
    """Keep to the limit of cards: end the oldest and return its id, or raise `Refused` (429)."""
    service, chosen = call.service, call.chosen
    full = await store.crowd(call, audience, chosen)
    if full is None:
        return None
    if chosen.at_limit == "end_oldest":
        oldest = await store.oldest_card(call, audience, counted=chosen.counted)
        if oldest is not None:
            await service.activities.end(
                call.app,
                End(
                    id=oldest,
                    presentation=Presentation(dismiss_after=0),
                    reason="device limit",
                    dialect=DIALECT,
                ),
            )
            return oldest
    extra: dict[str, Any] = {"limit": chosen.live_activities, "active": full.active}
    if 0 < full.blocked < full.targeted:
        extra |= {"blocked_devices": full.blocked, "targeted_devices": full.targeted}
    raise Refused(
        429,
        "Live Activity limit reached",
        f"Only {chosen.live_activities} concurrent Live Activities are allowed per {chosen.counted}",
        extra=extra,
        retry_after=60.0,
    )


async def draw(
    call: Call, state: State, said: LiveCall, current: dict[str, Any] | None, place: str
) -> State:
    """Return the state with its buttons, whose webhooks are stored. Raises `InvalidInput`."""
    links = links_of(call, place, CARD_SECONDS)
    drawn = with_buttons(state, said.buttons, current=current, links=links)
    await keep_buttons(call, links.used)
    return drawn


def links_of(call: Call, place: str, seconds: float) -> TapLinks:
    """Return what makes tap addresses."""
    return TapLinks(
        TapSigner(call.service.apps.sealer.derive(TAPS)),
        base=call.base(),
        app=call.app.id,
        place=place,
        now=call.moment,
        seconds=seconds,
    )


def fresh_id(call: Call) -> str:
    """Return the id of an activity to come: 32 characters that are safe in an address."""
    digest = hashlib.sha256(call.gateway.new_id().encode()).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()
