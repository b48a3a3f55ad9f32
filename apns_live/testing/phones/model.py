"""The records of a simulated phone: tokens, activities, the device itself.

They hold state and answer questions about it; what changes them is in ``population``. They are
small on purpose: 100,000 phones with one activity each fit in a few hundred megabytes, so parts
that most phones never need (budgets, storage, notifications) are made when they are first used.
"""

from __future__ import annotations

from math import inf
from typing import Literal

from apns_live.testing.log import PushRecord
from apns_live.testing.state import LIVE, TokenCondition, TokenStatus
from apns_live.testing.topics import split

from .budget import Budget
from .decoding import as_json
from .settings import Consent

TokenKind = Literal["device", "start", "activity", "widgets", "controls"]
NOTIFICATIONS_KEPT = 20
ENDED_KEPT = 3
"""Dismissed activities that a phone still lists."""


class Token:
    """One token that APNs knows, and whose it is.

    ``status`` is what APNs answers. ``silent`` means that APNs still answers 200 and nothing
    happens. ``told`` is False while the app does not know of it: its token stream was silent.
    ``sequence`` counts all tokens of one fake in the order of issue. ``attributes_type`` of a
    control's token is the control's kind.
    """

    __slots__ = (
        "activity",
        "attributes_type",
        "automatic",
        "device",
        "kind",
        "sequence",
        "silent",
        "status",
        "text",
        "told",
        "topic",
    )

    def __init__(
        self,
        text: str,
        kind: TokenKind,
        topic: str,
        device: Device,
        attributes_type: str | None = None,
        activity: Activity | None = None,
        automatic: bool = False,
    ) -> None:
        self.text = text
        self.kind: TokenKind = kind
        self.topic = topic
        self.device = device
        self.attributes_type = attributes_type
        self.activity = activity
        self.automatic = automatic
        self.status: TokenStatus = LIVE
        self.silent = False
        self.told = True
        self.sequence = 0

    @property
    def bundle_id(self) -> str:
        """The app it belongs to."""
        return split(self.topic)[0]

    @property
    def condition(self) -> str:
        """``live``, ``silent``, ``expired`` or ``unregistered``."""
        if self.status.condition is not TokenCondition.LIVE:
            return str(self.status.condition.value)
        return "silent" if self.silent else "live"

    def __repr__(self) -> str:
        return f"<Token {self.kind} {self.text[:8]}... of {self.device.id}, {self.condition}>"


class Activity:
    """One Live Activity on one phone. Content is kept as the JSON bytes that arrived.

    ``state`` is ``active``, ``ended`` (still on the Lock Screen) or ``dismissed``. ``content`` is what
    is shown; ``refresh`` the newer one that waits for the next refresh. ``asks`` while its owner has
    not consented. ``wake_at`` is the time of its entry in the schedule.
    """

    __slots__ = (
        "alert",
        "alerted_at",
        "alerts",
        "asks",
        "attributes",
        "attributes_type",
        "bundle_id",
        "channel",
        "collapse_id",
        "content",
        "device",
        "dismissal_date",
        "ended_at",
        "ended_by",
        "ends_at",
        "expires_at",
        "id",
        "ignored",
        "refresh",
        "relevance_score",
        "rotate_at",
        "stale",
        "stale_date",
        "started_at",
        "state",
        "timestamp",
        "token",
        "token_due",
        "updated_at",
        "updates",
        "wake_at",
    )

    def __init__(
        self,
        activity_id: str,
        device: Device,
        bundle_id: str,
        attributes_type: str | None,
        attributes: bytes,
        now: float,
        ends_at: float,
    ) -> None:
        self.id = activity_id
        self.device = device
        self.bundle_id = bundle_id
        self.attributes_type = attributes_type
        self.attributes = attributes
        self.content = b""
        self.timestamp: float = 0
        self.state: Literal["active", "ended", "dismissed"] = "active"
        self.started_at = self.updated_at = now
        self.ends_at = ends_at
        self.ended_at: float | None = None
        self.ended_by: str | None = None
        self.stale = False
        self.stale_date: float | None = None
        self.dismissal_date: float | None = None
        self.relevance_score: float | None = None
        self.alert = b""
        self.alerted_at: float | None = None
        self.alerts = 0
        self.token: Token | None = None
        self.token_due: float | None = None
        self.rotate_at: float | None = None
        self.expires_at: float | None = None
        self.channel: str | None = None
        self.collapse_id: str | None = None
        self.asks = False
        self.refresh: Refresh | None = None
        self.updates = 0
        self.ignored = 0
        self.wake_at: float | None = None

    @property
    def content_state(self) -> object:
        """The content state that is shown, decoded; None when there is none."""
        return as_json(self.content)

    @property
    def is_visible(self) -> bool:
        """Whether the Lock Screen shows it."""
        return self.state != "dismissed"

    def next_due(self) -> float | None:
        """Return when something next happens to it by itself, or None."""
        due = self.token_due
        refresh_at = self.refresh.due if self.refresh is not None else None
        for moment in (self.rotate_at, self.expires_at, refresh_at):
            if moment is not None and (due is None or moment < due):
                due = moment
        if self.state == "active":
            if due is None or self.ends_at < due:
                due = self.ends_at
            if not self.stale and self.stale_date is not None and self.stale_date < due:
                due = self.stale_date
        elif (
            self.state == "ended"
            and self.dismissal_date is not None
            and (due is None or self.dismissal_date < due)
        ):
            due = self.dismissal_date
        return due

    def __repr__(self) -> str:
        kind = self.attributes_type or "unknown type"
        return f"<Activity {self.id} ({kind}) on {self.device.id}, {self.state}>"


