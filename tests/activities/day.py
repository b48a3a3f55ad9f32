"""A day of ten thousand phones: what they are like, what happens to them, and what they ought to show.

`Phone` is a plan that a seed makes. `Ought` is a model of its own, made of the plan alone: it knows
neither the fake's phones nor the service, and says what each card shows and why it is not newer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

SLOT = 600.0
"""Seconds of a slot: what happens to phones comes at its beginning, what is sent in its middle."""
DAY = 144
OWN, GIVEN = ("brunch", "modern"), ("shootout", "night")
"""Activities that follow a channel of the service's own, and one that the caller gives."""
LIVES = 48
"""Slots after which iOS ends a card by itself: 8 hours."""
LONG, HANDED_OVER = "marathon", 45
"""An activity that runs for longer, and how many slots after its start its cards are replaced: 7.5 hours."""
BEFORE_LONG = "extra"
"""What was started last before that: a device that gave no token for it is not handed over."""
HELD_FOR = {"start": 600.0, "update": 8 * 3600.0, "end": 8 * 3600.0}
"""How long APNs keeps what the service sends for a phone that is away."""

Kind = Literal["start", "update", "end"]
OLD_PHASES = frozenset({"first", "second", "over"})
"""What version 1.0 of the app decodes; 2.0 knows `extra` and `penalties` too."""
SWIFT = """
struct MatchAttributes: ActivityAttributes {{
    enum Phase: String, Codable {{ case {cases} }}
    struct ContentState: Codable, Hashable {{ var n: Int; var phase: Phase }}
    var activity: String
}}
"""
VERSIONS = {
    "1.0": SWIFT.format(cases=", ".join(sorted(OLD_PHASES))),
    "2.0": SWIFT.format(cases=", ".join(sorted({*OLD_PHASES, "extra", "penalties"}))),
}


class Sent(NamedTuple):
    """A state that an activity is given. ``n`` counts from 0 over the whole day."""

    slot: int
    kind: Kind
    activity: str
    n: int
    phase: str

    @property
    def moment(self) -> float:
        """Seconds since the beginning of the day."""
        return (self.slot + 0.5) * SLOT


_PROGRAMME = """
marathon   1 first   3 second 20 first 40 second 52 first 60 over
morning    2 first   4 first  6 second 8 second 10 second 12 over
brunch     5 first   7 first  9 second 11 second 14 over
extra     30 first  32 second 34 extra 36 extra 38 over
shootout  50 first  52 second 54 penalties 56 penalties
modern    70 extra  72 extra  74 first 76 over
long     100 first 102 first 110 first 118 second 124 over
night    126 first 128 first 132 second 142 over
"""
"""An activity a line: the slots of its states. The first starts it, the last ends it."""


def programme() -> list[Sent]:
    """Return everything that is sent, in order."""
    found = []
    for line in _PROGRAMME.strip().splitlines():
        name, *words = line.split()
        pairs = list(zip(map(int, words[::2]), words[1::2], strict=True))
        kinds: list[Kind] = ["start", *["update"] * (len(pairs) - 2), "end"]  # type: ignore[list-item]
        found += [
            (slot, kind, name, phase) for kind, (slot, phase) in zip(kinds, pairs, strict=True)
        ]
    found.sort()
    return [Sent(slot, kind, name, n, phase) for n, (slot, kind, name, phase) in enumerate(found)]


CAUSES = frozenset(
    [
        "too old",
        "deleted",
        "dead start token",
        "denied",
        "low power",
        "cannot decode",
        "no consent",
        "killed",
        "offline",
        "dead token",
    ]
)
"""Everything that may keep a card from the newest state: each a fact of the phone or of its app."""
CHECKS = (13, 15, 37, 39, 57, 77, 112, 125, 143)
"""Slots at whose end phones, model and service are compared."""


@dataclass(slots=True)
class Phone:
    """A phone and its owner's day. ``events`` are what happens at the beginning of a slot."""

    id: str
    os_version: str
    app_version: str
    consent: str = "always"
    awake: bool = True
    frequent: bool = True
    low_power: bool = False
    killed: bool = False
    """Force-quit: iOS wakes it for no token, until it is opened."""
    silent: bool = False
    """The start token that the server has was replaced, and the app's token stream did not tell."""
    events: dict[int, str] = field(default_factory=dict)
    """By slot. One at a time: what two at once would do is not what is tried here."""

    @property
    def can_be_started(self) -> bool:
        """Whether it has push-to-start: iOS 17.2 and later."""
        return tuple(map(int, self.os_version.split("."))) >= (17, 2)

    def follows(self, activity: str) -> bool:
        """Whether its card follows a channel: iOS 18 and later can."""
        return activity in OWN + GIVEN and not self.os_version.startswith("17")


OS_VERSIONS = (
    "17.0",
    "17.1",
    "17.2",
    "17.6",
    *["18.0", "18.5"] * 4,
    *["26.0", "26.6"] * 3,
    *["27.0"] * 2,
)


