"""P4 to P9: stream limits, resets, silence, error bodies and windows, over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apns_live import Update, Verdict
from apns_live.http2 import Setting
from apns_live.testing import FakeApns, SimulatedClock
from tests.client.conftest import client_for, token, tokens
from tests.counts import count

pytestmark = pytest.mark.wire
UPDATE = Update(content_state={"home": 71})
ERROR_BODIES = count(25_000, soak=100_000)


async def test_p4_settings_1_1000_1_500_with_500_in_flight(
    fake_directory: Path, clock: SimulatedClock
) -> None:
    async with FakeApns(
        directory=fake_directory, clock=clock, latency=1.0, first_streams=1, max_streams=1000
    ) as fake:
        async with client_for(fake, clock=clock, max_connections=1) as client:
            warm = asyncio.ensure_future(client.send(UPDATE, token(0)))
            await clock.advance_until(warm.done)
            assert fake.connections[0].max_streams == 1000

            async def collect() -> list:
                async with client.fan_out(UPDATE, tokens(1500)) as run:
                    return [outcome async for outcome in run]

            task = asyncio.ensure_future(collect())
            await clock.settle(until=lambda: fake.connections[0].open_streams == 1000)
            fake.change_settings({Setting.MAX_CONCURRENT_STREAMS: 1})
            await clock.settle()
            await clock.advance(1.01)
            # The thousand are answered; from here one at a time.
            await clock.settle(until=lambda: fake.connections[0].open_streams == 1)
            await clock.advance(3.0)
            assert fake.connections[0].open_streams <= 1
            fake.change_settings({Setting.MAX_CONCURRENT_STREAMS: 500})
            await clock.advance_until(task.done)
            outcomes = task.result()
            assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
            assert {outcome.attempts for outcome in outcomes} == {1}
            assert len(outcomes) == 1500
            assert client.statistics().connections_opened == 1
        assert fake.connections[0].refused == 0


async def test_p4_nothing_starts_before_the_servers_settings(fake: FakeApns) -> None:
    """One stream is allowed at first: the second push leaves when the first was answered."""
    async with client_for(fake) as client:
        outcomes = await asyncio.gather(*(client.send(UPDATE, each) for each in tokens(50)))
        assert {outcome.attempts for outcome in outcomes} == {1}
        assert client.statistics().connections_opened == 1


async def test_p6_a_reset_stream_is_unknown_and_alone(fake: FakeApns) -> None:
    fake.fault("reset", token=token(3), error_code=2)
    async with client_for(fake) as client:
        async with client.fan_out(UPDATE, tokens(50)) as run:
            outcomes = {outcome.token: outcome async for outcome in run}
        assert client.statistics().connections_opened == 1
    lost = outcomes.pop(token(3))
    assert (lost.verdict, lost.reason, lost.may_have_been_sent) == (
        Verdict.UNKNOWN,
        "stream_reset",
        True,
    )
    assert len(outcomes) == 49
    assert {outcome.verdict for outcome in outcomes.values()} == {Verdict.ACCEPTED}


@pytest.mark.parametrize("action", ["withhold", "stall"])
async def test_p6_a_stream_without_an_answer_times_out_alone(
    timed_fake: FakeApns, clock: SimulatedClock, action: str
) -> None:
    timed_fake.fault(action, token=token(3))
    async with client_for(timed_fake, clock=clock) as client:
        outcomes = {}

        async def collect() -> None:
            async with client.fan_out(UPDATE, tokens(50)) as run:
                async for outcome in run:
                    outcomes[outcome.token] = outcome

        task = asyncio.ensure_future(collect())
        await clock.settle(until=lambda: len(outcomes) == 49)
        assert timed_fake.connections[0].open_streams == 1
        began = clock.monotonic()
        await clock.advance_until(task.done)
        assert 10.0 <= clock.monotonic() - began <= 10.5
        lost = outcomes[token(3)]
        assert (lost.verdict, lost.reason, lost.may_have_been_sent) == (
            Verdict.UNKNOWN,
            "response_timeout",
            True,
        )
        # The server saw RST_STREAM: its side of the stream is gone too, and the link lives on.
        await clock.settle(until=lambda: timed_fake.connections[0].open_streams == 0)
        assert (await client.send(UPDATE, token(4))).connection_id == 1


async def test_p6_each_source_has_its_own_timeout(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("withhold")
    async with client_for(timed_fake, clock=clock, response_timeout=2.0) as client:
        task = asyncio.ensure_future(client.send(UPDATE, token(1)))
        await clock.settle(until=lambda: client.statistics().in_flight)
        await clock.advance_until(task.done)
        assert task.result().reason == "response_timeout"
        assert clock.monotonic() <= 2.1
        assert task.result().elapsed == pytest.approx(2.0, abs=0.1)


async def test_p7_a_silent_peer_is_found_in_seconds(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    async with client_for(timed_fake, clock=clock) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        timed_fake.silence()
        lost = asyncio.ensure_future(client.send(UPDATE, token(1)))
        await clock.settle(until=lambda: client.statistics().in_flight)
        await clock.advance(3.1)
        # Suspected: a new push goes elsewhere while the old one still waits.
        other = await client.send(UPDATE, token(2))
        assert (other.verdict, other.connection_id) == (Verdict.ACCEPTED, 2)
        assert not lost.done()
        await clock.advance_until(lost.done)
        assert clock.monotonic() <= 8.2
        outcome = lost.result()
        assert (outcome.verdict, outcome.reason, outcome.may_have_been_sent) == (
            Verdict.UNKNOWN,
            "peer_silent",
            True,
        )
        assert [link.connection_id for link in client.statistics().connections] == [2]


async def test_p7_an_idle_link_is_probed_before_reuse(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    async with client_for(timed_fake, clock=clock) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        await clock.advance(61)
        timed_fake.silence()
        task = asyncio.ensure_future(client.send(UPDATE, token(1)))
        await clock.advance_until(task.done)
        outcome = task.result()
        assert (outcome.verdict, outcome.attempts, outcome.connection_id) == (
            Verdict.ACCEPTED,
            1,
            2,
        )
        await clock.advance(5)
        assert [link.connection_id for link in client.statistics().connections] == [2]


async def test_p7_idle_links_are_pinged_hourly_and_not_more(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    async with client_for(timed_fake, clock=clock) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        timed_fake.silence()
        await clock.advance(3599)
        assert client.statistics().connections
        await clock.advance(7)
        assert not client.statistics().connections


async def test_p8_many_error_bodies_on_one_connection(fake: FakeApns) -> None:
    fake.fault("answer", reason="BadDeviceToken")
    async with client_for(fake) as client:
        report = await client.fan_out(UPDATE, (token(n) for n in range(ERROR_BODIES))).wait()
        statistics = client.statistics()
    assert report.verdicts == {Verdict.DROP_TOKEN: ERROR_BODIES}
    assert (report.drop_count, len(report.drops)) == (ERROR_BODIES, 1000)
    assert statistics.connections_opened == 1
    assert statistics.connections[0].answered == ERROR_BODIES


async def test_p9_an_exhausted_window_makes_pushes_wait_whole(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("slow_window", window=65_535, rate=10_000, times=1)
    big = Update(content_state={"pad": "x" * 3000})
    async with client_for(timed_fake, clock=clock, max_connections=1) as client:
        task = asyncio.ensure_future(client.fan_out(big, tokens(100)).wait())
        await clock.settle(until=lambda: len(timed_fake.pushes) >= 15)
        await clock.settle(50)
        size = len(timed_fake.pushes[0].body)
        # As many whole pushes as the connection's window holds, and no HEADERS without its body.
        assert len(timed_fake.pushes) == 65_535 // size
        assert timed_fake.connections[0].open_streams == 0
        await clock.advance(5)
        assert timed_fake.connections[0].open_streams == 0
        assert len(timed_fake.pushes) > 65_535 // size
        await clock.advance_until(task.done)
        assert task.result().accepted == 100
        assert {len(push.body) for push in timed_fake.pushes} == {size}


async def test_p9_another_connection_does_not_stall(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("slow_window", window=65_535, rate=0.0, times=1)
    big = Update(content_state={"pad": "x" * 3000})
    async with client_for(timed_fake, clock=clock, max_connections=2) as client:
        task = asyncio.ensure_future(client.fan_out(big, tokens(100)).wait())
        await clock.settle(until=lambda: len(timed_fake.pushes) >= 15)
        await clock.advance_until(task.done, at_most=30, step=0.1)
        assert task.result().accepted == 100
        assert clock.monotonic() < 5
        assert client.statistics().connections_opened == 2
