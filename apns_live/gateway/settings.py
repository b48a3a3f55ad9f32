"""What can be set of the gateway, with the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from urllib.parse import urlsplit

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

    - ``body_bytes``, ``depth``: the largest body, and how deep JSON may be nested.
    - ``bulk``: the most items of a bulk call.
    - ``import_bytes``: the largest body of an import; ``imports`` are read at the same time, of
      one app one less, so that it leaves room for others.
    - ``limits``: per dialect, of each key that has none of its own.
    - ``device_per_minute``: calls of one phone; ``refused_per_minute``: calls of one address
      without a valid key, before it is told to wait.
    - ``credential_seconds``: how long a device credential holds; callers may ask for less.
    - ``requests``: requests under way at the same time; ``waiting_requests`` more may wait for
      ``patience``, and what comes then is answered with 503. Streams of events are not among them.
    - ``bodies``: bodies on their way at the same time, of one app or address half as many, and
      ``bodies_bytes`` of all of them together. A body has ``body_seconds`` to come, and a call
      ``call_seconds`` from then on; what takes longer is answered with 503.
    - ``connections``, ``connections_per_address``: open connections; above them idle ones are
      closed, and new ones turned away.
    - ``trusted_proxies``: addresses and networks whose ``X-Forwarded-For`` is believed.
    - ``waiting_writes``: writes that may wait for a commit; more are answered with 503.
    - ``audit_days``: how long the audit log is kept.
    - ``events``: followers by server-sent events at the same time; ``heartbeat`` keeps them open.
    - ``pages``: serve the description of the API at /openapi.json.
    - ``metrics``: serve figures at /metrics; with ``metrics_token`` to who gives it as
      ``Authorization: Bearer TOKEN`` alone.
    - ``public_url``: where phones reach this gateway, for the addresses of webhook buttons; by
      default where it listens, never what a caller's Host says.
    - ``webhook_hosts``: hosts that webhooks of buttons may name although their addresses are
      private. For the operator alone: an app cannot set it.

    Raises InvalidSetting for what cannot be.
    """

    body_bytes: int = 1_048_576
    depth: int = 40
    bulk: int = BULK
    import_bytes: int = 16_777_216
    imports: int = 2
    limits: Mapping[str, Limit] = field(default_factory=lambda: dict(DIALECT_LIMITS))
    device_per_minute: int = 120
    refused_per_minute: int = 60
    credential_seconds: float = 3_600.0
    requests: int = 128
    waiting_requests: int = 2_000
    patience: float = 0.25
    bodies: int = 1_000
    bodies_bytes: int = 268_435_456
    body_seconds: float = 20.0
    call_seconds: float = 25.0
    connections: int = 10_000
    connections_per_address: int = 8_000
    trusted_proxies: frozenset[str] = frozenset()
    waiting_writes: int = 1_024
    audit_days: float = 365.0
    events: int = 200
    heartbeat: float = 15.0
    pages: bool = True
    metrics: bool = True
    metrics_token: str = field(default="", repr=False)
    public_url: str = ""
    webhook_hosts: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name, least in (
            ("body_bytes", 1_024),
            ("depth", 4),
            ("bulk", 1),
            ("import_bytes", 1_024),
            ("imports", 0),
            ("device_per_minute", 1),
            ("refused_per_minute", 1),
            ("credential_seconds", 1.0),
            ("requests", 1),
            ("waiting_requests", 0),
            ("patience", 0.0),
            ("bodies", 1),
            ("bodies_bytes", 1_024),
            ("body_seconds", 0.0),
            ("call_seconds", 0.0),
            ("connections", 1),
            ("connections_per_address", 1),
            ("waiting_writes", 1),
            ("audit_days", 0.0),
            ("events", 0),
            ("heartbeat", 0.1),
        ):
            value = getattr(self, name)
            if not least <= value < float("inf"):
                raise InvalidSetting(
                    f"{value!r} is not possible", field=name, remedy=f"Give at least {least}."
                )
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
                f"{self.bulk!r} is not possible", field="bulk", remedy=f"Give at most {BULK}."
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
        return self.limits.get(dialect, DIALECT_LIMITS.get(dialect, Limit()))