def population(count: int, seed: int) -> list[Phone]:
    """Make phones. Half of them have nothing odd about them."""
    chance = random.Random(seed)
    slots = sorted({sent.slot for sent in programme()})
    return [_phone(f"phone-{number}", chance, slots) for number in range(count)]


def _phone(name: str, chance: random.Random, slots: list[int]) -> Phone:
    phone = Phone(
        name,
        chance.choice(OS_VERSIONS),
        chance.choice(("1.0", "2.0", "2.0")),
        awake=chance.random() < 0.6,
        frequent=chance.random() < 0.7,
    )
    events = phone.events
    away: list[tuple[int, int]] = []
    odd = chance.choice(("consent", "killed", "silent", "low power", "away", "away", *["none"] * 6))
    if odd == "consent":
        phone.consent = chance.choice(("none", "allow", "deny"))
        if chance.random() < 0.5:
            answer = chance.choice(("allow", "always"))
            events[chance.randrange(3, DAY)] = f"consent {answer}"
    elif odd == "killed":
        phone.killed = True
    elif odd == "silent":
        phone.silent = phone.can_be_started
    elif odd == "low power":
        phone.low_power = True
    elif odd == "away":
        last = 0
        for slot in sorted(chance.sample(slots, 3)):
            back = slot + chance.randrange(1, 13)
            if slot > last:
                events[slot], events[back], last = "away", "back", back
                away.append((slot, back))
    for share, event in ((0.5, "open"), (0.15, "rotate"), (0.1, "update app"), (0.03, "delete")):
        slot = chance.randrange(DAY)
        # What APNs answers for a replaced token once the app is gone, nobody has told.
        odd_delete = event == "delete" and (phone.silent or "rotate" in events.values())
        at_home = slot not in events and not any(begin < slot < end for begin, end in away)
        if chance.random() < share and at_home and not odd_delete:
            events[slot] = event
    return phone


@dataclass(slots=True)
class Card:
    """What the model knows of an activity on one phone. ``cause`` says why it is not at the newest."""

    shown: int | None = None
    begun: int = 0
    """The slot in which it was started: `LIVES` slots later iOS ends it, and its app says so."""
    running: bool = False
    known: bool = False
    """Whether the service knows of it: APNs took its start, or its token came."""
    token: Literal["none", "live", "dead"] = "none"
    """The token that the service has."""
    by_channel: bool = False
    """It follows a channel. Then it has no token, and needs none."""
    unheard: bool = False
    """Its app could not confirm what it shows: it was force-quit then."""
    cause: str = ""
    handed_over: Literal["", "live", "dead"] = ""
    """What the first card's token was when a second card took its place; a dead one's end is not heard."""


