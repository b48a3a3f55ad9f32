"""The field case: latest state wins, beside a plain first-in-first-out queue over the same pool.

Everything runs on a simulated clock, so the ages are exact and do not depend on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from benchmarks import field_case
from benchmarks.conditions import conditions
from benchmarks.report import Bar, Report

POOLS = (("8 connections of 1,000 streams", 8000), ("200 senders, as in the field", 200))


def main(arguments: list[str]) -> int:
    """Run both senders over both pools and print them side by side."""
    parser = argparse.ArgumentParser(prog="benchmarks delivery", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--updates", type=int, default=field_case.UPDATES)
    parser.add_argument("--tokens", type=int, default=field_case.TOKENS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args(arguments)
    report = Report("delivery", "The field case: how old is what the phones show", conditions())
    report.settings = {
        "case": f"{given.tokens:,} tokens, {given.updates} updates a second apart, answers after 80 ms, "
        "14 % of tokens expired, 1 % of pushes withheld for 10 s and lost if reset",
        "asked": "every simulated second at every living phone, 50 ms after an update; "
        "age of the shown state, 0 for the newest",
    }
    report.columns = (
        "pool",
        "sender",
        "seed",
        "median s",
        "p99.9 s",
        "worst s",
        "all final after s",
        "pushes",
        "to expired",
        "overtaken",
        "machine s",
    )
    for pool, room in POOLS:
        for seed in range(1, given.seeds + 1):
            for name in ("delivery", "queue"):
                got = asyncio.run(
                    field_case.run(
                        name, seed=seed, tokens=given.tokens, updates=given.updates, pool=room
                    )
                )
                report.rows.append(
                    (pool, name, str(seed), f"{got.median:.2f}", f"{got.high:.2f}",
                     f"{got.worst:.2f}", f"{got.finished_after:.0f}", f"{got.pushes:,}",
                     f"{got.dead_pushes:,}", f"{got.overtaken:,}", f"{got.seconds:.1f}")
                )  # fmt: skip
                if name == "delivery" and room == field_case.POOL:
                    report.bars += [
                        Bar(f"median age, seed {seed}", got.median, 2.0, at_least=False, unit="s"),
                        Bar(f"99.9th percentile, seed {seed}", got.high, 8.0, False, "s"),
                        Bar(f"worst, seed {seed}", got.worst, 15.0, False, "s"),
                    ]
    print(report.json() if given.json else report.text())
    if given.record:
        report.record()
    return 0 if report.met else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
