"""One lane, told the time step by step: what may leave, what replaces what, and what is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from apns_live.delivery.budget import DEFAULT, FULL, Decision, StartAccounts, Urgency
from apns_live.delivery.lane import Errand, Lane, restore_lane
from apns_live.delivery.pacing import NEVER
from apns_live.delivery.state import State
from apns_live.errors import ActivityEnded, DeliveryError
from apns_live.outcome import Outcome, Verdict
from apns_live.payload import End, Update, encode

NOW = 1_000_000.0


def state(
    n: int = 0, *, end: bool = False, stamp: int | None = None, revision: int | None = None
) -> State:
    kind = End if end else Update
    encoded = encode(kind(content_state={"n": n}), now=NOW)
    return State(encoded, Urgency.NORMAL, given_timestamp=stamp, revision=revision)


def leave(lane: Lane, now: float = NOW) -> State:
    return lane.depart(now, now, DEFAULT)


def test_it_is_idle_when_nothing_waits_and_nothing_is_in_flight():
    lane = Lane("ab")
    assert lane.idle
    lane.offer(state())
    assert not lane.idle
    leave(lane)
    assert not lane.idle


def test_an_end_waits_for_its_timestamp_unless_the_clock_was_set_back():
    lane = Lane("ab", last_timestamp=int(NOW) + 2)
    lane.offer(state(end=True))
    assert lane.ready_at(NOW, NOW) == NOW + 1
    assert lane.ready_at(NOW + 0.5, NOW + 0.5) == NOW + 1
    lane.last_timestamp = int(NOW) + 3600
    assert lane.ready_at(NOW, NOW) == NOW


def test_revisions_count_from_0():
    lane = Lane("ab")
    assert lane.offer(state(1, revision=0)) is None
    same = state(2, revision=0)
    assert lane.offer(same) is not None
    assert lane.waiting is not same
    newer = state(3, revision=1)
    lane.offer(newer)
    assert lane.waiting is newer


def test_its_repr_says_what_it_does_and_no_whole_token():
    lane = Lane("abcdef0123")
    assert repr(lane) == "<Lane abcdef01... idle>"
    lane.offer(state())
    assert repr(lane) == "<Lane abcdef01... waiting>"


def test_only_what_waits_may_leave_and_one_at_a_time():
    lane = Lane("ab")
    with pytest.raises(DeliveryError, match="nothing that may leave"):
        leave(lane)
    lane.offer(state(1))
    leave(lane)
    lane.offer(state(2))
    assert lane.ready_at(NOW, NOW) == NEVER
    with pytest.raises(DeliveryError, match="nothing that may leave"):
        leave(lane)


def test_the_next_may_leave_as_soon_as_its_timestamp_may():
    lane = Lane("ab", last_timestamp=int(NOW) - 5, left_at=NOW)
    lane.offer(state())
    assert lane.ready_at(NOW, NOW) == NOW
    assert lane.ready_at(NOW, NOW, 1.0) == NOW + 1


def test_a_given_timestamp_is_kept_if_it_is_newer():
    lane = Lane("ab", last_timestamp=int(NOW))
    lane.offer(state(stamp=int(NOW) + 7))
    leave(lane)
    assert lane.last_timestamp == int(NOW) + 7


def test_what_has_not_left_can_be_withdrawn():
    lane = Lane("ab")
    first, end = state(1), state(2, end=True)
    lane.offer(first)
    assert lane.withdraw(first)
    assert lane.idle
    lane.offer(end)
    with pytest.raises(ActivityEnded):
        lane.offer(state(3))
    assert lane.withdraw(end)
    lane.offer(first)  # the activity is open again
    leave(lane)
    assert not lane.withdraw(first)


def test_an_ended_lane_stays_ended_when_an_earlier_state_is_withdrawn():
    lane = Lane("ab", ended=True)
    lane.waiting = first = state()
    assert lane.withdraw(first)
    assert lane.ended


def test_what_did_not_leave_after_all_waits_again_or_gives_way():
    lane = Lane("ab")
    first, second = state(1), state(2)
    lane.offer(first)
    leave(lane)
    assert lane.recall() is None
    assert lane.waiting is first
    leave(lane)
    lane.offer(second)
    decided = lane.recall()
    assert decided is not None
    assert decided[0] is first
    assert lane.waiting is second


def test_lanes_are_journalled_and_errands_are_not():
    assert Lane("ab").journalled
    assert not Errand("ab", state(), StartAccounts()).journalled


def answer(verdict: Verdict, **more: Any) -> Outcome:
    return Outcome(token="ab", verdict=verdict, attempts=1, **more)


def test_an_errand_in_flight_or_settled_is_never_ready():
    lane = Errand("ab", state(), StartAccounts())
    assert lane.ready_at(NOW, NOW) == NOW
    leave(lane)
    assert lane.ready_at(NOW, NOW) == NEVER
    lane.settle(answer(Verdict.ACCEPTED), NOW)
    assert lane.ready_at(NOW, NOW) == NEVER


def test_a_next_try_past_the_last_moment_ends_what_nothing_replaces():
    lane = Lane("ab")
    lane.offer(state(1))
    leave(lane).last_moment = NOW + 5
    [(_, outcome)] = lane.settle(answer(Verdict.SLOW_DOWN), NOW)
    assert outcome.verdict is Verdict.EXPIRED
    lane.offer(state(1))
    leave(lane).last_moment = NOW + 5
    newer = state(2)
    lane.offer(newer)
    [(_, outcome)] = lane.settle(answer(Verdict.SLOW_DOWN), NOW)
    assert outcome.verdict is Verdict.SUPERSEDED
    assert lane.ready_at(NOW, NOW) == NOW + 5
    assert lane.waiting is newer


def test_the_tries_of_a_replaced_state_are_not_those_of_the_newer():
    lane = Lane("ab")
    lane.offer(state(1))
    leave(lane)
    lane.offer(state(2))
    lane.settle(answer(Verdict.RETRY_LATER), NOW)
    leave(lane, NOW + 10)
    [(_, outcome)] = lane.settle(answer(Verdict.ACCEPTED), NOW + 10)
    assert outcome.attempts == 1


def test_a_journal_keeps_the_newest_state_and_whether_it_may_have_left():
    lane = Lane("ab")
    assert lane.record().message is None
    first, second = state(1, revision=1), state(2, revision=2)
    lane.offer(first)
    assert (lane.record().message, lane.record().intended) == (first.encoded, False)
    leave(lane)
    assert (lane.record().message, lane.record().intended) == (first.encoded, True)
    lane.offer(second)
    assert (lane.record().message, lane.record().intended) == (second.encoded, False)
    again = restore_lane(lane.record(), NOW - 100)
    assert again.waiting is not None
    assert again.waiting.encoded is second.encoded
    assert (again.last_timestamp, again.revision, again.left_at) == (int(NOW), 2, NOW - 100)
    assert (again.account, again.ended, again.trouble) == (lane.account, False, None)


def test_an_outcome_says_what_the_budget_did():
    for decision in (Decision(5, FULL, demoted=True), Decision(10, FULL, over_budget=True)):
        lane = Lane("ab")
        lane.offer(state(1))
        leave(lane).decision = decision
        [(_, outcome)] = lane.settle(answer(Verdict.ACCEPTED), NOW)
        told = (outcome.demoted, outcome.over_budget)
        assert told == (decision.demoted, decision.over_budget)
