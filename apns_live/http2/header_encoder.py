"""Encodes header blocks: the few forms that a push and its answer need.

Repeated fields are indexed, and fields that differ for each push are not. Nothing is Huffman-coded: the
fields of each push are hexadecimal digits, which Huffman coding shortens little, and encoding them
would cost more than the rest of the push (RFC 7541).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hpack.table import HeaderTable

from apns_live.http2.frames import DEFAULT_HEADER_TABLE_SIZE

_STATIC = HeaderTable.STATIC_TABLE_MAPPING
"""For each name of the static table: its index, and the index of each value."""
_ENTRY_OVERHEAD = 32
_CACHED_PREFIXES = 64
_CACHED_NAMES = 256


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
        self._pending: list[int] = []
        self.generation = 0

    def limit_table(self, size: int) -> None:
        """Apply the peer's HEADER_TABLE_SIZE. The next block announces it (RFC 7541, 4.2)."""
        maximum = min(size, DEFAULT_HEADER_TABLE_SIZE)
        if maximum == self.table.maxsize:
            return
        self.table.maxsize = maximum
        self.generation += 1
        # The smallest size since the last block has to be seen by the peer, and the final one.
        smallest = min([maximum, *self._pending])
        self._pending = [smallest] if smallest == maximum else [smallest, maximum]

    def take_size_update(self) -> bytes:
        """Return the size updates that the next block begins with."""
        updates = b"".join(encode_integer(size, 5, 0x20) for size in self._pending)
        self._pending = []
        return updates

    def index(self, name: bytes) -> int:
        """Return the index of a name in either table, or 0."""
        found = self.table.search(name, b"")
        return 0 if found is None else found[0]

    def encode(self, name: bytes, value: bytes, indexing: Indexing) -> bytes:
        """Return one field, and change the dynamic table as ``indexing`` says."""
        index, _, same_value = self.table.search(name, value) or (0, name, None)
        bits, pattern = 4, 0x10 if indexing is Indexing.NEVER else 0
        if indexing is Indexing.VALUE or indexing is Indexing.NAME:
            if same_value is not None:
                return encode_integer(index, 7, 0x80)
            size = len(name) + len(value) + _ENTRY_OVERHEAD
            if size <= self.table.maxsize and (indexing is Indexing.VALUE or not index):
                self.table.add(name, value)
                self.generation += 1
                bits, pattern = 6, 0x40
        head = encode_integer(index, bits, pattern)
        return (head if index else head + encode_string(name)) + encode_string(value)


class Prefix(NamedTuple):
    """What is kept of prepared headers while the encoder's ``generation`` stays the same."""

    generation: int
    shared: bytes
    id_head: bytes
    """What stands before the length of the id."""


class RequestEncoder(HeaderEncoder):
    """A client's encoder: what pushes share is kept for as long as the table stays the same."""

    def __init__(self, authority: bytes) -> None:
        super().__init__()
        self._authority = authority
        self.prefixes: dict[PreparedHeaders, Prefix] = {}

    def request_block(self, headers: PreparedHeaders, path: bytes, request_id: bytes) -> bytes:
        """Return the whole block of one request, and keep its shared part if that will last."""
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

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[bytes, bytes] = {}

    def response_block(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the whole block of one response. Names are put into lower case."""
        parts = [self.take_size_update()] if self._pending else []
        parts.append(_STATUSES.get(status) or _status_field(status))
        names = self._names
        for name, value in headers:
            head = names.get(name)
            if head is None:
                lower = name.lower()
                index = _STATIC[lower][0] if lower in _STATIC else 0
                head = encode_integer(index, 4) + (b"" if index else encode_string(lower))
                if len(names) < _CACHED_NAMES:
                    names[name] = head
            parts += (head, encode_integer(len(value), 7), value)
        return b"".join(parts)


PATH = encode_integer(_STATIC[b":path"][0], 4)
"""``:path`` as a literal without indexing; its length and text follow."""


def _status_field(status: int) -> bytes:
    text = b"%d" % status
    first, values = _STATIC[b":status"]
    if text in values:
        return encode_integer(values[text], 7, 0x80)
    return encode_integer(first, 4) + encode_string(text)


_STATUSES = {status: _status_field(status) for status in range(100, 600)}
