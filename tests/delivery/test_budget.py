"""Budgets: the arithmetic of the account."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.delivery import Delivery
from apns_live.delivery.budget import (
    DEFAULT,
    FREQUENT,
    FULL,
    OBSERVED,
    OBSERVED_FREQUENT,
    PRESETS,
    UNCHARGED,
    Account,
    Budget,
    Charge,
    Law,
    StartAccounts,
    Urgency,
    charge_of,
    check_budget,
    check_urgency,
    for_device,
    refund,
)
from apns_live.errors import InvalidSetting
from apns_live.payload import Update
from apns_live.testing.clock import SimulatedClock

from .double import MemoryClient
from .memory_journal import MemoryJournal


@given(
    per_hour=st.integers(6, 80),
    reserve=st.integers(0, 4),
    gaps=st.lists(st.tuples(st.floats(0, 900), st.sampled_from(Urgency)), max_size=200),
)
def test_no_rolling_hour_sees_more_than_the_budget_unless_flagged(per_hour, reserve, gaps):
    budget = Budget(per_hour=per_hour, reserve=reserve, burst=1)
    now, account = 1_000_000.0, FULL
    within: deque[float] = deque()
    for gap, urgency in gaps:
        now += gap
        charge = charge_of(budget, account, urgency, now)
        account = charge.account
        if charge.priority == 10 and not charge.over_budget:
            within.append(now)
        while within and within[0] <= now - 3600:
            within.popleft()
        assert len(within) <= per_hour
        if urgency is Urgency.URGENT:
            assert charge.priority == 10
        if urgency is Urgency.QUIET:
            assert charge.priority == 5
            assert not charge.demoted
        if charge.demoted:
            assert urgency is Urgency.NORMAL


def test_normal_leaves_the_reserve_and_debt_is_bounded():
    now, account = 1000.0, FULL
    tens = 0
    for _ in range(30):
        charge = charge_of(DEFAULT, account, Urgency.NORMAL, now)
        account, tens = charge.account, tens + (charge.priority == 10)
    assert tens == DEFAULT.burst
    assert DEFAULT.level(account, now) == pytest.approx(DEFAULT.reserve)
    for _ in range(1000):
        account = charge_of(DEFAULT, account, Urgency.URGENT, now).account
    assert DEFAULT.level(account, now) == pytest.approx(-DEFAULT.reserve)


def test_presets_are_marked_unverified_and_devices_are_respected():
    assert not DEFAULT.verified
    assert not FREQUENT.verified
    assert for_device(FREQUENT, False) is DEFAULT
    assert for_device(FREQUENT, True) is for_device(FREQUENT, None) is FREQUENT
    assert for_device(OBSERVED_FREQUENT, False) is OBSERVED
    for small in (Budget(per_hour=6, reserve=2), Budget(per_hour=15, burst=1)):
        assert for_device(small, False) is small


def test_the_presets_are_those_of_the_page():
    figures = {
        name: (each.per_hour, each.reserve, each.depth - each.reserve, each.starts_per_hour)
        for name, each in PRESETS.items()
    }
    assert figures == {
        "default": (15, 4, 3, 8),
        "frequent": (60, 8, 12, 8),
        "observed": (15, 4, 11, 10),
        "observed-frequent": (229, 20, 209, 10),
    }


def test_only_a_push_at_priority_10_is_given_back():
    charged = Account(1000.0, 3)
    assert refund(charged, Charge(10, charged)) == (1000.0, 2)
    assert refund(charged, Charge(5, charged)) == charged
    assert refund(charged, UNCHARGED) == charged
    assert refund(FULL, Charge(10, FULL)) == FULL


def test_one_more_start_fits_into_a_device_s_account_each_hour():
    accounts = StartAccounts()
    assert [accounts.charge("a", 1000.0) for _ in range(9)] == [False] * 8 + [True]
    accounts = StartAccounts(7)
    assert [accounts.charge("a", 1000.0) for _ in range(8)] == [False] * 7 + [True]
    assert [accounts.charge("a", now) for now in (4599.0, 8199.0, 8199.0)] == [True, False, True]


def test_the_starts_of_100_000_devices_are_remembered():
    accounts = StartAccounts()
    accounts._accounts.update(dict.fromkeys(map(str, range(99_999)), FULL))
    for token in ("one more", "the last"):
        accounts.charge(token, 1000.0)
        assert len(accounts._accounts) == 100_000


def test_start_accounts_are_per_device_and_bounded():
    accounts = StartAccounts(per_hour=8, devices=100)
    assert [accounts.charge("a", 1000.0) for _ in range(9)] == [False] * 8 + [True]
    assert not accounts.charge("b", 1000.0)
    for n in range(500):
        accounts.charge(str(n), 1000.0)
    assert len(accounts._accounts) == 100
    assert not any(accounts.charge("499", 1000.0) for _ in range(7))
    assert accounts.charge("499", 1000.0), "the newest are remembered"


def test_a_window_begins_with_the_first_push_after_the_last_one_ended():
    now, account, tens = 1_000_000.0, FULL, 0
    for _ in range(30):
        charge = charge_of(OBSERVED, account, Urgency.NORMAL, now)
        account, tens = charge.account, tens + (charge.priority == 10)
        now += 100
    assert tens == OBSERVED.per_hour - OBSERVED.reserve, "down to the reserve, without a pace"
    assert account == (1_000_000.0, 11)
    assert charge_of(OBSERVED, account, Urgency.NORMAL, 1_003_599.0).demoted
    fresh = charge_of(OBSERVED, account, Urgency.NORMAL, 1_003_600.0)
    assert (fresh.priority, fresh.account) == (10, (1_003_600.0, 1))
    urgent = [charge_of(OBSERVED, account, Urgency.URGENT, 1_003_000.0)]
    for _ in range(9):
        urgent.append(charge_of(OBSERVED, urgent[-1].account, Urgency.URGENT, 1_003_000.0))
    assert [each.over_budget for each in urgent] == [False] * 4 + [True] * 6
    assert urgent[-1].account == (1_000_000.0, OBSERVED.per_hour + OBSERVED.reserve)


@pytest.mark.parametrize("budget", PRESETS.values(), ids=PRESETS)
def test_an_account_survives_a_change_of_law_and_a_clock_that_was_set_back(budget):
    spent = Account(1_000_000.0, budget.depth)
    for law in Law:
        other = Budget(per_hour=30, reserve=4, law=law)
        assert other.level(spent, 1_000_000.0) == other.depth - budget.depth
        assert other.level(spent, 900_000.0) == other.depth - budget.depth
        assert other.level(spent, 1_000_000.0 + 7 * 86_400) == other.depth


def test_laws_and_budgets_that_cannot_be_are_refused():
    for wrong in (
        {"law": "rolling"},
        {"per_hour": 4, "law": "window"},
        {"per_hour": 6},
        {"per_hour": 7},
        {"reserve": -1},
    ):
        with pytest.raises(InvalidSetting, match="budget"):
            Budget(**{"per_hour": 15, **wrong})
    assert Budget(per_hour=5, law="window").law is Law.WINDOW
    assert Budget(per_hour=8).depth == 7
    with pytest.raises(InvalidSetting, match="observed-frequent"):
        check_budget("generous")


def test_a_bucket_refills_while_time_passes():
    spent = Account(1000.0, DEFAULT.depth)
    assert DEFAULT.refill_time == 3600 / 8
    assert DEFAULT.level(spent, 1000.0) == 0
    assert DEFAULT.level(spent, 1000.0 + 2 * DEFAULT.refill_time) == pytest.approx(2)
    assert DEFAULT.level(spent, 1000.0 + DEFAULT.refill_time / 2) == pytest.approx(0.5)
    assert DEFAULT.level(Account(1000.0, 1), 1000.0 + 1.5 * DEFAULT.refill_time) == 7, "full"
    assert Budget(per_hour=20).refill_time == pytest.approx(3600 / 13)


@pytest.mark.parametrize(
    ("left", "urgency", "priority", "over", "left_then"),
    [
        (5.0, Urgency.QUIET, 5, False, 5.0),
        (4.0, Urgency.NORMAL, 10, False, 3.0),
        (4.0 - 1e-9, Urgency.NORMAL, 10, False, 3.0 - 1e-9),  # a rounding error
        (4.0 - 1e-6, Urgency.NORMAL, 10, False, 3.0 - 1e-6),  # the largest
        (3.99, Urgency.NORMAL, 5, False, 3.99),
        (1.0, Urgency.URGENT, 10, False, 0.0),
        (1.0 - 1e-9, Urgency.URGENT, 10, False, -1e-9),
        (0.99, Urgency.URGENT, 10, True, -0.01),
        (0.5, Urgency.URGENT, 10, True, -0.5),
        (-2.0, Urgency.URGENT, 10, True, -3.0),
        (-2.5, Urgency.URGENT, 10, True, -3.0),
        (-3.0, Urgency.URGENT, 10, True, -3.0),
        (-4.0, Urgency.URGENT, 10, True, -4.0),  # debt from a larger budget
    ],
)
def test_a_push_costs_one_and_keeps_the_reserve_for_urgent_ones(
    left, urgency, priority, over, left_then
):
    budget = Budget(per_hour=15, reserve=3, burst=3)
    charge = charge_of(budget, Account(1000.0, budget.depth - left), urgency, 1000.0)
    assert (charge.priority, charge.over_budget) == (priority, over)
    assert charge.demoted == (left == 3.99)
    assert budget.level(charge.account, 1000.0) == pytest.approx(left_then, abs=1e-10)


def test_the_urgencies_in_a_journal_keep_their_meaning():
    assert [Urgency(n) for n in range(3)] == [Urgency.QUIET, Urgency.NORMAL, Urgency.URGENT]


@pytest.mark.parametrize("field", ["per_hour", "burst", "starts_per_hour"])
def test_nothing_of_a_budget_is_0(field):
    with pytest.raises(InvalidSetting, match=field):
        Budget(**{"per_hour": 15, field: 0})


@pytest.mark.parametrize("wrong", ["loud", 2])
def test_an_unknown_urgency_is_refused(wrong):
    with pytest.raises(InvalidSetting, match="urgency"):
        check_urgency(value=wrong, has_alert=False)


async def test_accounts_survive_eviction_a_restart_and_are_shared_on_one_phone():
    clock, journal = SimulatedClock(), MemoryJournal()
    one, other = "aa" * 32, "bb" * 32

    async def priorities(delivery, token, count):
        seen = []
        for n in range(count):
            ticket = delivery.submit(Update(content_state={"n": n}), token)
            await clock.advance(3)
            seen.append(ticket.outcome.priority)
        return seen

    client = MemoryClient(clock)
    async with Delivery(client, clock=clock, journal=journal, budget="observed") as delivery:
        delivery.pool(one, "phone")
        delivery.pool(other, "phone")
        assert await priorities(delivery, one, 8) == [10] * 8
        assert await priorities(delivery, other, 6) == [10] * 3 + [5] * 3
    client = MemoryClient(clock)
    async with Delivery(client, clock=clock, journal=journal, budget="observed") as delivery:
        assert await priorities(delivery, one, 2) == [5, 5]
        assert await priorities(delivery, "cc" * 32, 1) == [10]
        await clock.advance(3600)
        assert await priorities(delivery, one, 11) == [10] * 11
        assert await priorities(delivery, other, 1) == [5]
    client = MemoryClient(clock)
    async with Delivery(client, clock=clock, budget="observed") as delivery:
        sent = []
        for n in range(14):
            match = delivery.activity("match", tokens=[one])
            match.put(Update(content_state={"n": n}))
            await clock.advance(3)
            sent.append(match.published.current.priority)
            assert delivery.let_go(match)
        assert sent == [10] * 11 + [5] * 3
