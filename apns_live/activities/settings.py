"""What can be set of the service, with the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import InvalidSetting


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Settings of a `Service`. Times are seconds unless their name says otherwise.

    - ``token_wait``: how long after a start an activity token may take before it is reported.
    - ``outcome_days``, ``receipt_days``, ``activity_days``, ``token_days``, ``audit_days``: how long
      outcomes with their operations, receipts, ended activities, retired tokens and the audit log
      are kept.
    - ``device_limit``: living activities of one app on one device; None for no limit.
      ``device_limit_ends`` says which one gives way: the oldest, or the least relevant.
    - ``budget``: the priority budget of apps that set none themselves. By default an hour's pushes
      at priority 10 may be spent at once, down to the reserve; ``default`` and ``frequent`` have a pace.
    - ``drain``: how long closing waits for what is under way.
    - ``starts_at_once``: starts that are fanned out side by side.
    - ``tokens_in_memory``: activity tokens kept of idle activities, so that their next update does
      not read them again.
    - ``key_check``: how often keys that were added by another process are looked for.
    - ``carriers_open``: apps, times their environments, that stay connected to APNs; beyond it the
      one that idles longest is closed. ``carrier_idle``: after how long an idle one is closed anyway.
    - ``lease``: how long a worker that is gone keeps its share of the work, on PostgreSQL.
    - ``client``: keyword arguments for every `apns_live.Client`.

    Raises InvalidSetting for what cannot be.
    """

    token_wait: float = 60.0
    outcome_days: float = 30.0
    receipt_days: float = 30.0
    activity_days: float = 30.0
    token_days: float = 30.0
    audit_days: float = 365.0
    device_limit: int | None = None
    device_limit_ends: Literal["oldest", "least relevant"] = "oldest"
    budget: Literal["default", "frequent", "observed", "observed-frequent"] = "observed"
    drain: float = 10.0
    starts_at_once: int = 64
    tokens_in_memory: int = 300_000
    key_check: float = 60.0
    carriers_open: int = 100
    carrier_idle: float = 900.0
    lease: float = 5.0
    client: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (
            ("token_wait", 1.0),
            ("outcome_days", 0.0),
            ("receipt_days", 0.0),
            ("activity_days", 0.0),
            ("token_days", 0.0),
            ("audit_days", 0.0),
            ("drain", 0.0),
            ("starts_at_once", 1),
            ("tokens_in_memory", 0),
            ("key_check", 1.0),
            ("carriers_open", 1),
            ("carrier_idle", 1.0),
            ("lease", 1.0),
        ):
            value = getattr(self, name)
            if not least <= value < float("inf"):
                raise InvalidSetting(
                    f"{value!r} is not possible", field=name, remedy=f"Give at least {least}."
                )
        if self.device_limit is not None and self.device_limit < 1:
            raise InvalidSetting(
                f"{self.device_limit!r} is not possible",
                field="device_limit",
                remedy="Give 1 or more, or None for no limit.",
            )
