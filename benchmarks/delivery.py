"""The field case: latest state wins, beside a plain first-in-first-out queue over the same pool.

Everything runs on a simulated clock, so the ages are exact and do not depend on this machine.
"""

from __future__ import annotations

import asyncio

from benchmarks import field_case
from benchmarks.pages import Bar, figures, finish, options, result

POOLS = (("8 connections of 1,000 streams", 8000), ("200 senders, as in the field", 200))


def main(arguments: list[str]) -> int:
    """Run both senders over both pools and print them side by side."""
    parser = options("delivery", __doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--updates", type=int, default=field_case.UPDATES)
    parser.add_argument("--tokens", type=int, default=field_case.TOKENS)
    given = parser.parse_args(arguments)
    settings = {
        "case": f"{given.tokens:,} tokens, {given.updates} updates a second apart, answers after 80 ms, "
        "14 % of tokens expired, 1 % of pushes withheld for 10 s and lost if reset",
        "asked": "every simulated second at every living phone, 50 ms after an update; "
        "age of the shown state, 0 for the newest",
    }
    found = result("delivery", "The field case: how old is what the phones show", settings)
    bars: list[Bar] = []
    for pool, room in POOLS:
        for seed in range(1, given.seeds + 1):
            for name in ("delivery", "queue"):
                case = field_case.run(
                    name, seed=seed, tokens=given.tokens, updates=given.updates, pool=room
                )
                got = asyncio.run(case)
                found.runs.append(
                    figures(
                        f"{name}, {pool}, seed {seed}",
                        median_s=got.median,
                        p99_9_s=got.high,
                        worst_s=got.worst,
                        all_final_after_s=got.finished_after,
                        pushes=got.pushes,
                        to_expired=got.dead_pushes,
                        overtaken=got.overtaken,
                    )
                )
                if name == "delivery" and room == field_case.POOL:
                    bars += [
                        Bar(f"median age, seed {seed}", got.median, 2.0, at_least=False, unit="s"),
                        Bar(f"99.9th percentile, seed {seed}", got.high, 8.0, False, "s"),
                        Bar(f"worst, seed {seed}", got.worst, 15.0, False, "s"),
                    ]
    return finish(found, bars, given)
