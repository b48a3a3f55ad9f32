"""One decision for what follows a refusal: lanes, runs and live activities read the same."""

from __future__ import annotations

import pytest

from apns_live.delivery import Delivery
from apns_live.delivery.budget import StartAccounts
from apns_live.delivery.lane import Errand
from apns_live.delivery.pacing import NEVER, Trouble, follows
from apns_live.delivery.state import make_state
from apns_live.outcome import Outcome, Verdict
from apns_live.testing.clock import SimulatedClock

from .double import MemoryClient
from .test_endings import START

TOKEN = "ab" * 32
NOW = 1_000.0


def answered(verdict: Verdict, *, doubt: bool = False, retry_at: float = 0.0) -> Outcome:
    return Outcome(token=TOKEN, verdict=verdict, may_have_been_sent=doubt, retry_at=retry_at)


@pytest.mark.parametrize(
    "verdict", [Verdict.SLOW_DOWN, Verdict.RETRY_LATER, Verdict.NOT_SENT, Verdict.UNKNOWN]
)
def test_what_must_not_come_twice_is_unknown_once_it_may_have_come(verdict: Verdict) -> None:
    final = follows(answered(verdict, doubt=True), None, NOW, replay_safe=False)
    assert isinstance(final, Outcome)
    assert final.verdict is Verdict.UNKNOWN
    assert final.retry_at == 0.0


@pytest.mark.parametrize("verdict", [Verdict.OPERATOR, Verdict.FIX_REQUEST, Verdict.DROP_CHANNEL])
def test_a_refusal_for_good_keeps_its_name(verdict: Verdict) -> None:
    final = follows(answered(verdict, doubt=True), None, NOW, replay_safe=False)
    assert isinstance(final, Outcome)
    assert final.verdict is verdict


def test_another_try_is_remembered_until_it_is_due() -> None:
    first = follows(answered(Verdict.SLOW_DOWN), None, NOW)
    assert isinstance(first, Trouble)
    assert (first.failures, first.not_before, first.may_have_been_sent) == (1, NOW + 5, False)
    second = follows(answered(Verdict.SLOW_DOWN, doubt=True), first, NOW)
    assert isinstance(second, Trouble)
    assert (second.failures, second.not_before, second.may_have_been_sent) == (2, NOW + 10, True)


def test_a_try_behind_the_last_moment_is_none() -> None:
    answer = answered(Verdict.SLOW_DOWN, retry_at=NOW + 30)
    final = follows(answer, None, NOW, last_moment=NOW + 30)
    assert isinstance(final, Outcome)
    assert (final.verdict, final.retry_at) == (Verdict.EXPIRED, 0.0)
    assert isinstance(follows(answer, None, NOW, last_moment=NEVER), Trouble)


async def test_a_lane_reports_a_start_as_unknown_that_was_answered_500_and_then_429() -> None:
    clock = SimulatedClock()
    async with Delivery(MemoryClient(clock), clock=clock) as delivery:
        state = make_state(START, delivery._dispatch)
        lane = Errand(TOKEN, state, StartAccounts())
        lane.trouble = Trouble(failures=1, attempts=1, may_have_been_sent=True)
        lane.depart(NOW, NOW, delivery.budget)
        ((_, outcome),) = lane.settle(answered(Verdict.SLOW_DOWN), NOW)
    assert (outcome.verdict, outcome.may_have_been_sent) == (Verdict.UNKNOWN, True)
