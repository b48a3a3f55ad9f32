"""Lists of devices, tokens, users and groups, and each of them by itself. Nothing is changed here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...activities.times import to_text
from .answers import TextPageAnswer, Time
from .api import Call, Routes
from .devices import DeviceAnswer, shown_device
from .people import kind_of
from .shapes import TextPage, shown_times

routes = Routes("directory")

Value = str | float | bool | list[str | float] | dict[str, str]
_Given = Annotated[str, Meta(min_length=1, max_length=255)]
_SESSIONS = ("first_session", "last_session")


class DevicesPage(TextPage, frozen=True, kw_only=True):
    """Which devices: all, or those of a user, of a language, of a country."""

    user: _Given | None = None
    language: _Given | None = None
    country: _Given | None = None


class ListedDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device in a list. Its tokens, tags and attributes come with the device by itself."""

    id: str
    user: str | None
    language: str | None
    country: str | None
    latitude: float | None
    longitude: float | None
    app_version: str | None
    os_version: str | None
    first_session: Time | None
    last_session: Time | None
    session_count: int | None
    session_time: int | None
    amount_spent: float | None
    push_enabled: bool | None
    frequent_updates: bool | None
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


class ListedUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user's ids: the caller's own and ours."""

    external_id: str
    id: str
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


_LISTED = {
    "id": "phone-17",
    "user": "user-1",
    "language": "de",
    "country": "DE",
    "latitude": None,
    "longitude": None,
    "app_version": "4.2",
    "os_version": "26.1",
    "first_session": None,
    "last_session": "2027-01-15T08:00:00.000Z",
    "session_count": 12,
    "session_time": 3600,
    "amount_spent": 0.0,
    "push_enabled": True,
    "frequent_updates": None,
    "created_at": "2027-01-01T08:00:00.000Z",
    "updated_at": "2027-01-15T08:00:00.000Z",
}
_TOLD = {
    "tags": {"team": "red", "level": 12},
    "attributes": {"plan": "gold", "renewal": {"date": "2027-01-31"}},
    "groups": ["operators"],
}
_USER = {
    "external_id": "user-1",
    "id": "4be1b3a0-5f0e-5c5e-9f6b-0d1f7b2a9a11",
    "created_at": "2027-01-01T08:00:00.000Z",
}


@routes(
    "GET",
    "/v1/devices",
    "List devices",
    scope="devices:read",
    query=DevicesPage,
    answers={200: TextPageAnswer[ListedDevice]},
    answer_examples={"page": {"items": [_LISTED], "next": "phone-17"}},
    refusals=frozenset({404}),
)
async def list_devices(call: Call) -> dict[str, Any]:
    """All of the app by id, or those of one `user`, one `language` or one `country`.

    A language is exactly that one: `de` is not `de-AT`. For more, count or start a segment.
    """
    query: DevicesPage = call.query
    items, further = await call.service.directory.devices(
        call.app,
        user=query.user,
        language=query.language,
        country=query.country,
        after=query.after,
        limit=query.limit,
    )
    return {"items": [_dated(one) for one in items], "next": further}


@routes(
    "GET",
    "/v1/devices/{device}",
    "Get a device",
    scope="devices:read",
    answers={200: WholeDevice},
    refusals=frozenset({404}),
)
async def get_device(call: Call) -> dict[str, Any]:
    """With its living push-to-start tokens, by their first digits, its tags and attributes."""
    device = call.part("device")
    known = shown_device(await call.service.devices.get(call.app, device))
    return {**known, **await call.service.directory.belongings(call.app, device)}


@routes(
    "GET",
    "/v1/devices/{device}/tokens",
    "List the tokens of a device",
    scope="devices:read",
    answers={200: TokensAnswer},
    answer_examples={
        "two": {
            "items": [
                {
                    "kind": "start",
                    "attributes_type": "MatchAttributes",
                    "activity": None,
                    "environment": "production",
                    "token": "80e1ad44…",
                    "registered_at": "2027-01-15T08:00:00.000Z",
                    "retired_at": "2027-01-16T10:00:00.000Z",
                    "retired_reason": "Unregistered",
                },
                {
                    "kind": "activity",
                    "attributes_type": None,
                    "activity": "match-42",
                    "environment": "production",
                    "token": "9c20f1bb…",
                    "registered_at": "2027-01-15T08:30:00.000Z",
                    "retired_at": None,
                    "retired_reason": None,
                },
            ],
            "next": None,
        }
    },
    refusals=frozenset({404}),
)
async def list_tokens(call: Call) -> dict[str, Any]:
    """By their first eight digits: why a phone is reached, or not.

    Push-to-start and device tokens are listed also when they are retired, with the reason; those of
    activities while they live. 1,000 of each kind at most, the newest.
    """
    found = await call.service.directory.tokens(call.app, call.part("device"))
    return {"items": [shown_times(one) for one in found], "next": None}


@routes(
    "GET",
    "/v1/users",
    "List users",
    scope="devices:read",
    query=TextPage,
    answers={200: TextPageAnswer[ListedUser]},
    answer_examples={"page": {"items": [_USER], "next": "user-1"}},
)
async def list_users(call: Call) -> dict[str, Any]:
    """By the caller's own id."""
    query: TextPage = call.query
    items, further = await call.service.directory.users(
        call.app, after=query.after, limit=query.limit
    )
    return {"items": [shown_times(one) for one in items], "next": further}


@routes(
    "GET",
    "/v1/users/{user}",
    "Get a user",
    scope="devices:read",
    answers={200: WholeUser},
    answer_examples={
        "fan": {**_USER, "aliases": {"crm": ["C-881"]}, **_TOLD, "devices": ["phone-17"]}
    },
    refusals=frozenset({404}),
)
async def get_user(call: Call) -> dict[str, Any]:
    """With aliases, tags, attributes, groups, and the ids of the devices."""
    return shown_times(await call.service.directory.user(call.app, call.part("user")))


@routes(
    "GET",
    "/v1/groups",
    "List groups",
    scope="devices:read",
    query=TextPage,
    answers={200: TextPageAnswer[GroupAnswer]},
)
async def list_groups(call: Call) -> dict[str, Any]:
    """By slug."""
    query: TextPage = call.query
    items, further = await call.service.directory.groups(
        call.app, after=query.after, limit=query.limit
    )
    return {"items": [shown_times(one) for one in items], "next": further}


@routes(
    "GET",
    "/v1/groups/{group}/{kind}",
    "List the devices or the users of a group",
    scope="devices:read",
    query=TextPage,
    answers={200: TextPageAnswer[MemberAnswer]},
    answer_examples={"page": {"items": [{"id": "user-1"}], "next": None}},
    refusals=frozenset({404}),
)
async def list_members(call: Call) -> dict[str, Any]:
    """``kind`` is ``devices`` (those that are in by themselves) or ``users``."""
    query: TextPage = call.query
    items, further = await call.service.directory.members(
        call.app, call.part("group"), kind_of(call), after=query.after, limit=query.limit
    )
    return {"items": items, "next": further}


def _dated(device: dict[str, Any]) -> dict[str, Any]:
    return shown_times(device) | {name: to_text(device[name]) for name in _SESSIONS}
