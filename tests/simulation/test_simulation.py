"""Many simulated worlds, and the proof that the simulator finds what it is there to find."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from unittest import mock

import pytest

from apns_live.testing.engine import Engine
from apns_live.testing.faults import Faults
from apns_live.testing.wire import WireConnection

from . import defects
from .draw import draw
from .effects import Tally
from .network import Link
from .plan import Action, Plan
from .run import Result, judge, run_plan, run_seed, shortened
from .world import World

WORLDS = int(os.environ.get("APNS_LIVE_WORLDS", "2000"))
_CHUNK = 100


@pytest.fixture(scope="session")
def tallies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which the processes of one run collect their counts."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "worlds"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("first", range(0, WORLDS, _CHUNK))
def test_everything_holds_in_every_world(first: int, tallies: Path) -> None:
    tally = Tally()
    for seed in range(first, min(first + _CHUNK, WORLDS)):
        result = run_seed(seed)
        tally.add(result.tally)
        if result.complaints:
            pytest.fail(
                "\n".join(
                    [
                        *result.complaints,
                        "",
                        str(shortened(result.plan)),
                        f"python -m tests.simulation --seed {seed}",
                    ]
                )
            )
    unfinished = tallies / f"{first}.unfinished"
    unfinished.write_bytes(pickle.dumps(tally))
    unfinished.rename(tallies / f"{first}.tally")
    # The test that ends last sees the counts of all.
    parts = list(tallies.glob("*.tally"))
    if WORLDS >= 2_000 and len(parts) == len(range(0, WORLDS, _CHUNK)):
        for part in parts:
            tally.add(pickle.loads(part.read_bytes()))
        assert not tally.without_effect(), tally


def _run(*troubles: Action) -> Result:
    """Run a small world in which messages are sent before and after some troubles."""
    sends = [
        Action(at, "send", {"count": 1, "event": "update", "deadline": None}) for at in (0.1, 1.0)
    ]
    actions = sorted([*sends, *troubles], key=lambda each: each.at)
    return judge(Plan(1, {**draw(1).settings, "journal": False}, tuple(actions)))


_ANSWERS = Action(0.0, "fault", {"action": "answer", "status": 429, "reason": "TooManyRequests",
                                 "lasting": 0.5})  # fmt: skip
_SETTINGS = Action(0.0, "fault", {"action": "settings", "settings": {3: 5}, "lasting": 5.0})


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Faults, "choose"),
        (WireConnection, "data_received"),
        (Engine, "_respond"),
        (World, "_heard"),
    ],
)
def test_an_error_inside_the_simulated_apns_fails_the_world(owner: type, name: str) -> None:
    assert _run(_SETTINGS).complaints == []
    with mock.patch.object(owner, name, side_effect=TypeError("a mistake")):
        complaints = _run(_SETTINGS).complaints
    assert any("TypeError('a mistake')" in each for each in complaints)


@pytest.mark.parametrize(
    ("kind", "trouble", "owner", "name", "result"),
    [
        ("SETTINGS 3=5", _SETTINGS, Faults, "choose", []),
        ("answer TooManyRequests", _ANSWERS, Faults, "choose", []),
        ("GOAWAY Shutdown", Action(0.5, "goaway", {"reason": "Shutdown", "last": None}),
         WireConnection, "go_away", None),
        ("cut", Action(0.5, "cut", {"all": True}), Link, "cut", None),
    ],
)  # fmt: skip
def test_a_fault_that_is_switched_off_has_no_effect(
    kind: str, trouble: Action, owner: type, name: str, result: object
) -> None:
    assert _run(trouble).tally.without_effect() == []
    with mock.patch.object(owner, name, return_value=result):
        assert _run(trouble).tally.without_effect() == [kind]


def test_a_newer_state_that_was_stopped_on_its_way_may_be_shown() -> None:
    plan = draw(173425)
    needed = {2, 3, 6, 10, 18, 25}
    assert run_plan(plan.without(set(range(len(plan.actions))) - needed)) == []


def test_a_world_repeats_exactly() -> None:
    for seed in (3, 7, 11):
        assert str(draw(seed)) == str(draw(seed))
        once, again = run_seed(seed), run_seed(seed)
        assert (once.complaints, once.tally) == (again.complaints, again.tally)


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
