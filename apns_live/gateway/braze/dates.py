"""Braze's dates: ISO 8601, in its own examples with an offset without a colon (``+0000``)."""

from __future__ import annotations

from ..reading import moment


def read_date(value: object, field: str) -> float:
    """Return seconds since 1970 of a date; one without an offset is UTC. Raises `InvalidInput`."""
    return moment(value, field, "2026-01-22T00:00:00+0000")
