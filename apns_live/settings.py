"""Settings from arguments, APNS_LIVE_* variables and a TOML file, in this order of strength.

Every setting has one name of dotted parts. ``endpoint.host`` is ``host`` in the table
``[endpoint]`` of the file and ``APNS_LIVE_ENDPOINT_HOST`` in the environment. A name that nobody
knows is an error that suggests the nearest one: a misspelt setting must not be silence.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import InvalidKey, InvalidSetting
from .refusals import refused

if TYPE_CHECKING:
    from . import blocking
    from .client import Client
    from .credentials import ProviderKey
    from .pool.endpoint import Endpoint

PREFIX = "APNS_LIVE_"
DEFAULT_FILE = "apns-live.toml"
"""Read from the working directory when no file is named; it need not be there."""

FOREIGN_TABLES = frozenset(
    {"activities", "delivery", "fake", "gateway", "service", "store", "tenants"}
)
"""Tables of one settings file that belong to other parts of the package."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its dotted name, its type, and what it says."""

    name: str
    kind: type
    help: str
    choices: tuple[str, ...] = ()
    secret: bool = False
    minimum: float | None = None
    maximum: float | None = None

    @property
    def variable(self) -> str:
        """Return the name of the environment variable."""
        return PREFIX + self.name.replace(".", "_").upper()


def _pool(name: str, kind: type, text: str, minimum: float = 0) -> Setting:
    return Setting(f"pool.{name}", kind, text, minimum=minimum)


TABLE: tuple[Setting, ...] = (
    Setting("key", str, "the provider key itself: PEM, or base64 of the .p8 file", secret=True),
    Setting("key_file", str, "the .p8 file of the provider key"),
    Setting("key_id", str, "the key's ten characters; read from AuthKey_XXXXXXXXXX.p8 if absent"),
    Setting("team_id", str, "the team's ten characters"),
    Setting("bundle_id", str, "the app's bundle id, without a suffix"),
    Setting("environment", str, "which APNs", choices=("production", "sandbox")),
    Setting("endpoint.host", str, "another host than Apple's, for example a fake"),
    Setting(
        "endpoint.port", int, "its port (443; Apple also serves 2197)", minimum=1, maximum=65535
    ),
    Setting("endpoint.ca_file", str, "PEM file of trusted roots, instead of the system's"),
    Setting("endpoint.manage_host", str, "the host of channel management"),
    Setting("endpoint.manage_port", int, "its port", minimum=1, maximum=65535),
    Setting("transport", str, "which transport", choices=("http2", "httpx")),
    Setting("proxy", str, "URL of a CONNECT proxy; may hold a password", secret=True),
    _pool("max_connections", int, "connections at most", 1),
    _pool("min_connections", int, "connections kept when idle", 1),
    _pool("connect_timeout", float, "seconds for DNS, TCP and TLS together"),
    _pool("response_timeout", float, "seconds for one answer"),
    _pool("close_timeout", float, "seconds for draining at close"),
    _pool("connect_spacing", float, "seconds between two connects"),
    _pool("idle_timeout", float, "seconds until an idle connection above the minimum goes"),
    _pool("backoff_first", float, "seconds to wait after a failed connect, doubling"),
    _pool("backoff_limit", float, "seconds to wait at most between connects"),
    _pool("credential_backoff", float, "seconds to wait after a GOAWAY that names credentials"),
    _pool("silence_before_ping", float, "seconds without a byte, streams open, before a PING"),
    _pool("ping_timeout", float, "seconds for its answer"),
    _pool("idle_before_probe", float, "seconds idle before a PING goes ahead of a push"),
    _pool("idle_ping_interval", float, "seconds between PINGs of an idle connection"),
    _pool("write_buffer", int, "bytes that may wait to be written", 1),
    _pool("queue_timeout", float, "seconds that a push may wait for room"),
    _pool("waiting_room", int, "pushes that may wait for room", 1),
)

