"""docs/cli.md says what the command says: every command, every option, every exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apns_live.cli.app import load
from apns_live.cli.options import CONNECTION, MESSAGE
from apns_live.cli.output import EXIT_CODES
from apns_live.settings import TABLE

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
SHARED = {parameter.name for parameter in (*CONNECTION, *MESSAGE)}


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(path), command
        return
    for name, each in below.items():
        yield from commands(each, (*path, name))


COMMANDS = dict(commands(load()))


def options(command: Any, *, shared: bool) -> set[str]:
    return {
        flag
        for parameter in command.params
        if parameter.param_type_name == "option"
        and parameter.name not in ("json_mode", "help")
        and (parameter.name in SHARED) == shared
        for flag in (*parameter.opts, *parameter.secondary_opts)
    }


def listed(section: str) -> set[str]:
    rows = re.findall(r"^\| (`-.+?`) \|", section, flags=re.MULTILINE)
    return {flag for row in rows for flag in re.findall(r"`(-[^`]+)`", row)}


def test_every_command_has_its_section() -> None:
    named = {title.removeprefix("apns-live ") for title in sections() if title[:5] == "apns-"}
    assert named == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_listed(name: str) -> None:
    assert listed(sections()[f"apns-live {name}"]) == options(COMMANDS[name], shared=False)


def test_the_shared_options_are_listed() -> None:
    parts = sections()
    shared = listed(parts["Connection and key"]) | listed(parts["Message"])
    assert shared == options(COMMANDS["send"], shared=True)
    for name in ("fan-out", "broadcast"):
        assert options(COMMANDS[name], shared=True) == shared
    for name, command in COMMANDS.items():
        if name.partition(" ")[0] in ("channels", "token"):
            assert options(command, shared=True) == listed(parts["Connection and key"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json(name: str) -> None:
    flags = {flag for parameter in COMMANDS[name].params for flag in parameter.opts}
    assert "--json" in flags


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name


def test_the_exit_codes_are_listed() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", sections()["Exit codes"], flags=re.MULTILINE))
    assert rows == {str(int(code)): text for code, text in EXIT_CODES.items()}


def test_the_settings_are_listed() -> None:
    rows = re.findall(r"^\| `(.+)` \| `(.+)` \| (.+) \|$", sections()["Settings"], re.MULTILINE)
    assert rows == [(setting.name, setting.variable, setting.help) for setting in TABLE]
