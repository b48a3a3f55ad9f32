"""A clock that somebody sets: deadlines and waits do not notice, timestamps never go back."""

from __future__ import annotations

import json
import logging

import pytest

from apns_live.clock import SteadyTime
from apns_live.delivery import Delivery
from apns_live.outcome import Verdict
from apns_live.payload import End
from apns_live.testing.clock import SimulatedClock

from .double import Fate, MemoryClient
from .memory_journal import MemoryJournal
from .test_delivery import OTHER, TOKEN, state
from .test_live import tokens

HALF_AN_HOUR = 1800.0


class Wrong(SimulatedClock):
    """A simulated clock whose wall time is off by ``error`` seconds."""

    error = 0.0

    def time(self) -> float:
        return super().time() + self.error


class Log:
    """The pushes in order: token, timestamp, n, event."""

    def __init__(self) -> None:
        self.got: list[tuple[str, int, int, str]] = []

    def __call__(self, token, message, now):
        aps = json.loads(message.body)["aps"]
        number = aps.get("content-state", {}).get("n", -1)
        self.got.append((token, aps["timestamp"], number, aps["event"]))

    def of(self, token):
        return [(stamp, number) for name, stamp, number, _ in self.got if name == token]


@pytest.fixture
def clock():
    return Wrong()


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def client(clock, log):
    return MemoryClient(clock, received=log)


@pytest.fixture
async def delivery(client, clock):
    async with Delivery(client, clock=clock, close_timeout=0.0) as delivery:
        yield delivery


async def test_alerts_and_ends_go_with_the_last_timestamp_plus_one(
    delivery, clock, client, log, caplog
):
    match = delivery.activity("match", tokens=tokens(2))
    delivery.submit(state(1), TOKEN)
    match.put(state(1))
    await clock.advance(10)
    last = log.of(TOKEN)[-1][0]
    with caplog.at_level(logging.WARNING, "apns_live.delivery"):
        clock.error = -HALF_AN_HOUR
        silent = delivery.submit(state(2), TOKEN)
        match.put(state(2))
        await clock.advance(10)
        assert log.of(TOKEN)[1:] == [], "a silent update may wait"
        assert not silent.done()
        goal = delivery.submit(state(3, "goal"), TOKEN)
        match.put(state(3, "goal"))
        await clock.advance(1)
        assert goal.outcome.accepted
        assert silent.outcome.verdict is Verdict.SUPERSEDED
        delivery.submit(End(content_state={"n": 9}), TOKEN)
        end = match.end(End(content_state={"n": 9}))
        await clock.advance(5)
    assert log.of(TOKEN)[1:] == [(last + 1, 3), (last + 2, 9)]
    assert log.of(tokens(1)[0])[1:] == [(last + 1, 3), (last + 2, 9)]
    assert (await end).behind == 0
    assert sum("set back" in each.getMessage() for each in caplog.records) == 1


async def test_an_end_without_an_answer_is_stamped_anew_and_goes(delivery, clock, client, log):
    fates = [Fate(), Fate(delay=10.0, discarded_if_reset=True)]
    client.fate = lambda token, message, now: fates.pop(0) if fates else Fate()
    [token] = tokens(1)
    match = delivery.activity("match", tokens=[token])
    match.put(state(1))
    await clock.advance(5)
    clock.error = -HALF_AN_HOUR
    end = match.end(End(content_state={"n": 9}))
    await clock.advance(10)
    first = log.of(token)[0][0]
    assert log.of(token) == [(first, 1), (first + 2, 9)]
    assert (await end).ended


async def test_new_activities_are_stamped_by_the_clock(delivery, clock, log):
    delivery.submit(state(1), TOKEN)
    await clock.advance(2)
    clock.error = -HALF_AN_HOUR
    delivery.submit(state(1), OTHER)
    now = clock.time()
    await clock.advance(2)
    assert log.of(OTHER) == [(int(now), 1)]


@pytest.mark.parametrize("error", [-HALF_AN_HOUR, -7200.0, 7200.0])
async def test_waits_and_deadlines_are_those_that_were_asked_for(
    delivery, clock, client, log, error
):
    tries = []

    def fate(token, message, now):
        tries.append(clock.monotonic())
        return Fate(status=429, reason="TooManyRequests", retry_after=20.0)

    client.fate = fate
    ticket = delivery.submit(state(1, "goal"), TOKEN, deadline=60.0)
    late = delivery.submit_when_known(state(1), "user", deadline=60.0)
    await clock.advance(1)
    clock.error = error
    await clock.advance(30)
    assert not ticket.done()
    await clock.advance(27)
    assert not late.done()
    assert tries[1] - tries[0] == pytest.approx(20.0, abs=0.2)
    await clock.advance(10)
    assert ticket.outcome.verdict is late.outcome.verdict is Verdict.EXPIRED
    client.fate = lambda token, message, now: Fate()
    # What is said after the step lives as long as ever: its expiration is by the new clock.
    client.open = False
    later = delivery.submit(state(2, "goal"), OTHER)
    await clock.advance(600)
    assert not later.done()
    client.open = True
    client.wake()
    await clock.advance(1)
    assert later.outcome.accepted


async def test_a_journal_from_a_clock_that_was_ahead_freezes_nothing(client, clock, log, caplog):
    journal = MemoryJournal()
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        for n in range(8):
            delivery.submit(state(n, "goal"), TOKEN)
            await clock.advance(3)
        last = log.of(TOKEN)[-1][0]
    clock.error = -HALF_AN_HOUR
    async with Delivery(client, clock=clock, journal=journal, close_timeout=0.0) as delivery:
        end = delivery.submit(End(content_state={"n": 9}), TOKEN)
        await clock.advance(3)
    assert end.outcome.accepted
    assert log.of(TOKEN)[-1] == (last + 1, 9)
    assert sum("set back" in each.getMessage() for each in caplog.records) == 1


async def test_steady_time_follows_slow_corrections_and_ignores_steps(clock):
    steps: list[float] = []
    time = SteadyTime(clock, steps.append)
    start = time.now()
    for _ in range(10):
        await clock.advance(60)
        clock.error += 0.1  # slewed
        time.now()
    assert steps == []
    assert time.now() == pytest.approx(start + 601)
    clock.error -= 100
    assert time.now() == pytest.approx(start + 601)
    assert steps == [pytest.approx(-100)]
    assert time.wall() == pytest.approx(time.now() - 100)