NAMES: dict[str, Setting] = {setting.name: setting for setting in TABLE}

# Of each group, the strongest source that speaks silences the weaker ones.
_GROUPS: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (frozenset({"key", "key_file"}), frozenset({"key", "key_file"})),
    (
        frozenset({"environment"}),
        frozenset(name for name in NAMES if name.startswith("endpoint.")),
    ),
)

# Of the pool's settings, those that are the client's own arguments.
_ROOM_OPTIONS = ("queue_timeout", "waiting_room")

# A key file with Apple's name carries its own key id; a weaker source's id is another key's.
_KEY_FILE = re.compile(r"AuthKey_[A-Z0-9]+\.p8$")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a client is made from. The repr hides the key and the proxy's password.

    ``sources`` says for each given setting where its value came from.
    """

    key: str | None = field(default=None, repr=False)
    key_file: str | None = None
    key_id: str | None = None
    team_id: str | None = None
    bundle_id: str | None = None
    environment: Literal["production", "sandbox"] | None = None
    host: str | None = None
    port: int | None = None
    ca_file: str | None = None
    manage_host: str | None = None
    manage_port: int | None = None
    transport: Literal["http2", "httpx"] | None = None
    proxy: str | None = field(default=None, repr=False)
    pool: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(
        cls,
        arguments: Mapping[str, Any] | None = None,
        *,
        file: str | Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read the settings: ``arguments`` win over ``environ``, and that over the file.

        ``arguments`` maps dotted names to values, None meaning "not given". ``file`` must be
        there when it is named; without it ``apns-live.toml`` of the working directory is read
        if present. Raises `InvalidSetting` naming the source of whatever cannot be used.
        """
        environ = os.environ if environ is None else environ
        named = file or environ.get(f"{PREFIX}CONFIG") or None
        layers = [
            _Layer("argument", _checked_names(arguments or {}, "argument")),
            _Layer("variable", _from_environment(environ)),
            _Layer("file", _from_file(named), str(named or DEFAULT_FILE)),
        ]
        return cls._from_values(*_merge(layers))

    @classmethod
    def _from_values(cls, values: dict[str, Any], sources: dict[str, str]) -> Settings:
        plain = {name.removeprefix("endpoint."): value for name, value in values.items()}
        pool = {
            name.removeprefix("pool."): plain.pop(name)
            for name in list(plain)
            if name.startswith("pool.")
        }
        return cls(**plain, pool=pool, sources=sources)

    def _required(self, name: str) -> str:
        value = getattr(self, name)
        if value is None:
            setting = NAMES[name]
            raise refused(
                InvalidSetting,
                "setting_missing",
                name,
                value=_option(name),
                variable=setting.variable,
                name=name,
                default_file=DEFAULT_FILE,
                help=setting.help,
            )
        return str(value)

    def provider_key(self) -> ProviderKey:
        """Return the provider key. Raises `InvalidKey` or `InvalidSetting` with the remedy."""
        from .credentials import ProviderKey

        if self.key is None and self.key_file is None:
            raise refused(InvalidSetting, "no_key", "key_file")
        team_id = self._required("team_id")
        try:
            if self.key_file is not None:
                return ProviderKey.from_file(self.key_file, team_id=team_id, key_id=self.key_id)
            key_id = self._required("key_id")
            pem = pem_of(self._required("key"))
            return ProviderKey.from_pem(pem, key_id=key_id, team_id=team_id)
        except InvalidKey as error:
            # Say which setting, in the words of whoever set it.
            name = {"path": "key_file", "pem": "key"}.get(error.field, error.field)
            field = self.sources.get(name, name)
            raise InvalidKey(error.problem, field=field, remedy=error.remedy) from None

    def public_key(self) -> Any:
        """Return the public half of the provider key, or None when no key is set.

        Needs neither key id nor team id. Raises `InvalidKey`.
        """
        from .keyfile import private_key_from_pem, read_key_file

        if self.key is not None:
            return private_key_from_pem(pem_of(self.key), field="key").public_key()
        if self.key_file is not None:
            pem = read_key_file(self.key_file)
            return private_key_from_pem(pem, field="key_file").public_key()
        return None

    def endpoint(self) -> str | Endpoint:
        """Return what ``Client(environment=...)`` takes: an environment's name or an `Endpoint`."""
        given = {
            name: getattr(self, name)
            for name in ("port", "ca_file", "manage_host", "manage_port")
            if getattr(self, name) is not None
        }
        if self.host is None and not given:
            return self._required("environment")
        from .pool.endpoint import ENVIRONMENTS, Endpoint

        if self.host is None:
            # Apple's host with, for example, the other port that Apple serves.
            return dataclasses.replace(ENVIRONMENTS[self._required("environment")], **given)
        return Endpoint(self.host, **given)

    def client_arguments(self) -> dict[str, Any]:
        """Return the arguments of ``Client``, the key among them, ready for ``Client(**...)``."""
        arguments: dict[str, Any] = {
            "key": self.provider_key(),
            "bundle_id": self._required("bundle_id"),
            "environment": self.endpoint(),
        }
        numbers = dict(self.pool)
        arguments.update({name: numbers.pop(name) for name in _ROOM_OPTIONS if name in numbers})
        if numbers:
            from .pool.options import PoolOptions

            arguments["pool"] = PoolOptions(**numbers)
        if self.transport is not None:
            arguments["transport"] = self.transport
        if self.proxy is not None:
            arguments["proxy"] = self.proxy
        return arguments

    def client(self, **more: Any) -> Client:
        """Return an asynchronous client with these settings."""
        from .client import Client

        return Client(**{**self.client_arguments(), **more})

    def blocking_client(self, **more: Any) -> blocking.Client:
        """Return a synchronous client with these settings."""
        from .blocking import Client

        return Client(**{**self.client_arguments(), **more})

    def shown(self) -> dict[str, Any]:
        """Return every given setting for a person to read, secrets as ``<hidden>``."""
        values: dict[str, Any] = {}
        for setting in TABLE:
            place, _, rest = setting.name.rpartition(".")
            value = self.pool.get(rest) if place == "pool" else getattr(self, rest)
            if value is not None:
                values[setting.name] = "<hidden>" if setting.secret else value
        return values


