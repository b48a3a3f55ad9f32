"""The account of opening connections: counts, consecutive failures, the time of the next try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..clock import Clock
from .options import PoolOptions

_GIVE_UP_AFTER = 5
"""Connections in a row that failed for something that will not change by itself."""

_DROP_BACKOFF_LIMIT = 5.0
"""Seconds at most between connections that a peer accepts pushes on and then drops."""

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Bar:
    """Nothing may connect until ``until`` (monotonic seconds), for ``reason`` (Apple's word)."""

    until: float
    reason: str
    detail: str


_LOOK = 0.2
"""Seconds of which a share of the processor is taken, at least."""


class Opening:
    """The pool's account of its connects. Times are monotonic seconds, waits have full jitter."""

    def __init__(self, clock: Clock, options: PoolOptions, uniform: Callable[[], float]) -> None:
        self._clock = clock
        self._options = options
        self._uniform = uniform
        # A simulated clock has no processor.
        self._cpu_time: Callable[[], float] = getattr(clock, "cpu_time", lambda: 0.0)
        self._looked = clock.monotonic(), self._cpu_time(), 0.0
        """When the processor was looked at last, its seconds then, and the share that was found."""
        self._failures = 0
        """Connects in a row on which no push was accepted."""
        self._permanent = 0
        """Of these, the last ones that will fail again."""
        self._drops = 0
        """Connections in a row that were accepted pushes on and dropped young."""
        self.opened = 0
        self.failed = 0
        self.last_failure = ""
        self.last_connect_at = _NEVER
        self.backoff_until = _NEVER
        self.bar: Bar | None = None
        """Why nothing connects although somebody waits, where a person must see to it."""

    def works(self) -> None:
        """Note that a push was accepted, or that there are other credentials."""
        self._failures = self._permanent = 0
        self.backoff_until = _NEVER
        self.bar = None

    def busy(self, now: float) -> float:
        """Return the share of a core that this thread used lately."""
        since, before, share = self._looked
        if now - since >= _LOOK:
            used = self._cpu_time()
            share = (used - before) / (now - since)
            self._looked = now, used, share
        return share

    def is_over(self, now: float) -> bool:
        """Tell whether there was a bar, and forget it if its time has passed."""
        if self.bar is None or now < self.bar.until:
            return False
        self.bar = None
        return True

    def ended_unused(self, cause: str) -> float:
        """Note a connection that ended before a push was accepted; return seconds to wait."""
        self.last_failure = cause
        self._failures += 1
        return self._back_off(self._failures, self._options.backoff_limit)

    def connect_failed(self, message: str, *, permanent: bool) -> None:
        """Note why it could not be opened; call it after `ended_unused`."""
        self.failed += 1
        self.last_failure = message
        self._permanent = self._permanent + 1 if permanent else 0
        if self._permanent >= _GIVE_UP_AFTER:
            self.bar = Bar(self.backoff_until, "connect_failed", message)

    def was_dropped(self) -> None:
        """Note a connection that was dropped young: nothing is wrong with the first.

        A peer that goes on like this is not hammered.
        """
        self._drops += 1
        if self._drops > 1:
            self._back_off(self._drops - 1, _DROP_BACKOFF_LIMIT)

    def has_lasted(self) -> None:
        """Note the end of a connection that was worth opening."""
        self._drops = 0

    def refused(self, reason: str, detail: str) -> None:
        """Note that APNs refused our credentials: a bar for a backoff that grows."""
        self._failures += 1
        self._back_off(self._failures, self._options.backoff_limit)
        self.bar = Bar(self.backoff_until, reason, detail)

    def shut_out(self, reason: str, detail: str) -> None:
        """Note a GOAWAY that names credentials: a bar for ``credential_backoff``."""
        self.backoff_until = self._clock.monotonic() + self._options.credential_backoff
        self.bar = Bar(self.backoff_until, reason, detail)

    def _back_off(self, times: int, limit: float) -> float:
        ceiling = self._options.backoff_first * 2.0 ** min(times - 1, 30)
        delay = self._uniform() * min(ceiling, limit)
        self.backoff_until = max(self.backoff_until, self._clock.monotonic() + delay)
        return delay
