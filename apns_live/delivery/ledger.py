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

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..outcome import Outcome, Verdict
from .dispatch import AHEAD, STEP
from .journal import CODE, PENDING, SHARD, UNSENT, Entry, RunRecord, in_doubt, pack
from .pacing import Trouble

OPEN_SHARDS = 64
READ_AHEAD = 4 * SHARD

VERDICT_OF = {code: verdict for verdict, code in CODE.items()}
"""The verdict of a byte that is neither PENDING nor UNSENT."""


class Shard:
    """At most SHARD tokens with a verdict byte each. ``stored`` means: the journal has them."""

    __slots__ = ("left", "stored", "tokens", "verdicts")

    def __init__(self, tokens: list[str], verdicts: bytes = b"") -> None:
        self.tokens = tokens
        self.verdicts = bytearray(verdicts)
        self.left = verdicts.count(PENDING) + verdicts.count(UNSENT)
        self.stored = bool(tokens)


@dataclass(slots=True, eq=False, repr=False)
class Ledger:
    """The state of each token of a fan-out, by position (from 0). SHARD consecutive tokens form a shard."""

    record: RunRecord
    journalled: bool
    changed: bool = False
    """Whether its own record must be written. False before the journal was checked."""
    queue: deque[int] = field(default_factory=deque)
    """Positions that wait to be sent."""
    intended: set[int] = field(default_factory=set)
    """Positions that were taken, with a journal, and whose push is not sent yet."""
    held: list[tuple[float, int]] = field(default_factory=list)
    """A heap of positions that wait for a time, each after its time."""
    troubles: dict[int, Trouble] = field(default_factory=dict)
    """The retry state of positions whose push was not accepted."""
    resumed: bool = False
    resent: int = 0
    """Tokens in doubt after a crash that are sent again."""
    unrecorded: int = 0
    _collected: int = 0
    _shards: dict[int, Shard] = field(default_factory=dict)
    _touched: set[int] = field(default_factory=set)
    _problems: list[Entry] = field(default_factory=list)

    def load(self, number: int, tokens: list[str], verdicts: bytes) -> list[tuple[int, str]]:
        """Load a shard from the journal. Return position and token of each push in doubt."""
        self._shards[number] = Shard(tokens, verdicts)
        doubtful: list[tuple[int, str]] = []
        for position, code in enumerate(verdicts, number * SHARD):
            if in_doubt(position, self.record.intended, code):
                doubtful.append((position, tokens[position % SHARD]))
            elif code in (PENDING, UNSENT):
                self.queue.append(position)
        return doubtful

    def add(
        self,
        tokens: Sequence[str],
        after: str | None,
        digest: bytes,
        refused: Mapping[int, Outcome],
    ) -> None:
        """Add tokens that were read, and where the source continues after them.

        ``refused`` has the outcomes of invalid tokens, by index.
        """
        record = self.record
        at = 0
        while at < len(tokens):
            shard = self._shards.get(self.record.shards - 1)
            if shard is None or len(shard.tokens) >= SHARD:
                shard = self._shards[self.record.shards] = Shard([])
                self.record.shards += 1
            number, had = self.record.shards - 1, len(shard.tokens)
            more = tokens[at : at + SHARD - had]
            shard.tokens.extend(more)
            shard.verdicts.extend(bytes(len(more)))
            shard.left += len(more)
            shard.stored = False
            self._touched.add(number)
            for index, position in enumerate(
                range(number * SHARD + had, number * SHARD + len(shard.tokens)), at
            ):
                if refused and index in refused:
                    self.settle(position, refused[index])
                else:
                    self.queue.append(position)
            at += len(more)
        record.read += len(tokens)
        record.after, record.digest = after, digest
        self.changed = True

    @property
    def wants_tokens(self) -> bool:
        """Whether more tokens must be read."""
        return len(self.queue) < READ_AHEAD and len(self._shards) < OPEN_SHARDS

    @property
    def room(self) -> int:
        """How many tokens `take` may return now."""
        waiting = len(self.queue)
        if not self.journalled:
            return waiting
        room = min(waiting, AHEAD - len(self.intended) - self.unrecorded)
        return room if room >= min(STEP, waiting) else 0

    @property
    def waiting(self) -> bool:
        """Whether tokens wait to be sent."""
        return bool(self.queue or self.intended or self.held)

    def take(self, limit: int) -> list[tuple[int, str]]:
        """Take at most ``limit`` tokens from the queue; return position and token of each.

        With a journal, they may be sent by `leave` after the next commit.
        """
        queue = self.queue
        positions = [queue.popleft() for _ in range(min(limit, self.room))]
        if self.journalled and positions:
            self.intended.update(positions)
            self.record.intended = max(self.record.intended, max(positions) + 1)
            self.changed = True
        taken: list[tuple[int, str]] = []
        for position in positions:
            number, index = divmod(position, SHARD)
            shard = self._shards[number]
            taken.append((position, shard.tokens[index]))
            if shard.verdicts[index] == UNSENT:
                shard.verdicts[index] = PENDING
                self._touched.add(number)
        return taken

    def leave(self, position: int) -> bool:
        """Mark a token as sent, after its commit. Return False if it was withdrawn meanwhile."""
        if position not in self.intended:
            return False
        self.intended.remove(position)
        return True

    def unsent(self, position: int) -> None:
        """Record that APNs did not process a push, so that it is not in doubt after a crash."""
        number, index = divmod(position, SHARD)
        self._shards[number].verdicts[index] = UNSENT
        self._touched.add(number)

    def settle(self, position: int, outcome: Outcome) -> None:
        """Record the outcome of a token."""
        number, index = divmod(position, SHARD)
        shard = self._shards[number]
        shard.verdicts[index] = CODE[outcome.verdict]
        shard.left -= 1
        if self.journalled:
            self._touched.add(number)
            self.unrecorded += 1
            if outcome.verdict is not Verdict.ACCEPTED:
                self._problems.append(Entry("problem", self.record.name, position, pack(outcome)))
        elif shard.left == 0:
            self._retire(number, shard)

    def withdraw(self) -> None:
        """Withdraw all tokens that were taken and not sent, and those that wait for a time."""
        for position in (*self.intended, *(position for _, position in self.held)):
            trouble = self.troubles.get(position)
            if trouble is None or not trouble.may_have_been_sent:
                self.unsent(position)
        self.intended.clear()
        self.held.clear()

    def unsettled(self) -> list[tuple[int, str, int]]:
        """Return position, token and verdict byte of each token without an outcome."""
        return [
            (number * SHARD + index, shard.tokens[index], code)
            for number, shard in self._shards.items()
            for index, code in enumerate(shard.verdicts)
            if code in (PENDING, UNSENT)
        ]

    def collect(self) -> list[Entry]:
        """Return the journal entries of what changed since the last commit."""
        entries: list[Entry] = []
        name = self.record.name
        for number in self._touched:
            shard = self._shards.get(number)
            if shard is None:
                continue
            if shard.left == 0:
                self._retire(number, shard)
                entries.append(Entry("tokens", name, number, None))
                entries.append(Entry("verdicts", name, number, None))
                continue
            if not shard.stored:
                entries.append(Entry("tokens", name, number, pack(shard.tokens)))
                shard.stored = True
            entries.append(Entry("verdicts", name, number, bytes(shard.verdicts)))
        self._touched.clear()
        entries += self._problems
        self._problems.clear()
        if self.changed:
            entries.append(Entry("run", name, 0, pack(self.record)))
            self.changed = False
        self._collected = self.unrecorded
        return entries

    def committed(self) -> None:
        """Note that the entries last returned by `collect` are committed."""
        self.unrecorded -= self._collected
        self._collected = 0

    def _retire(self, number: int, shard: Shard) -> None:
        """Drop a finished shard; its counts move to the run's record."""
        del self._shards[number]
        counts = self.record.counts
        for code in set(shard.verdicts):
            name = VERDICT_OF[code].value
            counts[name] = counts.get(name, 0) + shard.verdicts.count(code)
        self.changed = True
