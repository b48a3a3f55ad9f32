"""Stops a fan-out because of which APNs would disconnect the sender."""

from __future__ import annotations

from collections import deque
from operator import add, sub

from ..outcome import Outcome, Verdict

_HOPELESS = frozenset({Verdict.OPERATOR, Verdict.REFRESH_CREDENTIALS})
_BLOCKS = 25
"""The least number of parts of a guard's window. The window drops its oldest part as a whole."""


class SpikeGuard:
    """Stops a fan-out that would get the sender disconnected.

    APNs disconnects a provider that keeps sending to bad tokens, and a wrong environment makes all
    of them bad. The guard watches the last ``window`` answers; from ``least`` answers on it stops
    when more than ``share`` of them were BadDeviceToken. Refused credentials and invalid requests
    fail for every token: ``least`` such answers without an acceptance in the window stop the
    fan-out.
    """

    def __init__(self, *, window: int = 500, least: int = 50, share: float = 0.3) -> None:
        self._window = window
        self._least = least
        self._share = share
        self._refusal = ""
        self.reset()

    def reset(self) -> None:
        """Forget all answers and continue."""
        self._blocks: deque[list[int]] = deque()
        self._seen = [0, 0, 0]
        """Answers in the window, BadDeviceToken answers, answers that apply to every token."""
        self._failed = [0, 0, 0]
        """The same for the batch that `judge` closes, without acceptances."""
        self.stopped = ""
        """The explanation once stopped, else empty."""

    def answered(self, outcome: Outcome) -> None:
        """Count an answer other than an acceptance; `judge` evaluates it with the rest of its batch."""
        self._failed[0] += 1
        if outcome.reason == "BadDeviceToken":
            self._failed[1] += 1
        elif outcome.verdict in _HOPELESS or (
            # Status 0 is a token that was refused locally, before anything was sent.
            outcome.verdict is Verdict.FIX_REQUEST and outcome.status != 0
        ):
            self._failed[2] += 1
            self._refusal = f"{outcome.reason or outcome.verdict.value} (status {outcome.status})"

    def judge(self, accepted: int) -> bool:
        """Close a batch with ``accepted`` acceptances; return True if the fan-out must stop now."""
        failed = self._failed[0]
        if self.stopped or not accepted + failed:
            return False
        batch, self._failed = self._failed, [0, 0, 0]
        batch[0] += accepted
        self._push(batch)
        answers, bad, hopeless = self._seen
        if not failed or answers < self._least:
            return False
        if bad > self._share * answers:
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
        if blocks and blocks[-1][0] + batch[0] <= self._window // _BLOCKS:
            blocks[-1][:] = map(add, blocks[-1], batch)
        else:
            blocks.append(batch)
        while seen[0] - blocks[0][0] >= self._window:
            seen[:] = map(sub, seen, blocks.popleft())
