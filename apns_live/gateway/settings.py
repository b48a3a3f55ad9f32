"""What can be set of the gateway, with the defaults."""

from __future__ import annotations

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
    """Of one key: requests a minute or an hour (a bucket of that size), and at the same time.

    None: no limit. ``per_hour`` takes the place of ``per_minute``.
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

    Raises InvalidSetting for what cannot be.
    """

    # By default where it listens, never what a caller's Host says.
    public_url: str = setting(
        "", "Where phones reach this gateway, for webhook buttons.", metavar="URL"
    )
    # For the operator alone: an app cannot set it.
    webhook_hosts: frozenset[str] = setting(
        frozenset(),
        "Host that webhooks may name although its address is private; may be repeated.",
        metavar="HOST",
        flag="webhook-host",
    )
    body_bytes: int = setting(1_048_576, "Bytes of the largest body.", least=1_024)
    depth: int = setting(40, "How deep JSON may be nested.", least=4)
    bulk: int = setting(BULK, "Items of a bulk call.", least=1)
    import_bytes: int = setting(16_777_216, "Bytes of the largest body of an import.", least=1_024)
    imports: int = setting(2, "Imports at the same time, of one app one less.", least=0)
    # Of each key that has none of its own.
    limits: Mapping[str, Limit] = setting(
        DIALECT_LIMITS,
        "Limit of each key of an API, as braze=4166 a minute or braze=4166/4 with 4 at the same "
        "time; 0 for no limit; may be repeated.",
        metavar="API=N[/N]",
        flag="limit",
    )
    device_per_minute: int = setting(120, "Calls of one phone a minute.", least=1)
    refused_per_minute: int = setting(
        60, "Calls of one address without a valid key a minute.", least=1
    )
    credential_seconds: float = setting(
        3_600.0, "How long a device credential holds.", least=1.0, metavar="SECONDS"
    )
    # Streams of events are not among them.
    requests: int = setting(128, "Requests under way at the same time.", least=1)
    waiting_requests: int = setting(2_000, "Requests that may wait for a place.", least=0)
    # What comes beyond it, or waits for longer, is answered with 503.
    patience: float = setting(
        0.25, "How long a request waits for a place.", least=0.0, metavar="SECONDS"
    )
    bodies: int = setting(
        1_000, "Bodies on their way at the same time, of one app half as many.", least=1
    )
    bodies_bytes: int = setting(268_435_456, "Bytes of all bodies on their way.", least=1_024)
    body_seconds: float = setting(
        20.0, "How long a body may take to come.", least=0.0, metavar="SECONDS"
    )
    call_seconds: float = setting(
        25.0, "How long a call may take then; more is 503.", least=0.0, metavar="SECONDS"
    )
    # Above them idle ones are closed, and new ones turned away.
    connections: int = setting(10_000, "Open connections.", least=1)
    connections_per_address: int = setting(8_000, "Open connections of one address.", least=1)
    trusted_proxies: frozenset[str] = setting(
        frozenset(),
        "Address or network of a proxy whose X-Forwarded-For is believed; may be repeated.",
        metavar="NETWORK",
        flag="trusted-proxy",
    )
    waiting_writes: int = setting(1_024, "Writes that may wait for a commit.", least=1)
    audit_days: float = 365.0
    """How long the audit log is kept."""
    events: int = setting(200, "Followers of events at the same time.", least=0)
    heartbeat: float = setting(
        15.0, "Between two signs of life to a follower.", least=0.1, metavar="SECONDS"
    )
    pages: bool = setting(
        True, "Serve the API's description at /openapi.json, and its reference at /reference."
    )
    metrics: bool = setting(True, "Serve figures for Prometheus at /metrics.")
    metrics_token: str = setting("", "What /metrics asks for as Bearer.", repr_=False, secret=True)

    def __post_init__(self) -> None:
        check_least(self)
        for network in self.trusted_proxies:
            try:
                ip_network(network)
            except ValueError:
                raise InvalidSetting(
                    f"{network!r:.60} is not a valid address or network",
                    field="trusted_proxies",
                    remedy="Give one such as 10.0.0.0/8.",
                ) from None
        if self.bulk > BULK:
            raise InvalidSetting(
                f"{self.bulk!r} is too large", field="bulk", remedy=f"Give at most {BULK}."
            )
        if self.metrics_token and len(self.metrics_token) < _TOKEN_LENGTH:
            raise InvalidSetting(
                "is so short that it can be guessed",
                field="metrics_token",
                remedy=f"Give {_TOKEN_LENGTH} random characters or more.",
            )
        address = urlsplit(self.public_url)
        if self.public_url and (address.scheme not in ("http", "https") or not address.hostname):
            raise InvalidSetting(
                f"{self.public_url!r:.80} is not a valid address",
                field="public_url",
                remedy="Give one such as https://live.example.com/.",
            )

    def limit_of(self, dialect: str) -> Limit:
        """Return the limit of a dialect's keys."""
        return self.limits.get(dialect) or DIALECT_LIMITS.get(dialect) or Limit()
