"""What crosses between a fan-out and its worker processes: four bytes of length, then MessagePack."""

from __future__ import annotations

from array import array
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any

import msgspec

from ..http2 import EncodedString
from ..outcome import Outcome, Verdict, alike
from ..payload import EncodedMessage
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
    """Acceptances that came at once, so that they share their times."""

    numbers: bytes
    """Which tokens, counting those that the worker was handed: four bytes each."""
    apns_ids: str
    """One behind the other."""
    unique_ids: Sequence[bytes]
    """As APNs sent them, see `EncodedString`; empty where it sent none."""
    attempts: int
    connection_id: int
    queue_time: float
    round_trip: float
    elapsed: float

    def outcomes(self, tokens: Sequence[str], priority: int) -> list[Outcome]:
        """Return the outcomes again."""
        ids = self.apns_ids
        size = len(ids) // len(tokens)
        like = Outcome(
            token="",
            verdict=Verdict.ACCEPTED,
            status=200,
            attempts=self.attempts,
            priority=priority,
            connection_id=self.connection_id,
            queue_time=self.queue_time,
            round_trip=self.round_trip,
            elapsed=self.elapsed,
        )
        return alike(
            like,
            token=tokens,
            apns_id=[ids[at : at + size] for at in range(0, len(ids), size)],
            unique_id=map(EncodedString, self.unique_ids) if self.unique_ids else repeat(""),
        )


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


_together = attrgetter("verdict", "connection_id", "attempts", "elapsed", "round_trip")


def pack(
    outcomes: Iterable[Outcome], numbers: Callable[[list[str]], list[int]], into: Settled
) -> None:
    """Add outcomes to what a worker tells. ``numbers`` gives tokens' numbers, once."""
    for (verdict, connection_id, attempts, elapsed, round_trip), group in groupby(
        outcomes, _together
    ):
        batch = list(group)
        which = array("I", numbers([each.token for each in batch])).tobytes()
        if verdict is not Verdict.ACCEPTED:
            into.numbers += which
            into.others += batch
            continue
        unique_ids = [each.unique_id for each in batch]
        into.accepted.append(
            Accepted(
                which,
                "".join([each.apns_id for each in batch]),
                list(map(_as_it_came, unique_ids)) if any(unique_ids) else (),
                attempts,
                connection_id,
                batch[0].queue_time,
                round_trip,
                elapsed,
            )
        )


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
