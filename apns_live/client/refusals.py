"""What follows a refusal: its answer read, the step that the policy names, and the waits that it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..answers import Answer, read_answer
from ..clock import Clock
from ..http2 import ResponseReceived
from ..outcome import Verdict
from ..pool import Carrier, Push
from ..reasons import Retry
from ..retry import Circumstances, Step, next_step
from .backoff import PoolBackoff, TokenBackoff

_RENEWS = (Retry.NEW_TOKEN_ONCE, Retry.NEW_LINK_ONCE, Retry.NEW_KEY_LINK)


class Refusals:
    """``pool`` and ``tokens`` are the backoffs that refusals asked for."""

    def __init__(self, clock: Clock, slow_tokens: int) -> None:
        self._clock = clock
        self.pool = PoolBackoff()
        self.tokens = TokenBackoff(slow_tokens)
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
        """Return the answer and what follows it; both are kept in ``push.last``."""
        wall = self._clock.time()
        answer = read_answer(response.status, response.headers, response.body, wall)
        if answer.row.verdict is Verdict.ACCEPTED:
            # 200 is no refusal; no other status accepts.
            answer = read_answer(502, response.headers, response.body, wall)
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
                token_is_current=retry is not Retry.NEW_TOKEN_ONCE or carrier.shows_current_token(),
                connection_fresh=carrier.fresh,
                retry_after=answer.retry_after,
                backoff=backoff,
            ),
        )
        if push.last is not None and push.last[1].may_have_been_sent:
            # A 500 came before: whatever is answered now, a phone may have got that first one.
            step = replace(step, may_have_been_sent=True)
        push.last = (answer, step)
        if retry is Retry.BACKOFF_TOKEN and step.delay is not None:
            self.tokens.refused(push.token, now, step.delay)
        elif retry in _RENEWS:
            push.renewed = True
        return answer, step

    def accepted(self, pushes: Sequence[Push]) -> None:
        """Note acceptances: waits need not grow any more."""
        if self.tokens:
            for push in pushes:
                self.tokens.accepted(push.token)
        self.pool.accepted()

    def pause(self, now: float) -> tuple[float, str]:
        """Return for how many seconds nothing leaves, and the answer that asked for it."""
        left = self.pool.until - now
        return (left, self._because) if left > 0 else (0.0, "")
