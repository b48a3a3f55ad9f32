"""The bodies and answers of the native API. The structs are their documentation.

Unknown fields of a body are errors. Times are seconds since 1970, or ISO 8601 with an offset; answers have
ISO 8601 in UTC.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Generic, Literal, TypeVar, cast

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from ...activities import requests
from ...activities.apps import App
from ...activities.requests.notify import Notify
from ...activities.times import to_text
from ...errors import InvalidInput
from ..problems import Problem
from ..settings import BULK

Text = str | dict[str, str]
Moment = float | Annotated[datetime, Meta(tz=True)]
Revision = Annotated[int, Meta(ge=0, le=2**53)]
PLAIN = r"^(?!\.{1,2}$)[^/\x00-\x1f\x7f]+$"
"""An id that can stand in a path: no slash, and none of the two that mean a folder there."""
Id = Annotated[str, Meta(min_length=1, max_length=255, pattern=PLAIN)]
Label = Annotated[str, Meta(min_length=1, max_length=64)]
Labels = Annotated[tuple[Label, ...], Meta(max_length=100)]
Metadata = Annotated[dict[str, str | int | float | bool], Meta(max_length=50)]
Seconds = Annotated[float, Meta(ge=0, lt=1e9)]
State = dict[str, Any]
Environment = Literal["production", "sandbox"]

_EARLIEST, _LATEST = 1e9, 1e11
Request = TypeVar("Request", requests.Start, requests.Update, requests.End)


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every body."""


class AlertBody(Strict, frozen=True, kw_only=True):
    """An alert. Texts may be given by language; ``en`` is then required."""

    title: Text
    body: Text
    sound: str | None = None


