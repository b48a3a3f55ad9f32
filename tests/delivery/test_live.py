"""Live fan-out: one state per version, a cursor per token; joining, leaving, alerts, spikes."""

from __future__ import annotations

import json
import tracemalloc
from datetime import timedelta

import pytest

from apns_live.delivery import Delivery, SpikeGuard
from apns_live.delivery.audience import Audience
from apns_live.errors import ActivityEnded, InvalidInput, InvalidToken
from apns_live.outcome import Outcome, Verdict
from apns_live.payload import End, StartToken
from apns_live.testing.clock import SimulatedClock

from .double import OK, Fate, MemoryClient
from .test_delivery import Phone, state


def tokens(count: int) -> list[str]:
    return [f"{n:064x}" for n in range(count)]


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
async def delivery(client, clock):
    async with Delivery(client, clock=clock, close_timeout=0.0) as delivery:
        yield delivery


async def test_one_state_reaches_all_and_is_encoded_once(delivery, clock, phone, client):
    prepared = []
    prepare = client.prepare
    client.prepare = lambda encoded: prepared.append(1) or prepare(encoded)
    match = delivery.activity("match", tokens=tokens(3000))
    version = match.put(state(1))
    await clock.advance(1)
    report = await version
    assert report.counts[Verdict.ACCEPTED] == 3000
    assert (report.behind, report.version, report.tokens) == (0, 1, 3000)
    assert version.number == 1
    assert len(prepared) == 1
    assert {history[-1] for history in phone.history.values()} == {1}


async def test_tokens_not_yet_served_get_only_the_newest(delivery, clock, phone, client):
    client.room = 100  # 100 in flight, 80 ms each: 1,250 a second for 2,000 tokens
    match = delivery.activity("match", tokens=tokens(2000))
    for n in range(10):
        match.put(state(n))
        await clock.advance(1)
    await clock.advance(3)
    assert {history[-1] for history in phone.history.values()} == {9}
    assert client.sent < 2000 * 8
    assert client.overtaken == []
    # Nobody starves: everybody was served again and again, none much less than the others.
    counts = sorted(len(history) for history in phone.history.values())
    assert counts[0] >= 5
    assert counts[-1] - counts[0] <= 2


async def test_joining_gets_the_newest_state_without_the_old_alert(delivery, clock, phone):
    match = delivery.activity("match", tokens=["aa" * 32])
    match.put(state(1))
    await clock.advance(1)
    match.put(state(2, "goal"))
    await clock.advance(1)
    assert match.join("bb" * 32)
    assert not match.join("bb" * 32)
    await clock.advance(1)
    assert phone.history["bb" * 32] == [2]
    assert phone.alerts.get("bb" * 32) is None
    assert phone.alerts["aa" * 32] == ["goal"]
    match.put(state(3, "second"))
    await clock.advance(1)
    assert phone.alerts["bb" * 32] == ["second"]


async def test_leaving_ends_the_pushes_even_with_one_in_flight(delivery, clock, phone, client):
    client.fate = lambda token, message, now: Fate(delay=1.0)
    match = delivery.activity("match", tokens=tokens(3))
    match.put(state(1))
    await clock.advance(0.5)
    assert match.leave(tokens(1)[0])
    assert not match.leave(tokens(1)[0])
    match.put(state(2))
    await clock.advance(5)
    assert phone.history[tokens(1)[0]] == [1]
    assert phone.history[tokens(2)[1]] == [1, 2]
    assert match.report.tokens == 2
    assert match.report.behind == 0
    # The token is free for other uses again.
    other = delivery.activity("other", tokens=[tokens(1)[0]])
    other.put(state(7))
    await clock.advance(2)
    assert phone.history[tokens(1)[0]] == [1, 7]


async def test_leaving_and_joining_again_while_in_flight(delivery, clock, phone, client):
    client.fate = lambda token, message, now: Fate(delay=1.0)
    token = "aa" * 32
    match = delivery.activity("match", tokens=[token])
    match.put(state(1))
    await clock.advance(0.5)
    match.leave(token)
    match.join(token)
    match.put(state(2))
    await clock.advance(5)
    assert phone.history[token] == [1, 2]
    assert match.report.behind == 0
    with pytest.raises(InvalidInput, match="belongs to the activity"):
        delivery.activity("other", tokens=[token])


