"""What the service holds after many lives of activities is no more than after a few."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from tests.activities.send.world import World, a_start, an_end, an_update

CYCLES, BLOCKS = 5, 2
NIGHT = 13 * 3600.0
"""Seconds after which no card of an activity can be left, and its tokens are forgotten."""


def held() -> Counter[str]:
    """Count the live objects of our own classes; the fake remembers what it was sent."""
    gc.collect()
    kinds = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    return Counter(
        {
            kind: count
            for kind, count in kinds.items()
            if kind.startswith("apns_live.") and not kind.startswith("apns_live.testing.")
        }
    )


@pytest.fixture
def store_kind() -> str:
    return "sqlite"


async def _cycle(world: World, name: str) -> None:
    service, app = world.service, world.app
    await world.result_of(service.activities.start(app, a_start(name)))
    await world.settled()
    await world.result_of(service.activities.update(app, an_update(1, name)))
    await world.settled()
    await world.result_of(service.activities.end(app, an_end(2, name)))
    await world.settled()


async def test_start_update_and_end_over_and_over(world: World) -> None:
    await world.add_phones(2)
    after: list[Counter[str]] = []
    for block in range(BLOCKS):
        for number in range(CYCLES):
            await _cycle(world, f"{block}-{number}")
        await world.clock.advance(NIGHT)
        await world.settled()
        after.append(held())
    assert after[0].total() > 50, "something is counted"
    grown = {kind: count for kind, count in (after[-1] - after[0]).items() if count >= CYCLES}
    assert grown == {}
