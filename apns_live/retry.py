"""The retry policy: the next step after a refusal, and its delay.

`apns_live.reasons` has a policy with its delays for each reason. The client's engine and channel
management use `next_step`, `client.backoff` the waits, and delivery's `pacing` the delays by verdict
(with ``retry=False``). The service retries through delivery; its pauses after a refused key are
`REFUSED_KEY` (`activities.send.refusals`). A new reason needs a row in `reasons`, a row in the fake's
table, and a test. docs/errors.md is generated from both modules.
"""

import enum
from dataclasses import dataclass

from .outcome import Verdict
from .reasons import Policy, Reason, Retry

TOTAL_LIMIT = 60.0
"""Seconds from being taken on to the client's last try, whatever deadline and expiration allow.
A longer delay ends in an outcome whose ``retry_at`` says when another try makes sense."""


REFUSED_KEY = Policy(
    (30.0, 60.0, 120.0, 240.0, 480.0, 900.0), True, "its pushes wait: 30 s, doubling to 15 min"
)
"""The service's own: an app whose key was refused (OPERATOR) waits, and is told when."""

LOST: tuple[tuple[str, str, str], ...] = (
    (
        "GOAWAY, stream above its last id",
        "on another connection at once, as often as it happens: it was not processed",
        "`RETRY_LATER`",
    ),
    (
        "REFUSED_STREAM",
        "again at once, then after 0.1 s, growing to 8 s, eight times: it was not processed",
        "`RETRY_LATER`",
    ),
    ("no answer in time, connection lost", "nothing: it may have been processed", "`UNKNOWN`"),
    ("not sent before the deadline, or the close", "nothing", "`NOT_SENT`"),
)
"""What becomes of a push without an answer, for docs/errors.md."""


class LinkAction(enum.Enum):
    """The action for the connection on which the answer arrived."""

    KEEP = "keep"
    RETIRE = "retire"
    RETIRE_KEEPING_OLDEST_TOKEN = "retire_keeping_oldest_token"
    RETIRE_AND_BAR = "retire_and_bar"
    """For a while a new connection would not help either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """The facts of a request and its connection that the policy reads."""

    tries: int = 0
    renewed: bool = False
    """Whether its one try on a new connection or with a new provider token is used up."""
    replay_safe: bool = True
    may_retry: bool = True
    """Whether the source of the push leaves retries to the client."""
    token_is_current: bool = True
    """Whether the connection already showed the provider token that a new one would show."""
    connection_fresh: bool = False
    """Whether the connection accepted nothing since it was opened or was idle for long."""
    retry_after: float | None = None
    backoff: float | None = None
    """Seconds that the pool or the token waits now, if the policy waits for one of them."""


@dataclass(frozen=True, slots=True)
class Step:
    """Either another try after ``delay`` seconds, or the end with ``verdict``.

    At the end, ``delay`` is when the caller may try again; None means never.
    """

    again: bool
    delay: float | None
    verdict: Verdict
    link: LinkAction = LinkAction.KEEP
    may_have_been_sent: bool = False


def next_step(row: Reason, seen: Circumstances) -> Step:
    """Return the next step after a refusal."""
    policy = row.retry.value
    match row.retry:
        case Retry.NEVER:
            return Step(False, None, row.verdict)
        case Retry.NEW_TOKEN_ONCE if seen.token_is_current or seen.renewed:
            # The newest token that we can sign is too old for the server: a clock is wrong.
            return Step(False, None, Verdict.OPERATOR, LinkAction.RETIRE_AND_BAR)
        case Retry.NEW_TOKEN_ONCE | Retry.NEW_KEY_LINK | Retry.NEW_LINK_ONCE:
            oldest = row.retry is Retry.NEW_LINK_ONCE
            link = LinkAction.RETIRE_KEEPING_OLDEST_TOKEN if oldest else LinkAction.RETIRE
            if seen.renewed:
                return Step(False, None, row.verdict, link)
            return Step(seen.may_retry, 0.0, row.verdict, link)
        case Retry.TWO_TRIES:
            link = LinkAction.RETIRE if seen.connection_fresh else LinkAction.KEEP
            if not seen.replay_safe:
                return Step(False, None, Verdict.UNKNOWN, link, may_have_been_sent=True)
            delay = policy.delay(seen.tries)
            if delay is None:
                return Step(False, 60.0, row.verdict, link, may_have_been_sent=True)
            delay = max(delay, seen.retry_after or 0.0)
            return Step(seen.may_retry, delay, row.verdict, link, may_have_been_sent=True)
        case Retry.NEW_LINK:
            return _delayed(row, policy.backoff(seen.tries), seen, LinkAction.RETIRE)
        case _:
            delay = policy.backoff(seen.tries) if seen.backoff is None else seen.backoff
            return _delayed(row, delay, seen, LinkAction.KEEP)


def _delayed(row: Reason, delay: float, seen: Circumstances, link: LinkAction) -> Step:
    return Step(seen.may_retry, max(delay, seen.retry_after or 0.0), row.verdict, link)
