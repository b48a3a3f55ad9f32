"""Typed dictionaries of devices and users, ready to be encoded as JSON.

Times are milliseconds since 1970. Tokens are shortened to their first eight digits.
"""

from typing import Any, Literal, TypedDict

Value = str | float | bool | list[str | float] | dict[str, str]


class StartTokenView(TypedDict):
    """A push-to-start token, by its first digits.

    ``unanswered_starts`` that APNs accepted in a row brought neither an activity token nor a receipt; two
    make it ``suspect``: the phone may have replaced it.
    """

    attributes_type: str
    environment: str
    token: str
    registered_at: int
    unanswered_starts: int
    suspect: bool


class KnownDevice(TypedDict):
    """The facts of a device."""

    id: str
    user: str | None
    language: str | None
    country: str | None
    latitude: float | None
    longitude: float | None
    app_version: str | None
    os_version: str | None
    first_session: int | None
    last_session: int | None
    session_count: int | None
    session_time: int | None
    amount_spent: float | None
    push_enabled: bool | None
    frequent_updates: bool | None


class DeviceView(KnownDevice):
    """The facts of a device, and its push-to-start tokens."""

    start_tokens: list[StartTokenView]


class ListedDevice(KnownDevice):
    """A device in a list, without its tokens, tags and attributes."""

    created_at: int
    updated_at: int


class Belongings(TypedDict):
    """Tags, attributes and direct groups of a device or user."""

    tags: dict[str, str | float]
    attributes: dict[str, Value]
    groups: list[str]


class WholeDevice(DeviceView, Belongings):
    """A device with its tags, attributes and direct groups."""


class TokenView(TypedDict):
    """A token by its first digits. A retired one gets no pushes; the reason says why.

    A ``suspect`` start token belongs to a phone that did not answer its last starts.
    """

    kind: Literal["start", "device", "activity"]
    attributes_type: str | None
    activity: str | None
    environment: str
    token: str
    registered_at: int
    retired_at: int | None
    retired_reason: str | None
    suspect: bool


class ListedUser(TypedDict):
    """A user's external id and internal id, and since when the user is known."""

    external_id: str
    id: str
    created_at: int


class WholeUser(ListedUser, Belongings):
    """A user with all stored facts. ``devices`` and ``groups`` have at most 1,000 entries."""

    aliases: dict[str, list[str]]
    devices: list[str]


class GroupView(TypedDict):
    """A group."""

    slug: str
    name: str
    created_at: int


class MemberView(TypedDict):
    """A device by its id, or a user by external id."""

    id: str


class SegmentView(TypedDict):
    """A saved filter."""

    id: str
    name: str
    filter: dict[str, Any]


class StreamView(TypedDict):
    """A stream. ``activity`` is its current activity, null if there is none."""

    key: str
    activity: str | None
    paused_at: int | None
    tags: list[str]
    metadata: dict[str, Any]
    created_at: int
    updated_at: int


class FollowerView(TypedDict):
    """A device of an activity. Without a ``token`` it waits for the app to register one.

    ``acknowledged_version`` is the newest state that APNs accepted for it, 0 for none.
    """

    device: str
    environment: str
    started_at: int | None
    joined_at: int | None
    token: str | None
    registered_at: int | None
    acknowledged_version: int
    retired_at: int | None
    retired_reason: str | None
