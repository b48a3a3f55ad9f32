"""Run simulated worlds: ``python -m tests.simulation --seeds 2000``.

A world that fails is shortened to the fewest actions that still fail, and printed with the command
that runs it again. ``--from`` and ``--state FILE`` let a long run continue where it was stopped.
A run of 2,000 worlds or more also fails if a kind of fault or action never had its effect; it prints
the counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from . import defects
from .effects import Tally
from .run import Result, run_seed, shortened

_ENOUGH = 2_000
"""Worlds in which every kind of fault and action must have had its effect."""


def main() -> int:
    """Return 0 when every world was as it must be, 1 when one was not."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument(
        "--seed", type=int, help="run this world alone and print what happens in it"
    )
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument(
        "--seeds",
        type=int,
        default=int(os.environ.get("APNS_LIVE_WORLDS", "2000")),
        help="how many worlds (default: APNS_LIVE_WORLDS, or 2000)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--state", type=Path, help="a file that remembers how far the run has come")
    parser.add_argument("--defect", choices=sorted(defects.DEFECTS), help="switch a defect back on")
    parser.add_argument(
        "--prove", action="store_true", help="print how many seeds it takes to find each defect"
    )
    parser.add_argument(
        "--keep-going", action="store_true", help="do not stop at the first failure"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    chosen = parser.parse_args()
    if chosen.prove:
        return _prove(chosen)
    with defects.switched_on(chosen.defect):
        if chosen.seed is not None:
            return _one(chosen.seed, chosen.defect)
        return _many(chosen)


def _one(seed: int, defect: str | None) -> int:
    result = run_seed(seed)
    print(result.plan)
    if not result.complaints:
        print("everything held")
        return 0
    short = shortened(result.plan)
    print(*result.complaints, "", "Shortened:", short, sep="\n")
    print(f"Again: {_command(seed, defect)}")
    return 1


def _prove(chosen: argparse.Namespace) -> int:
    """Switch each defect on in its turn, and run worlds until one complains that does not else."""
    found: dict[str, int | None] = {}
    for name in defects.DEFECTS:
        found[name] = next(
            (
                seed
                for seed in range(chosen.first, chosen.first + chosen.seeds)
                if defects.finds(name, seed)
            ),
            None,
        )
        if not chosen.json:
            at = found[name]
            print(f"{name}: {'not found' if at is None else f'world {at}'}", flush=True)
    if chosen.json:
        print(json.dumps(found))
    return 1 if None in found.values() else 0


def _command(seed: int, defect: str | None) -> str:
    more = f" --defect '{defect}'" if defect else ""
    return f"python -m tests.simulation --seed {seed}{more}"


def _many(chosen: argparse.Namespace) -> int:
    first, last = chosen.first, chosen.first + chosen.seeds
    if chosen.state is not None and chosen.state.exists():
        first = min(last, max(first, json.loads(chosen.state.read_text())["next"]))
    failures: list[int] = []
    seconds: list[float] = []
    tally = Tally()
    began = time.monotonic()
    for result in _results(first, last, chosen.jobs):
        seed, complaints = result.plan.seed, result.complaints
        seconds.append(result.cpu_seconds)
        tally.add(result.tally)
        if complaints:
            failures.append(seed)
            print(
                f"world {seed} fails: {complaints[0]}\n  again: {_command(seed, chosen.defect)}",
                flush=True,
            )
            if not chosen.keep_going:
                break
        if seed % 1000 == 999:
            if chosen.state is not None:
                chosen.state.write_text(json.dumps({"next": seed + 1}))
            if not chosen.json:
                rate = len(seconds) / (time.monotonic() - began)
                print(f"{seed + 1 - chosen.first} worlds, {rate:.0f} a second", flush=True)
    if chosen.state is not None and not failures:
        chosen.state.unlink(missing_ok=True)
    idle = tally.without_effect() if len(seconds) >= _ENOUGH else []
    if not chosen.json and len(seconds) >= _ENOUGH:
        print(tally)
        print(*(f"{kind}: drawn, and never had an effect" for kind in idle), sep="\n")
    seconds.sort()
    figures = {
        "worlds": len(seconds),
        "failures": len(failures),
        "first_failure": failures[0] if failures else None,
        "without_effect": idle,
        "cpu_median_ms": round(1000 * seconds[len(seconds) // 2], 1) if seconds else 0.0,
        "cpu_mean_ms": round(1000 * sum(seconds) / len(seconds), 1) if seconds else 0.0,
        "cpu_longest_ms": round(1000 * seconds[-1], 1) if seconds else 0.0,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(figures) if chosen.json else figures)
    return 1 if failures or idle else 0


def _results(first: int, last: int, jobs: int) -> Iterator[Result]:
    if jobs == 1:
        yield from map(_result, range(first, last))
        return
    # What a process that crashed had in hand stays in memory: a `Push` is not seen by the collector.
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs, maxtasksperchild=50) as pool:
        yield from pool.imap(_result, range(first, last), chunksize=20)


def _result(seed: int) -> Result:
    result = run_seed(seed)
    if seed % 50 == 0:
        gc.collect()
    return result


if __name__ == "__main__":
    sys.exit(main())
