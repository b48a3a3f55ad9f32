"""A fake APNs on its own thread, and programs that run against it in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apns_live import blocking
from apns_live.client import Endpoint
from apns_live.credentials import ProviderKey
from apns_live.testing import ThreadedFakeApns

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def running() -> Iterator[ThreadedFakeApns]:
    with ThreadedFakeApns(seed=1) as running:
        yield running


def arguments(running: ThreadedFakeApns) -> dict[str, Any]:
    """The arguments of a client for this fake."""
    fake = running.fake
    return {
        "key": ProviderKey.from_file(fake.key_file, team_id=fake.team_id),
        "bundle_id": fake.bundle_id,
        "environment": Endpoint(**fake.endpoint._asdict()),
    }


# Since 3.12 Python warns of every fork of a process with threads. That it works is what is tested.
FORKING = "ignore:This process:DeprecationWarning"


@pytest.fixture
def client(running: ThreadedFakeApns) -> Iterator[blocking.Client]:
    with blocking.Client(**arguments(running)) as client:
        yield client


@pytest.fixture
def program(running: ThreadedFakeApns) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program of this directory; it reads where the fake is from its first argument."""
    fake = running.fake
    facts = {
        "key_file": str(fake.key_file),
        "team_id": fake.team_id,
        "bundle_id": fake.bundle_id,
        "endpoint": fake.endpoint._asdict(),
    }
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-W", FORKING, str(PROGRAMS / name), json.dumps(facts), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a program that must end well and silently; return what it printed."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    return out
