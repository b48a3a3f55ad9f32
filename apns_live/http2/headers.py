"""Header blocks decoded: the only file that imports a decoder (RFC 7541).

Two decoders can stand behind ``HeaderDecoder``: the Rust one inside ``jh2`` (about a microsecond
a block) and the pure Python ``hpack``. The Rust class is private to its package, panics on some
hostile blocks with an exception that is no ``Exception`` and a stack trace on stderr, and accepts
a few blocks that RFC 7541 forbids. So every block's form is checked first
(``header_blocks.py``), and the padding of Huffman-coded strings afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

import hpack
from hpack.exceptions import HPACKError
from hpack.exceptions import OversizedHeaderListError as HpackOversized
from hpack.huffman_table import decode_huffman

from apns_live.errors import Http2ConnectionError, InvalidSetting
from apns_live.http2.constants import DEFAULT_HEADER_TABLE_SIZE, ErrorCode
from apns_live.http2.field_rules import list_size
from apns_live.http2.header_blocks import (
    check_huffman_padding,
    compression_error,
    inspect_block,
)
from apns_live.refusals import refused

DecodedField = tuple[bytes, ...]
"""Name and value; the Rust decoder adds whether the field was marked never-indexed."""

DECODER_VARIABLE = "APNS_LIVE_HEADER_DECODER"
"""Environment variable that forces ``jh2`` or ``hpack``."""

LENIENCIES: dict[str, str] = {}
"""What we accept although ``hpack`` refuses it, each with its reason. Nothing at present."""

_MEMO_LIMIT = 64
_MEMO_BYTES = 64
_Decode = Callable[[bytes, bool], list[Any]]


class EncodedString(bytes):
    """A string as it came in a header block (RFC 7541, section 5.2); ``str()`` decodes it.

    It was never looked at, so ``str()`` is empty when the text is not properly coded.
    """

    __slots__ = ()

    def __str__(self) -> str:
        try:
            text = decode_huffman(self[1:]) if self[0] & 0x80 else self[1:]
        except (HPACKError, IndexError):
            return ""
        return bytes(text).decode("latin-1")


def _too_large() -> Http2ConnectionError:
    return Http2ConnectionError(
        "the header list is larger than we allow", ErrorCode.ENHANCE_YOUR_CALM
    )


def _self_check(decoder: Any) -> bool:
    """Tell whether a decoder does what this file expects of it, on three small blocks."""
    try:
        first = decoder.decode(b"\x88\x40\x01a\x01b", True)
        again = decoder.decode(b"\xbe\x00\x81\x1f\x01c", True)
        emptied = decoder.decode(b"\x20", True)
        raised = ""
        try:
            decoder.decode(b"\xbe", True)
        except Exception as error:  # noqa: BLE001 - any error is the right answer here
            raised = str(error)
    except BaseException:  # noqa: BLE001 - a panic is not an Exception
        return False
    plain = [tuple(field[:2]) for field in first]
    return (
        plain == [(b":status", b"200"), (b"a", b"b")]
        and [tuple(field[:2]) for field in again] == [(b"a", b"b"), (b"a", b"c")]
        and list(emptied) == []
        and bool(raised)
    )


def _load_rust() -> tuple[Any, type[BaseException] | None]:
    try:
        from jh2 import _hazmat  # noqa: PLC0415 - its absence is an answer, not a failure
    except ImportError:
        return None, None
    decoder = getattr(_hazmat, "Decoder", None)
    oversized = getattr(_hazmat, "OversizedHeaderListError", None)
    try:
        usable = decoder is not None and oversized is not None and _self_check(decoder())
    except BaseException:  # noqa: BLE001 - a panic is not an Exception
        usable = False
    return (decoder, oversized) if usable else (None, None)


_RUST_DECODER, _RUST_OVERSIZED = _load_rust()


def choose_decoder(name: str | None = None) -> str:
    """Return which decoder runs: ``name``, else the environment's choice, else the fastest.

    Raises InvalidSetting when the one asked for is unknown or not usable.
    """
    wanted = name or os.environ.get(DECODER_VARIABLE) or ""
    if wanted not in {"", "jh2", "hpack"}:
        raise refused(InvalidSetting, "decoder", DECODER_VARIABLE, wanted=wanted)
    if wanted == "jh2" and _RUST_DECODER is None:
        raise refused(InvalidSetting, "decoder_missing", DECODER_VARIABLE)
    return wanted or ("jh2" if _RUST_DECODER is not None else "hpack")


class HeaderDecoder:
    """One direction's header decoder with its dynamic table.

    ``max_header_list_size`` is in bytes as RFC 9113, section 6.5.2 counts them. ``name`` is
    ``jh2`` or ``hpack``; see ``choose_decoder``.
    """

    def __init__(self, max_header_list_size: int = 65_536, *, name: str | None = None) -> None:
        self.decoder_name = choose_decoder(name)
        if self.decoder_name == "jh2":
            self._decode = cast("_Decode", _RUST_DECODER(max_header_list_size).decode)
            self._oversized = cast("type[BaseException]", _RUST_OVERSIZED)
        else:
            self._decode = cast("_Decode", hpack.Decoder(max_header_list_size).decode)
            self._oversized = HpackOversized
        self._table_size = DEFAULT_HEADER_TABLE_SIZE
        self._max_list_size = max_header_list_size
        self._allowed_size = DEFAULT_HEADER_TABLE_SIZE
        self._tolerated_size = DEFAULT_HEADER_TABLE_SIZE
        self._shrink_needed = False
        self._wants_none = False
        self._constants: dict[bytes, list[DecodedField]] = {}
        self._shapes: dict[int, tuple[bytes, bool]] = {}

    def ask_for_no_table(self) -> None:
        """Note that we announce a table of 0 bytes.

        A peer that keeps its table all the same is decoded; one that gave it up may not take it back.
        """
        self._wants_none = True

    @property
    def table_is_empty(self) -> bool:
        """Whether the peer keeps nothing in its table, and told us so."""
        return self._table_size == 0

    def allow_table_size(self, size: int) -> None:
        """Apply our acknowledged HEADER_TABLE_SIZE (0 to 4096 bytes).

        When the peer's table is larger, its next block has to begin with a size update
        (RFC 7541, section 4.2). An encoder that passed several of our values names each of them
        before the last: ``hpack`` does, so what was allowed meanwhile is taken.
        """
        self._tolerated_size = max(self._tolerated_size, size)
        self._allowed_size = size
        self._shrink_needed = self._table_size > size
        self._constants.clear()
        self._shapes.clear()

    def decode(self, block: bytes) -> list[DecodedField]:
        """Return the fields of one whole header block, in order.

        Raises Http2ConnectionError: COMPRESSION_ERROR when the block cannot be decoded,
        ENHANCE_YOUR_CALM when the list is larger than ``max_header_list_size``.
        """
        fields = self._constants.get(block)
        if fields is not None:
            return fields
        # Answers on one connection differ in their last string only (the apns-id). A block that
        # equals a checked one up to that string, and is as long, has the same form.
        shape = self._shapes.get(len(block))
        if shape is not None and block.startswith(shape[0]):
            try:
                fields = cast("list[DecodedField]", self._decode(block, True))
            except BaseException as error:  # noqa: BLE001 - see _failure
                raise self._failure(error) from None
            if shape[1]:
                check_huffman_padding(fields[-1][1], block, len(shape[0]), len(block))
            return fields
        return self._decode_checked(block)

    def _decode_checked(self, block: bytes) -> list[DecodedField]:
        form = inspect_block(block)
        if form.fields * 32 > self._max_list_size:
            raise _too_large()
        if form.size_updates or self._shrink_needed:
            self._apply_size_updates(form.size_updates or ())
        try:
            fields = cast("list[DecodedField]", self._decode(block, True))
        except BaseException as error:  # noqa: BLE001 - see _failure
            raise self._failure(error) from None
        if len(fields) != form.fields:
            raise compression_error("the decoder lost a field")
        # jh2 counts the list without the 32 bytes a field. No field decodes to more than an entry
        # of the table and twice its own bytes, so most blocks need no count.
        surely_small = form.fields * 4096 + 2 * len(block) <= self._max_list_size
        if not surely_small and list_size(fields) > self._max_list_size:
            raise _too_large()
        if form.huffman is not None:
            for number, part, start, end in form.huffman:
                check_huffman_padding(fields[number][part], block, start, end)
        if not surely_small:
            return fields
        if form.constant:
            if len(self._constants) < _MEMO_LIMIT and len(block) <= _MEMO_BYTES:
                self._constants[block] = fields
        elif 0 < form.last_string <= _MEMO_BYTES and not form.size_updates:
            if len(self._shapes) >= _MEMO_LIMIT:
                self._shapes.clear()
            ends_huffman = form.huffman is not None and form.huffman[-1][2] == form.last_string
            self._shapes[len(block)] = (block[: form.last_string], ends_huffman)
        return fields

    def _failure(self, error: BaseException) -> BaseException:
        """Return what to raise for an error of the decoder, a panic included."""
        if isinstance(error, self._oversized):
            return _too_large()
        if isinstance(error, Exception):
            return compression_error(str(error))
        if type(error).__name__ == "PanicException":
            return compression_error("the decoder failed")
        return error  # KeyboardInterrupt and its like are nobody's answer

    def _apply_size_updates(self, updates: Sequence[int]) -> None:
        for size in updates:
            if size > self._tolerated_size:
                raise compression_error("a table size update is above what we allow")
        if self._shrink_needed and not updates:
            raise compression_error("the table size update that we asked for is missing")
        if updates:
            if updates[-1] > self._allowed_size:
                raise compression_error("a table size update is above what we allow")
            if self._table_size == 0 and self._wants_none and max(updates):
                raise compression_error("a table size update is above what we allow")
            self._table_size = updates[-1]
            self._tolerated_size = self._allowed_size
        self._shrink_needed = False
