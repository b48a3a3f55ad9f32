"""What crosses between a fan-out and its worker processes: four bytes of length, then MessagePack."""

from __future__ import annotations

from array import array
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from typing import Any

import msgspec

from ..http2 import EncodedString
from ..outcome import Outcome
from ..payload import EncodedMessage
from .attachment import Acceptances
from .report import Counts


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
    numbers: bytes
    """Which tokens, counting those that the worker was handed: four bytes each."""
    apns_ids: str
    """One behind the other."""
    unique_ids: Sequence[bytes]
    """As APNs sent them, see `EncodedString`; empty where it sent none."""

    def outcomes(self, tokens: Sequence[str]) -> list[Outcome]:
        """Return the outcomes again."""
        ids = self.apns_ids
        size = len(ids) // len(tokens)
        return Acceptances(
            self.like,
            tokens,
            [ids[at : at + size] for at in range(0, len(ids), size)],
            list(map(EncodedString, self.unique_ids)),
        ).outcomes()


class Settled(msgspec.Struct, tag=True, array_like=True):
    """What a worker's tokens came to since its last word."""

    counts: Counts
    """Of everything that it has settled so far."""
    accepted: list[Accepted] = []
    numbers: bytes = b""
    """Which tokens the others are of."""
    others: list[Outcome] = []
    drops: list[Outcome] = []
    """Those with DROP_TOKEN, where outcomes are not wanted."""


def pack(batch: Acceptances, numbers: list[int]) -> Accepted:
    """Return acceptances for the other process. ``numbers`` are those of their tokens."""
    unique_ids = list(map(_as_it_came, batch.unique_ids)) if any(batch.unique_ids) else ()
    which = array("I", numbers).tobytes()
    return Accepted(batch.like, which, "".join(batch.apns_ids), unique_ids)


def _as_it_came(unique_id: object) -> bytes:
    return bytes(unique_id) if isinstance(unique_id, bytes) else b"\0" + str(unique_id).encode()


_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
decode_order = msgspec.msgpack.Decoder(Setup | Take | NoMore).decode
decode_settled = msgspec.msgpack.Decoder(Settled).decode


def write(writer: StreamWriter, what: msgspec.Struct) -> None:
    """Send one thing to the other side. Raises TypeError for tokens that are not text."""
    data = _encode(what)
    writer.write(len(data).to_bytes(4, "big") + data)


async def read(reader: StreamReader) -> bytes:
    """Return the next thing that the other side sent, and nothing when it has gone."""
    try:
        head = await reader.readexactly(4)
        return await reader.readexactly(int.from_bytes(head, "big"))
    except (EOFError, ConnectionError):
        return b""
