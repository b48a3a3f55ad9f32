"""What crosses between a fan-out and its worker processes: four bytes of length, then MessagePack."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any

import msgspec

from ..outcome import Outcome, Verdict
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

    tokens: Sequence[str]
    apns_ids: Sequence[str]
    unique_ids: Sequence[str]
    """Empty where APNs sent none."""
    attempts: int
    connection_id: int
    queue_time: float
    round_trip: float
    elapsed: float

    def outcomes(self, priority: int) -> list[Outcome]:
        """Return the outcomes again."""
        return [
            Outcome(
                token=token,
                verdict=Verdict.ACCEPTED,
                status=200,
                apns_id=apns_id,
                unique_id=unique_id,
                attempts=self.attempts,
                priority=priority,
                connection_id=self.connection_id,
                queue_time=self.queue_time,
                round_trip=self.round_trip,
                elapsed=self.elapsed,
            )
            for token, apns_id, unique_id in zip(  # noqa: B905 - the last one may be endless
                self.tokens, self.apns_ids, self.unique_ids or repeat("")
            )
        ]


class Settled(msgspec.Struct, tag=True, array_like=True):
    """What a worker's tokens came to since its last word."""

    counts: Counts
    """Of everything that it has settled so far."""
    accepted: Sequence[Accepted]
    others: Sequence[Outcome]
    drops: Sequence[Outcome]
    """Those with DROP_TOKEN, where outcomes are not wanted."""


_together = attrgetter("verdict", "connection_id", "attempts", "elapsed", "round_trip")


def settled(outcomes: list[Outcome], counts: Counts, drops: list[Outcome]) -> Settled:
    """Return what tells of these outcomes."""
    accepted: list[Accepted] = []
    others: list[Outcome] = []
    for (verdict, connection_id, attempts, elapsed, round_trip), group in groupby(
        outcomes, _together
    ):
        batch = list(group)
        if verdict is not Verdict.ACCEPTED:
            others += batch
            continue
        accepted.append(
            Accepted(
                [each.token for each in batch],
                [each.apns_id for each in batch],
                [str(each.unique_id) for each in batch] if batch[0].unique_id else (),
                attempts,
                connection_id,
                batch[0].queue_time,
                round_trip,
                elapsed,
            )
        )
    return Settled(counts, accepted, others, drops)


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
