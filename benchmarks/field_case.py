"""The field case: a live match on 12,139 phones, as someone saw it go wrong with plain queues.

153 updates, one a second; 80 ms until an answer; 14 % of the tokens expired; 1 % of the pushes are
withheld, from the phone and from us, for 10 s, and are lost if we give up before. Every draw is a
hash of (seed, token, nth push to it), so it does not depend on who sends or in what order. Runs on
a simulated clock, in memory; each second every phone is asked how old what it shows is.
"""

from __future__ import annotations

import json
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from apns_live.client import WorkItem as Push
from apns_live.delivery import Delivery
from apns_live.outcome import Outcome, Verdict
from apns_live.payload import Update, encode
from apns_live.testing.clock import SimulatedClock
from tests.delivery.double import Fate, MemoryClient, Prepared

TOKENS = 12_139
UPDATES = 153
DELAY = 0.080
WITHHELD = 10.0
POOL = 8 * 1000
PHASE = 0.05
"""Seconds after an update at which the phones are asked."""

_ANSWERED = Fate(delay=DELAY)
_GONE = Fate(delay=DELAY, status=410, reason="ExpiredToken")
_WITHHELD = Fate(delay=WITHHELD)


def share(*what: object) -> float:
    """Return a draw in [0, 1) that depends on ``what`` alone."""
    return int.from_bytes(blake2b(repr(what).encode(), digest_size=4).digest(), "big") / 2**32


class Phones:
    """What each phone shows, and how old that is."""

    def __init__(self, seed: int, tokens: int) -> None:
        self.tokens = [f"{number:08x}" * 8 for number in range(tokens)]
        self.number = {token: number for number, token in enumerate(self.tokens)}
        self.expired = bytearray(share(seed, n, "expired") < 0.14 for n in range(tokens))
        self.pushes = array("I", bytes(4 * tokens))
        self.shown = array("I", bytes(4 * tokens))
        self.stamps = array("Q", bytes(8 * tokens))
        self.put_at: list[float] = []
        self.ages: list[float] = []
        self.asked_when_gone: dict[int, int] = {}
        self.backwards = 0
        self._seed = seed
        self._read: dict[int, tuple[Any, int, int]] = {}

    def fate(self, token: str, message: Prepared, now: float) -> Fate:
        """Draw what happens to the next push to ``token``."""
        del message, now
        number = self.number[token]
        nth = self.pushes[number]
        self.pushes[number] = nth + 1
        if self.expired[number]:
            self.asked_when_gone[number] = self.asked_when_gone.get(number, 0) + 1
            return _GONE
        return _WITHHELD if share(self._seed, number, nth) < 0.01 else _ANSWERED

    def received(self, token: str, message: Prepared, now: float) -> None:
        """Show a state if its timestamp is the newest."""
        del now
        known = self._read.get(id(message))
        if known is None or known[0] is not message:
            aps = json.loads(message.body)["aps"]
            known = (message, aps["timestamp"], aps["content-state"]["version"])
            self._read[id(message)] = known
        number = self.number[token]
        if known[1] > self.stamps[number]:
            self.stamps[number] = known[1]
            self.backwards += known[2] < self.shown[number]
            self.shown[number] = known[2]

    def sample(self, now: float) -> None:
        """Note how old the shown state of every living phone is; 0 for the newest."""
        newest = len(self.put_at) - 1
        age = [now - moment for moment in self.put_at]
        age[newest] = 0.0
        expired = self.expired
        self.ages.extend(
            [age[version] for number, version in enumerate(self.shown) if not expired[number]]
        )

    def living_on(self, version: int) -> tuple[int, int]:
        """Return how many living phones show ``version``, and how many are alive."""
        alive = [shown for shown, gone in zip(self.shown, self.expired, strict=True) if not gone]
        return alive.count(version), len(alive)