async def test_an_alert_reaches_those_who_missed_its_version(delivery, clock, phone, client):
    client.room = 100
    match = delivery.activity("match", tokens=tokens(1000))
    match.put(state(1))
    await clock.advance(2)
    match.put(state(2, "goal"))
    await clock.advance(0.3)
    assert 0 < sum("goal" in rung for rung in phone.alerts.values()) < 1000
    match.put(state(3))
    await clock.advance(3)
    assert {history[-1] for history in phone.history.values()} == {3}
    assert all(phone.alerts[token] == ["goal"] for token in tokens(1000))
    with_alert = [token for token in tokens(1000) if 2 not in phone.history[token]]
    assert with_alert
    assert all(phone.priorities[token][-1] == 10 for token in with_alert)


async def test_end_is_last_and_the_activity_is_forgotten(delivery, clock, phone):
    match = delivery.activity("match", tokens=tokens(10))
    match.put(state(1))
    await clock.advance(1)
    end = match.end(End(content_state={"n": 9}))
    with pytest.raises(ActivityEnded):
        match.put(state(2))
    await clock.advance(1)
    report = await end
    assert report.ended
    assert report.behind == 0
    assert all(events == ["update", "end"] for events in phone.events.values())
    statistics = delivery.statistics()
    assert (statistics.activities, statistics.activity_tokens) == (0, 0)
    assert statistics.submitted == 2


async def test_end_goes_on_until_every_living_token_has_it(delivery, clock, phone, client):
    start = clock.time()

    def fate(token, message, now):
        if now < start + 30 and token == tokens(1)[0]:
            return Fate(delay=10.0)
        return OK

    client.fate = fate
    match = delivery.activity("match", tokens=tokens(3))
    match.put(state(1))
    await clock.advance(1)
    end = match.end(End(content_state={"n": 9}))
    await clock.advance(90)
    assert (await end).behind == 0
    assert phone.history[tokens(1)[0]] == [9]


async def test_expired_tokens_are_reported_once_and_not_asked_again(clock, phone):
    dead = set(tokens(50)[::7])
    asked: dict[str, int] = {}
    problems = []

    def fate(token, message, now):
        asked[token] = asked.get(token, 0) + 1
        return Fate(status=410, reason="ExpiredToken") if token in dead else OK

    client = MemoryClient(clock, fate=fate, received=phone)
    async with Delivery(
        client, clock=clock, on_problem=problems.append, close_timeout=0.0
    ) as delivery:
        match = delivery.activity("match", tokens=tokens(50))
        for n in range(5):
            match.put(state(n))
            await clock.advance(1)
        assert sorted(outcome.token for outcome in problems) == sorted(dead)
        assert {outcome.verdict for outcome in problems} == {Verdict.DROP_TOKEN}
        assert all(asked[token] == 1 for token in dead)
        assert match.report.tokens == 50 - len(dead)
        assert [outcome.token for outcome in match.report.problems] == [
            outcome.token for outcome in problems
        ]


async def test_a_spike_of_bad_tokens_stops_the_fan_out_with_an_explanation(delivery, clock, client):
    client.room = 100
    client.fate = lambda token, message, now: Fate(status=400, reason="BadDeviceToken")
    match = delivery.activity("match", tokens=tokens(5000))
    version = match.put(state(1))
    await clock.advance(2)
    report = await version
    assert "BadDeviceToken" in report.stopped
    assert "environment" in report.stopped
    assert client.sent <= 200
    client.fate = lambda token, message, now: OK
    match.resume()
    await clock.advance(8)
    assert match.report.behind == 0
    assert not match.report.stopped


async def test_a_few_bad_tokens_stop_nothing(delivery, clock, client):
    client.fate = lambda token, message, now: (
        Fate(status=400, reason="BadDeviceToken") if int(token, 16) % 10 == 0 else OK
    )
    match = delivery.activity("match", tokens=tokens(3000))
    match.put(state(1))
    await clock.advance(2)
    assert not match.report.stopped
    assert match.report.tokens == 2700


def test_the_guard_also_stops_when_credentials_are_refused():
    guard = SpikeGuard(least=10)
    refused = Outcome(
        token="aa", verdict=Verdict.OPERATOR, status=403, reason="InvalidProviderToken"
    )

    def judged(accepted: int = 0) -> bool:
        return guard.judge(accepted, [refused])

    assert [judged() for _ in range(10)] == [False] * 9 + [True]
    assert "InvalidProviderToken" in guard.stopped
    guard.reset()
    assert not any(judged(accepted=1) for _ in range(30))


async def test_expired_states_are_given_up(delivery, clock, client):
    client.fate = lambda token, message, now: Fate(status=503, reason="ServiceUnavailable")
    match = delivery.activity("match", tokens=tokens(5))
    version = match.put(state(1, expiration=clock.time() + 5))
    await clock.advance(10)
    report = await version
    assert report.counts[Verdict.EXPIRED] == 5
    assert {p.verdict for p in report.problems} == {Verdict.EXPIRED}
    assert len(report.problems) == 5
    assert report.behind == 0


