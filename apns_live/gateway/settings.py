"""Settings of the gateway, with their defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from urllib.parse import urlsplit

from ..activities.settings import check_least, setting
from ..errors import InvalidSetting

BULK = 500
"""Items of a bulk call that the description of the API allows."""
_TOKEN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Limit:
    """Limits of one key: requests per minute or hour (a token bucket), and concurrent requests.

    None is no limit. ``per_hour`` replaces ``per_minute``.
    """

    per_minute: int | None = None
    concurrent: int | None = None
    per_hour: int | None = None


DIALECT_LIMITS: Mapping[str, Limit] = {
    "native": Limit(),
    "activitysmith": Limit(per_minute=60),
    "braze": Limit(per_hour=250_000),
    "onesignal": Limit(),
    "fcm": Limit(per_minute=600_000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Settings of the HTTP API. Sizes are bytes, times seconds.

    Raises InvalidSetting for an invalid value.
    """

    # The default is the listening address. A caller's Host header is never used.
    public_url: str = setting(
        "", "URL at which phones reach this gateway, for webhook buttons.", metavar="URL"
    )
    # Only the operator can set this; an app cannot.
    webhook_hosts: frozenset[str] = setting(
        frozenset(),
        "Webhook host that may have a private address; repeatable.",
        metavar="HOST",
        flag="webhook-host",
    )
    body_bytes: int = setting(1_048_576, "Maximum size of a body in bytes.", least=1_024)
    depth: int = setting(40, "Maximum nesting of JSON.", least=4)
    bulk: int = setting(BULK, "Maximum of items in a bulk call.", least=1)
    import_bytes: int = setting(16_777_216, "Maximum size of an import in bytes.", least=1_024)
    imports: int = setting(2, "Maximum of concurrent imports; of one app one less.", least=0)
    # These apply to keys without limits of their own.
    limits: Mapping[str, Limit] = setting(
        DIALECT_LIMITS,
        "Limit of each key of an API: braze=4166 calls a minute, or braze=4166/4 with 4 concurrent "
        "ones; 0 for no limit; repeatable.",
        metavar="API=N[/N]",
        flag="limit",
    )
    device_per_minute: int = setting(120, "Maximum of calls of one phone a minute.", least=1)
    refused_per_minute: int = setting(
        60, "Maximum of calls of one address without a valid key a minute.", least=1
    )
    credential_seconds: float = setting(
        3_600.0, "How long a device credential is valid by default.", least=1.0, metavar="SECONDS"
    )
    # A load balancer needs this time to poll /readyz. SIGINT and a second SIGTERM stop at once.
    stop_delay: float = setting(
        5.0,
        "How long calls are accepted after SIGTERM, while /readyz answers 503.",
        least=0.0,
        metavar="SECONDS",
    )
    # Event streams do not count.
    requests: int = setting(128, "Maximum of concurrent reads, and of concurrent writes.", least=1)
    waiting_requests: int = setting(2_000, "Requests that may wait for a slot.", least=0)
    # Further calls, and calls that wait for longer, are answered with 503.
    patience: float = setting(
        0.25, "How long a request waits for a free slot.", least=0.0, metavar="SECONDS"
    )
    bodies: int = setting(
        1_000, "Maximum of bodies received at the same time; of one app half as many.", least=1
    )
    bodies_bytes: int = setting(268_435_456, "Bytes of all bodies being received.", least=1_024)
    body_seconds: float = setting(
        20.0, "Time limit for receiving a body.", least=0.0, metavar="SECONDS"
    )
    call_seconds: float = setting(
        25.0, "Time limit for the call after that.", least=0.0, metavar="SECONDS"
    )
    # Above these, idle connections are closed and new ones refused.
    connections: int = setting(10_000, "Maximum of open connections.", least=1)
    connections_per_address: int = setting(8_000, "Open connections of one address.", least=1)
    trusted_proxies: frozenset[str] = setting(
        frozenset(),
        "Address or network of a proxy whose X-Forwarded-For is trusted; repeatable.",
        metavar="NETWORK",
        flag="trusted-proxy",
    )
    waiting_writes: int = setting(1_024, "Maximum of writes that wait for a commit.", least=1)
    audit_days: float = 365.0
    """How long the audit log is kept."""
    events: int = setting(200, "Maximum of clients that follow events.", least=0)
    heartbeat: float = setting(
        15.0, "Interval of keep-alives in an event stream.", least=0.1, metavar="SECONDS"
    )
    pages: bool = setting(True, "Serve /openapi.json and the API reference at /reference.")
    metrics: bool = setting(True, "Serve Prometheus metrics at /metrics.")
    metrics_token: str = setting("", "Bearer token for /metrics.", repr_=False, secret=True)

    def __post_init__(self) -> None:
        check_least(self)
        for network in self.trusted_proxies:
            try:
                ip_network(network)
            except ValueError:
                problem = f"{network!r:.60} is not a valid address or network"
                remedy = "Give one such as 10.0.0.0/8."
                raise InvalidSetting(problem, "trusted_proxies", remedy) from None
        if self.bulk > BULK:
            raise InvalidSetting(f"{self.bulk!r} is too large", "bulk", f"Give at most {BULK}.")
        if self.metrics_token and len(self.metrics_token) < _TOKEN_LENGTH:
            remedy = f"Give {_TOKEN_LENGTH} random characters or more."
            raise InvalidSetting("is so short that it can be guessed", "metrics_token", remedy)
        address = urlsplit(self.public_url)
        if self.public_url and (address.scheme not in ("http", "https") or not address.hostname):
            problem = f"{self.public_url!r:.80} is not a valid address"
            remedy = "Give one such as https://live.example.com/."
            raise InvalidSetting(problem, "public_url", remedy)

    def limit_of(self, dialect: str) -> Limit:
        """Return the default limit for keys of an API."""
        return self.limits.get(dialect) or DIALECT_LIMITS.get(dialect) or Limit()
