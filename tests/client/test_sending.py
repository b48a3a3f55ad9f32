"""What every sender sees, over both transports: acceptance, refusals, bad input."""

from __future__ import annotations

import asyncio
import collections
import re

import pytest

from apns_live import Alert, Background, End, Notification, Start, Update, Verdict
from apns_live.errors import ClientClosed, InvalidInput, InvalidToken
from apns_live.testing import FakeApns, SimulatedClock
from tests.client.conftest import client_for, token, tokens

pytestmark = pytest.mark.http
UPDATE = Update(content_state={"home": 71})
START = Start(
    content_state={"home": 0},
    attributes_type="MatchAttributes",
    attributes={"home": "A"},
    alert=Alert(title="Kick-off", body="A match begins"),
)


async def test_an_update_is_accepted_and_arrives_as_sent(fake: FakeApns, transport: str) -> None:
    async with client_for(fake, transport=transport) as client:
        outcome = await client.send(UPDATE, token(1))
    assert outcome.verdict is Verdict.ACCEPTED
    assert (outcome.status, outcome.attempts, outcome.token) == (200, 1, token(1))
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", outcome.apns_id
    )
    assert outcome.apns_unique_id
    (push,) = fake.pushes
    assert push.token == token(1)
    assert push.apns_id == outcome.apns_id
    assert push.topic == fake.bundle_id + ".push-type.liveactivity"
    assert push.push_type == "liveactivity"
    assert push.priority == outcome.priority == 5
    assert b'"content-state":{"home":71}' in push.body


@pytest.mark.parametrize(
    ("message", "topic_suffix", "push_type", "priority"),
    [
        (START, ".push-type.liveactivity", "liveactivity", 10),
        (End(content_state={"home": 3}), ".push-type.liveactivity", "liveactivity", 10),
        (Notification(title="Goal", body="1:0"), "", "alert", 10),
        (Background(custom={"sync": 1}), "", "background", 5),
    ],
    ids=["start", "end", "alert", "background"],
)
async def test_every_kind_of_message_has_its_headers(
    fake: FakeApns, transport: str, message, topic_suffix: str, push_type: str, priority: int
) -> None:
    async with client_for(fake, transport=transport) as client:
        outcome = await client.send(message, token(2))
    assert outcome.accepted
    (push,) = fake.pushes
    assert (push.topic, push.push_type, push.priority) == (
        fake.bundle_id + topic_suffix,
        push_type,
        priority,
    )


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("BadDeviceToken", Verdict.DROP_TOKEN),
        ("DeviceTokenNotForTopic", Verdict.DROP_TOKEN),
        ("BadCollapseId", Verdict.FIX_REQUEST),
        ("TopicDisallowed", Verdict.OPERATOR),
        ("InvalidProviderToken", Verdict.OPERATOR),
        ("BadEnvironmentKeyInToken", Verdict.OPERATOR),
        ("PayloadTooLarge", Verdict.FIX_REQUEST),
        ("MethodNotAllowed", Verdict.FIX_REQUEST),
    ],
)
async def test_a_refusal_has_the_verdict_of_its_reason(
    fake: FakeApns, transport: str, reason: str, verdict: Verdict
) -> None:
    fake.fault("answer", reason=reason)
    async with client_for(fake, transport=transport) as client:
        outcome = await client.send(UPDATE, token(3))
    assert (outcome.verdict, outcome.reason, outcome.attempts) == (verdict, reason, 1)
    assert outcome.detail
    assert outcome.check_environment == (reason == "BadDeviceToken")


async def test_a_410_says_until_when_the_token_was_dead(fake: FakeApns, transport: str) -> None:
    fake.fault("answer", reason="Unregistered", timestamp=1_800_000_000_500)
    async with client_for(fake, transport=transport) as client:
        outcome = await client.send(UPDATE, token(4))
    assert outcome.verdict is Verdict.DROP_TOKEN
    assert outcome.timestamp is not None
    assert outcome.timestamp.timestamp() == 1_800_000_000.5
    assert outcome.drop_if_registered_before == outcome.timestamp


