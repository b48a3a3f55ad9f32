"""Plays four kinds of user from the built wheel: ``make extras`` runs it. Needs a package index.

The library embedder, the newcomer and the operator share one environment, into which each installs what the
pages say; `tests.workshop.extras` tries what an extra installs by itself. The maintainer has a copy of the sources.
Each user works in an empty folder. Commands and examples are read from README and the docs, section by section, and
run as printed, with two changes: ``apns-live`` in ``pip install`` becomes the wheel, and ports become free ones.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.servers import stop
from tests.workshop.examples import Example, examples_of, fill_in
from tests.workshop.requirements import ROOT

LIMIT = 600.0
"""Seconds that one command may take."""
SHELL = re.compile(r"^```(?:sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Page:
    """A page of the docs, or one section of it."""

    def __init__(self, name: str, heading: str = "") -> None:
        """Raises ValueError when the page has no such heading."""
        self.name, self.path = f"{name}: {heading}" if heading else name, ROOT / name
        self.text = self.path.read_text("utf-8")
        self.start, self.end = 0, len(self.text)
        if heading:
            self.start = self.text.index(f"## {heading}\n")
            end = self.text.find("\n## ", self.start)
            self.end = len(self.text) if end < 0 else end

    @cached_property
    def lines(self) -> list[str]:
        """Return the shell commands, each in one piece, without prompt and comment."""
        found, piece = [], ""
        for block in SHELL.findall(self.text[self.start : self.end]):
            for line in block.splitlines():
                piece += re.sub(r"\s+#\s.*$", "", line.removeprefix("$ ")) + "\n"
                with suppress(ValueError):  # a quote is open
                    if not line.endswith("\\") and shlex.split(piece):
                        found.append(piece.replace("\\\n", "").strip())
                        piece = ""
        return found

    def commands(self, *begin: str) -> list[str]:
        """Return the commands that begin so, in their order. Raises SystemExit when one is missing."""
        for each in begin:
            if not any(line.startswith(each) for line in self.lines):
                raise SystemExit(f"{self.name} has no command {each!r}")
        return [line for line in self.lines if line.startswith(begin)]

    def command(self, begin: str) -> str:
        """Return the first command that begins so. Raises SystemExit when there is none."""
        return self.commands(begin)[0]

    def examples(self) -> list[Example]:
        """Return the Python examples. Raises SystemExit when there is none."""
        first, last = (self.text.count("\n", 0, place) + 1 for place in (self.start, self.end))
        found = [one for one in examples_of(self.path) if first <= one.line <= last]
        if not found:
            raise SystemExit(f"{self.name} has no example")
        return found


class Desk:
    """An empty folder, and the environment in which its commands run."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder / "empty"
        self.folder.mkdir(parents=True)
        self.wheel = wheel
        self.python = folder.parent / "venv" / "bin" / "python"
        paths = (str(self.python.parent), "/usr/bin", "/bin")
        self.env = {"PATH": os.pathsep.join(paths), "HOME": str(self.folder), "TMPDIR": str(folder)}
        self._ports: dict[str, str] = {}

    def _here(self, command: str) -> str:
        """Return a command with free ports in the place of the printed ones."""
        for printed in ("8080", "8443", "8444"):
            if printed in command and printed not in self._ports:
                with socket.socket() as found:
                    found.bind(("127.0.0.1", 0))
                    self._ports[printed] = str(found.getsockname()[1])
            command = command.replace(printed, self._ports.get(printed, printed))
        return command

    def install(self, command: str) -> None:
        """Run a page's ``pip install`` with the wheel."""
        self.run(re.sub(r"\bapns-live\b", str(self.wheel), command).replace("pip ", "pip -q ", 1))

    def run(self, command: str, given: str | None = None) -> str:
        """Run a line in a shell and return what it prints. Raises SystemExit when it fails."""
        done = subprocess.run(
            ["bash", "-c", self._here(command)],
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

    def run_examples(self, page: Page, ready: dict[str, Any]) -> None:
        """Run the examples of a page against the fake. A test goes into the file that pytest runs."""
        for one in page.examples():
            if one.skipped:
                continue
            if one.is_test:
                (self.folder / "test_card.py").write_text(fill_in(one.code, ready), "utf-8")
                self.run(Page(CARD).command("pytest "))
                continue
            given = json.dumps({"code": one.code, "then": one.then, "ready": ready})
            # -P: the folder of the script is not searched, so the package comes from the wheel.
            self.run(f"python -P {shlex.quote(str(ROOT / 'tests/workshop/examples.py'))}", given)

    @contextmanager
    def started(self, command: str) -> Iterator[str]:
        """Yield the line that a server prints when it is ready."""
        words = shlex.split(self._here(command))
        words[0] = str(self.python.parent / words[0])
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, cwd=self.folder, env=self.env, text=True
        ) as server:
            try:
                assert server.stdout is not None
                yield server.stdout.readline()
            finally:
                stop(server)


