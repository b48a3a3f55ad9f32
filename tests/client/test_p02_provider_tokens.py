"""P2 and P3: provider tokens per connection, on the simulated clock; P22: one team each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apns_live import Client, Endpoint, ProviderKey, Update, Verdict
from apns_live.testing import FakeApns, SimulatedClock
from tests.client.conftest import client_for, token, tokens

pytestmark = pytest.mark.wire
UPDATE = Update(content_state={"home": 71})


@settings(max_examples=15)
@given(
    start=st.integers(0, 1500),
    second_opens_after=st.integers(0, 3300),
    interval=st.integers(30, 900),
)
def test_p2_no_connection_sees_two_tokens_within_20_minutes(
    fake_directory: Path, start: int, second_opens_after: int, interval: int
) -> None:
    """The fake answers 429 TooManyProviderTokenUpdates, or 403 for one too old: neither comes."""

    async def check() -> None:
        clock = SimulatedClock(1_800_000_000.0 + start)
        async with FakeApns(directory=fake_directory, clock=clock) as fake:
            first = client_for(fake, clock=clock)
            second = client_for(fake, clock=clock)
            end = clock.monotonic() + 3 * 3600
            opens_at = clock.monotonic() + second_opens_after
            async with first, second:
                while clock.monotonic() < end:
                    clients = [first] if clock.monotonic() < opens_at else [first, second]
                    for client in clients:
                        outcome = await client.send(UPDATE, token(1))
                        assert outcome.verdict is Verdict.ACCEPTED, outcome
                        assert outcome.attempts == 1
                    await clock.advance(interval)
                assert first.statistics().connections_opened == 1
                assert second.statistics().connections_opened == 1
            assert not fake.refusals

    asyncio.run(check())


async def test_p2_a_connection_opened_just_before_the_others_refresh(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    """Connection B starts with the current window's token and keeps it 50 minutes of its age."""
    async with client_for(timed_fake, clock=clock) as a, client_for(timed_fake, clock=clock) as b:
        assert (await a.send(UPDATE, token(1))).accepted
        (link,) = a.statistics().connections
        await clock.advance(3000 - link.provider_token_age - 1)
        assert (await b.send(UPDATE, token(1))).accepted
        assert (await a.send(UPDATE, token(1))).accepted
        await clock.advance(2)
        assert (await a.send(UPDATE, token(1))).accepted
        assert (await b.send(UPDATE, token(1))).accepted
        ages = [each.statistics().connections[0].provider_token_age for each in (a, b)]
        assert ages[0] == ages[1] < 1700
    assert not timed_fake.refusals


async def test_p2_too_many_updates_retires_the_link_and_tries_once(fake: FakeApns) -> None:
    fake.fault("answer", reason="TooManyProviderTokenUpdates", skip=1, times=1)
    async with client_for(fake) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        outcome = await client.send(UPDATE, token(1))
        assert (outcome.verdict, outcome.attempts) == (Verdict.ACCEPTED, 2)
        assert outcome.connection_id == 2


async def test_p2_too_many_updates_twice_is_reported(fake: FakeApns) -> None:
    fake.fault("answer", reason="TooManyProviderTokenUpdates")
    async with client_for(fake, uniform=lambda: 0.0) as client:
        outcome = await client.send(UPDATE, token(1))
    assert (outcome.verdict, outcome.attempts) == (Verdict.REFRESH_CREDENTIALS, 2)
    assert outcome.reason == "TooManyProviderTokenUpdates"


