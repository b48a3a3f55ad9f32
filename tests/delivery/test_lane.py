"""One lane, told the time step by step: what may leave, what replaces what, and what is taken back."""

from __future__ import annotations

from typing import Any

import pytest

from apns_live.delivery.budget import DEFAULT, FULL, Charge, StartAccounts, Urgency
from apns_live.delivery.journal import LaneRecord
from apns_live.delivery.lane import Errand, Lane, restore_lane
from apns_live.delivery.pacing import NEVER
from apns_live.delivery.state import State
from apns_live.errors import ActivityEnded, DeliveryError
from apns_live.outcome import Outcome, Verdict
from apns_live.payload import End, Notification, Update, encode

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
    without = state(4)
    lane.offer(without)
    assert (lane.waiting, lane.revision) == (without, 1)
    assert lane.offer(state(5, revision=0)) is not None
    assert lane.waiting is without


def test_a_given_timestamp_must_be_newer_than_the_last():
    for last, given, taken in ((0, 0, False), (0, 1, True), (7, 6, False), (7, 7, False)):
        lane = Lane("ab", last_timestamp=last) if last else Lane("ab")
        lane.offer(state(stamp=given))
        assert (lane.waiting is not None) == taken


def test_nothing_is_ready_in_an_idle_lane_and_nothing_is_decided():
    lane = Lane("ab")
    assert lane.ready_at(NOW, NOW) == NEVER
    assert lane.recall() is None
    assert lane.expire(NOW) is None
    assert lane.settle(answer(Verdict.ACCEPTED), NOW) == []


@pytest.mark.parametrize("lag", [0.0, 1000.0])
@pytest.mark.parametrize(
    ("last", "end", "wait"),
    [
        (0, False, 0.0),
        (1, False, 1.0),
        (2, False, 2.0),
        (3600, False, 3600.0),
        (1, True, 0.0),
        (2, True, 1.0),
        (3, True, 0.0),  # the clock was set back
    ],
)
def test_a_timestamp_may_be_ahead_of_the_clock_by_1_or_2_seconds(last, end, wait, lag):
    """``lag`` seconds the clock was set ahead while the lane counted on."""
    lane = Lane("ab", last_timestamp=int(NOW) + last)
    lane.offer(state(end=end))
    assert lane.ready_at(NOW - lag, NOW) == NOW - lag + wait
    lane.depart(NOW - lag, NOW, DEFAULT)
    assert lane.last_timestamp == int(NOW) + last + 1


def test_a_minimum_interval_holds_what_is_neither_urgent_nor_an_end():
    for urgency, end, held in (
        (Urgency.QUIET, False, True),
        (Urgency.NORMAL, False, True),
        (Urgency.URGENT, False, False),
        (Urgency.NORMAL, True, False),
    ):
        lane = Lane("ab", left_at=NOW + 3)
        waiting = state(end=end)
        waiting.urgency = urgency
        lane.offer(waiting)
        assert lane.ready_at(NOW, NOW, 10.0) == (NOW + 13 if held else NOW)
        assert lane.ready_at(NOW, NOW) == NOW


def test_a_state_is_given_up_at_its_last_moment():
    for late, given_up in ((-0.1, False), (0.0, True), (0.1, True)):
        lane = Lane("ab")
        waiting = state()
        waiting.last_moment = NOW
        lane.offer(waiting)
        decided = lane.expire(NOW + late)
        assert lane.idle == given_up
        assert decided is None or (decided[0], decided[1].verdict) == (waiting, Verdict.EXPIRED)
        assert (decided is not None) == given_up


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
    with pytest.raises(ActivityEnded, match="nothing may follow"):
        lane.offer(state(3))
    assert lane.withdraw(end)
    lane.offer(first)  # the activity is open again
    leave(lane)
    assert not lane.withdraw(first)


def test_the_error_after_an_end_names_8_digits_of_the_token():
    lane = Lane("abcdef0123", ended=True)
    with pytest.raises(ActivityEnded, match=r"token abcdef01\.\.\."):
        lane.offer(state())


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
    [(_, outcome)] = lane.settle(answer(Verdict.FIX_REQUEST), NOW + 10)
    assert (outcome.attempts, outcome.may_have_been_sent) == (1, False)


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


def test_a_new_lane_is_journalled_as_an_empty_record():
    assert Lane("ab").record() == LaneRecord(token="ab")


def test_a_push_that_may_have_left_before_a_restart_counts_as_a_try():
    lane = Lane("ab")
    lane.offer(state(1))
    leave(lane)
    again = restore_lane(lane.record(), NOW)
    leave(again, NOW + 10)
    [(_, outcome)] = again.settle(answer(Verdict.FIX_REQUEST), NOW + 10)
    assert (outcome.attempts, outcome.may_have_been_sent) == (2, True)


def test_an_ordinary_notification_uses_up_no_start():
    starts = StartAccounts(1)
    notification = encode(Notification(title="t", body="b"), now=NOW)
    for kind in (notification, state().encoded):
        for _ in range(3):
            leave(Errand("ab", State(kind, Urgency.NORMAL), starts))
    assert not starts.charge("ab", NOW)


def test_what_was_accepted_leaves_the_next_state_as_it_is():
    lane = Lane("ab")
    first, second = state(1), state(2)
    first.urgency = Urgency.URGENT
    lane.offer(first)
    leave(lane)
    lane.offer(second)
    assert [each for each, _ in lane.settle(answer(Verdict.ACCEPTED), NOW)] == [first]
    assert (lane.waiting, second.urgency) == (second, Urgency.NORMAL)


def test_an_errand_waits_for_its_next_try():
    errand = Errand("ab", state(), StartAccounts())
    leave(errand)
    assert errand.settle(answer(Verdict.SLOW_DOWN), NOW) == []
    assert errand.ready_at(NOW, NOW) == NOW + 5
    assert errand.ready_at(NOW + 6, NOW + 6) == NOW + 6


def test_an_outcome_says_what_the_budget_did():
    for charge in (Charge(5, FULL, demoted=True), Charge(10, FULL, over_budget=True)):
        lane = Lane("ab")
        lane.offer(state(1))
        leave(lane).charge = charge
        [(_, outcome)] = lane.settle(answer(Verdict.ACCEPTED), NOW)
        told = (outcome.demoted, outcome.over_budget)
        assert told == (charge.demoted, charge.over_budget)
