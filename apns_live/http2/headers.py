"""Decodes header blocks with ``hpack``; the only file that imports a decoder (RFC 7541).

It decodes the answers that ``answer_forms.py`` does not recognize, and every request of a server connection.
"""

from __future__ import annotations

import msgspec
from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.hpack import decode_integer
from hpack.huffman_table import decode_huffman

from apns_live.errors import Http2ConnectionError
from apns_live.http2.frames import DEFAULT_HEADER_TABLE_SIZE, ErrorCode

_LAST_STATIC = 0x80 | 61
_MEMO_LIMIT = 64
_MEMO_BYTES = 64
_SIZE_UPDATES_LIMIT = 16
"""RFC 7541, section 4.2 knows of two: the smallest size in between, and the final one."""


class EncodedString(msgspec.Struct, frozen=True, gc=False):
    """A string as it came in a header block (RFC 7541, section 5.2); ``str()`` decodes it.

    It was never looked at, so ``str()`` is empty when the text is not properly coded.
    """

    raw: bytes
    """Its length, and its text."""

    def __str__(self) -> str:
        try:
            text = decode_huffman(self.raw[1:]) if self.raw[0] & 0x80 else self.raw[1:]
        except (HPACKError, IndexError):
            return ""
        return bytes(text).decode("latin-1")


def _compression_error(problem: str) -> Http2ConnectionError:
    return Http2ConnectionError(f"bad header block: {problem}", ErrorCode.COMPRESSION_ERROR)


class HeaderDecoder:
    """One direction's header decoder with its dynamic table.

    ``max_header_list_size`` is in bytes as RFC 9113, section 6.5.2 counts them.
    """

    def __init__(self, max_header_list_size: int = 65_536) -> None:
        self._hpack = Decoder(max_header_list_size)
        self._table_size = DEFAULT_HEADER_TABLE_SIZE
        self._allowed_size = DEFAULT_HEADER_TABLE_SIZE
        self._tolerated_size = DEFAULT_HEADER_TABLE_SIZE
        self._shrink_needed = False
        self.wants_none = False
        """We announce a table of 0 bytes. A peer that keeps its table all the same is decoded; one that
        gave it up may not take it back."""
        self._constants: dict[bytes, list[tuple[bytes, bytes]]] = {}

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

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """Return the fields of one whole header block, in order.

        Raises Http2ConnectionError: COMPRESSION_ERROR when the block cannot be decoded,
        ENHANCE_YOUR_CALM when the list is larger than ``max_header_list_size``.
        """
        fields = self._constants.get(block)
        if fields is not None:
            return fields
        try:
            if self._shrink_needed or (block and block[0] & 0xE0 == 0x20):
                self._check_size_updates(block)
            fields = list(self._hpack.decode(block, raw=True))
        except Http2ConnectionError:
            raise
        except OversizedHeaderListError:
            raise Http2ConnectionError(
                "the header list is larger than we allow", ErrorCode.ENHANCE_YOUR_CALM
            ) from None
        except Exception as error:  # noqa: BLE001 - hostile bytes, whatever they do to the library
            raise _compression_error(str(error)) from None
        # A block of fields of the static table alone decodes the same whatever came before.
        constant = len(block) <= _MEMO_BYTES and max(block, default=0) <= _LAST_STATIC
        if constant and min(block, default=0) >= 0x80 and len(self._constants) < _MEMO_LIMIT:
            self._constants[block] = fields
        return fields

    def _check_size_updates(self, block: bytes) -> None:
        """Follow the dynamic table sizes that a block begins with (RFC 7541, section 6.3)."""
        updates: list[int] = []
        at = 0
        while at < len(block) and block[at] & 0xE0 == 0x20:
            size, consumed = decode_integer(block[at:], 5)
            updates.append(size)
            at += consumed
            if len(updates) > _SIZE_UPDATES_LIMIT:
                raise _compression_error("too many table size updates")
        if self._shrink_needed and not updates:
            raise _compression_error("the table size update that we asked for is missing")
        if updates:
            forbidden = self._table_size == 0 and self.wants_none and max(updates) > 0
            if forbidden or max(updates) > self._tolerated_size or updates[-1] > self._allowed_size:
                raise _compression_error("a table size update is above what we allow")
            self._table_size = updates[-1]
            self._tolerated_size = self._allowed_size
        self._shrink_needed = False
