"""Faults as data: the action, the targets, the time and the number of times.

A fault is matched against every request, or, for some actions, against every new connection. The
draw for a ``fraction`` is a hash of (seed, fault, token, nth push to that token): it does not
depend on the order in which pushes to different tokens arrive, so two runs of one scenario agree.
``times``, ``skip`` and ``every`` count matches in order of arrival and do depend on it.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from itertools import count
from typing import Any, Literal, get_args

import msgspec

from apns_live.errors import FakeError

from ..misfits import misfit
from .reasons import find

Action = Literal[
    "answer",
    "throttle",
    "delay",
    "withhold",
    "stall",
    "reset",
    "refuse_stream",
    "goaway",
    "disconnect",
    "silence",
    "refuse_connection",
    "fail_tls",
    "slow_window",
    "settings",
]
"""What a fault does.

For a request: ``answer`` with any status, reason, headers and body; ``throttle``: 429
TooManyRequests above ``limit`` requests in ``per`` seconds; ``delay`` the answer; ``withhold`` it
for ever; ``stall``: half an answer, then nothing on that stream; ``reset`` the stream with
``error_code``; ``refuse_stream``: REFUSED_STREAM; ``goaway``, with a JSON reason or without;
``disconnect`` without a word; ``silence``: the connection neither reads nor writes again.

For a new connection: ``refuse_connection`` before TLS; ``fail_tls`` (an alert, or with
``untrusted`` a certificate that nobody trusts); ``slow_window``: stream windows of ``window``
bytes, and windows given back at ``rate`` bytes a second (0: never); ``settings``: other SETTINGS.
"""

ACTIONS: frozenset[str] = frozenset(get_args(Action))
CONNECTION_ACTIONS = frozenset({"refuse_connection", "fail_tls", "slow_window", "settings"})
_PROCESSED = frozenset({"delay", "withhold", "stall"})
_REMEMBERED = 1_000_000
_BUCKETS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. Times are seconds. Filters that are not given match everything.

    Filters: ``token`` (hex, a prefix is enough), ``topic``, ``push_type``, ``priority``, ``face``,
    ``connection`` (number, from 1). When: ``after`` and ``lasting`` count from the moment it was
    added; ``nth`` names pushes to a token, from 1; ``skip``, ``every``, ``times`` count matches;
    ``fraction`` is drawn. ``processed`` says whether the phones get the push all the same; by
    default only where the answer is delayed, withheld or stalled.
    """

    action: Action
    name: str = ""
    token: str | None = None
    topic: str | None = None
    push_type: str | None = None
    priority: int | None = None
    face: Literal["device", "manage"] | None = None
    connection: int | None = None
    after: float = 0.0
    lasting: float | None = None
    nth: tuple[int, ...] = ()
    skip: int = 0
    every: int = 1
    times: int | None = None
    fraction: float = 1.0
    processed: bool | None = None
    status: int | None = None
    reason: str | None = None
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timestamp: int | None = None
    retry_after: float | str | None = None
    in_pieces: bool = False
    delay: float = 0.0
    spread: float = 0.0
    error_code: int | None = None
    debug: str | None = None
    close: bool = False
    limit: int = 1
    per: float = 1.0
    untrusted: bool = False
    window: int = 65_535
    rate: float = 0.0
    settings: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if problem := _problem(self):
            raise FakeError(f"fault {self.name or self.action}: {problem}")

    @property
    def is_processed(self) -> bool:
        """Whether the push reaches the phones although the client gets no answer."""
        return self.action in _PROCESSED if self.processed is None else self.processed

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Fault:
        """Create a fault from a table of a file or from JSON. Raises FakeError if it is not valid."""
        if unknown := sorted(set(data) - set(FAULT_FIELDS)):
            known = ", ".join(sorted(FAULT_FIELDS))
            raise FakeError(f"a fault has no {', '.join(unknown)}; it has {known}")
        if data.get("action") not in ACTIONS:
            raise FakeError(
                f"there is no action {data.get('action')!r}; there are {', '.join(get_args(Action))}"
            )
        values = dict(data)
        for name in FAULT_DURATIONS:
            value = values.get(name)
            # Retry-After may be a date.
            if value is not None and not (name == "retry_after" and isinstance(value, str)):
                values[name] = parse_duration(value, name)
        if isinstance(values.get("nth"), int):
            values["nth"] = (values["nth"],)
        try:
            return msgspec.convert(values, cls, str_keys=True)
        except msgspec.ValidationError as error:
            raise FakeError(
                f"fault {values.get('name') or values['action']}: {misfit(error)}"
            ) from error


FAULT_FIELDS = tuple(each.name for each in fields(Fault))
FAULT_DURATIONS = ("after", "lasting", "delay", "spread", "per", "retry_after")
"""Seconds, or text such as 40ms, in a scenario and in the control API."""
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|h)?\s*")


