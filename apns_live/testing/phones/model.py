"""The records of a simulated phone: tokens, activities, the device itself.

They have state and queries; ``population`` changes them. They are small, so that 100,000 phones with one
activity each need a few hundred megabytes. Parts that most phones do not need (budgets, storage,
notifications) are created on first use.
"""

from __future__ import annotations

from math import inf
from typing import Literal

import msgspec

from apns_live.testing.log import PushRecord
from apns_live.testing.state import LIVE, TokenCondition, TokenStatus
from apns_live.testing.topics import split

from .decoding import as_json
from .settings import Budget, Consent

TokenKind = Literal["device", "start", "activity", "widgets", "controls"]
NOTIFICATIONS_KEPT = 20
ENDED_KEPT = 3
"""Dismissed activities that a phone still lists."""


class Token(msgspec.Struct, eq=False):
    """One token that APNs knows, and its owner.

    ``status`` is what APNs answers. ``silent`` means that APNs still answers 200 and the phone shows
    nothing. ``told`` is False while the app's token stream has not delivered it. ``sequence`` counts
    all tokens of one fake in the order of issue. ``attributes_type`` of a control's token is the
    control's kind.
    """

    text: str
    kind: TokenKind
    topic: str
    device: Device
    attributes_type: str | None = None
    activity: Activity | None = None
    automatic: bool = False
    status: TokenStatus = LIVE
    silent: bool = False
    told: bool = True
    sequence: int = 0

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


class Refresh(msgspec.Struct, eq=False):
    """The time of the last refresh, and the content that waits for the next one (``due``)."""

    at: float
    content: bytes = b""
    due: float | None = None


class Card(msgspec.Struct, eq=False):
    """The display of a Live Activity. Content is kept as the received JSON bytes.

    ``content`` is shown now; ``refresh`` has the newer one that waits for the next refresh.
    """

    attributes_type: str | None = None
    attributes: bytes = b""
    content: bytes = b""
    refresh: Refresh | None = None
    timestamp: float = 0
    updated_at: float = 0.0
    updates: int = 0
    ignored: int = 0
    stale: bool = False
    stale_date: float | None = None
    relevance_score: float | None = None
    alert: bytes = b""
    alerted_at: float | None = None
    alerts: int = 0

    @property
    def content_state(self) -> object:
        """The content state that is shown, decoded; None when there is none."""
        return as_json(self.content)


class Activity(Card, kw_only=True, eq=False):
    """One Live Activity on one phone.

    ``state`` is ``active``, ``ended`` (still on the Lock Screen) or ``dismissed``. ``asks`` while its
    owner has not consented. ``wake_at`` is the time of its entry in the schedule.
    """

    id: str
    device: Device
    bundle_id: str
    started_at: float
    ends_at: float
    state: Literal["active", "ended", "dismissed"] = "active"
    ended_at: float | None = None
    ended_by: str | None = None
    dismissal_date: float | None = None
    token: Token | None = None
    token_due: float | None = None
    rotate_at: float | None = None
    expires_at: float | None = None
    channel: str | None = None
    collapse_id: str | None = None
    asks: bool = False
    wake_at: float | None = None

    def next_due(self) -> float | None:
        """Return the time of its next scheduled event, or None."""
        due = [self.token_due, self.rotate_at, self.expires_at]
        if self.refresh is not None:
            due.append(self.refresh.due)
        if self.state == "active":
            due.append(self.ends_at)
            if not self.stale:
                due.append(self.stale_date)
        elif self.state == "ended":
            due.append(self.dismissal_date)
        return min((moment for moment in due if moment is not None), default=None)

    def __repr__(self) -> str:
        kind = self.attributes_type or "unknown type"
        return f"<Activity {self.id} ({kind}) on {self.device.id}, {self.state}>"


class PushToPhone(msgspec.Struct, frozen=True, eq=False):
    """A push on delivery to a phone. ``token`` is None for a broadcast to one ``activity``."""

    record: PushRecord
    device: Device
    activity: Activity | None
    token: Token | None = None

    @property
    def shown(self) -> Activity | None:
        """The activity that it changes, or None if that is unknown."""
        return self.activity if self.token is None else self.token.activity


class Switches(msgspec.Struct, kw_only=True, eq=False):
    """The owner's settings of a phone, and its model.

    ``awake``: in use, so that pushes of priority 5 arrive at once. ``app_version`` selects the contract
    by which it decodes.
    """

    os_version: tuple[int, int] = (18, 0)
    app_version: str = ""
    awake: bool = True
    low_power: bool = False
    live_activities_enabled: bool = True
    frequent_pushes: bool = True
    has_dynamic_island: bool = True
    consent: Consent = "always"


class Device(Switches, kw_only=True, eq=False):
    """One simulated phone.

    ``offline_until`` is the end of a time without a network; infinite if it has no end.
    ``budgets`` are those of ``("starts", bundle id)`` and ``("pushes", bundle id)``, or
    ``("pushes", activity id)`` unpooled.
    """

    id: str
    serial: int
    automatic: bool = False
    offline_until: float | None = None
    removed: bool = False
    starts: int = 0
    tokens: list[Token] = []
    activities: list[Activity] = []
    budgets: dict[tuple[str, str], Budget] | None = None
    stored: dict[str, PushToPhone] | None = None
    held: list[PushToPhone] | None = None
    notifications: list[PushRecord] | None = None
    burst_at: float | None = None
    wake_at: float | None = None

    @property
    def online(self) -> bool:
        """False while it is offline without an end."""
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
