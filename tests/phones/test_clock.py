import asyncio
import random

import pytest

from apns_live.clock import Clock
from apns_live.errors import FakeError
from apns_live.testing.clock import EPOCH, RealClock, SimulatedClock


def test_it_is_a_clock_and_stands_still():
    clock: Clock = SimulatedClock()
    assert clock.time() == EPOCH
    assert clock.time() == clock.time()
    assert clock.monotonic() == 0.0


def test_timers_run_in_time_order_each_at_its_own_time():
    clock = SimulatedClock()
    seen = []
    for delay in (3.0, 1.0, 2.0, 1.0):
        clock.call_later(delay, lambda d=delay: seen.append((d, clock.monotonic())))
    clock.advance_sync(2.5)
    assert seen == [(1.0, 1.0), (1.0, 1.0), (2.0, 2.0)]
    assert clock.time() == EPOCH + 2.5
    clock.advance_sync(0.5)
    assert seen[-1] == (3.0, 3.0)


def test_a_timer_made_by_a_timer_runs_in_the_same_move():
    clock = SimulatedClock()
    seen = []
    clock.call_later(1, lambda: clock.call_later(1, lambda: seen.append(clock.monotonic())))
    clock.advance_sync(5)
    assert seen == [2.0]


def test_a_cancelled_timer_does_not_run_and_the_heap_forgets_it():
    clock = SimulatedClock()
    timers = [
        clock.call_later(i + 1, lambda: pytest.fail("a cancelled timer ran")) for i in range(1000)
    ]
    random.Random(1).shuffle(timers)
    for timer in timers:
        timer.cancel()
        timer.cancel()
    assert clock.pending == 0
    assert len(clock._heap) < 200
    clock.advance_sync(2000)


def test_cancelling_a_timer_that_ran_changes_nothing():
    clock = SimulatedClock()
    timer = clock.call_later(1, lambda: None)
    clock.call_later(5, lambda: None)
    clock.advance_sync(1)
    timer.cancel()
    assert clock.pending == 1


def test_time_never_goes_back():
    with pytest.raises(FakeError, match="forward"):
        SimulatedClock().advance_sync(-1)


async def test_advance_lets_tasks_follow():
    clock = SimulatedClock()
    seen = []

    async def ticker():
        while len(seen) < 5:
            await clock.sleep(1)
            seen.append(clock.monotonic())

    task = asyncio.create_task(ticker())
    await clock.advance(3.5)
    assert seen == [1.0, 2.0, 3.0]
    await clock.advance(10)
    assert seen == [1.0, 2.0, 3.0, 4.0, 5.0]
    await task


async def test_a_cancelled_sleep_leaves_no_timer():
    clock = SimulatedClock()
    task = asyncio.create_task(clock.sleep(10))
    await clock.settle()
    assert clock.pending == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.pending == 0


async def test_two_moves_at_once_are_refused():
    clock = SimulatedClock()
    first = asyncio.create_task(clock.advance(1))
    await asyncio.sleep(0)
    with pytest.raises(FakeError, match="already"):
        await clock.advance(1)
    await first


async def test_advance_until_stops_at_the_timer_that_makes_it_true():
    clock = SimulatedClock()
    seen = []
    clock.call_later(7.25, lambda: seen.append(1))
    await clock.advance_until(lambda: seen)
    assert clock.monotonic() == 7.25
    with pytest.raises(TimeoutError):
        await clock.advance_until(lambda: False, at_most=5)
    assert clock.monotonic() == 12.25


async def test_settle_waits_for_real_sockets():
    clock = SimulatedClock()
    got = []

    async def serve(reader, writer):
        got.append(await reader.readexactly(100_000))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"x" * 100_000)
    await clock.settle(until=lambda: got)
    assert clock.monotonic() == 0.0
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_a_real_clock_moves_ahead_and_runs_what_has_become_due_in_order():
    clock = RealClock()
    start = clock.monotonic()
    seen = []
    clock.call_later(3600, lambda: seen.append(("hour", clock.monotonic() - start >= 3600)))
    clock.call_later(60, lambda: seen.append(("minute", clock.monotonic() - start < 3600)))
    await clock.advance(4000)
    assert seen == [("minute", True), ("hour", True)]
    assert clock.offset > 3999
    clock.close()


async def test_a_real_clock_runs_by_itself():
    clock = RealClock()
    done = asyncio.Event()
    late = clock.call_later(3600, lambda: None)
    clock.call_later(0.01, done.set)
    await asyncio.wait_for(done.wait(), 10)
    late.cancel()
    clock.close()


async def test_a_real_clock_takes_any_delay():
    clock = RealClock()
    timer = clock.call_later(1e300, lambda: None)
    assert clock.pending == 1
    timer.cancel()
    clock.close()
