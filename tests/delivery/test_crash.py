"""kill -9 at random points of a journalled fan-out over real sockets, checked token by token.

Five rounds; ``APNS_LIVE_KILLS=200`` for the full count.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from apns_live.outcome import Outcome, Verdict
from tests.warm import WarmCommand

from .crash_roles import NAME, STREAMS, token

KILLS = int(os.environ.get("APNS_LIVE_KILLS", "5"))
KILLS_A_RUN = 20
TOKENS = 25_000 if KILLS < KILLS_A_RUN else 50_000
ROLES = ["-m", "tests.delivery.crash_roles"]


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of the two programs until the block ends."""
    process = WarmCommand([*ROLES, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def unknown_tokens(journal: Path) -> set[str]:
    connection = sqlite3.connect(journal)
    rows = connection.execute(
        "SELECT value FROM entry WHERE kind='problem' AND name=?", (NAME,)
    ).fetchall()
    connection.close()
    outcomes = [msgspec.msgpack.decode(row[0], type=Outcome) for row in rows]
    assert {outcome.verdict for outcome in outcomes} <= {Verdict.UNKNOWN}
    return {outcome.token for outcome in outcomes}


def run_once(directory: Path, ready: str, log: Path, kills: int, draw: random.Random) -> None:
    """One fan-out, killed ``kills`` times at most, and resumed each time."""
    journal = directory / "journal.db"
    unknown_before = done_kills = 0
    for attempt in range(kills + 1):
        with started("send", ready, str(journal), str(TOKENS)) as sender:
            first = json.loads(sender.stdout.readline())
            # What a crash left in doubt: what was in flight, and at most 1,000 more.
            assert first["unknown"] - unknown_before <= STREAMS + 1000
            unknown_before = first["unknown"]
            if attempt < kills:
                size = log.stat().st_size
                while log.stat().st_size == size and sender.poll() is None:
                    time.sleep(0.001)
                time.sleep(draw.uniform(0, 0.25))
                if sender.poll() is None:
                    sender.send_signal(signal.SIGKILL)
                    done_kills += 1
                    continue
            last = json.loads(sender.stdout.readline())
            assert sender.wait() == 0
            break
    assert last["finished"]
    sent = log.read_text().split()
    unknown = unknown_tokens(journal)
    everybody = {token(number) for number in range(TOKENS)}
    assert set(sent) | unknown == everybody, "a token was lost"
    assert len(sent) == len(set(sent)), "a start was sent twice"
    assert last["counts"].get("unknown", 0) == len(unknown) <= done_kills * (STREAMS + 1000)
    assert last["counts"]["accepted"] == TOKENS - len(unknown)
    assert done_kills == kills, "the fan-out was over before every kill"


def test_kill_at_random_points_loses_nothing_and_doubles_nothing(tmp_path):
    draw = random.Random(20261120)
    left = KILLS
    while left > 0:
        directory = tmp_path / f"run-{left}"
        directory.mkdir()
        log = directory / "log"
        log.touch()
        with started("fake", str(log)) as fake:
            kills = min(left, KILLS_A_RUN)
            run_once(directory, fake.stdout.readline(), log, kills, draw)
            left -= kills
