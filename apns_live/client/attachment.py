"""Work sources, and their connection to the engine."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple, Protocol, TypeVar

from ..clock import Timer
from ..outcome import Outcome, alike
from ..pool import Loss, Push, Sendable

WorkItem = Push
"""An item of a source of work: ``WorkItem(token, message, context)``, with a prepared message."""

TakenT_co = TypeVar("TakenT_co", covariant=True)
Settled = Sequence[tuple[Push, Outcome]]


class Alike(NamedTuple):
    """Pushes that differ only in their tokens and apns-ids."""

    message: Sendable
    tokens: Sequence[str]
    apns_ids: Sequence[str] = ()
    """Empty if the client shall make them."""


class Acceptances(NamedTuple):
    """A batch of acceptances that differ only in their tokens and ids."""

    like: Outcome
    tokens: Sequence[str]
    apns_ids: Sequence[str]
    unique_ids: Sequence[object]
    """Empty if APNs sent none."""

    def outcomes(self) -> list[Outcome]:
        """Return an outcome for each acceptance."""
        unique_ids = self.unique_ids or repeat("")
        return alike(self.like, token=self.tokens, apns_id=self.apns_ids, unique_id=unique_ids)


class End(enum.StrEnum):
    """Why a work source or a source of tokens is no longer read."""

    OPEN = ""
    """It is still read."""
    EXHAUSTED = "exhausted"
    """The source was read to its end."""
    STOPPED = "cancelled"
    """Its owner stopped it: stop(), a break, a cancelled wait()."""
    DEADLINE = "deadline"
    CLOSED = "closed"
    """The client is being closed."""
    SOURCE_FAILED = "source_failed"
    """The source raised."""
    FAILED = "failed"
    """The sender cannot continue, for example because a journal cannot be written."""


class Source(Protocol[TakenT_co]):
    """Provides pushes when there is room for them, and receives their outcomes."""

    def take(self, limit: int) -> TakenT_co:
        """Return up to ``limit`` items, or none if there are none now (call ``wake`` later).

        Called on the event loop whenever a connection has room. It must not block. If it raises,
        the error is reported to the event loop, and it is called again after ``wake``.
        """

    def settled(self, outcomes: Settled) -> None:
        """Receive outcomes: each item that was taken comes back exactly once.

        Called in batches, for each connection at most once a turn of the event loop.
        """


WorkSource = Source[Sequence[WorkItem]]
"""A source of pushes."""


class AlikeSource(Source[Alike | None], Protocol):
    """A source of pushes in groups of one message each, which cost less than single ones."""

    def accepted(self, batches: Sequence[Acceptances]) -> None:
        """Receive acceptances; each token that was taken comes back exactly once, here or in ``settled``."""


class _Engine(Protocol):
    """The engine, as an attachment sees it."""

    def wake(self) -> None: ...
    def detach(self, attachment: Attachment, end: End) -> None: ...
    def give_up(self, push: Push, loss: Loss) -> bool: ...
    def give_up_waiting(self, attachment: Attachment, reason: str) -> None: ...


@dataclass(slots=True, eq=False, repr=False)
class Attachment:
    """The connection of a `WorkSource` to a client; created by ``Client.attach``."""

    engine: _Engine
    source: WorkSource | AlikeSource
    response_timeout: float
    retry: bool = True
    deadline: float = 0.0
    """Monotonic seconds; 0 for none."""
    on_stop: Callable[[], object] | None = None
    checked: bool = False
    """The source has checked its tokens itself."""
    drains: bool = False
    """When True, closing the client keeps draining this source, because its items were accepted."""
    alike: bool = False
    """The source is an `AlikeSource`."""
    end: End = End.OPEN
    idle: bool = False
    """Its source had nothing at the last call."""
    in_hand: int = 0
    """Items taken and not yet settled."""
    held: int = 0
    """The items of these that wait for a retry; written by `Waiting`."""
    batch: list[tuple[Push, Outcome]] = field(default_factory=list)
    accepted: list[Acceptances] = field(default_factory=list)
    timer: Timer | None = None

    def __repr__(self) -> str:
        state = self.end or ("idle" if self.idle else "working")
        return f"<Attachment {state} {type(self.source).__name__} in hand {self.in_hand}>"

    @property
    def detached(self) -> bool:
        """Whether the source is no longer read."""
        return self.end is not End.OPEN

    def wake(self) -> None:
        """Signal that the source has work again. Cheap; may be called often."""
        if self.idle:
            self.idle = False
            self.engine.wake()

    def detach(self, end: End = End.STOPPED) -> None:
        """Stop reading the source. Items that were taken still get their outcomes."""
        self.engine.detach(self, end)

    def cancel(self, item: WorkItem) -> bool:
        """Cancel one item; return False if it is already settled.

        Its outcome is NOT_SENT if it was not sent, otherwise UNKNOWN (its stream is reset).
        """
        return self.engine.give_up(item, Loss.CANCELLED)

    def cancel_waiting(self) -> None:
        """Cancel every item that was not sent; their outcomes are NOT_SENT."""
        self.engine.give_up_waiting(self, "cancelled")

    # For the engine.

    def set_timer(self, timer: Timer | None) -> None:
        """Store the deadline's timer, so that detaching can cancel it."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer
