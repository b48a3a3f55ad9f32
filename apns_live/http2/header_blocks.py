"""The form of an HPACK header block, checked before a decoder sees it (RFC 7541, section 6).

The walk follows the representations from byte to byte without decoding a string. It finds what
makes the Rust decoder panic (a representation cut short, an integer without an end), what it
accepts against the RFC (a size update behind the first field), and what a changed table size
obliges the peer to send.
"""

from __future__ import annotations

from typing import NamedTuple

from hpack.huffman_constants import REQUEST_CODES_LENGTH

from apns_live.errors import Http2ConnectionError
from apns_live.http2.constants import ErrorCode

_INTEGER_LIMIT = 2**28
_LAST_STATIC = 0x80 | 61
# RFC 7541, section 4.2 knows of two: the smallest size in between, and the final one.
_SIZE_UPDATES_LIMIT = 16
_CODE_LENGTHS = bytes(REQUEST_CODES_LENGTH[:256])


class BlockForm(NamedTuple):
    """What the walk found in one header block."""

    fields: int
    """How many fields the block holds."""
    last_string: int
    """Offset of the last string's content when that string ends the block, or -1."""
    constant: bool
    """Only fields of the static table: the block decodes the same whatever came before."""
    huffman: list[tuple[int, int, int, int]] | None
    """Huffman-coded strings: number of the field, 0 name or 1 value, start, end."""
    size_updates: list[int] | None


def compression_error(problem: str) -> Http2ConnectionError:
    """Return the connection error for a header block that cannot be decoded."""
    return Http2ConnectionError(f"bad header block: {problem}", ErrorCode.COMPRESSION_ERROR)


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """Return a multi-byte integer (RFC 7541, section 5.1) and the offset behind it.

    ``value`` is the full prefix. Five bytes are enough for anything that is allowed here.
    """
    shift = 0
    while True:
        if at >= len(block):
            raise compression_error("an integer is cut short")
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 28:
            raise compression_error("an integer is too long")
    if value > _INTEGER_LIMIT:
        raise compression_error("an integer is too large")
    return value, at


def inspect_block(block: bytes) -> BlockForm:
    """Return the form of a header block. Raises Http2ConnectionError (COMPRESSION_ERROR)."""
    size_updates: list[int] | None = None
    huffman: list[tuple[int, int, int, int]] | None = None
    constant = True
    last_string = -1
    fields = at = 0
    end = len(block)
    while at < end:
        byte = block[at]
        at += 1
        if byte >= 0x80:  # indexed field
            fields += 1
            last_string = -1
            if byte > _LAST_STATIC:
                constant = False
                if byte == 0xFF:
                    _, at = _integer(block, at, 0x7F)
            elif byte == 0x80:
                raise compression_error("index 0 is not used")
            continue
        constant = False
        if byte & 0xE0 == 0x20:  # dynamic table size update
            size = byte & 0x1F
            if size == 0x1F:
                size, at = _integer(block, at, size)
            if fields:
                raise compression_error("a table size update stands behind a field")
            size_updates = [*(size_updates or ()), size]
            if len(size_updates) > _SIZE_UPDATES_LIMIT:
                raise compression_error("too many table size updates")
            continue
        fields += 1
        mask = 0x3F if byte >= 0x40 else 0x0F
        index = byte & mask
        if index == mask:
            _, at = _integer(block, at, index)
        for part in (1,) if index else (0, 1):  # the name, if it is no index, and the value
            if at >= end:
                raise compression_error("a field is cut short")
            prefix = block[at]
            at += 1
            length = prefix & 0x7F
            if length == 0x7F:
                length, at = _integer(block, at, length)
            last_string = at
            at += length
            if at > end:
                raise compression_error("a string is cut short")
            if prefix & 0x80:
                if huffman is None:
                    huffman = []
                huffman.append((fields - 1, part, last_string, at))
    return BlockForm(fields, last_string, constant, huffman, size_updates)


def check_huffman_padding(text: bytes, block: bytes, start: int, end: int) -> None:
    """Check that a Huffman-coded string, decoded as ``text``, is padded as RFC 7541 demands.

    Fewer than eight bits, all ones (section 5.2). Raises Http2ConnectionError.
    """
    padding = 8 * (end - start) - sum(text.translate(_CODE_LENGTHS))
    if not 0 <= padding < 8:
        raise compression_error("a Huffman-coded string has a whole byte of padding")
    mask = (1 << padding) - 1
    if padding and block[end - 1] & mask != mask:
        raise compression_error("the padding of a Huffman-coded string is not all ones")
