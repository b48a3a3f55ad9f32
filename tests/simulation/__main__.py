"""Run simulated worlds: ``python -m tests.simulation --seeds 2000``.

A world that fails is shortened to the fewest actions that still fail, and printed with the command
that runs it again. ``--from`` and ``--state FILE`` let a long run go on where it was stopped.
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
from .run import run_seed, shortened


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
    plan, complaints, _ = run_seed(seed)
    print(plan)
    if not complaints:
        print("everything held")
        return 0
    short = shortened(plan)
    print(*complaints, "", "Shortened:", short, sep="\n")
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
    began = time.monotonic()
    seed = first
    for seed, complaints, took in _results(first, last, chosen.jobs):
        seconds.append(took)
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
    seconds.sort()
    figures = {
        "worlds": len(seconds),
        "failures": len(failures),
        "first_failure": failures[0] if failures else None,
        "cpu_median_ms": round(1000 * seconds[len(seconds) // 2], 1) if seconds else 0.0,
        "cpu_mean_ms": round(1000 * sum(seconds) / len(seconds), 1) if seconds else 0.0,
        "cpu_longest_ms": round(1000 * seconds[-1], 1) if seconds else 0.0,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(figures) if chosen.json else figures)
    return 1 if failures else 0


def _results(first: int, last: int, jobs: int) -> Iterator[tuple[int, list[str], float]]:
    if jobs == 1:
        yield from map(_result, range(first, last))
        return
    # What a process that crashed had in hand stays in memory: a `Push` is not seen by the collector.
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs, maxtasksperchild=50) as pool:
        yield from pool.imap(_result, range(first, last), chunksize=20)


def _result(seed: int) -> tuple[int, list[str], float]:
    _, complaints, took = run_seed(seed)
    if seed % 50 == 0:
        gc.collect()
    return seed, complaints, took


if __name__ == "__main__":
    sys.exit(main())
