"""P1: GOAWAY while pushes are in flight: what was served finishes, the rest leaves once more."""

from __future__ import annotations

import asyncio
import collections
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live import Update, Verdict
from apns_live.testing import FakeApns
from tests.client.conftest import client_for, token, tokens

pytestmark = pytest.mark.wire
UPDATE = Update(content_state={"home": 71})


async def test_p1_goaway_in_the_middle_loses_and_doubles_nothing(fake: FakeApns) -> None:
    fake.fault("goaway", skip=120, times=1, reason="Shutdown")
    async with client_for(fake, max_connections=1) as client:
        async with client.fan_out(UPDATE, tokens(400)) as run:
            outcomes = [outcome async for outcome in run]
        statistics = client.statistics()
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
    assert sorted(outcome.token for outcome in outcomes) == tokens(400)
    assert sorted(push.token for push in fake.pushes) == tokens(400)
    assert statistics.replays > 0
    assert statistics.connections_opened == 2
    again = [outcome for outcome in outcomes if outcome.attempts == 2]
    assert len(again) == statistics.replays
    assert {outcome.connection_id for outcome in again} == {2}


async def test_p1_a_replayed_push_keeps_its_apns_id(fake: FakeApns) -> None:
    fake.fault("goaway", times=1, reason=None, processed=False)
    async with client_for(fake, uniform=lambda: 0.0) as client:
        outcome = await client.send(UPDATE, token(1))
    assert (outcome.verdict, outcome.attempts) == (Verdict.ACCEPTED, 2)
    (push,) = fake.pushes
    assert push.apns_id == outcome.apns_id


async def test_p1_what_was_served_before_goaway_is_answered_on_the_old_connection(
    fake: FakeApns,
) -> None:
    fake.fault("delay", delay=0.05, token=token(0))
    async with client_for(fake) as client:
        assert (await client.send(UPDATE, token(9))).accepted
        first = asyncio.ensure_future(client.send(UPDATE, token(0)))
        while not any(link.open_streams for link in client.statistics().connections):
            await asyncio.sleep(0)
        while len(fake.connections) != 1 or fake.connections[0].open_streams != 1:
            await asyncio.sleep(0)
        fake.go_away("Shutdown")
        while client.statistics().connections[0].state != "draining":
            await asyncio.sleep(0)
        second = await client.send(UPDATE, token(1))
        outcome = await first
    assert (outcome.verdict, outcome.attempts, outcome.connection_id) == (Verdict.ACCEPTED, 1, 1)
    assert (second.verdict, second.attempts, second.connection_id) == (Verdict.ACCEPTED, 1, 2)


@given(
    count=st.integers(1, 250),
    points=st.lists(
        st.tuples(st.integers(0, 300), st.booleans(), st.sampled_from(["Shutdown", None])),
        max_size=6,
    ),
    connections=st.integers(1, 3),
    streams=st.sampled_from([1, 2, 50, 1000]),
)
def test_p1_random_goaways_lose_and_double_nothing(
    fake_directory: Path,
    count: int,
    points: list[tuple[int, bool, str | None]],
    connections: int,
    streams: int,
) -> None:
    async def check() -> None:
        async with FakeApns(directory=fake_directory, max_streams=streams) as fake:
            for skip, processed, reason in points:
                fake.fault("goaway", skip=skip, times=1, processed=processed, reason=reason)
            async with client_for(fake, max_connections=connections, uniform=lambda: 0.0) as client:
                async with client.fan_out(UPDATE, tokens(count)) as run:
                    outcomes = [outcome async for outcome in run]
                assert client.statistics().in_flight == client.statistics().waiting == 0
            assert collections.Counter(outcome.verdict for outcome in outcomes) == {
                Verdict.ACCEPTED: count
            }
            assert sorted(outcome.token for outcome in outcomes) == tokens(count)
            assert sorted(push.token for push in fake.pushes) == tokens(count)

    asyncio.run(check())
