"""Encodes header blocks: the few forms that a push and its answer need.

Repeated fields are indexed, and fields that differ for each push are not. Nothing is Huffman-coded: the
fields of each push are hexadecimal digits, which Huffman coding shortens little, and encoding them
would cost more than the rest of the push (RFC 7541).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hpack.table import HeaderTable

from apns_live.http2.constants import DEFAULT_HEADER_TABLE_SIZE

_STATIC_FIELDS = {pair: at for at, pair in enumerate(HeaderTable.STATIC_TABLE, 1)}
_STATIC_NAMES: dict[bytes, int] = {}
for _at, (_name, _value) in enumerate(HeaderTable.STATIC_TABLE, 1):
    _STATIC_NAMES.setdefault(_name, _at)
_STATIC_COUNT = len(HeaderTable.STATIC_TABLE)
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


LENGTHS = tuple(encode_integer(length, 7) for length in range(512))
"""Encoded lengths of short strings."""


def encode_string(text: bytes) -> bytes:
    """Return a string literal without Huffman coding (RFC 7541, section 5.2)."""
    return encode_integer(len(text), 7) + text


class PreparedHeaders:
    """The request headers that all pushes of one state share. Immutable.

    ``fields`` are name, value and indexing, without pseudo-headers and without the id header,
    whose name is ``id_name``. Method, ``https`` and the connection's authority are put in front.
    The same object encodes to the same few bytes for as long as a connection's dynamic table
    does not change, so keep one object per state instead of making one per push.
    """

    __slots__ = ("fields", "id_name", "method")

    def __init__(
        self,
        fields: Sequence[tuple[bytes, bytes, Indexing]],
        id_name: bytes = b"apns-id",
        method: bytes = b"POST",
    ) -> None:
        self.fields = tuple(fields)
        self.id_name = id_name
        self.method = method

    def __repr__(self) -> str:
        names = b", ".join(field[0] for field in self.fields).decode("ascii", "replace")
        return f"<PreparedHeaders {self.method.decode('ascii', 'replace')}: {names}>"


class HeaderEncoder:
    """One direction's encoder with its dynamic table.

    The table is never larger than 4096 bytes, whatever the peer allows. ``generation`` changes
    whenever indexes do: a block made earlier is then no longer valid.
    """

    def __init__(self) -> None:
        self._entries: deque[tuple[bytes, bytes]] = deque()  # oldest first
        self._field_numbers: dict[tuple[bytes, bytes], int] = {}
        self._name_numbers: dict[bytes, int] = {}
        self._inserted = 0
        self.table_size = 0
        """Bytes in the dynamic table."""
        self._maximum = DEFAULT_HEADER_TABLE_SIZE
        self._pending: list[int] = []
        self.generation = 0

    def limit_table(self, size: int) -> None:
        """Apply the peer's HEADER_TABLE_SIZE. The next block announces it (RFC 7541, 4.2)."""
        maximum = min(size, DEFAULT_HEADER_TABLE_SIZE)
        if maximum == self._maximum:
            return
        self._maximum = maximum
        self._evict(0)
        self.generation += 1
        # The smallest size since the last block has to be seen by the peer, and the final one.
        smallest = min([maximum, *self._pending])
        self._pending = [smallest] if smallest == maximum else [smallest, maximum]

    def take_size_update(self) -> bytes:
        """Return the size updates that the next block begins with."""
        updates = b"".join(encode_integer(size, 5, 0x20) for size in self._pending)
        self._pending = []
        return updates

    def _evict(self, wanted: int) -> None:
        entries = self._entries
        while entries and self.table_size + wanted > self._maximum:
            field = entries.popleft()
            number = self._inserted - len(entries)
            self.table_size -= len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
            if self._field_numbers.get(field) == number:
                del self._field_numbers[field]
            if self._name_numbers.get(field[0]) == number:
                del self._name_numbers[field[0]]

    def _insert(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value) + _ENTRY_OVERHEAD
        self._evict(size)
        self.generation += 1
        if size > self._maximum:
            return  # an entry larger than the table empties it (RFC 7541, section 4.4)
        self._inserted += 1
        self._entries.append((name, value))
        self.table_size += size
        self._field_numbers[name, value] = self._inserted
        self._name_numbers[name] = self._inserted

    def name_index(self, name: bytes) -> int:
        """Return the index of a name in either table, or 0."""
        index = _STATIC_NAMES.get(name)
        if index is not None:
            return index
        number = self._name_numbers.get(name)
        return 0 if number is None else _STATIC_COUNT + 1 + self._inserted - number

    def encode(self, name: bytes, value: bytes, indexing: Indexing) -> bytes:
        """Return one field, and change the dynamic table as ``indexing`` says."""
        if indexing is Indexing.VALUE or indexing is Indexing.NAME:
            index = _STATIC_FIELDS.get((name, value))
            if index is not None:
                return encode_integer(index, 7, 0x80)
            number = self._field_numbers.get((name, value))
            if number is not None:
                return encode_integer(_STATIC_COUNT + 1 + self._inserted - number, 7, 0x80)
        known = self.name_index(name)
        if indexing is Indexing.VALUE or (indexing is Indexing.NAME and not known):
            size = len(name) + len(value) + _ENTRY_OVERHEAD
            if size <= self._maximum:
                self._insert(name, value)
                return self._literal(known, name, value, 6, 0x40)
        return self._literal(known, name, value, 4, 0x10 if indexing is Indexing.NEVER else 0)

    @staticmethod
    def _literal(index: int, name: bytes, value: bytes, bits: int, pattern: int) -> bytes:
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
        shared = self._encode_shared(headers)
        identifier = self.encode(headers.id_name, request_id, Indexing.NAME)
        if self.generation == before:
            if len(self.prefixes) >= _CACHED_PREFIXES:
                del self.prefixes[next(iter(self.prefixes))]
            index = self.name_index(headers.id_name)
            head = encode_integer(index, 4)
            if not index:
                head += encode_string(headers.id_name)
            self.prefixes[headers] = Prefix(before, shared, head)
        else:
            self.prefixes.pop(headers, None)
        return b"".join((update, PATH, encode_string(path), shared, identifier))

    def _encode_shared(self, headers: PreparedHeaders) -> bytes:
        encode = self.encode
        fields = [
            encode(b":method", headers.method, Indexing.VALUE),
            encode(b":scheme", b"https", Indexing.VALUE),
            encode(b":authority", self._authority, Indexing.VALUE),
        ]
        fields.extend(encode(name, value, how) for name, value, how in headers.fields)
        return b"".join(fields)


