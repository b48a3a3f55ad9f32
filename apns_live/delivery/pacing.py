"""What follows an answer that is not an acceptance: when to try again, and when to stop.

Live state is worth seconds, so the waits are short where Apple advises minutes; everything ends at
the deadline, the expiration or the stale date, whichever is first.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from ..outcome import Outcome, Verdict

SLOW_DOWN_FIRST, SLOW_DOWN_MOST = 5.0, 300.0
"""Seconds that a token waits after 429 TooManyRequests: doubling between these two."""
RETRY_FIRST, RETRY_MOST = 1.0, 60.0
"""Seconds after a 500 or 503 that names no time of its own."""
UNKNOWN_AT_ONCE = 3
"""How many times in a row a push without an answer is followed at once by the newest state."""
NEVER = math.inf
_HOPELESS = frozenset({Verdict.OPERATOR, Verdict.REFRESH_CREDENTIALS})


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


def last_moment(
    *,
    deadline: float | None,
    expiration: int,
    stale_date: int | None,
) -> float:
    """Return when retries end: the first of the caller's deadline, expiration and stale date.

    All are seconds since 1970; expiration 0 means that APNs does not store the push and ends
    nothing.
    """
    ends = [float(expiration) if expiration > 0 else NEVER]
    if deadline is not None:
        ends.append(deadline)
    if stale_date is not None:
        ends.append(float(stale_date))
    return min(ends)


_BLOCKS = 25
"""Parts that a guard's window consists of at least; it forgets the oldest as a whole."""


class SpikeGuard:
    """Stops a fan-out that would get the sender disconnected.

    APNs disconnects a provider that keeps sending to bad tokens, and a wrong environment makes all
    of them bad. The guard watches the last ``window`` answers; from ``least`` answers on it stops
    when more than ``share`` of them were BadDeviceToken. Credentials that are refused, and requests
    that are wrong, are wrong for every token: there ``least`` of them without a single acceptance
    in the window stop the fan-out.
    """

    def __init__(self, *, window: int = 500, least: int = 50, share: float = 0.3) -> None:
        self._window = window
        self._least = least
        self._share = share
        self._blocks: deque[tuple[int, int, int]] = deque()
        self._answers = self._bad = self._hopeless = 0
        self._failed = self._failed_bad = self._failed_hopeless = 0
        self._refusal = ""
        self.stopped = ""
        """The explanation, once stopped; empty before."""

    def answered(self, outcome: Outcome) -> None:
        """Count an answer that was not an acceptance; `judge` looks at it with the rest of its batch."""
        self._failed += 1
        if outcome.reason == "BadDeviceToken":
            self._failed_bad += 1
        elif outcome.verdict in _HOPELESS or (
            # Status 0 is a token that was refused here, before anything was sent.
            outcome.verdict is Verdict.FIX_REQUEST and outcome.status != 0
        ):
            self._failed_hopeless += 1
            self._refusal = f"{outcome.reason or outcome.verdict.value} (status {outcome.status})"

    def judge(self, accepted: int) -> bool:
        """Close a batch with ``accepted`` acceptances; return whether the fan-out must stop now."""
        if self.stopped:
            return False
        answers = accepted + self._failed
        if not answers:
            return False
        self._push(answers, self._failed_bad, self._failed_hopeless)
        failed, self._failed = self._failed, 0
        self._failed_bad = self._failed_hopeless = 0
        if not failed or self._answers < self._least:
            return False
        if self._bad > self._share * self._answers:
            self.stopped = (
                f"{self._bad} of the last {self._answers} answers were BadDeviceToken. APNs disconnects "
                "senders for that. Check the environment first (sandbox tokens sent to production, or "
                "the reverse), then the tokens; resume when that is settled."
            )
        elif self._hopeless == self._answers:
            self.stopped = (
                f"the last {self._hopeless} answers were all refusals, now {self._refusal}. It does not "
                "depend on the token: correct the request or the credentials, then resume."
            )
        return bool(self.stopped)

    def reset(self) -> None:
        """Forget what was seen and go on."""
        self._blocks.clear()
        self._answers = self._bad = self._hopeless = 0
        self._failed = self._failed_bad = self._failed_hopeless = 0
        self.stopped = ""

    def _push(self, answers: int, bad: int, hopeless: int) -> None:
        blocks = self._blocks
        # Small batches share a block: an activity of few devices has one answer a batch.
        if blocks and blocks[-1][0] + answers <= self._window // _BLOCKS:
            last = blocks.pop()
            blocks.append((last[0] + answers, last[1] + bad, last[2] + hopeless))
        else:
            blocks.append((answers, bad, hopeless))
        self._answers += answers
        self._bad += bad
        self._hopeless += hopeless
        while self._answers - blocks[0][0] >= self._window:
            first = blocks.popleft()
            self._answers -= first[0]
            self._bad -= first[1]
            self._hopeless -= first[2]