class Refresh:
    """When what is shown was last refreshed, and what waits for the next time (``due``)."""

    __slots__ = ("at", "content", "due")

    def __init__(self, at: float) -> None:
        self.at = at
        self.content = b""
        self.due: float | None = None


class StoredPush:
    """A push that waits for a phone. ``token`` is None for a broadcast, which has ``activity``."""

    __slots__ = ("activity", "record", "token")

    def __init__(self, record: PushRecord, token: Token | None, activity: Activity | None) -> None:
        self.record = record
        self.token = token
        self.activity = activity


class Device:
    """One simulated phone.

    ``offline_until`` ends a stretch without a network; infinite when ``online`` was set to False.
    ``awake``: in use, so that pushes of priority 5 arrive at once. ``budgets`` are those of
    ``("starts", bundle id)`` and ``("pushes", bundle id)``, or ``("pushes", activity id)`` unpooled.
    """

    __slots__ = (
        "activities",
        "automatic",
        "awake",
        "budgets",
        "burst_at",
        "consent",
        "frequent_pushes",
        "has_dynamic_island",
        "held",
        "id",
        "live_activities_enabled",
        "low_power",
        "notifications",
        "offline_until",
        "os_version",
        "removed",
        "serial",
        "starts",
        "stored",
        "tokens",
        "wake_at",
    )

    def __init__(
        self,
        device_id: str,
        *,
        serial: int,
        automatic: bool = False,
        os_version: tuple[int, int] = (18, 0),
        online: bool = True,
        awake: bool = True,
        low_power: bool = False,
        live_activities_enabled: bool = True,
        frequent_pushes: bool = True,
        has_dynamic_island: bool = True,
        consent: Consent = "always",
    ) -> None:
        self.id = device_id
        self.serial = serial
        self.automatic = automatic
        self.os_version = os_version
        self.awake = awake
        self.low_power = low_power
        self.live_activities_enabled = live_activities_enabled
        self.frequent_pushes = frequent_pushes
        self.has_dynamic_island = has_dynamic_island
        self.consent: Consent = consent
        self.offline_until: float | None = None if online else inf
        self.removed = False
        self.starts = 0
        self.tokens: list[Token] = []
        self.activities: list[Activity] = []
        self.budgets: dict[tuple[str, str], Budget] | None = None
        self.stored: dict[str, StoredPush] | None = None
        self.held: list[StoredPush] | None = None
        self.notifications: list[PushRecord] | None = None
        self.burst_at: float | None = None
        self.wake_at: float | None = None

    @property
    def online(self) -> bool:
        """False while its network was taken away for good."""
        return self.offline_until != inf

    @property
    def waiting(self) -> int:
        """How many pushes wait for this phone."""
        return len(self.stored or ()) + len(self.held or ())

    def token_of(
        self, kind: TokenKind, attributes_type: str | None = None, bundle_id: str | None = None
    ) -> Token | None:
        """Return its current token of a kind, the newest if there are several."""
        for token in reversed(self.tokens):
            if (
                token.kind == kind
                and attributes_type in {None, token.attributes_type}
                and bundle_id in {None, token.bundle_id}
            ):
                return token
        return None

    def __repr__(self) -> str:
        return f"<Device {self.id}, {len(self.activities)} activities>"
