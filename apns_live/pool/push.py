"""A push, and the part of it that many pushes share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count
from typing import Any, Protocol

import msgspec

from ..credentials import ProviderToken, ProviderTokens
from ..http2 import Indexing, PreparedHeaders
from ..outcome import alike
from ..payload import EncodedMessage
from .link_parts import LinkRecord, LinkStatistics

Fields = tuple[tuple[bytes, bytes, Indexing], ...]

_TOKENS_REMEMBERED = 4


class PushState(IntEnum):
    """The state of a push, from being taken from its source to its single outcome."""

    NEW = 0
    READY = 1
    IN_FLIGHT = 2
    HELD = 3
    SETTLED = 4


class Carrier(Protocol):
    """The connection that carried a push."""

    number: int
    """Its id in outcomes."""
    token: ProviderToken
    """The provider token that it sends."""
    tokens: ProviderTokens
    """The source of that token."""
    record: LinkRecord
    """Its counters."""

    def statistics(self) -> LinkStatistics:
        """Return a frozen snapshot."""

    def retire(self, cause: str) -> None:
        """Take no new pushes; close when those in flight are answered."""

    def abandon(self, push: Push) -> bool | None:
        """Give up a push in flight without reporting it; None if it is not in flight here.

        True if the peer may have processed it, False if part of its body was never sent.
        """


@dataclass(eq=False)
class HeaderSet:
    """The request headers that pushes share, without path, id and provider token.

    Prepared once per provider token, so that a link encodes them once and then refers to them.
    """

    fields: Fields
    id_name: bytes = b"apns-id"
    never_index_authorization: bool = False
    _prepared: dict[bytes, PreparedHeaders] = field(default_factory=dict)

    def prepared(self, token: ProviderToken) -> PreparedHeaders:
        """Return the headers with this provider token in front."""
        found = self._prepared.get(token.value)
        if found is None:
            if len(self._prepared) >= _TOKENS_REMEMBERED:
                del self._prepared[next(iter(self._prepared))]
            how = Indexing.NEVER if self.never_index_authorization else Indexing.VALUE
            found = PreparedHeaders(
                ((b"authorization", token.value, how), *self.fields), id_name=self.id_name
            )
            self._prepared[token.value] = found
        return found

    def forget(self) -> None:
        """Drop the prepared headers, because the key was replaced."""
        self._prepared.clear()

    def plain(self, token: ProviderToken, request_id: str) -> list[tuple[bytes, bytes]]:
        """Return name and value pairs for a transport that encodes headers itself."""
        pairs = [(b"authorization", token.value)]
        pairs.extend((name, value) for name, value, _ in self.fields)
        pairs.append((self.id_name, request_id.encode()))
        return pairs


class Sendable:
    """An encoded message with the headers of one client: ready for any number of tokens.

    ``useless_at`` is its expiration (seconds since 1970), infinity if it has none. A stale date in
    the past does not stop the push: the phone shows the state as outdated.
    """

    __slots__ = ("body", "encoded", "folder", "headers", "priority", "to_channel", "useless_at")

    def __init__(
        self, encoded: EncodedMessage, headers: HeaderSet, *, channel_path: str = ""
    ) -> None:
        self.encoded = encoded
        self.body = encoded.body
        self.priority = encoded.priority
        self.headers = headers
        self.to_channel = bool(channel_path)
        self.folder = channel_path or "/3/device/"
        """The path before the token; for a broadcast the whole path."""
        self.useless_at = float(encoded.expiration) if encoded.expiration > 0 else float("inf")

    def __repr__(self) -> str:
        return f"<Sendable {self.encoded.event} of {len(self.body)} bytes>"


class Push(msgspec.Struct, eq=False, gc=False):
    """A push: its message, its token, and its progress. Also known as ``WorkItem``.

    A source sets ``token``, ``message`` and, for its own use, ``context``. It may also set
    ``request_id`` if that must be known before the push is sent (a journal). ``deadline`` is a time
    of the client's monotonic clock, 0 for none. All other fields belong to the engine. Python's
    garbage collector does not track it, so a client must be closed to be freed.
    """

    token: str
    message: Sendable
    context: Any = None
    request_id: str = ""
    deadline: float = 0.0
    owner: Any = None
    state: int = 0
    created: float = 0.0
    sent_at: float = 0.0
    attempts: int = 0
    tries: int = 0
    """How often the server's answer allowed a retry."""
    replays: int = 0
    """How often it was returned as certainly not processed."""
    renewed: bool = False
    """Whether its single retry on a new link or with a new provider token is used."""
    carrier: Carrier | None = None
    stream_id: int = 0
    last: Any = None
    """The last refusal, kept while it waits for a retry."""

    def leaves(self, carrier: Carrier, stream_id: int, now: float) -> None:
        """Note that it is being sent."""
        self.state = PushState.IN_FLIGHT
        self.carrier = carrier
        self.stream_id = stream_id
        self.sent_at = now
        self.attempts += 1

    def stays(self) -> None:
        """Note that it was not sent after all."""
        if self.state == PushState.IN_FLIGHT:
            self.carrier = None
            self.sent_at = 0.0
            self.attempts -= 1
        self.state = PushState.READY

    def __repr__(self) -> str:
        return f"<Push {self.request_id or 'new'} {PushState(self.state).name} to {self.token[:8]}>"


def pushes_that_leave(
    tokens: Sequence[str],
    message: Sendable,
    ids: Sequence[str],
    owner: object,
    now: float,
    carrier: Carrier,
    stream_id: int,
) -> list[Push]:
    """Return a push in flight for each token, from ``stream_id`` on; one call sets all fields."""
    flying: dict[str, Any] = {"state": PushState.IN_FLIGHT, "attempts": 1, "carrier": carrier}
    like = Push("", message, owner=owner, created=now, sent_at=now, **flying)
    return alike(like, token=tokens, request_id=ids, stream_id=count(stream_id, 2))


_COUNT = 0xFFFF_FFFF_FFFF
_PAGE = 4096
_LAST_DIGITS = [f"{number:03x}" for number in range(_PAGE)]


class RequestIds:
    """Makes canonical lower-case UUIDs: a random prefix for this object, then a counter.

    The version nibble says 4 (RFC 9562); 74 bits are random, 48 count.
    """

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        raw = bytearray(random_bytes(16))
        raw[6] = raw[6] & 0x0F | 0x40
        raw[8] = raw[8] & 0x3F | 0x80
        self.seed = bytes(raw)
        """The prefix of its ids: another object with this prefix makes the same ids."""
        text = raw.hex()
        self._prefix = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-"
        self._first = int.from_bytes(raw[10:16], "big") + 1
        self.given = 0
        """The number of ids made so far."""

    def __call__(self) -> str:
        """Return the next id."""
        return self.many(1)[0]

    def many(self, number: int) -> list[str]:
        """Return the next ids."""
        ids = self.span(self.given, number)
        self.given += number
        return ids

    def span(self, start: int, number: int) -> list[str]:
        """Return the ids from number ``start`` on, the first being number 0.

        They are made in pages of ids that differ in their last three digits.
        """
        ids: list[str] = []
        while len(ids) < number:
            count = (self._first + start + len(ids)) & _COUNT
            at = count % _PAGE
            digits = _LAST_DIGITS[at : at + number - len(ids)]
            page = f"{self._prefix}{count // _PAGE:09x}"
            ids += [page + last for last in digits]
        return ids

    def number(self, request_id: str) -> int:
        """Return the number of an id made by `span`."""
        return (int(request_id[-12:], 16) - self._first) & _COUNT
