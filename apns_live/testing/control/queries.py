"""Query parameters of lists: filters over pushes, log entries, tokens and activities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from apns_live.testing.log import LogEntry, PushRecord
from apns_live.testing.phones import Activity, Token

from ...misfits import misfit
from .views import event_of

T = TypeVar("T")

LONGEST_LIST = 1000
LONGEST_POLL = 60.0


class BadRequestError(Exception):
    """A request that cannot be served as it is. ``status`` is the answer's."""

    def __init__(
        self, problem: str, *, field: str = "", remedy: str = "", status: int = 400
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.field = field
        self.remedy = remedy
        self.status = status


Row = Annotated[int, Meta(ge=0, le=10**15)]
Most = Annotated[int, Meta(ge=0, le=5000)]


class Query(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters. One that means nothing is refused: a misspelt filter must not pass everything."""


class PageQuery(Query):
    """What every list takes: the rows after a number, so many at most."""

    after: Row = 0
    limit: Annotated[int, Meta(ge=1, le=LONGEST_LIST)] = 100


class NextQuery(Query):
    """How to wait for the next one: after a number, else after all there are; ``timeout`` is seconds."""

    after: Row | None = None
    timeout: Annotated[float, Meta(ge=0, le=LONGEST_POLL)] = 10.0


class DevicesQuery(PageQuery):
    """Which phones."""

    bundle_id: str | None = None
    automatic: bool | None = None


class EventsQuery(Query):
    """How many phones and pushes a snapshot has at most, and whether pushes come with their payload."""

    devices: Most = 500
    pushes: Most = 200
    payload: bool = True


PUSH_FILTERS: Mapping[str, Callable[[PushRecord], object]] = {
    "token": lambda record: record.push.token,
    "device": lambda record: record.device,
    "activity": lambda record: record.activity,
    "channel": lambda record: record.push.channel_id,
    "event": event_of,
    "push_type": lambda record: record.push.push_type,
    "status": lambda record: record.status,
    "reason": lambda record: record.reason,
    "state": lambda record: record.state,
    "why": lambda record: record.why,
    "apns_id": lambda record: record.push.apns_id.lower(),
    "collapse_id": lambda record: record.push.collapse_id,
}

LOG_FILTERS: Mapping[str, Callable[[LogEntry], object]] = {
    "push": lambda entry: entry.record.number,
    "token": lambda entry: entry.record.push.token,
    "device": lambda entry: entry.device,
    "activity": lambda entry: entry.activity,
    "state": lambda entry: entry.state,
    "why": lambda entry: entry.why,
}

TOKEN_FILTERS: Mapping[str, Callable[[Token], object]] = {
    "kind": lambda token: token.kind,
    "device": lambda token: token.device.id,
    "bundle_id": lambda token: token.bundle_id,
    "attributes_type": lambda token: token.attributes_type,
    "condition": lambda token: token.condition,
}

ACTIVITY_FILTERS: Mapping[str, Callable[[Activity], object]] = {
    "device": lambda activity: activity.device.id,
    "state": lambda activity: activity.state,
    "attributes_type": lambda activity: activity.attributes_type,
    "channel": lambda activity: activity.channel,
}

_IN_LOWER_CASE = {"token", "apns_id"}


def _filtered(name: str, base: type[Query], filters: Iterable[str], *more: Any) -> type[Any]:
    texts = [(each, str | None, None) for each in filters]
    return msgspec.defstruct(name, [*texts, *more], bases=(base,), forbid_unknown_fields=True)


_FLAGS = [("newest", bool, False), ("payload", bool, False)]
PushesQuery = _filtered("PushesQuery", PageQuery, PUSH_FILTERS, *_FLAGS)
NextPushQuery = _filtered("NextPushQuery", NextQuery, PUSH_FILTERS)
LogQuery = _filtered("LogQuery", PageQuery, LOG_FILTERS)
TokensQuery = _filtered("TokensQuery", PageQuery, TOKEN_FILTERS)
NextTokenQuery = _filtered("NextTokenQuery", NextQuery, TOKEN_FILTERS)
ActivitiesQuery = _filtered("ActivitiesQuery", PageQuery, ACTIVITY_FILTERS)


def read_query(given: Mapping[str, str], shape: type[Query]) -> Query:
    """Return the parameters of a request. Raises ``BadRequestError``."""
    try:
        return msgspec.convert(dict(given), shape, strict=False)
    except msgspec.ValidationError as error:
        found = misfit(error)
    remedy, known = found.remedy, ", ".join(sorted(shape.__struct_fields__))
    if found.field not in shape.__struct_fields__ and known:
        remedy = f"Use {known}."
    raise BadRequestError(found.problem, field=found.field, remedy=remedy)


def matcher(query: object, filters: Mapping[str, Callable[[T], object]]) -> Callable[[T], bool]:
    """Return a function that says whether something fits every filter in the query."""
    asked = {name: getattr(query, name) for name in filters}
    wanted = [
        (filters[name], value.lower() if name in _IN_LOWER_CASE else value)
        for name, value in asked.items()
        if value is not None
    ]

    def fits(item: T) -> bool:
        for read, value in wanted:
            found = read(item)
            if (str(found) if found is not None else "") != value:
                return False
        return True

    return fits


class Page(NamedTuple):
    """Some of a list, and the number after which to go on; None when there is no more."""

    items: list[Any]
    next: int | None

    @classmethod
    def of(cls, items: Iterator[T], limit: int, number: Callable[[T], int]) -> Page:
        """Return up to ``limit`` items; ``number`` is called with the last one."""
        found = list(islice(items, limit + 1))
        more = len(found) > limit
        return cls(found[:limit], number(found[limit - 1]) if more else None)
