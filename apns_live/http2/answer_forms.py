"""Recognizes answers without decoding them: most answers differ only in their ids.

APNs answers a push with 200, ``apns-id`` and, in the development environment, ``apns-unique-id``. We
announce a header table of size 0, so each block can be decoded by itself (RFC 7541). The first block is
decoded in full, and its form is stored. A later block that differs only in its ids is well formed too.
Its ``apns-id`` is not needed, and its ``apns-unique-id`` is decoded when it is read. A regular
expression finds many such blocks in a row at once.
"""

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

_IDS = frozenset({b"apns-id", b"apns-unique-id"})
_KEPT = b"apns-unique-id"
_LAST_STATIC = 61
_LONG = 0x7F
"""The size of the length of a string that needs more than one byte for it."""


STRING_SIZES = tuple(
    [1 << 30 if byte & _LONG == _LONG else 1 + (byte & _LONG) for byte in range(256)]
)
"""The size of a string with its length, by its first byte; a longer one is not supported."""


class AnswerForm(NamedTuple):
    """A header block without the values of its ids: the bytes before, between and after them."""

    parts: tuple[bytes, ...]
    """Each is followed by the length and text of an id."""
    tail: bytes
    kept: int
    """The number of the reported id, which is the last, or -1."""


def form_of(
    block: bytes, fields: Sequence[tuple[bytes, bytes]], *, table_is_empty: bool
) -> AnswerForm | None:
    """Return the form of a block that decodes to ``fields``; None if it cannot be stored.

    The block must have an id, not depend on earlier blocks, and change nothing for later blocks.
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
        if index == full:  # no name used in an answer is that far down the static table
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
    return AnswerForm(tuple(parts), block[behind:], kept)


class AnswerRun(NamedTuple):
    """Consecutive answers of one form."""

    stream_ids: tuple[int, ...]
    kept: tuple[bytes, ...]
    """Lengths and texts of the reported ids, or nothing."""
    resets: tuple[bytes, ...]
    """The bytes after each answer: its RST_STREAM frame, or nothing."""
    end: int
    """The end of the run, in bytes."""


_STREAM_ID = rb"[\x00-\x7f].{3}"
_RESET = rb"(\x00\x00\x04\x03.\1.{4})?"
_REACH = 16_384
"""Bytes that are searched for a run: the rest is copied each time."""
_SIZES_REMEMBERED = 64
"""A Huffman-coded UUID has a handful of sizes, two of them about twenty pairs."""


class AnswerRuns:
    """Finds runs of answers that have the form and the sizes of answers that were decoded before.

    A frame's length must agree with the lengths of its ids, so each combination is a branch of the
    expression. It is compiled after 8 answers, and again each time their number has doubled.
    """

    def __init__(self) -> None:
        self._begin(None)

    def _begin(self, form: AnswerForm | None) -> None:
        self.form = form
        self._sizes: set[tuple[int, ...]] = set()
        self._decoded = 0
        self._compile_at = 8
        self._pattern: re.Pattern[bytes] | None = None

    def learn(self, form: AnswerForm | None, block: bytes) -> None:
        """Note a decoded answer, and its form if it can be stored."""
        if form is None:
            return
        if form != self.form:
            self._begin(form)
        at, sizes = 0, [len(block)]
        for part in form.parts:
            at += len(part)
            sizes.append(block[at])
            at += STRING_SIZES[block[at]]
        if len(self._sizes) < _SIZES_REMEMBERED:
            self._sizes.add(tuple(sizes))
        self._decoded += 1
        if self._decoded == self._compile_at:
            self._compile_at *= 2
            self._pattern = _pattern(form, sorted(self._sizes))

    def at(self, data: bytes, begin: int) -> AnswerRun | None:
        """Return the answers in ``data`` from ``begin`` on, if the first frame is one."""
        if self._pattern is None:
            return None
        rows = self._pattern.findall(data, begin, begin + _REACH)
        end = min(len(data), begin + _REACH)
        if rows[-1][-1]:
            end -= len(rows.pop()[-1])
        if not rows:
            return None
        ids, *kept, resets, _ = zip(*rows, strict=True)
        streams = struct.unpack(f">{len(ids)}I", b"".join(ids))
        return AnswerRun(streams, kept[0] if kept else (), resets, end)


def _pattern(form: AnswerForm, sizes: Sequence[tuple[int, ...]]) -> re.Pattern[bytes]:
    """Return a pattern for one HEADERS frame of this form and one of these sizes, or for the rest.

    Its groups are the stream's id, the id that is kept if there is one, the RST_STREAM frame of the
    same stream if it follows, and what is left.
    """
    heads: list[bytes] = []
    texts = [set[bytes]() for _ in form.parts]
    for length, *strings in sizes:
        head, between = re.escape(length.to_bytes(3, "big")), 6
        for part, size, seen in zip(form.parts, strings, texts, strict=True):
            text = b"%s.{%d}" % (re.escape(bytes([size])), size & _LONG)
            head += b".{%d}%s" % (between + len(part), re.escape(bytes([size])))
            between = size & _LONG
            seen.add(text)
        heads.append(b"(?=%s)" % head)
    ids = [b"(?:%s)" % b"|".join(sorted(seen)) for seen in texts]
    if form.kept >= 0:
        ids[-1] = b"(%s)" % ids[-1]
    parts = [re.escape(part) + text for part, text in zip(form.parts, ids, strict=True)]
    block = b"".join([*parts, re.escape(form.tail)])
    frame = rb"(?:%s)...\x01\x05(%s)%s%s" % (b"|".join(heads), _STREAM_ID, block, _RESET)
    return re.compile(frame + b"|(.+)", re.DOTALL)
