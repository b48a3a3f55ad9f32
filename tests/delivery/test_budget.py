"""Budgets: the arithmetic of the account."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.delivery.budget import (
    DEFAULT,
    FREQUENT,
    FULL,
    Budget,
    StartAccounts,
    Urgency,
    decide,
    for_device,
)


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
        decision = decide(budget, account, urgency, now)
        account = decision.account
        if decision.priority == 10 and not decision.over_budget:
            within.append(now)
        while within and within[0] <= now - 3600:
            within.popleft()
        assert len(within) <= per_hour
        if urgency is Urgency.URGENT:
            assert decision.priority == 10
        if urgency is Urgency.QUIET:
            assert decision.priority == 5
            assert not decision.demoted
        if decision.demoted:
            assert urgency is Urgency.NORMAL


def test_normal_leaves_the_reserve_and_debt_is_bounded():
    now, account = 1000.0, FULL
    tens = 0
    for _ in range(30):
        decision = decide(DEFAULT, account, Urgency.NORMAL, now)
        account, tens = decision.account, tens + (decision.priority == 10)
    assert tens == DEFAULT.burst
    assert DEFAULT.level(account, now) == pytest.approx(DEFAULT.reserve)
    for _ in range(1000):
        account = decide(DEFAULT, account, Urgency.URGENT, now).account
    assert DEFAULT.level(account, now) == pytest.approx(-DEFAULT.reserve)


def test_presets_are_marked_unverified_and_devices_are_respected():
    assert not DEFAULT.verified
    assert not FREQUENT.verified
    assert for_device(FREQUENT, False) is DEFAULT
    assert for_device(FREQUENT, True) is for_device(FREQUENT, None) is FREQUENT
    small = Budget(per_hour=6, reserve=2)
    assert for_device(small, False) is small


def test_start_accounts_are_per_device_and_bounded():
    accounts = StartAccounts(8, devices=100)
    assert [accounts.charge("a", 1000.0) for _ in range(9)] == [False] * 8 + [True]
    assert not accounts.charge("b", 1000.0)
    for n in range(500):
        accounts.charge(str(n), 1000.0)
    assert len(accounts) == 100
