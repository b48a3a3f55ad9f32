"""Decodes and encodes header blocks (RFC 7541); the only file that imports a decoder, ``hpack``.

It decodes the answers that ``answer_forms.py`` does not recognize, and every request of a server
connection. It encodes the few forms that a push and its answer need: repeated fields are indexed, and
fields that differ for each push are not. Nothing is Huffman-coded: the fields of each push are
hexadecimal digits, which Huffman coding shortens little, and encoding them would cost more than the
rest of the push.
"""

import enum
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import msgspec
from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from apns_live.errors import Http2ConnectionError
from apns_live.http2.frames import DEFAULT_HEADER_TABLE_SIZE, ErrorCode

_LARGEST_FIELD = DEFAULT_HEADER_TABLE_SIZE + 32
"""Bytes of a field from a table, as a header list counts them."""
_too_many_updates = re.compile(rb"(?:[\x20-\x3e]|\x3f[\x80-\xff]*[\x00-\x7f]){17}").match
"""17 table size updates. RFC 7541, section 4.2 allows two: the smallest in between, and the last."""
_STATIC = HeaderTable.STATIC_TABLE_MAPPING
"""For each name of the static table: its index, and the index of each value."""
_ENTRY_OVERHEAD = 32
_CACHED_PREFIXES = 64


