"""Subscribers of broadcast channels, and the stored message for later subscribers.

Storage policy 1 keeps the newest message, eight hours at most; policy 0 keeps nothing (Apple,
"Sending channel management requests to APNs"). A broadcast is not counted against an activity's
hourly budget here: what Apple counts for channels is not published.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from apns_live.testing.log import PushRecord

from .model import Activity

KEPT_FOR = 8 * 3600.0
MOST_FEEDS = 50_000
"""An app has at most 10,000 channels."""


@dataclass(slots=True, eq=False)
class Feed:
    """One channel: its listeners in the order in which they joined, and its newest message."""

    activities: dict[Activity, None] = field(default_factory=dict)
    latest: PushRecord | None = None


def kept_until(record: PushRecord) -> float:
    """Return when a stored broadcast is deleted; 0 if it is not stored."""
    push = record.push
    if push.storage_policy != 1 or push.expiration == 0:
        return 0.0
    longest = push.received_at + KEPT_FOR
    return longest if push.expiration is None else min(longest, float(push.expiration))


class Feeds:
    """All channels that have a listener or a stored message."""

    def __init__(self) -> None:
        self._feeds: dict[tuple[str, str], Feed] = {}

    def of(self, bundle_id: str, channel_id: str) -> Feed:
        """Return a channel's feed."""
        key = (bundle_id, channel_id)
        feed = self._feeds.get(key)
        if feed is None:
            if len(self._feeds) >= MOST_FEEDS:
                # Feeds of deleted channels remain. Drop those without listeners.
                self._feeds = {each: kept for each, kept in self._feeds.items() if kept.activities}
            feed = self._feeds[key] = Feed()
        return feed

    def leave(self, activity: Activity) -> None:
        """Remove an activity from its channel."""
        if activity.channel is not None:
            feed = self._feeds.get((activity.bundle_id, activity.channel))
            if feed is not None:
                feed.activities.pop(activity, None)

    def clear(self) -> None:
        """Remove all channels."""
        self._feeds.clear()
