"""The shell lines of an operator's pages work as printed, one after the other, in an empty directory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from apns_live.cli import run
from apns_live.testing import FakeApns
from tests.activities.conftest import pem  # noqa: F401 - a fixture
from tests.warm import WarmCommand

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["gateway.md", "gateway-keys.md", "testing-your-app.md"] + [
    f"vendors/{name}.md" for name in ("activitysmith", "braze", "onesignal", "fcm")
]
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
TRY = "apns-live gateway --with-fake --port 0 --dir try --json"
DEVICES = "id,language\nphone-1,de\nphone-2,en\nphone-3,fr\n"


def commands(page: str) -> Iterator[str]:
    """Yield the commands of a page, each in one piece."""
    for block in BLOCK.findall((DOCS / page).read_text("utf-8")):
        piece = ""
        for line in block.splitlines():
            piece += line + "\n"
            with contextlib.suppress(ValueError):
                if not line.endswith("\\") and shlex.split(piece):
                    yield piece.strip()
                    piece = ""
        assert not piece, piece


class Terminal:
    """Runs commands in a directory; what serves goes on beside the others."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **{name: value for name, value in os.environ.items() if name[:9] != "APNS_LIVE"},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.serving: list[subprocess.Popen[str]] = []
        self.ports: dict[str, str] = {}
        self.output = ""

    def local(self, command: str) -> str:
        """Return a command with free ports of this machine in the place of the printed ones."""
        for printed in ("8080", "8090", "8443", "8444"):
            if printed not in self.ports:
                with socket.socket() as found:
                    found.bind(("127.0.0.1", 0))
                    self.ports[printed] = str(found.getsockname()[1])
            command = command.replace(printed, self.ports[printed])
        if command.startswith("curl"):
            command = command.replace(
                "https://live.example.com", f"http://localhost:{self.ports['8080']}"
            )
        return command

    def run(self, command: str) -> str:
        """Run a command to its end; return what it printed."""
        done = subprocess.run(
            ["bash", "-c", self.local(command)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def serve(self, command: str) -> str:
        """Start what serves; return its first line once it is there."""
        command = self.local(command.removesuffix("&").strip())
        words, _, file = command.partition(" > ")
        out = self.directory / (file or f"out-{len(self.serving)}.txt")
        told = re.search(r"--ready-file (\S+)", words)
        line = self.directory / told[1] if told else out
        line.unlink(missing_ok=True)
        with out.open("w") as target:
            program, *rest = shlex.split(words)
            assert program == "apns-live"
            process = WarmCommand(
                rest,
                cwd=self.directory,
                env=self.environment,
                stdout=target,
                stderr=subprocess.PIPE,
                text=True,
            )
        self.serving.append(process)
        give_up = time.monotonic() + 60
        while not (line.exists() and line.read_text().strip()):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < give_up
            time.sleep(0.05)
        return line.read_text()

    def stop_gateways(self) -> None:
        """End the gateways; a fake goes on."""
        fakes = [one for one in self.serving if "fake" in one.args[:1]]  # type: ignore[index]
        self.serving = [one for one in self.serving if one not in fakes]
        self.stop()
        self.serving = fakes

    def stop(self) -> None:
        """End what serves."""
        for process in self.serving:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.serving:
            _, err = process.communicate(timeout=30)
            assert process.returncode == 0, err
        self.serving.clear()


@pytest.fixture
def terminal(tmp_path: Path, pem: str) -> Iterator[Terminal]:  # noqa: F811 - the fixture
    """An empty directory with what the reader has: a provider key, a file of devices."""
    (tmp_path / "AuthKey_ABC123DEFG.p8").write_text(pem)
    (tmp_path / "devices.csv").write_text(DEVICES)
    one = Terminal(tmp_path)
    try:
        yield one
    finally:
        one.stop()


@pytest.mark.external("curl")
def test_the_lines_of_the_pages(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of `PAGES`, over the gateway that the first line starts."""
    monkeypatch.chdir(terminal.directory)
    for name in [name for name in os.environ if name.startswith("APNS_LIVE_")]:
        monkeypatch.delenv(name)

    def apns_live(command: str) -> str:
        if "rotate KEY" in command or "revoke KEY" in command:
            assert run(["keys", "list", "--app", "scores", "--json"]) == 0
            listed = json.loads(capsys.readouterr().out)["keys"]
            command = command.replace("KEY", listed[-1]["id"])
        code = run(shlex.split(command.replace("\\\n", " "))[1:])
        out, err = capsys.readouterr()
        assert code == 0, (command, out, err)
        return out

    for page in PAGES:
        terminal.environment.pop("KEY", None)
        for command in commands(page):
            if command == TRY:
                continue  # test_program runs this line
            if command.startswith("apns-live gateway") or command.endswith("&"):
                if "--apns" in command or "--public-url" in command:
                    terminal.stop_gateways()
                said = terminal.serve(command)
                if command.startswith("apns-live fake"):
                    assert json.loads(said)["endpoint"], "the one line names everything"
            elif command.startswith("until"):
                terminal.run(command)
            elif command.startswith("curl"):
                said, _, status = terminal.run(
                    command.replace("curl ", "curl -sS -w '\\n%{http_code}' ", 1)
                ).rpartition("\n")
                # A vendor's answer to a call that reaches nobody may be 422.
                assert status[:2] == "20" or (status == "422" and "vendors" in page), said
                assert "/imports/" not in command or json.loads(said)["accepted"] == 3
            else:
                said = apns_live(command)
                if "keys create" in command and "KEY" not in terminal.environment:
                    terminal.environment["KEY"] = said.split()[0]


async def phone_shows(phone: Any) -> None:
    """Wait until a phone has a card."""
    while not phone.activities:
        await asyncio.sleep(0.02)


async def test_a_gateway_with_an_apns_that_runs_elsewhere(
    terminal: Terminal, tmp_path: Path
) -> None:
    """As option, and by file: both reach the fake, and a key that is missing is told at once."""
    async with FakeApns(directory=tmp_path / "fake", bundle_id="com.example.scores") as fake:
        (tmp_path / "apns-live.toml").write_text(
            f'[gateway]\napns = "{fake.url}"\napns_manage = "{fake.manage_url}"\n'
            f'apns_ca = "{fake.ca_file}"\n'
        )
        line = terminal.serve("apns-live gateway --port 0 --json")
        url = json.loads(line)["url"]
        terminal.run(
            "apns-live apps add --id scores --bundle-id com.example.scores --environment sandbox "
            f"--key-file {fake.key_file} --key-id {fake.key_id} --team-id {fake.team_id}"
        )
        made = json.loads(
            terminal.run("apns-live keys create --app scores --name x --every-scope --json")
        )
        phone = fake.devices.add_device("p", bundle_id="com.example.scores", attributes_types=["M"])
        token = phone.token_of("start", "M")
        assert token is not None
        headers = {"authorization": f"Bearer {made['secret']}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=20) as http:
            told = {"device": "p", "kind": "start", "attributes_type": "M", "token": token.text}
            assert (await http.post("/v1/tokens", json={"tokens": [told]})).status_code == 200
            start = {
                "id": "m",
                "attributes_type": "M",
                "content_state": {"a": 1},
                "alert": {"title": "t", "body": "b"},
                "audience": {"everyone": True},
            }
            assert (await http.post("/v1/activities", json=start)).status_code == 202
            await asyncio.wait_for(phone_shows(phone), 20)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--apns http://localhost:1", "not the address of an APNs"),
        ("--apns-ca x.pem", "has no effect without --apns"),
        ("--apns https://localhost:1 --apns-ca none.pem", "--apns-ca: there is no file"),
        ("--with-fake --apns https://localhost:1", "--with-fake"),
        ("--certificate a.pem --private-key b.pem", "cannot be read"),
    ],
)
def test_what_cannot_be_is_said_before_anything_listens(
    tmp_path: Path,
    words: str,
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["gateway", *words.split(), "--port", "0"]) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert "http" not in out
