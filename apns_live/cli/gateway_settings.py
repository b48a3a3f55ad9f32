"""The settings of ``apns-live gateway``: options, over APNS_LIVE_* variables, over the settings file.

``--public-url`` is ``APNS_LIVE_GATEWAY_PUBLIC_URL``, and ``public_url`` in the table ``[gateway]`` of
``apns-live.toml``; what the service below has is in ``[service]``.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import typer

from ..activities.settings import ServiceSettings
from ..errors import InvalidSetting
from ..gateway.scopes import DIALECTS
from ..gateway.settings import DIALECT_LIMITS, GatewaySettings, Limit
from ..settings import DEFAULT_FILE, PREFIX, suggestion

if TYPE_CHECKING:
    from ..pool.endpoint import Endpoint

_KUBERNETES = re.compile(r"_(?:SERVICE_(?:HOST|PORT)\w*|PORT|PORT_\d+_(?:TCP|UDP|SCTP)\w*)$")
"""What Kubernetes sets for a service of the name apns-live-gateway."""
Part = Literal["gateway", "service"]
Kind = type[str] | type[int] | type[float] | type[bool] | type[list[str]]
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Tuning:
    """One setting. A secret has no option: what a command line says, every process may read."""

    part: Part
    name: str
    kind: Kind
    help: str
    metavar: str = "N"
    flag: str = ""
    choices: tuple[str, ...] = ()
    secret: bool = False

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return f"{PREFIX}{self.part}_{self.name}".upper()

    @property
    def option(self) -> str:
        """The name of the option."""
        return f"--{self.flag or self.name.replace('_', '-')}"


def _fields(part: Part, kind: type) -> Iterator[Tuning]:
    """Return the settings that the fields of a class are."""
    hints = get_type_hints(kind)
    for one in fields(kind):
        shown, default, hint = dict(one.metadata), one.default, hints[one.name]
        if not shown:
            continue
        del shown["least"]
        plain: Any = type(default) if isinstance(default, bool | int | float | str) else list[str]
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        shown["choices"] = tuple(choice.replace(" ", "-") for choice in choices)
        yield Tuning(part, one.name, shown.pop("kind", plain), **shown)


APNS = ("apns", "apns_manage", "apns_ca")
"""Options of the gateway that whoever sends has too."""
_LEVELS = ("debug", "info", "warning", "error")
TABLE: tuple[Tuning, ...] = (
    Tuning(
        "gateway",
        "apns",
        str,
        "An APNs that runs elsewhere, such as a fake, in place of Apple's.",
        "URL",
    ),
    Tuning("gateway", "apns_manage", str, "Its channel management.", "URL"),
    Tuning("gateway", "apns_ca", str, "PEM file of the certificates to trust there.", "FILE"),
    *_fields("gateway", GatewaySettings),
    *_fields("service", ServiceSettings),
    Tuning("service", "log_format", str, "How log lines are written.", choices=("text", "json")),
    Tuning("service", "log_level", str, "What is logged, to standard error.", choices=_LEVELS),
    Tuning("service", "access_log", bool, "Log a line for each answer."),
)
_LOG = ("log_format", "log_level", "access_log")
_NAMES = {(one.part, one.name): one for one in TABLE}


@dataclass(slots=True)
class Tuned:
    """What was said, by part and name, and where."""

    values: dict[tuple[Part, str], Any] = field(default_factory=dict)
    sources: dict[tuple[Part, str], str] = field(default_factory=dict)

    def gateway(self) -> GatewaySettings:
        """Return the settings of the HTTP API. Raises `InvalidSetting`."""
        values = self._of("gateway")
        for name in APNS:
            values.pop(name, None)
        if "limits" in values:
            values["limits"] = _limits(values["limits"], self.sources["gateway", "limits"])
        for name in ("webhook_hosts", "trusted_proxies"):
            if name in values:
                values[name] = frozenset(values[name])
        if ("service", "audit_days") in self.values:
            values["audit_days"] = self.values["service", "audit_days"]
        made: GatewaySettings = self._made("gateway", GatewaySettings, values)
        return made

    def endpoints(self) -> dict[str, Endpoint]:
        """Return what the environments are in place of Apple's; nothing without ``apns``.

        Raises `InvalidSetting`.
        """
        from ..pool.endpoint import Endpoint

        given = {name: self.values.get(("gateway", name)) for name in APNS}
        if given["apns"] is None:
            for name in APNS:
                if given[name] is not None:
                    raise InvalidSetting(
                        "says nothing without --apns",
                        field=self.sources["gateway", name],
                        remedy="Give the URL of that APNs too.",
                    )
            return {}
        host, port = self._host("apns")
        manage_host, manage_port = (
            self._host("apns_manage") if given["apns_manage"] else (None, None)
        )
        try:
            endpoint = Endpoint(
                host,
                port or 443,
                ca_file=given["apns_ca"],
                manage_host=manage_host,
                manage_port=manage_port,
            )
        except InvalidSetting as error:
            name = {"ca_file": "apns_ca"}.get(error.field, "apns")
            place = self.sources["gateway", name]
            raise InvalidSetting(error.problem, field=place, remedy=error.remedy) from None
        return {"production": endpoint, "sandbox": endpoint}

    def _host(self, name: str) -> tuple[str, int | None]:
        """Return host and port of an URL, of which there may be nothing else."""
        text = str(self.values["gateway", name])
        try:
            url = urlsplit(text)
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if not host or text.rstrip("/") != f"https://{url.netloc}" or "@" in url.netloc:
            raise InvalidSetting(
                f"{text!r:.80} is not the address of an APNs",
                field=self.sources["gateway", name],
                remedy="Write https://HOST:PORT.",
            )
        return host, port

    def service(self) -> ServiceSettings:
        """Return the settings of the service. Raises `InvalidSetting`."""
        values = {name: value for name, value in self._of("service").items() if name not in _LOG}
        if "device_limit_ends" in values:
            values["device_limit_ends"] = values["device_limit_ends"].replace("-", " ")
        made: ServiceSettings = self._made("service", ServiceSettings, values)
        return made

    def configure_logs(self) -> None:
        """Set up the log of this program, as ``--log-format`` and its neighbours say."""
        from ..activities.logs import configure

        said = {name: self.values.get(("service", name)) for name in _LOG}
        configure(
            said["log_format"] or "text",
            said["log_level"] or "info",
            access=bool(said["access_log"]),
        )

    def _of(self, part: Part) -> dict[str, Any]:
        return {name: value for (of, name), value in self.values.items() if of == part}

    def _made(self, part: Part, kind: Callable[..., Any], values: Mapping[str, Any]) -> Any:
        try:
            return kind(**values)
        except InvalidSetting as error:
            # In the words of whoever set it.
            place = self.sources.get((part, error.field), error.field)
            raise InvalidSetting(error.problem, field=place, remedy=error.remedy) from None


def tunable(
    function: Callable[..., int],
    *,
    parts: tuple[Part, ...] = ("gateway", "service"),
    also: tuple[str, ...] = (),
) -> Callable[..., int]:
    """Give a command the options of the table; what is chosen is its keyword ``tuned``.

    ``also`` names some of other parts.
    """
    own = inspect.signature(function, eval_str=True)
    options = [
        _parameter(one)
        for one in TABLE
        if (one.part in parts or one.name in also) and not one.secret
    ]

    @functools.wraps(function)
    def run(*args: Any, **given: Any) -> int:
        said = {option.name: given.pop(option.name) for option in options}
        return function(*args, **given, tuned=load(said))

    kept = [one for one in own.parameters.values() if one.name != "tuned"]
    run.__signature__ = own.replace(parameters=kept + options)  # type: ignore[attr-defined]
    return run


def load(given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Tuned:
    """Return what options, variables and the file say; the first of them that speaks counts.

    ``given`` maps ``PART__NAME`` to what an option said. Raises `InvalidSetting`.
    """
    environ = os.environ if environ is None else environ
    path = Path(environ.get(f"{PREFIX}CONFIG") or DEFAULT_FILE)
    tables = _tables(path)
    _check_variables(environ)
    tuned = Tuned()
    for place, one in _NAMES.items():
        said = given.get(f"{one.part}__{one.name}")
        source = one.option
        if said is None and (said := environ.get(one.variable) or None) is not None:
            source = one.variable
            if one.kind == list[str]:
                said = [part.strip() for part in said.split(",") if part.strip()]
        if said is None and (said := tables[one.part].get(one.name)) is not None:
            source = f"{path}: {one.part}.{one.name}"
            if one.metavar == "FILE" and isinstance(said, str):
                said = str(path.parent / said)  # the file may be read from anywhere
        if said is not None:
            tuned.values[place] = _converted(one, said, source)
            tuned.sources[place] = source
    return tuned


def _check_variables(environ: Mapping[str, str]) -> None:
    """Refuse a misspelt variable: it must not be silence."""
    known = [one.variable for one in TABLE]
    for variable in environ:
        ours = variable.startswith((f"{PREFIX}GATEWAY_", f"{PREFIX}SERVICE_"))
        if ours and variable not in known and not _KUBERNETES.search(variable):
            raise InvalidSetting(
                "is not a setting",
                field=variable,
                remedy=suggestion(variable, known) or "docs/cli.md lists them.",
            )


def _parameter(one: Tuning) -> inspect.Parameter:
    flags = [one.option]
    more: dict[str, Any] = {"metavar": "|".join(one.choices) or one.metavar}
    if one.kind is bool:
        flags = [f"{one.option}/--no-{one.option.removeprefix('--')}"]
        more = {}
    option = typer.Option(
        None,
        *flags,
        help=one.help,
        rich_help_panel=f"{PREFIX}{one.part.upper()}_NAME, or [{one.part}] in {DEFAULT_FILE}",
        **more,
    )
    return inspect.Parameter(
        f"{one.part}__{one.name}",
        inspect.Parameter.KEYWORD_ONLY,
        default=option,
        annotation=one.kind | None,
    )


def _tables(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        content = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSetting(f"cannot be read ({error})", field=str(path)) from error
    tables: dict[str, dict[str, Any]] = {}
    for part in ("gateway", "service"):
        table = content.get(part, {})
        if not isinstance(table, dict):
            raise InvalidSetting(
                "is not a table", field=f"{path}: {part}", remedy=f"Write [{part}]."
            )
        known = [name for of, name in _NAMES if of == part]
        for name in table:
            if name not in known:
                raise InvalidSetting(
                    "is not a setting",
                    field=f"{path}: {part}.{name}",
                    remedy=suggestion(name, known) or f"Known: {', '.join(known)}.",
                )
        tables[part] = table
    return tables


def _converted(one: Tuning, said: Any, source: str) -> Any:
    if one.kind == list[str]:
        if isinstance(said, list) and all(isinstance(part, str) and part for part in said):
            # A repeatable option that was not given is an empty list to some versions.
            return said
        raise InvalidSetting("is not a list of texts", field=source, remedy=one.help)
    if one.kind is bool:
        word = said if isinstance(said, bool) else str(said).strip().lower()
        if word is True or word is False:
            return word
        if word in _TRUE | _FALSE:
            return word in _TRUE
        raise InvalidSetting("is neither true nor false", field=source, remedy="Give one of them.")
    if one.kind is str:
        if not isinstance(said, str) or not said.isprintable():
            raise InvalidSetting("is not a string", field=source, remedy=one.help)
        if one.choices and said.replace(" ", "-") not in one.choices:
            raise InvalidSetting(
                f"{said!r:.40} is not possible",
                field=source,
                remedy=f"Give one of {', '.join(one.choices)}.",
            )
        return said
    try:
        if isinstance(said, bool):
            raise TypeError
        return int(str(said)) if one.kind is int else float(said)
    except (TypeError, ValueError):
        raise InvalidSetting(
            f"{said!r:.40} is not a number", field=source, remedy="Give a number."
        ) from None


def _limits(said: list[str], source: str) -> dict[str, Any]:
    """Return the limits of each API; those that are not named keep theirs."""
    limits: dict[str, Any] = dict(DIALECT_LIMITS)
    for one in said:
        name, equals, numbers = one.partition("=")
        per_minute, slash, concurrent = numbers.partition("/")
        given = [per_minute, *([concurrent] if slash else [])]
        if (
            name not in DIALECTS
            or not equals
            or not all(text.isascii() and text.isdecimal() and len(text) < 10 for text in given)
        ):
            raise InvalidSetting(
                f"{one!r:.60} is not a valid limit",
                field=source,
                remedy=f"Write braze=4166 or braze=4166/4; APIs: {', '.join(DIALECTS)}.",
            )
        limits[name] = Limit(
            per_minute=int(per_minute) or None, concurrent=int(concurrent or 0) or None
        )
    return limits
