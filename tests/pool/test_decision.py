"""What the pool decides, as a table: no sockets, no clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.pool import PoolOptions
from apns_live.pool.decision import Decision, LinkView, PoolView, decide

NOW = 1000.0
OPTIONS = PoolOptions(max_connections=3)


def link(number: int = 1, **values: Any) -> LinkView:
    values.setdefault("limit", 1000)
    values.setdefault("best_limit", int("1000"))  # equal to the limit, and another object
    values.setdefault("accepted", True)
    return LinkView(number=number, **values)


def view(*links: LinkView, **values: Any) -> PoolView:
    values.setdefault("now", NOW)
    values.setdefault("waiting", True)
    values.setdefault("busy", 0.0)
    return PoolView(links=links, **values)


FULL = {"full_since": NOW - 10, "round_trip": 0.1}
CASES = {
    "nothing to do, nothing open": (view(waiting=False), Decision()),
    "the first push opens the first link": (view(), Decision(1)),
    "one at a time until a push was accepted": (
        view(link(connecting=True, accepted=False)),
        Decision(),
    ),
    "an idle link is used, not joined": (view(link(idle_since=NOW)), Decision()),
    "not before a push was accepted, however full": (
        view(link(accepted=False, **FULL)),
        Decision(),
    ),
    "full for two round trips": (view(link(**FULL)), Decision(1)),
    "full, but not for long": (
        view(link(full_since=NOW - 0.1, round_trip=0.1)),
        Decision(0, (), NOW + 0.1),
    ),
    "full, with no round trip known": (
        view(link(full_since=NOW - 0.04)),
        Decision(0, (), NOW - 0.04 + 0.1),
    ),
    "one of two has room": (view(link(1, **FULL), link(2)), Decision()),
    "both full": (view(link(1, **FULL), link(2, **FULL)), Decision(1)),
    "the last connect was just now": (
        view(link(**FULL), last_connect_at=NOW - 0.2),
        Decision(0, (), NOW + 0.05),
    ),
    "a link takes more than ever": (view(link(limit=1001, **FULL)), Decision(1)),
    "a link is penalised": (view(link(limit=1, **FULL)), Decision()),
    "the last answer was a refusal": (view(link(refused_last=True, **FULL)), Decision()),
    "as many as allowed": (view(link(1, **FULL), link(2, **FULL), link(3, **FULL)), Decision()),
    "more than allowed": (view(*[link(n, **FULL) for n in range(4)]), Decision()),
    "of two idle links the first is looked at when its time is over": (
        view(link(1, idle_since=NOW - 10), link(2, idle_since=NOW - 200), waiting=False),
        Decision(0, (), NOW - 200 + OPTIONS.idle_timeout),
    ),
    "a draining one does not count": (
        view(link(1, **FULL), link(2, **FULL), link(3, draining=True)),
        Decision(1),
    ),
    "another is on its way, and time has passed": (
        view(link(1, **FULL), link(2, connecting=True, accepted=False)),
        Decision(1),
    ),
    "backoff": (view(backoff_until=NOW + 7), Decision(0, (), NOW + 7)),
    "backoff is over": (view(backoff_until=NOW), Decision(1)),
    "backoff stops growth too": (
        view(link(**FULL), backoff_until=NOW + 7),
        Decision(0, (), NOW + 7),
    ),
    "the only link is suspected dead": (view(link(usable=False)), Decision(1)),
    "suspected, and its replacement is connecting": (
        view(link(1, usable=False), link(2, connecting=True, accepted=False)),
        Decision(),
    ),
    "idle for five minutes, above the minimum": (
        view(link(1, idle_since=NOW - 1), link(2, idle_since=NOW - 301), waiting=False),
        Decision(0, (2,), None),
    ),
    "idle for exactly its timeout": (
        view(link(1), link(2, idle_since=NOW - OPTIONS.idle_timeout), waiting=False),
        Decision(0, (2,), None),
    ),
    "one of two spare links is in use": (
        view(link(1), link(2), link(3, idle_since=NOW - 301), waiting=False),
        Decision(0, (3,), None),
    ),
    "one of two spare links is closed now and one later": (
        view(link(1), link(2, idle_since=NOW - 301), link(3, idle_since=NOW - 1), waiting=False),
        Decision(0, (2,), NOW + 299),
    ),
    "while pushes wait, an idle link beyond the minimum is closed if none is opened": (
        view(link(1), link(2, idle_since=NOW - 301)),
        Decision(0, (2,), None),
    ),
    "a link is opened, so none is closed": (
        view(link(1, usable=False, idle_since=NOW - 301), link(2, usable=False)),
        Decision(1),
    ),
    "the youngest goes first when all are idle as long": (
        view(
            link(1, idle_since=NOW - 301),
            link(2, idle_since=NOW - 301),
            link(3, idle_since=NOW - 301),
            waiting=False,
        ),
        Decision(0, (3, 2), None),
    ),
    "the last one stays": (view(link(idle_since=NOW - 3000), waiting=False), Decision()),
    "idle, but not for long": (
        view(link(1, idle_since=NOW - 100), link(2), waiting=False),
        Decision(0, (), NOW + 200),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_decisions(name: str) -> None:
    given_view, expected = CASES[name]
    assert decide(given_view, OPTIONS) == expected


@pytest.mark.parametrize("count", range(5))
def test_the_minimum_stays_open_however_long_it_is_idle(count: int) -> None:
    idle = [link(number, idle_since=NOW - 301) for number in range(count)]
    options = PoolOptions(max_connections=8, min_connections=4)
    assert decide(view(*idle, waiting=False), options) == Decision()


MANY = PoolOptions(max_connections=64)


def full(count: int) -> list[LinkView]:
    return [link(number, **FULL) for number in range(count)]


@pytest.mark.parametrize(
    ("links", "busy", "expected"),
    [
        (full(7), 0.95, Decision(1)),  # so few are opened whatever they cost
        (full(8), 0.8, Decision(1)),
        (full(8), 0.88, Decision(0, (), NOW + 0.25)),  # a ninth would make it 0.99
        (full(19), 0.9215, Decision(1)),  # a twentieth makes it just 0.97
        (full(20), 0.95, Decision(0, (), NOW + 0.25)),
        (full(63), 0.0, Decision(1)),
        (full(64), 0.0, Decision()),
    ],
)
def test_beyond_eight_it_grows_to_what_the_processor_carries(
    links: list[LinkView], busy: float, expected: Decision
) -> None:
    assert decide(view(*links, busy=busy), MANY) == expected


@pytest.mark.parametrize(("cost", "least", "most"), [(0.0, 64, 64), (0.03, 30, 32)])
def test_at_80_ms_it_grows_to_what_is_allowed_or_carried(
    cost: float, least: int, most: int
) -> None:
    """Each link connects in three round trips and is full from then on; each costs some of a core."""
    now, last, opened = NOW, float("-inf"), [NOW]
    while now < NOW + 35.0:
        ready = [at + 0.24 for at in opened]
        links = [
            link(number, full_since=at, round_trip=0.08)
            if at <= now
            else link(number, connecting=True, accepted=False)
            for number, at in enumerate(ready)
        ]
        busy = cost * sum(at <= now for at in ready)
        decision = decide(view(*links, now=now, last_connect_at=last, busy=busy), MANY)
        if decision.open:
            opened += [now] * decision.open
            last = now
        now += 0.05
    assert least <= len(opened) <= most


links = st.builds(
    LinkView,
    number=st.integers(1, 20),
    connecting=st.booleans(),
    usable=st.booleans(),
    draining=st.booleans(),
    accepted=st.booleans(),
    limit=st.integers(0, 1000),
    best_limit=st.integers(0, 1000),
    refused_last=st.booleans(),
    full_since=st.none() | st.floats(0, NOW),
    idle_since=st.none() | st.floats(0, NOW),
    round_trip=st.floats(0, 2),
)


@given(
    st.lists(links, max_size=10, unique_by=lambda each: each.number),
    st.booleans(),
    st.floats(0, 2000),
    st.floats(0, NOW),
)
def test_whatever_the_pool_looks_like(
    some: list[LinkView], waiting: bool, backoff: float, last: float
) -> None:
    decision = decide(
        view(*some, waiting=waiting, backoff_until=backoff, last_connect_at=last), OPTIONS
    )
    alive = [each for each in some if not each.draining]
    assert 0 <= decision.open <= 1
    assert len(alive) + decision.open <= max(OPTIONS.max_connections, len(alive))
    if decision.open:
        assert waiting
        assert backoff <= NOW
        assert not decision.close
    closed = [each for each in alive if each.number in decision.close]
    assert len(closed) == len(decision.close)
    assert all(each.idle_since is not None and NOW - each.idle_since >= 300 for each in closed)
    if closed:
        assert len(alive) - len(closed) >= OPTIONS.min_connections
    if decision.ask_again_at is not None:
        assert decision.ask_again_at > NOW
