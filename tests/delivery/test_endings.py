"""Nothing hangs: raising callbacks, a journal that fails, a close that is interrupted, cancelled sends."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from apns_live.delivery import Delivery
from apns_live.errors import ClientClosed, InvalidInput, JournalError
from apns_live.outcome import Outcome, Verdict
from apns_live.payload import Alert, End, Start
from apns_live.testing.clock import SimulatedClock

from .double import Fate, MemoryClient
from .memory_journal import MemoryJournal
from .test_delivery import OTHER, TOKEN, Phone, state
from .test_live import tokens

START = Start(
    content_state={"n": 0}, attributes_type="Match", attributes={}, alert=Alert(title="t", body="b")
)


@pytest.fixture
def clock():
    return SimulatedClock()


@pytest.fixture
def phone():
    return Phone()


@pytest.fixture
def client(clock, phone):
    return MemoryClient(clock, received=phone)


@pytest.fixture
def journal():
    return MemoryJournal()


@pytest.fixture
async def delivery(client, clock, journal):
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        yield delivery


def boom(*_: object) -> None:
    raise RuntimeError("the caller's own")


# Callbacks.


async def test_callbacks_that_raise_stop_nothing(client, clock, phone, caplog):
    dead = tokens(9)[3]
    client.fate = lambda token, message, now: (
        Fate(status=410, reason="ExpiredToken") if token == dead else Fate()
    )
    async with Delivery(
        client, clock=clock, on_outcome=boom, on_problem=boom, close_timeout=0.0
    ) as delivery:
        match = delivery.activity("match", tokens=tokens(9)[:5])
        match.on_decided = boom
        version = match.put(state(1))
        tickets = [delivery.submit(state(1), token) for token in tokens(9)[5:]]
        for ticket in tickets:
            ticket.when_done(boom)
        run = delivery.fan_out(START, tokens(20)[9:], name="r", on_outcome=boom)
        running = asyncio.ensure_future(run.wait())
        await clock.advance(2)
        assert all(ticket.outcome.accepted for ticket in tickets)
        assert (await version).behind == 0
        assert (await running).counts == {Verdict.ACCEPTED: 11}
        tickets[0].when_done(boom)
    assert delivery.statistics().in_flight == 0
    for name in ("on_outcome", "on_problem", "on_decided", "when_done"):
        assert [each for each in caplog.records if name in each.getMessage()]


@pytest.mark.parametrize("deadline", [0, -1.0, float("nan"), float("inf"), "3", True])
async def test_deadlines_that_are_no_seconds_are_refused(delivery, deadline):
    match = delivery.activity("match")
    for attempt in (
        lambda: delivery.submit(state(1), TOKEN, deadline=deadline),
        lambda: delivery.submit_when_known(state(1), "user", deadline=deadline),
        lambda: delivery.fan_out(state(1), [TOKEN], name="r", deadline=deadline),
        lambda: match.put(state(1), deadline=deadline),
        lambda: match.end(deadline=deadline),
    ):
        with pytest.raises(InvalidInput, match="deadline"):
            attempt()


async def test_upper_and_lower_case_of_a_token_are_one_lane(delivery, clock, client, phone):
    client.fate = lambda token, message, now: Fate(delay=1.0)
    first = delivery.submit(state(1), TOKEN)
    await clock.advance(0.5)
    second = delivery.submit(state(2), TOKEN.upper())
    third = delivery.submit(state(3), TOKEN)
    assert client.sent == 1
    await clock.advance(5)
    assert second.outcome.verdict is Verdict.SUPERSEDED
    assert (first.outcome.token, second.outcome.token) == (TOKEN, TOKEN.upper())
    assert third.outcome.accepted
    assert delivery.statistics().lanes == 1
    match = delivery.activity("match", tokens=[TOKEN.upper()])
    assert not match.join(TOKEN)
    assert delivery.owner(TOKEN) is match
    with pytest.raises(InvalidInput, match="belongs to the live activity"):
        delivery.submit(state(4), TOKEN)
    assert match.leave(TOKEN)


# A journal that fails.


async def test_a_journal_that_fails_leaves_nobody_waiting(delivery, clock, client, journal):
    client.fate = lambda token, message, now: Fate(delay=2.0)
    flying = delivery.submit(state(1), TOKEN)
    match = delivery.activity("match", tokens=tokens(3))
    run = delivery.fan_out(START, tokens(20)[5:], name="r")
    running = asyncio.ensure_future(run.wait())
    late = delivery.submit_when_known(state(1), "user")
    await clock.advance(0.5)
    assert client.in_flight
    journal.failure = JournalError("no space left on device")
    behind = delivery.submit(state(2), TOKEN)
    waiting = asyncio.ensure_future(delivery.send(state(3), OTHER))
    single = delivery.submit(START, OTHER)
    version = match.put(state(2))
    await clock.advance(0.5)
    assert (await waiting).verdict is Verdict.NOT_SENT
    assert "no space left" in (await behind).detail
    assert behind.outcome.verdict is single.outcome.verdict is Verdict.NOT_SENT
    assert late.outcome.verdict is Verdict.NOT_SENT
    assert "no space left" in (await version).stopped
    with pytest.raises(JournalError, match="no space left"):
        await delivery.flush()
    with pytest.raises(JournalError, match="no space left"):
        delivery.submit(state(4), TOKEN)
    await clock.advance(3)
    assert flying.outcome.accepted, "what has left gets its answer"
    with pytest.raises(JournalError, match="no space left"):
        await running
    sent = client.sent
    await clock.advance(60)
    assert client.sent == sent


async def test_a_retry_behind_a_failed_journal_is_not_waited_for(delivery, clock, client, journal):
    client.fate = lambda token, message, now: Fate(delay=1.0, status=503, reason="Shutdown")
    ticket = delivery.submit(state(1), TOKEN)
    await clock.advance(0.5)
    journal.failure = JournalError("gone")
    delivery.submit(state(1), OTHER)
    await clock.advance(3)
    assert ticket.outcome.verdict is Verdict.NOT_SENT
    assert ticket.outcome.attempts == 1


# Cancelled sends and closes.


async def test_a_cancelled_send_that_was_journalled_does_not_go_out_after_a_restart(
    client, clock, phone, journal
):
    client.open = False
    delivery = Delivery(client, clock=clock, journal=journal, close_timeout=0.0)
    await delivery.open()
    sending = [
        asyncio.ensure_future(delivery.send(message, token))
        for message, token in ((state(1), TOKEN), (End(content_state={"n": 2}), OTHER))
    ]
    await clock.advance(1)
    assert len(journal.names("lane")) == 2
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    await delivery.flush()
    assert delivery.submit(state(5), OTHER), "an end that is taken back leaves it open"
    delivery.forget(TOKEN)
    await delivery.aclose(drain=0.0)
    client = MemoryClient(clock, received=phone)
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0):
        await clock.advance(5)
    assert phone.history == {OTHER: [5]}


async def test_a_state_that_replaces_one_whose_intent_is_being_committed(
    delivery, clock, client, journal, phone
):
    journal.gate = asyncio.Event()
    first = delivery.submit(state(1, "goal"), TOKEN)
    await clock.settle()
    second = delivery.submit(state(2), TOKEN)
    await clock.settle()
    journal.gate.set()
    await clock.advance(1)
    assert (await first).verdict is Verdict.SUPERSEDED
    assert (await second).accepted
    assert phone.history[TOKEN] == [2]
    assert phone.alerts[TOKEN] == ["goal"]
    assert client.sent == 1


async def test_an_interrupted_close_closes_the_journal_and_answers_everybody(
    client, clock, journal
):
    delivery = Delivery(client, clock=clock, journal=journal, close_timeout=60.0)
    await delivery.open()
    client.fate = lambda token, message, now: Fate(delay=50.0)
    flying = delivery.submit(state(1), TOKEN)
    await clock.advance(0.1)
    client.open = False
    waiting = delivery.submit(state(1), OTHER)
    single = delivery.submit(START, OTHER)
    run = delivery.fan_out(START, tokens(5), name="r")
    running = asyncio.ensure_future(run.wait())
    await clock.settle()
    closing = asyncio.ensure_future(delivery.aclose())
    second = asyncio.ensure_future(delivery.aclose())
    await clock.advance(0.5)
    assert not closing.done()
    assert not second.done(), "a second call waits for the first"
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert journal.closed
    assert flying.outcome.verdict is Verdict.UNKNOWN
    assert waiting.outcome.verdict is single.outcome.verdict is Verdict.NOT_SENT
    assert "the journal keeps it" in waiting.outcome.detail
    assert "journal" not in single.outcome.detail
    await second
    assert sum((await running).counts.values()) == 5
    with pytest.raises(ClientClosed):
        delivery.activity("match")
    assert clock.pending <= 1, "only the answer of the double is still to come"


async def test_closing_while_the_event_loop_ends_closes_the_journal(clock, journal):
    """As `asyncio.run` does: every task is cancelled, the closing one too."""
    client = MemoryClient(clock)
    client.open = False
    delivery = Delivery(client, clock=clock, journal=journal, close_timeout=60.0)
    await delivery.open()
    ticket = delivery.submit(state(1), TOKEN)
    closing = asyncio.ensure_future(delivery.aclose())
    await clock.settle()
    mine = asyncio.current_task()
    for task in asyncio.all_tasks() - {mine}:
        task.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await clock.settle()
    assert journal.closed
    assert ticket.done()


# What is over is forgotten.


async def test_lanes_past_their_life_leave_the_journal(client, clock, journal):
    async with Delivery(
        client, clock=clock, journal=journal, lane_lifetime=600.0, close_timeout=0.0
    ) as delivery:
        delivery.submit(state(1), TOKEN)
        await clock.advance(5)
        assert journal.names("lane") == [TOKEN]
        await clock.advance(700)
        delivery.submit(state(1), OTHER)
        await clock.advance(60)
        assert journal.names("lane") == [OTHER]
    await clock.advance(900)
    async with Delivery(
        client, clock=clock, journal=journal, lane_lifetime=600.0, close_timeout=0.0
    ) as delivery:
        await clock.advance(1)
        assert delivery.statistics().lanes == 0
        assert not journal.names("lane"), "one that outlived its life between two lives, too"


async def test_an_ended_activity_leaves_nothing_behind(delivery, clock, journal):
    watched = []
    for n in range(5):
        match = delivery.activity(f"match {n}", tokens=tokens(4))
        match.put(state(1))
        await clock.advance(2)
        match.end(End())
        await clock.advance(2)
        watched.append(weakref.ref(match))
        assert match.over
        del match
    assert not journal.names("activity") + journal.names("members")
    gc.collect()
    assert [alive() for alive in watched] == [None] * 5


async def test_a_token_that_left_is_not_pushed_after_a_restart(client, clock, phone, journal):
    stay, leave = tokens(2)
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        match = delivery.activity("match", tokens=[stay, leave])
        match.put(state(1))
        await clock.advance(2)
        match.leave(leave)
        await clock.advance(1)
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        delivery.activity("match").put(state(2))
        await clock.advance(2)
        assert delivery.owner(leave) is None
    assert phone.history == {stay: [1, 2], leave: [1]}


# Single answers.


async def test_a_refused_start_was_not_perhaps_sent(delivery, clock, client):
    client.fate = lambda token, message, now: Fate(status=503, reason="ServiceUnavailable")
    ticket = delivery.submit(START, OTHER, deadline=10.0)
    await clock.advance(30)
    assert ticket.outcome.verdict is Verdict.EXPIRED
    assert not ticket.outcome.may_have_been_sent
    assert ticket.outcome.attempts > 1


async def test_an_alert_that_does_not_fit_beside_the_new_state_is_told(
    delivery, clock, client, phone
):
    client.fate = lambda token, message, now: Fate(delay=1.0)
    client.keep_bodies = True
    delivery.submit(state(1), TOKEN)
    await clock.advance(0.5)
    goal = delivery.submit(state(2, "g" * 1500), TOKEN)
    large = state(3)
    large.content_state["text"] = "x" * 3500
    last = delivery.submit(large, TOKEN)
    await clock.advance(5)
    assert "did not fit" in goal.outcome.detail
    assert last.outcome.accepted
    assert all(len(body) <= 4096 for body in client.bodies)
    assert phone.history[TOKEN] == [1, 3]


async def test_minimum_interval_does_not_cut_retry_after_short(client, clock):
    fates = [Fate(status=429, reason="TooManyRequests", retry_after=60.0), Fate()]
    client.fate = lambda token, message, now: fates.pop(0)
    async with Delivery(client, clock=clock, minimum_interval=2.0, close_timeout=0.0) as delivery:
        ticket = delivery.submit(state(1), TOKEN)
        await clock.advance(55)
        assert not ticket.done()
        await clock.advance(10)
        assert ticket.outcome.accepted


async def test_a_stale_date_that_has_passed_does_not_end_trying(delivery, clock, phone, client):
    fates = [Fate(status=503, reason="ServiceUnavailable") for _ in range(6)]
    client.fate = lambda token, message, now: fates.pop() if fates else Fate()
    stale = clock.time() - 1
    one = delivery.submit(state(1, stale_date=stale), TOKEN)
    match = delivery.activity("match", tokens=tokens(2))
    match.put(state(1, stale_date=clock.time() + 2))
    run = delivery.fan_out(state(1, stale_date=stale), [tokens(3)[2]], name="r")
    running = asyncio.ensure_future(run.wait())
    await clock.advance(120)
    assert one.outcome.accepted
    assert set(phone.history) == {TOKEN, *tokens(3)}
    assert (await running).accepted == 1


async def test_outcomes_are_told_of_the_token_as_it_was_given(delivery, clock):
    seen: list[Outcome] = []
    delivery.submit(state(1), TOKEN.upper()).when_done(seen.append)
    await clock.advance(1)
    assert seen[0].token == TOKEN.upper()


async def test_refused_credentials_are_tried_once_more_on_the_connection_that_follows(
    delivery, clock, client
):
    refused = Fate(
        status=403,
        reason="ExpiredProviderToken",
        verdict=Verdict.REFRESH_CREDENTIALS,
        retry_after=0.1,
    )
    fates = [refused]
    client.fate = lambda token, message, now: fates.pop() if fates else Fate()
    once = delivery.submit(state(1), TOKEN)
    await clock.advance(2)
    assert once.outcome.accepted
    client.fate = lambda token, message, now: refused
    again = delivery.submit(state(2), TOKEN)
    await clock.advance(2)
    assert again.outcome.verdict is Verdict.REFRESH_CREDENTIALS
    assert again.outcome.attempts == 2


# An activity that ends before it has tokens.


async def test_tokens_that_join_after_the_end_get_it(client, clock, phone, delivery):
    activity = delivery.activity("match")
    activity.end(End(content_state={"n": 1}))
    await clock.advance(3600)
    assert delivery.activity("match") is activity
    activity.join(TOKEN)
    await clock.advance(5)
    assert phone.history == {TOKEN: [1]}
    assert delivery.statistics().activities == 0


@pytest.mark.parametrize("expiration", [None, 0])
async def test_an_ended_activity_without_tokens_is_forgotten(client, clock, delivery, expiration):
    options = {} if expiration is None else {"expiration": expiration}
    delivery.activity("match").end(End(content_state={"n": 1}, **options))
    await clock.advance(3 * 3600)
    assert delivery.statistics().activities == 1
    await clock.advance(1.1 * 3600)
    assert delivery.statistics().activities == 0


async def test_an_ended_activity_without_tokens_is_forgotten_in_the_next_life(
    client, clock, journal
):
    async with Delivery(client, clock=clock, journal=journal) as delivery:
        delivery.activity("match").end(End(content_state={"n": 1}))
        await delivery.flush()
    async with Delivery(client, clock=clock, journal=journal) as delivery:
        assert delivery.statistics().activities == 1
        await clock.advance(4.1 * 3600)
        assert delivery.statistics().activities == 0
        await delivery.flush()
    assert await journal.read("activity", None, ("", -1), 10) == []
