"""Stops a fan-out for which APNs would disconnect the sender."""

from __future__ import annotations

from collections import deque

from ..outcome import Outcome, Verdict

_HOPELESS = frozenset({Verdict.OPERATOR, Verdict.REFRESH_CREDENTIALS})
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