async def test_a_thousand_concurrent_sends_all_arrive(
    timed_fake: FakeApns, clock: SimulatedClock, transport: str
) -> None:
    # On a machine that has no time for it, a thousand answers take longer than one may.
    async with client_for(timed_fake, transport=transport, clock=clock) as client:
        outcomes = await asyncio.gather(*(client.send(UPDATE, each) for each in tokens(1000)))
    assert all(outcome.accepted for outcome in outcomes)
    assert [outcome.token for outcome in outcomes] == tokens(1000)
    assert sorted(push.token for push in timed_fake.pushes) == tokens(1000)
    assert len({outcome.apns_id for outcome in outcomes}) == 1000


async def test_a_fan_out_gives_one_outcome_per_token(
    timed_fake: FakeApns, clock: SimulatedClock, transport: str
) -> None:
    timed_fake.fault("answer", reason="Unregistered", token=token(7), timestamp=1_800_000_000_000)
    async with (
        client_for(timed_fake, transport=transport, clock=clock) as client,
        client.fan_out(UPDATE, tokens(500)) as run,
    ):
        outcomes = []
        async for outcome in run:
            outcomes.append(outcome)
            clock.advance_sync(0.001)
    assert sorted(outcome.token for outcome in outcomes) == tokens(500)
    report = run.report
    assert report.read == report.settled == 500
    assert (report.accepted, report.drop_count) == (499, 1)
    assert [drop.token for drop in report.drops] == [token(7)]
    assert report.verdicts == {Verdict.ACCEPTED: 499, Verdict.DROP_TOKEN: 1}
    assert report.source_exhausted
    assert not report.deadline_passed
    assert 0 < report.p50 <= report.p95 <= report.p99 <= report.maximum


async def test_a_broadcast_reaches_its_channel(fake: FakeApns, transport: str) -> None:
    channel = fake.add_channel(storage_policy=1)
    async with client_for(fake, transport=transport) as client:
        outcome = await client.broadcast(UPDATE, channel.channel_id)
    assert outcome.verdict is Verdict.ACCEPTED
    assert outcome.token == channel.channel_id
    (push,) = fake.pushes
    assert push.channel_id == channel.channel_id


async def test_a_broadcast_to_an_unknown_channel_drops_it(fake: FakeApns, transport: str) -> None:
    async with client_for(fake, transport=transport) as client:
        outcome = await client.broadcast(UPDATE, "AAAAAAAAAAAAAAAAAAAAAA==")
    assert outcome.verdict is Verdict.DROP_CHANNEL


@pytest.mark.parametrize("bad", ["", "xyz", "ab c", "abc", "a\r\nb", "é"])
async def test_a_bad_token_is_refused_before_anything_is_sent(
    fake: FakeApns, transport: str, bad: str
) -> None:
    async with client_for(fake, transport=transport) as client:
        with pytest.raises(InvalidToken):
            await client.send(UPDATE, bad)
    assert not fake.pushes
    assert not fake.connections


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), "soon", True, 1.8e9])
async def test_a_bad_deadline_is_refused(fake: FakeApns, transport: str, deadline) -> None:
    async with client_for(fake, transport=transport) as client:
        with pytest.raises(InvalidInput, match="deadline"):
            await client.send(UPDATE, token(1), deadline=deadline)
    assert not fake.connections


async def test_a_closed_client_refuses(fake: FakeApns, transport: str) -> None:
    client = client_for(fake, transport=transport)
    await client.aclose()
    with pytest.raises(ClientClosed):
        await client.send(UPDATE, token(1))
    with pytest.raises(ClientClosed):
        client.fan_out(UPDATE, [])
    await client.aclose()
    assert client.is_closed()


async def test_statistics_add_up(fake: FakeApns, transport: str) -> None:
    fake.fault("answer", reason="BadDeviceToken", token=token(0))
    async with client_for(fake, transport=transport) as client:
        async with client.fan_out(UPDATE, tokens(20)) as run:
            counted = collections.Counter([outcome.verdict async for outcome in run])
        statistics = client.statistics()
    assert counted == {Verdict.ACCEPTED: 19, Verdict.DROP_TOKEN: 1}
    assert statistics.verdicts == counted
    assert statistics.reasons == {"BadDeviceToken": 1}
    assert statistics.transport == transport
    assert (statistics.waiting, statistics.in_flight, statistics.accepted) == (0, 0, 19)
    assert statistics.connections_opened == 1
