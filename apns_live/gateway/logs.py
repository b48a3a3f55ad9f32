"""Suppresses debug lines of other libraries that contain secrets.

At debug level the SQLite driver logs the values of each statement (tokens), the HPACK decoder each
header (keys), and SQLAlchemy each row. More people can read a log than the database. Lines from INFO
on are kept.
"""

import logging
import time
from collections import Counter

LOGGERS = ("aiosqlite", "hpack.hpack", "hpack.table", "sqlalchemy.engine.Engine")


def above_debug(record: logging.LogRecord) -> bool:
    """Whether a record's level is above DEBUG."""
    return record.levelno > logging.DEBUG


def keep_secrets_out() -> None:
    """Drop the debug records of these loggers at any configured level. May be repeated."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(above_debug)


class Seldom:
    """A warning about temporary trouble: at most one line every ten seconds, with the count."""

    def __init__(self, logger: logging.Logger, what: str, every: float = 10.0) -> None:
        self._logger = logger
        self._what = what
        self._every = every
        self._counts: Counter[str] = Counter()
        self._said = -every

    def say(self, about: str) -> None:
        """Count one occurrence, and write the line when it is due."""
        self._counts[about] += 1
        self.flush()

    def flush(self) -> None:
        """Write the line if something was counted and the line is due."""
        if self._counts and time.monotonic() - self._said >= self._every:
            self._said = time.monotonic()
            worst, _ = self._counts.most_common(1)[0]
            self._logger.warning("%d %s; most: %s", self._counts.total(), self._what, worst)
            self._counts.clear()
