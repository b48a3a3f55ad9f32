"""Where the pool connects to, Apple's two environments or your own host, and its settings."""

import difflib
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from ..errors import InvalidSetting
from ..refusals import refused

_HOST = re.compile(r"[A-Za-z0-9._:-]+").fullmatch


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Host and port of an APNs server, and of its channel management.

    ``ca_file`` is a PEM file of roots that replace the system's. ``manage_host`` defaults to
    ``host``; ``manage_port`` to 2196, Apple's port for production. Raises `InvalidSetting`.
    """

    host: str
    port: int = 443
    ca_file: str | os.PathLike[str] | None = None
    manage_host: str | None = None
    manage_port: int | None = None

    def __post_init__(self) -> None:
        for field, host in (("host", self.host), ("manage_host", self.manage_host)):
            if host is not None and not (isinstance(host, str) and _HOST(host)):
                raise refused(InvalidSetting, "host", field, host=host)
        for field, port in (("port", self.port), ("manage_port", self.manage_port)):
            if port is not None and (
                isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536
            ):
                raise refused(InvalidSetting, "port", field, port=port)
        if self.ca_file is not None and not Path(self.ca_file).is_file():
            path = os.fspath(self.ca_file)
            raise refused(InvalidSetting, "ca_file_missing", "ca_file", value=path)

    @property
    def authority(self) -> bytes:
        """The ``:authority`` of requests: the port only when it is not 443."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == 443 else f"{host}:{self.port}").encode("ascii")

    @property
    def management(self) -> tuple[str, int]:
        """Host and port of channel management."""
        return self.manage_host or self.host, self.manage_port or 2196


PRODUCTION = Endpoint(
    "api.push.apple.com", 443, manage_host="api-manage-broadcast.push.apple.com", manage_port=2196
)
SANDBOX = Endpoint(
    "api.sandbox.push.apple.com",
    443,
    manage_host="api-manage-broadcast.sandbox.push.apple.com",
    manage_port=2195,
)
ENVIRONMENTS = {"production": PRODUCTION, "sandbox": SANDBOX}
_MEANT = {"prod": "production", "live": "production", "dev": "sandbox", "development": "sandbox"}
"""Other tools' names for the two environments."""


def resolve_environment(environment: str | Endpoint) -> Endpoint:
    """Return the endpoint for ``"production"``, ``"sandbox"`` or an `Endpoint`."""
    if isinstance(environment, Endpoint):
        return environment
    found = ENVIRONMENTS.get(environment) if isinstance(environment, str) else None
    if found is None:
        meant = _MEANT.get(str(environment).strip().lower()) or next(
            iter(difflib.get_close_matches(str(environment).lower(), ENVIRONMENTS, n=1)), ""
        )
        ask = f'Did you mean "{meant}"? ' if meant else ""
        words = {"environment": environment, "ask": ask}
        raise refused(InvalidSetting, "environment", "environment", **words)
    return found


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Settings of links and pool. Raises `InvalidSetting` for invalid numbers."""

    max_connections: int = 8
    min_connections: int = 1
    """Idle connections to keep; the first is opened when there is something to send."""
    connect_timeout: float = 10.0
    """For DNS, TCP, proxy, TLS and the server's SETTINGS together."""
    response_timeout: float = 10.0
    close_timeout: float = 10.0
    connect_spacing: float = 0.25
    idle_timeout: float = 300.0
    backoff_first: float = 0.5
    backoff_limit: float = 60.0
    credential_backoff: float = 900.0
    """Seconds without connection attempts after a GOAWAY that names credentials."""
    silence_before_ping: float = 3.0
    ping_timeout: float = 5.0
    idle_before_probe: float = 60.0
    idle_ping_interval: float = 3600.0
    write_buffer: int = 262_144
    """Bytes waiting in the transport above which a link takes no more work."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check_positive(field.name, getattr(self, field.name))
        for name in ("max_connections", "min_connections"):
            if not isinstance(getattr(self, name), int):
                raise InvalidSetting("this is a count", field=name, remedy="Give a whole number.")
        if self.min_connections > self.max_connections:
            field_name = "min_connections"
            counts = {name: getattr(self, name) for name in (field_name, "max_connections")}
            raise refused(InvalidSetting, field_name, field_name, **counts)


def check_positive(field: str, value: object) -> None:
    """Raise `InvalidSetting` unless ``value`` is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise refused(InvalidSetting, "not_positive", field, value=value)
