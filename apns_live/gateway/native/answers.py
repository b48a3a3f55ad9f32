"""The answers of the native API. The structs are their documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from ...activities.requests import Accepted
from ...activities.times import to_text
from ..problems import Problem

Time = Annotated[str, Meta(description="ISO 8601 in UTC")]
Item = TypeVar("Item")
_TIMES = ("_at", "first_session", "last_session")


class StreamAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a stream's put or end. ``operation`` is empty if nothing was sent."""

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


class PageAnswer(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """A page, oldest first. Pass ``next`` as ``after`` to get the following one; None at the end."""

    items: list[Item]
    next: int | None


class TextPageAnswer(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """A page, sorted by name. Pass ``next`` as ``after`` to get the following one; None at the end."""

    items: list[Item]
    next: str | None


class BulkItem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of one item: accepted, or refused."""

    index: int
    accepted: Accepted | None = None
    problem: Problem | None = None


class BulkAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The results in the order of the items."""

    items: list[BulkItem]
    accepted: int
    refused: int


class CountAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How many were stored."""

    count: int


def page(items: Sequence[Item], limit: int) -> PageAnswer[Item]:
    """Return a page's answer from records; a short page is the last one."""
    last: Any = items[-1] if len(items) == limit else {"row": None}
    return PageAnswer(items=[shown_times(one) for one in items], next=last["row"])


def text_page(found: tuple[Sequence[Item], str | None]) -> TextPageAnswer[Item]:
    """Return a page's answer of a list that goes by names."""
    items, further = found
    return TextPageAnswer(items=[shown_times(one) for one in items], next=further)


def is_time(name: str) -> bool:
    """Whether a record's entry of this name is a time: milliseconds in the store, ISO 8601 in answers."""
    return name.endswith(_TIMES)


def shown_times(value: Item) -> Item:
    """Return what encodes as the record, with its times as ISO 8601 in UTC."""
    record: Any = asdict(value) if isinstance(value, msgspec.Struct) else value
    shown: Any = {
        name: to_text(entry) if is_time(name) and isinstance(entry, int) else entry
        for name, entry in record.items()
    }
    return cast("Item", shown)