class EncodedString(msgspec.Struct, frozen=True, gc=False):
    """A string as received in a header block (RFC 7541, section 5.2); ``str()`` decodes it.

    It was not checked, so ``str()`` is empty if the text is not properly coded.
    """

    raw: bytes
    """Its length and its text."""

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
        self._allowed_size = DEFAULT_HEADER_TABLE_SIZE
        self.wants_none = False
        """We announce a table of 0 bytes. A peer that keeps its table all the same is accepted; one
        that gave it up may not use it again.
        """

    @property
    def table_is_empty(self) -> bool:
        """Whether the peer's table is empty, and it has told us so."""
        return self._hpack.header_table_size == 0

    def allow_table_size(self, size: int) -> None:
        """Apply our acknowledged HEADER_TABLE_SIZE (0 to 4096 bytes).

        When the peer's table is larger, its next block has to begin with a size update (RFC 7541,
        section 4.2). An encoder that got several of our values may name each of them before the
        last, as ``hpack`` does, so values allowed in between are accepted.
        """
        self._hpack.max_allowed_table_size = max(self._hpack.max_allowed_table_size, size)
        self._allowed_size = size

    def decode(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """Return the fields of one whole header block, in order.

        Raises Http2ConnectionError: COMPRESSION_ERROR when the block cannot be decoded,
        ENHANCE_YOUR_CALM when the list is larger than ``max_header_list_size``.
        """
        hpack = self._hpack
        fields = self._decode_plain(block)
        if fields is None:
            if _too_many_updates(block):
                raise _compression_error("too many table size updates")
            try:
                fields = list(hpack.decode(block, raw=True))
            except OversizedHeaderListError:
                raise Http2ConnectionError(
                    "the header list is larger than we allow", ErrorCode.ENHANCE_YOUR_CALM
                ) from None
            except Exception as error:  # noqa: BLE001 - hostile bytes, whatever they do to the library
                raise _compression_error(str(error)) from None
        if hpack.header_table_size > self._allowed_size:
            raise _compression_error("the peer's table is above the size that we allow")
        given_up = self.wants_none and hpack.header_table_size == 0
        hpack.max_allowed_table_size = 0 if given_up else self._allowed_size
        return fields

    def _decode_plain(self, block: bytes) -> list[tuple[bytes, bytes]] | None:
        """Return the fields of a block that changes no table; None if ``hpack`` has to decode it.

        Most blocks have only indexed fields and short values of indexed names. This is several times
        faster than ``hpack``, which decodes all others and reports what is wrong.
        """
        lookup = self._hpack.header_table.get_by_index
        fields: list[tuple[bytes, bytes]] = []
        at, end = 0, len(block)
        try:
            while at < end:
                byte = block[at]
                at += 1
                if byte >= 0x80:
                    if byte == 0xFF:
                        return None
                    fields.append(lookup(byte & 0x7F))
                    continue
                index = byte & 0x0F
                if byte >= 0x20 or index == 0:
                    return None
                if index == 0x0F:
                    index += block[at]
                    at += 1
                coding = block[at]
                size = coding & 0x7F
                at += 1
                if size == 0x7F:
                    size += block[at]
                    at += 1
                if index >= 0x0F + 0x80 or size >= 0x7F + 0x80:  # a number of three bytes
                    return None
                value = block[at : at + size]
                fields.append((lookup(index)[0], decode_huffman(value) if coding & 0x80 else value))
                at += size
        except (IndexError, HPACKError):
            return None
        # Below this bound on its size, the list need not be measured.
        is_small = len(fields) * _LARGEST_FIELD + 2 * end <= self._hpack.max_header_list_size
        return fields if at == end and is_small else None


class Indexing(enum.Enum):
    """How a field is represented (RFC 7541, section 6.2).

    VALUE: the whole field goes into the dynamic table. NAME: the first time it goes in, so that
    its name stays; later values are literals that refer to the name. NEVER: literal that no
    intermediary may index. NONE: literal without indexing.
    """

    VALUE = "value"
    NAME = "name"
    NEVER = "never"
    NONE = "none"


def encode_integer(value: int, bits: int, pattern: int = 0) -> bytes:
    """Return an integer with a prefix of ``bits`` bits below ``pattern`` (RFC 7541, 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((pattern | value,))
    encoded = bytearray((pattern | limit,))
    value -= limit
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_string(text: bytes) -> bytes:
    """Return a string literal without Huffman coding (RFC 7541, section 5.2)."""
    return encode_integer(len(text), 7) + text


@dataclass(frozen=True, slots=True, eq=False)
class PreparedHeaders:
    """The request headers that all pushes of one state share. Immutable.

    ``fields`` are name, value and indexing, without pseudo-headers and without the id header,
    whose name is ``id_name``. Method, ``https`` and the connection's authority are put in front.
    The same object encodes to the same few bytes for as long as a connection's dynamic table
    does not change, so keep one object per state instead of making one per push.
    """

    fields: Sequence[tuple[bytes, bytes, Indexing]]
    id_name: bytes = b"apns-id"
    method: bytes = b"POST"

    def __repr__(self) -> str:
        names = b", ".join(field[0] for field in self.fields).decode("ascii", "replace")
        return f"<PreparedHeaders {self.method.decode('ascii', 'replace')}: {names}>"


class HeaderEncoder:
    """One direction's encoder with its dynamic table.

    The table is never larger than 4096 bytes, whatever the peer allows. ``generation`` changes
    whenever indexes do: a block made earlier is then no longer valid.
    """

    def __init__(self) -> None:
        self.table = HeaderTable()
        self._indexed: dict[tuple[bytes, bytes], bytes] = {}
        """Fields found in a table, in encoded form, valid while the tables stay the same."""
        self._pending: Sequence[int] = ()
        self.generation = 0

    def limit_table(self, size: int) -> None:
        """Apply the peer's HEADER_TABLE_SIZE. The next block announces it (RFC 7541, 4.2)."""
        maximum = min(size, DEFAULT_HEADER_TABLE_SIZE)
        if maximum == self.table.maxsize:
            return
        self.table.maxsize = maximum
        self._table_changed()
        # The peer must see the smallest size since the last block, and the final one.
        smallest = min([maximum, *self._pending])
        self._pending = [smallest] if smallest == maximum else [smallest, maximum]

    def take_size_update(self) -> bytes:
        """Return the size updates for the beginning of the next block."""
        pending, self._pending = self._pending, ()
        return b"".join([encode_integer(size, 5, 0x20) for size in pending])

    def _table_changed(self) -> None:
        self._indexed.clear()
        self.generation += 1

    def index(self, name: bytes) -> int:
        """Return the index of a name in either table, or 0."""
        found = self.table.search(name, b"")
        return 0 if found is None else found[0]

    def encode(self, name: bytes, value: bytes, indexing: Indexing) -> bytes:
        """Return one encoded field, and change the dynamic table as ``indexing`` says."""
        may_index = indexing is Indexing.VALUE or indexing is Indexing.NAME
        if may_index and (known := self._indexed.get((name, value))):
            return known
        index, _, same_value = self.table.search(name, value) or (0, name, None)
        bits, pattern = 4, 0x10 if indexing is Indexing.NEVER else 0
        if may_index:
            if same_value is not None:
                self._indexed[name, value] = found = encode_integer(index, 7, 0x80)
                return found
            size = len(name) + len(value) + _ENTRY_OVERHEAD
            if size <= self.table.maxsize and (indexing is Indexing.VALUE or not index):
                self.table.add(name, value)
                self._table_changed()
                bits, pattern = 6, 0x40
        head = encode_integer(index, bits, pattern)
        return (head if index else head + encode_string(name)) + encode_string(value)


class Prefix(NamedTuple):
    """The encoded part of prepared headers, valid while the encoder's ``generation`` stays."""

    generation: int
    shared: bytes
    id_head: bytes
    """The bytes before the length of the id."""


class RequestEncoder(HeaderEncoder):
    """A client's encoder: it keeps the shared part of pushes while the table stays the same."""

    def __init__(self, authority: bytes) -> None:
        super().__init__()
        self._authority = authority
        self.prefixes: dict[PreparedHeaders, Prefix] = {}

    def request_block(self, headers: PreparedHeaders, path: bytes, request_id: bytes) -> bytes:
        """Return the complete block of one request, and keep its shared part if it stays valid."""
        update = self.take_size_update()
        before = self.generation
        fields = (
            (b":method", headers.method, Indexing.VALUE),
            (b":scheme", b"https", Indexing.VALUE),
            (b":authority", self._authority, Indexing.VALUE),
            *headers.fields,
        )
        shared = b"".join([self.encode(*field) for field in fields])
        identifier = self.encode(headers.id_name, request_id, Indexing.NAME)
        if self.generation == before:
            if len(self.prefixes) >= _CACHED_PREFIXES:
                del self.prefixes[next(iter(self.prefixes))]
            index = self.index(headers.id_name)
            head = encode_integer(index, 4) + (b"" if index else encode_string(headers.id_name))
            self.prefixes[headers] = Prefix(before, shared, head)
        else:
            self.prefixes.pop(headers, None)
        return b"".join((update, PATH, encode_string(path), shared, identifier))


class ResponseEncoder(HeaderEncoder):
    """A server's encoder: it indexes nothing, so answers do not depend on each other."""

    def response_block(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the complete block of one response. Names are converted to lower case."""
        parts = [self.take_size_update(), _status_field(status)]
        for name, value in headers:
            parts += (_field_head(name), encode_integer(len(value), 7), value)
        return b"".join(parts)


PATH = encode_integer(_STATIC[b":path"][0], 4)
"""``:path`` as a literal without indexing; its length and text follow."""


@lru_cache(maxsize=512)
def _status_field(status: int) -> bytes:
    text = b"%d" % status
    first, values = _STATIC[b":status"]
    if text in values:
        return encode_integer(values[text], 7, 0x80)
    return encode_integer(first, 4) + encode_string(text)


@lru_cache(maxsize=256)
def _field_head(name: bytes) -> bytes:
    lower = name.lower()
    index = _STATIC[lower][0] if lower in _STATIC else 0
    return encode_integer(index, 4) + (b"" if index else encode_string(lower))
