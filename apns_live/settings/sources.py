"""Reads settings. Arguments override APNS_LIVE_* variables, and these override the TOML file.

An unknown name is an error that suggests the nearest one.
"""

import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidSetting
from .table import NAMES, PREFIX, TABLE, Setting

DEFAULT_FILE = "apns-live.toml"
"""Read from the working directory when no file is named; it need not be there."""
FILE_VARIABLE = f"{PREFIX}CONFIG"

_KUBERNETES = re.compile(r"_(?:SERVICE_(?:HOST|PORT)\w*|PORT|PORT_\d+_(?:TCP|UDP|SCTP)\w*)$")
"""What Kubernetes sets for a service of the name apns-live-gateway."""
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})
_PARTS = frozenset(one.part for one in TABLE if one.part)

# If a source sets one of the first names, weaker sources cannot set any of the second.
_GROUPS = (
    (_KEYS := frozenset({"key", "key_file"}), _KEYS),
    (_STORE := frozenset({"store.key", "store.key_file"}), _STORE),
    (frozenset({"environment"}), frozenset(one for one in NAMES if one.startswith("endpoint."))),
)

# Apple's name of a key file contains the key id, so an id from a weaker source is another key's.
_KEY_FILE = re.compile(r"AuthKey_[A-Z0-9]+\.p8$")


