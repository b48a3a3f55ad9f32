"""The small objects that a link and the pool are made of, each by itself."""

from __future__ import annotations

import re

import pytest

from apns_live.payload import are_tokens
from apns_live.pool import PoolOptions, RequestIds
from apns_live.pool.link_parts import LinkRecord, Liveness
from apns_live.pool.transport import Opening
from apns_live.testing import SimulatedClock

OPTIONS = PoolOptions()


def test_ids_are_distinct_uuids_in_order_across_pages() -> None:
    ids = RequestIds(lambda size: b"\xff" * size)
    made = [*ids.many(5000), ids(), *ids.many(4096)]
    assert len(set(made)) == 9097
    uuid = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(map(uuid.fullmatch, made))
    assert made[0].endswith("-000000000000")
    assert made[-1].endswith(f"-{9096:012x}")
    assert ids.many(0) == []


@pytest.mark.parametrize(
    ("tokens", "good"),
    [
        (["ab" * 32, "AB" * 80], True),
        (["ab", "ab" * 512], True),
        (["abc"], False),
        ([""], False),
        (["ab" * 513], False),
        (["a b0"], False),
        (["ab", "ab\n1"], False),
        (["ab", None], False),
        (["ab", b"ab"], False),
        (["\uff11\uff11"], False),
        ([], False),
    ],
)
def test_tokens_are_checked_by_the_batch(tokens: list[object], good: bool) -> None:
    assert are_tokens(tokens) is good


def test_a_silent_peer_is_asked_and_then_given_up() -> None:
    liveness = Liveness(0.0, OPTIONS)
    liveness.quiet_since = 10.0
    assert liveness.next_look(waiting=True) == 13.0
    assert not liveness.wants_ping(12.9, waiting=True)
    assert liveness.wants_ping(13.0, waiting=True)
    assert liveness.ping(13.0) == (1).to_bytes(8, "big")
    assert liveness.ping(16.0) == (2).to_bytes(8, "big")
    assert not liveness.is_dead(17.9)
    assert liveness.is_dead(18.0)  # counted from the first that was not answered
    assert liveness.heard(18.0)
    liveness.no_doubt()
    assert not liveness.is_dead(99.0)


def test_after_a_long_idle_time_only_the_ping_s_answer_counts() -> None:
    liveness = Liveness(0.0, OPTIONS)
    assert not liveness.was_idle_for_long(59.9)
    assert liveness.was_idle_for_long(60.0)
    liveness.must_answer = True
    liveness.ping(60.0)
    assert liveness.probe_is_young(60.9)
    assert not liveness.probe_is_young(61.0)
    assert not liveness.heard(61.0)
    assert liveness.next_look(waiting=False) == 65.0


def test_a_connection_was_worth_opening_when_it_lasted_or_worked() -> None:
    record = LinkRecord(0.0)
    assert not record.was_worth_opening(9.9)
    assert record.was_worth_opening(10.0)
    record.answers(100, 99, 0.5, 1.0)
    assert record.was_worth_opening(0.1)
    record.answers(1, 0, 1.0, 2.0)
    assert record.round_trip == pytest.approx(0.6)
    assert (record.answered, record.accepted, record.fresh) == (101, 99, False)


def test_waits_double_with_each_failure_and_end_with_a_success() -> None:
    opening = Opening(SimulatedClock(), OPTIONS, lambda: 1.0)
    assert [opening.ended_unused("no") for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert opening.backoff_until == 60.0
    opening.works()
    assert opening.backoff_until < 0
    assert opening.ended_unused("no") == 0.5


def test_only_what_fails_for_good_five_times_in_a_row_is_a_bar() -> None:
    opening = Opening(SimulatedClock(), OPTIONS, lambda: 1.0)
    for permanent in (True, True, True, True, False, True, True, True, True):
        opening.ended_unused("ALPN")
        opening.connect_failed("ALPN", permanent=permanent)
        assert opening.bar is None
    opening.ended_unused("ALPN")
    opening.connect_failed("ALPN", permanent=True)
    assert opening.bar is not None
    assert (opening.bar.reason, opening.bar.detail) == ("connect_failed", "ALPN")
    assert not opening.is_over(opening.bar.until - 0.1)
    assert opening.is_over(opening.bar.until)
    assert opening.bar is None