class AudienceBody(requests.Audience, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All devices that match any given part, minus the excluded ones."""


class _Shown(Strict, frozen=True, kw_only=True):
    """The presentation of a state: alert, dates, scores."""

    alert: AlertBody | None = None
    stale_date: Moment | None = None
    stale_after: Seconds | None = None
    relevance_score: float | None = None
    urgency: requests.Urgency | None = None


class StreamBody(_Shown, frozen=True, kw_only=True):
    """The state of a stream, and everything that a start needs.

    ``id_attribute`` is the attribute that gets the activity's id, which the app needs to register its
    token; empty for none. ``hand_over_after`` is the age of a card, in seconds, at which a new one
    replaces it before iOS ends it at 8 hours; 0 for never.
    """

    attributes_type: str
    content_state: State
    alert: AlertBody
    audience: AudienceBody
    attributes: State = {}
    id_attribute: Annotated[str, Meta(max_length=128)] = "activityId"
    environment: Environment | None = None
    channel: str | None = None
    hand_over_after: Seconds | None = None
    revision: Revision | None = None
    tags: Labels = ()
    metadata: Metadata = {}


class StartBody(StreamBody, frozen=True, kw_only=True):
    """Start an activity on every device of an audience."""

    id: Id | None = None
    start_at: Moment | None = None
    end_at: Moment | None = None


class UpdateBody(_Shown, frozen=True, kw_only=True):
    """A new state. Absent tags and metadata stay unchanged."""

    content_state: State
    revision: Revision | None = None
    tags: Labels | None = None
    metadata: Metadata | None = None


class EndBody(_Shown, frozen=True, kw_only=True):
    """An end. Without a state the card keeps its last one."""

    content_state: State | None = None
    dismissal_date: Moment | None = None
    dismiss_after: Seconds | None = None
    revision: Revision | None = None
    tags: Labels | None = None
    metadata: Metadata | None = None


class BulkStart(StartBody, frozen=True, kw_only=True, tag_field="do", tag="start"):
    """A start in a bulk call."""


class BulkUpdate(UpdateBody, frozen=True, kw_only=True, tag_field="do", tag="update"):
    """An update in a bulk call."""

    id: Id


class BulkEnd(EndBody, frozen=True, kw_only=True, tag_field="do", tag="end"):
    """An end in a bulk call."""

    id: Id


class BulkBody(Strict, frozen=True, kw_only=True):
    """Several items; each is accepted or refused by itself."""

    items: Annotated[list[BulkStart | BulkUpdate | BulkEnd], Meta(min_length=1, max_length=BULK)]


class NotifyBody(Notify, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An ordinary push."""

    audience: AudienceBody = AudienceBody()
    tags: Labels = ()
    dialect: Literal["native"] = "native"


class Page(Strict, frozen=True, kw_only=True):
    """``after`` is the ``next`` of the page before, ``limit`` the size of a page."""

    after: Annotated[int, Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class ActivitiesPage(Page, frozen=True, kw_only=True):
    """A page of activities."""

    status: Literal["scheduled", "active", "ended"] | None = None


class TextPage(Strict, frozen=True, kw_only=True):
    """``after`` is the ``next`` of the page before, ``limit`` the size of a page."""

    after: Annotated[str, Meta(max_length=255)] = ""
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


def seconds(value: float | datetime | None, field: str) -> float | None:
    """Return a moment as seconds since 1970. Raises `InvalidInput` for milliseconds."""
    if value is None:
        return None
    number = value.timestamp() if isinstance(value, datetime) else value
    if not _EARLIEST <= number < _LATEST:
        problem = f"{number:.0f} is not a valid time in seconds since 1970, between 2001 and 5138"
        remedy = "Give seconds, not milliseconds, or ISO 8601 with an offset."
        raise InvalidInput(problem, field, remedy)
    return number


def milliseconds_of(value: float | datetime | None, field: str) -> int | None:
    """Return a moment as milliseconds since 1970. Raises `InvalidInput` as `seconds`."""
    return None if value is None else int((seconds(value, field) or 0) * 1000)


def _presentation(body: _Shown) -> requests.Presentation:
    """Return the presentation of a state."""
    shown = _same(requests.Presentation, body)
    if body.alert is not None:
        shown["alert"] = requests.AlertText(**asdict(body.alert))
    shown["stale_date"] = seconds(body.stale_date, "stale_date")
    # A dismissal in the past is intended: it removes the card at once.
    if isinstance(given := shown.get("dismissal_date"), datetime):
        shown["dismissal_date"] = given.timestamp()
    return requests.Presentation(**shown)


def _request(kind: type[Request], body: _Shown, **further: Any) -> Request:
    """Return the service's request: the fields of equal name, and the presentation of the state."""
    return kind(**{**_same(kind, body), "presentation": _presentation(body), **further})


def _same(kind: type[msgspec.Struct], body: msgspec.Struct) -> dict[str, Any]:
    """Return the values of a body that have a field of the same name in the other type."""
    return {name: getattr(body, name) for name in _names(kind, type(body))}


@cache
def _names(kind: type[msgspec.Struct], body: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(name for name in kind.__struct_fields__ if name in body.__struct_fields__)


def to_start(body: StreamBody, *, stream: str | None = None) -> requests.Start:
    """Return the request of the service."""
    if not isinstance(body, StartBody):
        return _request(requests.Start, body, stream_key=stream)
    moments = {name: seconds(getattr(body, name), name) for name in ("start_at", "end_at")}
    return _request(requests.Start, body, **moments)


def to_update(activity: str, body: UpdateBody) -> requests.Update:
    """Return the request of the service."""
    return _request(requests.Update, body, id=activity)


def to_end(activity: str, body: EndBody, *, reason: str = "requested") -> requests.End:
    """Return the request of the service."""
    return _request(requests.End, body, id=activity, reason=reason)


Time = Annotated[str, Meta(description="ISO 8601 in UTC")]
Item = TypeVar("Item")


class StreamAnswer(
    msgspec.Struct, frozen=True, kw_only=True, rename={"operation": "result", "id": "operation"}
):
    """The result of a stream's put or end. ``operation`` is empty if nothing was sent."""

    operation: Literal["started", "updated", "rotated", "noop", "paused", "ended"]
    key: str
    activity: str | None
    previous: str | None
    id: str
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
    accepted: requests.Accepted | None = None
    problem: Problem | None = None


class BulkAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The results in the order of the items."""

    items: list[BulkItem]
    accepted: int
    refused: int


class CountAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How many were stored."""

    count: int


async def page(
    read: Callable[..., Awaitable[Sequence[Item]]], app: App, query: Page, **further: Any
) -> PageAnswer[Item]:
    """Return a page of records that ``read`` returns for a query, the last one if it is not full."""
    items = await read(app, **asdict(query), **further)
    last: Any = items[-1] if len(items) == query.limit else {"row": None}
    return PageAnswer(items=[shown_times(one) for one in items], next=last["row"])


def text_page(found: tuple[Sequence[Item], str | None]) -> TextPageAnswer[Item]:
    """Return a page's answer for a list that is sorted by name."""
    items, further = found
    return TextPageAnswer(items=[shown_times(one) for one in items], next=further)


def is_time(name: str) -> bool:
    """Whether a record's entry of this name is a time: milliseconds in the store, ISO 8601 in answers."""
    return name.endswith(("_at", "first_session", "last_session"))


def shown_times(value: Item) -> Item:
    """Return a value that encodes like the record, with its times as ISO 8601 in UTC."""
    record: Any = asdict(value) if isinstance(value, msgspec.Struct) else value
    shown: Any = {
        name: to_text(entry) if is_time(name) and isinstance(entry, int) else entry
        for name, entry in record.items()
    }
    return cast("Item", shown)
