"""Formats log lines as text or JSON, with their request, app and operation.

`configure` sets them up for a program through the standard ``logging.config.dictConfig``. A program
that embeds the service keeps its own configuration and may use `JsonFormatter` or `TextFormatter`.
docs/operate.md lists the loggers.
"""

import logging
import logging.config
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from .observed import CALL

ACCESS = "apns_live.access"
_FIELDS = ("request_id", "app", "operation", "method", "route", "status", "seconds", "address")


def configure(
    form: Literal["text", "json"] = "text", level: str = "info", *, access: bool = False
) -> None:
    """Write the log to standard error. ``access`` adds a line for each answer.

    ``level`` is for our own loggers. Other libraries say nothing below ``warning``: some of them
    log tokens and keys at debug level.
    """
    others = "ERROR" if level == "error" else "WARNING"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": JsonFormatter if form == "json" else TextFormatter}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": others, "handlers": ["stderr"]},
            "loggers": {
                "apns_live": {"level": level.upper()},
                ACCESS: {"level": "INFO" if access else "CRITICAL"},
            },
        }
    )


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the structured fields of a record: its own, and those of the current call."""
    call = CALL.get()
    found: dict[str, Any] = {}
    for name in _FIELDS:
        value = getattr(record, name, None) or (getattr(call, name, None) if call else None)
        if value:
            found[name] = value
    return found


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class JsonFormatter(logging.Formatter):
    """One JSON object a line; an exception's traceback is its field ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": _time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """One line for people to read; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        about = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        message = record.getMessage().replace("\n", "\\n").replace("\r", "\\r")
        line = f"{_time_of(record)} {record.levelname:<7} {record.name}: {message} {about}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
