"""Waits after refusals: of the pool after a 503, of a single token after a 429.

The seconds are those of `apns_live.reasons.Retry`.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from ..clock import Clock
from ..http2 import ResponseReceived
from ..pool import Carrier, Push
from ..reasons import Answer, Retry, read_answer
from ..retry import Circumstances, Step, next_step

_RENEWS = (Retry.NEW_TOKEN_ONCE, Retry.NEW_LINK_ONCE, Retry.NEW_KEY_LINK)
RETRY_AFTER_LIMIT = 3600.0
"""The longest Retry-After that the whole pool honours, in seconds."""


class PoolBackoff:
    """How long all pushes wait after a 503. An acceptance resets it.

    Answers to pushes sent before the wait began belong to the same failure and do not double it.
    """

    def __init__(self) -> None:
        self._policy = Retry.BACKOFF_POOL.value
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
    """How long single tokens wait after a 429. A wait is forgotten after twice its length.

    At most ``capacity`` tokens are remembered, those refused last. Case does not matter.
    """

    def __init__(self, capacity: int = 10_000) -> None:
        self._policy = Retry.BACKOFF_TOKEN.value
        self._capacity = capacity
        self._tokens: OrderedDict[str, tuple[float, float, int]] = OrderedDict()
        """For each token: end of the wait, when to forget it, refusals in a row."""

    def __len__(self) -> int:
        return len(self._tokens)

    def delay(self, token: str, now: float) -> float:
        """Return the seconds that the next 429 would make this token wait."""
        return self._policy.backoff(self._refusals(token.lower(), now))

    def refused(self, token: str, now: float, delay: float) -> None:
        """Note a 429 and the wait that follows."""
        token = token.lower()
        times = self._refusals(token, now) + 1
        # A wait of hours that a server asks for is honoured, but forgotten soon after it ends.
        kept = min(delay, self._policy.delays[-1])
        self._tokens[token] = (now + delay, now + delay + kept, times)
        self._tokens.move_to_end(token)
        if len(self._tokens) > self._capacity:
            self._tokens.popitem(last=False)

    def accepted(self, token: str) -> None:
        """Forget a token whose push was accepted."""
        self._tokens.pop(token.lower(), None)

    def wait(self, token: str, now: float) -> float:
        """Return the seconds that this token must still wait."""
        known = self._tokens.get(token.lower())
        return 0.0 if known is None else max(0.0, known[0] - now)

    def sweep(self, now: float) -> None:
        """Forget tokens whose wait ended long ago, oldest first."""
        while self._tokens:
            token, (_, forgotten_at, _) = next(iter(self._tokens.items()))
            if now <= forgotten_at:
                return
            del self._tokens[token]

    def _refusals(self, token: str, now: float) -> int:
        known = self._tokens.get(token)
        return 0 if known is None or now > known[1] else known[2]


class Refusals:
    """Judges refusals; ``pool`` and ``tokens`` are the resulting backoffs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.pool = PoolBackoff()
        self.tokens = TokenBackoff()
        self._because = ""

    def judge(
        self,
        push: Push,
        response: ResponseReceived,
        carrier: Carrier,
        now: float,
        *,
        may_retry: bool,
    ) -> tuple[Answer, Step]:
        """Return the answer and what follows from it; both are stored in ``push.last``."""
        wall = self._clock.time()
        answer = read_answer(response.status, response.headers, response.body, wall)
        retry = answer.row.retry
        backoff = None
        if retry is Retry.BACKOFF_POOL:
            backoff = self.pool.refused(now, push.sent_at, answer.retry_after)
            asked = answer.retry_after
            told = "" if asked is None else f", Retry-After {asked:g} s"
            self._because = f"{answer.status} {answer.reason}{told}"
        elif retry is Retry.BACKOFF_TOKEN:
            backoff = self.tokens.delay(push.token, now)
        step = next_step(
            answer.row,
            Circumstances(
                tries=push.tries,
                renewed=push.renewed,
                replay_safe=push.message.encoded.replay_safe,
                may_retry=may_retry,
                token_is_current=retry is not Retry.NEW_TOKEN_ONCE
                or carrier.tokens.current().value == carrier.token.value,
                connection_fresh=carrier.record.fresh,
                retry_after=answer.retry_after,
                backoff=backoff,
            ),
        )
        if push.last is not None and push.last[1].may_have_been_sent:
            # A 500 came before, so a phone may have got that push, whatever the answer now.
            step = replace(step, may_have_been_sent=True)
        push.last = (answer, step)
        if retry is Retry.BACKOFF_TOKEN and step.delay is not None:
            self.tokens.refused(push.token, now, step.delay)
        elif retry in _RENEWS:
            push.renewed = True
        return answer, step

    def accepted(self, pushes: Sequence[Push]) -> None:
        """Note acceptances: the next wait starts small again."""
        if self.tokens:
            for push in pushes:
                self.tokens.accepted(push.token)
        self.pool.accepted()

    def pause(self, now: float) -> tuple[float, str]:
        """Return the seconds for which sending is paused, and the answer that caused it."""
        left = self.pool.until - now
        return (left, self._because) if left > 0 else (0.0, "")
