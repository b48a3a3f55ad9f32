"""One large start or notification, sent by several workers: each device once, whoever dies on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from apns_live.activities import Audience, Notify, Service
from apns_live.activities.send import fan_out, recorder, starting
from apns_live.activities.send.kind import apns_ids
from apns_live.activities.store import reached, schema
from apns_live.activities.store.ownership import partition_of
from apns_live.activities.store.shards import decode_devices, encode_devices
from tests.activities.send.cluster import Cluster, run_out, share
from tests.activities.send.test_notifying import pushes, with_phones
from tests.activities.send.world import a_start, an_end, an_update

PHONES = 60


@given(some.sets(some.integers(1, 2**62)))
def test_device_ids_come_back_as_they_were(devices: set[int]) -> None:
    assert decode_devices(encode_devices(devices)) == sorted(devices)


def test_neighbouring_devices_take_a_byte_each() -> None:
    assert len(encode_devices(range(1_000_000, 1_002_000))) == 2_002


@given(some.lists(some.integers(0, 2**48 - 1)))
def test_apns_ids_end_in_the_row_of_the_device(devices: list[int]) -> None:
    head = "00000000-0000-8000-9000-"
    assert apns_ids(head, devices) == [f"{head}{device:012x}" for device in devices]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "PAGE", 5)
    monkeypatch.setattr(fan_out, "MOST", 6)
    monkeypatch.setattr(fan_out, "AHEAD", 10)
    monkeypatch.setattr(fan_out, "CUT", 3)
    monkeypatch.setattr(reached, "LEAST", 2)


async def workers(cluster: Cluster, count: int) -> list[Service]:
    """Return several workers, each with its share of the partitions."""
    services = [cluster.service, *[await cluster.beside() for _ in range(count - 1)]]
    await share(*services)
    return services


def sent_by(service: Service) -> int:
    """How many pushes a worker got accepted."""
    return sum(carrier.client.accepted for carrier in service.statistics().carriers)


def starts(cluster: Cluster) -> Counter[str]:
    return Counter(push.token for push in cluster.fake.pushes if b'"start"' in push.body)


async def finished(cluster: Cluster, number: int = 0) -> Any:
    """Let time pass until an operation is done; return its row."""
    rows: list[Any] = []

    async def look() -> None:
        while not rows or rows[number].finished_at is None:
            rows[:] = await cluster.operations()
            await cluster.clock.sleep(0.1)

    await cluster.result_of(look())
    return rows[number]


async def die(service: Service) -> None:
    """Let a worker be gone at once: nothing is written down, and its leases stay."""
    for task in service.background:
        task.cancel()
    await asyncio.gather(*service.background, return_exceptions=True)
    if (writing := service.courier._recorder._under_way) is not None:
        writing.cancel()
        await asyncio.wait([writing])
    service.courier._recorder._parts.clear()
    await service.courier.carriers.aclose()


async def test_all_workers_send_one_start_and_each_device_is_started_once(cluster: Cluster) -> None:
    services = await workers(cluster, 3)
    phones = await cluster.add_phones(PHONES)
    await cluster.service.activities.start(cluster.app, a_start())
    start = await finished(cluster)
    assert (start.status, start.targeted, start.accepted, start.failed, start.users) == (
        "done", PHONES, PHONES, 0, PHONES,
    )  # fmt: skip
    assert set(starts(cluster).values()) == {1}
    assert len(starts(cluster)) == PHONES
    assert sum(sent_by(service) > 0 for service in services) > 1
    outcomes = await cluster.outcomes()
    assert len({row.device_id for row in outcomes}) == len(outcomes) == PHONES
    assert len({row.apns_id for row in outcomes}) == PHONES
    assert await cluster.count(schema.shards) == 0
    await cluster.service.activities.update(cluster.app, an_update(1))
    await cluster.until(lambda: cluster.shown(phones) == [("active", 1)] * PHONES)


async def test_all_workers_send_one_notification(cluster: Cluster) -> None:
    services = await workers(cluster, 2)
    phones = await with_phones(cluster, PHONES)
    notify = Notify(audience=Audience(everyone=True), title="Goal")
    await cluster.service.notifications.send(cluster.app, notify)
    operation = await finished(cluster)
    assert (operation.status, operation.targeted, operation.accepted) == ("done", PHONES, PHONES)
    assert [len(pushes(phone)) for phone in phones] == [1] * PHONES
    assert all(sent_by(service) for service in services)
    assert await cluster.count(schema.shards) == 0


@pytest.mark.parametrize(
    ("who", "what", "how"),
    [
        ("owner", "start", "dies"),
        ("owner", "notification", "pauses"),
        ("other", "start", "pauses"),
        ("other", "notification", "dies"),
    ],
)
async def test_a_worker_dies_or_gets_no_cpu_for_longer_than_its_lease(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, who: str, what: str, how: str
) -> None:
    """Its last results are not stored. The other worker continues, and no device gets two pushes."""
    services = await workers(cluster, 2)
    phones = await with_phones(cluster, PHONES)
    if what == "start":
        await cluster.service.activities.start(cluster.app, a_start())
    else:
        notify = Notify(audience=Audience(everyone=True), title="Goal")
        await cluster.service.notifications.send(cluster.app, notify)
    [operation] = await cluster.operations()
    owns = [operation.partition in service.ownership.partitions for service in services]
    dead = services[owns.index(who == "owner")]
    living = services[owns.index(who != "owner")]
    with monkeypatch.context() as patch:
        patch.setattr(dead.courier._recorder, "soon", lambda results=0, patient=False: None)
        await cluster.until(lambda: sent_by(dead) >= 5)
        cluster.service = living  # the one that continues
        leases: Any = dead.ownership
        if how == "dies":
            await die(dead)
        else:
            patch.setattr(leases, "_renew", asyncio.Event().wait)
            patch.setattr(leases, "_monotonic", lambda: inf)

        async def stay_silent() -> None:
            while True:  # What it had begun may renew the lease of a shard once more.
                await run_out(cluster, dead)
                await cluster.clock.sleep(0.5)

        silent = asyncio.create_task(stay_silent())
        await cluster.result_of(living.ownership._renew())  # type: ignore[attr-defined]
        known = await finished(cluster)
        silent.cancel()
    if how == "pauses":  # It gets CPU again, and its results come late.
        dead.courier._recorder.soon(1)
        await cluster.result_of(leases._renew())
        await cluster.result_of(dead.settled())
        assert await finished(cluster) == known
    assert (known.status, known.targeted) == ("done", PHONES)
    outcomes = await cluster.outcomes(known.id)
    assert len({row.device_id for row in outcomes}) == len(outcomes) == PHONES
    unknown = [row for row in outcomes if row.verdict == "unknown"]
    assert (known.accepted, known.failed) == (PHONES - len(unknown), len(unknown))
    assert 5 <= len(unknown) <= 15
    if what == "notification":
        got = [len(pushes(phone)) for phone in phones]
    else:
        tokens = [token for phone in phones for token in phone.tokens if token.kind == "start"]
        got = [starts(cluster)[token.text] for token in tokens]
    assert max(got) == 1, "a push was sent twice"
    assert got.count(0) <= len(unknown)


async def test_a_worker_that_was_stopped_sends_nothing_of_its_shards(cluster: Cluster) -> None:
    """Its time is over before its first push leaves; it wakes up when another one has claimed what it held."""
    services = await workers(cluster, 2)
    await cluster.add_phones(PHONES)
    late = services[1]
    queue, leases = late.ownership.shards, late.ownership
    renew = leases._renew  # type: ignore[attr-defined]
    leases._renew = asyncio.Event().wait  # type: ignore[attr-defined]
    claim, claimed = queue.claim, set()

    async def stop(*args: Any) -> Any:
        if (shard := await claim(*args)) is not None:
            leases._deadline = 0.0  # type: ignore[attr-defined]
            claimed.add(shard.row)
        return shard

    queue.claim = stop  # type: ignore[method-assign]
    name = name_in(cluster, services[0])
    await cluster.service.activities.start(cluster.app, a_start(name))
    await cluster.until(lambda: claimed)
    await run_out(cluster, late)
    start = await finished(cluster)
    queue.claim = claim  # type: ignore[method-assign]
    assert (start.status, start.targeted, start.accepted + start.failed) == ("done", PHONES, PHONES)
    assert sent_by(late) == 0
    await cluster.result_of(renew())
    await cluster.result_of(late.settled())
    assert not claimed & set(queue.held)
    outcomes = await cluster.outcomes()
    assert len({row.device_id for row in outcomes}) == len(outcomes) == PHONES
    assert max(starts(cluster).values()) == 1


def name_in(cluster: Cluster, service: Service) -> str:
    """Return the name of an activity that a worker owns."""
    names = (f"match-{number}" for number in range(1_000))
    owned = service.ownership.partitions
    return next(name for name in names if partition_of(cluster.app.row, name) in owned)


async def test_a_shard_with_too_many_tokens_is_sent_in_parts(cluster: Cluster) -> None:
    """The first page has few devices of the audience, so its rows say little of the others."""
    services = await workers(cluster, 2)
    others = await cluster.add_phones(40)
    some = await cluster.add_phones(20, first=40)
    wanted = [*others[::8], *some]
    sizes: list[int] = []
    for service in services:
        queue: Any = service.ownership.shards

        async def address(
            connection: Any, shard: Any, coded: bytes, more: int, address: Any = queue.address
        ) -> bool:
            sizes.append(len(decode_devices(coded)))
            return await address(connection, shard, coded, more)

        queue.address = address
    audience = Audience(devices=[phone.id for phone in wanted])
    await cluster.service.activities.start(cluster.app, a_start(audience=audience))
    start = await finished(cluster)
    assert (start.status, start.targeted, start.accepted) == ("done", 25, 25)
    assert sorted(starts(cluster).values()) == [1] * 25
    assert (sum(sizes), max(sizes)) == (20, 6)
    assert await cluster.count(schema.shards) == 0


async def test_a_worker_that_stores_devices_delays_no_call(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not lock the activity for as long as it takes to store a shard's devices."""
    await cluster.add_phones(3)
    stored, go_on = asyncio.Event(), asyncio.Event()
    intend = starting.intend

    async def stop(*args: Any, **options: Any) -> Any:
        fresh = await intend(*args, **options)
        stored.set()
        await go_on.wait()
        return fresh

    monkeypatch.setattr(starting, "intend", stop)
    await cluster.service.activities.start(cluster.app, a_start())
    await cluster.result_of(stored.wait())
    update = await cluster.service.activities.update(cluster.app, an_update(1))
    go_on.set()
    assert (await finished(cluster)).accepted == 3
    assert update.answer.version == 2


