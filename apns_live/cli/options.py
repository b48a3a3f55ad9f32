"""Options: tables of their descriptions, shared options, and the decorator that reads them."""

import functools
import inspect
import itertools
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import GenericAlias
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
    """The screen, and the values of the bundles of options."""

    arguments: Mapping[str, Any]
    """Settings by dotted name; only those that are given."""
    message: Mapping[str, Any]
    """Fields of a message; only those that are given."""
    others: Mapping[str, Any]
    """The other options, by the name of their parameter."""

    def settings(self) -> Settings:
        """Return the client's settings: options override variables, and these the file."""
        return Settings.load(self.arguments, file=self.others["config"])


def group(text: str) -> typer.Typer:
    """Return a command that has subcommands."""
    return typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class OptionLine:
    """One line of a table of options: an option, or an argument where ``flags`` is empty."""

    flags: list[str]
    metavar: str
    low: float | None
    high: float | None
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

    def parameter(
        self, name: str, kind: Any, default: Any = inspect.Parameter.empty
    ) -> inspect.Parameter:
        """Return the parameter from which typer creates the option or argument."""
        info = (typer.Option if self.flags else typer.Argument)(
            *self.flags,
            help=self.help,
            metavar=self.metavar or None,
            min=self.low,
            max=self.high,
            rich_help_panel=self.panel,
            autocompletion=(lambda: self.choices) if self.choices else None,
        )
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
        )


def option_lines(text: str, panel: str | None = None) -> list[OptionLine]:
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
        flags, metavar, *limits, said = match.groups()
        low, high = ((float if "." in one else int)(one) if one else None for one in limits)
        found.append(OptionLine((flags or "").split(), metavar, low, high, said, panel))
    return found


def option(
    line: str,
    name: str,
    kind: Any,
    default: Any = inspect.Parameter.empty,
    panel: str | None = None,
) -> Bundle:
    """Return a bundle of one option or argument, which is the parameter ``name``."""
    return (option_lines(line, panel)[0].parameter(name, kind, default),)


def bundle(table: str, **kinds: Any) -> Bundle:
    """Return options of a table as a bundle.

    ``kinds`` has the default of each option, or its type, which makes it None by default.
    """
    described = {name: one for one in option_lines(table) for name in one.names}
    parameters = []
    for name, said in kinds.items():
        is_type = isinstance(said, type | GenericAlias)
        kind, default = (said | None, None) if is_type else (type(said), said)
        own = f"{name}_" if keyword.iskeyword(name) else name
        parameters.append(described[name].parameter(own, kind, default))
    return tuple(parameters)


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
        described = OptionLine([flag], metavar, None, None, text, panel or variables)
        name = f"setting_{one.name.replace('.', '__')}"
        options.append(described.parameter(name, one.kind | None, None))
    return tuple(options)


CONNECTION: Bundle = (
    *_settings(CLIENT, _CONNECTION_PANEL),
    *option(
        f"--config FILE: Settings file (TOML); {DEFAULT_FILE} if there is one. [{FILE_VARIABLE}]",
        "config",
        str | None,
        None,
        _CONNECTION_PANEL,
    ),
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
_KINDS: dict[str, Any] = {"relevance_score": float, "priority": int, "badge": int}
_KINDS |= {"input_push_token": bool, "mutable_content": bool}
_FIELDS = {"message": "file", "state": "content_state"}
"""Options that are not called as the field of a message that they set."""
MESSAGE: Bundle = tuple(
    one.parameter("message_" + _FIELDS.get(name, name), _KINDS.get(name, str) | None, None)
    for one in option_lines(_MESSAGE)
    for name in one.names
)
_JSON = option("--json: Print JSON on stdout.", "json_mode", bool, False, "Output")


Function = Callable[..., int | None]
"""What a command runs. Its result is the exit code; None is 0."""


def command(*given: str | Bundle) -> Callable[[Callable[..., Any]], Function]:
    """Give a command its options, ``--json``, and `Shared` as its first argument.

    A table (see `option_lines`) describes the function's own parameters. An option belongs to the parameter of its
    name (``--for`` to ``for_``); arguments belong to the other parameters, in their order. A bundle holds
    options that several commands share. The help has the order of ``given``. Raises `InvalidSetting` for a
    value that is not one of the choices.
    """
    table = option_lines("\n".join(each for each in given if isinstance(each, str)))
    described = {name: one for one in table for name in one.names}
    arguments = [one for one in table if not one.flags]
    shared = [one for bundle in given if not isinstance(bundle, str) for one in bundle] + [*_JSON]
    before = sum(map(len, itertools.takewhile(lambda each: not isinstance(each, str), given)))

    def wrap(function: Callable[..., Any]) -> Function:
        rest = iter(arguments)
        signature = inspect.signature(function, eval_str=True, locals={"Result": Any})
        own: list[inspect.Parameter] = []
        for one in list(signature.parameters.values())[1:]:
            said = described.get(one.name.rstrip("_")) or next(rest)
            own.append(said.parameter(one.name, one.annotation, one.default))
        parameters = [*shared[:before], *own, *shared[before:]]
        infos = {one.name: one.annotation.__metadata__[0] for one in parameters}
        choices = {
            name: info.metavar.split("|")
            for name, info in infos.items()
            if _CHOICES.fullmatch(info.metavar or "") and not name.startswith("setting_")
        }

        @functools.wraps(function)
        def run(**given: Any) -> int | None:
            for name, allowed in choices.items():
                if given[name] is not None and given[name] not in allowed:
                    option = f"--{name.rstrip('_').replace('_', '-')}"
                    remedy = f"Use {' or '.join(allowed)}."
                    raise InvalidSetting(f"{given[name]!r:.40} is not a choice", option, remedy)
            groups: dict[str, dict[str, Any]] = {"setting": {}, "message": {}, "": {}}
            for name in [parameter.name for parameter in shared]:
                value, (kind, _, field) = given.pop(name), name.partition("_")
                if kind not in groups:
                    groups[""][name] = value
                elif value is not None and value != []:
                    groups[kind][field.replace("__", ".")] = value
            screen = groups[""].pop("json_mode")
            done: int | None = function(Shared(screen, *groups.values()), **given)
            return done

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        return run

    return wrap
