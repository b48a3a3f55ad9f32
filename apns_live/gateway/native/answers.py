"""What the native API answers. The structs document the answers; their fields are the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from ...activities.requests import Accepted
from ...activities.times import to_text
from ..problems import Problem

Time = Annotated[str, Meta(description="ISO 8601 in UTC")]
Item = TypeVar("Item")
_TIMES = ("_at", "first_session", "last_session")


class AcceptedAnswer(Accepted, frozen=True, kw_only=True):
    """A write was stored; it is on its way. ``operation`` leads to what becomes of it.

    ``status``: ``accepted``, ``scheduled``, ``superseded`` (a newer revision is there already) or
    ``ignored`` (the activity had ended). ``warning`` says what will not be as one may think.
    """

    devices: int
    queued: int


class StreamAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a put or end of a stream came to. ``operation`` is empty when there was nothing to do."""

    result: Literal["started", "updated", "rotated", "noop", "paused", "ended"]
    key: str
    activity: str | None
    previous: str | None
    operation: str
    version: int
    devices: int
    queued: int
    warning: str
    ignored: bool


class ActivityAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An activity as it is wished to be, and how many devices follow it."""

    id: str
    attributes_type: str
    attributes: dict[str, Any]
    content_state: dict[str, Any]
    status: str
    version: int
    revision: int | None
    stream_key: str | None
    channel: str | None
    environment: str
    tags: list[str]
    metadata: dict[str, Any]
    start_at: Time | None
    started_at: Time | None
    end_at: Time | None
    ended_at: Time | None
    end_reason: str | None
    created_at: Time
    updated_at: Time
    row: int | msgspec.UnsetType = msgspec.UNSET
    devices: int | msgspec.UnsetType = msgspec.UNSET
    queued: int | msgspec.UnsetType = msgspec.UNSET


class PageAnswer(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """A page, the oldest first. ``next`` goes into ``after`` for the one behind; None at the end."""

    items: list[Item]
    next: int | None


class TextPageAnswer(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """A page of a list that goes by names. ``next`` goes into ``after``; None at the end."""

    items: list[Item]
    next: str | None


class BulkItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One write of a bulk call: accepted, or refused."""

    index: int
    accepted: AcceptedAnswer | None = None
    problem: Problem | None = None


class BulkAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Every write of a bulk call in its order."""

    items: list[BulkItem]
    accepted: int
    refused: int


class CountAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How many were taken."""

    count: int


def page(items: Sequence[Mapping[str, Any]], limit: int) -> dict[str, Any]:
    """Return a page's answer from records; a short page is the last one."""
    further = items[-1]["row"] if len(items) == limit else None
    return {"items": [shown_times(one) for one in items], "next": further}


def text_page(found: tuple[Sequence[Mapping[str, Any]], str | None]) -> dict[str, Any]:
    """Return a page's answer of a list that goes by names."""
    items, further = found
    return {"items": [shown_times(one) for one in items], "next": further}


def shown_times(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with its times, which are milliseconds in the store, as ISO 8601 in UTC."""
    return {
        name: to_text(entry) if isinstance(entry, int) and name.endswith(_TIMES) else entry
        for name, entry in value.items()
    }