async def test_p3_an_expired_token_closes_the_link_and_is_replayed_with_the_current_one(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    async with client_for(timed_fake, clock=clock) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        # The server's patience is shorter than ours: 33 minutes instead of an hour.
        timed_fake.state.token_age = 2000
        await clock.advance(1000)
        outcome = await client.send(UPDATE, token(1))
        assert (outcome.verdict, outcome.attempts, outcome.connection_id) == (
            Verdict.ACCEPTED,
            2,
            2,
        )
        assert [refusal.reason for refusal in timed_fake.refusals] == ["ExpiredProviderToken"]
        await clock.settle(until=lambda: timed_fake.connections[0].state == "closed")
        assert [link.connection_id for link in client.statistics().connections] == [2]


async def test_p3_a_wrong_clock_is_the_operators_and_ends_in_no_loop(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    """The newest token is too old for the server: no replay, advice, and no reconnecting loop."""
    timed_fake.state.token_age = -1
    timed_fake.state.future_tolerance = 1e9
    timed_fake.fault("answer", reason="ExpiredProviderToken")
    async with client_for(timed_fake, clock=clock, uniform=lambda: 1.0) as client:
        outcome = await client.send(UPDATE, token(0))
        assert (outcome.verdict, outcome.attempts) == (Verdict.OPERATOR, 1)
        assert outcome.reason == "ExpiredProviderToken"
        assert "clock" in outcome.detail
        # While nothing would help, everything else is told the same at once.
        async with client.fan_out(UPDATE, tokens(5000)) as run:
            outcomes = [each async for each in run]
        assert len(outcomes) == 5000
        assert {each.verdict for each in outcomes} == {Verdict.OPERATOR}
        assert {each.reason for each in outcomes} == {"ExpiredProviderToken"}
        assert len(timed_fake.connections) == 1
        assert timed_fake.connections[0].state == "closed" or await _closes(timed_fake, clock)
        # Later it tries again, and when the clock is right all is well.
        timed_fake.faults.clear()
        timed_fake.state.token_age = 3600
        await clock.advance(61)
        assert (await client.send(UPDATE, token(0))).accepted


async def _closes(fake: FakeApns, clock: SimulatedClock) -> bool:
    await clock.settle(until=lambda: fake.connections[0].state == "closed")
    return True


async def test_p3_the_skew_is_named_when_the_server_tells_the_time(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault(
        "answer", reason="ExpiredProviderToken", headers={"date": "Fri, 15 Jan 2027 10:00:00 GMT"}
    )
    async with client_for(timed_fake, clock=clock) as client:
        outcome = await client.send(UPDATE, token(0))
    assert outcome.verdict is Verdict.OPERATOR
    assert "7200 s behind" in outcome.detail


async def test_p22_one_team_per_connection(fake: FakeApns) -> None:
    """Two teams are two clients, and so two pools; the server never sees both on a connection."""
    other = fake.add_key("KEYOFOTHER", team_id="OTHERTEAM1")
    fake.add_app("com.other.app", team_id="OTHERTEAM1")
    endpoint = Endpoint(**fake.endpoint._asdict())
    second_key = ProviderKey.from_file(other, key_id="KEYOFOTHER", team_id="OTHERTEAM1")
    async with (
        client_for(fake) as first,
        Client(second_key, bundle_id="com.other.app", environment=endpoint) as second,
    ):
        outcomes = await asyncio.gather(
            *(client.send(UPDATE, each) for each in tokens(20) for client in (first, second))
        )
        assert all(outcome.accepted for outcome in outcomes)
        seen = [(each.team_id, each.bound_key) for each in fake.connections]
    assert sorted(seen) == sorted([(fake.team_id, fake.key_id), ("OTHERTEAM1", "KEYOFOTHER")])
    assert not fake.refusals


async def test_p22_replacing_the_key_uses_new_connections_only(fake: FakeApns) -> None:
    other = fake.add_key("KEYNUMBER2", team_id=fake.team_id)
    key = ProviderKey.from_file(other, key_id="KEYNUMBER2", team_id=fake.team_id)
    fake.fault("delay", token=token(0), delay=0.02)
    async with client_for(fake) as client:
        assert (await client.send(UPDATE, token(5))).accepted
        slow = asyncio.ensure_future(client.send(UPDATE, token(0)))
        while not any(link.open_streams for link in client.statistics().connections):
            await asyncio.sleep(0)
        client.replace_key(key)
        outcome = await client.send(UPDATE, token(1))
        assert (await slow).accepted
        assert outcome.accepted
        assert {each.bound_key for each in fake.connections} == {fake.key_id, "KEYNUMBER2"}
    assert not fake.refusals


async def test_a_connection_of_another_key_is_left_once(fake: FakeApns) -> None:
    fake.fault("answer", reason="UnrelatedKeyIdInToken", times=1)
    async with client_for(fake, uniform=lambda: 0.0) as client:
        outcome = await client.send(UPDATE, token(1))
    assert (outcome.verdict, outcome.attempts, outcome.connection_id) == (Verdict.ACCEPTED, 2, 2)
