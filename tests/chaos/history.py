"""The history of a chaos round, and the rules that it must keep. Pure: a history in, violations out.

A history has the writes as their callers saw them, the pushes as APNs saw them, and the cards as the phones show
them at the end. Times are seconds of one clock. A write lies between the moments when its caller began it and
when it was first answered; an unanswered write may take effect at any time after it began. So of two writes
that overlap either may be the newer one, and a write that began after another was answered is newer than it.

====================  =========================================================================
rule                  violated when
====================  =========================================================================
lost                  an acknowledged start gave no card and was not reported as failed or unknown, and
                      the activity did not end since; an acknowledged notification did not reach a device and
                      was not reported so
not newest            a card at rest shows a state that an acknowledged write had replaced
not ended             a card lives although its end was acknowledged
start doubled         a device got the start of an activity twice
overtaken             a token got a state after a newer one
two answers           attempts with one idempotency key were answered differently
done twice            a notification came to a device twice
over budget           a silent update left at priority 10 although the budget was spent, more often than
                      there were takeovers
open                  an operation is unfinished at rest
====================  =========================================================================

``python -m tests.chaos.history FILE`` checks the history that a failed round has written.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import NamedTuple

import msgspec


class Write(msgspec.Struct, kw_only=True):
    """A write, repeated by its caller until it is answered. ``state`` numbers the states of ``name``.

    ``answers`` has the operation that each attempt was told. ``kind`` is start, update, end or notification.
    """

    name: str
    kind: str
    state: int
    begun: float
    answered: float | None = None
    answers: list[str] = []
    devices: tuple[str, ...] = ()
    """The audience of a start or notification."""

    @property
    def until(self) -> float:
        """The last moment at which the write may have taken effect."""
        return inf if self.answered is None else self.answered


class Push(msgspec.Struct, kw_only=True):
    """A push that APNs accepted; ``event`` is start, update, end or notification."""

    at: float
    device: str
    token: str
    event: str
    name: str
    state: int
    apns_id: str
    priority: int
    alert: bool = False


class Card(msgspec.Struct, kw_only=True):
    """What a phone shows of an activity at rest."""

    device: str
    name: str
    ended: bool
    state: int


class History(msgspec.Struct, kw_only=True):
    """One round.

    ``reported``: devices and names of starts and notifications that the service reported as failed or unknown.
    """

    writes: list[Write]
    pushes: list[Push]
    cards: list[Card] = []
    reported: list[tuple[str, str]] = []
    open: list[str] = []
    """Operations that are unfinished at rest."""
    registered: dict[str, float] = {}
    """When the first token of an activity's cards was registered: nothing but the start can leave before."""
    takeovers: int = 0
    budget: int = 11
    """Priority-10 updates of a card after which silent ones must leave at priority 5."""


class Violation(NamedTuple):
    """A rule that was not kept, and by what."""

    rule: str
    what: str


def violations(history: History) -> list[Violation]:
    """Return what a history does wrong, in the order of the rules."""
    return [
        Violation(rule, what)
        for rule, check in (
            ("lost", _lost),
            ("not newest", _not_newest),
            ("not ended", _not_ended),
            ("start doubled", partial(_more_than_once, event="start")),
            ("overtaken", _overtaken),
            ("two answers", _two_answers),
            ("done twice", partial(_more_than_once, event="notification")),
            ("over budget", _over_budget),
            ("open", lambda given: given.open),
        )
        for what in check(history)
    ]


def _by_name(writes: Iterable[Write]) -> dict[str, list[Write]]:
    found: dict[str, list[Write]] = defaultdict(list)
    for write in writes:
        found[write.name].append(write)
    return found


def newest(writes: Sequence[Write]) -> list[Write]:
    """Return the writes of one activity that may be the last. An acknowledged end is."""
    ends = [one for one in writes if one.kind == "end" and one.answered is not None]
    if ends:
        return ends
    last = max((one.begun for one in writes if one.answered is not None), default=-inf)
    return [one for one in writes if one.until >= last]


