"""Messages for live activities and ordinary pushes: validation and encoding."""

from .encode import EncodedMessage, encode
from .lint import LintReport, lint
from .messages import (
    ActivityMessage,
    Alert,
    Background,
    CriticalSound,
    End,
    Localized,
    Message,
    Notification,
    Start,
    Update,
)
from .rules import Finding, PayloadProblem, PayloadWarning
from .tokens import (
    ActivityToken,
    ChannelId,
    DeviceToken,
    StartToken,
    are_tokens,
    check_bundle_id,
    check_channel,
    check_collapse_id,
    check_token,
)
from .values import DateInput, apple_date

__all__ = [
    "ActivityMessage",
    "ActivityToken",
    "Alert",
    "Background",
    "ChannelId",
    "CriticalSound",
    "DateInput",
    "DeviceToken",
    "EncodedMessage",
    "End",
    "Finding",
    "LintReport",
    "Localized",
    "Message",
    "Notification",
    "PayloadProblem",
    "PayloadWarning",
    "Start",
    "StartToken",
    "Update",
    "apple_date",
    "are_tokens",
    "check_bundle_id",
    "check_channel",
    "check_collapse_id",
    "check_token",
    "encode",
    "lint",
]
