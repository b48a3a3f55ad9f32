"""Who has to wait: the whole pool after a 503, single tokens after a 429. Memory is bounded."""

from __future__ import annotations

from collections import OrderedDict


class PoolBackoff:
    """Seconds that everything waits after a 503: 1, doubling to 60, back to 1 after an acceptance.

    Answers to pushes that left before the wait began belong to the same trouble and do not double.
    """

    __slots__ = ("_first", "_limit", "_next", "began_at", "until")

    def __init__(self, first: float = 1.0, limit: float = 60.0) -> None:
        self._first = first
        self._limit = limit
        self._next = first
        self.began_at = float("-inf")
        self.until = float("-inf")

    def refused(self, now: float, sent_at: float, retry_after: float | None) -> float:
        """Note a 503 for a push sent at ``sent_at``; return seconds to wait from now."""
        if sent_at >= self.until or self.began_at == float("-inf"):
            self.began_at = now
            self.until = now + self._next
            self._next = min(self._next * 2, self._limit)
        if retry_after is not None:
            self.until = max(self.until, now + min(retry_after, self._limit * 60))
        return max(0.0, self.until - now)

    def accepted(self) -> None:
        """Note that a push was accepted."""
        self._next = self._first


class TokenBackoff:
    """Seconds that one token waits after a 429: 5, doubling to 300, forgotten after as long again.

    At most ``capacity`` tokens are remembered; the one refused longest ago is forgotten first.
    """

    __slots__ = ("_capacity", "_first", "_limit", "_tokens")

    def __init__(self, capacity: int = 10_000, first: float = 5.0, limit: float = 300.0) -> None:
        self._capacity = capacity
        self._first = first
        self._limit = limit
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tokens)

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def delay(self, token: str, now: float) -> float:
        """Return seconds that the next 429 of this token would ask for."""
        known = self._tokens.get(token)
        if known is None or now > known[0] + known[1]:
            return self._first
        return min(known[1] * 2, self._limit)

    def refused(self, token: str, now: float, delay: float) -> None:
        """Note a 429 and the wait that follows it."""
        self._tokens[token] = (now + delay, min(delay, self._limit))
        self._tokens.move_to_end(token)
        if len(self._tokens) > self._capacity:
            self._tokens.popitem(last=False)

    def accepted(self, token: str) -> None:
        """Forget a token that was accepted."""
        self._tokens.pop(token, None)

    def wait(self, token: str, now: float) -> float:
        """Return seconds that this token has to wait now."""
        known = self._tokens.get(token)
        return 0.0 if known is None else max(0.0, known[0] - now)

    def sweep(self, now: float) -> None:
        """Forget tokens whose wait is long over, oldest first."""
        while self._tokens:
            token, (until, delay) = next(iter(self._tokens.items()))
            if now <= until + delay:
                return
            del self._tokens[token]
