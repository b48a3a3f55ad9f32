"""Run one world and judge it; find the shortest plan that still fails."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass

from .checks import check
from .draw import draw
from .effects import Tally
from .plan import Plan
from .world import World


@dataclass(frozen=True)
class Result:
    """What came of one world: ``complaints`` is empty if everything held."""

    plan: Plan
    complaints: list[str]
    cpu_seconds: float
    tally: Tally


def judge(plan: Plan) -> Result:
    """Run a world and judge it."""
    began = time.process_time()
    world = World(plan)
    world.run()
    check(world)
    tally = Tally(Counter(world.effects.drawn), world.effects.seen)
    return Result(plan, world.complaints, time.process_time() - began, tally)


def run_plan(plan: Plan) -> list[str]:
    """Return what does not hold in a world."""
    return judge(plan).complaints


def run_seed(seed: int) -> Result:
    """Draw the world of a seed, run it and judge it."""
    return judge(draw(seed))


def _kind(complaints: list[str]) -> str:
    """Return the first complaint without its numbers: what a shorter plan must show as well."""
    return re.sub(r"[0-9a-f]{8}|[0-9.]+", "", complaints[0])[:60] if complaints else ""


def shortened(plan: Plan, *, most_runs: int = 300) -> Plan:
    """Return a plan with fewer actions that still fails, by leaving out ever smaller parts."""
    wanted = _kind(run_plan(plan))
    runs = 0
    size = max(1, len(plan.actions) // 2)
    while size:
        start = 0
        while start < len(plan.actions) and runs < most_runs:
            shorter = plan.without(set(range(start, start + size)))
            runs += 1
            if _kind(run_plan(shorter)) == wanted:
                plan = shorter
            else:
                start += size
        size = size // 2 if runs < most_runs else 0
    return plan
