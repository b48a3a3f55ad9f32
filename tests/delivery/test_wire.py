"""Delivery over the real client and the fake, real sockets on simulated time."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from apns_live import Client, Endpoint, ProviderKey
from apns_live.delivery import Delivery
from apns_live.outcome import Verdict
from apns_live.payload import End
from apns_live.testing import FakeApns, SimulatedClock

from .test_delivery import state
from .test_live import tokens


async def pass_until(clock, condition, *, at_most=60.0):
    """Let simulated time pass slowly enough for real sockets: a connect takes real milliseconds."""
    give_up = clock.monotonic() + at_most
    while not condition():
        assert clock.monotonic() < give_up, "it did not come true in time"
        before = time.perf_counter()
        while not condition() and time.perf_counter() - before < 0.005:
            await asyncio.sleep(0)
        await clock.advance(0.05)


class Shown:
    """What the accepted pushes would show, in the order in which the fake accepted them."""

    def __init__(self, fake: FakeApns) -> None:
        self.history: dict[str, list[tuple[int, int]]] = {}
        receive = fake.state.phones.receive

        def watch(push):
            aps = json.loads(push.body)["aps"]
            self.history.setdefault(push.token, []).append(
                (aps["timestamp"], aps.get("content-state", {}).get("n", -1))
            )
            receive(push)

        fake.state.phones.receive = watch


@pytest.fixture
def clock():
    return SimulatedClock()


@pytest.fixture
async def fake(clock):
    async with FakeApns(clock=clock) as fake:
        yield fake


@pytest.fixture
async def delivery(fake, clock):
    key = ProviderKey.from_file(fake.key_file, team_id=fake.team_id)
    endpoint = Endpoint(**fake.endpoint._asdict())
    async with (
        Client(key, bundle_id=fake.bundle_id, environment=endpoint, clock=clock) as client,
        Delivery(client, close_timeout=0.0) as delivery,
    ):
        yield delivery


async def test_an_answer_that_does_not_come_is_reset_after_three_seconds(fake, delivery, clock):
    shown = Shown(fake)
    token = tokens(1)[0]
    first = delivery.submit(state(0), token)
    await clock.settle(until=first.done)
    await clock.advance(2)
    fake.fault("withhold", token=token, times=1)
    ticket = delivery.submit(state(1), token)
    await clock.settle(until=lambda: len(shown.history[token]) == 2)
    await clock.advance(2.9)
    assert not ticket.done()
    await pass_until(clock, ticket.done, at_most=2)
    assert ticket.outcome.verdict is Verdict.ACCEPTED
    assert ticket.outcome.attempts == 2
    (_, _), (before, one), (after, again) = shown.history[token]
    assert (one, again) == (1, 1)
    assert after > before


@pytest.mark.parametrize("how", ["goaway", "disconnect", "refuse_stream", "reset"])
async def test_a_live_activity_survives_connections_that_go_away(fake, delivery, clock, how):
    shown = Shown(fake)
    names = tokens(1500)
    fake.fault(how, every=400, times=12)
    match = delivery.activity("match", tokens=names)
    for n in range(1, 5):
        match.put(state(n))
        due = clock.monotonic() + 1
        await pass_until(clock, lambda due=due: clock.monotonic() >= due)
    await pass_until(clock, lambda: match.report.behind == 0, at_most=60)
    end = match.end(End(content_state={"n": 9}))
    await pass_until(clock, lambda: match.over, at_most=60)
    assert (await end).behind == 0
    for name in names:
        history = shown.history[name]
        assert history[-1][1] == 9
        states = [number for _, number in history]
        assert states == sorted(states)
        stamps = [stamp for stamp, _ in history]
        assert stamps == sorted(stamps)


async def test_expired_tokens_and_slow_ones_in_a_live_activity(fake, delivery, clock):
    shown = Shown(fake)
    names = tokens(400)
    dead, slow = names[0], names[1]
    fake.fault("answer", token=dead, status=410, reason="ExpiredToken")
    fake.fault("answer", token=slow, status=429, reason="TooManyRequests", lasting=8.0)
    match = delivery.activity("match", tokens=names)
    for n in range(1, 4):
        match.put(state(n))
        # Connecting and answering take the machine's time; the slow token is all that may wait.
        await clock.settle(until=lambda: match.report.behind == 1)
        await clock.advance(1)
    assert [outcome.token for outcome in match.report.problems] == [dead]
    assert match.report.behind == 1
    await pass_until(clock, lambda: match.report.behind == 0, at_most=60)
    assert [number for _, number in shown.history[slow]] == [3]
    assert dead not in shown.history
    assert delivery.statistics().outcomes[Verdict.SLOW_DOWN] >= 2