def parse_duration(value: object, name: str = "duration") -> float:
    """Return seconds of a number, or of text such as ``40ms``, ``2.5s``, ``1h``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if 0 <= value < math.inf:
            return float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(match[1]) * _UNITS[match[2] or ""]
    raise FakeError(f"{name} is {value!r:.60}; give seconds, or text such as 40ms, 2s, 1h")


def _problem(fault: Fault) -> str:
    if not 0.0 <= fault.fraction <= 1.0:
        return "fraction must be between 0 and 1"
    if fault.every < 1 or fault.skip < 0 or (fault.times is not None and fault.times < 0):
        return "every must be at least 1, skip and times at least 0"
    if fault.delay < 0 or fault.spread < 0 or fault.after < 0:
        return "delay, spread and after must be seconds from 0"
    if fault.action == "answer" and fault.status is None and fault.reason is None:
        return "an answer needs a status or a reason"
    if fault.status is not None and not 200 <= fault.status <= 599:
        return "status must be between 200 and 599"
    if fault.status is None and fault.reason is not None and fault.action == "answer":
        known = find(fault.reason)
        return "" if known else f"{fault.reason} is not one of Apple's reasons: give a status"
    if fault.action == "delay" and not fault.delay and not fault.spread:
        return "a delay needs delay or spread, in seconds"
    if fault.action == "throttle" and (fault.limit < 0 or fault.per <= 0):
        return "throttle needs a limit from 0 and per above 0 seconds"
    return ""


@dataclass(slots=True, eq=False)
class ActiveFault:
    """A fault in force; ``matched`` and ``fired`` count, ``since`` is on the fake's clock.

    ``draws_as`` is its name, or its place since the last ``clear``, so that a repeated scenario draws
    the same numbers.
    """

    fault_id: int
    fault: Fault
    since: float
    draws_as: str
    matched: int = 0
    fired: int = 0
    buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict, repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """The target that a fault is matched against: a request, or a new connection (``token`` None)."""

    connection: int
    face: str
    token: str | None = None
    topic: str = ""
    push_type: str = ""
    priority: str = ""


def draw(seed: int, name: str, token: str, nth: int) -> float:
    """Return a number in [0, 1) that depends on nothing but the arguments."""
    digest = blake2b(f"{seed}|{name}|{token}|{nth}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


@dataclass(slots=True, eq=False)
class Faults:
    """The faults in force.

    ``seed`` makes the draws; ``monotonic`` returns seconds; ``possible`` are the supported actions:
    another server's HTTP/2 stack cannot break frames, and a namespace has no connections.
    """

    seed: int = 0
    monotonic: Callable[[], float] = lambda: 0.0
    possible: frozenset[str] = ACTIONS
    _ids: Iterator[int] = field(default_factory=lambda: count(1))
    _added: int = 0
    _active: dict[int, ActiveFault] = field(default_factory=dict)
    _counts: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def __iter__(self) -> Iterator[ActiveFault]:
        return iter(list(self._active.values()))

    def __len__(self) -> int:
        return len(self._active)

    def add(self, fault: Fault | None = None, /, **values: Any) -> int:
        """Add a fault, given as an object or by its fields; return its id."""
        if fault is None:
            fault = Fault.from_mapping(values)
        elif values:
            raise FakeError("give a fault or its fields, not both")
        if fault.action not in self.possible:
            raise FakeError(
                f"{fault.action} cannot be done here; use {', '.join(sorted(self.possible))}"
            )
        fault_id = next(self._ids)
        self._added += 1
        draws_as = fault.name or f"{fault.action} {self._added}"
        self._active[fault_id] = ActiveFault(fault_id, fault, self.monotonic(), draws_as)
        return fault_id

    def remove(self, fault_id: int) -> bool:
        """End a fault; False if there is none of that id."""
        return self._active.pop(fault_id, None) is not None

    def clear(self) -> None:
        """End every fault, and forget how many pushes each token has had."""
        self._active.clear()
        self._counts.clear()
        self._added = 0

    def nth(self, token: str) -> int:
        """Count a push to ``token`` (or a request of that key) and return its number, from 1.

        A million tokens are stored; the least recently used are dropped first.
        """
        counts = self._counts
        number = counts.pop(token, 0) + 1
        counts[token] = number
        if len(counts) > _REMEMBERED:
            counts.popitem(last=False)
        return number

    def choose(self, target: Target, nth: int) -> list[ActiveFault]:
        """Return the faults that strike a request or a new connection, oldest fault first."""
        of_connections = target.token is None
        return [
            each
            for each in self
            if (each.fault.action in CONNECTION_ACTIONS) is of_connections
            and self._strikes(each, target, nth)
        ]

    def over_limit(self, active: ActiveFault, key: str) -> bool:
        """Whether a throttle refuses this request. Each key has a bucket that refills evenly."""
        fault, now = active.fault, self.monotonic()
        room, then = active.buckets.pop(key, (float(fault.limit), now))
        room = min(float(fault.limit), room + (now - then) * fault.limit / fault.per)
        over = room < 1.0
        active.buckets[key] = (room if over else room - 1.0, now)
        if len(active.buckets) > _BUCKETS:
            active.buckets.popitem(last=False)
        return over

    def _strikes(self, active: ActiveFault, target: Target, nth: int) -> bool:
        fault = active.fault
        elapsed = self.monotonic() - active.since
        if elapsed < fault.after or (
            fault.lasting is not None and elapsed >= fault.after + fault.lasting
        ):
            return False
        if fault.times is not None and active.fired >= fault.times:
            return False
        if not _matches(fault, target) or (fault.nth and nth not in fault.nth):
            return False
        if fault.fraction < 1.0:
            drawn = draw(self.seed, active.draws_as, target.token or "", nth)
            if drawn >= fault.fraction:
                return False
        active.matched += 1
        if active.matched <= fault.skip or (active.matched - fault.skip - 1) % fault.every:
            return False
        active.fired += 1
        return True


def _matches(fault: Fault, target: Target) -> bool:
    for name in ("connection", "face", "topic", "push_type"):
        if getattr(fault, name) not in (None, getattr(target, name)):
            return False
    if fault.token is not None and not (target.token or "").startswith(fault.token.lower()):
        return False
    return fault.priority is None or str(fault.priority) == (target.priority or "10")
