"""Decides what the pool does next, as a pure function of a frozen view.

It uses no clock and no socket. It returns what to open, what to close, and when to decide again. The
reasons for the numbers: APNs penalizes connections that open and close quickly (Apple, "Establishing
a connection to APNs"), and lowers a link's streams after refusals; more links would make it worse.
"""

from dataclasses import dataclass

from .endpoint import PoolOptions

DEFAULT_ROUND_TRIP = 0.05
UNASKED = 8
"""Links that are opened without checking the processor's load."""
_BUSY = 0.97
"""Share of a core above which more links would not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkView:
    """The data of one link for the decision. Times are monotonic seconds."""

    number: int
    connecting: bool = False
    usable: bool = True
    """Takes pushes, or will once it has room; false while draining or suspected dead."""
    draining: bool = False
    accepted: bool
    """Whether a push was ever accepted on it."""
    limit: int
    best_limit: int
    """The highest stream limit that it ever allowed."""
    refused_last: bool = False
    """Whether its latest answer was a 4xx that APNs counts as an error."""
    full_since: float | None = None
    idle_since: float | None = None
    round_trip: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """The pool at one moment."""

    now: float
    waiting: bool
    links: tuple[LinkView, ...]
    last_connect_at: float = float("-inf")
    backoff_until: float = float("-inf")
    busy: float
    """Share of a core that the links' thread used recently."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many links to open, which to close, when to decide again (None: at the next event)."""

    open: int = 0
    close: tuple[int, ...] = ()
    ask_again_at: float | None = None


def decide(view: PoolView, options: PoolOptions) -> Decision:
    """Return what the pool should do now."""
    alive = [link for link in view.links if not link.draining]
    close, next_idle = _idle_links(view, alive, options)
    if not view.waiting:
        return Decision(0, close, next_idle)
    count, ask_at = _growth(view, alive, options)
    moments = [moment for moment in (ask_at, next_idle) if moment is not None]
    return Decision(count, () if count else close, min(moments) if moments else None)


def _idle_links(
    view: PoolView, alive: list[LinkView], options: PoolOptions
) -> tuple[tuple[int, ...], float | None]:
    spare = len(alive) - options.min_connections
    if spare <= 0:
        return (), None
    idle = sorted((link.idle_since, -link.number) for link in alive if link.idle_since is not None)
    over = [-number for since, number in idle if view.now - since >= options.idle_timeout]
    close = tuple(over[:spare])
    if len(close) == spare or len(close) == len(idle):
        return close, None
    return close, idle[len(close)][0] + options.idle_timeout


def _growth(
    view: PoolView, alive: list[LinkView], options: PoolOptions
) -> tuple[int, float | None]:
    if len(alive) >= options.max_connections:
        return 0, None
    connecting = [link for link in alive if link.connecting]
    usable = [link for link in alive if link.usable and not link.connecting]
    if not any(link.accepted for link in alive) and (connecting or usable):
        return 0, None  # one at a time until the first has an accepted push
    if view.now < view.backoff_until:
        return 0, view.backoff_until
    ready_at = view.now
    if usable:
        if any(link.limit < link.best_limit or link.refused_last for link in usable):
            return 0, None
        for link in usable:
            if link.full_since is None:
                return 0, None
            patience = 2.0 * (link.round_trip or DEFAULT_ROUND_TRIP)
            ready_at = max(ready_at, link.full_since + patience)
        ready_at = max(ready_at, view.last_connect_at + options.connect_spacing)
    elif connecting:
        return 0, None
    if ready_at > view.now:
        return 0, ready_at
    count = len(alive)
    if count >= UNASKED and view.busy * (count + 1) / count > _BUSY:
        return 0, view.now + options.connect_spacing
    return 1, None
