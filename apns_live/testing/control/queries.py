"""Query parameters: reading them, and filters over pushes, log entries, tokens and activities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from apns_live.testing.log import LogEntry, PushRecord
from apns_live.testing.phones import Activity, Token

from .views import event_of

T = TypeVar("T")

LIMIT = 100
LONGEST_LIST = 1000


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


def check_names(query: Mapping[str, str], known: Iterable[str]) -> None:
    """Refuse parameters that mean nothing, so that a misspelt filter does not pass everything."""
    names = set(known)
    for name in query:
        if name not in names:
            remedy = f"Use {', '.join(sorted(names))}." if names else "Leave it out."
            raise BadRequestError("unknown parameter", field=name, remedy=remedy)


def integer(
    query: Mapping[str, str], name: str, default: int, *, low: int = 0, high: int = 10**15
) -> int:
    """Return a whole number between ``low`` and ``high``."""
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15 or not low <= int(text) <= high:
        raise BadRequestError(f"not a number from {low} to {high}", field=name)
    return int(text)


def seconds(query: Mapping[str, str], name: str, default: float, *, high: float) -> float:
    """Return a number of seconds from 0 to ``high``."""
    text = query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= high:
        raise BadRequestError(f"not a number of seconds from 0 to {high:g}", field=name)
    return value


def flag(query: Mapping[str, str], name: str) -> bool:
    """Return whether a parameter is 1 or true."""
    text = query.get(name, "0").lower()
    if text not in {"0", "1", "true", "false"}:
        raise BadRequestError("not 0, 1, true or false", field=name)
    return text in {"1", "true"}


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


def matcher(
    query: Mapping[str, str], filters: Mapping[str, Callable[[T], object]]
) -> Callable[[T], bool]:
    """Return a function that says whether something fits every filter in the query."""
    wanted = [
        (read, query[name].lower() if name in _IN_LOWER_CASE else query[name])
        for name, read in filters.items()
        if name in query
    ]

    def fits(item: T) -> bool:
        for read, value in wanted:
            found = read(item)
            if (str(found) if found is not None else "") != value:
                return False
        return True

    return fits


def page(items: Iterator[T], limit: int) -> tuple[list[T], bool]:
    """Return up to ``limit`` items, and whether there are more."""
    found = list(islice(items, limit + 1))
    return found[:limit], len(found) > limit
