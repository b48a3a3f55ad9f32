"""A partition that goes to another worker and comes back: nothing of the first term counts any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from apns_live.activities import Audience, Notify, Service
from apns_live.activities.send import backlog, fan_out
from tests.activities.send.cluster import Cluster, run_out
from tests.activities.send.test_notifying import pushes, with_phones
from tests.activities.send.world import a_start, an_update


async def renew(service: Service) -> None:
    await service.ownership._renew()  # type: ignore[attr-defined]


async def hand_over(cluster: Cluster, giver: Service, taker: Service) -> None:
    """Let one be silent until the other has everything."""
    await run_out(cluster, giver)
    await renew(taker)
    assert taker.ownership.whole


async def follow(cluster: Cluster, count: int) -> list[Any]:
    """Start an activity on phones, all of whose tokens are stored."""
    phones = await cluster.add_phones(count)
    await cluster.service.activities.start(cluster.app, a_start())
    await cluster.until(lambda: cluster.shown(phones) == [("active", 0)] * count)
    while not all(member.token for member in await cluster.members()):
        await cluster.pass_time(0.1)
    await cluster.settled()
    return phones


async def test_a_token_that_is_heard_of_after_the_update_that_it_lacks(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had the newest state when it came, and the update was through before its owner knew."""
    front = await cluster.beside(send=False)
    phones = await cluster.add_phones(2)
    one = Audience(devices=(phones[0].id,))
    await cluster.service.activities.start(cluster.app, a_start(audience=one))
    await cluster.until(lambda: cluster.shown(phones) == [("active", 0), None])
    await cluster.settled()
    await cluster.service.activities.update(cluster.app, an_update(1))
    await cluster.until(lambda: cluster.shown(phones) == [("active", 1), None])
    cluster.registering = False
    more = a_start(content_state={"n": 1})
    await cluster.service.activities.start(cluster.app, more, again=True)
    await cluster.until(lambda: len(cluster.handed_in) == 1)
    await cluster.result_of(cluster.service.settled())
    hear, held = cluster.service.courier.heard, []
    monkeypatch.setattr(
        cluster.service.courier, "heard", lambda *what, **more: held.append((what, more))
    )
    await front.tokens.register_activity_tokens(cluster.app, cluster.handed_in)
    await cluster.service.activities.update(cluster.app, an_update(2))
    await cluster.until(lambda: held and ("active", 2) in cluster.shown(phones))
    await cluster.result_of(cluster.service.settled())
    assert cluster.shown(phones) == [("active", 2), ("active", 1)]
    for what, more in held:
        hear(*what, **more)
    await cluster.until(lambda: cluster.shown(phones) == [("active", 2)] * 2)


