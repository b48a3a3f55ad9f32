"""The real command in processes of its own, against ``apns-live fake`` over loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.warm import WarmCommand

COMMAND = [sys.executable, "-m", "apns_live.cli"]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON line on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)


class Started(WarmCommand):
    """A process that does not outlive its ``with``, whatever the test did."""

    def __exit__(self, *details: Any) -> None:
        if self.poll() is None:
            self.kill()
        super().__exit__(*details)


@dataclass
class Place:
    """A directory with an ``apns-live.toml`` that reaches the fake, to run commands in."""

    directory: Path

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("APNS_LIVE_")}
        return {**kept, "NO_COLOR": "1", "COLUMNS": "200"}

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        return Started(
            words,
            cwd=self.directory,
            env={**self.environment(), **more.pop("env", {})},
            stdin=more.pop("stdin", subprocess.PIPE),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def run(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> Result:
        with self.start(*words, env=env or {}) as process:
            out, err = process.communicate(stdin, timeout=60)
        assert "Traceback" not in err, err
        return Result(process.returncode, out, err)

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return name

    def read(self, name: str) -> str:
        return (self.directory / name).read_text("utf-8")

    def lines(self, name: str) -> list[str]:
        return self.read(name).splitlines()


@dataclass
class Fake:
    ready: dict[str, Any]
    settings: str


def run_fake(directory: Path, *words: str) -> Iterator[Fake]:
    """Run ``apns-live fake`` until the test has ended."""
    process = WarmCommand(
        ["fake", "--json", "--dir", str(directory), "--no-inspector", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield Fake(json.loads(line), (directory / "apns-live.toml").read_text("utf-8"))
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=30)
            assert (process.returncode, out, err) == (0, "", "")


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fake]:
    """A good day. Tokens that begin with 410 have expired, with 400 are bad, with 503 find no server."""
    directory = tmp_path_factory.mktemp("fake")
    scenario = directory / "scenario.toml"
    scenario.write_text(
        """
        [[fault]]
        action = "answer"
        token = "410"
        status = 410
        reason = "ExpiredToken"
        timestamp = 1800000000000

        [[fault]]
        action = "answer"
        token = "400"
        status = 400
        reason = "BadDeviceToken"

        [[fault]]
        action = "answer"
        token = "403"
        status = 403
        reason = "InvalidProviderToken"

        [[fault]]
        action = "disconnect"
        token = "dead"
        """,
        "utf-8",
    )
    yield from run_fake(directory, "--scenario", str(scenario))


@pytest.fixture
def place(fake: Fake, tmp_path: Path) -> Place:
    tmp_path.joinpath("apns-live.toml").write_text(fake.settings, "utf-8")
    return Place(tmp_path)


@pytest.fixture
def cli(place: Place) -> Callable[..., Result]:
    return place.run


def tokens(count: int, prefix: str = "ab") -> list[str]:
    return [f"{prefix}{number:0{64 - len(prefix)}x}" for number in range(count)]
