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
from ..outcome import Outcome, Verdict, acceptances
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
    """Which tokens, as `numbered` packs them."""
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
        return acceptances(
            tokens,
            [ids[at : at + size] for at in range(0, len(ids), size)],
            map(EncodedString, self.unique_ids) if self.unique_ids else repeat(""),
            attempts=self.attempts,
            priority=priority,
            connection_id=self.connection_id,
            queue_time=self.queue_time,
            round_trip=self.round_trip,
            elapsed=self.elapsed,
        )


class Settled(msgspec.Struct, tag=True, array_like=True):
    """What a worker's tokens came to since its last word."""

    counts: Counts
    """Of everything that it has settled so far."""
    accepted: Sequence[Accepted] = ()
    numbers: bytes = b""
    """Which tokens the others are of."""
    others: Sequence[Outcome] = ()
    drops: Sequence[Outcome] = ()
    """Those with DROP_TOKEN, where outcomes are not wanted."""


_together = attrgetter("verdict", "connection_id", "attempts", "elapsed", "round_trip")


def numbered(numbers: list[int]) -> bytes:
    """Pack the numbers of tokens: a worker counts those that it was handed, from 0."""
    return array("I", numbers).tobytes()


def numbers_of(packed: bytes) -> array[int]:
    """Return the numbers again."""
    return array("I", packed)


def pack(
    outcomes: Iterable[Outcome], numbers: Callable[[list[str]], list[int]], into: Settled
) -> None:
    """Add outcomes to what a worker tells. ``numbers`` gives tokens' numbers, once."""
    others: list[Outcome] = []
    accepted: list[Accepted] = []
    for (verdict, connection_id, attempts, elapsed, round_trip), group in groupby(
        outcomes, _together
    ):
        batch = list(group)
        if verdict is not Verdict.ACCEPTED:
            others += batch
            continue
        unique_ids = [each.unique_id for each in batch]
        accepted.append(
            Accepted(
                numbered(numbers([each.token for each in batch])),
                "".join([each.apns_id for each in batch]),
                list(map(_as_it_came, unique_ids)) if any(unique_ids) else (),
                attempts,
                connection_id,
                batch[0].queue_time,
                round_trip,
                elapsed,
            )
        )
    into.accepted = [*into.accepted, *accepted]
    if others:
        into.numbers += numbered(numbers([each.token for each in others]))
        into.others = [*into.others, *others]


def _as_it_came(unique_id: object) -> bytes:
    return bytes(unique_id) if isinstance(unique_id, bytes) else b"\0" + str(unique_id).encode()


_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
decode_order = msgspec.msgpack.Decoder(Setup | Take | NoMore).decode
decode_settled = msgspec.msgpack.Decoder(Settled).decode


def write(writer: StreamWriter, what: msgspec.Struct) -> None:
    """Send one thing to the other side. Raises TypeError for tokens that are no text."""
    data = _encode(what)
    writer.write(len(data).to_bytes(4, "big") + data)


async def read(reader: StreamReader) -> bytes:
    """Return the next thing that the other side sent, and nothing when it has gone."""
    try:
        head = await reader.readexactly(4)
        return await reader.readexactly(int.from_bytes(head, "big"))
    except (EOFError, ConnectionError):
        return b""
