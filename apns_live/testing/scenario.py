"""A scenario: what kind of day it is at APNs, as a TOML file or the mapping it holds.

::

    seed = 7
    latency = "40ms"            # seconds as a number, or text with ms, s, min, h
    spread = "10ms"
    environment = "development"
    devices = "auto"            # or "strict"
    cut_streams = false         # one stream after a refusal, back after a success

    [[app]]
    bundle_id = "com.example.scores"
    team_id = "DEF123GHIJ"
    broadcast = true

    [[token]]                   # what APNs answers for a token, whatever the phones know
    token = "8f..."
    condition = "expired"       # live, unknown, expired, unregistered, wrong_topic, other_environment
    since = 1800000000          # seconds

    [[fault]]
    action = "answer"
    status = 503
    reason = "ServiceUnavailable"
    after = "10s"
    lasting = "5s"
    fraction = 0.1

    [phones]                    # see PhoneSettings; a budget is a table, or false for none
    token_never = 0.1
    [phones.budget]
    capacity = 15
    [schemas]                   # JSON Schemas of content states by attributes type
    GameAttributes = "game.json"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from apns_live.errors import FakeError

from .device import normal_token
from .faults import Fault
from .phones import BudgetLaw, PhoneSettings, StartBudgetLaw
from .state import ApnsState, TokenCondition, TokenStatus

T = TypeVar("T")

_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(ms|s|min|h)?\s*")
_FAULT_DURATIONS = ("after", "lasting", "delay", "spread", "per", "retry_after")

_CHOICES: dict[str, tuple[object, ...] | type] = {
    "seed": int,
    "environment": ("production", "development"),
    "devices": ("auto", "strict"),
    "spelling": ("wire", "documented"),
    "strict": bool,
    "cut_streams": bool,
    "error_limit": int,
    "first_streams": int,
    "max_streams": int,
}
_DURATIONS = ("latency", "spread", "idle_timeout")
_TABLES = ("app", "token", "fault", "phones", "schemas")


def parse_duration(value: object, name: str = "duration") -> float:
    """Return seconds of a number, or of text such as ``40ms``, ``2.5s``, ``1h``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value >= 0:
            return float(value)
    elif isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match:
            return float(match[1]) * _UNITS[match[2] or ""]
    raise FakeError(f"{name} is {value!r}; give seconds, or text such as 40ms, 2s, 1h")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked scenario. ``values`` holds what is not a fault; ``faults`` are ready to use."""

    values: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    @classmethod
    def load(cls, source: str | Path | Mapping[str, Any] | None) -> Scenario:
        """Read a file or take a mapping; raises FakeError that names what is wrong in it."""
        if source is None:
            return cls()
        if isinstance(source, Mapping):
            return cls._checked(source, "the scenario")
        path = Path(source)
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise FakeError(f"cannot read the scenario {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FakeError(f"the scenario {path} is not TOML: {error}") from error
        schemas = data.get("schemas", {})
        if isinstance(schemas, dict):
            # A file named in a scenario is looked for beside it.
            data["schemas"] = {
                name: path.parent / each if isinstance(each, str) else each
                for name, each in schemas.items()
            }
        return cls._checked(data, str(path))

    @classmethod
    def _checked(cls, data: Mapping[str, Any], where: str) -> Scenario:
        unknown = sorted(set(data) - {*_CHOICES, *_DURATIONS, *_TABLES})
        if unknown:
            known = ", ".join(sorted({*_CHOICES, *_DURATIONS, *_TABLES}))
            raise FakeError(
                f"{where} has {', '.join(unknown)}, which means nothing; known: {known}"
            )
        values: dict[str, Any] = dict(data)
        for name, allowed in _CHOICES.items():
            if name in values:
                _check_choice(where, name, values[name], allowed)
        for name in _DURATIONS:
            if name in values:
                values[name] = parse_duration(values[name], f"{where}: {name}")
        faults = []
        for number, each in enumerate(values.pop("fault", ()), 1):
            table = dict(each)
            for name in _FAULT_DURATIONS:
                if name in table and not (name == "retry_after" and isinstance(table[name], str)):
                    table[name] = parse_duration(table[name], f"{where}: fault {number}: {name}")
            try:
                faults.append(Fault.from_mapping(table))
            except FakeError as error:
                raise FakeError(f"{where}: fault {number}: {error}") from error
        for number, token in enumerate(values.get("token", ()), 1):
            _token_row(token, f"{where}: token {number}")
        for number, app in enumerate(values.get("app", ()), 1):
            if not isinstance(app.get("bundle_id"), str):
                raise FakeError(f"{where}: app {number} needs a bundle_id")
        return cls(values, tuple(faults))

    def choose(self, name: str, given: T | None, default: T) -> T:
        """Return what was given, else what the scenario says, else the default."""
        if given is not None:
            return given
        value: T = self.values.get(name, default)
        return value

    def seconds(self, name: str, given: float | str | None) -> float:
        """Return a duration as ``choose`` does, 0 by default."""
        return parse_duration(self.choose(name, given, 0.0), name)

    def optional_seconds(self, name: str, given: float | None) -> float | None:
        """Return a duration as ``choose`` does, None by default."""
        value = given if given is not None else self.values.get(name)
        return None if value is None else parse_duration(value, name)

    def phone_settings(
        self,
        seed: int,
        schemas: Mapping[str, str | Path | Mapping[str, object]] | None = None,
    ) -> PhoneSettings:
        """Return the laws of the phones; ``schemas`` are added to those of the scenario."""
        asked = dict(self.values.get("phones", {}))
        sources = {**asked.pop("schemas", {}), **self.values.get("schemas", {}), **(schemas or {})}
        loaded = {name: _load_schema(name, source) for name, source in sources.items()}
        settings: dict[str, Any] = {"seed": seed, **asked}
        for name, law in (("budget", BudgetLaw), ("start_budget", StartBudgetLaw)):
            if isinstance(settings.get(name), Mapping):
                settings[name] = _made(law, settings[name], f"phones: {name}")
            elif settings.get(name) is False:
                settings[name] = None
        made: PhoneSettings = _made(PhoneSettings, {**settings, "schemas": loaded}, "phones")
        return made

    def apply(self, state: ApnsState) -> None:
        """Register the apps and the conditions of tokens."""
        for app in self.values.get("app", ()):
            team_id = app.get("team_id") or next(iter(state.apps.values())).team_id
            state.add_app(app["bundle_id"], team_id, broadcast=app.get("broadcast", True))
        for number, row in enumerate(self.values.get("token", ()), 1):
            token, status = _token_row(row, f"token {number}")
            state.overrides[token] = status


def _made(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    try:
        return kind(
            **{key: tuple(each) if isinstance(each, list) else each for key, each in values.items()}
        )
    except TypeError as error:
        raise FakeError(f"{where}: {error}") from error


def _load_schema(name: str, source: str | Path | Mapping[str, object]) -> Mapping[str, object]:
    if isinstance(source, Mapping):
        return source
    try:
        schema = msgspec.json.decode(Path(source).read_bytes())
    except OSError as error:
        raise FakeError(f"the schema of {name}: cannot read {source}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise FakeError(f"the schema of {name}: {source} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise FakeError(f"the schema of {name}: {source} holds no JSON object")
    return schema


def _check_choice(where: str, name: str, value: object, allowed: tuple[object, ...] | type) -> None:
    if isinstance(allowed, tuple):
        if value not in allowed:
            raise FakeError(f"{where}: {name} is {value!r}; use {' or '.join(map(str, allowed))}")
    elif type(value) is not allowed:
        raise FakeError(f"{where}: {name} is {value!r}; it wants {allowed.__name__}")


def _token_row(row: Mapping[str, Any], where: str) -> tuple[str, TokenStatus]:
    token = normal_token(str(row.get("token", "")).encode("utf-8"))
    if not token:
        raise FakeError(f"{where} needs a token in hex, at least 64 digits")
    try:
        condition = TokenCondition(row.get("condition"))
    except ValueError as error:
        known = ", ".join(each.value for each in TokenCondition)
        raise FakeError(f"{where}: condition is {row.get('condition')!r}; use {known}") from error
    since = row.get("since", 0)
    if not isinstance(since, (int, float)) or isinstance(since, bool):
        raise FakeError(f"{where}: since is {since!r}; give seconds since 1970")
    return token, TokenStatus(condition, int(since * 1000))
