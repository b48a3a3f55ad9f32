"""Several processes over one PostgreSQL: any takes any call, each sends its share, one that is gone is replaced."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from sqlalchemy import text

from apns_live.activities import Audience, Notify, Service, TokenRecord
from apns_live.activities.store.database import Database
from apns_live.activities.store.ownership import partition_of
from apns_live.errors import Conflict
from tests.activities.send.cluster import Cluster, run_out, share
from tests.activities.send.world import TYPE, a_start, an_end, an_update


async def test_what_one_accepts_another_sends(cluster: Cluster) -> None:
    front = await cluster.beside(send=False)
    phones = await cluster.add_phones(3)
    await front.activities.start(cluster.app, a_start())
    await cluster.until(lambda: cluster.shown(phones) == [("active", 0)] * 3)
    # Phones hand their tokens to the one that does not send.
    cluster.registering = False
    await cluster.until(lambda: len(cluster.handed_in) == 3)
    await front.tokens.register_activity_tokens(cluster.app, cluster.handed_in)
    await front.activities.update(cluster.app, an_update(1))
    await cluster.until(lambda: cluster.shown(phones) == [("active", 1)] * 3)
    assert front.statistics().waiting == 0
    await front.activities.end(cluster.app, an_end(2))
    await cluster.until(lambda: cluster.shown(phones) == [("ended", 2)] * 3)


async def test_a_notification_that_another_accepted_is_sent(cluster: Cluster) -> None:
    front = await cluster.beside(send=False)
    phone = (await cluster.add_phones(1))[0]
    records = [
        cluster.start_records(phone)[0].__class__(
            device=phone.id,
            kind="device",
            token=token.text,
            registered_at=cluster.now(),
            environment="sandbox",
        )
        for token in phone.tokens
        if token.kind == "device"
    ]
    await cluster.service.devices.register(cluster.app, records)
    notify = Notify(audience=Audience(everyone=True), title="Hello", body="there")
    await front.notifications.send(cluster.app, notify)
    await cluster.until(lambda: any(b"Hello" in push.body for push in cluster.fake.pushes))


async def test_a_token_that_came_elsewhere_gets_the_next_state(cluster: Cluster) -> None:
    """The sender has the activity in memory, and must not think that it knows everybody."""
    front = await cluster.beside(send=False)
    phones = await cluster.add_phones(2)
    await cluster.service.activities.start(cluster.app, a_start())
    cluster.registering = False
    await cluster.until(lambda: len(cluster.handed_in) == 2)
    first, second = cluster.handed_in
    await cluster.service.tokens.register_activity_tokens(cluster.app, [first])
    await cluster.service.activities.update(cluster.app, an_update(1))
    await cluster.until(lambda: ("active", 1) in cluster.shown(phones))
    await cluster.result_of(cluster.service.settled())
    await front.tokens.register_activity_tokens(cluster.app, [second])
    await cluster.until(lambda: cluster.shown(phones) == [("active", 1)] * 2)
    await cluster.service.activities.update(cluster.app, an_update(2))
    await cluster.until(lambda: cluster.shown(phones) == [("active", 2)] * 2)


async def test_two_workers_share_and_no_phone_is_started_twice(cluster: Cluster) -> None:
    other = await cluster.beside()
    await share(cluster.service, other)
    assert cluster.service.ownership.partitions.isdisjoint(other.ownership.partitions)
    phones = await cluster.add_phones(3)
    names = [f"match-{number}" for number in range(4)]  # a phone shows five at most
    for number, name in enumerate(names):
        service = (cluster.service, other)[number % 2]
        await service.activities.start(cluster.app, a_start(name))
    await cluster.until(lambda: all(len(phone.activities) == 4 for phone in phones))
    for n in range(1, 4):
        for number, name in enumerate(names):
            service = (cluster.service, other)[(number + n) % 2]
            await service.activities.update(cluster.app, an_update(n, name))
    await cluster.until(
        lambda: all(cluster.state_of(phone, name) == 3 for phone in phones for name in names)
    )
    starts = [push.token for push in cluster.fake.pushes if b'"start"' in push.body]
    assert len(starts) == len(phones) * len(names)


async def test_what_a_dead_worker_held_goes_on_with_another(cluster: Cluster) -> None:
    other = await cluster.beside()
    phones = await cluster.add_phones(2)
    names = [f"match-{number}" for number in range(4)]
    for name in names:
        await cluster.service.activities.start(cluster.app, a_start(name))
    await share(cluster.service, other)
    await cluster.until(lambda: all(len(phone.activities) == 4 for phone in phones))
    await cluster.settled()
    for task in other.background:  # it is gone, and says nothing
        task.cancel()
    await asyncio.gather(*other.background, return_exceptions=True)
    for name in names:
        await cluster.service.activities.update(cluster.app, an_update(5, name))
    await run_out(cluster, other)
    await cluster.service.ownership._renew()  # type: ignore[attr-defined]
    assert cluster.service.ownership.whole
    await cluster.until(
        lambda: all(cluster.state_of(phone, name) == 5 for phone in phones for name in names)
    )


async def test_a_key_that_another_process_stores_is_used(cluster: Cluster) -> None:
    cluster.settings = dataclasses.replace(cluster.settings, key_check=1.0)
    other = await cluster.beside()
    await share(cluster.service, other)
    keyless = await cluster.add_app("keyless", with_key=False)
    [phone] = await cluster.add_phones(1, keyless)
    owned = other.ownership.partitions
    name = next(f"m-{n}" for n in range(99) if partition_of(keyless.row, f"m-{n}") in owned)
    await cluster.service.activities.start(keyless, a_start(name))

    async def failed() -> None:
        while [row.status for row in await cluster.operations()] != ["failed"]:
            await cluster.clock.sleep(0.1)

    await cluster.result_of(failed())
    await cluster.add_key(keyless)
    await cluster.until(lambda: cluster.shown([phone]) == [("active", 0)], at_most=10.0)


async def test_what_a_worker_releases_is_taken_up_at_once(cluster: Cluster) -> None:
    cluster.settings = dataclasses.replace(cluster.settings, lease=3_600.0)
    other = await cluster.beside()  # it renews every quarter of an hour
    await share(cluster.service, other)
    assert not other.ownership.whole
    await cluster.until(lambda: other.wakeups.listening)
    await cluster.close()
    await cluster.until(lambda: other.ownership.whole)


async def test_a_worker_that_was_stopped_sends_nothing_with_a_dead_lease(cluster: Cluster) -> None:
    phones = await cluster.add_phones(2)
    await cluster.service.activities.start(cluster.app, a_start())
    await cluster.until(lambda: cluster.shown(phones) == [("active", 0)] * 2)
    await cluster.settled()
    before = len(cluster.fake.pushes)
    leases: Any = cluster.service.ownership
    leases._deadline = 0.0  # it wakes up, and its time is over
    await cluster.service.activities.update(cluster.app, an_update(1))
    await cluster.pass_time(2.0)
    assert len(cluster.fake.pushes) == before
    await leases._renew()
    await cluster.until(lambda: cluster.shown(phones) == [("active", 1)] * 2)


async def test_results_of_a_lost_lease_are_not_stored(cluster: Cluster) -> None:
    phones = await cluster.add_phones(2)
    await cluster.service.activities.start(cluster.app, a_start())
    await cluster.until(lambda: cluster.shown(phones) == [("active", 0)] * 2)
    await cluster.settled()
    recorder = cluster.service.courier._recorder
    operation, activity = (await cluster.operations())[0], (await cluster.members())[0].activity_id
    async with cluster.database.write() as connection:
        await connection.execute(text("UPDATE leases SET epoch = epoch + 1"))
    part = recorder.noting(operation.partition)
    row = (cluster.app.row, operation.id, 99, "accepted", 200, "", "late", 10)
    part.outcomes.append(row)
    part.counts[operation.id] = [1, 0]
    part.stamps.append((activity, 2**33))
    await cluster.result_of(recorder.written())
    assert not [row for row in await cluster.outcomes() if row.apns_id == "late"]
    assert (await cluster.operations())[0].accepted == 2


async def test_who_follows_on_one_sees_what_another_does(cluster: Cluster) -> None:
    front = await cluster.beside(send=False)
    await cluster.add_phones(2)
    done = await cluster.service.activities.start(cluster.app, a_start())
    seen: list[dict[str, Any]] = []

    events = front.watch(cluster.app, operation=done.answer.operation)

    async def follow() -> None:
        seen.extend([event async for event in events])

    await cluster.result_of(follow())
    assert seen[-1]["status"] == "done"
    assert seen[-1]["accepted"] == 2


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
async def test_beside_a_file_only_one_sends(database: Database) -> None:
    from apns_live.activities import Sealer
    from apns_live.activities.store import ownership
    from apns_live.activities.store.sealing import new_key

    sealer = Sealer(new_key())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ownership, "PATIENCE", 0.0)
        async with Service.open(database, sealing=sealer):
            async with Service.open(database, sealing=sealer, send=False) as front:
                assert not front.sends
            with pytest.raises(Conflict, match="send=False"):
                async with ownership.owning(database, "second", patience=0.0):
                    pass


async def test_an_end_over_the_limit_is_sent_wherever_the_token_came(cluster: Cluster) -> None:
    front = await cluster.beside(send=False)
    await cluster.service.apps.configure(cluster.app, {"device_limit": 1})
    cluster.app = await cluster.service.apps.get(cluster.app.id)
    [phone] = await cluster.add_phones(1)
    await cluster.service.activities.start(cluster.app, a_start())
    await cluster.until(lambda: cluster.shown([phone]) == [("active", 0)])
    await cluster.settled()
    own = TokenRecord(
        device=phone.id,
        kind="activity",
        token="ab" * 40,
        registered_at=cluster.now(),
        scope="begun-by-the-phone",
        environment="sandbox",
    )
    await front.tokens.register_activity_tokens(cluster.app, [own], attributes_type=TYPE)
    await cluster.until(lambda: phone.activities[0].state == "dismissed")


async def test_a_start_that_is_due_soon_is_heard_of_without_notifications(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await cluster.beside(send=False)
    monkeypatch.setattr(front.wakeups, "tell", lambda *_, **__: None)
    phones = await cluster.add_phones(1)
    soon = cluster.clock.time() + 1.0
    await front.activities.start(cluster.app, a_start(start_at=soon))
    await cluster.until(lambda: cluster.shown(phones) == [("active", 0)], at_most=600.0)


async def test_a_token_whose_owner_died_before_it_sent_is_served_by_the_next(
    cluster: Cluster,
) -> None:
    """Every operation is finished by then: only the token says that somebody waits."""
    front = await cluster.beside(send=False)
    phones = await cluster.add_phones(1)
    await cluster.service.activities.start(cluster.app, a_start())
    cluster.registering = False
    await cluster.until(lambda: len(cluster.handed_in) == 1)
    await cluster.service.activities.update(cluster.app, an_update(1))
    await cluster.result_of(cluster.service.settled())
    await cluster.close()
    await front.tokens.register_activity_tokens(cluster.app, cluster.handed_in)
    assert cluster.shown(phones) == [("active", 0)]
    await cluster.open()
    await cluster.until(lambda: cluster.shown(phones) == [("active", 1)])


async def test_no_state_is_held_after_a_clean_hand_over(cluster: Cluster) -> None:
    """After a crash the second state waits until its timestamp is newer than what may have left."""
    front = await cluster.beside(send=False)
    [phone] = await cluster.add_phones(1)
    await front.activities.start(cluster.app, a_start())
    await cluster.until(lambda: phone.activities and phone.activities[-1].token)
    await cluster.settled()
    await cluster.pass_time(20.0)
    await cluster.service.ownership.leave()
    await front.activities.update(cluster.app, an_update(1))
    other = await cluster.beside()
    assert other.ownership.whole
    began = cluster.clock.time()
    await cluster.until(lambda: cluster.shown([phone]) == [("active", 1)])
    await front.activities.update(cluster.app, an_update(2))
    await cluster.until(lambda: cluster.shown([phone]) == [("active", 2)])
    assert cluster.clock.time() - began < 1.0
