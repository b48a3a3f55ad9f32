"""The two kinds of fan-out, start and notification: their devices, messages and results."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from hashlib import blake2b
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, bindparam
from sqlalchemy.ext.asyncio import AsyncConnection

from ... import payload
from ...client import Sendable
from ...clock import Clock
from ...outcome import Outcome
from ..apps import App
from ..people.audience import Audiences, Recipient
from ..requests.messages import best_language
from ..store.database import Database
from ..store.ownership import Ownership
from ..store.reached import among
from ..times import milliseconds
from .apns_clients import Carrier
from .limits import Limits
from .recorder import Recorder
from .results import Batch


class Allowance:
    """Bounds the pushes of fan-outs in memory; requests are served in order."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, count: int) -> None:
        """Return when ``count`` more are allowed."""
        if not self._waiting and self._free >= count:
            self._free -= count
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, future))
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(count)
            raise

    def give(self, count: int) -> None:
        """Give back what was taken."""
        self._free += count
        while self._waiting and (
            self._waiting[0][1].cancelled() or self._waiting[0][0] <= self._free
        ):
            wanted, future = self._waiting.popleft()
            if not future.cancelled():
                self._free -= wanted
                future.set_result(None)


@dataclass(frozen=True, slots=True)
class SharedParts:
    """What all fan-outs share."""

    database: Database
    clock: Clock
    audiences: Audiences
    recorder: Recorder
    allowance: Allowance
    limits: Limits
    ownership: Ownership
    running: set[Any] = field(default_factory=set)
    """The running fan-outs."""


@dataclass(eq=False, repr=False)
class Wording:
    """The message of one moment, encoded once for each language that has a text."""

    carrier: Carrier
    languages: frozenset[str]
    message: Callable[[str], Any]
    _: KW_ONLY
    key: object
    """What the wording depends on: another key needs another wording."""
    now: float

    def __post_init__(self) -> None:
        self._made: dict[str | None, Sendable] = {}

    def message_in(self, language: str | None) -> Sendable:
        """Return the message, ready to send."""
        if (made := self._made.get(language)) is None:
            best = best_language(self.languages, language)
            if (made := self._made.get(best)) is None:
                made = self.carrier.client.prepare(payload.encode(self.message(best), now=self.now))
            self._made[best] = self._made[language] = made
        return made


@dataclass(slots=True)
class Pass:
    """A part of the audience, read by ``place``, its row; the cursor is the row plus ``behind``."""

    query: Select[Any]
    place: ColumnElement[int]
    behind: int = 0
    only: Sequence[Any] | None = None
    """Rows of outcomes with the devices to send to; None for all devices that are read."""
    page: Select[Any] = field(init=False)
    """The query for the first ``most`` rows after ``after``.

    It has no upper end: PostgreSQL then follows the index and stops. For a range with two ends it
    may scan all devices.
    """

    def __post_init__(self) -> None:
        behind = self.query.where(self.place > bindparam("after")).order_by(self.place)
        self.page = behind.limit(bindparam("most"))

    def chosen(self, page: Sequence[Recipient]) -> Sequence[Recipient]:
        """Return the recipients of a page that belong to this pass."""
        if self.only is None:
            return page
        devices = among(self.only, [one.device for one in page])
        return [one for one in page if one.device in devices]


Messages = list[tuple[Sendable, Sequence[Recipient]]]
"""Messages, each with its recipients."""


@dataclass(frozen=True, slots=True)
class Intended:
    """Devices that are about to get a push.

    After the commit ``messages`` returns each message with its recipients, or None if they must not
    get it any more.
    """

    devices: Sequence[int]
    messages: Callable[[], Awaitable[Messages | None]]


def apns_ids(head: str, devices: Sequence[int]) -> list[str]:
    """Return an apns-id for each device's row: ``head`` and 12 hexadecimal digits."""
    return [f"{head}{device:012x}" for device in devices]


class Kind(ABC):
    """What differs between start and notification. A hook with a connection runs in its transaction."""

    def __init__(
        self, shared: SharedParts, app: App, operation: Row[Any], carrier: Carrier
    ) -> None:
        self.shared = shared
        self.app = app
        self.operation = operation
        self.carrier = carrier
        name = f"{operation.app_id}\n{operation.public_id}".encode()
        digest = blake2b(name, digest_size=9).hexdigest()
        self.apns_id_head = f"{digest[:8]}-{digest[8:12]}-8{digest[12:15]}-9{digest[15:]}-"
        """The beginning of each push's apns-id, which the device's row completes. A UUID of version 8.
        """
        self._wordings: list[Wording] = []

    @property
    def now(self) -> int:
        """Milliseconds since 1970."""
        return milliseconds(self.shared.clock)

    @abstractmethod
    async def passes(self) -> Sequence[Pass]:
        """Return the parts of the audience in order. Raises `InvalidInput` if it does not resolve."""

    @abstractmethod
    def living(self) -> Select[Any]:
        """Return the query for all tokens of possible recipients."""

    @abstractmethod
    async def intend(
        self, connection: AsyncConnection, page: Sequence[Recipient], *, first: bool
    ) -> Intended | None:
        """Store that recipients are about to get a push; None if nothing more may be sent.

        ``first`` is True if nothing was sent before.
        """

    @abstractmethod
    async def left_open(self, connection: AsyncConnection) -> Sequence[Sequence[int]]:
        """Take the devices that an earlier release intended to push to and that may have no outcome."""

    @abstractmethod
    def noted(self, batch: Batch, device: int, outcome: Outcome) -> None:
        """Add the consequences of an outcome other than accepted to a batch."""

    @abstractmethod
    def put_back(self, batch: Batch, devices: Sequence[int]) -> None:
        """Add to a batch that devices certainly got no push."""

    def _worded(
        self,
        page: Sequence[Recipient],
        key: object,
        languages: frozenset[str],
        message: Callable[[str], Any],
        now: float,
    ) -> Messages:
        """Return the message of each language with its recipients. It is made anew when ``key`` changes."""
        wording = next((known for known in self._wordings if known.key == key), None)
        if wording is None:
            wording = Wording(self.carrier, languages, message, key=key, now=now)
            self._wordings = [wording, *self._wordings[:1]]  # Two are in use with a channel.
        if not languages:
            return [(wording.message_in(None), page)]
        groups: dict[Sendable, list[Recipient]] = {}
        for one in page:
            groups.setdefault(wording.message_in(one.language), []).append(one)
        return list(groups.items())
