"""What follows an answer that is not an acceptance: when to retry, and when to stop.

The delays are those of `apns_live.reasons.Retry`. They are looked up by verdict, because the client
returns each refusal to delivery at once (``retry=False``). States are soon out of date, so the delays
are shorter than Apple advises. Retries end at the deadline or the expiration, whichever is first. A
stale date does not end them: the phone then shows the state as outdated.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, sub

import msgspec

from ..outcome import Outcome, Verdict
from ..reasons import Retry

_TOKEN = Retry.BACKOFF_TOKEN.value
_SERVER = Retry.BACKOFF_POOL.value
UNKNOWN_AT_ONCE = 3
"""How many times in a row the newest state is sent at once after an unanswered push."""
NEVER = math.inf
_TRIED_AGAIN = frozenset({Verdict.RETRY_LATER, Verdict.NOT_SENT, Verdict.SLOW_DOWN})


@dataclass(slots=True)
class Trouble:
    """The retry state of a token whose last push was not accepted. Most tokens have none."""

    failures: int = 0
    not_before: float = 0.0
    attempts: int = 0
    may_have_been_sent: bool = False
    last: Outcome | None = None
    timestamp: int = 0
    """The payload timestamp of the push that may have been processed."""


def follows(
    outcome: Outcome,
    before: Trouble | None,
    now: float,
    *,
    replay_safe: bool = True,
    last_moment: float = NEVER,
) -> Trouble | Outcome:
    """Return the retry state until the next try, or the final outcome of the push.

    ``outcome`` covers its tries so far and ``before`` is the retry state before the last one. A
    push that is not retried although its answer would allow it is UNKNOWN if it may have been
    processed, and EXPIRED if the next try would be at its ``last_moment`` or later.
    """
    failures = before.failures if before is not None else 0
    when = _again_at(outcome, failures, now, replay_safe=replay_safe)
    if when == NEVER:
        if outcome.may_have_been_sent and outcome.verdict in _TRIED_AGAIN:
            return msgspec.structs.replace(outcome, verdict=Verdict.UNKNOWN, retry_at=0.0)
        return outcome
    if when >= last_moment:
        return msgspec.structs.replace(
            outcome,
            verdict=Verdict.EXPIRED,
            retry_at=0.0,
            detail="its deadline or expiration comes before the next try",
        )
    return Trouble(failures + 1, when, outcome.attempts, outcome.may_have_been_sent, outcome)


def with_tries(outcome: Outcome, before: Trouble | None) -> Outcome:
    """Return the outcome of all tries, made from the last one's."""
    if before is None or not (before.attempts or before.may_have_been_sent):
        return outcome
    accepted = outcome.verdict is Verdict.ACCEPTED
    return msgspec.structs.replace(
        outcome,
        attempts=outcome.attempts + before.attempts,
        may_have_been_sent=outcome.may_have_been_sent
        or (before.may_have_been_sent and not accepted),
    )


def _again_at(outcome: Outcome, failures: int, now: float, *, replay_safe: bool = True) -> float:
    """Return the time (seconds since 1970) at which the token may be retried, or NEVER.

    ``failures`` counts the earlier failures in a row. A push that is not ``replay_safe`` (a start)
    is never repeated if it may have been processed.
    """
    verdict = outcome.verdict
    if not replay_safe and (outcome.may_have_been_sent or verdict is Verdict.UNKNOWN):
        return NEVER
    match verdict:
        case Verdict.UNKNOWN | Verdict.NOT_SENT:
            # It was not sent (a link closed), or had no answer: retry at once, but not repeatedly.
            counted = failures - (UNKNOWN_AT_ONCE if verdict is Verdict.UNKNOWN else 1)
            wait = _SERVER.backoff(counted) if counted >= 0 else 0.0
        case Verdict.SLOW_DOWN:
            wait = _TOKEN.backoff(failures)
        case Verdict.RETRY_LATER:
            wait = _SERVER.backoff(failures)
        case Verdict.REFRESH_CREDENTIALS if outcome.retry_at and not failures:
            # Its connection is retired: retry once on another, as the client does itself.
            wait = 0.0
        case _:
            return NEVER
    return max(outcome.retry_at, now + wait)


def last_moment(*, deadline: float | None, expiration: int, step: float = 0.0) -> float:
    """Return when retries end: the caller's deadline or the expiration, whichever is first.

    Deadline and result are steady time (`apns_live.clock.SteadyTime`); the expiration is seconds
    since 1970 on a wall clock set ahead by ``step``, or 0 (not stored), which sets no limit.
    """
    end = expiration - step if expiration > 0 else NEVER
    return end if deadline is None else min(end, deadline)


_HOPELESS = frozenset({Verdict.OPERATOR, Verdict.REFRESH_CREDENTIALS})
_BLOCKS = 25
"""The least number of parts of a guard's window. The window drops its oldest part as a whole."""


@dataclass(kw_only=True, eq=False, repr=False)
class SpikeGuard:
    """Stops a fan-out that would get the sender disconnected.

    APNs disconnects a provider that keeps sending to bad tokens, and a wrong environment makes all
    of them bad. The guard watches the last ``window`` answers; from ``least`` answers on it stops
    when more than ``share`` of them were BadDeviceToken. Refused credentials and invalid requests
    fail for every token: ``least`` such answers without an acceptance in the window stop it too.
    """

    window: int = 500
    least: int = 50
    share: float = 0.3

    def __post_init__(self) -> None:
        self._refusal = ""
        self.reset()

    def reset(self) -> None:
        """Forget all answers and continue."""
        self._blocks: deque[list[int]] = deque()
        self._seen = [0, 0, 0]
        """Answers in the window, BadDeviceToken answers, answers that apply to every token."""
        self.stopped = ""
        """The explanation once stopped, else empty."""

    def judge(self, accepted: int, failed: Sequence[Outcome] = ()) -> bool:
        """Count a batch of answers; return True if the fan-out must stop now."""
        if self.stopped or not (accepted or failed):
            return False
        batch = [accepted + len(failed), 0, 0]
        for outcome in failed:
            if outcome.reason == "BadDeviceToken":
                batch[1] += 1
            elif outcome.verdict in _HOPELESS or (
                # Status 0 is a token that was refused locally, before anything was sent.
                outcome.verdict is Verdict.FIX_REQUEST and outcome.status != 0
            ):
                batch[2] += 1
                why = outcome.reason or outcome.verdict.value
                self._refusal = f"{why} (status {outcome.status})"
        self._push(batch)
        answers, bad, hopeless = self._seen
        if not failed or answers < self.least:
            return False
        if bad > self.share * answers:
            self.stopped = (
                f"{bad} of the last {answers} answers were BadDeviceToken. APNs disconnects senders "
                "for that. Check the environment first (sandbox tokens sent to production, or the "
                "reverse), then the tokens; resume when that is settled."
            )
        elif hopeless == answers:
            self.stopped = (
                f"the last {hopeless} answers were all refusals, now {self._refusal}. It does not "
                "depend on the token: correct the request or the credentials, then resume."
            )
        return bool(self.stopped)

    def _push(self, batch: list[int]) -> None:
        blocks, seen = self._blocks, self._seen
        seen[:] = map(add, seen, batch)
        # Small batches share a block: an activity with few devices has one answer per batch.
        if blocks and blocks[-1][0] + batch[0] <= self.window // _BLOCKS:
            blocks[-1][:] = map(add, blocks[-1], batch)
        else:
            blocks.append(batch)
        while seen[0] - blocks[0][0] >= self.window:
            seen[:] = map(sub, seen, blocks.popleft())
