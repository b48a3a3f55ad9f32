"""The retry policy as a table, and the bounded memory behind it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from apns_live.client.backoff import PoolBackoff, Refusals, TokenBackoff
from apns_live.clock import SystemClock
from apns_live.http2 import ResponseReceived
from apns_live.outcome import Verdict
from apns_live.pool import Push
from apns_live.reasons import ROWS, Retry, classify
from apns_live.retry import REFUSED_KEY, TOTAL_LIMIT, Circumstances, LinkAction, Step, next_step


def step(status: int, reason: str, **seen) -> Step:
    return next_step(classify(status, reason), Circumstances(**seen))


@pytest.mark.parametrize(
    ("status", "reason", "seen", "expected"),
    [
        (400, "BadTopic", {}, Step(False, None, Verdict.FIX_REQUEST)),
        (410, "Unregistered", {}, Step(False, None, Verdict.DROP_TOKEN)),
        (
            403,
            "ExpiredProviderToken",
            {"token_is_current": False},
            Step(True, 0.0, Verdict.REFRESH_CREDENTIALS, LinkAction.RETIRE),
        ),
        (
            403,
            "ExpiredProviderToken",
            {},
            Step(False, None, Verdict.OPERATOR, LinkAction.RETIRE_AND_BAR),
        ),
        (
            403,
            "ExpiredProviderToken",
            {"token_is_current": False, "renewed": True},
            Step(False, None, Verdict.OPERATOR, LinkAction.RETIRE_AND_BAR),
        ),
        (
            429,
            "TooManyProviderTokenUpdates",
            {},
            Step(True, 0.0, Verdict.REFRESH_CREDENTIALS, LinkAction.RETIRE_KEEPING_OLDEST_TOKEN),
        ),
        (
            429,
            "TooManyProviderTokenUpdates",
            {"renewed": True},
            Step(False, None, Verdict.REFRESH_CREDENTIALS, LinkAction.RETIRE_KEEPING_OLDEST_TOKEN),
        ),
        (
            403,
            "UnrelatedKeyIdInToken",
            {},
            Step(True, 0.0, Verdict.REFRESH_CREDENTIALS, LinkAction.RETIRE),
        ),
        (503, "Shutdown", {}, Step(True, 0.0, Verdict.RETRY_LATER, LinkAction.RETIRE)),
        (503, "ServiceUnavailable", {"backoff": 4.0}, Step(True, 4.0, Verdict.RETRY_LATER)),
        (503, "Service Unavailable", {"backoff": 4.0}, Step(True, 4.0, Verdict.RETRY_LATER)),
        (
            503,
            "ServiceUnavailable",
            {"backoff": 4.0, "retry_after": 9.0},
            Step(True, 9.0, Verdict.RETRY_LATER),
        ),
        (429, "TooManyRequests", {"backoff": 10.0}, Step(True, 10.0, Verdict.SLOW_DOWN)),
        (
            429,
            "TooManyRequests",
            {"backoff": 10.0, "may_retry": False},
            Step(False, 10.0, Verdict.SLOW_DOWN),
        ),
        (
            500,
            "InternalServerError",
            {"tries": 0},
            Step(True, 1.0, Verdict.RETRY_LATER, may_have_been_sent=True),
        ),
        (
            500,
            "InternalServerError",
            {"tries": 1},
            Step(True, 10.0, Verdict.RETRY_LATER, may_have_been_sent=True),
        ),
        (
            500,
            "InternalServerError",
            {"tries": 2},
            Step(False, 60.0, Verdict.RETRY_LATER, may_have_been_sent=True),
        ),
        (
            500,
            "InternalServerError",
            {"replay_safe": False},
            Step(False, None, Verdict.UNKNOWN, may_have_been_sent=True),
        ),
        (
            500,
            "InternalServerError",
            {"connection_fresh": True},
            Step(True, 1.0, Verdict.RETRY_LATER, LinkAction.RETIRE, True),
        ),
        (
            500,
            "InternalServerError",
            {"retry_after": 30.0},
            Step(True, 30.0, Verdict.RETRY_LATER, may_have_been_sent=True),
        ),
    ],
)
def test_what_follows(status: int, reason: str, seen: dict, expected: Step) -> None:
    assert step(status, reason, **seen) == expected


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_comes_to_an_end(row) -> None:
    """No policy tries for ever without a pause, and none retries what a source keeps for itself."""
    for status in row.statuses:
        assert not step(status, row.name, may_retry=False).again
        tries, paused = 0, 0.0
        seen = {"tries": 0, "renewed": False, "token_is_current": False}
        while tries < 100:
            following = step(status, row.name, **seen)
            if not following.again:
                break
            tries += 1
            paused += following.delay or 0.0
            seen = {"tries": tries, "renewed": True, "token_is_current": False}
        assert tries < 100 or paused > 60.0, row.name
        if row.retry is Retry.NEVER:
            assert tries == 0


def test_the_pool_backs_off_1_2_4_to_60_and_forgets_on_success() -> None:
    backoff = PoolBackoff()
    now, waits = 0.0, []
    for _ in range(8):
        wait = backoff.refused(now, now, None)
        waits.append(wait)
        now += wait
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.accepted()
    assert backoff.refused(now, now, None) == 1


def test_a_retry_after_of_minutes_is_honoured_and_hours_are_capped() -> None:
    backoff = PoolBackoff()
    assert backoff.refused(0.0, 0.0, 120.0) == 120.0
    assert backoff.refused(200.0, 200.0, 999_999.0) == 3600.0


def test_both_spellings_of_a_token_wait() -> None:
    backoff = TokenBackoff()
    backoff.refused("AB", 0.0, 5.0)
    assert backoff.wait("ab", 1.0) == 4.0
    backoff.accepted("Ab")
    assert backoff.wait("AB", 1.0) == 0.0


def test_a_wait_of_hours_is_remembered_for_5_minutes_after_its_end() -> None:
    backoff = TokenBackoff()
    backoff.refused("ab", 0.0, 7200.0)
    assert backoff.wait("ab", 7200.5) == 0.0
    for now in (7499.0, 7500.0):
        backoff.sweep(now)
    assert backoff.delay("ab", 7500.0) == 10.0
    assert backoff.delay("ab", 7500.1) == 5.0


def test_an_accepted_push_ends_the_refusals_of_its_token() -> None:
    refusals = Refusals(SystemClock())
    refusals.tokens.refused("ab", 0.0, 5.0)
    refusals.tokens.refused("cd", 0.0, 5.0)
    refusals.accepted([SimpleNamespace(token="ab")])  # type: ignore[list-item]
    assert [refusals.tokens.delay(token, 1.0) for token in ("ab", "cd")] == [5.0, 10.0]


def test_answers_of_one_burst_do_not_double() -> None:
    backoff = PoolBackoff()
    assert [backoff.refused(10.0, 9.0, None) for _ in range(500)] == [1.0] * 500
    assert backoff.refused(10.5, 9.9, None) == 0.5
    assert backoff.refused(11.5, 9.9, None) == 0.0, "answered after the wait"


def test_token_backoff_doubles_to_5_minutes_and_is_bounded() -> None:
    backoff = TokenBackoff(capacity=100)
    now, waits = 0.0, []
    for _ in range(8):
        wait = backoff.delay("a", now)
        backoff.refused("a", now, wait)
        waits.append(wait)
        now += wait
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300]
    for number in range(1000):
        backoff.refused(str(number), now, 5.0)
    assert len(backoff) == 100
    assert [backoff.wait(token, now) for token in ("899", "900", "999")] == [0.0, 5.0, 5.0]
    backoff.sweep(now + 1000)
    assert not backoff


def test_the_waits_of_10_000_tokens_are_remembered() -> None:
    backoff = TokenBackoff()
    for number in range(10_001):
        backoff.refused(str(number), 0.0, 5.0)
    assert len(backoff) == 10_000


def judged(
    refusals: Refusals, status: int, reason: str, *, current: str = "key b", **more: Any
) -> tuple[Push, Step]:
    """Judge a refusal at 100 s on a connection with the provider token "key b"."""
    message: Any = SimpleNamespace(encoded=SimpleNamespace(replay_safe=True))
    push = Push(token="ab", message=message, sent_at=99.0, last=more.get("last"))
    carrier: Any = SimpleNamespace(
        token=SimpleNamespace(value=" ".join(("key", "b"))),
        tokens=SimpleNamespace(current=lambda: SimpleNamespace(value=current)),
        record=SimpleNamespace(fresh=False),
    )
    body = b'{"reason":"%s"}' % reason.encode()
    response = ResponseReceived(1, status, more.get("headers", ()), body)
    answer, following = refusals.judge(
        push=push, response=response, carrier=carrier, now=100.0, may_retry=True
    )
    assert push.last == (answer, following)
    return push, following


def test_a_503_holds_back_the_pool_and_a_429_its_token() -> None:
    refusals = Refusals(SystemClock())
    judged(refusals, 429, "TooManyRequests")
    assert (refusals.tokens.wait("ab", 100.0), refusals.pause(100.0)) == (5.0, (0.0, ""))
    judged(refusals, 429, "TooManyRequests")
    assert refusals.tokens.wait("ab", 100.0) == 10.0
    refusals = Refusals(SystemClock())
    judged(refusals, 503, "ServiceUnavailable")
    assert len(refusals.tokens) == 0
    assert refusals.pause(100.0) == (1.0, "503 ServiceUnavailable")


def test_a_pause_names_the_answer_until_it_is_over() -> None:
    refusals = Refusals(SystemClock())
    judged(refusals, 503, "ServiceUnavailable", headers=[(b"retry-after", b"17")])
    because = "503 ServiceUnavailable, Retry-After 17 s"
    assert refusals.pause(100.0) == (17.0, because)
    assert refusals.pause(116.5) == (0.5, because)
    assert [refusals.pause(now) for now in (117.0, 117.5, 200.0)] == [(0.0, "")] * 3


def test_an_expired_provider_token_is_replaced_by_any_other_once() -> None:
    for current, again in (("key a", True), ("key c", True), ("key b", False)):
        push, following = judged(
            Refusals(SystemClock()), 403, "ExpiredProviderToken", current=current
        )
        assert (following.again, push.renewed) == (again, True)


@pytest.mark.parametrize("doubt", [False, True])
def test_a_push_may_have_been_sent_only_if_an_earlier_answer_says_so(doubt: bool) -> None:
    last = (None, Step(True, 1.0, Verdict.RETRY_LATER, may_have_been_sent=doubt))
    _, following = judged(Refusals(SystemClock()), 410, "Unregistered", last=last)
    assert following.may_have_been_sent == doubt
    _, following = judged(Refusals(SystemClock()), 410, "Unregistered")
    assert not following.may_have_been_sent


def test_the_page_shows_the_table() -> None:
    """docs/errors.md is generated: ``python -m tests.workshop.retry_table``."""
    from tests.workshop.retry_table import PAGE, page_with_table

    assert PAGE.read_text() == page_with_table(PAGE.read_text())


def test_every_policy_has_a_reason() -> None:
    assert set(Retry) == {row.retry for row in ROWS}


def test_a_refused_key_waits_30_s_doubling_to_15_minutes() -> None:
    assert TOTAL_LIMIT == 60, "the client's own limit, docs/errors.md"
    delays = [REFUSED_KEY.delay(tries) for tries in range(7)]
    assert delays == [30, 60, 120, 240, 480, 900, 900]


@pytest.mark.parametrize(
    ("retry", "last"),
    [(Retry.NEW_LINK, 8.0), (Retry.BACKOFF_POOL, 60.0), (Retry.BACKOFF_TOKEN, 300.0)],
)
def test_what_is_refused_unprocessed_is_tried_without_end(retry: Retry, last: float) -> None:
    assert retry.value.delay(1_000) == last


def test_a_refusal_was_not_processed() -> None:
    assert not step(410, "Unregistered").may_have_been_sent
