"""Classifies database errors: a bug, try again, or not usable.

PostgreSQL says it by SQLSTATE (PostgreSQL 18, appendix A), SQLite by the class of the error and its text.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from ...errors import Busy, StoreError

logger = logging.getLogger("apns_live.activities")

STORE_FAILURES = (SQLAlchemyError, StoreError, Busy, OSError)
"""The errors after which work on the store is tried again."""
_AGAIN = frozenset(
    {
        "40001",  # serialization failure
        "40P01",  # deadlock: the other transaction continues
        "53300",  # too many connections
        "55P03",  # a lock was not granted in time
        "57014",  # cancelled: it took too long
        "57P03",  # cannot connect now: it is starting
        "25P03",  # the transaction was idle too long
    }
)
_UNUSABLE = ("08", "25006", "53", "57P", "58", "XX")
"""Connection, read-only, out of disk or memory, shut down, input and output, damaged."""
_LOCKED = ("database is locked", "database table is locked", "busy")
_FILE = (
    "disk",
    "readonly",
    "read-only",
    "not a database",
    "malformed",
    "unable to open",
    "is closed",
)


QUIET = 5.0
"""Seconds without a failure after which an outage is over, once the database works."""


class Outage:
    """Logs an outage of a database: a line for each kind of work that fails, and one at the end."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failed: Counter[str] = Counter()
        self._began = self._last = 0.0

    def failed(self, what: str, error: BaseException) -> None:
        """Note that a kind of work failed and is tried again. Logs a defect each time, with its traceback."""
        if not is_temporary(error):
            logger.error("%s; trying again", what, exc_info=error)
            return
        self._last = self._monotonic()
        if not self._failed:
            self._began = self._last
        self._failed[what] += 1
        if self._failed[what] == 1:
            cause = str(error) or type(error).__name__
            logger.error("%s; trying again until it works: %.300s", what, cause)

    def works(self) -> None:
        """Note that a transaction worked."""
        if self._failed and self._monotonic() - self._last >= QUIET:
            counts = ", ".join(f"{what} ({count} times)" for what, count in self._failed.items())
            lasted = self._last - self._began
            logger.warning("the database works again; for %.1f s it did not: %s", lasted, counts)
            self._failed.clear()


def explained(error: Exception, database: object, *, committing: bool = False) -> Exception:
    """Return the error for callers; a statement's own error is returned unchanged.

    ``committing``: the commit was running, so its result is unknown.
    """
    if (kind := _kind(error)) is None:
        return error
    what = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    cause = f"{type(error).__name__}: {what[0]}" if isinstance(error, OSError) else what[0]
    if committing:
        return StoreError(
            f"{database!r} did not confirm the commit ({cause:.200}), so this may be stored or not: "
            "read it again, or repeat the call with its idempotency key"
        )
    if kind is Busy:
        return Busy(f"{database!r} cannot take it now ({cause:.200}): nothing was stored")
    return StoreError(
        f"{database!r} cannot be reached or used ({cause:.200}): check the address, the server, its disk and "
        "its rights"
    )


def is_temporary(error: BaseException) -> bool:
    """Whether the same work may succeed later. Otherwise the work itself is wrong."""
    if isinstance(error, Busy | StoreError):
        return True
    return isinstance(error, SQLAlchemyError | OSError) and _kind(error) is not None


def _kind(error: Exception) -> type[Busy | StoreError] | None:
    if isinstance(error, NoConnectionFree | TimeoutError):
        return Busy
    if isinstance(error, OSError):
        return StoreError
    if not isinstance(error, DBAPIError) or isinstance(error, IntegrityError):
        return None
    if error.connection_invalidated:
        return StoreError
    if state := str(getattr(error.orig, "sqlstate", None) or ""):
        if state in _AGAIN:
            return Busy
        return StoreError if state.startswith(_UNUSABLE) else None
    text = str(error.orig).lower()
    if any(words in text for words in _LOCKED):
        return Busy
    if any(words in text for words in _FILE) or isinstance(error.orig, OSError):
        return StoreError
    return None
