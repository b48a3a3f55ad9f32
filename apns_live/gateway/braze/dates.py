"""Braze's dates: ISO 8601, in its own examples with an offset without a colon (``+0000``)."""

from __future__ import annotations

from datetime import UTC, datetime

from ...errors import InvalidInput

_LONGEST = 40


def read_date(value: object, field: str) -> float:
    """Return seconds since 1970 of a date; one without an offset is UTC. Raises `InvalidInput`."""
    if not isinstance(value, str) or not 8 <= len(value) <= _LONGEST:
        raise _bad(field)
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise _bad(field) from None


def _bad(field: str) -> InvalidInput:
    return InvalidInput(
        "is no ISO 8601 date", field=field, remedy="Give one such as 2026-01-22T00:00:00+0000."
    )
