"""Records of the fake in bounded buffers, and their listeners."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Literal, TypeVar, overload

import msgspec

from .state import Push

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A refused request. Header values are as received, ``""`` if absent.

    ``number`` counts pushes accepted and refused alike, and is 0 at the management port. ``at`` is
    epoch seconds on the fake's clock. ``target`` is the device token, channel id or path.
    """

    number: int
    at: float
    connection_id: int
    face: str
    target: str
    status: int
    reason: str
    apns_id: str
    token: str = ""
    channel_id: str = ""
    topic: str = ""
    push_type: str = ""
    priority: str = ""
    expiration: str = ""
    collapse_id: str = ""
    body: bytes = b""


class ConnectionChange(msgspec.Struct, frozen=True, gc=False):
    """A change of a connection. ``at`` is epoch seconds."""

    kind: Literal["opened", "closed", "streams", "goaway", "silent"]
    connection_id: int
    at: float
    detail: str = ""


class FaultStruck(msgspec.Struct, frozen=True, gc=False):
    """A fault struck the ``nth`` request to ``target``, or a connection. ``at`` is epoch seconds."""

    fault_id: int
    name: str
    action: str
    connection_id: int
    target: str
    nth: int
    at: float


Happening = Push | Refusal | ConnectionChange | FaultStruck
Listener = Callable[[Happening], object]


class Ring(Sequence[T], Generic[T]):
    """The newest ``limit`` of a series that is numbered from 1; ``total`` counts all there ever were.

    As a sequence it is what is kept, the oldest first. Adding and looking up take constant time.
    """

    __slots__ = ("_items", "limit", "total")

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        self.total = 0
        self._items: list[T] = []

    @property
    def first(self) -> int:
        """Number of the oldest item kept; ``total + 1`` when there is none."""
        return self.total - len(self._items) + 1

    def append(self, item: T) -> None:
        """Add the item that has number ``total + 1``; the oldest goes when the ring is full."""
        self.total = number = self.total + 1
        if len(self._items) < self.limit:
            self._items.append(item)
        else:
            self._items[(number - 1) % self.limit] = item

    def get(self, number: int) -> T | None:
        """Return item ``number``, or None when it is not kept."""
        if self.first <= number <= self.total:
            return self._items[(number - 1) % self.limit]
        return None

    def after(self, number: int) -> Iterator[T]:
        """Iterate over what came after ``number``, oldest first."""
        items, limit = self._items, self.limit
        for index in range(max(number + 1, self.first), self.total + 1):
            yield items[(index - 1) % limit]

    def clear(self) -> None:
        """Forget the items, and count from 1 again."""
        self._items = []
        self.total = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self.after(0)))

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return list(self)[index]
        place = range(len(self._items))[index]  # raises IndexError as a list does
        return self._items[(self.first + place - 1) % self.limit]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (Ring, list, tuple)):
            return list(self) == list(other)
        return NotImplemented

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<Ring of {len(self)} entries, {self.total} in all>"


class Recorder:
    """The rings of one fake, and who listens.

    ``limit`` bounds accepted pushes and refusals each. A listener is called on the fake's event
    loop, at once, for everything that happens; it must not block; one that
    raises is called no more.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.pushes: Ring[Push] = Ring(limit)
        self.refusals: Ring[Refusal] = Ring(limit)
        self.changes: Ring[ConnectionChange] = Ring(min(limit, 1000))
        self.faults: Ring[FaultStruck] = Ring(min(limit, 1000))
        self._rings: dict[type, Ring[Any]] = {
            Push: self.pushes,
            Refusal: self.refusals,
            ConnectionChange: self.changes,
            FaultStruck: self.faults,
        }
        self.on_refusal: Callable[[Refusal], object] | None = None
        """Called for each refusal before the listeners: the delivery log, which sees no others."""
        self._listeners: tuple[Listener, ...] = ()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` for everything from now on; call the returned function to stop."""
        self._listeners = (*self._listeners, listener)

        def stop() -> None:
            self._listeners = tuple(each for each in self._listeners if each is not listener)

        return stop

    def record(self, happening: Happening) -> None:
        """Keep it, and call every listener; one that raises is called no more: the fake goes on."""
        self._rings[type(happening)].append(happening)
        if self.on_refusal is not None and isinstance(happening, Refusal):
            self.on_refusal(happening)
        for listener in self._listeners:
            try:
                listener(happening)
            except Exception:
                _logger.exception("A listener failed and is not called any more.")
                self._listeners = tuple(each for each in self._listeners if each is not listener)

    def clear(self) -> None:
        """Empty the rings. Listeners stay."""
        for ring in self._rings.values():
            ring.clear()
