"""Those who bring work, and their tie to the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ..clock import Timer
from ..outcome import Outcome
from ..pool import Push

if TYPE_CHECKING:
    from .engine import Engine

WorkItem = Push
"""What a source of work gives: ``WorkItem(token, message, context)``, with a prepared message."""

Settled = Sequence[tuple[Push, Outcome]]


class WorkSource(Protocol):
    """Brings pushes when there is room for them, and is told their outcomes."""

    def take(self, limit: int) -> Sequence[WorkItem]:
        """Return up to ``limit`` items; nothing when there is nothing now (then call ``wake``).

        Called on the event loop whenever a connection has room. It must not wait for anything.
        """

    def settled(self, outcomes: Settled) -> None:
        """Take outcomes: each item that was taken comes back exactly once.

        Called in batches, for each connection at most once a turn of the event loop.
        """


class Attachment:
    """The tie between a `WorkSource` and a client; made by ``Client.attach``."""

    __slots__ = (
        "_deadline_timer",
        "_engine",
        "batch",
        "deadline",
        "deadline_passed",
        "detached",
        "drains",
        "idle",
        "in_hand",
        "on_stop",
        "response_timeout",
        "retry",
        "source",
    )

    def __init__(
        self,
        engine: Engine,
        source: WorkSource,
        *,
        retry: bool,
        response_timeout: float,
        deadline: float,
        on_stop: Callable[[], object] | None = None,
    ) -> None:
        self._engine = engine
        self.source = source
        self.retry = retry
        self.response_timeout = response_timeout
        self.deadline = deadline
        """Monotonic seconds; 0 for none."""
        self.on_stop = on_stop
        self.deadline_passed = False
        self.drains = False
        """Closing goes on taking from it: what it has was taken on already."""
        self.idle = False
        """Its source had nothing when it was last asked."""
        self.detached = False
        self.in_hand = 0
        """Items taken and not yet settled."""
        self.batch: list[tuple[Push, Outcome]] = []
        self._deadline_timer: Timer | None = None

    def __repr__(self) -> str:
        state = "detached" if self.detached else "idle" if self.idle else "working"
        return f"<Attachment {state} {type(self.source).__name__} in hand {self.in_hand}>"

    def wake(self) -> None:
        """Say that the source has work again. Cheap; may be called often."""
        if self.idle:
            self.idle = False
            self._engine.wake()

    def detach(self) -> None:
        """Take no more from the source. What was taken goes on to its outcomes."""
        self._engine.detach(self)

    def cancel(self, item: WorkItem) -> bool:
        """Give one item up; False when it is settled already.

        Its outcome is NOT_SENT when it has not left, else UNKNOWN (its stream is reset).
        """
        return self._engine.cancel(item, report=True)

    def cancel_waiting(self) -> None:
        """Give up every item taken that is not on the wire; their outcomes are NOT_SENT."""
        self._engine.cancel_waiting(self)

    # For the engine

    def set_timer(self, timer: Timer | None) -> None:
        """Keep the timer of the deadline, so that detaching can call it off."""
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_timer = timer
