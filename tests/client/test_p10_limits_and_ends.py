"""P10 to P16: pressure, refused connections, GOAWAY reasons, used-up ids, cancelling, closing."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import textwrap

import pytest

from apns_live import Hooks, Update, Verdict
from apns_live.errors import ClientClosed, PoolFull
from apns_live.http2 import ClientConnection
from apns_live.testing import FakeApns, SimulatedClock
from tests.client.conftest import client_for, pass_time, token, tokens

pytestmark = pytest.mark.wire
UPDATE = Update(content_state={"home": 71})


async def test_p10_a_fast_producer_is_read_no_faster_than_the_server_answers(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("withhold", skip=1)
    produced = 0

    def producer():
        nonlocal produced
        for number in range(1_000_000):
            produced = number + 1
            yield token(number)

    client = client_for(timed_fake, clock=clock)
    run = client.fan_out(UPDATE, producer())
    iterator = aiter(run)
    assert (await anext(iterator)).accepted
    await clock.settle(until=lambda: client.statistics().in_flight == 1000)
    await clock.settle(50)
    # In flight, one looked at ahead of time, and the one answered.
    assert produced <= 1002
    assert run.report.read == produced
    await client.aclose(drain=0)
    await iterator.aclose()


async def test_p10_unread_outcomes_pause_sending(fake: FakeApns) -> None:
    produced = 0

    def producer():
        nonlocal produced
        for number in range(15_000):
            produced = number + 1
            yield token(number)

    one = client_for(fake, max_connections=1)
    async with one as client, client.fan_out(UPDATE, producer()) as run:
        iterator = aiter(run)
        assert (await anext(iterator)).accepted
        while client.statistics().accepted < 10_000:
            await asyncio.sleep(0.001)
        for _ in range(50):
            await asyncio.sleep(0)
        # With those that were in flight at that moment: one connection's streams at most.
        assert produced <= 10_001 + 1_000
        count = 1
        async for outcome in iterator:
            count += outcome.accepted
        assert count == produced == 15_000


async def test_p10_send_waits_for_a_place_and_then_says_so(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("withhold", skip=1)
    async with client_for(
        timed_fake, clock=clock, waiting_room=100, queue_timeout=5.0, max_connections=1
    ) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        first = [asyncio.ensure_future(client.send(UPDATE, each)) for each in tokens(1101)]
        await clock.settle(until=lambda: client.statistics().in_flight == 1000)
        late = asyncio.ensure_future(client.send(UPDATE, token(1)))
        await clock.settle()
        # A hundred in the room, and one at the door of the connection.
        assert client.statistics().waiting == 101
        await clock.advance(4.9)
        assert not late.done()
        await clock.advance(0.2)
        with pytest.raises(PoolFull, match="nothing was sent"):
            late.result()
        # A place that comes free is taken by who waited longest.
        patient = asyncio.ensure_future(client.send(UPDATE, token(2)))
        await clock.settle()
        first[-1].cancel()
        await clock.settle()
        assert client.statistics().waiting == 101
        await clock.advance(5.2)
        assert not patient.done()
        for task in [*first, patient]:
            task.cancel()
        await asyncio.gather(*first, patient, return_exceptions=True)
        assert client.statistics().waiting == client.statistics().in_flight == 0


async def test_p11_a_server_that_refuses_tls_for_an_hour(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    fault = timed_fake.fault("fail_tls")
    failures: list[tuple[str, float]] = []
    hooks = Hooks(connect_failed=lambda message, delay: failures.append((message, delay)))
    async with client_for(timed_fake, clock=clock, hooks=hooks, uniform=lambda: 1.0) as client:
        while clock.monotonic() < 3600:
            outcome = await pass_time(client, clock, client.send(UPDATE, token(1)))
            assert (outcome.verdict, outcome.attempts) == (Verdict.NOT_SENT, 0)
            assert outcome.may_have_been_sent is False
            assert "TLS" in outcome.detail
        # 0.5 s doubling to 60 s: a handful at first, then one a minute.
        assert 55 <= len(failures) <= 70
        assert max(delay for _, delay in failures) == 60.0
        timed_fake.faults.remove(fault)
        assert (await pass_time(client, clock, client.send(UPDATE, token(1)))).accepted


async def test_p11_an_untrusted_certificate_is_named(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("fail_tls", untrusted=True)
    async with client_for(timed_fake, clock=clock, uniform=lambda: 1.0) as client:
        outcome = await pass_time(client, clock, client.send(UPDATE, token(1), deadline=2.0))
        assert outcome.verdict is Verdict.NOT_SENT
        assert "certificate was refused" in outcome.detail
        assert clock.monotonic() <= 2.1


async def test_p12_a_goaway_reason_surfaces_and_stops_connecting(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("goaway", reason="BadCertificateEnvironment", processed=False, close=True)
    async with client_for(timed_fake, clock=clock) as client:
        outcome = await client.send(UPDATE, token(1))
        assert (outcome.verdict, outcome.reason) == (Verdict.OPERATOR, "BadCertificateEnvironment")
        assert outcome.retry_at == pytest.approx(clock.time() + 900)
        again = await client.send(UPDATE, token(2))
        assert (again.verdict, again.attempts) == (Verdict.OPERATOR, 0)
        await clock.advance(890)
        assert (await client.send(UPDATE, token(2))).verdict is Verdict.OPERATOR
        assert len(timed_fake.connections) == 1
        timed_fake.faults.clear()
        await clock.advance(11)
        assert (await client.send(UPDATE, token(2))).accepted


@pytest.mark.parametrize("debug", ["", "null", "[]", "{}", '{"reason": 7}', "\u00e9", "not json"])
async def test_p12_a_goaway_without_a_usable_reason_is_an_ordinary_one(
    fake: FakeApns, debug: str
) -> None:
    fake.fault("goaway", debug=debug, times=1, skip=1, processed=False)
    async with client_for(fake) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        outcome = await client.send(UPDATE, token(1))
    assert (outcome.verdict, outcome.attempts) == (Verdict.ACCEPTED, 2)


async def test_p13_shutdown_every_half_hour_for_24_hours(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    async with client_for(timed_fake, clock=clock) as client:
        for round_number in range(48):
            outcome = await client.send(UPDATE, token(round_number))
            assert (outcome.verdict, outcome.attempts) == (Verdict.ACCEPTED, 1)
            timed_fake.go_away("Shutdown")
            await clock.settle(until=lambda: not client.statistics().connections)
            await clock.advance(1800)
        assert client.statistics().connections_opened == 48
    assert len(timed_fake.pushes) == 48
    assert not timed_fake.refusals


async def test_p13_a_503_shutdown_moves_to_a_new_link_at_once(fake: FakeApns) -> None:
    fake.fault("answer", reason="Shutdown", skip=5, times=3)
    async with client_for(fake) as client, client.fan_out(UPDATE, tokens(100)) as run:
        outcomes = [outcome async for outcome in run]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
    assert len(fake.pushes) == 100


async def test_p14_used_up_stream_ids_mean_a_new_connection(
    fake: FakeApns, monkeypatch: pytest.MonkeyPatch
) -> None:
    firsts = iter([2**31 - 1 - 2 * 19, 1])
    monkeypatch.setattr(
        "apns_live.pool.link.ClientConnection",
        lambda **options: ClientConnection(**options, first_stream_id=next(firsts)),
    )
    async with (
        client_for(fake, max_connections=1) as client,
        client.fan_out(UPDATE, tokens(100)) as run,
    ):
        outcomes = [outcome async for outcome in run]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED}
    assert {outcome.attempts for outcome in outcomes} == {1}
    carried = [outcome.connection_id for outcome in outcomes]
    assert (carried.count(1), carried.count(2)) == (20, 80)
    assert sorted(push.token for push in fake.pushes) == tokens(100)


async def test_p15_ten_thousand_callers_cancelled_in_flight_leak_nothing(fake: FakeApns) -> None:
    complaints: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    source = random.Random(7)
    async with client_for(fake) as client:
        assert (await client.send(UPDATE, token(0))).accepted
        cancelled = accepted = 0
        for _ in range(20):
            tasks = [asyncio.ensure_future(client.send(UPDATE, each)) for each in tokens(500)]
            for _ in range(source.randrange(12)):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, asyncio.CancelledError):
                    cancelled += 1
                else:
                    accepted += result.accepted
        assert cancelled + accepted == 10_000
        assert cancelled > 1000
        statistics = client.statistics()
        assert statistics.waiting == statistics.in_flight == 0
        assert sum(link.open_streams for link in statistics.connections) == 0
        tasks.clear()
        # The slots are free again: as many as ever fit.
        outcomes = await asyncio.gather(*(client.send(UPDATE, each) for each in tokens(1000)))
        assert all(outcome.accepted for outcome in outcomes)
        room = client._room
        assert len(room) == 0
        assert not room._waiting
        assert not room._timed
        assert len(client._engine.waiting) == 0
    gc.collect()
    assert not complaints


async def test_p16_close_drains_what_is_in_flight(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("delay", delay=2.0)
    client = client_for(timed_fake, clock=clock)
    tasks = [asyncio.ensure_future(client.send(UPDATE, each)) for each in tokens(5)]
    await clock.settle(until=lambda: client.statistics().in_flight == 1)
    closing = asyncio.ensure_future(client.aclose())
    await clock.settle()
    with pytest.raises(ClientClosed):
        await client.send(UPDATE, token(9))
    await clock.advance_until(closing.done)
    assert clock.monotonic() <= 4.1  # one stream at first, then the other four
    assert all(task.result().accepted for task in tasks)
    await clock.settle(until=lambda: timed_fake.connections[0].state == "closed")


async def test_p16_after_the_drain_deadline_the_rest_fails(
    timed_fake: FakeApns, clock: SimulatedClock
) -> None:
    timed_fake.fault("withhold", skip=1)
    client = client_for(timed_fake, clock=clock, max_connections=1)
    assert (await client.send(UPDATE, token(0))).accepted
    tasks = [asyncio.ensure_future(client.send(UPDATE, each)) for each in tokens(1010)]
    await clock.settle(until=lambda: client.statistics().in_flight == 1000)
    closing = asyncio.ensure_future(client.aclose(drain=3.0))
    await clock.advance_until(closing.done)
    assert clock.monotonic() <= 3.5
    outcomes = [task.result() for task in tasks]
    counted = [(outcome.verdict, outcome.may_have_been_sent) for outcome in outcomes]
    assert counted.count((Verdict.UNKNOWN, True)) == 1000
    assert counted.count((Verdict.NOT_SENT, False)) == 10
    assert {outcome.reason for outcome in outcomes} == {"closed"}


async def test_p16_the_process_exits(fake: FakeApns) -> None:
    """With pushes in flight, a fan-out under way and no orderly end, nothing keeps it alive."""
    program = textwrap.dedent(
        f"""
        import asyncio
        from apns_live import Client, Endpoint, ProviderKey, Update
        key = ProviderKey.from_file({str(fake.key_file)!r}, team_id={fake.team_id!r})
        endpoint = Endpoint(**{fake.endpoint._asdict()!r})
        async def main():
            client = Client(key, bundle_id={fake.bundle_id!r}, environment=endpoint)
            assert (await client.send(Update(content_state={{}}), "00" * 32)).accepted
            run = client.fan_out(Update(content_state={{}}), ("%064x" % n for n in range(10**6)))
            waiting = asyncio.ensure_future(run.wait())
            while client.statistics().accepted < 1_000:
                await asyncio.sleep(0)
            waiting.cancel()
            await client.aclose(drain=0.1)
            print("closed")
        asyncio.run(main())
        """
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, output, errors) == (0, b"closed\n", b"")
