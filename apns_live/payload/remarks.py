"""The warnings: what Apple accepts and then ignores, caps or shows otherwise than meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .findings import PayloadWarning
from .messages import ActivityMessage, Start
from .notification import Notification

TIMESTAMP_SLACK = 60
LONGEST_STORAGE = 30 * 86_400
LONGEST_DISMISSAL = 4 * 3600

APS_KEYS = frozenset(
    [
        "alert",
        "attributes",
        "attributes-type",
        "badge",
        "category",
        "content-available",
        "content-state",
        "dismissal-date",
        "event",
        "filter-criteria",
        "input-push-channel",
        "input-push-token",
        "interruption-level",
        "mutable-content",
        "relevance-score",
        "sound",
        "stale-date",
        "target-content-id",
        "thread-id",
        "timestamp",
    ]
)
"""Apple's keys inside ``aps``; beside it they mean nothing."""


def on_activity(
    message: ActivityMessage,
    aps: Mapping[str, Any],
    *,
    now: float,
    expiration: int,
    warnings: list[PayloadWarning],
) -> None:
    """Warn about an activity's dates, alert and inputs."""
    stamp = aps["timestamp"]
    if abs(stamp - now) > TIMESTAMP_SLACK:
        warnings.append(timestamp_off(stamp, now, "timestamp"))
    alert = message.alert
    if alert is not None and not (alert.title and alert.body):
        _on_alert(message, warnings)
    if "stale-date" in aps and aps["stale-date"] <= now:
        warnings.append(
            PayloadWarning(
                "stale_date_past",
                "stale_date",
                "has passed, so the phone shows the state as stale from the start.",
            )
        )
    if "dismissal-date" in aps and aps["dismissal-date"] > now + LONGEST_DISMISSAL + 1:
        warnings.append(
            PayloadWarning(
                "dismissal_date_capped",
                "dismissal_date",
                "is more than 4 hours away; the system removes the card 4 hours after the end.",
            )
        )
    if message.expiration is not None:
        on_expiration(expiration, now, warnings)
        if isinstance(message, Start) and expiration == 0:
            warnings.append(
                PayloadWarning(
                    "start_not_stored",
                    "expiration",
                    "is 0, so a phone that is offline for a moment never sees this start. "
                    "Leave it out for 10 minutes.",
                )
            )
    if (
        isinstance(message, Start)
        and message.input_push_token is False
        and message.input_push_channel is None
    ):
        warnings.append(
            PayloadWarning(
                "no_update_token",
                "input_push_token",
                "is off and there is no channel: from iOS 18 the activity reports no token, so it "
                "cannot be updated by push.",
            )
        )


def _on_alert(message: ActivityMessage, warnings: list[PayloadWarning]) -> None:
    alert = message.alert
    assert alert is not None  # noqa: S101 - the caller looked; this tells the type checker
    if not alert.title and not alert.body:
        warnings.append(
            PayloadWarning(
                "sound_without_title",
                "alert.sound",
                "has no title or body beside it; a phone may play nothing. Give the alert a title.",
            )
        )
        return
    missing = "body" if alert.title else "title"
    warnings.append(
        PayloadWarning(
            "alert_incomplete",
            f"alert.{missing}",
            "is missing; ActivityKit's alerts have both a title and a body.",
        )
    )


def on_expiration(expiration: int, now: float, warnings: list[PayloadWarning]) -> None:
    """Warn about an expiration of the caller's that APNs will not honour as given."""
    if expiration and expiration <= now:
        warnings.append(
            PayloadWarning(
                "expiration_past",
                "expiration",
                "has passed, so APNs tries once and stores nothing. Pass 0 if that is meant.",
            )
        )
    elif expiration > now + LONGEST_STORAGE:
        warnings.append(
            PayloadWarning(
                "expiration_capped",
                "expiration",
                "is more than 30 days away; APNs stores a push for 30 days at most.",
            )
        )


def on_notification(message: Notification, warnings: list[PayloadWarning]) -> None:
    """Warn about an ordinary push whose parts do not fit."""
    if message.sound is not None and not (message.title or message.body or message.subtitle):
        warnings.append(
            PayloadWarning(
                "sound_without_title",
                "sound",
                "has no title or body beside it, so the person hears it and sees nothing.",
            )
        )
    if message.filter_criteria is not None and message.interruption_level in {
        "time-sensitive",
        "critical",
    }:
        warnings.append(
            PayloadWarning(
                "filter_ignored",
                "filter_criteria",
                f"has no effect at interruption level {message.interruption_level}: such a push "
                "breaks through a Focus.",
            )
        )


def on_custom(custom: Mapping[str, Any], warnings: list[PayloadWarning], *, activity: bool) -> None:
    """Warn about keys beside ``aps`` that mean something only inside it."""
    warnings.extend(
        PayloadWarning(
            "misplaced_key",
            f"custom.{key}",
            "is a name of Apple's that means something only inside aps. Use the message's field.",
        )
        for key in custom
        if key in APS_KEYS
    )
    if activity and custom:
        warnings.append(
            PayloadWarning(
                "custom_undocumented",
                "custom",
                "stands beside aps, and Apple does not say whether an activity gets such keys. "
                "Put what the card shows into the content state.",
            )
        )


def timestamp_off(stamp: float, now: float, field: str) -> PayloadWarning:
    """Return the warning for a timestamp more than a minute off."""
    seconds = round(abs(stamp - now))
    if stamp < now:
        return PayloadWarning(
            "timestamp_old",
            field,
            f"is {seconds} s old; a phone ignores a state older than the last one it applied. "
            "Leave it out to use the current time.",
        )
    return PayloadWarning(
        "timestamp_ahead",
        field,
        f"is {seconds} s ahead; until then the phone takes every correct push for an older one. "
        "Leave it out to use the current time.",
    )
