"""The table of all settings. Command line, environment, settings file and docs/cli.md follow it.

Every setting has one name of dotted parts. ``endpoint.host`` is ``host`` in the table ``[endpoint]`` of
the file, ``APNS_LIVE_ENDPOINT_HOST`` in the environment, and ``--host`` of the commands that take it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..activities.settings import ServiceSettings
from ..gateway.settings import GatewaySettings

PREFIX = "APNS_LIVE_"
Kind = type[str] | type[int] | type[float] | type[bool] | type[list[str]]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its dotted name, its type, and its help.

    A value whose ``metavar`` begins with FILE is a path; in a settings file it is relative to that file.
    A secret is never shown. Keys and tokens have no option: other processes can read a command line.
    """

    name: str
    kind: Kind
    help: str
    metavar: str = "N"
    flag: str = ""
    choices: tuple[str, ...] = ()
    secret: bool = False
    has_option: bool = True
    minimum: float | None = None
    maximum: float | None = None
    suffix: str = ""
    default: str = ""

    @property
    def text(self) -> str:
        """The help text with the choices, and with the default if that is a plain value."""
        unit = f" {self.metavar.lower()}" if self.metavar in ("SECONDS", "DAYS") else ""
        said = [self.help, f"One of {', '.join(self.choices)}." if self.choices else ""]
        said.append(f"Default: {self.default}{unit}." if self.default else "")
        return " ".join(filter(None, said))

    @property
    def part(self) -> str:
        """The table of the settings file that contains it; empty for the top level."""
        return self.name.rpartition(".")[0]

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return PREFIX + (self.suffix or self.name.replace(".", "_").upper())

    @property
    def option(self) -> str:
        """The name of the option, in the commands that take it."""
        return "--" + (self.flag or self.name.rpartition(".")[2].replace("_", "-"))


def _pool(name: str, kind: Kind, text: str, minimum: float = 0) -> Setting:
    has_option = name == "max_connections"
    return Setting(f"pool.{name}", kind, text, has_option=has_option, minimum=minimum)


def _fields(part: str, kind: type) -> Iterator[Setting]:
    """Return the settings that a class's fields describe."""
    hints = get_type_hints(kind)
    for one in fields(kind):
        shown, default, hint = dict(one.metadata), one.default, hints[one.name]
        if not shown:
            continue
        del shown["least"]  # the class checks it
        plain: Any = type(default) if isinstance(default, bool | int | float | str) else list[str]
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        shown["choices"] = tuple(choice.replace(" ", "-") for choice in choices)
        shown["has_option"] = not shown.get("secret")
        if isinstance(default, bool):
            shown["default"] = "on" if default else "off"
        elif isinstance(default, int | float | str):
            shown["default"] = f"{default:g}" if isinstance(default, float) else str(default)
        yield Setting(f"{part}.{one.name}", shown.pop("kind", plain), **shown)


CLIENT: tuple[Setting, ...] = (
    Setting(
        "key",
        str,
        "The provider key itself: PEM, or base64 of the .p8 file.",
        secret=True,
        has_option=False,
    ),
    Setting("key_file", str, "The .p8 file of the provider key.", "FILE"),
    Setting(
        "key_id", str, "The key's ten characters; read from AuthKey_XXXXXXXXXX.p8 if absent.", "ID"
    ),
    Setting("team_id", str, "The team's ten characters.", "ID"),
    Setting("bundle_id", str, "The app's bundle id, without a suffix.", "ID"),
    Setting("environment", str, "Environment of APNs.", choices=("production", "sandbox")),
    Setting("endpoint.host", str, "Host to use instead of Apple's, for example a fake.", "HOST"),
    Setting(
        "endpoint.port",
        int,
        "TCP port of the host (443; Apple also serves 2197).",
        "PORT",
        minimum=1,
        maximum=65535,
    ),
    Setting("endpoint.ca_file", str, "PEM file of trusted roots, instead of the system's.", "FILE"),
    Setting("endpoint.manage_host", str, "Host for channel management.", "HOST"),
    Setting("endpoint.manage_port", int, "Its port.", "PORT", minimum=1, maximum=65535),
    Setting(
        "transport", str, "HTTP/2 implementation.", choices=("http2", "httpx"), default="http2"
    ),
    Setting("proxy", str, "URL of a CONNECT proxy; may contain a password.", "URL", secret=True),
    _pool("max_connections", int, "Maximum of connections.", 1),
    _pool("min_connections", int, "Connections kept when idle.", 1),
    _pool("connect_timeout", float, "Seconds for DNS, TCP and TLS together."),
    _pool("response_timeout", float, "Seconds for one answer."),
    _pool("close_timeout", float, "Seconds that closing waits for pushes in flight."),
    _pool("connect_spacing", float, "Minimum seconds between two new connections."),
    _pool("idle_timeout", float, "Seconds until an idle connection above the minimum is closed."),
    _pool("backoff_first", float, "Seconds to wait after a failed connect, doubling."),
    _pool("backoff_limit", float, "Maximum seconds to wait after failed connects."),
    _pool("credential_backoff", float, "Seconds to wait after a GOAWAY that names credentials."),
    _pool("silence_before_ping", float, "Seconds without data, with open streams, before a PING."),
    _pool("ping_timeout", float, "Seconds to wait for the answer to a PING."),
    _pool("idle_before_probe", float, "Seconds idle before a PING precedes a push."),
    _pool("idle_ping_interval", float, "Seconds between PINGs of an idle connection."),
    _pool("write_buffer", int, "Bytes that may wait to be written.", 1),
    _pool("queue_timeout", float, "Seconds that a send waits while the waiting room is full."),
    _pool("waiting_room", int, "Maximum of sends that wait for a connection.", 1),
)
"""The settings of a client."""

STORE: tuple[Setting, ...] = (
    Setting(
        "store.url",
        str,
        "Database: a file's path, sqlite:///PATH or postgresql://USER@HOST/NAME.",
        "FILE|URL",
        flag="database",
        suffix="STORE",
    ),
    Setting(
        "store.key",
        str,
        "Sealing key that encrypts provider keys: 32 bytes in base64.",
        secret=True,
        has_option=False,
    ),
    Setting("store.key_file", str, "File with the sealing key.", "FILE", has_option=False),
)
APNS: tuple[Setting, ...] = (
    Setting(
        "gateway.apns", str, "URL of an APNs to use instead of Apple's, such as a fake.", "URL"
    ),
    Setting("gateway.apns_manage", str, "URL of its channel management.", "URL"),
    Setting("gateway.apns_ca", str, "PEM file of the certificates to trust for it.", "FILE"),
)
"""Settings of the gateway that a worker has too."""
LOG: tuple[Setting, ...] = (
    Setting(
        "service.log_format", str, "Format of log lines.", choices=("text", "json"), default="text"
    ),
    Setting(
        "service.log_level",
        str,
        "Minimum level of log lines on standard error.",
        choices=("debug", "info", "warning", "error"),
        default="info",
    ),
    Setting("service.access_log", bool, "Log a line for each request.", default="off"),
)
GATEWAY: tuple[Setting, ...] = (*APNS, *_fields("gateway", GatewaySettings))
SERVICE: tuple[Setting, ...] = (*_fields("service", ServiceSettings), *LOG)

TABLE: tuple[Setting, ...] = (*CLIENT, *STORE, *GATEWAY, *SERVICE)
NAMES: dict[str, Setting] = {setting.name: setting for setting in TABLE}
