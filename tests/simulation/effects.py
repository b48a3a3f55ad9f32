"""What came of the faults and callers of a world, counted where it arrives.

A fault that a refactoring switches off makes every world pass. So each kind of fault and action that
a plan holds (`drawn`) must show its effect in some world: a frame that reached the client, a refused
connection, a caller's error. The frames are read as they arrive, with no part of the engine.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .plan import Action, Plan

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _ACK = 1, 1
_PREFACE = 24
"""Bytes that a client sends before its first frame."""
_REASON = re.compile(rb'"reason":"(\w+)"')
_ODDITIES = ("cancel_after", "bad", "bad_token", "callback_raises", "source_raises",
             "source_cancels", "break_after", "bare", "deadline")  # fmt: skip


class Provoked(Exception):
    """An error that a world raises on purpose: beside it, no error is expected."""


def is_provoked(error: BaseException | None) -> bool:
    """Return whether a world caused this error, or the error that this one was raised for."""
    known: set[int] = set()
    while error is not None and id(error) not in known:
        if isinstance(error, Provoked):
            return True
        known.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def drawn(plan: Plan) -> set[str]:
    """Return the kinds of fault, misbehaviour and traffic in a plan."""
    kinds = {kind for action in plan.actions for kind in _kinds(action)}
    if "alpn" in plan.settings:
        kinds.add(f"ALPN {plan.settings['alpn']}")
    return kinds


@dataclass
class Tally:
    """Over many worlds: in how many a kind was ``drawn``, and how often its effect was ``seen``."""

    drawn: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Add the counts of more worlds."""
        self.drawn.update(other.drawn)
        self.seen.update(other.seen)

    def without_effect(self) -> list[str]:
        """Return the kinds that were drawn and never had an effect."""
        return sorted(kind for kind in self.drawn if not self.seen[kind])

    def __str__(self) -> str:
        rows = [
            f"| {kind} | {count} | {self.seen[kind]} |"
            for kind, count in sorted(self.drawn.items())
        ]
        return "\n".join(["| kind | worlds | effects |", "|---|---:|---:|", *rows])


def _kinds(action: Action) -> Iterator[str]:
    what, given = action.what, action.given
    if what == "fault":
        yield from _kinds_of_fault(given)
    elif what == "goaway":
        yield f"GOAWAY {given['reason']}"
    elif what == "clock":
        if given["skew"]:
            yield f"clock {given['skew']:+g} s"
    elif what == "disk":
        if given["fails"]:
            yield "full disk"
    elif what in ("refuse", "black_hole"):
        if given["on"]:
            yield what
    elif what in ("cut", "half_open", "crash"):
        yield what
    else:
        yield f"{what} {given['event']}" if "event" in given else what
        for name in ("read", "source"):
            if name in given:
                yield f"{name}: {given[name]}"
        yield from (each for each in _ODDITIES if given.get(each) is not None)


def _kinds_of_fault(given: dict[str, Any]) -> Iterator[str]:
    match given["action"]:
        case "answer":
            yield f"answer {given['reason']}"
        case "reset":
            yield f"RST_STREAM {given['error_code']}"
        case "refuse_stream":
            yield "RST_STREAM 7"
        case "settings":
            for number, value in given["settings"].items():
                yield f"SETTINGS {number}={value}"
        case "slow_window":
            yield f"SETTINGS 4={given['window']}"
        case action:
            yield action


class Frames:
    """The frames of one direction of a link. ``skip`` bytes come before the first."""

    def __init__(self, skip: int = 0) -> None:
        self._rest = b""
        self._skip = skip

    def read(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield type, flags, stream and payload of each frame that these bytes complete."""
        data = self._rest + data
        at, self._skip = self._skip, 0
        if len(data) < at:
            at, self._skip = 0, at
            self._rest = data
            return
        while len(data) - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big")
            yield data[at + 3], data[at + 4], stream, data[at + 9 : end]
            at = end
        self._rest = data[at:]


class Effects:
    """The effects in one world: how often each kind of its plan was seen to work."""

    def __init__(self, plan: Plan) -> None:
        self.drawn = drawn(plan)
        self.seen: Counter[str] = Counter()
        self._delay = min((each.given["delay"] for each in plan.actions
                           if each.given.get("action") == "delay"), default=0.0)  # fmt: skip

    def count(self, kind: str) -> None:
        """Count an effect, if the plan holds its cause."""
        if kind in self.drawn:
            self.seen[kind] += 1

    def waited(self, seconds: float, *, answered: bool, half: bool = False) -> None:
        """Note how long a request waited for its answer, or how much of it ever came."""
        if self._delay and seconds >= self._delay:
            self.count("delay")
        if not answered:
            self.count("stall" if half else "withhold")
            self.count("silence")


class Wiretap:
    """Reads what arrives at both ends of a link, and keeps what went wrong in ``problems``."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects
        self._to_client = Frames()
        self._to_server = Frames(_PREFACE)
        self._asked: dict[int, float] = {}
        """When each request that has no complete answer had arrived whole."""
        self._half: set[int] = set()
        self.problems: list[str] = []
        self.late_writes = 0
        """What the client wrote to the link after it was lost or closing."""

    def at_server(self, data: bytes, now: float) -> None:
        for kind, flags, stream, payload in self._to_server.read(data):
            if kind == _RST_STREAM:
                self._give_up(stream, now)
            elif kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                self._asked[stream] = now
            elif kind == _GOAWAY:
                self._look_at_goaway("client", payload)

    def at_client(self, data: bytes, now: float) -> None:
        effects = self._effects
        for kind, flags, stream, payload in self._to_client.read(data):
            if kind in (_DATA, _HEADERS):
                if kind == _HEADERS:
                    self._half.add(stream)
                elif found := _REASON.search(payload):
                    effects.count(f"answer {found[1].decode()}")
                if flags & _END_STREAM:
                    self._half.discard(stream)
                    effects.waited(now - self._asked.pop(stream, now), answered=True)
            elif kind == _RST_STREAM:
                self._asked.pop(stream, None)
                effects.count(f"RST_STREAM {int.from_bytes(payload, 'big')}")
            elif kind == _SETTINGS and not flags & _ACK:
                for number, value in struct.iter_unpack("!HI", payload):
                    effects.count(f"SETTINGS {number}={value}")
            elif kind == _GOAWAY:
                self._look_at_goaway("fake", payload)
                found = _REASON.search(payload, 8)
                effects.count(f"GOAWAY {found[1].decode() if found else None}")

    def lost(self, now: float) -> None:
        """Note that the client has closed the link: what has no answer gets none."""
        for stream in list(self._asked):
            self._give_up(stream, now)

    def _give_up(self, stream: int, now: float) -> None:
        if stream in self._asked:
            seconds = now - self._asked.pop(stream)
            self._effects.waited(seconds, answered=False, half=stream in self._half)

    def _look_at_goaway(self, end: str, payload: bytes) -> None:
        code = int.from_bytes(payload[4:8], "big")
        if code:
            self.problems.append(f"the {end} found error {code} in HTTP/2: {payload[8:]!r}")
