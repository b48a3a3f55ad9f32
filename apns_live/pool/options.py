"""Settings of the pool, with their defaults. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import InvalidSetting
from ..refusals import refused


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Settings of links and pool. Raises `InvalidSetting` for numbers that cannot work."""

    max_connections: int = 8
    min_connections: int = 1
    """How many idle connections are kept; the first is opened when there is something to send."""
    connect_timeout: float = 10.0
    """For DNS, TCP, proxy, TLS and the server's SETTINGS together."""
    response_timeout: float = 10.0
    close_timeout: float = 10.0
    connect_spacing: float = 0.25
    idle_timeout: float = 300.0
    backoff_first: float = 0.5
    backoff_limit: float = 60.0
    credential_backoff: float = 900.0
    """How long nothing connects after a GOAWAY that names credentials."""
    silence_before_ping: float = 3.0
    ping_timeout: float = 5.0
    idle_before_probe: float = 60.0
    idle_ping_interval: float = 3600.0
    write_buffer: int = 262_144
    """Bytes that may wait in the transport before a link takes no more work."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check_positive(field.name, getattr(self, field.name))
        for name in ("max_connections", "min_connections"):
            if not isinstance(getattr(self, name), int):
                raise InvalidSetting("this is a count", field=name, remedy="Give a whole number.")
        if self.min_connections > self.max_connections:
            raise refused(
                InvalidSetting,
                "min_connections",
                "min_connections",
                min_connections=self.min_connections,
                max_connections=self.max_connections,
            )


def check_positive(field: str, value: object) -> None:
    """Raise `InvalidSetting` unless ``value`` is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise refused(InvalidSetting, "not_positive", field, value=value)
