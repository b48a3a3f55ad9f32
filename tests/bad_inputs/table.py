"""The form of a row of the bad-input tables: what is done, and what must be said about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from apns_live.errors import InvalidInput


@dataclass(frozen=True)
class BadInput:
    """One bad input. ``remedy`` is a part of the sentence that says what to do."""

    name: str
    call: Callable[[], object]
    error: type[InvalidInput]
    field: str
    remedy: str


def check(row: BadInput) -> None:
    """Do what the row says; fail unless it is refused with the right class, field and remedy."""
    try:
        result = row.call()
    except InvalidInput as error:
        caught = error
    else:
        raise AssertionError(f"{row.name}: not refused, gave {result!r:.200}")
    text = str(caught)
    assert type(caught) is row.error, f"{row.name}: {caught!r}"
    assert caught.field == row.field, f"{row.name}: the field is {caught.field!r}"
    assert row.field in text, f"{row.name}: {text!r} does not name {row.field}"
    assert row.remedy in caught.remedy, f"{row.name}: the remedy is {caught.remedy!r}"
    assert row.remedy in text, f"{row.name}: {text!r} does not hold {row.remedy!r}"
    assert caught.problem, f"{row.name}: no problem is named"
    assert "\n" not in text, f"{row.name}: the message has more than one line"
    assert "\r" not in text, f"{row.name}: the message has a carriage return"
    assert len(text) < 600, f"{row.name}: the message has {len(text)} characters"