@dataclass(frozen=True)
class Result:
    """Figures of one run. Ages are seconds."""

    name: str
    median: float
    high: float
    worst: float
    on_final: int
    alive: int
    pushes: int
    dead_pushes: int
    overtaken: int
    finished_after: float
    """Seconds from the last update until every living phone showed it; -1 for not within an hour."""
    reported_dead: int
    seconds: float
    """What the machine took."""


class PlainQueue:
    """What was seen in the field: every push of every update in one queue, first in, first out."""

    def __init__(self, tokens: list[str], tries: int = 4) -> None:
        self._tokens = tokens
        self._queue: deque[tuple[Prepared, int, int]] = deque()
        self._again: deque[Push] = deque()
        self._tries = tries

    def put(self, message: Prepared) -> None:
        """Queue one update for everybody."""
        self._queue.append((message, 0, len(self._tokens)))

    def take(self, limit: int) -> Sequence[Push]:
        """Return the next ones in the row."""
        items: list[Push] = []
        while self._again and len(items) < limit:
            items.append(self._again.popleft())
        while self._queue and len(items) < limit:
            message, at, end = self._queue.popleft()
            until = min(end, at + limit - len(items))
            items += [Push(token, message, 1) for token in self._tokens[at:until]]  # type: ignore[arg-type]
            if until < end:
                self._queue.appendleft((message, until, end))
        return items

    def settled(self, outcomes: Sequence[tuple[Push, Outcome]]) -> None:
        """Try those without an answer again."""
        for push, outcome in outcomes:
            if outcome.verdict is Verdict.UNKNOWN and push.context < self._tries:
                self._again.append(Push(push.token, push.message, push.context + 1))


async def run(
    name: str,
    *,
    seed: int = 1,
    tokens: int = TOKENS,
    updates: int = UPDATES,
    pool: int = POOL,
    patience: float = 3600.0,
) -> Result:
    """Run the field case with ``name`` "delivery" or "queue" over a pool of ``pool`` streams."""
    began = time.perf_counter()
    clock = SimulatedClock()
    phones = Phones(seed, tokens)
    phones.put_at.append(clock.time())
    client = MemoryClient(clock, room=pool, fate=phones.fate, received=phones.received)
    dead: list[str] = []
    delivery = Delivery(
        client,
        clock=clock,
        close_timeout=0.0,
        on_problem=lambda outcome: dead.append(outcome.token),
    )
    queue = PlainQueue(phones.tokens)
    attachment = None
    if name == "delivery":
        await delivery.open()
        match = delivery.activity("match", tokens=phones.tokens)
    else:
        attachment = client.attach(queue, retry=False, response_timeout=10.0)
    for version in range(1, updates + 1):
        message = Update(content_state={"version": version, "home": version // 9, "away": 3})
        phones.put_at.append(clock.time())
        if attachment is None:
            match.put(message)
        else:
            queue.put(client.prepare(encode(message, now=clock.time())))
            attachment.wake()
        # Ask when it looks worst: a new state exists, and no answer can be back yet.
        await clock.advance(PHASE)
        phones.sample(clock.time())
        await clock.advance(1.0 - PHASE)
    last = clock.time()
    finished_after = -1.0
    while clock.time() - last < patience:
        there, alive = phones.living_on(updates)
        if there == alive:
            finished_after = clock.time() - last
            break
        await clock.advance(1.0)
        phones.sample(clock.time())
    there, alive = phones.living_on(updates)
    if attachment is None:
        await clock.advance(5.0)
        await delivery.aclose()
    ages = sorted(phones.ages)
    return Result(
        name=name,
        median=ages[len(ages) // 2],
        high=ages[int(len(ages) * 0.999)],
        worst=ages[-1],
        on_final=there,
        alive=alive,
        pushes=client.sent,
        dead_pushes=sum(phones.asked_when_gone.values()),
        overtaken=len(client.overtaken),
        finished_after=finished_after,
        reported_dead=len(dead) if len(dead) == len(set(dead)) else -1,
        seconds=time.perf_counter() - began,
    )
