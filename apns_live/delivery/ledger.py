"""The state of each token of a fan-out: read, intended, settled.

With a journal the tokens go through four states, each committed before the next:

    read      copied into the journal, a shard at a time
    intended  may be sent; at most 1,000 are intended and not sent, or answered and not recorded
    settled   has a verdict byte
    finished  all tokens of the shard are settled; it is deleted, its counts stay in the run

So after a crash the pushes in flight are in doubt, and at most 1,000 more. Only the few shards between
the first and the last state are in memory. Without a journal the states are the same, without commits.
It is pure: no clock, no client, no file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ..outcome import Outcome, Verdict
from .journal import (
    CODE,
    PENDING,
    SHARD,
    UNSENT,
    Known,
    ProblemRecord,
    Record,
    RunRecord,
    ShardRecord,
    classify,
    pack,
)

AHEAD = 900
"""Tokens intended and not left, and answered and not recorded, together: 1,000 are promised, and the
client may hold a few that have left here and are not on the wire."""
STEP = 225
"""Tokens whose intents are asked for at a time."""
OPEN_SHARDS = 64
READ_AHEAD = 4 * SHARD

VERDICT_OF = {code: verdict for verdict, code in CODE.items()}
"""The verdict of a byte that is neither PENDING nor UNSENT."""
_NONE: Mapping[int, Outcome] = {}


class Shard:
    """At most SHARD tokens with a verdict byte each. ``stored``: the journal has the tokens."""

    __slots__ = ("left", "stored", "tokens", "verdicts")

    def __init__(self, tokens: Sequence[str], verdicts: bytearray, *, stored: bool) -> None:
        self.tokens = list(tokens)
        self.verdicts = verdicts
        self.left = verdicts.count(PENDING) + verdicts.count(UNSENT)
        self.stored = stored

    def grow(self, tokens: Sequence[str]) -> None:
        """Add tokens behind the others."""
        self.tokens.extend(tokens)
        self.verdicts.extend(bytes(len(tokens)))
        self.left += len(tokens)
        self.stored = False


class Ledger:
    """The book of one fan-out. Positions count from 0; a shard begins at a multiple of SHARD."""

    def __init__(self, record: RunRecord, *, journalled: bool) -> None:
        self.record = record
        self.changed = False
        """Whether the run's own record is to be written. Not before the journal's own was read."""
        self.unintended = 0
        self.ready: deque[int] = deque()
        self.unrecorded = 0
        self.intents_open = 0
        """Intents asked for or committed, of tokens that have not left."""
        self._journalled = journalled
        self._shards: dict[int, Shard] = {}
        self._positions: deque[int] = deque()
        self._next_shard = record.shards
        self._wanted = record.intended
        self._intents: deque[list[int]] = deque()
        self._collected_intents = 0
        self._collected_unrecorded = 0
        self._touched: set[int] = set()
        self._problems: list[ProblemRecord] = []

    def load(self, kept: ShardRecord) -> Iterator[tuple[int, str, Known, int]]:
        """Take up a shard of an earlier life; yield (position, token, what is known, verdict byte)."""
        shard = Shard(kept.tokens or (), bytearray(kept.verdicts), stored=True)
        self._shards[kept.number] = shard
        start = kept.number * SHARD
        intended = self.record.intended
        # What is decided about one token changes its byte: look at the bytes as they were kept.
        for index, code in enumerate(kept.verdicts):
            position = start + index
            known = classify(position, intended, code)
            if known is Known.NOT_SENT:
                if position < intended:
                    self.again(position)
                else:
                    self._positions.append(position)
                    self.unintended += 1
            yield position, shard.tokens[index], known, code

    def resend(self, position: int) -> None:
        """Let a token in doubt leave again: its intent stands."""
        self.ready.append(position)
        self.intents_open += 1

    def add(
        self,
        tokens: Sequence[str],
        after: str | None,
        digest: bytes,
        refused: Mapping[int, Outcome] = _NONE,
    ) -> None:
        """Take in tokens just read, and where the source goes on behind them.

        ``refused`` are the outcomes of what is not a token, by index.
        """
        record = self.record
        at = 0
        while at < len(tokens):
            shard = self._shards.get(self._next_shard - 1)
            if shard is None or len(shard.tokens) >= SHARD:
                shard = self._shards[self._next_shard] = Shard([], bytearray(), stored=False)
                self._next_shard += 1
            number, had = self._next_shard - 1, len(shard.tokens)
            more = tokens[at : at + SHARD - had]
            start = number * SHARD + had - at
            shard.grow(more)
            self._touched.add(number)
            wanted = [start + at + index for index in range(len(more)) if at + index not in refused]
            self._positions.extend(wanted)
            self.unintended += len(wanted)
            for index in range(at, at + len(more)) if refused else ():
                if index in refused:
                    self.settle(start + index, refused[index])
            at += len(more)
        record.read += len(tokens)
        record.shards = self._next_shard
        record.after, record.digest = after, digest
        self.changed = True

    @property
    def wants_tokens(self) -> bool:
        """Whether the source may be read on."""
        return self.unintended < READ_AHEAD and len(self._shards) < OPEN_SHARDS

    @property
    def has_room(self) -> bool:
        """Whether more may be intended."""
        return self.intents_open + self.unrecorded < AHEAD

    @property
    def waiting(self) -> bool:
        """Whether anything waits to leave (what is held for a time is not in here)."""
        return bool(self._positions or self.ready or self.intents_open)

    def intend(self) -> bool:
        """Ask for more intents as far as there is room; return whether a commit is needed for them."""
        room = AHEAD - self.intents_open - self.unrecorded
        positions = self._positions
        if not self._journalled:
            count = min(room, len(positions))
            for _ in range(count):
                self.ready.append(positions.popleft())
            if count > 0:
                self.unintended -= count
                self.intents_open += count
            return False
        asked = False
        while positions and room >= (size := min(STEP, len(positions))):
            batch = [positions.popleft() for _ in range(size)]
            self._wanted = batch[-1] + 1
            self.unintended -= size
            self.intents_open += size
            room -= size
            self._intents.append(batch)
            self.changed = asked = True
        return asked

    def take(self, limit: int) -> list[tuple[int, str]]:
        """Let at most ``limit`` tokens leave; return position and token of each."""
        ready, shards = self.ready, self._shards
        left: list[tuple[int, str]] = []
        for _ in range(min(limit, len(ready))):
            position = ready.popleft()
            left.append((position, shards[position // SHARD].tokens[position % SHARD]))
        self.intents_open -= len(left)
        return left

    def token(self, position: int) -> str:
        """Return the token at a position that is not finished."""
        return self._shards[position // SHARD].tokens[position % SHARD]

    def unsent(self, position: int) -> None:
        """Note that a push certainly was not processed, so that a crash does not put it in doubt."""
        number, index = divmod(position, SHARD)
        self._shards[number].verdicts[index] = UNSENT
        self._touched.add(number)

    def again(self, position: int) -> bool:
        """Let a token leave again behind a new intent; return whether a commit is needed for it."""
        self.intents_open += 1
        if not self._journalled:
            self.ready.append(position)
            return False
        number, index = divmod(position, SHARD)
        self._shards[number].verdicts[index] = PENDING
        self._touched.add(number)
        if len(self._intents) > self._collected_intents:
            self._intents[-1].append(position)
        else:
            self._intents.append([position])
        return True

    def settle(self, position: int, outcome: Outcome) -> None:
        """Write down the outcome of a token."""
        number, index = divmod(position, SHARD)
        shard = self._shards[number]
        shard.verdicts[index] = CODE[outcome.verdict]
        shard.left -= 1
        if self._journalled:
            self._touched.add(number)
            self.unrecorded += 1
            if outcome.verdict is not Verdict.ACCEPTED:
                self._problems.append(
                    ProblemRecord(run=self.record.name, position=position, outcome=pack(outcome))
                )
        elif shard.left == 0:
            self._retire(number, shard)

    def withdraw(self) -> list[int]:
        """Take back every intent that has not left; return those positions."""
        positions = list(self.ready)
        for batch in self._intents:
            positions.extend(batch)
            batch.clear()
        self.ready.clear()
        self.intents_open = 0
        return positions

    def give_up(self) -> list[int]:
        """Take back everything that has not left, intended or not; return those positions."""
        positions = [*self.withdraw(), *self._positions]
        self._positions.clear()
        self.unintended = 0
        return positions

    def unsettled(self) -> list[tuple[int, str]]:
        """Return position and token of everything that has no outcome."""
        return [
            (number * SHARD + index, shard.tokens[index])
            for number, shard in self._shards.items()
            for index, code in enumerate(shard.verdicts)
            if code in (PENDING, UNSENT)
        ]

    def out(self) -> list[int]:
        """Return, after `withdraw`, the positions that have left and are not answered."""
        waiting = set(self._positions)
        return [
            number * SHARD + index
            for number, shard in self._shards.items()
            for index, code in enumerate(shard.verdicts)
            if code == PENDING and number * SHARD + index not in waiting
        ]

    def collect(self) -> list[Record]:
        """Return what changed since the last commit."""
        records: list[Record] = []
        name = self.record.name
        for number in self._touched:
            shard = self._shards.get(number)
            if shard is None:
                continue
            if shard.left == 0:
                self._retire(number, shard)
                records.append(
                    ShardRecord(run=name, number=number, tokens=None, verdicts=b"", finished=True)
                )
                continue
            records.append(
                ShardRecord(
                    run=name,
                    number=number,
                    tokens=None if shard.stored else tuple(shard.tokens),
                    verdicts=bytes(shard.verdicts),
                )
            )
            shard.stored = True
        self._touched.clear()
        records.extend(self._problems)
        self._problems.clear()
        if self.changed:
            self.record.intended = self._wanted
            records.append(msgspec.structs.replace(self.record, counts=dict(self.record.counts)))
            self.changed = False
        self._collected_intents = len(self._intents)
        self._collected_unrecorded = self.unrecorded
        return records

    def committed(self) -> None:
        """Let the intents that were collected last leave: they are safe."""
        for _ in range(self._collected_intents):
            self.ready.extend(self._intents.popleft())
        self.unrecorded -= self._collected_unrecorded
        self._collected_intents = self._collected_unrecorded = 0

    def _retire(self, number: int, shard: Shard) -> None:
        """Drop a finished shard; its counts move to the run's record."""
        del self._shards[number]
        counts = self.record.counts
        for code in set(shard.verdicts):
            name = VERDICT_OF[code].value
            counts[name] = counts.get(name, 0) + shard.verdicts.count(code)
        self.changed = True
