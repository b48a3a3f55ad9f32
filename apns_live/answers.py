"""Reads APNs' answers: status, reason, the time of a 410, and the server's clock.

An answer may contain anything, also from a proxy in between. No function here raises.
"""

import datetime
import email.utils
import math
from collections.abc import Sequence

import msgspec

from .reasons import Reason, classify

Headers = Sequence[tuple[bytes, bytes]]

_REASON_LIMIT = 100
_MILLISECONDS_LIMIT = 253_402_300_799_000
"""The end of the year 9999."""


class _Body(msgspec.Struct, gc=False):
    reason: object = None
    timestamp: object = None


_decode = msgspec.json.Decoder(_Body).decode


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A refusal, decoded. ``retry_after`` is seconds from now, or None."""

    status: int
    reason: str
    row: Reason
    timestamp: datetime.datetime | None = None
    retry_after: float | None = None
    skew: float | None = None
    """Seconds that our clock is ahead of the server's, or None if the answer has no date."""


def header(headers: Headers, name: bytes) -> str:
    """Return a header's text, or ""."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return ""


def read_answer(status: int, headers: Headers, body: bytes, wall: float) -> Answer:
    """Return a decoded refusal. ``wall`` is our time in seconds since 1970."""
    reason, timestamp = "", None
    if body:
        try:
            parsed = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            parsed = None
        if parsed is not None:
            if isinstance(parsed.reason, str):
                reason = parsed.reason[:_REASON_LIMIT]
            if status == 410:
                timestamp = _milliseconds(parsed.timestamp)
    retry_after = skew = None
    date = header(headers, b"date")
    if date and (told := _http_date(date)) is not None:
        skew = wall - told
    if text := header(headers, b"retry-after"):
        retry_after = read_retry_after(text, wall)
    return Answer(status, reason, classify(status, reason), timestamp, retry_after, skew)


def read_retry_after(text: str, wall: float) -> float | None:
    """Return seconds from a Retry-After, which is seconds or an HTTP date (RFC 9110, 10.2.3)."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    told = _http_date(text)
    return None if told is None else max(0.0, told - wall)


def _http_date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def _milliseconds(value: object) -> datetime.datetime | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not math.isfinite(value) or not 0 <= value <= _MILLISECONDS_LIMIT:
        return None
    return datetime.datetime.fromtimestamp(value / 1000, datetime.UTC)