README, CARD = "README.md", "docs/tutorials/first-card.md"


def library_embedder(desk: Desk) -> None:
    """Installs the library, follows the quick start, and tests an app with the fake."""
    desk.install(Page("docs/quick-start.md").command("pip "))
    desk.install(Page(CARD, "1. Install").command("pip "))
    fake = Page(README, "You test an app, without a phone")
    with desk.started(fake.command("apns-live fake")) as line:
        ready = json.loads(line)
        for page in (
            Page(README, "You embed it in a backend"),
            Page("docs/quick-start.md"),
            Page(CARD, "2. Start a card, update it, end it"),
            fake,
        ):
            desk.run_examples(page, ready)


def newcomer(desk: Desk) -> None:
    """Runs the demo, and the gateway with its fake, and opens the gateway's page."""
    start = Page(README, "Two commands")
    desk.install(start.command("pip "))
    desk.run(start.command("apns-live demo"))
    heading = "You are not on Python, or you leave a vendor"
    page = Page(README, heading)
    install = re.search(r"`(pip install [^`]+)`", page.text[page.start : page.end])
    if install is None:
        raise SystemExit(f"{page.name} does not say what to install")
    desk.install(install[1])
    tried = Page("docs/gateway.md", "Try it without a phone").command(
        "apns-live gateway --with-fake"
    )
    with desk.started(tried) as line:
        url = json.loads(line)["url"]
        with urllib.request.urlopen(url, timeout=60) as answer:
            if b"<html" not in answer.read():
                raise SystemExit(f"{url} shows no page")


def operator(desk: Desk) -> None:
    """Plans an audience, sets up database and gateway, adds an app and keys, and makes a call."""
    expected = Page(README, "You must know what to expect")
    desk.install(expected.command("pip "))
    desk.run(expected.command("apns-live bench plan"))
    store = Page("docs/store.md")
    desk.run(" && ".join(store.commands("apns-live store upgrade", "apns-live store status")))
    desk.run(" && ".join(store.commands("apns-live store new-key")))
    desk.run(f"python -c {shlex.quote(PROVIDER_KEY)}")
    start, keys = Page("docs/gateway.md", "Start it"), Page("docs/gateway-keys.md")
    with desk.started(start.command("apns-live gateway")):
        desk.run(start.command("apns-live apps add"))
        desk.env["KEY"] = desk.run(start.command("apns-live keys create")).split()[0]
        call = Page("docs/gateway.md", "The native API").command("curl ")
        if not json.loads(desk.run(call.replace("curl ", "curl --fail-with-body -sS ", 1)))[
            "operation"
        ]:
            raise SystemExit("the gateway's answer to a start has no operation")
        for command in keys.commands("apns-live keys "):
            listed = json.loads(desk.run("apns-live keys list --app scores --json"))["keys"]
            desk.run(command.replace("KEY", listed[-1]["id"]))


PROVIDER_KEY = """
from pathlib import Path
from apns_live.bench.senders import provider_key
Path("AuthKey_ABC123DEFG.p8").write_text(provider_key())
"""


def maintainer(desk: Desk) -> None:
    """Sets up a copy of the sources, and runs the tests of a file and of a package."""
    left_out = shutil.ignore_patterns(".git", ".venv", "__pycache__", "site", "dist")
    shutil.copytree(ROOT, desk.folder, ignore=left_out, dirs_exist_ok=True)
    page = Page("CONTRIBUTING.md", "Set up")
    for command in page.commands("make setup", ".venv/bin/python "):
        desk.run(command)


USERS: tuple[Callable[[Desk], None], ...] = (library_embedder, newcomer, operator, maintainer)


def main(names: list[str]) -> int:
    """Play the users with these names, or all; return 0 when each of them gets through."""
    with tempfile.TemporaryDirectory(prefix="apns-live-users-") as name:
        folder = Path(name)
        words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "-w"]
        subprocess.run([sys.executable, *words, name, str(ROOT)], check=True, timeout=LIMIT)
        (wheel,) = folder.glob("apns_live-*.whl")
        venv.EnvBuilder(with_pip=True).create(folder / "venv")
        for user in USERS:
            if not names or user.__name__ in names:
                user(Desk(folder / user.__name__, wheel))
                print(f"{user.__name__}: works as printed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