async def test_what_was_being_read_when_the_partition_was_lost_is_not_sent(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = await follow(cluster, 2)
    await cluster.close()
    await cluster.open()
    service = cluster.service
    other = await cluster.beside()
    lives = service.courier._lives
    go_on, reading, original = asyncio.Event(), asyncio.Event(), lives._join_read

    async def slowly(*args: Any) -> None:
        reading.set()
        await go_on.wait()
        await original(*args)

    monkeypatch.setattr(lives, "_join_read", slowly)
    await hand_over(cluster, other, service)
    await service.activities.update(cluster.app, an_update(1))
    await cluster.until(reading.is_set)
    await hand_over(cluster, service, other)
    await cluster.until(lambda: cluster.shown(phones) == [("active", 1)] * 2)
    await other.activities.update(cluster.app, an_update(2))
    await cluster.until(lambda: cluster.shown(phones) == [("active", 2)] * 2)
    await cluster.result_of(other.settled())
    await hand_over(cluster, other, service)
    # The newer state is looked at while the old reading is still under way.
    monkeypatch.setattr(lives, "_join_read", original)
    await service.activities.update(cluster.app, an_update(3))
    await cluster.pass_time(1.0)
    go_on.set()
    await cluster.until(lambda: cluster.shown(phones) == [("active", 3)] * 2)
    await cluster.result_of(service.settled())
    assert cluster.shown(phones) == [("active", 3)] * 2


async def test_results_of_an_earlier_term_are_not_stored_in_a_later_one(cluster: Cluster) -> None:
    await follow(cluster, 1)
    service = cluster.service
    recorder = service.courier._recorder
    operation = (await cluster.operations())[0]
    part = recorder.noting(operation.partition)
    row = (cluster.app.row, operation.id, 99, "accepted", 200, "", "late", 10)
    async with cluster.database.write() as connection:
        await connection.execute(text("UPDATE leases SET epoch = epoch + 2"))
    # The answer of a renewal arrives while the batch waits: the partition is held again.
    ownership: Any = service.ownership
    ownership._own({each: term + 2 for each, term in ownership.terms.items()})
    part.outcomes.append(row)
    part.counts[operation.id] = [1, 0]
    await cluster.result_of(recorder.written())
    assert not [row for row in await cluster.outcomes() if row.apns_id == "late"]


async def test_results_of_other_partitions_are_stored_beside_those_that_are_thrown_away(
    cluster: Cluster,
) -> None:
    await follow(cluster, 1)
    recorder = cluster.service.courier._recorder
    operation = (await cluster.operations())[0]
    lost = (operation.partition + 1) % 256
    async with cluster.database.write() as connection:
        await connection.execute(
            text("UPDATE leases SET owner = 'else' WHERE partition = :one"), {"one": lost}
        )
    recorder.noting(lost).started.append((operation.id, "failed", "lost", True, None))
    kept = recorder.noting(operation.partition)
    kept.started.append((operation.id, "running", "kept", False, None))
    await cluster.result_of(recorder.written())
    assert (await cluster.operations())[0].reason == "kept"


async def test_a_worker_whose_lease_is_over_broadcasts_nothing(cluster: Cluster) -> None:
    channel = cluster.fake.add_channel(1)
    await cluster.add_phones(1)
    await cluster.service.activities.start(cluster.app, a_start(channel=channel.channel_id))
    await cluster.settled()
    leases: Any = cluster.service.ownership
    leases._deadline = 0.0
    await cluster.service.activities.update(cluster.app, an_update(1))
    await cluster.pass_time(2.0)
    assert not any(push.channel_id for push in cluster.fake.pushes)
    leases._deadline = leases._monotonic() + 60.0
    await cluster.until(lambda: any(push.channel_id for push in cluster.fake.pushes))


async def test_a_notification_whose_partition_went_and_came_back_goes_on(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 2)
    monkeypatch.setattr(fan_out, "AHEAD", 2)
    phones = await with_phones(cluster, 8)
    notify = Notify(audience=Audience(everyone=True), title="Goal")
    sent = await cluster.service.notifications.send(cluster.app, notify)
    await cluster.until(lambda: any(pushes(phone) for phone in phones))
    everything = frozenset(range(256))
    # All at once, so that it is taken up before it knows that it was lost.
    cluster.service.courier._leave(everything)
    cluster.service.courier.notifier.backlog.take_over(everything)
    await cluster.result_of(cluster.service.settled())
    known = await cluster.service.operations.get(cluster.app, sent.answer.operation)
    assert known["status"] == "done"
    assert all(pushes(phone) for phone in phones)


async def test_an_activity_that_is_left_leaves_nothing_behind_in_delivery(cluster: Cluster) -> None:
    """A state that is held back would keep it there, and its next owner would go on with it."""
    await follow(cluster, 1)
    await cluster.service.activities.update(cluster.app, an_update(0))
    await cluster.settled()
    [live] = cluster.service.courier._lives._lives.values()
    [group] = live.groups.values()
    held = group.target.lane
    for n in range(1, 50):  # In so little time, only a few may be stamped ahead of it.
        await cluster.service.activities.update(cluster.app, an_update(n))
        await cluster.pass_time(backlog.PACE)
        if held.waiting is not None:
            break
    assert held.waiting is not None
    cluster.service.courier._lives.abandon(frozenset(range(256)))
    assert group.delivery.activity(group.target.activity) is not group.target