async def test_an_end_that_comes_while_devices_are_stored_stops_them(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.add_phones(8)
    intend, calls = starting.intend, 0

    async def end_first(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            await cluster.service.activities.end(cluster.app, an_end(1))
        return await intend(*args, **options)

    monkeypatch.setattr(starting, "intend", end_first)
    await cluster.service.activities.start(cluster.app, a_start())
    start = await finished(cluster)
    assert (start.status, start.targeted, start.accepted, start.failed) == ("done", 5, 5, 0)
    assert len(starts(cluster)) == 5
    assert await cluster.count(schema.activity_devices) == 5
    assert await cluster.count(schema.shards) == 0


async def test_an_end_stops_what_nobody_has_claimed(cluster: Cluster) -> None:
    services = await workers(cluster, 2)
    phones = await cluster.add_phones(PHONES)
    go_on = asyncio.Event()

    def held_back(claim: Any) -> Any:
        async def later(*args: Any) -> Any:
            await go_on.wait()
            return await claim(*args)

        return later

    for service in services:
        queue: Any = service.ownership.shards
        queue.claim = held_back(queue.claim)
    await cluster.service.activities.start(cluster.app, a_start())
    await cluster.until(lambda: len(starts(cluster)) == 5)
    await cluster.service.activities.end(cluster.app, an_end(1))
    go_on.set()
    start = await finished(cluster)
    assert (start.status, start.targeted, start.accepted) == ("done", 5, 5)
    await cluster.until(lambda: sorted(map(str, cluster.shown(phones)))[:5] == ["('ended', 1)"] * 5)
    assert len(starts(cluster)) == 5
    assert await cluster.count(schema.shards) == 0


async def test_refused_credentials_pause_all_workers_and_lose_nobody(cluster: Cluster) -> None:
    await workers(cluster, 2)
    await cluster.add_phones(PHONES)
    cluster.fake.fault("answer", status=403, reason="InvalidProviderToken", times=20)
    cluster.stride = 2.0
    await cluster.service.activities.start(cluster.app, a_start())
    start = await finished(cluster)
    assert (start.status, start.targeted, start.accepted, start.failed) == (
        "done", PHONES, PHONES, 0,
    )  # fmt: skip
    assert await cluster.count(schema.shards) == 0


async def test_results_of_a_shard_that_another_has_change_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.add_phones(3)
    monkeypatch.setattr(recorder, "INTERVAL", 3600.0)
    await cluster.service.activities.start(cluster.app, a_start())
    await cluster.until(lambda: len(starts(cluster)) == 3)
    await cluster.rest()
    async with cluster.database.write() as connection:
        await connection.execute(schema.shards.update().values(epoch=schema.shards.c.epoch + 1))
    await cluster.result_of(cluster.service.courier._recorder.written())
    assert await cluster.outcomes() == []
    assert (await cluster.operations())[0].accepted == 0
