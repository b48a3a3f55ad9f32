"""Tracks whether the peer of a connection still answers, and when to send a PING."""

from __future__ import annotations

from .options import PoolOptions

PROBE_PATIENCE = 1.0
"""Seconds after which others take over from a link that was idle and does not answer its PING."""


class Liveness:
    """Times are monotonic seconds; ``waiting`` says whether an answer is due at all."""

    def __init__(self, now: float, options: PoolOptions) -> None:
        self._options = options
        self._pings = 0
        self.last_heard = now
        self._quiet_since = now
        """When the present wait for an answer began: the later of last heard and first sent."""
        self.ping_sent_at: float | None = None
        self.must_answer = False
        """It was idle for long: only the PING's answer makes it usable again."""

    def heard(self, now: float) -> bool:
        """Note that bytes came; return True when that ends a doubt."""
        self.last_heard = self._quiet_since = now
        return self.ping_sent_at is not None and not self.must_answer

    def no_doubt(self) -> None:
        """Note that the PING was answered, or that anything was, where that is enough."""
        self.ping_sent_at = None
        self.must_answer = False

    def begins_to_wait(self, now: float) -> None:
        """Note that the first of some requests leaves."""
        self._quiet_since = now

    def was_idle_for_long(self, now: float) -> bool:
        """Tell whether a PING goes before the next push."""
        return now - self.last_heard >= self._options.idle_before_probe

    def ping(self, now: float) -> bytes:
        """Note that a PING leaves now; return its data."""
        self._pings += 1
        self._quiet_since = now
        if self.ping_sent_at is None:
            self.ping_sent_at = now
        return self._pings.to_bytes(8, "big")

    def probe_is_young(self, now: float) -> bool:
        """Tell whether it was idle and its PING may still be answered any moment."""
        sent_at = self.ping_sent_at
        return self.must_answer and sent_at is not None and now - sent_at < PROBE_PATIENCE

    def is_dead(self, now: float) -> bool:
        """Tell whether the PING has waited for its answer too long."""
        sent_at = self.ping_sent_at
        return sent_at is not None and now - sent_at >= self._options.ping_timeout

    def wants_ping(self, now: float, *, waiting: bool) -> bool:
        """Tell whether it has been silent for so long that it is asked."""
        if waiting:
            return now - self._quiet_since >= self._options.silence_before_ping
        return now - self.last_heard >= self._options.idle_ping_interval

    def next_look(self, *, waiting: bool) -> float:
        """Return when to look again."""
        moments = []
        if waiting:
            moments.append(self._quiet_since + self._options.silence_before_ping)
        if self.ping_sent_at is not None:
            moments.append(self.ping_sent_at + self._options.ping_timeout)
        elif not waiting:
            moments.append(self.last_heard + self._options.idle_ping_interval)
        return min(moments)
