"""Endpoints: Apple's two environments, or your own host."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidSetting
from ..refusals import refused


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Host and port of an APNs server, and of its channel management.

    ``ca_file`` is a PEM file of root certificates to trust instead of the system's, such as a
    fake's. ``manage_host`` defaults to ``host``; ``manage_port`` to 2196, Apple's port for
    production. Raises `InvalidSetting`.
    """

    host: str
    port: int = 443
    ca_file: str | os.PathLike[str] | None = None
    manage_host: str | None = None
    manage_port: int | None = None

    def __post_init__(self) -> None:
        for field, host in (("host", self.host), ("manage_host", self.manage_host)):
            if host is not None:
                _check_host(field, host)
        for field, port in (("port", self.port), ("manage_port", self.manage_port)):
            if port is not None and (
                isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536
            ):
                raise refused(InvalidSetting, "port", field, port=port)
        if self.ca_file is not None and not Path(self.ca_file).is_file():
            raise refused(
                InvalidSetting, "ca_file_missing", "ca_file", value=os.fspath(self.ca_file)
            )

    @property
    def authority(self) -> bytes:
        """The ``:authority`` of requests: the port only when it is not 443."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == 443 else f"{host}:{self.port}").encode("ascii")

    @property
    def management(self) -> tuple[str, int]:
        """Host and port of channel management."""
        return self.manage_host or self.host, self.manage_port or 2196


def _check_host(field: str, host: object) -> None:
    allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:"
    if not isinstance(host, str) or not host or not set(host) <= set(allowed):
        raise refused(InvalidSetting, "host", field, host=host)


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
"""What other tools call the two."""


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
        raise refused(
            InvalidSetting, "environment", "environment", environment=environment, ask=ask
        )
    return found