class ResponseEncoder(HeaderEncoder):
    """A server's encoder: it indexes nothing, so answers do not depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[bytes, bytes] = {}

    def response_block(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the whole block of one response. Names are put into lower case."""
        parts = [STATUS_FIELDS.get(status) or _status_field(status)]
        if self._pending:
            parts.insert(0, self.take_size_update())
        names = self._names
        for name, value in headers:
            head = names.get(name)
            if head is None:
                head = self._name_literal(name)
            length = len(value)
            parts += (head, LENGTHS[length] if length < 512 else encode_integer(length, 7), value)
        return b"".join(parts)

    def _name_literal(self, name: bytes) -> bytes:
        lower = name.lower()
        index = _STATIC_NAMES.get(lower, 0)
        head = encode_integer(index, 4) if index else b"\x00" + encode_string(lower)
        if len(self._names) < _CACHED_NAMES:
            self._names[name] = head
        return head


PATH = encode_integer(_STATIC_NAMES[b":path"], 4)
"""``:path`` as a literal without indexing; its length and text follow."""


def _status_field(status: int) -> bytes:
    text = b"%d" % status
    index = _STATIC_FIELDS.get((b":status", text))
    if index is not None:
        return encode_integer(index, 7, 0x80)
    return encode_integer(_STATIC_NAMES[b":status"], 4) + encode_string(text)


STATUS_FIELDS = {status: _status_field(status) for status in range(100, 600)}
