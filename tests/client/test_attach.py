"""Sources of work of other rooms: the contract of `WorkSource` and `Client.attach`."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from apns_live import Update, Verdict
from apns_live.client import Acceptances, Alike, WorkItem
from apns_live.payload import encode
from apns_live.testing import FakeApns, SimulatedClock
from tests.client.conftest import client_for, token, tokens

pytestmark = pytest.mark.wire
UPDATE = Update(content_state={"home": 71})


class Source:
    """Gives out what it was given; keeps what came back, batch by batch."""

    def __init__(self) -> None:
        self.waiting: deque[WorkItem] = deque()
        self.batches: list[list] = []
        self.asked = 0

    def take(self, limit: int) -> list[WorkItem]:
        self.asked += 1
        return [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]

    def settled(self, outcomes) -> None:
        self.batches.append(list(outcomes))

    @property
    def outcomes(self) -> dict[str, object]:
        return {item.token: outcome for batch in self.batches for item, outcome in batch}


class Groups(Source):
    """Gives out groups of pushes, each with one message."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: deque[Alike] = deque()
        self.accepted_ids: dict[str, str] = {}
        self.priorities: set[int] = set()

    def take(self, limit: int) -> Alike | None:
        if not self.groups:
            return None
        message, all_tokens, apns_ids = self.groups.popleft()
        if len(all_tokens) > limit:
            self.groups.appendleft(Alike(message, all_tokens[limit:], apns_ids[limit:]))
        return Alike(message, all_tokens[:limit], apns_ids[:limit])

    def accepted(self, batches: list[Acceptances]) -> None:
        for batch in batches:
            assert len(batch.tokens) == len(batch.apns_ids) == len(batch.outcomes())
            assert not self.accepted_ids.keys() & set(batch.tokens)
            self.accepted_ids.update(zip(batch.tokens, batch.apns_ids, strict=True))
            self.priorities.add(batch.like.priority)


def chosen_id(number: int) -> str:
    return f"0a0b0c0d-0000-8000-9000-{number:012x}"


async def until(condition) -> None:
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come true")


async def test_items_come_back_once_with_their_context_in_batches(fake: FakeApns) -> None:
    source = Source()
    async with client_for(fake) as client:
        message = client.prepare(encode(UPDATE, now=client.clock.time()))
        attachment = client.attach(source)
        await until(lambda: attachment.idle)
        assert not client.statistics().connections  # no work, no connection
        source.waiting.extend(WorkItem(each, message, context=each.upper()) for each in tokens(900))
        attachment.wake()
        await until(lambda: len(source.outcomes) == 900)
        assert attachment.in_hand == 0
        attachment.detach()
    items = [item for batch in source.batches for item, _ in batch]
    assert len(items) == len(set(map(id, items))) == 900
    assert all(item.context == item.token.upper() for item in items)
    assert all(outcome.accepted for outcome in source.outcomes.values())
    assert len(source.batches) < 300
    assert sorted(push.token for push in fake.pushes) == tokens(900)


async def test_a_request_id_may_be_chosen_before(fake: FakeApns) -> None:
    source = Source()
    chosen = "0a0b0c0d-0000-4000-8000-00000000002a"
    async with client_for(fake) as client:
        message = client.prepare(encode(UPDATE, now=client.clock.time()))
        source.waiting.append(WorkItem(token(1), message, request_id=chosen))
        client.attach(source)
        await until(lambda: source.outcomes)
    assert fake.pushes[0].apns_id == source.outcomes[token(1)].apns_id == chosen


async def test_pushes_in_groups_keep_their_ids_and_are_accepted_in_batches(fake: FakeApns) -> None:
    source, other = Groups(), Source()
    numbers = range(600)
    fake.fault("answer", token=token(7), reason="BadDeviceToken", status=400)
    async with client_for(fake) as client:
        now = client.clock.time()
        loud, quiet = (
            client.prepare(encode(Update(content_state={"home": 71}, priority=each), now=now))
            for each in (10, 5)
        )
        chosen = [chosen_id(number) for number in numbers]
        source.groups.append(Alike(loud, tokens(600)[:400], chosen[:400]))
        source.groups.append(Alike(quiet, tokens(600)[400:], chosen[400:]))
        other.waiting.extend(WorkItem(token(number), loud) for number in range(1000, 1100))
        client.attach(other)  # it shares the connections with the groups
        attachment = client.attach(source, alike=True, tokens_checked=True)
        await until(lambda: len(other.outcomes) == 100)
        await until(lambda: len(source.accepted_ids) + len(source.outcomes) == 600)
        assert attachment.in_hand == 0
    # Each push comes back once: accepted in a batch, refused by itself.
    [refused] = source.outcomes.values()
    assert (refused.token, refused.verdict) == (token(7), Verdict.DROP_TOKEN)
    wanted = {token(number): chosen_id(number) for number in numbers}
    assert refused.apns_id == wanted.pop(token(7))
    assert source.accepted_ids == wanted
    assert source.priorities == {10, 5}
    sent = {push.token: push.apns_id for push in fake.pushes}
    assert {one: sent[one] for one in wanted} == wanted
    assert all(outcome.accepted for outcome in other.outcomes.values())


async def test_a_batch_whose_first_push_waited_stays_in_batches(fake: FakeApns) -> None:
    source = Groups()
    async with client_for(fake) as client:
        message = client.prepare(encode(UPDATE, now=client.clock.time()))
        attachment = client.attach(source, alike=True)
        pushes = [WorkItem(each, message, owner=attachment, sent_at=9.0) for each in tokens(9)]
        pushes[0].created = 1.0  # the pool looked at it before it had a connection
        attachment.in_hand = 9
        client._engine._intake.accepted(1, pushes, (), 9.5, client._engine.counters)
        client._engine._flush()
    assert len(source.accepted_ids) == 9
    assert not source.outcomes


