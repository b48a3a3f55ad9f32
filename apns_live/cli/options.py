"""Options that several commands share, and the decorator that hands them over in one piece."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from ..settings import NAMES, Settings
from .output import Screen

_CONNECTION_PANEL = "Connection and key"
_MESSAGE_PANEL = "Message"
_MORE_PANEL = "Message: ordinary notifications"


@dataclass(frozen=True, slots=True)
class Shared:
    """What the shared options said: the screen, the settings, and the message's words."""

    screen: Screen
    arguments: Mapping[str, Any]
    config: str | None
    message: Mapping[str, Any]

    def settings(self) -> Settings:
        """Return the settings: options over variables over the file."""
        return Settings.load(self.arguments, file=self.config)


def option(
    text: str, names: str = "", metavar: str | None = None, *, panel: str | None = None, **more: Any
) -> Any:
    """Return a typer option: what it does, its flags with a space between, what it takes."""
    return typer.Option(*names.split(), help=text, metavar=metavar, rich_help_panel=panel, **more)


def group(text: str) -> typer.Typer:
    """Return a command that has others below it."""
    return typer.Typer(help=text, no_args_is_help=True, pretty_exceptions_enable=False)


def _option(
    name: str, kind: Any, flags: str, text: str, panel: str, default: Any = None, **more: Any
) -> inspect.Parameter:
    declared = typer.Option(default, *flags.split(), help=text, rich_help_panel=panel, **more)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=declared, annotation=kind
    )


def _setting(name: str, kind: Any, metavar: str) -> inspect.Parameter:
    setting = NAMES[name]
    flag = "--" + name.rpartition(".")[2].replace("_", "-")
    text = f"{setting.help[0].upper()}{setting.help[1:]}."
    if setting.choices:
        metavar = "|".join(setting.choices)
    return _option(
        "setting_" + name.replace(".", "__"),
        kind | None,
        flag,
        f"{text} [{setting.variable}]",
        _CONNECTION_PANEL,
        metavar=metavar,
    )


CONNECTION: tuple[inspect.Parameter, ...] = (
    _setting("key_file", str, "FILE"),
    _setting("key_id", str, "ID"),
    _setting("team_id", str, "ID"),
    _setting("bundle_id", str, "ID"),
    _setting("environment", str, ""),
    _setting("endpoint.host", str, "HOST"),
    _setting("endpoint.port", int, "PORT"),
    _setting("endpoint.ca_file", str, "FILE"),
    _setting("endpoint.manage_host", str, "HOST"),
    _setting("endpoint.manage_port", int, "PORT"),
    _setting("proxy", str, "URL"),
    _setting("transport", str, ""),
    _setting("pool.max_connections", int, "N"),
    _option(
        "config",
        str | None,
        "--config",
        "Settings file (TOML); apns-live.toml if there is one. [APNS_LIVE_CONFIG]",
        _CONNECTION_PANEL,
        metavar="FILE",
    ),
)


def _words(
    name: str, flags: str, text: str, metavar: str = "TEXT", kind: Any = str, more: bool = False
) -> inspect.Parameter:
    panel = _MORE_PANEL if more else _MESSAGE_PANEL
    extra = {} if kind is bool else {"metavar": metavar}
    return _option("message_" + name, kind | None, flags, text, panel, **extra)


_DATE = "+10m, +1h30m, seconds since 1970, or 2030-01-31T20:00:00Z"

MESSAGE: tuple[inspect.Parameter, ...] = (
    _words(
        "file",
        "--message",
        "JSON file with the whole message, ours or with an aps key; - reads stdin. "
        "Other options change it.",
        "FILE",
    ),
    _words(
        "event",
        "--event",
        "start, update, end, notification or background; update if nothing says otherwise.",
        "EVENT",
    ),
    _words("content_state", "--state", "Content state as JSON, or @FILE.", "JSON"),
    _words("attributes_type", "--attributes-type", "Name of the Swift attributes type.", "NAME"),
    _words("attributes", "--attributes", "Attributes as JSON, or @FILE.", "JSON"),
    _words("title", "--title", "Title of the alert."),
    _words("body", "--body", "Body of the alert."),
    _words("sound", "--sound", "Sound of the alert: a file of the app, or default.", "NAME"),
    _words("stale_date", "--stale-date", f"When the state becomes stale: {_DATE}.", "WHEN"),
    _words("dismissal_date", "--dismissal-date", "When an ended card goes; 0 is at once.", "WHEN"),
    _words("relevance_score", "--relevance-score", "Highest wins the Island.", "N", float),
    _words("timestamp", "--timestamp", "Instead of now.", "WHEN"),
    _words("priority", "--priority", "10 or 5; else chosen by event and alert.", "N", int),
    _words("expiration", "--expiration", "How long APNs stores the push; 0 not at all.", "WHEN"),
    _words(
        "input_push_token",
        "--input-push-token/--no-input-push-token",
        "Ask for an activity token with a start (the default without a channel).",
        kind=bool,
    ),
    _words("input_push_channel", "--input-push-channel", "Channel for a start to join.", "ID"),
    _words("activity_id", "--activity-id", "Your own id of a started activity.", "ID"),
    _words("custom", "--custom", "Keys beside aps, as a JSON object or @FILE.", "JSON"),
    _words("subtitle", "--subtitle", "Subtitle.", more=True),
    _words("badge", "--badge", "Number on the icon, 0 removes it.", "N", int, more=True),
    _words("category", "--category", "Category.", "NAME", more=True),
    _words("thread_id", "--thread-id", "Groups notifications.", "ID", more=True),
    _words(
        "interruption_level",
        "--interruption-level",
        "passive, active, time-sensitive or critical.",
        "LEVEL",
        more=True,
    ),
    _words(
        "mutable_content",
        "--mutable-content/--no-mutable-content",
        "Run the app's service extension.",
        kind=bool,
        more=True,
    ),
    _words(
        "collapse_id", "--collapse-id", "A later push with it replaces this one.", "ID", more=True
    ),
)

_JSON = _option("json_mode", bool, "--json", "Machine output on stdout.", "Output", default=False)


def command(
    *bundles: tuple[inspect.Parameter, ...],
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command ``--json`` and the options of the bundles, as its first argument `Shared`."""
    extra = [parameter for bundle in bundles for parameter in bundle] + [_JSON]

    def wrap(function: Callable[..., int]) -> Callable[..., int]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        @functools.wraps(function)
        def run(**given: Any) -> int:
            shared = {parameter.name: given.pop(parameter.name) for parameter in extra}
            return int(function(_collected(shared), **given))

        parameters = own + extra
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        return run

    return wrap


def _collected(given: dict[str, Any]) -> Shared:
    screen = Screen(json_mode=given.pop("json_mode"))
    config = given.pop("config", None)
    arguments: dict[str, Any] = {}
    message: dict[str, Any] = {}
    for name, value in given.items():
        kind, _, rest = name.partition("_")
        if value is None:
            continue
        if kind == "setting":
            arguments[rest.replace("__", ".")] = value
        else:
            message[rest] = value
    return Shared(screen, arguments, config, message)
