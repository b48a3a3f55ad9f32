"""What follows an answer that is not an acceptance: when to try again, and when to stop.

Live state is worth seconds, so the waits are short where Apple advises minutes; everything ends at
the deadline or the expiration, whichever is first. A stale date that has passed ends nothing: it tells
the phone to draw the state as outdated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..outcome import Outcome, Verdict

SLOW_DOWN_FIRST, SLOW_DOWN_MOST = 5.0, 300.0
"""Seconds that a token waits after 429 TooManyRequests: doubling between these two."""
RETRY_FIRST, RETRY_MOST = 1.0, 60.0
"""Seconds after a 500 or 503 that names no time of its own."""
UNKNOWN_AT_ONCE = 3
"""How many times in a row a push without an answer is followed at once by the newest state."""
NEVER = math.inf


@dataclass(slots=True)
class Trouble:
    """What is remembered of a token that did not accept its last push. Most tokens have none."""

    failures: int = 0
    not_before: float = 0.0
    attempts: int = 0
    may_have_been_sent: bool = False
    last: Outcome | None = None
    timestamp: int = 0
    """The payload timestamp of the push that may have been processed."""


def again_at(outcome: Outcome, failures: int, now: float, *, replay_safe: bool = True) -> float:
    """Return the time (seconds since 1970) at which the token may be tried again, or NEVER.

    ``failures`` counts the ones before this in a row. A push that is not ``replay_safe`` (a
    start) is never repeated when it may have been processed.
    """
    verdict = outcome.verdict
    if verdict is Verdict.UNKNOWN:
        if not replay_safe:
            return NEVER
        if failures < UNKNOWN_AT_ONCE:
            return now
        return now + _doubled(1.0, 30.0, failures - UNKNOWN_AT_ONCE)
    if outcome.may_have_been_sent and not replay_safe:
        return NEVER
    if verdict is Verdict.SLOW_DOWN:
        return max(outcome.retry_at, now + _doubled(SLOW_DOWN_FIRST, SLOW_DOWN_MOST, failures))
    if verdict is Verdict.RETRY_LATER:
        return max(outcome.retry_at, now + _doubled(RETRY_FIRST, RETRY_MOST, failures))
    if verdict is Verdict.NOT_SENT:
        # It did not leave (a link went away): at once, unless that goes on.
        if failures == 0:
            return max(outcome.retry_at, now)
        return max(outcome.retry_at, now + _doubled(0.5, RETRY_MOST, failures - 1))
    return NEVER


def _doubled(first: float, most: float, times: int) -> float:
    return float(min(most, first * 2.0 ** min(times, 16)))


def last_moment(*, deadline: float | None, expiration: int, step: float = 0.0) -> float:
    """Return when retries end: the caller's deadline or the expiration, whichever is first.

    The deadline and the result are steady time; the expiration is seconds since 1970 on a wall
    clock that was set ahead by ``step`` (`apns_live.clock.SteadyTime`), 0 for a push that APNs does
    not store, which ends nothing.
    """
    end = expiration - step if expiration > 0 else NEVER
    return end if deadline is None else min(end, deadline)