@dataclass(frozen=True, slots=True)
class _Layer:
    kind: Literal["argument", "variable", "file"]
    values: dict[str, Any]
    path: str = ""

    def place(self, name: str) -> str:
        """Return how the user wrote ``name`` in this layer."""
        if self.kind == "argument":
            return f"--{_option(name)}"
        if self.kind == "variable":
            return NAMES[name].variable
        return f"{self.path}: {name}"


def pem_of(text: str) -> str:
    """Return PEM where ``text`` is base64 of the DER inside a .p8 file, else ``text`` itself."""
    bare = "".join(text.split())
    # DER starts with a SEQUENCE, 0x30, and base64 of that with M.
    if not bare.startswith("M") or "-" in bare:
        return text
    folded = "\n".join(bare[start : start + 64] for start in range(0, len(bare), 64))
    return f"-----BEGIN PRIVATE KEY-----\n{folded}\n-----END PRIVATE KEY-----\n"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean ...?`` with the nearest known name, or nothing."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not near and len(name) > 2:
        near = [each for each in names if each.startswith(name.lower())]
    return f"Did you mean {near[0]}?" if near else ""


def _option(name: str) -> str:
    return name.rpartition(".")[2].replace("_", "-")


def _checked_names(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    for name in values:
        if name not in NAMES:
            raise InvalidSetting(
                f"{source} {name} is not a setting",
                field=name,
                remedy=suggestion(name, NAMES) or f"The settings are: {', '.join(NAMES)}.",
            )
    return {name: value for name, value in values.items() if value is not None}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    variables = {setting.variable: setting.name for setting in TABLE}
    values: dict[str, Any] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable == f"{PREFIX}CONFIG":
            continue
        if variable in variables:
            # An empty variable means "not set": that is how shells and compose files unset one.
            if value != "":
                values[variables[variable]] = value
        else:
            # Other parts of the package, and Kubernetes for a service of this name, have
            # variables too. Only one that looks like a misspelt setting is refused.
            near = difflib.get_close_matches(variable, variables, n=1, cutoff=0.88)
            if near:
                raise InvalidSetting(
                    "is not a setting", field=variable, remedy=f"Did you mean {near[0]}?"
                )
    return values


def _from_file(named: str | Path | None) -> dict[str, Any]:
    path = Path(named) if named else Path(DEFAULT_FILE)
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
    values: dict[str, Any] = {}
    tables = {name.partition(".")[0] for name in NAMES if "." in name}
    for name, value in content.items():
        if name in FOREIGN_TABLES:
            continue
        if name in tables and isinstance(value, dict):
            values.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            values[name] = value
    for name in values:
        if name not in NAMES:
            raise InvalidSetting(
                "is not a setting",
                field=f"{path}: {name}",
                remedy=suggestion(name, (*NAMES, *FOREIGN_TABLES))
                or f"The settings are: {', '.join(NAMES)}.",
            )
    # Paths in a file are relative to the file: it may be read from anywhere.
    for name in ("key_file", "endpoint.ca_file"):
        if isinstance(values.get(name), str):
            values[name] = str(path.parent / values[name])
    return values


def _merge(layers: list[_Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    silenced: set[str] = set()
    for layer in layers:
        if {"key", "key_file"} <= layer.values.keys():
            raise InvalidSetting(
                f"and {layer.place('key_file')} are both set",
                field=layer.place("key"),
                remedy="Keep one of them.",
            )
        for name, value in layer.values.items():
            if name not in values and name not in silenced:
                values[name] = _converted(NAMES[name], value, layer)
                sources[name] = layer.place(name)
        for speakers, group in _GROUPS:
            if speakers & layer.values.keys():
                silenced |= group
        if _KEY_FILE.search(str(layer.values.get("key_file", ""))):
            silenced.add("key_id")
    return values, sources


def _converted(setting: Setting, value: Any, layer: _Layer) -> Any:
    shown = "<hidden>" if setting.secret else repr(value)

    def wrong(problem: str, remedy: str = f"Give {setting.help}.") -> InvalidSetting:
        return InvalidSetting(problem, field=layer.place(setting.name), remedy=remedy)

    if setting.kind is str:
        if not isinstance(value, str | Path) or (isinstance(value, str) and not value.strip()):
            raise wrong(f"{shown} is not a string")
        text = str(value)
        if any(ord(char) < 32 for char in text) and setting.name != "key":
            raise wrong("holds a control character")
        if setting.choices and text not in setting.choices:
            choices = ", ".join(setting.choices)
            raise wrong(f"{shown} is not one of {choices}", suggestion(text, setting.choices))
        return text
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong(f"{shown} is not a number")
    try:
        number = setting.kind(value) if isinstance(value, str) else value
    except ValueError as error:
        raise wrong(f"{shown} is not a number") from error
    if setting.kind is int and not isinstance(number, int):
        raise wrong(f"{shown} is not a whole number", "")
    low, high = setting.minimum, setting.maximum
    # NaN and infinity come from strings and from TOML alike.
    finite = math.isfinite(number)
    if not finite or (low is not None and number < low) or (high is not None and number > high):
        span = f"{low:g} to {high:g}" if high is not None else f"{low or 0:g} or more"
        raise wrong(f"{shown} is out of range", f"Give {span}.")
    return setting.kind(number)
