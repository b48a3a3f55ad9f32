"""A local fake with its control API, and the examples in processes of their own against it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import Started

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass
class Fake:
    """The control API, and the settings file that reaches the fake."""

    api: httpx.Client
    settings: Path

    def phone(self, **facts: Any) -> tuple[dict[str, Any], str]:
        """Make a phone; return it and its push-to-start token."""
        made = self.api.post("/v1/devices", json=facts).raise_for_status().json()
        (token,) = [one["token"] for one in made["tokens"] if one["kind"] == "start"]
        return made, token

    def next_push(self, **wanted: Any) -> dict[str, Any]:
        """Wait for the first push of this kind since ``after``."""
        answer = self.api.get("/v1/pushes/next", params={"timeout": 30, "after": 0, **wanted})
        assert answer.status_code == 200, f"no such push came: {wanted}"
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    folder = tmp_path / "fake"
    with Started(
        ["fake", "--json", "--dir", str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with httpx.Client(base_url=ready["inspector"], timeout=60) as api:
            yield Fake(api, folder / "apns-live.toml")


def environment(fake: Fake) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name[:10] != "APNS_LIVE_"}
    return {**kept, "APNS_LIVE_CONFIG": str(fake.settings), "PYTHONWARNINGS": "error"}


class Program(subprocess.Popen[str]):
    """A program that does not outlive its ``with``, whatever the test did."""

    def __exit__(self, *details: Any) -> None:
        if self.poll() is None:
            self.kill()
        super().__exit__(*details)


@pytest.fixture
def backend(fake: Fake, tmp_path: Path) -> Iterator[Callable[[], httpx.Client]]:
    """Start the football backend over one database, as often as asked; the last one is stopped first."""
    with ExitStack() as stack:
        running: list[Program] = []

        def stop() -> None:
            # Asked to, and not killed: its workers are processes of its own.
            while running:
                old = running.pop()
                old.terminate()
                assert old.wait(30) == 0

        def start() -> httpx.Client:
            stop()
            process = stack.enter_context(
                Program(
                    [sys.executable, "-m", "hypercorn", "app:app", "--bind", "127.0.0.1:0"],
                    cwd=EXAMPLES / "football_match",
                    env={**environment(fake), "MATCH_STORE": str(tmp_path / "match.db")},
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            running.append(process)
            assert process.stderr is not None
            said = ""
            while not (ready := re.search(r"Running on (http://[\d.:]+)", said)):
                line = process.stderr.readline()
                assert line, f"the backend ended: {said}"
                said += line
            return stack.enter_context(httpx.Client(base_url=ready[1], timeout=60))

        yield start
        stop()
