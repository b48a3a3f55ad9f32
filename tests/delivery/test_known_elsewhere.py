"""Live activities whose tokens and results are kept by somebody else."""

from __future__ import annotations

import pytest

from apns_live.delivery import Delivery
from apns_live.outcome import Verdict
from apns_live.payload import Alert, End, Update
from apns_live.testing.clock import SimulatedClock

from .double import OK, Fate, MemoryClient
from .test_delivery import state
from .test_live import tokens


@pytest.fixture
def clock():
    return SimulatedClock()


class Server:
    """Answers by token; notes what it got."""

    def __init__(self):
        self.fates = {}
        self.got = []

    def __call__(self, token, message, now):
        self.got.append((token, message.encoded))
        return self.fates.get(token, OK)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
async def delivery(clock, server):
    client = MemoryClient(clock, fate=server)
    async with Delivery(client, clock=clock, close_timeout=0.0) as delivery:
        yield delivery


async def test_each_version_that_a_token_was_sent_is_told_once(delivery, clock, server):
    names = tokens(4)
    server.fates[names[1]] = Fate(status=410, reason="Unregistered")
    server.fates[names[2]] = Fate(status=400, reason="BadTopic", verdict=Verdict.FIX_REQUEST)
    server.fates[names[3]] = Fate(status=429, reason="TooManyRequests")
    told = []
    match = delivery.activity("match", tokens=names)
    places = dict(match.audience.index)
    match.on_decided = lambda place, version, outcome: told.append(
        (place, version, outcome.verdict)
    )
    match.put(state(1))
    await clock.advance(2)
    assert sorted(told, key=lambda one: one[0]) == [
        (places[names[0]], 1, Verdict.ACCEPTED),
        (places[names[1]], 1, Verdict.DROP_TOKEN),
        (places[names[2]], 1, Verdict.FIX_REQUEST),
    ]
    told.clear()
    match.put(state(2))
    await clock.advance(2)
    del server.fates[names[3]]
    await clock.advance(600)
    # The slow one skipped the first version, so nothing is told of that.
    assert (places[names[3]], 2, Verdict.ACCEPTED) in told
    assert {version for _, version, _ in told} == {2}


async def test_what_is_given_up_at_its_last_moment_is_told(delivery, clock, server):
    [name] = tokens(1)
    server.fates[name] = Fate(status=429, reason="TooManyRequests")
    told = []
    match = delivery.activity("match", tokens=[name])
    match.on_decided = lambda place, version, outcome: told.append((version, outcome.verdict))
    match.put(state(1), deadline=20.0)
    await clock.advance(60)
    assert told == [(1, Verdict.EXPIRED)]


async def test_a_token_that_has_the_newest_state_is_not_sent_it(delivery, clock, server):
    match = delivery.activity("match")
    match.put(Update(content_state={"n": 1}, alert=Alert(title="Goal")))
    current, behind, new = tokens(3)
    match.join(current, standing="current")
    match.join(behind, standing="behind")
    match.join(new)
    await clock.advance(1)
    assert match.report.behind == 0
    assert {token: encoded.has_alert for token, encoded in server.got} == {behind: True, new: False}
    match.put(state(2))
    await clock.advance(2)
    assert sorted(token for token, _ in server.got[2:]) == sorted([current, behind, new])


async def test_an_activity_is_let_go_of_only_when_nothing_is_under_way(delivery, clock, server):
    [name] = tokens(1)
    match = delivery.activity("match", tokens=[name])
    match.put(state(1))
    assert not delivery.let_go(match)
    assert delivery.owner(name) is match
    await clock.advance(1)
    assert delivery.let_go(match)
    assert delivery.owner(name) is None
    assert not delivery.let_go(match), "it is not there any more"
    again = delivery.activity("match", tokens=[name])
    assert again is not match
    again.end(End(content_state={"n": 2}))
    await clock.advance(5)
    assert server.got[-1][1].event == "end"


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_token_with_a_state_that_is_held_gets_only_a_newer_one(
    delivery, clock, server, replaced
):
    """Another process sent the state, whose timestamp is ahead; this one must hold its own."""
    current, behind = tokens(2)
    match = delivery.activity("match")
    match.lane.last_timestamp = int(clock.time()) + 2
    match.put(state(1))
    assert match.report.held
    match.join(current, standing="current")
    match.join(behind, standing="behind")
    if replaced:
        match.put(state(2))
    await clock.advance(5)
    assert sorted(token for token, _ in server.got) == sorted([behind, current][: 1 + replaced])
    assert match.idle
    match.put(state(3))
    await clock.advance(5)
    assert [token for token, _ in server.got].count(current) == 1 + replaced
