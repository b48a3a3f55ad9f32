"""Rate limits of a key: a token bucket and a count of concurrent calls, in memory."""

import math
from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from ..clock import Clock
from ..errors import TooManyRequests
from .credentials import Phone
from .keys import ApiKey
from .settings import GatewaySettings

_REMEMBERED = 50_000
_MINUTE, _HOUR = 60.0, 3_600.0


@dataclass(slots=True)
class _State:
    """A caller's bucket with ``tokens`` at the time ``filled``, and its running ``with`` blocks."""

    tokens: float
    filled: float
    running: int = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.running -= 1

    def fill(self, limit: int, seconds: float, now: float) -> float:
        """Add the tokens that have come since the last call; return how many come in a second."""
        rate = limit / seconds
        self.tokens = min(limit, self.tokens + (now - self.filled) * rate)
        self.filled = now
        return rate


class Limits:
    """Counts per caller. Rotated secrets of one key share their count."""

    def __init__(self, settings: GatewaySettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._states: OrderedDict[str, _State] = OrderedDict()

    def enter(self, caller: ApiKey | Phone) -> AbstractContextManager[None]:
        """Count a request of a key or a phone, until the ``with`` block ends.

        A key's own limits replace those of its dialect. Raises `TooManyRequests` when the bucket is
        empty, or at the limit of concurrent requests.
        """
        if isinstance(caller, Phone):
            who = f"device {caller.app.id} {caller.device}"
            return self.enter_as(who, self._settings.device_per_minute)
        limit, seconds, concurrent = self._limit_of(caller)
        if limit is None and concurrent is None:
            return nullcontext()
        return self.enter_as(f"key {caller.caller}", limit, concurrent, seconds=seconds)

    def _limit_of(self, key: ApiKey) -> tuple[int | None, float, int | None]:
        """Return how many requests a key may make, in how many seconds, and how many concurrently."""
        default = self._settings.limit_of(key.dialect)
        concurrent = key.concurrent or default.concurrent
        if key.per_minute is None and default.per_hour is not None:
            return default.per_hour, _HOUR, concurrent
        return key.per_minute or default.per_minute, _MINUTE, concurrent

    def enter_as(
        self,
        who: str,
        limit: int | None,
        concurrent: int | None = None,
        *,
        seconds: float = _MINUTE,
    ) -> AbstractContextManager[None]:
        """Count a request of ``who``; ``limit`` of them may come in ``seconds``. Raises as `enter`."""
        now = self._clock.monotonic()
        if (state := self._states.get(who)) is None:
            state = self._states[who] = _State(math.inf if limit is None else limit, now)
            # Drop the least recently active callers, except those with running requests.
            for _ in range(len(self._states) - _REMEMBERED):
                oldest, dropped = self._states.popitem(last=False)
                if dropped.running:
                    self._states[oldest] = dropped
        else:
            self._states.move_to_end(who)
        if concurrent is not None and state.running >= concurrent:
            text = f"this key has {state.running} requests in progress, and may have {concurrent}"
            raise TooManyRequests(text, retry_after=1.0)
        if limit is not None:
            rate = state.fill(limit, seconds, now)
            if state.tokens < 1:
                text = f"more than {limit} requests {'an hour' if seconds == _HOUR else 'a minute'}"
                raise TooManyRequests(text, retry_after=(1 - state.tokens) / rate)
            state.tokens -= 1
        state.running += 1
        return state

    def remaining(self, key: ApiKey) -> tuple[int | None, int | None, float]:
        """Return limit, requests left (None without a limit), and seconds until the bucket is full."""
        limit, seconds, _ = self._limit_of(key)
        if limit is None:
            return None, None, 0.0
        if (state := self._states.get(f"key {key.caller}")) is None:
            return limit, limit, 0.0
        rate = state.fill(limit, seconds, self._clock.monotonic())
        return limit, int(state.tokens), (limit - state.tokens) / rate
