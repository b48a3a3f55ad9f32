"""Sends Live Activity pushes directly to APNs. Includes a local fake APNs for tests.

Names are imported on first use, so that a part (the command line, say) does not load the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import ApnsLiveError
from .outcome import Outcome, Verdict

if TYPE_CHECKING:
    from .client import Client, Endpoint, Hooks, Report, Run, Statistics
    from .credentials import ProviderKey
    from .payload import (
        ActivityToken,
        Alert,
        Background,
        ChannelId,
        CriticalSound,
        DeviceToken,
        End,
        Localized,
        Notification,
        Start,
        StartToken,
        Update,
        apple_date,
    )

__all__ = [
    "ActivityToken",
    "Alert",
    "ApnsLiveError",
    "Background",
    "ChannelId",
    "Client",
    "CriticalSound",
    "DeviceToken",
    "End",
    "Endpoint",
    "Hooks",
    "Localized",
    "Notification",
    "Outcome",
    "ProviderKey",
    "Report",
    "Run",
    "Start",
    "StartToken",
    "Statistics",
    "Update",
    "Verdict",
    "apple_date",
]

_ROOMS = dict.fromkeys(__all__, "payload") | dict.fromkeys(
    ("Client", "Endpoint", "Hooks", "Report", "Run", "Statistics"), "client"
)
_ROOMS["ProviderKey"] = "credentials"


def __getattr__(name: str) -> object:
    room = _ROOMS.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