@dataclass(slots=True)
class Found:
    """Values by dotted name, and their sources: an option, a variable, or a place in the file."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


def read(
    table: Sequence[Setting],
    arguments: Mapping[str, Any] | None = None,
    *,
    file: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Found:
    """Return the values of the settings in ``table`` from arguments, variables and the file.

    ``arguments`` maps dotted names to values; None and an empty list mean "not given". A file that is named,
    here or by APNS_LIVE_CONFIG, must exist. Raises `InvalidSetting` with the place of an invalid value.
    """
    environ = os.environ if environ is None else environ
    named = file or environ.get(FILE_VARIABLE) or None
    found = Found()
    silenced: set[str] = set()
    for layer in _from_arguments(arguments or {}), _from_environment(environ), _from_file(named):
        if layer.keys() >= _KEYS:
            raise InvalidSetting(
                f"and {layer['key_file'][0]} are both set",
                field=layer["key"][0],
                remedy="Keep one of them.",
            )
        for setting in table:
            name = setting.name
            if name in layer and name not in found.values and name not in silenced:
                source, said = layer[name]
                found.values[name] = _converted(setting, said, source)
                found.sources[name] = source
        for speakers, group in _GROUPS:
            if speakers & layer.keys():
                silenced |= group
        if "key_file" in layer and _KEY_FILE.search(str(layer["key_file"][1])):
            silenced.add("key_id")
    return found


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean ...?`` with the nearest known name, or nothing."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not near and len(name) > 2:
        near = [each for each in names if each.startswith(name.lower())]
    return f"Did you mean {near[0]}?" if near else ""


def _unknown(place: str, name: str, known: Iterable[str]) -> InvalidSetting:
    known = list(known)
    return InvalidSetting(
        "is not a setting",
        field=place,
        remedy=suggestion(name, known) or f"The settings are: {', '.join(known)}.",
    )


# Of each source: dotted name -> the name as the user wrote it, and the value.
_Layer = dict[str, tuple[str, Any]]


def _from_arguments(arguments: Mapping[str, Any]) -> _Layer:
    for name in arguments:
        if name not in NAMES:
            raise _unknown(f"argument {name}", name, NAMES)
    return {
        name: (NAMES[name].option, said)
        for name, said in arguments.items()
        if said is not None and said != []
    }


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    variables = {one.variable: one for one in TABLE}
    layer: _Layer = {}
    for variable, said in environ.items():
        if one := variables.get(variable):
            # An empty variable means "not set": that is how shells and compose files unset one.
            if said != "":
                layer[one.name] = variable, said
        elif variable.startswith(PREFIX) and not _KUBERNETES.search(variable):
            # Tests and other programs have variables with this prefix too. Outside of the gateway's
            # names, only one that looks like a misspelt setting is refused.
            near = difflib.get_close_matches(variable, variables, n=1, cutoff=0.88)
            if near or variable.startswith((f"{PREFIX}GATEWAY_", f"{PREFIX}SERVICE_")):
                raise InvalidSetting(
                    "is not a setting",
                    field=variable,
                    remedy=suggestion(variable, variables) or "docs/cli.md lists them.",
                )
    return layer


def _from_file(named: str | Path | None) -> _Layer:
    path = Path(named or DEFAULT_FILE)
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        if named is None:
            return {}
        raise InvalidSetting("does not exist", field=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"cannot be read ({error})", field=str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidSetting(
            f"is not TOML ({error})", field=str(path), remedy="See https://toml.io."
        ) from error
    layer: _Layer = {}
    for name, value in content.items():
        if name not in _PARTS:
            said = {name: value}
        elif isinstance(value, dict):
            said = {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            raise InvalidSetting(
                "is not a table", field=f"{path}: {name}", remedy=f"Write [{name}]."
            )
        for dotted, one in said.items():
            if dotted not in NAMES:
                known = [each for each in NAMES if each.startswith(f"{name}.")]
                raise _unknown(f"{path}: {dotted}", dotted, known or [*NAMES, *_PARTS])
            is_path = NAMES[dotted].metavar.startswith("FILE") and isinstance(one, str)
            if is_path and one.strip() and "://" not in one:
                layer[dotted] = f"{path}: {dotted}", str(path.parent / one)  # relative to this file
            else:
                layer[dotted] = f"{path}: {dotted}", one
    return layer


def _converted(setting: Setting, said: Any, source: str) -> Any:
    shown = "<hidden>" if setting.secret else f"{said!r:.80}"

    def wrong(problem: str, remedy: str = setting.help) -> InvalidSetting:
        return InvalidSetting(problem, field=source, remedy=remedy)

    if setting.kind == list[str]:
        if isinstance(said, str) and source == setting.variable:
            said = [part.strip() for part in said.split(",") if part.strip()]
        if isinstance(said, list) and all(isinstance(part, str) and part for part in said):
            return said
        raise wrong("is not a list of texts")
    if setting.kind is bool:
        if (word := str(said).strip().lower()) not in _TRUE | _FALSE:
            raise wrong("is neither true nor false", "Give one of them.")
        return word in _TRUE
    if setting.kind is str:
        if not isinstance(said, str | Path) or not str(said).strip():
            raise wrong(f"{shown} is not a string")
        text = str(said)
        # A PEM has several lines.
        if any(ord(char) < 32 for char in text) and setting.name != "key":
            raise wrong("holds a control character")
        if setting.choices:
            text = text.replace(" ", "-")
            if text not in setting.choices:
                choices = ", ".join(setting.choices)
                raise wrong(f"{shown} is not one of {choices}", suggestion(text, setting.choices))
        return text
    return _number(setting, said, shown, wrong)


def _number(setting: Setting, said: Any, shown: str, wrong: Any) -> int | float:
    if isinstance(said, bool) or not isinstance(said, int | float | str):
        raise wrong(f"{shown} is not a number")
    try:
        number: Any = setting.kind(said) if isinstance(said, str) else said
    except ValueError as error:
        raise wrong(f"{shown} is not a number") from error
    if setting.kind is int and not isinstance(number, int):
        raise wrong(f"{shown} is not a whole number")
    low, high = setting.minimum, setting.maximum
    # Both strings and TOML can contain NaN and infinity.
    if not math.isfinite(number) or number < (low or 0) or (high is not None and number > high):
        span = f"{low:g} to {high:g}" if high is not None else f"{low or 0:g} or more"
        raise wrong(f"{shown} is out of range", f"Give {span}.")
    return number if setting.kind is int else float(number)
