"""Settings of the service, with their defaults.

Each field has all metadata of its setting. The command line, the environment variables, the settings
file and the documentation are derived from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from ..errors import InvalidSetting
from .times import LATEST_HAND_OVER

HAND_OVER_AFTER = 7.5 * 3600
"""Seconds: half an hour before iOS ends a card, so that an offline card arrives in time."""


def setting(
    default: Any, help_: str, *, least: float | None = None, repr_: bool = True, **shown: Any
) -> Any:
    """Return a field that can be set from outside. ``help_`` says what it is, ``least`` bounds it.

    ``shown`` is how a command shows it: ``metavar``, ``flag``, ``kind`` where the default does not
    tell, ``secret``.
    """
    metadata = {"help": help_, "least": least, **shown}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata, repr=repr_)


def check_least(settings: Any) -> None:
    """Raise InvalidSetting unless the value is a number of at least ``least``."""
    for one in fields(settings):
        least, value = one.metadata.get("least"), getattr(settings, one.name)
        if least is not None and value is not None and not least <= value < float("inf"):
            raise InvalidSetting(
                f"{value!r} is not a valid value", one.name, f"Give at least {least}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """Settings of a `Service`. Times are seconds unless their name says otherwise.

    Raises InvalidSetting for an invalid value.
    """

    token_wait: float = setting(
        60.0, "Time until a missing activity token is reported.", least=1.0, metavar="SECONDS"
    )
    suspect_wait: float = setting(
        600.0,
        "Time after which a start without activity token and receipt counts as unanswered.",
        least=1.0,
        metavar="SECONDS",
    )
    # The default of apps that set none themselves. Two unanswered starts in a row make a token
    # suspect.
    suspect_tokens: Literal["use", "last", "skip"] = setting(
        "last", "Start suspect tokens like the others, after them, or not at all."
    )
    outcome_days: float = setting(
        30.0, "How long operations and outcomes are kept.", least=0.0, metavar="DAYS"
    )
    receipt_days: float = setting(30.0, "How long receipts are kept.", least=0.0, metavar="DAYS")
    activity_days: float = setting(
        30.0, "How long ended activities are kept.", least=0.0, metavar="DAYS"
    )
    token_days: float = setting(
        30.0, "How long retired tokens are kept.", least=0.0, metavar="DAYS"
    )
    audit_days: float = setting(365.0, "How long the audit log is kept.", least=0.0, metavar="DAYS")
    device_limit: int | None = setting(
        None, "Maximum of active cards of an app on one device. [no limit]", least=1, kind=int
    )
    device_limit_ends: Literal["oldest", "least relevant"] = setting(
        "oldest", "Which card ends when the limit is exceeded."
    )
    # Only while its caller still updates it, and if the last start gave a token or follows a
    # channel.
    hand_over_after: float = setting(
        HAND_OVER_AFTER,
        "Age at which a card is replaced by a new one, before iOS ends it at 8 hours; 0: never.",
        least=0.0,
        metavar="SECONDS",
    )
    # A start that names a channel fails before iOS 18; a device that reported no version may be
    # older.
    channel_devices: Literal["ios18", "all"] = setting(
        "ios18", "Which devices follow an activity's channel; the others use activity tokens."
    )
    # Apple advises channels from hundreds of viewers on. Not used where a device limit is set, nor
    # for vendors' APIs.
    channel_from: int = setting(
        500,
        "Devices from which on the service makes an activity's channel itself; 0: never.",
        least=0,
    )
    # By default an hour's pushes at priority 10 may be sent at once, down to the reserve; the
    # presets default and frequent have a pace.
    budget: Literal["default", "frequent", "observed", "observed-frequent"] = setting(
        "observed", "Priority budget of apps that do not set their own."
    )
    drain: float = setting(
        10.0, "How long closing waits for calls and pushes in flight.", least=0.0, metavar="SECONDS"
    )
    starts_at_once: int = setting(64, "Starts that are sent in parallel.", least=1)
    # Of idle activities, so that their next update does not read them again.
    tokens_in_memory: int = setting(300_000, "Maximum of cached activity tokens.", least=0)
    key_check: float = setting(
        60.0, "Interval of checks for new provider keys.", least=1.0, metavar="SECONDS"
    )
    # Multiplied by the number of their environments. Above this the longest idle one is closed.
    carriers_open: int = setting(100, "Maximum of apps that keep connections to APNs.", least=1)
    # On PostgreSQL.
    lease: float = setting(
        5.0, "How long a dead process keeps its partitions.", least=1.0, metavar="SECONDS"
    )
    carrier_idle: float = setting(
        900.0, "Time until an idle app's connections are closed.", least=1.0, metavar="SECONDS"
    )
    client: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for every `apns_live.Client`."""

    def __post_init__(self) -> None:
        check_least(self)
        if self.hand_over_after > LATEST_HAND_OVER:
            raise InvalidSetting(
                f"{self.hand_over_after:g} is too late: iOS ends a card at 28800",
                "hand_over_after",
                f"Give at most {LATEST_HAND_OVER:g} seconds, or 0 for never.",
            )
