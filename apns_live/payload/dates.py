"""Apple's dates: seconds since 1970 in keys and headers, since 2001 in Swift's Date."""

from __future__ import annotations

import datetime
import math
from typing import TypeAlias

from ..errors import InvalidPayload
from ..refusals import refused

DateInput: TypeAlias = datetime.datetime | datetime.timedelta | int | float
"""An aware datetime, a timedelta from now, or seconds since 1970."""

APPLE_EPOCH = 978_307_200
"""2001-01-01T00:00:00Z in seconds since 1970: the zero of Swift's default Date coding."""
MILLISECONDS_FROM = 1e11
"""Seconds reach this in the year 5138, so a larger number is milliseconds."""
DURATIONS_UP_TO = 1e9
"""Seconds since 1970 passed this in 2001; a smaller number is a duration or an Apple date."""


def apple_date(moment: datetime.datetime) -> float:
    """Return ``moment`` as the number that Swift's default decoder reads as a ``Date``.

    That is seconds since 2001-01-01 UTC (Apple, "Starting and updating Live Activities with
    ActivityKit push notifications": the phone uses default decoders). Use it for every ``Date``
    inside a content state or attributes. Raises `InvalidPayload` for anything but an aware
    datetime.
    """
    if not isinstance(moment, datetime.datetime):
        raise refused(InvalidPayload, "apple_date_kind", "moment", kind=type(moment).__name__)
    if moment.utcoffset() is None:
        raise refused(InvalidPayload, "apple_date_naive", "moment")
    return moment.timestamp() - APPLE_EPOCH


def epoch_seconds(value: object, *, now: float, field: str, zero_allowed: bool = False) -> int:
    """Return a date input as whole seconds since 1970, rounded down.

    ``now`` is seconds since 1970 and the base of a timedelta. ``zero_allowed`` lets the number 0
    through, which means "at once" for an expiration or a dismissal. Raises `InvalidPayload` for
    milliseconds, durations given as numbers, naive datetimes, and everything that is not a date.
    """
    if isinstance(value, datetime.datetime):
        if value.utcoffset() is None:
            raise refused(InvalidPayload, "date_naive", field)
        number = value.timestamp()
    elif isinstance(value, datetime.timedelta):
        number = now + value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise refused(InvalidPayload, "date_kind", field, kind=_named(value))
    else:
        number = _plausible(value, field, zero_allowed=zero_allowed)
    if number < 0 or number >= MILLISECONDS_FROM:
        raise refused(InvalidPayload, "date_range", field)
    return int(number)


def _plausible(value: float, field: str, *, zero_allowed: bool) -> float:
    if isinstance(value, float) and not math.isfinite(value):
        raise refused(InvalidPayload, "date_not_finite", field, value=value)
    if abs(value) >= MILLISECONDS_FROM:
        raise refused(InvalidPayload, "date_milliseconds", field, value=value)
    if value < DURATIONS_UP_TO and not (value == 0 and zero_allowed):
        raise refused(InvalidPayload, "date_early", field, value=value)
    return value


def _named(value: object) -> str:
    if isinstance(value, datetime.date):
        return "a date without a time"
    return f"a {type(value).__name__}"
