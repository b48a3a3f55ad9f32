"""Answers recognised without decoding them: most answers differ only in their ids.

APNs answers a push with 200, ``apns-id`` and, in the development environment, ``apns-unique-id``. We
announce a header table of size 0, so such a block stands for itself (RFC 7541): the first one is
decoded in full, and its form is kept. A later block that equals it but for the ids is known to be well
formed; nobody needs the ``apns-id``, and the ``apns-unique-id`` is decoded when somebody reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_IDS = frozenset({b"apns-id", b"apns-unique-id"})
_KEPT = b"apns-unique-id"
_LAST_STATIC = 61
_LONG = 0x7F
"""The length of a string that needs more than its first byte."""


STRING_SIZES = tuple(
    [1 << 30 if byte & _LONG == _LONG else 1 + (byte & _LONG) for byte in range(256)]
)
"""How long a string is with its length, by its first byte; a longer one fits nowhere."""


class AnswerForm(NamedTuple):
    """A header block without the values of its ids: what stands before, between and behind them."""

    parts: tuple[tuple[bytes, int], ...]
    """Bytes and their number; each is followed by the length and text of an id."""
    tail: bytes
    kept: int
    """The number of the id that is reported, which is the last, or -1."""


NO_FORM = AnswerForm(((b"", 1 << 30),), b"", -1)
"""Matches nothing: no block is so long."""


def form_of(
    block: bytes, fields: Sequence[tuple[bytes, ...]], *, table_is_empty: bool
) -> AnswerForm | None:
    """Return the form of a block that decodes to ``fields``; None if it has none to keep.

    It must hold an id, stand for itself, and change nothing for later blocks.
    """
    parts: list[bytes] = []
    names: list[bytes] = []
    at = behind = 0
    for field in fields:
        byte = block[at]
        at += 1
        if byte > 0x80:
            if byte & _LONG > _LAST_STATIC:
                return None
            continue
        if byte >= 0x40:
            if not table_is_empty:
                return None
            index, full = byte & 0x3F, 0x3F
        elif byte < 0x20:
            index, full = byte & 0x0F, 0x0F
        else:
            return None
        if index == full:  # no name that comes with a push is so far down the static table
            return None
        if index == 0:
            if block[at] & _LONG == _LONG:
                return None
            at += 1 + (block[at] & _LONG)
        length = block[at] & _LONG
        if length == _LONG:
            return None
        if field[0] in _IDS:
            parts.append(block[behind:at])
            names.append(field[0])
            behind = at + 1 + length
        at += 1 + length
    kept = names.index(_KEPT) if _KEPT in names else -1
    if not parts or at != len(block) or kept not in (-1, len(parts) - 1):
        return None
    return AnswerForm(tuple([(part, len(part)) for part in parts]), block[behind:], kept)
