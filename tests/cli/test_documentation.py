"""docs/cli.md says what the command says: every command, every option, every exit code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apns_live.cli.app import load
from apns_live.cli.options import CONNECTION, MESSAGE, SENDING, SERVING
from apns_live.cli.output import ExitCode
from apns_live.settings.table import TABLE
from tests.warm import run_command
from tests.workshop.settings_page import row, written

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
SHARED = {parameter.name for parameter in (*CONNECTION, *MESSAGE, *SENDING, *SERVING)}


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


def flags(parameters: Iterable[Any]) -> set[str]:
    """The options of settings, each with its opposite."""
    infos = [one.annotation.__metadata__[0] for one in parameters]
    # An Annotated option keeps its first flag where a default would stand.
    written = [flag for info in infos for flag in (info.default, *(info.param_decls or ()))]
    return {flag for each in written for flag in each.split("/")}


def test_the_shared_options_are_listed() -> None:
    message = listed(sections()["Message"])
    assert message == flags(MESSAGE)
    for name in ("send", "fan-out", "broadcast"):
        assert options(COMMANDS[name], shared=True) == message | flags(CONNECTION)
    for name, command in COMMANDS.items():
        if name.partition(" ")[0] in ("channels", "token", "doctor"):
            assert options(command, shared=True) == flags(CONNECTION)
    assert options(COMMANDS["gateway"], shared=True) == flags(SERVING)
    assert options(COMMANDS["worker"], shared=True) == flags(SENDING)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json(name: str) -> None:
    assert "--json" in {flag for parameter in COMMANDS[name].params for flag in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option":
            assert parameter.help, parameter.name


def test_the_exit_codes_are_listed() -> None:
    rows = re.findall(r"^\| (\d+) \| .+ \|$", sections()["Exit codes"], flags=re.MULTILINE)
    assert rows == [str(int(code)) for code in ExitCode]


def test_the_settings_are_listed() -> None:
    """One table: what is read from arguments, variables and file stands in the page, in its order."""
    assert written(PAGE) == PAGE, "run python -m tests.workshop.settings_page"
    for one in TABLE:
        assert row(one) in sections()["Settings"]
    with pytest.raises(ValueError, match="0 tables"):
        written("")


def test_options_are_those_of_the_table() -> None:
    offered = flags(CONNECTION) | flags(SERVING) | {"--database"}
    plain = {flag for flag in offered if not flag.startswith("--no-")}
    assert plain - {"--config"} == {one.option for one in TABLE if one.has_option}


def test_help_names_variable_and_table_of_the_gateways_settings() -> None:
    help_ = run_command(["gateway", "--help"]).stdout
    assert "APNS_LIVE_SERVICE_NAME, or the table service of apns-live.toml" in help_