def _lost(history: History) -> Iterator[str]:
    shown = {(card.device, card.name) for card in history.cards} | set(history.reported)
    notified = {(push.device, push.name) for push in history.pushes if push.event == "notification"}
    ended = {one.name for one in history.writes if one.kind == "end" and one.answered is not None}
    for write in history.writes:
        if write.answered is None or write.kind not in {"start", "notification"}:
            continue
        if write.name in ended:  # before the start could leave
            continue
        have = shown if write.kind == "start" else notified | set(history.reported)
        for device in write.devices:
            if (device, write.name) not in have:
                yield f"{write.kind} of {write.name} on {device}, acknowledged at {write.answered:.3f}"


def _not_newest(history: History) -> Iterator[str]:
    writes = _by_name(history.writes)
    for card in history.cards:
        right = {write.state for write in newest(writes[card.name])}
        if card.state not in right:
            yield f"{card.name} on {card.device} shows {card.state}, not {sorted(right)}"


def _not_ended(history: History) -> Iterator[str]:
    writes = _by_name(history.writes)
    for card in history.cards:
        right = {write.kind == "end" for write in newest(writes[card.name])}
        if card.ended not in right:
            yield f"{card.name} on {card.device} is {'ended' if card.ended else 'alive'}"


def _more_than_once(history: History, event: str) -> Iterator[str]:
    pushes = Counter((one.device, one.name) for one in history.pushes if one.event == event)
    for (device, name), count in pushes.items():
        if count > 1:
            yield f"{count} pushes ({event}) of {name} to {device}"


def _overtaken(history: History) -> Iterator[str]:
    writes = {(one.name, one.state): one for one in history.writes if one.kind != "notification"}
    before: dict[tuple[str, str], Write] = {}
    for push in sorted(history.pushes, key=lambda one: one.at):
        if push.event == "notification":
            continue
        write, place = writes[push.name, push.state], (push.token, push.name)
        newer = before.setdefault(place, write)
        if newer.begun > write.until:
            yield f"{push.name} on {push.device}: state {push.state} after {newer.state} at {push.at:.3f}"
        if write.begun > newer.begun:
            before[place] = write


def _two_answers(history: History) -> Iterator[str]:
    for write in history.writes:
        if len(set(write.answers)) > 1:
            yield f"{write.kind} {write.state} of {write.name}: {sorted(set(write.answers))}"


def _over_budget(history: History) -> Iterator[str]:
    used: Counter[str] = Counter()
    over: Counter[str] = Counter()
    for push in sorted(history.pushes, key=lambda one: one.at):
        if push.event == "update" and push.priority == 10:
            used[push.token] += 1
            over[push.token] += not push.alert and used[push.token] > history.budget
            if over[push.token] == history.takeovers + 1:
                yield f"{push.name} on {push.device}: update {used[push.token]} at priority 10"


def pauses(history: History) -> list[tuple[float, Write]]:
    """Return for each acknowledged update and end how long its state, or a newer one, took to APNs, longest first.

    Those of activities that got no push at all are left out.
    """
    writes = _by_name(history.writes)
    begun = {(one.name, one.state): one.begun for one in history.writes}
    arrived: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for push in history.pushes:
        if push.event in {"update", "end"}:
            arrived[push.name].append((begun[push.name, push.state], push.at))
    found = []
    for name, pushes in arrived.items():
        for write in writes[name]:
            after = [at for when, at in pushes if when >= write.begun]
            if write.kind != "start" and write.answered is not None and after:
                ready = max(write.answered, history.registered.get(name, 0.0))
                found.append((min(after) - ready, write))
    return sorted(found, key=lambda one: one[0], reverse=True)


if __name__ == "__main__":
    found = violations(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=History))
    print(*(f"{rule}: {what}" for rule, what in found), sep="\n")
    sys.exit(bool(found))
