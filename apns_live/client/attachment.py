"""Work sources, and their connection to the engine."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import NamedTuple, Protocol, TypeVar

from ..clock import Timer
from ..outcome import Outcome, alike
from ..pool import Push, Sendable

WorkItem = Push
"""What a source of work gives: ``WorkItem(token, message, context)``, with a prepared message."""

ItemT_co = TypeVar("ItemT_co", covariant=True)
Settled = Sequence[tuple[Push, Outcome]]


class Acceptances(NamedTuple):
    """Acceptances that came at once and differ in their token and ids."""

    like: Outcome
    tokens: Sequence[str]
    apns_ids: Sequence[str]
    unique_ids: Sequence[object]
    """Empty where APNs sent none."""

    def outcomes(self) -> list[Outcome]:
        """Return an outcome for each."""
        unique_ids = self.unique_ids or repeat("")
        return alike(self.like, token=self.tokens, apns_id=self.apns_ids, unique_id=unique_ids)


class End(enum.StrEnum):
    """Why nothing more is taken: from a source of work, or by a run from its source of tokens."""

    OPEN = ""
    """More may be taken."""
    EXHAUSTED = "exhausted"
    """The source was read to its end."""
    STOPPED = "cancelled"
    """Its owner left: stop(), a break, a cancelled wait()."""
    DEADLINE = "deadline"
    CLOSED = "closed"
    """The client is being closed."""
    SOURCE_FAILED = "source_failed"
    """The source raised."""
    FAILED = "failed"
    """What sends cannot go on, for example because a journal cannot be written."""


class Source(Protocol[ItemT_co]):
    """Brings work when there is room for it, and is told the outcomes."""

    def take(self, limit: int) -> Sequence[ItemT_co]:
        """Return up to ``limit`` items; nothing when there is nothing now (then call ``wake``).

        Called on the event loop whenever a connection has room. It must not wait for anything.
        What it raises is reported to the event loop, and it is asked again after ``wake``.
        """

    def settled(self, outcomes: Settled) -> None:
        """Take outcomes: each item that was taken comes back exactly once.

        Called in batches, for each connection at most once a turn of the event loop.
        """


WorkSource = Source[WorkItem]
"""A source of pushes."""


class TokenSource(Source[str], Protocol):
    """A source of bare tokens for one message."""

    def accepted(self, batches: Sequence[Acceptances]) -> None:
        """Take acceptances; each token that was taken comes back exactly once, here or in ``settled``."""


class Host(Protocol):
    """What an attachment asks of the engine."""

    def wake(self) -> None:
        """Let the transport look for work."""

    def detach(self, attachment: Attachment, end: End) -> None:
        """Take no more from a source."""

    def cancel(self, push: Push, *, report: bool) -> bool:
        """Give one push up."""

    def cancel_waiting(self, attachment: Attachment) -> None:
        """Give up everything of one source that is not on the wire."""


@dataclass(slots=True, eq=False, repr=False)
class Attachment:
    """The tie between a `WorkSource` and a client; made by ``Client.attach``."""

    engine: Host
    source: WorkSource | TokenSource
    retry: bool
    response_timeout: float
    deadline: float = 0.0
    """Monotonic seconds; 0 for none."""
    on_stop: Callable[[], object] | None = None
    checked: bool = False
    """The source has checked its tokens itself."""
    drains: bool = False
    """When True, closing the client keeps draining this source: its items were accepted."""
    message: Sendable | None = None
    """What all its items say: then ``source.take`` gives bare tokens, and we make the pushes."""
    end: End = End.OPEN
    idle: bool = False
    """Its source had nothing when it was last asked."""
    in_hand: int = 0
    """Items taken and not yet settled."""
    held: int = 0
    """Of these, the ones that wait for another try; written by `Waiting`."""
    batch: list[tuple[Push, Outcome]] = field(default_factory=list)
    accepted: list[Acceptances] = field(default_factory=list)
    timer: Timer | None = None

    def __repr__(self) -> str:
        state = self.end or ("idle" if self.idle else "working")
        return f"<Attachment {state} {type(self.source).__name__} in hand {self.in_hand}>"

    @property
    def detached(self) -> bool:
        """Whether nothing more is taken from the source."""
        return self.end is not End.OPEN

    def wake(self) -> None:
        """Say that the source has work again. Cheap; may be called often."""
        if self.idle:
            self.idle = False
            self.engine.wake()

    def detach(self, end: End = End.STOPPED) -> None:
        """Take no more from the source. What was taken goes on to its outcomes."""
        self.engine.detach(self, end)

    def cancel(self, item: WorkItem) -> bool:
        """Give one item up; False when it is settled already.

        Its outcome is NOT_SENT when it has not left, else UNKNOWN (its stream is reset).
        """
        return self.engine.cancel(item, report=True)

    def cancel_waiting(self) -> None:
        """Give up every item taken that is not on the wire; their outcomes are NOT_SENT."""
        self.engine.cancel_waiting(self)

    # For the engine

    def set_timer(self, timer: Timer | None) -> None:
        """Keep the timer of the deadline, so that detaching can call it off."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer
