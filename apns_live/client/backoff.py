"""Who waits now: the whole pool after a 503, single tokens after a 429. Memory is bounded.

The seconds are those of `apns_live.retry.POLICIES`.
"""

from __future__ import annotations

from collections import OrderedDict

from ..reasons import Retry
from ..retry import POLICIES

RETRY_AFTER_LIMIT = 3600.0
"""The longest Retry-After that the whole pool honours, in seconds."""


class PoolBackoff:
    """How long everything waits after a 503; from the start again after an acceptance.

    Answers to pushes that left before the wait began belong to the same trouble and do not double.
    """

    __slots__ = ("_policy", "_times", "until")

    def __init__(self) -> None:
        self._policy = POLICIES[Retry.BACKOFF_POOL]
        self._times = 0
        self.until = float("-inf")
        """Monotonic seconds."""

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> float:
        """Note a 503 for a push sent at ``sent_at``; return seconds to wait from now."""
        if sent_at >= self.until:
            self.until = now + self._policy.backoff(self._times)
            self._times += 1
        if retry_after is not None:
            self.until = max(self.until, now + min(retry_after, RETRY_AFTER_LIMIT))
        return max(0.0, self.until - now)

    def accepted(self) -> None:
        """Note that a push was accepted."""
        self._times = 0


class TokenBackoff:
    """How long single tokens wait after a 429; a wait is forgotten after as long again.

    At most ``capacity`` tokens are remembered; the one refused longest ago is forgotten first.
    Upper and lower case are one token.
    """

    __slots__ = ("_capacity", "_policy", "_tokens")

    def __init__(self, capacity: int = 10_000) -> None:
        self._policy = POLICIES[Retry.BACKOFF_TOKEN]
        self._capacity = capacity
        self._tokens: OrderedDict[str, tuple[float, float, int]] = OrderedDict()
        """For each token: waits until, forgotten at, refusals in a row."""

    def __len__(self) -> int:
        return len(self._tokens)

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def delay(self, token: str, now: float) -> float:
        """Return seconds that the next 429 of this token would ask for."""
        return self._policy.backoff(self._refusals(token.lower(), now))

    def refused(self, token: str, now: float, delay: float) -> None:
        """Note a 429 and the wait that follows it."""
        token = token.lower()
        times = self._refusals(token, now) + 1
        # A server that asks for hours is honoured, but not remembered for as long again.
        kept = min(delay, self._policy.delays[-1])
        self._tokens[token] = (now + delay, now + delay + kept, times)
        self._tokens.move_to_end(token)
        if len(self._tokens) > self._capacity:
            self._tokens.popitem(last=False)

    def accepted(self, token: str) -> None:
        """Forget a token that was accepted."""
        self._tokens.pop(token.lower(), None)

    def wait(self, token: str, now: float) -> float:
        """Return seconds that this token has to wait now."""
        known = self._tokens.get(token.lower())
        return 0.0 if known is None else max(0.0, known[0] - now)

    def sweep(self, now: float) -> None:
        """Forget tokens whose wait is long over, oldest first."""
        while self._tokens:
            token, (_, forgotten_at, _) = next(iter(self._tokens.items()))
            if now <= forgotten_at:
                return
            del self._tokens[token]

    def _refusals(self, token: str, now: float) -> int:
        known = self._tokens.get(token)
        return 0 if known is None or now > known[1] else known[2]
