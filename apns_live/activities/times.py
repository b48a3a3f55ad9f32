"""Times in the database: whole milliseconds since 1970."""

from datetime import UTC, datetime

from ..clock import Clock

ACTIVE_MILLISECONDS = 8 * 3600 * 1000
"""How long the system keeps a card active (Apple, "Displaying live data with Live Activities")."""
EARLIEST_HAND_OVER, LATEST_HAND_OVER = 300.0, 7.9 * 3600
"""Valid ages of a card in seconds: starts are limited, and a look must fit in before 8 hours."""


def milliseconds(clock: Clock) -> int:
    """Return the clock's time in milliseconds since 1970."""
    return int(clock.time() * 1000)


def to_text(value: int | None) -> str | None:
    """Return ISO 8601 in UTC with milliseconds and ``Z``."""
    if value is None:
        return None
    moment = datetime.fromtimestamp(value / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
