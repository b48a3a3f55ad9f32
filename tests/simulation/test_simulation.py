"""Many simulated worlds, and the proof that the simulator finds what it is there to find."""

from __future__ import annotations

import os

import pytest

from . import defects
from .draw import draw
from .run import run_plan, run_seed, shortened

WORLDS = int(os.environ.get("APNS_LIVE_WORLDS", "2000"))
_CHUNK = 100


@pytest.mark.parametrize("first", range(0, WORLDS, _CHUNK))
def test_everything_holds_in_every_world(first: int) -> None:
    for seed in range(first, min(first + _CHUNK, WORLDS)):
        plan, complaints, _ = run_seed(seed)
        if complaints:
            pytest.fail(
                "\n".join(
                    [
                        *complaints,
                        "",
                        str(shortened(plan)),
                        f"python -m tests.simulation --seed {seed}",
                    ]
                )
            )


def test_a_newer_state_that_was_stopped_on_its_way_may_be_shown() -> None:
    plan = draw(173425)
    needed = {2, 3, 6, 10, 18, 25}
    assert run_plan(plan.without(set(range(len(plan.actions))) - needed)) == []


def test_a_world_repeats_exactly() -> None:
    for seed in (3, 7, 11):
        assert str(draw(seed)) == str(draw(seed))
        assert run_seed(seed)[1] == run_seed(seed)[1]


# Where `python -m tests.simulation --prove` finds each; run it again after a change to the drawing.
FOUND_AT = {
    "a join during a sweep": 115,
    "a token of None": 117,
    "recursion": 280,
    "ended activities leak": 8,
    "window 0": 221,
    "waiting room": 8,
    "break": 3,
    "recovery of the ledger": 6,
}


@pytest.mark.parametrize("name", defects.DEFECTS)
def test_a_defect_of_the_past_is_found(name: str) -> None:
    assert defects.finds(name, FOUND_AT[name])
