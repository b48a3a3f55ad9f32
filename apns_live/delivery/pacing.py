"""What follows an answer that is not an acceptance: when to try again, and when to stop.

The seconds are those of `apns_live.retry.POLICIES`, the one policy; here they are read by verdict,
since the client hands delivery each refusal at once (``retry=False``). Live state is worth seconds, so the waits are short where Apple advises minutes; everything ends at
the deadline or the expiration, whichever is first. A stale date that has passed ends nothing: it tells
the phone to draw the state as outdated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..outcome import Outcome, Verdict
from ..reasons import Retry
from ..retry import POLICIES, Policy

_TOKEN = POLICIES[Retry.BACKOFF_TOKEN]
_SERVER = POLICIES[Retry.BACKOFF_POOL]
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
    if not replay_safe and (outcome.may_have_been_sent or verdict is Verdict.UNKNOWN):
        return NEVER
    match verdict:
        case Verdict.UNKNOWN:
            wait = _after(_SERVER, failures, at_once=UNKNOWN_AT_ONCE)
        case Verdict.SLOW_DOWN:
            wait = _TOKEN.backoff(failures)
        case Verdict.RETRY_LATER:
            wait = _SERVER.backoff(failures)
        case Verdict.NOT_SENT:
            # It did not leave (a link went away): at once, unless that goes on.
            wait = _after(_SERVER, failures, at_once=1)
        case Verdict.REFRESH_CREDENTIALS if outcome.retry_at and not failures:
            # Its connection is retired: one try on another, as the client does for its own.
            wait = 0.0
        case _:
            return NEVER
    return max(outcome.retry_at, now + wait)


def _after(policy: Policy, failures: int, *, at_once: int) -> float:
    return policy.backoff(failures - at_once) if failures >= at_once else 0.0


def last_moment(*, deadline: float | None, expiration: int, step: float = 0.0) -> float:
    """Return when retries end: the caller's deadline or the expiration, whichever is first.

    The deadline and the result are steady time; the expiration is seconds since 1970 on a wall
    clock that was set ahead by ``step`` (`apns_live.clock.SteadyTime`), 0 for a push that APNs does
    not store, which ends nothing.
    """
    end = expiration - step if expiration > 0 else NEVER
    return end if deadline is None else min(end, deadline)
