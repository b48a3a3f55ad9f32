"""Completion, tried with the TAB key in real shells."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm import run_command

BIN = Path(sys.executable).parent
SETUP = {
    "bash": "PS1='> '; bind 'set enable-bracketed-paste off'; eval \"$(apns-live completion bash)\"",
    "zsh": "PS1='> '; unsetopt zle_bracketed_paste; autoload -Uz compinit; compinit -u -d $PWD/dump; "
    'eval "$(apns-live completion zsh)"',
}
START = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-fi"]}


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, shell: str, folder: Path) -> None:
        self.side, theirs = pty.openpty()
        self.seen = ""
        environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(folder)}
        self.process = subprocess.Popen(
            START[shell],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)

    def type(self, keys: str, until: str) -> None:
        """Press keys, and read until the screen shows ``until`` (a pattern)."""
        self.seen = ""
        os.write(self.side, keys.encode())
        while not re.search(until, self.seen):
            ready, _, _ = select.select([self.side], [], [], 60)
            assert ready, f"the shell shows no {until!r}: {self.seen!r}"
            self.seen += os.read(self.side, 4096).decode("utf-8", "replace").replace("\r", "")

    def close(self) -> None:
        """End the shell."""
        self.process.kill()
        self.process.wait()
        os.close(self.side)


@pytest.mark.external("bash", "zsh")
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_tab_key_completes_commands_options_and_choices(shell: str, tmp_path: Path) -> None:
    terminal = Terminal(shell, tmp_path)
    try:
        terminal.type(f"{SETUP[shell]}; echo rea''dy\n", "ready\n")
        terminal.type("apns-live gatew\t", "apns-live gateway ")
        terminal.type("--log-for\t", "--log-format ")
        terminal.type("js\t", "json ")
        # The line is what was meant, and the command takes it.
        terminal.type("--port 70000\n", r"not a valid TCP port")
        terminal.type("apns-live keys ro\t", "apns-live keys rotate ")
    finally:
        terminal.close()


@pytest.mark.external("fish")
def test_fish_completes_commands_options_and_choices(tmp_path: Path) -> None:
    def offered(line: str) -> list[str]:
        said = subprocess.run(
            ["fish", "-N", "-c", f"apns-live completion fish | source; complete -C '{line}'"],
            env={"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return [each.partition("\t")[0] for each in said.splitlines()]

    assert offered("apns-live gatew") == ["gateway"]
    assert offered("apns-live gateway --log-for") == ["--log-format"]
    assert offered("apns-live gateway --log-format ") == ["json", "text"]


def test_another_shell_is_refused() -> None:
    run = run_command(["completion", "tcsh"])
    assert run.returncode == 2
    assert "Use bash, zsh, fish." in run.stderr
