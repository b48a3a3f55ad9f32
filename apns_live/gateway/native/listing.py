"""Lists and single objects of an app. Read only."""

from __future__ import annotations

from typing import Annotated, cast

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from ...activities.people import views
from ...errors import NotFound
from ..calls import Call
from ..reach import check_stream
from .answers import TextPageAnswer, shown_times, text_page
from .devices import shown_device
from .face import Routes
from .people import kind_of
from .shapes import TextPage

routes = Routes("directory", scope="devices:read")

_Given = Annotated[str, Meta(min_length=1, max_length=255)]


class DevicesPage(TextPage, frozen=True, kw_only=True):
    """Filters: a user, a language or a country."""

    user: _Given | None = None
    language: _Given | None = None
    country: _Given | None = None


class TokensAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Every token of a device."""

    items: list[views.TokenView]
    next: None = None


@routes("GET /v1/devices", "List devices", refusals={404})
async def list_devices(call: Call, query: DevicesPage) -> TextPageAnswer[views.ListedDevice]:
    """All devices of the app by id, or those of one `user`, one `language` or one `country`.

    Languages match exactly: `de` does not match `de-AT`. For other conditions use a segment.
    """
    return text_page(await call.service.directory.devices(call.app, **asdict(query)))


@routes("GET /v1/devices/{device}", "Get a device")
async def get_device(call: Call, device: str) -> views.WholeDevice:
    """With its active push-to-start tokens (first digits only), tags and attributes."""
    known = shown_device(await call.service.devices.get(call.app, device))
    held = await call.service.directory.belongings(call.app, device)
    return cast("views.WholeDevice", {**known, **held})


@routes("GET /v1/devices/{device}/tokens", "List the tokens of a device")
async def list_tokens(call: Call, device: str) -> TokensAnswer:
    """Tokens by their first eight digits.

    Includes retired push-to-start and device tokens, with the reason, and activity tokens of running
    activities. At most the newest 1,000 of each kind.
    """
    found = await call.service.directory.tokens(call.app, device)
    return TokensAnswer(items=[shown_times(one) for one in found])


@routes("GET /v1/users", "List users")
async def list_users(call: Call, query: TextPage) -> TextPageAnswer[views.ListedUser]:
    """Sorted by the caller's id."""
    return text_page(await call.service.directory.users(call.app, **asdict(query)))


@routes("GET /v1/users/{user:path}", "Get a user")
async def get_user(call: Call, user: str) -> views.WholeUser:
    """With aliases, tags, attributes, groups, and the ids of the devices."""
    return shown_times(await call.service.directory.user(call.app, user))


@routes("GET /v1/groups", "List groups")
async def list_groups(call: Call, query: TextPage) -> TextPageAnswer[views.GroupView]:
    """Sorted by slug."""
    return text_page(await call.service.directory.groups(call.app, **asdict(query)))


@routes("GET /v1/groups/{group}", "Get a group")
async def get_group(call: Call, group: str) -> views.GroupView:
    """Without its members, which have their own lists."""
    return shown_times(await call.service.directory.group(call.app, group))


@routes("GET /v1/groups/{group}/{kind}", "List the devices or the users of a group")
async def list_members(call: Call, group: str, query: TextPage) -> TextPageAnswer[views.MemberView]:
    """``kind`` is ``devices`` (those that were added directly) or ``users``."""
    kind = kind_of(call)
    return text_page(await call.service.directory.members(call.app, group, kind, **asdict(query)))


@routes("GET /v1/segments", "List segments", scope="audiences:read")
async def list_segments(call: Call, query: TextPage) -> TextPageAnswer[views.SegmentView]:
    """The saved segments by name, without the predefined ones."""
    return text_page(await call.service.directory.segments(call.app, **asdict(query)))


@routes("GET /v1/segments/{segment}", "Get a segment", scope="audiences:read")
async def get_segment(call: Call, segment: str) -> views.SegmentView:
    """By name or id."""
    return await call.service.directory.segment(call.app, segment)


@routes("GET /v1/streams", "List streams", scope="activities:read")
async def list_streams(call: Call, query: TextPage) -> TextPageAnswer[views.StreamView]:
    """Sorted by key."""
    return text_page(await call.service.directory.streams(call.app, **asdict(query)))


@routes("GET /v1/streams/{stream}", "Get a stream", scope="activities:read", grouped=True)
async def get_stream(call: Call, stream: str) -> views.StreamView:
    """With the id of its running activity."""
    await check_stream(call.gateway, call.key, stream)
    found = await call.service.directory.stream(call.app, stream)
    if call.key.groups is not None and found["activity"] is None:
        # Whose it was cannot be told any more, so it is not this key's to see.
        raise NotFound(f"the app {call.app.id!r} has no {stream!r} within this key's groups")
    return shown_times(found)


@routes(
    "GET /v1/activities/{activity}/devices",
    "List the devices of an activity",
    scope="activities:read",
    grouped=True,
)
async def list_followers(
    call: Call, activity: str, query: TextPage
) -> TextPageAnswer[views.FollowerView]:
    """The devices of an activity, with their token and the state that each has."""
    return text_page(await call.service.directory.followers(call.app, activity, **asdict(query)))