async def test_a_group_without_ids_gets_them_and_its_tokens_are_checked(fake: FakeApns) -> None:
    source = Groups()
    async with client_for(fake) as client:
        message = client.prepare(encode(UPDATE, now=client.clock.time()))
        source.groups.append(Alike(message, [token(1), "no token", token(2)]))
        client.attach(source, alike=True)
        await until(lambda: len(source.accepted_ids) + len(source.outcomes) == 3)
    assert source.outcomes["no token"].verdict is Verdict.FIX_REQUEST
    assert source.accepted_ids == {push.token: push.apns_id for push in fake.pushes}
    assert len(set(source.accepted_ids.values())) == 2


async def test_a_group_waits_for_a_retry_and_is_withdrawn_like_other_pushes(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("answer", token=token(3), reason="TooManyRequests", status=429)
    source = Groups()
    async with client_for(timed_fake, clock=clock) as client:
        message = client.prepare(encode(UPDATE, now=clock.time()))
        ids = [chosen_id(number) for number in range(5)]
        source.groups.append(Alike(message, tokens(5), ids))
        attachment = client.attach(source, alike=True, tokens_checked=True)
        await clock.settle(until=lambda: len(source.accepted_ids) == 4)
        assert attachment.in_hand == attachment.held == 1
        attachment.cancel_waiting()
        outcome = source.outcomes[token(3)]
        assert (outcome.verdict, outcome.apns_id) == (Verdict.NOT_SENT, chosen_id(3))
        assert attachment.in_hand == 0


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("TooManyRequests", Verdict.SLOW_DOWN),
        ("ServiceUnavailable", Verdict.RETRY_LATER),
        ("InternalServerError", Verdict.RETRY_LATER),
        ("Shutdown", Verdict.RETRY_LATER),
    ],
)
async def test_without_retry_the_source_decides(
    timed_fake: FakeApns, clock: SimulatedClock, reason: str, verdict: Verdict
) -> None:
    timed_fake.fault("answer", reason=reason)
    source = Source()
    async with client_for(timed_fake, clock=clock) as client:
        message = client.prepare(encode(UPDATE, now=clock.time()))
        source.waiting.append(WorkItem(token(1), message))
        client.attach(source, retry=False)
        await clock.settle(until=lambda: source.outcomes)
        outcome = source.outcomes[token(1)]
        assert (outcome.verdict, outcome.attempts) == (verdict, 1)
        assert outcome.retry_at >= clock.time()


async def test_without_retry_what_was_not_processed_is_still_replayed(fake: FakeApns) -> None:
    fake.fault("goaway", skip=20, times=1, reason=None, processed=False)
    source = Source()
    async with client_for(fake) as client:
        message = client.prepare(encode(UPDATE, now=client.clock.time()))
        source.waiting.extend(WorkItem(each, message) for each in tokens(100))
        client.attach(source, retry=False)
        await until(lambda: len(source.outcomes) == 100)
    assert all(outcome.accepted for outcome in source.outcomes.values())


async def test_a_source_has_its_own_response_timeout_and_can_cancel(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("withhold", skip=1)
    source = Source()
    async with client_for(timed_fake, clock=clock, max_connections=1) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        message = client.prepare(encode(UPDATE, now=clock.time()))
        items = [WorkItem(each, message) for each in tokens(1003)]
        source.waiting.extend(items)
        attachment = client.attach(source, response_timeout=3.0)
        await clock.settle(until=lambda: client.statistics().in_flight == 1000)
        assert attachment.cancel(items[5])
        assert not attachment.cancel(items[5])
        assert source.outcomes[token(5)].verdict is Verdict.UNKNOWN
        assert source.outcomes[token(5)].reason == "cancelled"
        assert attachment.cancel(items[1001]) == (items[1001].state != 0)
        await clock.advance(3.1)
        await clock.settle(until=lambda: len(source.outcomes) >= 1000)
        reasons = [outcome.reason for outcome in source.outcomes.values()]
        assert reasons.count("response_timeout") >= 999
        assert clock.monotonic() < 4
        await client.aclose(drain=0)


async def test_a_source_that_raises_harms_nobody_else(fake: FakeApns) -> None:
    complaints: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    class Broken(Source):
        def take(self, limit: int) -> list[WorkItem]:
            raise RuntimeError("take")

    class BrokenLater(Source):
        def settled(self, outcomes) -> None:
            raise RuntimeError("settled")

    async with client_for(fake) as client:
        message = client.prepare(encode(UPDATE, now=client.clock.time()))
        later = BrokenLater()
        later.waiting.append(WorkItem(token(1), message))
        client.attach(Broken())
        attachment = client.attach(later)
        assert (await client.send(UPDATE, token(2))).accepted
        await until(lambda: len(complaints) == 2)
        assert attachment.in_hand == 0
    assert sorted(str(context["exception"]) for context in complaints) == ["settled", "take"]


async def test_sources_share_the_streams_evenly(fake: FakeApns) -> None:
    sources = [Source(), Source(), Source()]
    async with client_for(fake, max_connections=1) as client:
        message = client.prepare(encode(UPDATE, now=client.clock.time()))
        for number, source in enumerate(sources):
            source.waiting.extend(
                WorkItem(token(1000 * number + each), message) for each in range(600)
            )
            client.attach(source)
        await until(lambda: sum(len(source.outcomes) for source in sources) == 1800)
    half = [int(push.token, 16) // 1000 for push in list(fake.pushes)[:900]]
    assert all(200 <= half.count(number) <= 400 for number in range(3))
