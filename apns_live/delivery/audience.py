"""The newest version of a live activity, its tokens in compact form, and who is next.

It stores two numbers and a byte per token besides the token, and nothing per push. A sweep visits the
tokens in turn, until all were visited since the last version. Each token gets the newest version, so if
versions come faster than a sweep, tokens skip some. A token that is in flight when the sweep passes it is
served when its answer comes. Others wait for the next sweep, so that every token gets its turn.
"""

from __future__ import annotations

import heapq
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from ..payload import EncodedMessage
from .budget import FULL, Account, Charge
from .encoding import carry_alert, one_spelling, restamp, without_alert
from .journal import SHARD, ActivityRecord, Entry, LaneRecord, MembersRecord, ProgressRecord, pack
from .pacing import NEVER, Trouble
from .state import State

IDLE, FLYING, PASSED, LATE, HELD, LEAVING, GONE = range(7)
"""Idle; in flight; in flight as the sweep passed; queued; waiting; left while in flight; empty."""


@dataclass(slots=True, eq=False, repr=False)
class Audience:
    """Which token has which version.

    ``cursor`` is the newest version sent to a token, ``confirmed`` the newest that APNs accepted.
    ``behind`` counts the tokens that do not have ``newest`` confirmed. ``changed`` has the places
    whose token must be recorded, ``progressed`` those whose versions must be. Case does not matter.
    """

    tokens: list[str] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    cursor: array[int] = field(default_factory=lambda: array("I"))
    confirmed: array[int] = field(default_factory=lambda: array("I"))
    status: bytearray = field(default_factory=bytearray)
    troubles: dict[int, Trouble] = field(default_factory=dict)
    slow: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)
    progressed: set[int] = field(default_factory=set)
    ahead: set[int] = field(default_factory=set)
    """Places whose token has the next version already: another process sent it."""
    newest: int = 0
    behind: int = 0
    _late: deque[int] = field(default_factory=deque)
    _held: list[tuple[float, int]] = field(default_factory=list)
    _free: list[int] = field(default_factory=list)
    _pointer: int = 0
    _remaining: int = 0

    def __len__(self) -> int:
        return len(self.index)

    def join(self, token: str, *, confirmed: int = 0) -> int | None:
        """Add a token that has version ``confirmed``. Return its place, or None if it is a member already."""
        key = one_spelling(token)
        place = self.index.get(key)
        if place is not None:
            if self.status[place] == LEAVING:
                self.status[place] = PASSED
                self.behind += 1
            return None
        if self._free:
            place = self._free.pop()
        else:
            place = len(self.tokens)
            self._leave_empty(place + 1)
            # The circle has one more place: a running sweep must not end one place early.
            self._remaining += self._remaining > 0
        self.tokens[place] = token
        self.cursor[place] = self.confirmed[place] = confirmed
        self.index[key] = place
        self.changed.add(place)
        if confirmed == self.newest:
            self.status[place] = IDLE
        else:
            self.behind += 1
            self._queue(place)
        return place

    def leave(self, token: str) -> bool:
        """Remove a token; if in flight, after its answer. Return False if it is not a member."""
        place = self.index.get(one_spelling(token))
        if place is None or self.status[place] == LEAVING:
            return False
        if self.confirmed[place] != self.newest:
            self.behind -= 1
        if self.status[place] in (FLYING, PASSED):
            self.status[place] = LEAVING
        else:
            self.remove(place)
        return True

    def remove(self, place: int) -> None:
        """Empty a place. The caller has subtracted it from ``behind``."""
        del self.index[one_spelling(self.tokens[place])]
        self.tokens[place] = ""
        self.status[place] = GONE
        self.troubles.pop(place, None)
        self.slow.discard(place)
        self.ahead.discard(place)
        self.changed.add(place)
        # A place that is still in a queue must not be reused: `pick` checks the status. A new token
        # there is queued itself, so serving it early is harmless.
        self._free.append(place)

    def publish(self) -> int:
        """Begin the next version for all tokens except those ``ahead``; return its number."""
        self.newest += 1
        self.behind = len(self.index) - self.status.count(LEAVING) - len(self.ahead)
        for place in self.ahead:
            self.cursor[place] = self.confirmed[place] = self.newest
        self.ahead.clear()
        self._remaining = len(self.tokens)
        return self.newest

    @property
    def pending(self) -> bool:
        """Whether ``pick`` may return something."""
        return self._remaining > 0 or bool(self._late)

    def pick(self, limit: int) -> list[int]:
        """Return at most ``limit`` places that get the newest version. They are in flight then."""
        picked: list[int] = []
        status, cursor, newest = self.status, self.confirmed, self.newest
        late = self._late
        while late and len(picked) < limit:
            place = late.popleft()
            if status[place] == LATE:
                status[place] = FLYING
                picked.append(place)
        remaining = self._remaining
        pointer, places = self._pointer, len(self.tokens)
        room = limit - len(picked)
        add = picked.append
        while remaining and room:
            if pointer >= places:
                pointer = 0
            now = status[pointer]
            if now == IDLE:
                if cursor[pointer] != newest:
                    status[pointer] = FLYING
                    add(pointer)
                    room -= 1
            elif now == FLYING:
                status[pointer] = PASSED
            pointer += 1
            remaining -= 1
        self._pointer, self._remaining = pointer, remaining
        return picked

    def put_back(self, place: int) -> None:
        """Undo `pick` for a place that got no push; it is next again."""
        status = self.status[place]
        if status == LEAVING:
            self.remove(place)
        elif status in (FLYING, PASSED):
            self.cursor[place] = self.confirmed[place]
            self._queue(place)

    def accepted(self, place: int, version: int) -> None:
        """Note that APNs accepted ``version`` for a place, or that it is not sent there again."""
        if self.troubles:
            self.troubles.pop(place, None)
        self.confirmed[place] = version
        status = self.status[place]
        if status == LEAVING:
            self.remove(place)
        elif version == self.newest:
            self.status[place] = IDLE
            self.behind -= 1
        elif status == PASSED:
            self._queue(place)
        else:
            self.status[place] = IDLE

    def again(self, place: int, when: float, now: float) -> None:
        """Queue a place for the newest version, at ``when`` (seconds since 1970)."""
        self.cursor[place] = self.confirmed[place]
        if self.status[place] == LEAVING:
            self.remove(place)
        elif when <= now:
            self._queue(place)
        else:
            self.status[place] = HELD
            heapq.heappush(self._held, (when, place))

    def dropped(self, place: int) -> bool:
        """Remove a token that APNs reported as invalid. Return whether it had left already."""
        had_left = self.status[place] == LEAVING
        self.behind -= not had_left
        self.remove(place)
        return had_left

    def next_time(self) -> float:
        """Return when the first held place is due, NEVER if there is none."""
        return self._held[0][0] if self._held else NEVER

    def tick(self, now: float) -> None:
        """Queue the held places whose time has come."""
        while self._held and self._held[0][0] <= now:
            _, place = heapq.heappop(self._held)
            trouble = self.troubles.get(place)
            # If it must wait longer, it has a new token, or a newer problem with its own entry here.
            if self.status[place] == HELD and (trouble is None or trouble.not_before <= now):
                self._queue(place)

    def _queue(self, place: int) -> None:
        self.status[place] = LATE
        self._late.append(place)

    def give_up_waiting(self) -> list[int]:
        """Give up the newest version for all places that wait for it; return those places."""
        places = [
            place
            for place, status in enumerate(self.status)
            if status in (IDLE, LATE, HELD) and self.confirmed[place] != self.newest
        ]
        for place in places:
            self.troubles.pop(place, None)
            self.confirmed[place] = self.cursor[place] = self.newest
            self.status[place] = IDLE
        self.behind -= len(places)
        self._late.clear()
        self._held.clear()
        self._remaining = 0
        return places

    # Journal entries.

    def entries(self, name: str) -> list[Entry]:
        """Return the journal entries of what changed since the last call."""
        entries: list[Entry] = []
        shards = {place // SHARD for place in self.changed}
        for number in sorted(shards):
            tokens = tuple(self.tokens[number * SHARD : (number + 1) * SHARD])
            record = MembersRecord(activity=name, number=number, tokens=tokens)
            entries.append(Entry("members", name, number, pack(record)))
        shards |= {place // SHARD for place in self.progressed}
        for number in sorted(shards):
            part = slice(number * SHARD, (number + 1) * SHARD)
            progress = ProgressRecord(
                activity=name,
                number=number,
                confirmed=_little(self.confirmed[part]).tobytes(),
                intended=_little(self.cursor[part]).tobytes(),
            )
            entries.append(Entry("progress", name, number, pack(progress)))
        self.changed.clear()
        self.progressed.clear()
        return entries

    def restore(
        self, shards: Iterable[tuple[MembersRecord, ProgressRecord | None]], last_timestamp: int
    ) -> int:
        """Fill a new audience whose ``newest`` is set; return how many tokens were in doubt.

        Those get the newest state again, with a timestamp above ``last_timestamp``.
        """
        in_doubt = 0
        for members, progress in shards:
            self._leave_empty(members.number * SHARD)
            confirmed = _little(array("I", progress.confirmed if progress else b""))
            intended = _little(array("I", progress.intended if progress else b""))
            for index, token in enumerate(members.tokens):
                if not token:
                    self._leave_empty(len(self.tokens) + 1)
                    continue
                # A token that is behind may have got any version up to the newest; it stays behind.
                has = min(confirmed[index], self.newest) if index < len(confirmed) else 0
                place = self.join(token, confirmed=has)
                if place is not None and index < len(intended) and intended[index] > has:
                    in_doubt += 1
                    self.troubles[place] = Trouble(
                        may_have_been_sent=True, timestamp=last_timestamp
                    )
        self._free = [place for place, status in enumerate(self.status) if status == GONE]
        self.changed.clear()
        return in_doubt

    def _leave_empty(self, places: int) -> None:
        """Add empty places until there are ``places``, as the journal has them."""
        while len(self.tokens) < places:
            self.tokens.append("")
            self.cursor.append(0)
            self.confirmed.append(0)
            self.status.append(GONE)


def _little(numbers: array[int]) -> array[int]:
    """Swap the bytes on a big-endian machine, because the journal is little-endian."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


@dataclass(slots=True, eq=False)
class Variant:
    """One encoding of a version, as the client sends it."""

    version: int
    sendable: object


@dataclass(slots=True, eq=False)
class Publication:
    """The newest version, and which versions had an alert (``alert_version``) and priority 10.

    It is encoded once for all that missed the same alert and push at priority 10: a few times.

    ``ten_version`` is the newest with priority 10, ``slow_ten_version`` the same for devices
    without frequent pushes, which have an account of their own.
    """

    prepare: Callable[[EncodedMessage], object]
    version: int = 0
    current: EncodedMessage | None = None
    alert: EncodedMessage | None = None
    alert_version: int = 0
    ten_version: int = 0
    slow_ten_version: int = 0
    slow_account: Account = FULL
    last_moment: float = NEVER
    """Steady seconds since 1970 after which the newest version is no longer sent."""
    expired: bool = False
    """Whether the newest version was given up for the tokens that waited for it."""
    quiet: set[int] = field(default_factory=set)
    """Places that joined after the alert of the newest version."""
    lifetime: float = 0.0
    variants: dict[tuple[bool, bool], Variant] = field(default_factory=dict)

    def publish(self, version: int, state: State, slow: Charge) -> None:
        """Make a state the newest version. It has its timestamp and priority from its lane."""
        encoded = state.encoded
        self.version = version
        self.current = encoded
        self.slow_account = slow.account
        if encoded.priority == 10:
            self.ten_version = version
        if slow.priority == 10:
            self.slow_ten_version = version
        if encoded.has_alert:
            self.alert, self.alert_version = encoded, version
        self.last_moment, self.expired = state.last_moment, False
        self.lifetime = state.lifetime
        self.quiet.clear()
        self.variants.clear()

    def record(self, activity: str, lane: LaneRecord) -> ActivityRecord:
        """Return the journal record of an activity, including its lane."""
        return ActivityRecord(
            activity=activity,
            lane=lane,
            version=self.version,
            current=self.current,
            alert=self.alert,
            alert_version=self.alert_version,
            ten_version=self.ten_version,
            deadline=None if self.last_moment == NEVER else self.last_moment,
        )

    def restore(self, record: ActivityRecord) -> None:
        """Fill a new publication from its record."""
        self.version, self.current = record.version, record.current
        self.alert, self.alert_version = record.alert, record.alert_version
        self.ten_version = self.slow_ten_version = record.ten_version
        self.last_moment = NEVER if record.deadline is None else record.deadline

    @property
    def timestamp(self) -> int:
        """The payload timestamp of the newest version, 0 if there is none."""
        return (self.current.timestamp or 0) if self.current is not None else 0

    @property
    def is_pressing(self) -> bool:
        """Whether it ends the activity or has an alert."""
        return self.current is not None and (self.current.event == "end" or self.current.has_alert)

    def variant(self, confirmed: int, *, quiet: bool = False, slow: bool = False) -> Variant:
        """Return the encoding for a token that has version ``confirmed``."""
        ring = confirmed < self.alert_version and not quiet
        ten = ring or confirmed < (self.slow_ten_version if slow else self.ten_version)
        key = (ring, ten)
        variant = self.variants.get(key)
        if variant is None:
            encoded = self.current
            assert encoded is not None  # noqa: S101 - asked for only when something was published
            if ring and not encoded.has_alert and self.alert is not None:
                encoded = carry_alert(encoded, self.alert) or encoded
            elif not ring and encoded.has_alert:
                encoded = without_alert(encoded)
            encoded = restamp(encoded, encoded.timestamp or 0, 10 if ten else 5)
            variant = self.variants[key] = Variant(self.version, self.prepare(encoded))
        return variant

    def restamp(self, stamp: int) -> None:
        """Give the newest version a newer timestamp."""
        if self.current is not None:
            self.current = restamp(self.current, stamp, self.current.priority)
            self.variants.clear()

    def renew(self, now: float, step: float) -> bool:
        """Give the newest version a new expiration, for a token that joins after the old one.

        Only if no expiration or deadline was given, so it may still be useful. Return True if so.
        """
        if self.current is None or now < self.last_moment or not self.lifetime:
            return False
        self.last_moment, self.expired = now + self.lifetime, False
        expiration = int(self.last_moment + step)
        self.current = msgspec.structs.replace(self.current, expiration=expiration)
        self.variants.clear()
        return True
