"""Options: tables of their descriptions, shared options, and the decorator that reads them."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ..errors import InvalidSetting
from ..settings import DEFAULT_FILE, FILE_VARIABLE, PREFIX, Setting, Settings
from ..settings.table import APNS, CLIENT, GATEWAY, SERVICE
from .output import Screen

Bundle = tuple[inspect.Parameter, ...]
_LINE = re.compile(
    r"(?:(?P<flags>-[^\s:]+(?: -[^\s:]+)*)|(?=[A-Z]\S*(?: \S+)?: )) ?(?P<metavar>[^:]*?)"
    r" ?(?:\[(?P<low>[\d.]+?)\.\.(?P<high>\d*)\])?: (?P<help>.+)"
)
_CHOICES = re.compile(r"[a-z-]+(\|[a-z-]+)+")
_CONNECTION_PANEL = "Connection and key"


@dataclass(frozen=True, slots=True)
class Shared(Screen):
    """The screen, and the values of the shared options: settings by dotted name, fields of a message."""

    arguments: Mapping[str, Any]
    config: str | None
    message: Mapping[str, Any]

    def settings(self) -> Settings:
        """Return the client's settings: options override variables, and these the file."""
        return Settings.load(self.arguments, file=self.config)


def group(text: str) -> typer.Typer:
    """Return a command that has subcommands."""
    return typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Words:
    """One line of a table of options: an option, or an argument where ``flags`` is empty."""

    flags: tuple[str, ...]
    metavar: str
    limits: tuple[float | None, float | None]
    help: str
    panel: str | None

    @property
    def names(self) -> list[str]:
        """The allowed names of the function's parameter: the flags without dashes."""
        return [flag.partition("/")[0].lstrip("-").replace("-", "_") for flag in self.flags]

    @property
    def choices(self) -> list[str]:
        """The values that are allowed; empty if any value is."""
        return self.metavar.split("|") if _CHOICES.fullmatch(self.metavar) else []

    def parameter(self, name: str, kind: Any, default: Any) -> inspect.Parameter:
        """Return the parameter from which typer creates the option or argument."""
        make = typer.Option if self.flags else typer.Argument
        low, high = self.limits
        info = make(
            *self.flags,
            help=self.help,
            metavar=self.metavar or None,
            min=low,
            max=high,
            rich_help_panel=self.panel,
            autocompletion=(lambda: self.choices) if self.choices else None,
        )
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
        )


def words(text: str, panel: str | None = None) -> list[Words]:
    """Read a table of options; each line is like ``--flag METAVAR [lowest..highest]: What it does``.

    A line without a flag describes an argument. A line that ends with a colon names the panel of the
    lines below it. Any other line continues the line above it.
    """
    lines: list[str] = []
    for line in map(str.strip, text.strip().splitlines()):
        if line.endswith(":") or _LINE.match(line):
            lines.append(line)
        elif line:
            lines[-1] += f" {line}"
    found = []
    for line in lines:
        match = _LINE.match(line)
        if line.endswith(":") or match is None:
            panel = line[:-1]
            continue
        flags, metavar, low, high, said = match.groups()
        limits = _number(low), _number(high)
        found.append(Words(tuple((flags or "").split()), metavar, limits, said, panel))
    return found


def _number(text: str | None) -> float | None:
    return (float(text) if "." in text else int(text)) if text else None


def _settings(table: Sequence[Setting], panel: str = "") -> Bundle:
    """Return the options of all settings that have an option."""
    options = []
    for one in table:
        if not one.has_option:
            continue
        flag, metavar = one.option, "|".join(one.choices) or one.metavar
        text = f"{one.text} [{one.variable}]" if panel else one.text
        if one.kind is bool:
            flag, metavar = f"{flag}/--no-{flag.removeprefix('--')}", ""
        variables = f"{PREFIX}{one.part.upper()}_NAME, or the table {one.part} of {DEFAULT_FILE}"
        described = Words((flag,), metavar, (None, None), text, panel or variables)
        name = f"setting_{one.name.replace('.', '__')}"
        options.append(described.parameter(name, one.kind | None, None))
    return tuple(options)


CONNECTION: Bundle = (
    *_settings(CLIENT, _CONNECTION_PANEL),
    words(
        f"--config FILE: Settings file (TOML); {DEFAULT_FILE} if there is one. [{FILE_VARIABLE}]",
        _CONNECTION_PANEL,
    )[0].parameter("config", str | None, None),
)
SENDING: Bundle = _settings((*APNS, *SERVICE))
SERVING: Bundle = _settings((*GATEWAY, *SERVICE))

