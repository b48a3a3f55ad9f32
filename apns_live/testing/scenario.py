"""Scenarios: faults, tokens and phones from a TOML file or a mapping.

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

    [[token]]                   # APNs' answer for a token, independent of the phones
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

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from apns_live.errors import FakeError

from ..misfits import misfit
from .faults import Fault, parse_duration
from .phones import BudgetLaw, PhoneSettings, StartBudgetLaw
from .rules import normal_token
from .state import ApnsState, TokenCondition, TokenStatus

T = TypeVar("T")

_DURATIONS = ("latency", "spread", "idle_timeout")


class AppTable(msgspec.Struct, forbid_unknown_fields=True):
    """An App ID; ``broadcast`` is its capability in the developer portal."""

    bundle_id: str
    team_id: str | None = None
    broadcast: bool = True


class TokenTable(msgspec.Struct, forbid_unknown_fields=True):
    """APNs' answer for a token, independent of the phones; ``since`` is seconds since 1970."""

    token: str
    condition: TokenCondition
    since: float = 0


class ScenarioFile(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The shape of a scenario. Durations are seconds, or text such as 40ms, 2s, 1h."""

    seed: int | None = None
    environment: Literal["production", "development"] | None = None
    devices: Literal["auto", "strict"] | None = None
    spelling: Literal["wire", "documented"] | None = None
    strict: bool | None = None
    cut_streams: bool | None = None
    error_limit: int | None = None
    first_streams: int | None = None
    max_streams: int | None = None
    latency: float | str | None = None
    spread: float | str | None = None
    idle_timeout: float | str | None = None
    app: list[AppTable] = []
    token: list[TokenTable] = []
    fault: list[dict[str, Any]] = []
    phones: dict[str, Any] = {}
    schemas: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A checked scenario: its ``faults``, ready to use, and all other ``values``."""

    values: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    @classmethod
    def load(cls, source: str | Path | Mapping[str, Any] | None) -> Scenario:
        """Read a scenario from a file or mapping. Raises FakeError that names the wrong value."""
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
            # A file name in a scenario is relative to the scenario's directory.
            data["schemas"] = {
                name: path.parent / each if isinstance(each, str) else each
                for name, each in schemas.items()
            }
        return cls._checked(data, str(path))

    @classmethod
    def _checked(cls, data: Mapping[str, Any], where: str) -> Scenario:
        values = {name: each for name, each in data.items() if each is not None}
        try:
            checked = msgspec.convert(values, ScenarioFile)
        except msgspec.ValidationError as error:
            raise FakeError(f"{where}: {misfit(error)}") from error
        for name in _DURATIONS:
            if name in values:
                values[name] = parse_duration(values[name], f"{where}: {name}")
        faults = []
        values.pop("fault", None)
        for number, table in enumerate(checked.fault, 1):
            try:
                faults.append(Fault.from_mapping(table))
            except FakeError as error:
                raise FakeError(f"{where}: fault {number}: {error}") from error
        values["app"] = checked.app
        values["token"] = tokens = {}
        for number, row in enumerate(checked.token, 1):
            if not (token := normal_token(row.token.encode("utf-8"))):
                raise FakeError(f"{where}: token {number} needs a token in hex, at least 64 digits")
            tokens[token] = TokenStatus(row.condition, int(row.since * 1000))
        return cls(values, tuple(faults))

    def choose(self, name: str, given: T | None, default: T) -> T:
        """Return the given value, else the scenario's, else the default; durations are seconds."""
        value: Any = given if given is not None else self.values.get(name, default)
        if name in _DURATIONS and value is not None:
            value = parse_duration(value, name)
        chosen: T = value
        return chosen

    def phone_settings(
        self, seed: int, schemas: Mapping[str, str | Path | Mapping[str, object]] | None = None
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
        return _made(PhoneSettings, {**settings, "schemas": loaded}, "phones")

    def apply(self, state: ApnsState) -> None:
        """Register the apps and the conditions of tokens."""
        for app in self.values.get("app", ()):
            team_id = app.team_id or next(iter(state.apps.values())).team_id
            state.add_app(app.bundle_id, team_id, broadcast=app.broadcast)
        state.overrides.update(self.values.get("token", {}))


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
