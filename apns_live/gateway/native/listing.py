"""What an app has, in lists and one by one. Nothing is changed here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...errors import NotFound
from ..calls import Call
from ..reach import check_stream
from .answers import TextPageAnswer, Time, shown_times, text_page
from .audiences import SegmentAnswer
from .devices import DeviceAnswer, KnownDevice, shown_device
from .face import Routes
from .people import UserAnswer, kind_of
from .shapes import TextPage

routes = Routes("directory", scope="devices:read")

Value = str | float | bool | list[str | float] | dict[str, str]
_Given = Annotated[str, Meta(min_length=1, max_length=255)]


class DevicesPage(TextPage, frozen=True, kw_only=True):
    """Which devices: all, or those of a user, of a language, of a country."""

    user: _Given | None = None
    language: _Given | None = None
    country: _Given | None = None


class ListedDevice(KnownDevice, frozen=True, kw_only=True):
    """A device in a list. Its tokens, tags and attributes come with the device by itself."""

    created_at: Time
    updated_at: Time


class WholeDevice(DeviceAnswer, frozen=True, kw_only=True):
    """A device with what was told of it, and the groups that it is in by itself."""

    tags: dict[str, str | float]
    attributes: dict[str, Value]
    groups: list[str]


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A token by its first digits. One that is retired is not sent to; the reason says why."""

    kind: Literal["start", "device", "activity"]
    attributes_type: str | None
    activity: str | None
    environment: str
    token: str
    registered_at: Time
    retired_at: Time | None
    retired_reason: str | None


class TokensAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Every token of a device."""

    items: list[TokenAnswer]
    next: None = None


class ListedUser(UserAnswer, frozen=True, kw_only=True):
    """A user's ids, and since when it is known."""

    created_at: Time


class WholeUser(ListedUser, frozen=True, kw_only=True):
    """A user with all that is known. ``devices`` and ``groups`` name 1,000 at most."""

    aliases: dict[str, list[str]]
    tags: dict[str, str | float]
    attributes: dict[str, Value]
    groups: list[str]
    devices: list[str]


class GroupAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A group."""

    slug: str
    name: str
    created_at: Time


class MemberAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A device by its id, or a user by the caller's own."""

    id: str


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """A stream. ``activity`` is what runs behind it now, null when nothing does."""

    key: str
    activity: str | None
    paused_at: Time | None
    tags: list[str]
    metadata: dict[str, Any]
    created_at: Time
    updated_at: Time


class FollowerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A device of an activity. Without a ``token`` it waits for the app to hand one in.

    ``acknowledged_version`` is the newest state that APNs accepted for it, 0 for none.
    """

    device: str
    environment: str
    started_at: Time | None
    joined_at: Time | None
    token: str | None
    registered_at: Time | None
    acknowledged_version: int
    retired_at: Time | None
    retired_reason: str | None


@routes("GET /v1/devices", "List devices", answer=TextPageAnswer[ListedDevice], refusals={404})
async def list_devices(call: Call, query: DevicesPage) -> dict[str, Any]:
    """All of the app by id, or those of one `user`, one `language` or one `country`.

    A language is exactly that one: `de` is not `de-AT`. For more, count or start a segment.
    """
    return text_page(
        await call.service.directory.devices(
            call.app,
            user=query.user,
            language=query.language,
            country=query.country,
            **call.paging,
        )
    )


@routes("GET /v1/devices/{device}", "Get a device", answer=WholeDevice)
async def get_device(call: Call, device: str) -> dict[str, Any]:
    """With its living push-to-start tokens, by their first digits, its tags and attributes."""
    known = shown_device(await call.service.devices.get(call.app, device))
    return {**known, **await call.service.directory.belongings(call.app, device)}


@routes("GET /v1/devices/{device}/tokens", "List the tokens of a device", answer=TokensAnswer)
async def list_tokens(call: Call, device: str) -> dict[str, Any]:
    """By their first eight digits: why a phone is reached, or not.

    Push-to-start and device tokens are listed also when they are retired, with the reason; those of
    activities while they live. 1,000 of each kind at most, the newest.
    """
    found = await call.service.directory.tokens(call.app, device)
    return {"items": [shown_times(one) for one in found], "next": None}


@routes("GET /v1/users", "List users", answer=TextPageAnswer[ListedUser])
async def list_users(call: Call, query: TextPage) -> dict[str, Any]:
    """By the caller's own id."""
    return text_page(await call.service.directory.users(call.app, **call.paging))


@routes("GET /v1/users/{user:path}", "Get a user", answer=WholeUser)
async def get_user(call: Call, user: str) -> dict[str, Any]:
    """With aliases, tags, attributes, groups, and the ids of the devices."""
    return shown_times(await call.service.directory.user(call.app, user))


@routes("GET /v1/groups", "List groups", answer=TextPageAnswer[GroupAnswer])
async def list_groups(call: Call, query: TextPage) -> dict[str, Any]:
    """By slug."""
    return text_page(await call.service.directory.groups(call.app, **call.paging))


@routes("GET /v1/groups/{group}", "Get a group", answer=GroupAnswer)
async def get_group(call: Call, group: str) -> dict[str, Any]:
    """Its members are two lists of their own."""
    return shown_times(await call.service.directory.group(call.app, group))


@routes(
    "GET /v1/groups/{group}/{kind}",
    "List the devices or the users of a group",
    answer=TextPageAnswer[MemberAnswer],
)
async def list_members(call: Call, group: str, query: TextPage) -> dict[str, Any]:
    """``kind`` is ``devices`` (those that are in by themselves) or ``users``."""
    kind = kind_of(call)
    return text_page(await call.service.directory.members(call.app, group, kind, **call.paging))


@routes(
    "GET /v1/segments",
    "List segments",
    scope="audiences:read",
    answer=TextPageAnswer[SegmentAnswer],
)
async def list_segments(call: Call, query: TextPage) -> dict[str, Any]:
    """The saved ones by name; those that every app has are not among them."""
    return text_page(await call.service.directory.segments(call.app, **call.paging))


@routes("GET /v1/segments/{segment}", "Get a segment", scope="audiences:read", answer=SegmentAnswer)
async def get_segment(call: Call, segment: str) -> dict[str, Any]:
    """By name or id."""
    return await call.service.directory.segment(call.app, segment)


@routes(
    "GET /v1/streams", "List streams", scope="activities:read", answer=TextPageAnswer[StreamState]
)
async def list_streams(call: Call, query: TextPage) -> dict[str, Any]:
    """By key."""
    return text_page(await call.service.directory.streams(call.app, **call.paging))


@routes(
    "GET /v1/streams/{stream}",
    "Get a stream",
    scope="activities:read",
    answer=StreamState,
    grouped=True,
)
async def get_stream(call: Call, stream: str) -> dict[str, Any]:
    """With the id of the activity that runs behind it."""
    name = stream
    await check_stream(call.gateway, call.key, name)
    found = await call.service.directory.stream(call.app, name)
    if call.key.groups is not None and found["activity"] is None:
        # Whose it was cannot be told any more, so it is not this key's to see.
        raise NotFound(f"the app {call.app.id!r} has no {name!r} within this key's groups")
    return shown_times(found)


@routes(
    "GET /v1/activities/{activity}/devices",
    "List the devices of an activity",
    scope="activities:read",
    answer=TextPageAnswer[FollowerAnswer],
    grouped=True,
)
async def list_followers(call: Call, activity: str, query: TextPage) -> dict[str, Any]:
    """Who was started or joined, whose token came, and which state each of them has."""
    return text_page(await call.service.directory.followers(call.app, activity, **call.paging))
