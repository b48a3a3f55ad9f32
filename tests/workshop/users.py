"""Plays four kinds of user from the built wheel: ``make extras`` runs it. Needs a package index.

Each gets an empty folder, and all share one environment, into which each installs what README says; what an extra
brings by itself is tried in `tests.workshop.extras`. The commands and examples are read from README, section by section,
and run as printed; only ``apns-live`` in ``pip install`` becomes the wheel.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.servers import stop
from tests.workshop.examples import Example, examples_of, fill_in
from tests.workshop.requirements import ROOT

LIMIT = 300.0
"""Seconds that one command may take."""
README = ROOT / "README.md"
TEXT = README.read_text("utf-8")
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def section(heading: str) -> tuple[int, int]:
    """Return where a section of README begins and ends. Raises ValueError when it is gone."""
    start = TEXT.index(f"## {heading}")
    end = TEXT.find("\n## ", start)
    return start, len(TEXT) if end < 0 else end


def commands(heading: str, begin: str) -> list[str]:
    """Return the shell commands of a section that begin so. Raises SystemExit when none does."""
    text = TEXT[slice(*section(heading))]
    lines = [
        line.partition("  #")[0] for block in SHELL.findall(text) for line in block.splitlines()
    ]
    found = [line for line in lines if line.startswith(begin)]
    if not found:
        raise SystemExit(f"README has no command {begin!r} under {heading!r}")
    return found


def examples(heading: str) -> list[Example]:
    """Return the Python examples of a section. Raises SystemExit when there is none."""
    first, last = (TEXT.count("\n", 0, place) + 1 for place in section(heading))
    found = [one for one in examples_of(README) if first <= one.line <= last]
    if not found:
        raise SystemExit(f"README has no example under {heading!r}")
    return found


class Desk:
    """An empty folder, and the environment beside it, in which ``install`` (a line of README) was run."""

    def __init__(self, folder: Path, wheel: Path, install: str, *more: str) -> None:
        self.folder = folder / "empty"
        self.folder.mkdir(parents=True)
        self.python = folder.parent / "venv" / "bin" / "python"
        paths = (str(self.python.parent), "/usr/bin", "/bin")
        self.env = {"PATH": os.pathsep.join(paths), "HOME": str(self.folder), "TMPDIR": str(folder)}
        self.run(re.sub(r"\bapns-live\b", str(wheel), install).replace("pip ", "pip -q ", 1))
        if more:
            self.run(shlex.join(["pip", "-q", "install", *more]))

    def run(self, command: str, given: str | None = None) -> str:
        """Run a line in a shell and return what it prints. Raises SystemExit when it fails."""
        done = subprocess.run(
            command,
            shell=True,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=self.env,
            timeout=LIMIT,
        )
        if done.returncode:
            raise SystemExit(f"{command[:200]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    @contextmanager
    def started(self, command: str) -> Iterator[dict[str, Any]]:
        """Yield the line with which a server says that it is ready."""
        words = shlex.split(command)
        words[0] = str(self.python.parent / words[0])
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, cwd=self.folder, env=self.env
        ) as server:
            try:
                assert server.stdout is not None
                yield json.loads(server.stdout.readline())
            finally:
                stop(server)


PYTEST = (
    "python -m pytest -q -W error -o asyncio_mode=auto"
    " -o asyncio_default_fixture_loop_scope=function"
)
FAKE = "You test an app, without a phone"


def embeds(folder: Path, wheel: Path) -> None:
    """The demo, then each example of the library against the fake."""
    install, demo = commands("Two commands", "pip ")[0], commands("Two commands", "apns-live ")[0]
    desk = Desk(folder, wheel, install)
    desk.run(demo)
    with desk.started(commands(FAKE, "apns-live fake")[0]) as ready:
        for one in examples("You embed it in a backend"):
            given = json.dumps({"code": one.code, "then": one.then, "ready": ready})
            # -P: the folder of the script is not searched, so the package comes from the wheel.
            desk.run(f"python -P {shlex.quote(str(ROOT / 'tests/workshop/examples.py'))}", given)


def tests_an_app(folder: Path, wheel: Path) -> None:
    """The test with the fixture, and the fake as a program."""
    desk = Desk(folder, wheel, commands("Two commands", "pip ")[0], "pytest", "pytest-asyncio")
    with desk.started(commands(FAKE, "apns-live fake")[0]) as ready:
        for one in examples(FAKE):
            (desk.folder / "test_app.py").write_text(fill_in(one.code, ready), "utf-8")
            desk.run(PYTEST)


def runs_the_gateway(folder: Path, wheel: Path) -> None:
    """The gateway beside its fake: it says where it is, and shows its page there."""
    heading = "You are not on Python, or you leave a vendor"
    install = re.search(r"`(pip install [^`]+)`", TEXT[slice(*section(heading))])
    if install is None:
        raise SystemExit(f"README does not say what to install under {heading!r}")
    desk = Desk(folder, wheel, install[1])
    with (
        desk.started(commands(heading, "apns-live gateway")[0]) as ready,
        urllib.request.urlopen(ready["url"], timeout=60) as answer,
    ):
        if b"<html" not in answer.read():
            raise SystemExit(f"{ready['url']} shows no page")


def plans_it(folder: Path, wheel: Path) -> None:
    """Who plans an operation: what an audience needs, before anything is set up."""
    heading = "You must know what to expect"
    desk = Desk(folder, wheel, commands(heading, "pip ")[0])
    for command in commands(heading, "apns-live bench plan"):
        desk.run(command)


USERS: tuple[Callable[[Path, Path], None], ...] = (embeds, tests_an_app, runs_the_gateway, plans_it)


def main() -> int:
    """Return 0 when each user gets through."""
    with tempfile.TemporaryDirectory(prefix="apns-live-users-") as name:
        folder = Path(name)
        words = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "-w",
            name,
            str(ROOT),
        ]
        subprocess.run(words, check=True, timeout=LIMIT)
        (wheel,) = folder.glob("apns_live-*.whl")
        venv.EnvBuilder(with_pip=True).create(folder / "venv")
        for user in USERS:
            user(folder / user.__name__, wheel)
            print(f"{user.__name__}: works as printed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
