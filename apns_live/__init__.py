"""A direct APNs engine for Live Activity pushes, with a local fake APNs to test against."""

from .client import Client, Endpoint, Hooks, Report, Run, Statistics
from .credentials import ProviderKey
from .errors import ApnsLiveError
from .outcome import Outcome, Verdict
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
