"""A wall clock that is set: what ends for good waits until the new time has lasted."""

from __future__ import annotations

import asyncio
import logging

import pytest

from apns_live.activities.due.steady_time import CONFIRMED, TOLD, SteadyTime
from apns_live.activities.store.database import Database
from apns_live.testing import SimulatedClock
from tests.activities.test_scheduler import HOUR, World
from tests.activities.world import a_start

DAY = 24 * HOUR


def set_by(clock: SimulatedClock, seconds: float) -> None:
    """Set the wall clock; the monotonic one does not notice."""
    clock._start += seconds


async def test_a_day_ahead_on_one_reading_ends_nothing(database: Database) -> None:
    world = World(database)
    await world.open()
    task = asyncio.create_task(world.scheduler.run())
    await world.activities.start(world.app, a_start(id="running"))
    later = world.clock.time() + HOUR
    await world.activities.start(world.app, a_start(id="planned", start_at=later))
    world.scheduler.wake()
    await world.advance(120)
    set_by(world.clock, DAY)
    await world.advance(CONFIRMED - 120)
    set_by(world.clock, -DAY)
    await world.advance(HOUR / 2)
    assert [await world.status(name) for name in ("running", "planned")] == ["active", "scheduled"]
    await world.advance(HOUR)
    assert await world.status("planned") == "active"
    # One that stays is the time.
    set_by(world.clock, DAY)
    world.scheduler.wake()
    await world.advance(CONFIRMED + 120)
    assert [await world.status(name) for name in ("running", "planned")] == ["ended", "ended"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_jump_is_told_for_a_while_and_drift_is_not(caplog: pytest.LogCaptureFixture) -> None:
    clock = SimulatedClock()
    time = SteadyTime(clock)

    def is_late() -> float:
        return clock.time() - time.milliseconds() / 1000

    for _ in range(100):  # a clock that is slewed, by hours in all
        clock.advance_sync(60)
        set_by(clock, 20)
        assert abs(is_late()) < 0.01
    assert (time.warning(), caplog.records) == ("", [])
    caplog.set_level(logging.WARNING)
    set_by(clock, DAY)
    assert abs(is_late() - DAY) < 0.01
    assert time.warning() == "the clock was set by +86400 s"
    set_by(clock, -DAY - HOUR)  # back is followed at once: nothing ends by it
    assert abs(is_late()) < 0.01
    assert time.warning() == "the clock was set by -90000 s"
    assert len(caplog.records) == 2
    clock.advance_sync(TOLD + 1)
    assert time.warning() == ""
