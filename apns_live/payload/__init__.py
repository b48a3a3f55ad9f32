"""Messages for live activities and ordinary pushes: validation and encoding."""

from .alert import Alert, CriticalSound, Localized
from .dates import DateInput, apple_date
from .encode import EncodedMessage, encode
from .findings import Finding, PayloadProblem, PayloadWarning
from .lint import LintReport, lint
from .messages import ActivityMessage, End, Message, Start, Update
from .notification import Background, Notification
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
