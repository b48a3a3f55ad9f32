"""What other libraries say at debug level is kept out where it holds secrets.

The SQLite driver logs each statement with its values (tokens), the HPACK decoder each header of a
request (keys), and SQLAlchemy each row. None of that is of use to who looks for a defect here, and
a log is read by more people than a database. Everything from INFO on stays.
"""

from __future__ import annotations

import logging

LOGGERS = ("aiosqlite", "hpack.hpack", "hpack.table", "sqlalchemy.engine.Engine")


def above_debug(record: logging.LogRecord) -> bool:
    """Whether a record is more than a debugging line."""
    return record.levelno > logging.DEBUG


def keep_secrets_out() -> None:
    """Drop what these loggers say at debug level, whatever their levels are. May be repeated."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(above_debug)
