"""Messages between a fan-out and its worker processes: four bytes of length, then MessagePack."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from ..http2 import EncodedString
from ..outcome import Outcome
from ..payload import EncodedMessage
from ..pool import RequestIds
from .attachment import Acceptances
from .statistics import Counts


class Setup(msgspec.Struct, tag=True, array_like=True):
    """What a worker sends, and as whom."""

    key_id: str
    team_id: str
    provider_tokens: dict[int, str]
    """The JWTs by their ``iat``. The key itself stays in the process that owns it."""
    bundle_id: str
    endpoint: tuple[str, int, str | None]
    proxy: str | None
    options: dict[str, Any]
    never_index: bool
    message: EncodedMessage
    deadline: float | None
    """By the machine's monotonic clock, in seconds."""
    ids: bytes
    """What its request ids are made from."""
    rows: bool
    """Whether outcomes are wanted, or counts alone."""


class Take(msgspec.Struct, tag=True, array_like=True):
    """Tokens for a worker."""

    tokens: list[str]


class NoMore(msgspec.Struct, tag=True, array_like=True):
    """The source of tokens has ended. With ``stop`` what has not left must not leave."""

    stop: bool = False


class Accepted(msgspec.Struct, array_like=True):
    """`Acceptances` on their way."""

    like: Outcome
    spans: list[tuple[int, int]]
    """Which tokens, numbered in the order in which the worker got them: first number and count of each span."""
    unique_ids: Sequence[bytes]
    """As APNs sent them, see `EncodedString`; empty where it sent none."""

    def numbers(self) -> Iterable[int]:
        """Return the number of each token."""
        return chain.from_iterable(range(first, first + count) for first, count in self.spans)

    def outcomes(self, tokens: Sequence[str], ids: RequestIds) -> list[Outcome]:
        """Return the outcomes again; ``ids`` are those of the worker."""
        apns_ids = list(chain.from_iterable(ids.span(*span) for span in self.spans))
        unique_ids = list(map(EncodedString, self.unique_ids))
        return Acceptances(self.like, tokens, apns_ids, unique_ids).outcomes()


class Settled(msgspec.Struct, tag=True, array_like=True):
    """What a worker's tokens came to since its last word."""

    counts: Counts
    """Of everything that it has settled so far."""
    accepted: list[Accepted] = []
    numbers: list[int] = []
    """Which tokens the others are of."""
    others: list[Outcome] = []
    drops: list[Outcome] = []
    """Those with DROP_TOKEN, where outcomes are not wanted."""


def pack(batch: Acceptances, ids: RequestIds) -> Accepted:
    """Return acceptances for the other process, in the order of their tokens.

    A token's number is that of its id, because a worker takes tokens in the order they came.
    """
    if any(batch.unique_ids):
        pairs = sorted(zip(batch.apns_ids, map(_as_it_came, batch.unique_ids), strict=True))
        apns_ids = [apns_id for apns_id, _ in pairs]
        return Accepted(batch.like, list(_spans(apns_ids, ids)), [each for _, each in pairs])
    return Accepted(batch.like, list(_spans(sorted(batch.apns_ids), ids)), ())


def _spans(apns_ids: Sequence[str], ids: RequestIds) -> Iterator[tuple[int, int]]:
    """Split sorted ids into spans without a gap: the number of the first, and how many."""
    first, count = ids.number(apns_ids[0]), len(apns_ids)
    if ids.number(apns_ids[-1]) - first == count - 1:
        yield first, count
    else:
        yield from _spans(apns_ids[: count // 2], ids)
        yield from _spans(apns_ids[count // 2 :], ids)


def _as_it_came(unique_id: object) -> bytes:
    return (
        unique_id.raw if isinstance(unique_id, EncodedString) else b"\0" + str(unique_id).encode()
    )


_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
decode_order = msgspec.msgpack.Decoder(Setup | Take | NoMore).decode
decode_settled = msgspec.msgpack.Decoder(Settled).decode


def write(writer: StreamWriter, what: msgspec.Struct) -> None:
    """Send one thing to the other side."""
    data = _encode(what)
    writer.write(len(data).to_bytes(4, "big") + data)


async def read(reader: StreamReader) -> bytes:
    """Return the next thing that the other side sent, and nothing when it has gone."""
    try:
        head = await reader.readexactly(4)
        return await reader.readexactly(int.from_bytes(head, "big"))
    except (EOFError, ConnectionError):
        return b""
