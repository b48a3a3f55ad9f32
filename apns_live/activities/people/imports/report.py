"""What an import says of itself: how far it is, what it did, which lines it refused and why."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ....errors import InvalidInput

KEPT_ERRORS = 100
"""Refused lines that a report holds; a rejects file holds them all."""


class LineError(msgspec.Struct, frozen=True, kw_only=True):
    """Why one line was refused. ``line`` counts from 1, the header of a CSV file among them."""

    line: int
    field: str
    problem: str
    remedy: str

    @classmethod
    def of(cls, line: int, error: InvalidInput) -> LineError:
        """Return the error of one line in this form."""
        return cls(line=line, field=error.field, problem=error.problem, remedy=error.remedy)

    def __str__(self) -> str:
        where = f", {self.field}" if self.field else ""
        return f"line {self.line}{where}: {self.problem}. {self.remedy}".rstrip()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an import is, told after each batch. ``size`` is None for a pipe."""

    lines: int
    accepted: int
    refused: int
    bytes_read: int
    size: int | None


class Report(msgspec.Struct, kw_only=True):
    """What an import did, or with ``dry_run`` would have done.

    ``accepted`` and ``refused`` count lines; ``skipped`` those that a vendor's list has for other
    platforms than Apple's. ``devices``, ``users`` and ``tokens`` count what the accepted lines told,
    whether it was new or known already. ``errors`` holds the first refused lines.
    """

    dry_run: bool
    lines: int = 0
    accepted: int = 0
    refused: int = 0
    skipped: int = 0
    devices: int = 0
    users: int = 0
    tokens: int = 0
    ignored: tuple[str, ...] = ()
    """Columns, or keys, that were left out because the caller or the vendor's layout said so."""
    errors: list[LineError] = []
    seconds: float = 0.0


Telling = Callable[[Progress], None]
