"""The service with a million devices, three tokens each, on SQLite and on PostgreSQL.

Registering in batches; then a start for a segment of three tenths of the devices, every outcome stored,
beside the bare client's fan_out of the same message to the same sink. Rounds alternate the two.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.activities_work import BATCH, CONNECTIONS, FOLLOWERS
from benchmarks.conditions import conditions, program_version
from benchmarks.report import Bar, Report
from tests.postgres import postgres
from tests.programs import program
from tests.servers import Server, nginx

DEVICES = 1_000_000
SERVER_CORE = 0
TIMEOUT = 3_600
KINDS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

Found = dict[str, Any]


def _work(what: str, **options: object) -> Found:
    command = [sys.executable, "-m", "benchmarks.activities_work", what]
    command += [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if run.returncode:
        raise RuntimeError(f"{what} failed: {run.stderr[-3000:]}")
    found: Found = json.loads(run.stdout.splitlines()[-1])
    return found


@contextlib.contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    """Give the address of an empty database of this kind, its data below ``folder``."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/service.db"
        return
    with postgres(folder / "data", runtime=folder) as address:
        yield address


def _measure(kind: str, server: Server, devices: int, rounds: int, folder: Path) -> Found:
    with _database(kind, folder) as address:
        registered = _work("register", address=address, count=devices)
        print(f"{KINDS[kind]}: registered", file=sys.stderr, flush=True)
        to = {"port": server.port, "ca": server.ca_file}
        starts, bare = [], []
        for turn in range(rounds):
            for what in ("start", "bare") if turn % 2 == 0 else ("bare", "start"):
                if what == "start":
                    starts.append(_work("start", address=address, **to))
                else:
                    bare.append(_work("bare", count=devices * FOLLOWERS // 10, **to))
            print(f"{KINDS[kind]}: round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    return {"registered": registered, "starts": starts, "bare": bare}


def _row(kind: str, found: Found) -> tuple[str, ...]:
    registered, starts = found["registered"], found["starts"]
    return (
        KINDS[kind],
        f"{registered['tokens'] / registered['wall']:,.0f}",
        f"{registered['slowest'] * 1000:,.0f}",
        f"{max(one['first'] for one in starts) * 1000:,.0f}",
        f"{statistics.median(one['accepted'] / one['wall'] for one in starts):,.0f}",
        f"{statistics.median(one['accepted'] / one['wall'] for one in found['bare']):,.0f}",
        f"{_ratio(found):.2f}",
        f"{statistics.median(one['cpu'] / one['accepted'] * 1e6 for one in starts):,.0f}",
        f"{_peak(found):,.0f}",
    )


def _ratio(found: Found) -> float:
    pairs = zip(found["starts"], found["bare"], strict=True)
    return statistics.median(
        (ours["accepted"] / ours["wall"]) / (theirs["accepted"] / theirs["wall"])
        for ours, theirs in pairs
    )


def _peak(found: Found) -> float:
    return max(one["peak"] for one in (found["registered"], *found["starts"])) / 1e6


def _bars(kind: str, found: Found) -> list[Bar]:
    name, registered = KINDS[kind], found["registered"]
    first = max(one["first"] for one in found["starts"])
    return [
        Bar(
            f"{name}: registering",
            registered["tokens"] / registered["wall"],
            5_000,
            unit="tokens/s",
        ),
        Bar(f"{name}: first push after the call", first, 1.0, at_least=False, unit="s"),
        Bar(f"{name}: start with outcomes stored / bare fan_out", _ratio(found), 0.25),
        Bar(f"{name}: peak memory", _peak(found), 300, at_least=False, unit="MB"),
    ]


def main(arguments: list[str]) -> int:
    """Measure on both databases; return 1 when a push failed, or a bar is missed with ``--enforce``."""
    parser = argparse.ArgumentParser(prog="benchmarks activities", description=__doc__)
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=list(KINDS))
    parser.add_argument("--folder", help="where the databases are made (needs 3 GB for a million)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--enforce", action="store_true")
    given = parser.parse_args(arguments)
    report = Report("activities", "The service: a million devices", conditions())
    found: dict[str, Found] = {}
    with nginx(keepalive_requests=100_000_000, streams=1_000, core=SERVER_CORE) as server:
        for kind in KINDS if given.only is None else [given.only]:
            with tempfile.TemporaryDirectory(prefix="apns-live-", dir=given.folder) as folder:
                found[kind] = _measure(kind, server, given.devices, given.rounds, Path(folder))
    segment = given.devices * FOLLOWERS // 10
    report.settings = {
        "devices": f"{given.devices:,} with three tokens each, registered {BATCH:,} devices a call",
        "start": f"to a saved segment of {segment:,} devices (a tag), {CONNECTIONS} connections at most; "
        "from the call until every outcome is stored",
        "bare": "client.fan_out of the same message to as many tokens of a generator, outcomes read",
        "sink": f"{program_version(program('nginx'), '-v')} on core {SERVER_CORE}, answers 200",
        "databases": "SQLite in WAL with synchronous NORMAL; PostgreSQL 18 on this machine as it comes",
        "rounds": f"{given.rounds}, alternating; rates are medians, first push and memory the worst",
    }
    report.columns = (
        "database", "registered tokens/s", "slowest call ms", "first push ms", "start pushes/s",
        "bare pushes/s", "ratio", "CPU us/push", "peak MB",
    )  # fmt: skip
    report.rows = [_row(kind, one) for kind, one in found.items()]
    report.bars = [bar for kind, one in found.items() for bar in _bars(kind, one)]
    report.notes = [
        "Memory and CPU are those of the sending process, without the database's server."
    ]
    report.raw = found
    print(report.json() if given.json else report.text())
    if given.record:
        report.record()
    lost = [
        run
        for one in found.values()
        for run in (*one["starts"], *one["bare"])
        if run["failed"] or run["accepted"] != segment
    ]
    if lost:
        print(f"not every push was accepted: {lost}", file=sys.stderr)
    return 1 if lost or (given.enforce and not report.met) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
