"""P23 and the figures from the field, on the simulated clock."""

from __future__ import annotations

from benchmarks import field_case
from tests.counts import count

TOKENS = count(4_000, soak=field_case.TOKENS)


async def test_p23_the_field_case_keeps_phones_fresh():
    """P23: 153 updates, 14 % expired, 1 % withheld: done in time, expired listed.

    12,139 tokens on 8,000 streams in ``make soak`` and the benchmark, a third of both otherwise.
    """
    pool = field_case.POOL * TOKENS // field_case.TOKENS
    got = await field_case.run("delivery", tokens=TOKENS, pool=pool, patience=60.0)
    assert got.median < 2
    assert got.high < 8
    assert got.worst < 15
    assert got.on_final == got.alive > 0.83 * TOKENS
    assert got.overtaken == 0
    # Expired tokens are asked once and reported once.
    assert got.reported_dead == got.dead_pushes == TOKENS - got.alive


async def test_a_pool_too_small_for_every_state_still_shows_the_newest():
    """The senders of the field: 200 pushes at a time. A queue is a thousand seconds behind there."""
    ours = await field_case.run("delivery", tokens=6000, updates=60, pool=100, patience=120.0)
    plain = await field_case.run("queue", tokens=6000, updates=60, pool=100, patience=0.0)
    assert ours.median < 6
    assert ours.on_final == ours.alive
    assert ours.overtaken == 0
    assert plain.median > 4 * ours.median
    assert plain.overtaken > 0
