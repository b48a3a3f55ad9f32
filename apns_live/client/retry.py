"""What follows a refusal: one pure function of the reason's row and what the push went through.

The policies themselves are data, in `apns_live.reasons`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ..outcome import Verdict
from ..reasons import Reason, Retry

TWO_TRIES = (1.0, 10.0)
"""Seconds before the second and the third try after a 500."""

REPLAY_DELAYS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before a push that was certainly not processed leaves again."""


class Link(enum.Enum):
    """What is to be done with the connection that the answer came on."""

    KEEP = "keep"
    RETIRE = "retire"
    RETIRE_KEEPING_OLDEST_TOKEN = "retire_keeping_oldest_token"
    RETIRE_AND_BAR = "retire_and_bar"
    """Connecting again would not help: nothing does for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What the policy needs to know of a push and its connection."""

    tries: int = 0
    replays: int = 0
    renewed: bool = False
    replay_safe: bool = True
    may_retry: bool = True
    """Whether the source of the push leaves retries to the client."""
    token_is_current: bool = True
    """Whether the connection already showed the provider token that a new one would show."""
    connection_fresh: bool = False
    """Whether the connection accepted nothing since it was opened or was idle for long."""
    retry_after: float | None = None
    pool_delay: float = 1.0
    """What the pool's backoff asks for now."""
    token_delay: float = 5.0
    """What this token's backoff asks for now."""


@dataclass(frozen=True, slots=True)
class Step:
    """Either another try after ``delay`` seconds, or the end with ``verdict``.

    With the end, ``delay`` says when another try by the caller makes sense; None: never.
    """

    again: bool
    delay: float | None
    verdict: Verdict
    link: Link = Link.KEEP
    may_have_been_sent: bool = False


def next_step(row: Reason, seen: Circumstances) -> Step:
    """Return what follows a refusal."""
    match row.retry:
        case Retry.NEVER:
            return Step(False, None, row.verdict)
        case Retry.NEW_TOKEN_ONCE:
            return _expired_provider_token(row, seen)
        case Retry.NEW_LINK_ONCE:
            link = Link.RETIRE_KEEPING_OLDEST_TOKEN
            return _once(row, seen, link)
        case Retry.NEW_KEY_LINK:
            return _once(row, seen, Link.RETIRE)
        case Retry.NEW_LINK:
            delay = REPLAY_DELAYS[min(seen.tries, len(REPLAY_DELAYS) - 1)]
            return _delayed(row, seen, delay, Link.RETIRE)
        case Retry.BACKOFF_POOL:
            return _delayed(row, seen, seen.pool_delay, Link.KEEP)
        case Retry.BACKOFF_TOKEN:
            return _delayed(row, seen, seen.token_delay, Link.KEEP)
        case Retry.TWO_TRIES:
            return _two_tries(row, seen)


def _expired_provider_token(row: Reason, seen: Circumstances) -> Step:
    if seen.token_is_current or seen.renewed:
        # The newest token that we can sign is too old for the server: a clock is wrong.
        return Step(False, None, Verdict.OPERATOR, Link.RETIRE_AND_BAR)
    if not seen.may_retry:
        return Step(False, 0.0, row.verdict, Link.RETIRE)
    return Step(True, 0.0, row.verdict, Link.RETIRE)


def _once(row: Reason, seen: Circumstances, link: Link) -> Step:
    if seen.renewed or not seen.may_retry:
        return Step(False, None if seen.renewed else 0.0, row.verdict, link)
    return Step(True, 0.0, row.verdict, link)


def _delayed(row: Reason, seen: Circumstances, delay: float, link: Link) -> Step:
    if seen.retry_after is not None:
        delay = max(delay, seen.retry_after)
    return Step(seen.may_retry, delay, row.verdict, link)


def _two_tries(row: Reason, seen: Circumstances) -> Step:
    link = Link.RETIRE if seen.connection_fresh else Link.KEEP
    if not seen.replay_safe:
        return Step(False, None, Verdict.UNKNOWN, link, may_have_been_sent=True)
    if seen.tries >= len(TWO_TRIES):
        return Step(False, 60.0, row.verdict, link, may_have_been_sent=True)
    delay = TWO_TRIES[seen.tries]
    if seen.retry_after is not None:
        delay = max(delay, seen.retry_after)
    return Step(seen.may_retry, delay, row.verdict, link, may_have_been_sent=True)
