"""What the fake remembers and tells: bounded rings, and listeners that are plain callables."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Literal, TypeVar, overload

import msgspec

from .state import Push

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A request that was not taken; header values as they came, ``""`` where absent.

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
    """Something happened to a connection. ``at`` is epoch seconds."""

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
    """The newest entries of a record; ``total`` counts all there ever were, ``limit`` bounds it."""

    def __init__(self, limit: int) -> None:
        self._entries: deque[T] = deque(maxlen=limit)
        self.total = 0

    @property
    def limit(self) -> int:
        """How many entries are kept."""
        return self._entries.maxlen or 0

    def append(self, entry: T) -> None:
        """Add one; the oldest goes when the ring is full."""
        self.total += 1
        self._entries.append(entry)

    def clear(self) -> None:
        """Forget the entries and the total."""
        self._entries.clear()
        self.total = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._entries))

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return list(self._entries)[index]
        return self._entries[index]

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
        self.on_refusal: Callable[[Refusal], object] | None = None
        """Called for each refusal before the listeners: the delivery log, which sees no others."""
        self._listeners: tuple[Listener, ...] = ()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` for everything from now on; call the returned function to stop."""
        self._listeners = (*self._listeners, listener)

        def stop() -> None:
            self._listeners = tuple(each for each in self._listeners if each is not listener)

        return stop

    def accepted(self, push: Push) -> None:
        """Record an accepted push."""
        self.pushes.append(push)
        if self._listeners:
            self.tell(push)

    def refused(self, refusal: Refusal) -> None:
        """Record a refusal."""
        self.refusals.append(refusal)
        if self.on_refusal is not None:
            self.on_refusal(refusal)
        if self._listeners:
            self.tell(refusal)

    def changed(self, change: ConnectionChange) -> None:
        """Record what happened to a connection."""
        self.changes.append(change)
        if self._listeners:
            self.tell(change)

    def struck(self, struck: FaultStruck) -> None:
        """Record that a fault struck."""
        self.faults.append(struck)
        if self._listeners:
            self.tell(struck)

    def clear(self) -> None:
        """Empty the rings. Listeners stay."""
        for ring in (self.pushes, self.refusals, self.changes, self.faults):
            ring.clear()

    def tell(self, happening: Happening) -> None:
        """Call every listener; one that raises is called no more, so that the fake goes on."""
        for listener in self._listeners:
            try:
                listener(happening)
            except Exception:
                _logger.exception("A listener failed and is called no more.")
                self._listeners = tuple(each for each in self._listeners if each is not listener)