class Ought:
    """What one phone ought to show, from its plan and what is sent."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self.cards: dict[str, Card] = {}
        self.newest: dict[str, Sent] = {}
        self.away = self.deleted = False
        self.killed, self.silent, self.consent = phone.killed, phone.silent, phone.consent
        self.app_version = phone.app_version
        self.told_off = phone.consent == "deny"
        """Whether the app said, when it last ran, that its owner does not allow activities."""
        self._stored: dict[str, tuple[Sent, float]] = {}
        """What APNs keeps until when: one push of the app, and one for each card on a channel."""

    def decodes(self, sent: Sent) -> bool:
        """Whether its version of the app decodes a state."""
        return self.app_version != "1.0" or sent.phase in OLD_PHASES

    # What is sent.

    def send(self, sent: Sent) -> None:
        """Let the service send a state, if it has where to."""
        name = sent.activity
        if sent.kind == "start":
            follows = self.phone.follows(name)
            card = self.cards[name] = Card(begun=sent.slot, by_channel=follows)
            if not self.phone.can_be_started:
                card.cause = "too old"
            elif self.deleted:
                card.cause = "deleted"
            else:
                card.known = True
                card.cause = "offline"
                self._reach(sent)
        self.newest[name] = sent
        card = self.cards[name]
        if sent.slot >= card.begun + LIVES:
            return
        hears = card.token != "none" or (card.by_channel and card.running and not self.deleted)
        if sent.kind != "start" and hears:
            card.cause = "offline"
            self._reach(sent)
        elif sent.kind != "start" and not (card.cause or self.deleted):
            raise AssertionError("a card without token has a cause")

    def hand_over(self, name: str) -> None:
        """Let the service replace a card by a second one, if the device is one that would tell its token.

        What becomes of a card whose second one does not come is not followed: iOS soon ends it.
        """
        card, last = self.cards[name], self.cards[BEFORE_LONG]
        tells = last.known and last.token != "none"
        if not (card.running and card.token != "none" and tells and self.phone.can_be_started):
            return
        newest, told = self.newest[name], not self.killed and self.consent != "none"
        if told and not self.away and not self.deleted and not self._refuses(newest):
            begun = card.begun + HANDED_OVER
            self.cards[name] = Card(newest.n, begun, True, True, "live", handed_over=card.token)

    def _reach(self, sent: Sent) -> None:
        """Let APNs have a push: it keeps the newest one for a phone that is away."""
        if self.away:
            on_channel = sent.kind != "start" and self.cards[sent.activity].by_channel
            place = sent.activity if on_channel else ""
            self._stored.pop(place, None)
            self._stored[place] = sent, sent.moment + HELD_FOR[sent.kind]
        elif self.deleted:
            self.cards[sent.activity].token = "dead"
            self.cards[sent.activity].cause = "deleted"
        elif sent.kind == "start":
            self._start(sent)
        else:
            self._change(sent)

    def _start(self, sent: Sent) -> None:
        card = self.cards[sent.activity]
        card.cause = self._refuses(sent)
        if not card.cause:
            card.shown, card.running = sent.n, True
            if card.by_channel:
                card.unheard = self.killed
            else:
                self._give_token(sent.activity)

    def _refuses(self, start: Sent) -> str:
        causes = {
            "dead start token": self.silent,
            "denied": self.consent == "deny",
            "low power": self.phone.low_power,
            "cannot decode": not self.decodes(start),
        }
        return next((cause for cause, holds in causes.items() if holds), "")

    def _give_token(self, name: str) -> None:
        """Let the owner and iOS give a card its token, and the app hand it in."""
        card = self.cards[name]
        if self.consent == "none":
            card.cause = "no consent"
        elif self.killed:
            card.cause = "killed"
        else:
            card.token = "live"
            self._catch_up(name)

    def _catch_up(self, name: str) -> None:
        """Let the service bring the newest state to a card whose token came."""
        newest, card = self.newest.get(name), self.cards[name]
        if newest is None or newest.n == card.shown or newest.kind == "start":
            card.cause = ""
        else:
            self._change(newest)

    def _change(self, sent: Sent) -> None:
        card = self.cards[sent.activity]
        if card.token == "dead":
            card.cause = "dead token"
        elif not self.decodes(sent):
            card.cause = "cannot decode"
        else:
            card.shown, card.cause = sent.n, ""
            card.running, card.unheard = sent.kind != "end", self.killed

    # What happens to the phone.

    def happen(self, event: str, moment: float) -> None:
        """Let something happen at the beginning of a slot."""
        if self.deleted:
            return
        if event == "away":
            self.away = True
        elif event == "back":
            self.away = False
            stored, self._stored = self._stored, {}
            for sent, until in stored.values():
                if until > moment:
                    self._reach(sent)
        elif event.startswith("consent "):
            self.consent = event.removeprefix("consent ")
            for name in self._running():
                if self.cards[name].token == "none" and not self.cards[name].by_channel:
                    self._give_token(name)
        elif event == "open":
            self._open(int(moment / SLOT))
        elif event == "rotate":
            for name in self._running():
                if self.cards[name].token == "live":
                    self.cards[name].token = "dead"
        elif event == "update app":
            self.app_version = "2.0"
        elif event == "delete":
            self.deleted = True

    def _running(self) -> list[str]:
        return [name for name, card in self.cards.items() if card.running]

    def _open_ones(self) -> list[str]:
        return [name for name, sent in self.newest.items() if sent.kind != "end"]

    def _open(self, slot: int) -> None:
        self.killed = self.silent = False
        self.told_off = self.consent == "deny"
        for name in self._running():
            card = self.cards[name]
            if card.by_channel:
                continue
            # The app hands in what it has again; the service ends what it had ended.
            if self.consent != "none" and (card.token != "live" or self.newest[name].kind == "end"):
                card.token, card.known = "live", True
                self._catch_up(name)
        if not self.phone.can_be_started and self.consent != "deny":
            for name in self._open_ones():
                card = self.cards[name]
                if not card.running and self.decodes(self.newest[name]):
                    card.shown, card.running, card.known = self.newest[name].n, True, True
                    card.begun, card.token, card.cause = slot, "live", ""

    # What is compared.

    def judged(self, slot: int, starts: dict[str, int]) -> Iterator[tuple[str, Card]]:
        """Yield the cards that can still be on a phone, and have had another state than their first."""
        for name, card in self.cards.items():
            lives = LIVES + HANDED_OVER if card.handed_over else LIVES
            told = self.newest[name].kind != "start" and slot - starts[name] < lives
            if told and not (self.deleted and card.cause != "deleted"):
                yield name, card

    def words(self, name: str) -> frozenset[str]:
        """Return the checks by which the service must name what is wrong with a card."""
        card, newest = self.cards[name], self.newest[name]
        if not card.known:
            found = {"start token" if self.phone.can_be_started else "ios version"}
            return frozenset(found | ({"switches"} if self.told_off else set()))
        if self.deleted:
            return frozenset({"token"})
        found = set()
        if not self.decodes(newest):
            found.add("contract")
        if card.token == "none" and not card.by_channel:
            found.add("token")
        elif (card.cause or card.unheard) and not found:
            found.add("card")
        return frozenset(found)

    def is_unheard(self, name: str) -> bool:
        """Whether a card is as it ought to be, and its app, force-quit, could not say so."""
        return self.cards[name].unheard and not self.cards[name].cause