@pytest.mark.parametrize("given", [{}, {"expiration": timedelta(hours=1)}])
async def test_a_late_joiner_gets_a_state_whose_length_of_life_has_passed(
    delivery, clock, phone, given
):
    match = delivery.activity("match", tokens=["aa" * 32])
    match.put(state(1, **given))
    await clock.advance(7200)
    match.join("bb" * 32)
    await clock.advance(1)
    assert phone.history["bb" * 32] == [1]


async def test_revisions_held_states_and_minimum_interval(delivery, clock, phone):
    match = delivery.activity("match", tokens=tokens(2), minimum_interval=10.0)
    match.put(state(1), revision=1)
    held = match.put(state(2), revision=2)
    assert held.number is None
    assert match.report.held
    newer = match.put(state(3), revision=3)
    assert held.outcome.verdict is Verdict.SUPERSEDED
    older = match.put(state(1), revision=1)
    assert older.outcome.verdict is Verdict.SUPERSEDED
    await clock.advance(5)
    assert phone.history[tokens(1)[0]] == [1]
    await clock.advance(10)
    assert phone.history[tokens(1)[0]] == [1, 3]
    assert newer.number == 2


async def test_no_answer_gets_the_newest_with_a_newer_timestamp(delivery, clock, phone, client):
    stamps: dict[str, list[int]] = {}
    silent = tokens(1)[0]

    def fate(token, message, now):
        stamps.setdefault(token, []).append(json.loads(message.body)["aps"]["timestamp"])
        return Fate(delay=10.0) if token == silent and len(stamps[token]) == 1 else OK

    client.fate = fate
    match = delivery.activity("match", tokens=tokens(3))
    match.put(state(1))
    await clock.advance(10)
    assert len(stamps[silent]) == 2
    assert stamps[silent][1] > stamps[silent][0]
    assert phone.history[silent] == [1]
    assert match.report.behind == 0


async def test_frequent_pushes_off_is_respected_in_an_activity(client, clock, phone):
    async with Delivery(client, clock=clock, budget="frequent", close_timeout=0.0) as delivery:
        match = delivery.activity("match", tokens=tokens(2))
        match.frequent_pushes(tokens(2)[1], False)
        for n in range(25):
            match.put(state(n))
            await clock.advance(20)
        fast, slow = (phone.priorities[token] for token in tokens(2))
        assert fast.count(10) > 15
        assert slow.count(10) < 6


async def test_a_lane_ends_when_its_token_joins_and_its_timestamps_are_kept(delivery, clock, phone):
    token = "aa" * 32
    delivery.submit(state(1), token)
    await clock.advance(0.2)
    delivery.submit(state(2), token)
    await clock.advance(0.2)
    match = delivery.activity("match")
    match.put(state(3))
    match.join(token)
    await clock.advance(3)
    assert phone.history[token] == [1, 2, 3]


def test_memory_is_per_token_and_small():
    names = tokens(20_000)
    tracemalloc.start()
    audience = Audience()
    for token in names:
        audience.join(token)
    size = tracemalloc.get_traced_memory()[0]
    for _ in range(5):
        audience.publish()
        while places := audience.pick(1000):
            for place in places:
                audience.accepted(place, audience.newest)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size < 256 * len(names)
    assert after - size < 10 * len(names)
    assert audience.behind == 0


async def test_what_it_remembers_of_times_does_not_grow_with_what_it_sends(delivery, clock, phone):
    matches = [delivery.activity(f"match {n}", tokens=[f"{n:064x}"]) for n in range(20)]
    for n in range(200):
        for match in matches:
            match.put(state(n))
        await clock.advance(0.5)
    await clock.advance(5)
    assert {history[-1] for history in phone.history.values()} == {199}
    assert len(delivery._dispatch._alarms) <= len(matches) + 1


def test_a_guard_is_small_however_its_answers_come():
    guard = SpikeGuard(window=500)
    for _ in range(10_000):
        assert not guard.judge(1)
    assert len(guard._blocks) <= 51
    assert 500 <= guard._seen[0] <= 520
    bad = Outcome(token="ab", verdict=Verdict.DROP_TOKEN, status=400, reason="BadDeviceToken")
    for _ in range(200):
        if guard.judge(1, [bad]):
            break
    assert "BadDeviceToken" in guard.stopped


async def test_a_start_token_cannot_join(delivery):
    match = delivery.activity("match")
    with pytest.raises(InvalidToken, match="StartToken"):
        match.join(StartToken("ab" * 32))
    assert delivery.owner("ab" * 32) is None
