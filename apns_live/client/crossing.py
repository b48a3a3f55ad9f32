"""What crosses between a fan-out and its worker processes: four bytes of length, then MessagePack."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
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


class Settled(msgspec.Struct, tag=True, array_like=True):
    """What a worker's tokens came to since its last word: the accepted ones in columns."""

    count: Counts
    """Of everything that it has settled so far."""
    tokens: Sequence[str] = ()
    apns_ids: Sequence[str] = ()
    unique_ids: Sequence[str] | None = None
    attempts: Sequence[int] = ()
    connections: Sequence[int] = ()
    queue_times: Sequence[float] = ()
    round_trips: Sequence[float] = ()
    elapsed: Sequence[float] = ()
    others: Sequence[Outcome] = ()
    drops: Sequence[Outcome] = ()
    """Those with DROP_TOKEN, where outcomes are not wanted."""

    def outcomes(self, priority: int) -> list[Outcome]:
        """Return the outcomes again."""
        accepted = Verdict.ACCEPTED
        found = [
            Outcome(
                token=token,
                verdict=accepted,
                status=200,
                apns_id=apns_id,
                attempts=attempts,
                priority=priority,
                connection_id=connection,
                queue_time=queue_time,
                round_trip=round_trip,
                elapsed=elapsed,
            )
            for token, apns_id, attempts, connection, queue_time, round_trip, elapsed in zip(
                self.tokens,
                self.apns_ids,
                self.attempts,
                self.connections,
                self.queue_times,
                self.round_trips,
                self.elapsed,
                strict=True,
            )
        ]
        if self.unique_ids is not None:
            for index, unique_id in enumerate(self.unique_ids):
                found[index] = msgspec.structs.replace(found[index], unique_id=unique_id)
        return [*found, *self.others]


def settled(outcomes: list[Outcome], count: Counts, drops: list[Outcome]) -> Settled:
    """Return what tells of these outcomes."""
    accepted = [each for each in outcomes if each.verdict is Verdict.ACCEPTED]
    others = (
        []
        if len(accepted) == len(outcomes)
        else [each for each in outcomes if each.verdict is not Verdict.ACCEPTED]
    )
    named = any(each.unique_id for each in accepted[:1])
    return Settled(
        count,
        [each.token for each in accepted],
        [each.apns_id for each in accepted],
        [str(each.unique_id) for each in accepted] if named else None,
        [each.attempts for each in accepted],
        [each.connection_id for each in accepted],
        [each.queue_time for each in accepted],
        [each.round_trip for each in accepted],
        [each.elapsed for each in accepted],
        others,
        drops,
    )


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