_MESSAGE = """
    Message:
    --message FILE: JSON file with the whole message, in our format or as a payload with an aps key; -
        reads stdin. Other options override it.
    --event EVENT: start, update, end, notification or background. [update]
    --state JSON: Content state as JSON, or @FILE.
    --attributes-type NAME: Name of the Swift attributes type.
    --attributes JSON: Attributes as JSON, or @FILE.
    --title TEXT: Title of the alert.
    --body TEXT: Body of the alert.
    --sound NAME: Sound of the alert: a file in the app, or default.
    --stale-date WHEN: When the state becomes stale: +10m, +1h30m, seconds since 1970, or
        2030-01-31T20:00:00Z.
    --dismissal-date WHEN: When an ended card is removed; 0 is at once.
    --relevance-score N: The activity with the highest score is shown in the Dynamic Island.
    --timestamp WHEN: Timestamp of the payload. [now]
    --priority N: 10 or 5. [chosen by event and alert]
    --expiration WHEN: Until when APNs stores the push; 0 stores nothing.
    --input-push-token/--no-input-push-token: With a start: ask for an activity token. [yes, without a channel]
    --input-push-channel ID: With a start: the channel that the activity follows.
    --activity-id ID: With a start: your own id of the activity.
    --custom JSON: Keys next to aps, as a JSON object or @FILE.
    Message: ordinary notifications:
    --subtitle TEXT: Subtitle.
    --badge N: Number on the app icon; 0 removes it.
    --category NAME: Category.
    --thread-id ID: Notifications with the same id are grouped.
    --interruption-level LEVEL: passive, active, time-sensitive or critical.
    --mutable-content/--no-mutable-content: Run the app's notification service extension.
    --collapse-id ID: A later push with the same id replaces this one.
"""
_KINDS: dict[str, Any] = {
    "relevance_score": float,
    "priority": int,
    "badge": int,
    "input_push_token": bool,
    "mutable_content": bool,
}
_FIELDS = {"message": "file", "state": "content_state"}
"""Options that are not called as the field of a message that they set."""
MESSAGE: Bundle = tuple(
    one.parameter("message_" + _FIELDS.get(name, name), _KINDS.get(name, str) | None, None)
    for one in words(_MESSAGE)
    for name in one.names
)
_JSON = words("--json: Print JSON on stdout.", "Output")[0].parameter("json_mode", bool, False)


Function = Callable[..., int | None]
"""What a command runs. Its result is the exit code; None is 0."""


def command(*given: str | Bundle) -> Callable[[Function], Function]:
    """Give a command its options, ``--json``, and `Shared` as its first argument.

    A table (see `words`) describes the function's own parameters. An option belongs to the parameter of its
    name (``--for`` to ``for_``); arguments belong to the other parameters, in their order. A bundle holds
    options that several commands share. Raises `InvalidSetting` for a value that is not one of the choices.
    """
    table = words("\n".join(each for each in given if isinstance(each, str)))
    extra = [one for bundle in given if not isinstance(bundle, str) for one in bundle] + [_JSON]
    described = {name: one for one in table for name in one.names}
    arguments = [one for one in table if not one.flags]

    def wrap(function: Function) -> Function:
        rest = iter(arguments)
        own: list[inspect.Parameter] = []
        limited: dict[str, Words] = {}
        for one in list(inspect.signature(function, eval_str=True).parameters.values())[1:]:
            said = described.get(one.name.rstrip("_")) or next(rest)
            own.append(said.parameter(one.name, one.annotation, one.default))
            if said.choices:
                limited[one.name] = said

        @functools.wraps(function)
        def run(**given: Any) -> int | None:
            shared = {parameter.name: given.pop(parameter.name) for parameter in extra}
            for name, said in limited.items():
                if given[name] is not None and given[name] not in said.choices:
                    raise InvalidSetting(
                        f"{given[name]!r:.40} is not a choice",
                        field=said.flags[0],
                        remedy=f"Use {' or '.join(said.choices)}.",
                    )
            return function(_collected(shared), **given)

        parameters = own + extra
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        return run

    return wrap


def adapted(
    run: Function,
    work: Callable[..., Any],
    before: Sequence[inspect.Parameter] = (),
    after: Sequence[inspect.Parameter] = (),
) -> Function:
    """Return ``run`` with the name, docstring and parameters of ``work``, and more parameters."""
    functools.update_wrapper(run, work)
    named = {"Result": Any}
    first, *own = inspect.signature(work, eval_str=True, locals=named).parameters.values()
    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    run.__signature__ = inspect.Signature([first, *before, *keyword, *after])  # type: ignore[attr-defined]
    return run


def parameter(name: str, kind: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    """Return a parameter for `adapted`."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _collected(given: dict[str, Any]) -> Shared:
    json_mode, config = given.pop("json_mode"), given.pop("config", None)
    arguments: dict[str, Any] = {}
    message: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None and value != []:
            kind, _, rest = name.partition("_")
            if kind == "setting":
                arguments[rest.replace("__", ".")] = value
            else:
                message[rest] = value
    return Shared(json_mode, arguments, config, message)
