"""The conditions of a measurement: machine, versions, and the speed of a core."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import resource
import ssl
import sys
import time
from pathlib import Path

LIBRARIES = ("apns-live", "hpack", "msgspec", "cryptography", "httpx", "h2", "aioapns", "uvloop")
CALIBRATION_TURNS = 2_000_000
CALIBRATION_ROUNDS = 5


def calibrate(turns: int = CALIBRATION_TURNS, rounds: int = CALIBRATION_ROUNDS) -> float:
    """Return how many million turns a second one core makes of a fixed loop in pure Python.

    The best of the rounds, so that a busy neighbour does not make the core look slower than it is.
    Compare figures between machines by this number.
    """
    best = float("inf")
    for _ in range(rounds):
        value, table = 1, {}
        begin = time.perf_counter()
        for turn in range(turns):
            value = (value * 31 + turn) & 0xFFFF
            table[value & 63] = turn
        best = min(best, time.perf_counter() - begin)
    return turns / best / 1e6


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_bytes() -> int:
    """Return this process's highest resident memory so far; Linux counts kilobytes, macOS bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cores() -> tuple[int | None, int | None]:
    """Return the core for servers and the core for the sender; None where nothing can be pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


def conditions() -> dict[str, str]:
    """Return the conditions as printable pairs. Takes a second: it calibrates."""
    pinned = cores() != (None, None)
    there = {one.name: one.version for one in importlib.metadata.distributions()}
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": cpu_model(),
        "cores": f"{os.cpu_count()}, "
        + ("servers and sender on one each" if pinned else "servers and sender not pinned"),
        "one core": f"{calibrate():.1f} million calibration turns a second",
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "TLS": ssl.OPENSSL_VERSION,
        "libraries": ", ".join(f"{name} {there.get(name, 'absent')}" for name in LIBRARIES),
    }
